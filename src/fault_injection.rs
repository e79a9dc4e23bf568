//! Panics on demand, for tests that show what a panic costs. Builds with debug assertions have it;
//! release builds do not contain any of it.
//!
//! How a test uses it (`tests/e2e/test_panics.py`): it starts the server with the environment
//! variable `INJECT_PANICS=FOLDER`, and later creates an empty file in that folder, named after one
//! of the points below. The next thread that comes to the point removes the file and panics. The
//! file can be removed once, so one file is one panic, also with several processes.

/// A place in the code that can be made to panic. The file has the name of the variant.
#[derive(Debug, Clone, Copy)]
pub enum Point {
    /// The loop that accepts clients, after it has accepted one.
    Accept,
    /// The loop that accepts workers, after it has accepted one.
    AcceptWorker,
    /// The task that checks time limits, ten times a second.
    Watch,
    /// The task that gives the dispatcher's core its ticks.
    Clock,
    /// The front's main task, when it has an order of the supervisor.
    Order,
    /// The core of the dispatcher, at any event.
    Core,
    /// The session of one worker, when it has a frame.
    Session,
    /// The task of one connection, when its client sends more, or leaves, while a request is answered.
    Connection,
    /// The handler of one request, when its job is queued.
    Request,
    /// The task that logs a request whose client has left.
    Outcome,
    /// The thread that writes the log, when it has records.
    #[cfg(feature = "python")]
    Log,
    /// The thread that sends telemetry, when it has a batch to send.
    Telemetry,
    /// The worker's loop, when it has a job.
    #[cfg(feature = "python")]
    Worker,
    /// The thread that limits the calls of worker threads, when a call has reached its limit.
    #[cfg(feature = "python")]
    Deadlines,
}

/// Panics if a test has asked for it.
#[cfg(debug_assertions)]
#[track_caller]
pub fn point(point: Point) {
    use std::{path::PathBuf, sync::OnceLock};

    static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| std::env::var_os("INJECT_PANICS").map(PathBuf::from));
    let Some(folder) = folder else { return };
    if std::fs::remove_file(folder.join(format!("{point:?}"))).is_ok() {
        panic!("injected at {point:?}");
    }
}

/// Does nothing: release builds have no injection.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub const fn point(_: Point) {}
