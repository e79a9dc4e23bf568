//! Log records of the front, off the request path: `log` puts them into a bounded queue, one thread
//! takes them out.
//!
//! Records go to one of two places. With the package's own logging config the line format is known
//! (text, or JSON with `--log_format json`), and the thread writes batches to standard output
//! without Python. With a user's logging.json every record goes to Python `logging` through
//! pyo3-log, so that the file applies to it. If that file names `gunicorn.access`, a Python function makes its records (`log_config.log_access`). A
//! full queue drops records, so that requests never wait for the log, and the log says how many
//! were dropped. The text of every record is made one plain line here, because clients choose parts
//! of it (`text.rs`).

mod json_line;
mod lines;
mod queue;
mod record;
mod request_line;
pub(crate) mod text;

use std::{
    borrow::Cow,
    fmt::Write as _,
    io::{self, Stderr, Write},
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use log::{kv, Level, LevelFilter, Log, Metadata, Record};
use pyo3::{prelude::*, types::PyDict};

use self::{
    lines::{Format, Lines},
    queue::{Entry, Queue, GATHER},
    record::OwnedRecord,
    text::plain_line,
};
use crate::{
    fault_injection::{point, Point},
    front::{JsonLines, ACCESS_LOGGER, REQUEST_LOGGER},
    panics::catch,
    telemetry::access_fields::Fields,
};

/// Room for the text of a request line, so that the text grows once and not in steps.
const USUAL_MESSAGE: usize = 64;
/// Room for so many records stays with the thread that writes them, so that it need not be allocated for each batch.
const KEPT: usize = 1024;
/// How long the process waits at its end for records to be written. A full pipe that nobody reads
/// must not keep the process alive.
const PATIENCE: Duration = Duration::from_millis(500);
/// Attribute of a record with the pid of the worker that served the request. `log_config.py` shows
/// it as the record's pid.
const WORKER_PID: &str = "worker_pid";
/// Fields that records of Python have as attributes too (`scripting/current_request.py`).
const IDS: [&str; 3] = ["request_id", "client_request_id", "trace_id"];

struct QueueLogger {
    queue: Arc<Queue>,
    /// The least severe level of the server's own loggers that is logged.
    level: LevelFilter,
    /// True if access records are wanted.
    access: bool,
    /// True if the fields of other records are wanted.
    fields: bool,
}

impl Log for QueueLogger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        if metadata.target() == ACCESS_LOGGER {
            return self.access;
        }
        metadata.level() <= self.level && metadata.target().starts_with("azmlinfsrv")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let pid = record.key_values().get(kv::Key::from_str(WORKER_PID)).and_then(|pid| pid.to_u64());
            let mut message = String::with_capacity(USUAL_MESSAGE);
            // Writing to a string fails only if the value's own `Display` fails.
            let _ = message.write_fmt(*record.args());
            // Most records are request lines, whose target needs no allocation.
            let target = match record.target() {
                REQUEST_LOGGER => Cow::Borrowed(REQUEST_LOGGER),
                other => Cow::Owned(other.to_owned()),
            };
            let mut owned = OwnedRecord::new(record.level(), target, plain_line(message), pid);
            owned.is_access = record.target() == ACCESS_LOGGER;
            if owned.is_access || self.fields {
                // This cannot fail, because `Fields` accepts every pair.
                let _ = record.key_values().visit(&mut owned.fields);
            }
            self.queue.push(Entry::Record(owned));
        }
    }

    fn flush(&self) {}
}

/// The destination of records.
enum Sink {
    /// Lines in a format of the server's own.
    Lines(Lines<Box<dyn Write + Send>, Stderr>),
    /// Python `logging`; and the function that takes access records, if they are wanted.
    Python { logger: pyo3_log::Logger, access: Option<Py<PyAny>> },
}

