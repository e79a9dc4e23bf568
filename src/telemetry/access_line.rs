//! The text of the log line that every request gets, health checks excepted (contract section 13).
//!
//! The front writes the lines. If the script has changed the logger, the worker writes the lines of
//! the requests that it serves, so that the script's filters and handlers apply to them. Pure
//! formatting.

use std::{borrow::Cow, fmt, time::Duration};

/// The warning about the deprecated request id header (contract section 9).
pub const DEPRECATED_ID: &str =
    "x-ms-request-id header has been deprecated and will be removed from future versions of the server. \
     Please use x-ms-client-request-id.";

/// One request as its log line shows it.
pub struct Line<'a> {
    /// Request method.
    pub method: &'a str,
    /// Path and query: the route's own path, or what the client sent if no route took it.
    pub target: &'a str,
    /// Status of the reply.
    pub status: u16,
    /// Time since the request head was read.
    pub elapsed: Duration,
    /// Body bytes of the reply; `None` for a stream.
    pub length: Option<u64>,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { method, target, status, elapsed, length } = self;
        write!(f, "{method} {target} {status} {:.3}ms ", elapsed.as_secs_f64() * 1e3)?;
        match length {
            Some(bytes) => write!(f, "{bytes}"),
            None => f.write_str("N/A"),
        }
    }
}

/// The target that the log shows: the route's own path, however the client spelled it, and the query as sent.
pub fn target<'a>(path: &'a str, query: &str) -> Cow<'a, str> {
    if query.is_empty() {
        path.into()
    } else {
        format!("{path}?{query}").into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_contract_section_13() {
        let elapsed = Duration::from_micros(1_234);
        let whole = Line { method: "GET", target: &target("/score", "a=1"), status: 200, elapsed, length: Some(2) };
        assert_eq!(whole.to_string(), "GET /score?a=1 200 1.234ms 2");
        let stream = Line { method: "POST", target: &target("/score", ""), status: 500, elapsed, length: None };
        assert_eq!(stream.to_string(), "POST /score 500 1.234ms N/A");
    }
}
