//! The log lines about one request: written here, or sent to the worker that served it for its Python logger.
//!
//! A script may change the logger `azmlinfsrv` (a filter that drops or redacts, a formatter, handlers of its own), and that
//! must act on these lines as well. Its worker says so in its hello, and then gets one frame for each request it has served,
//! before its next job. Used in the front's event loop.

use std::fmt;

use log::Level;

use super::Dispatcher;
use crate::{frame, log_text::plain_line};

/// Logger of the lines; contract section 13.
const TARGET: &str = "azmlinfsrv";

/// Level and text of a line.
pub(super) type Line = (Level, String);

/// Where the lines about one request go. Dropping it sends them.
pub struct RequestLog {
    /// Process id of the worker that served the request; `None` if no worker did.
    pid: Option<u32>,
    /// Lines that wait to be sent to the worker; `None` if they are written here.
    unsent: Option<Unsent>,
}

struct Unsent {
    dispatcher: Dispatcher,
    worker_id: u64,
    lines: Vec<Line>,
}

impl RequestLog {
    /// Lines are written here.
    pub fn here(pid: Option<u32>) -> Self {
        Self { pid, unsent: None }
    }

    /// Lines are sent to this worker.
    pub(super) fn at_worker(pid: u32, dispatcher: &Dispatcher, worker_id: u64) -> Self {
        let unsent = Unsent { dispatcher: dispatcher.clone(), worker_id, lines: Vec::new() };
        Self { pid: Some(pid), unsent: Some(unsent) }
    }

    /// Process id of the worker that served the request; `None` if no worker did.
    pub fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// Adds a line.
    pub fn line(&mut self, level: Level, text: fmt::Arguments<'_>) {
        match &mut self.unsent {
            // Whether that level is wanted is the worker's to decide.
            Some(unsent) => unsent.lines.push((level, plain_line(text.to_string()))),
            None => write(level, text, self.pid),
        }
    }
}

impl Drop for RequestLog {
    fn drop(&mut self) {
        if let (Some(unsent), Some(pid)) = (self.unsent.take(), self.pid) {
            unsent.dispatcher.log_at_worker(unsent.worker_id, pid, unsent.lines);
        }
    }
}

impl fmt::Debug for RequestLog {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "RequestLog({:?})", self.pid)
    }
}

/// Writes lines here that their worker has not logged.
pub(super) fn write_all(lines: &[Line], pid: u32) {
    for (level, text) in lines {
        write(*level, format_args!("{text}"), Some(pid));
    }
}

fn write(level: Level, text: fmt::Arguments<'_>, pid: Option<u32>) {
    match pid {
        Some(pid) => log::log!(target: TARGET, level, worker_pid = pid; "{text}"),
        None => log::log!(target: TARGET, level, "{text}"),
    }
}

/// The frame with these lines.
pub(super) fn encode(lines: &[Line]) -> bytes::Bytes {
    frame::encode_log(lines.iter().map(|(level, text)| (python_level(*level), text.as_str())))
}

fn python_level(level: Level) -> u8 {
    match level {
        Level::Error => 40,
        Level::Warn => 30,
        Level::Info => 20,
        Level::Debug | Level::Trace => 10,
    }
}
