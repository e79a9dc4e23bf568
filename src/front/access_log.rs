//! The request line of the log: one per request, health checks excepted (contract section 13).
//!
//! Formats in the front's event loop. Who writes the line is `dispatch/request_log.rs`.

use std::time::Instant;

use log::Level;

use crate::dispatch::request_log::RequestLog;

/// One request as its log line shows it.
pub struct Line<'a> {
    /// Request method.
    pub method: &'a str,
    /// Path and query: the route's own path, or what the client sent if no route took it.
    pub target: &'a str,
    /// Status of the reply.
    pub status: u16,
    /// When the request head had been read.
    pub started: Instant,
    /// Body bytes of the reply; `None` for a stream.
    pub length: Option<u64>,
}

impl Line<'_> {
    /// Adds the line at level INFO.
    pub fn log(&self, log: &mut RequestLog) {
        let Self { method, target, status, .. } = self;
        let elapsed = self.started.elapsed().as_secs_f64() * 1e3;
        let length = self.length.map_or_else(|| "N/A".to_owned(), |bytes| bytes.to_string());
        log.line(Level::Info, format_args!("{method} {target} {status} {elapsed:.3}ms {length}"));
    }
}