impl Sink {
    fn emit(&mut self, records: &[Entry]) {
        point(Point::Log);
        match self {
            Self::Lines(lines) => lines.emit(records),
            Self::Python { logger, access } => Python::attach(|py| {
                for entry in records {
                    // Requests come only if lines are JSON.
                    let Entry::Record(record) = entry else { continue };
                    match (record.is_access, &*access) {
                        (false, _) => hand_over(py, logger, record),
                        (true, Some(access)) => hand_over_access(py, access, &record.fields),
                        (true, None) => {}
                    }
                }
            }),
        }
    }
}

/// The thread that emits records. Call [`Drain::finish`] before the process ends.
pub(crate) struct Drain {
    queue: Arc<Queue>,
    thread: JoinHandle<()>,
}

impl Drain {
    /// Takes requests whose lines are JSON.
    pub(crate) fn json_lines(&self) -> JsonLines {
        let queue = self.queue.clone();
        Box::new(move |request| queue.push(Entry::Request(request)))
    }

    /// Emits the queued records and ends the thread. Gives up after [`PATIENCE`] if nobody reads
    /// the output. Must be called without the GIL.
    pub(crate) fn finish(self) {
        self.queue.end();
        let deadline = Instant::now() + PATIENCE;
        while !self.thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(GATHER);
        }
    }
}

/// Where `serve` is told to send records.
pub(crate) enum Destination {
    /// Standard output, in the package's own format of contract section 13.
    Text {
        /// Lines get colours.
        colour: bool,
    },
    /// JSON lines, to this file.
    Json(Box<dyn Write + Send>),
    /// Python `logging`; access records, if they are wanted, to this function.
    Python(Option<Py<PyAny>>),
}

/// Installs the logger for this process. `level` is the least severe level of the server's own
/// loggers that is logged.
pub(crate) fn install(py: Python<'_>, level: LevelFilter, destination: Destination) -> PyResult<Drain> {
    let wants_access = matches!(destination, Destination::Python(Some(_)));
    let wants_fields = !matches!(destination, Destination::Text { .. });
    let lines = |output: Box<dyn Write + Send>, format| Sink::Lines(Lines::new(output, io::stderr(), format));
    let mut sink = match destination {
        Destination::Text { colour } => lines(Box::new(io::stdout()), Format::Text { colour }),
        Destination::Json(output) => lines(output, Format::Json),
        Destination::Python(access) => {
            let logger = pyo3_log::Logger::new(py, pyo3_log::Caching::LoggersAndLevels)?.filter(level);
            Sink::Python { logger, access }
        }
    };
    let queue = Arc::<Queue>::default();
    let logger = QueueLogger { queue: queue.clone(), level, access: wants_access, fields: wants_fields };
    log::set_boxed_logger(Box::new(logger))
        .map_err(|error| pyo3::exceptions::PyRuntimeError::new_err(format!("logging is set up already: {error}")))?;
    log::set_max_level(if wants_access { level.max(LevelFilter::Info) } else { level });
    let records = queue.clone();
    let emit_all = move || {
        let (mut lost, mut batch) = (None, Vec::new());
        while let Some(dropped) = records.take(&mut batch) {
            if dropped > 0 {
                let text = format!("{dropped} log records were dropped: they came faster than they could be written");
                batch.push(Entry::Record(OwnedRecord::new(Level::Warn, "azmlinfsrv", text, None)));
            }
            if let Some(text) = lost.take() {
                batch.push(Entry::Record(OwnedRecord::new(Level::Error, "azmlinfsrv", text, None)));
            }
            // Later records must still be written. Standard error has the panic already.
            if let Err(panic) = catch(|| sink.emit(&batch)) {
                let count = batch.len();
                lost = Some(format!("The thread that writes the log {panic}. Up to {count} records were lost."));
            }
            batch.clear();
            batch.shrink_to(KEPT);
        }
    };
    let thread = std::thread::Builder::new().name("azmlinfsrv-log".to_owned()).spawn(emit_all)?;
    Ok(Drain { queue, thread })
}

