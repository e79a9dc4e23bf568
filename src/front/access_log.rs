//! The request line of the log: one per request, health checks excepted (contract section 13).
//!
//! Formats in the front's event loop and hands the line to `log`, whose queue is drained elsewhere (`logging.rs`).

use std::time::Instant;

/// Logger of request lines; contract section 13.
const TARGET: &str = "azmlinfsrv";

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
    /// Process id of the worker that served it; `None` if no worker did.
    pub worker: Option<u32>,
}

impl Line<'_> {
    /// Writes the line at level INFO.
    pub fn log(&self) {
        let Self { method, target, status, .. } = self;
        let elapsed = self.started.elapsed().as_secs_f64() * 1e3;
        let length = self.length.map_or_else(|| "N/A".to_owned(), |bytes| bytes.to_string());
        match self.worker {
            Some(pid) => {
                log::info!(target: TARGET, worker_pid = pid; "{method} {target} {status} {elapsed:.3}ms {length}");
            }
            None => log::info!(target: TARGET, "{method} {target} {status} {elapsed:.3}ms {length}"),
        }
    }
}
