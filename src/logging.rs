//! Log records of the Rust side, on their way to Python `logging` (through pyo3-log), so that a user's logging.json
//! governs them like any other.
//!
//! `log` puts owned records into a bounded queue without touching Python; one thread takes them out, attaches to the
//! interpreter once for as many as there are, and emits them. Runs in the front only. A queue that overflows drops
//! records rather than hold up requests, and says how many.

use std::sync::{
    atomic::{AtomicU64, Ordering},
    mpsc::{sync_channel, Receiver, SyncSender, TrySendError},
    Arc,
};
use std::thread::JoinHandle;

use log::{kv, Level, LevelFilter, Log, Metadata, Record};
use pyo3::prelude::*;

/// Records that may wait; at about 200 bytes each.
const CAPACITY: usize = 16 * 1024;
/// Attribute of a record that names the worker a request was served by; `log_config.py` turns it into the pid shown.
const WORKER_PID: &str = "worker_pid";

struct OwnedRecord {
    level: Level,
    target: String,
    message: String,
    worker_pid: Option<u64>,
}

enum Message {
    Record(OwnedRecord),
    End,
}

struct QueueLogger {
    queue: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

impl Log for QueueLogger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("azmlinfsrv")
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let owned = OwnedRecord {
            level: record.level(),
            target: record.target().replace('.', "::"),
            message: record.args().to_string(),
            worker_pid: record.key_values().get(kv::Key::from_str(WORKER_PID)).and_then(|pid| pid.to_u64()),
        };
        if let Err(TrySendError::Full(_)) = self.queue.try_send(Message::Record(owned)) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn flush(&self) {}
}

/// The thread that emits records. Call [`Drain::finish`] before the process ends.
pub(crate) struct Drain {
    queue: SyncSender<Message>,
    thread: JoinHandle<()>,
}

impl Drain {
    /// Emits what is queued and ends the thread. Must be called without holding the GIL.
    pub(crate) fn finish(self) {
        // Blocks while the queue is full, until the thread has made room; fails only if the thread is gone already.
        let _ = self.queue.send(Message::End);
        let _ = self.thread.join();
    }
}

/// Installs the logger for this process; `level` is the lowest Python level that any of our loggers lets through.
pub(crate) fn install(py: Python<'_>, level: LevelFilter) -> PyResult<Drain> {
    let (queue, records) = sync_channel(CAPACITY);
    let dropped = Arc::new(AtomicU64::new(0));
    let python = pyo3_log::Logger::new(py, pyo3_log::Caching::LoggersAndLevels)?.filter(level);
    let logger = QueueLogger { queue: queue.clone(), dropped: dropped.clone() };
    log::set_boxed_logger(Box::new(logger))
        .map_err(|error| pyo3::exceptions::PyRuntimeError::new_err(format!("logging is set up already: {error}")))?;
    log::set_max_level(level);
    let thread = std::thread::Builder::new()
        .name("azmlinfsrv-log".to_owned())
        .spawn(move || emit_all(&records, &python, &dropped))?;
    Ok(Drain { queue, thread })
}

fn emit_all(records: &Receiver<Message>, python: &pyo3_log::Logger, dropped: &AtomicU64) {
    while let Ok(Message::Record(first)) = records.recv() {
        let ended = Python::attach(|py| {
            emit(py, python, &first);
            // As many as are there, under one attachment.
            loop {
                match records.try_recv() {
                    Ok(Message::Record(next)) => emit(py, python, &next),
                    Ok(Message::End) => break true,
                    Err(_) => break false,
                }
            }
        });
        report_dropped(python, dropped);
        if ended {
            return;
        }
    }
}

fn report_dropped(python: &pyo3_log::Logger, dropped: &AtomicU64) {
    let count = dropped.swap(0, Ordering::Relaxed);
    if count > 0 {
        let message = format!("{count} log records were dropped because they came faster than they could be written");
        let record = OwnedRecord { level: Level::Warn, target: "azmlinfsrv".to_owned(), message, worker_pid: None };
        Python::attach(|py| emit(py, python, &record));
    }
}

fn emit(py: Python<'_>, python: &pyo3_log::Logger, record: &OwnedRecord) {
    let pair = record.worker_pid.map(|pid| (WORKER_PID, pid));
    let fields: &dyn kv::Source = &pair;
    python.log(
        &Record::builder()
            .level(record.level)
            .target(&record.target)
            .args(format_args!("{}", record.message))
            .key_values(fields)
            .build(),
    );
    // pyo3-log leaves an error of a Python handler pending. It concerns the handler, not us: show and clear it.
    if let Some(error) = PyErr::take(py) {
        error.write_unraisable(py, None);
    }
}