fn hand_over(py: Python<'_>, logger: &pyo3_log::Logger, record: &OwnedRecord) {
    let mut pairs: Vec<(&str, kv::Value<'_>)> =
        record.worker_pid.iter().map(|pid| (WORKER_PID, kv::Value::from(*pid))).collect();
    let ids = record.fields.0.iter().filter(|(name, _)| IDS.contains(&&**name));
    pairs.extend(ids.map(|(name, value)| (&**name, kv::Value::from_display(value))));
    let fields: &dyn kv::Source = &pairs.as_slice();
    logger.log(
        &Record::builder()
            .level(record.level)
            .target(&record.target)
            .args(format_args!("{}", record.message))
            .key_values(fields)
            .build(),
    );
    // pyo3-log leaves an error of a Python handler pending. Show and clear it, because it is the
    // handler's fault and must not reach later calls.
    if let Some(error) = PyErr::take(py) {
        error.write_unraisable(py, None);
    }
}

fn hand_over_access(py: Python<'_>, access: &Py<PyAny>, fields: &Fields) {
    let made = PyDict::new(py);
    let filled = fields.0.iter().try_for_each(|(name, value)| made.set_item(&**name, value.to_string()));
    if let Err(error) = filled.and_then(|()| access.call1(py, (made,)).map(drop)) {
        error.write_unraisable(py, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::access_fields::Value;

    fn taken(queue: &Queue) -> (Vec<OwnedRecord>, u64) {
        let mut entries = Vec::new();
        let dropped = queue.take(&mut entries).expect("entries");
        let record = |entry| match entry {
            Entry::Record(record) => record,
            Entry::Request(_) => panic!("a request"),
        };
        (entries.into_iter().map(record).collect(), dropped)
    }

    #[test]
    fn what_clients_chose_is_one_plain_line() {
        let logger = QueueLogger { queue: Arc::default(), level: LevelFilter::Info, access: true, fields: false };
        let text = "GET /\x1b[31m\nforged";
        logger.log(&Record::builder().target("azmlinfsrv").level(Level::Info).args(format_args!("{text}")).build());
        let fields: &dyn kv::Source = &("agent", text);
        let access = Record::builder().target(ACCESS_LOGGER).level(Level::Info).key_values(fields).build();
        logger.log(&access);
        let (records, _) = taken(&logger.queue);
        assert_eq!(records[0].message, r"GET /\x1b[31m\x0aforged");
        let agent = Value::Text(r"GET /\x1b[31m\x0aforged".to_owned());
        assert_eq!(records[1].fields.0, [("agent".into(), agent)]);
    }

    #[test]
    fn fields_keep_their_kinds_and_are_taken_only_if_they_are_wanted() {
        for (fields, expected) in [
            (false, vec![]),
            (true, vec![("status", Value::Whole(200)), ("ms", Value::Number(2.0)), ("id", Value::Text("7".into()))]),
        ] {
            let logger = QueueLogger { queue: Arc::default(), level: LevelFilter::Info, access: false, fields };
            let pairs: [(&str, kv::Value<'_>); 3] =
                [("status", 200u16.into()), ("ms", 2.0f64.into()), ("id", "7".into())];
            let source: &dyn kv::Source = &pairs.as_slice();
            logger.log(&Record::builder().target("azmlinfsrv").level(Level::Info).key_values(source).build());
            let (records, _) = taken(&logger.queue);
            let found = records[0].fields.0.iter().map(|(name, value)| (&**name, value.clone()));
            assert_eq!(found.collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn access_records_do_not_let_others_pass_that_are_not_wanted() {
        let logger = QueueLogger { queue: Arc::default(), level: LevelFilter::Error, access: true, fields: false };
        let enabled = |target: &str| logger.enabled(&Metadata::builder().level(Level::Info).target(target).build());
        assert!(enabled(ACCESS_LOGGER) && !enabled("azmlinfsrv") && !enabled("hyper"));
    }
}
