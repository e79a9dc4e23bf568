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

impl Line<'_> {
    /// The line.
    pub fn text(&self) -> String {
        // Every request has such a line. Whole numbers, and one piece of text, are written much
        // faster than a float with three decimals, and many pieces.
        let mut digits = itoa::Buffer::new();
        let mut line = String::with_capacity(self.method.len() + self.target.len() + 48);
        for part in [self.method, " ", self.target, " ", digits.format(self.status), " "] {
            line.push_str(part);
        }
        Milliseconds::from(self.elapsed).add_to(&mut line);
        line.push_str("ms ");
        line.push_str(self.length.map_or("N/A", |bytes| digits.format(bytes)));
        line
    }
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

/// A time in milliseconds, with three decimals: `1.234`.
pub struct Milliseconds {
    microseconds: u64,
}

impl From<Duration> for Milliseconds {
    fn from(time: Duration) -> Self {
        let of_second = u64::from(time.subsec_nanos() + 500) / 1000;
        Self { microseconds: time.as_secs().saturating_mul(1_000_000).saturating_add(of_second) }
    }
}

impl From<f64> for Milliseconds {
    /// The cast takes negative numbers, which no clock can measure, as zero.
    fn from(milliseconds: f64) -> Self {
        Self { microseconds: (milliseconds * 1e3).round() as u64 }
    }
}

impl Milliseconds {
    fn add_to(&self, text: &mut String) {
        let mut digits = itoa::Buffer::new();
        text.push_str(digits.format(self.microseconds / 1000));
        text.push('.');
        // The thousand keeps the zeros in front of the decimals.
        text.push_str(&digits.format(1000 + self.microseconds % 1000)[1..]);
    }
}

impl fmt::Display for Milliseconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::with_capacity(16);
        self.add_to(&mut text);
        f.write_str(&text)
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
    fn milliseconds_have_three_decimals_rounded() {
        for nanoseconds in [0, 499, 500, 1_000, 9_999_499, 9_999_500, 1_234_567, 12_000_000, 3_600_000_000_000] {
            let expected = format!("{:.3}", nanoseconds as f64 / 1e6 + 1e-12);
            assert_eq!(Milliseconds::from(Duration::from_nanos(nanoseconds)).to_string(), expected);
            assert_eq!(Milliseconds::from(nanoseconds as f64 / 1e6).to_string(), expected);
        }
    }

    #[test]
    fn lines_of_contract_section_13() {
        let elapsed = Duration::from_micros(1_234);
        let whole = Line { method: "GET", target: &target("/score", "a=1"), status: 200, elapsed, length: Some(2) };
        assert_eq!(whole.to_string(), "GET /score?a=1 200 1.234ms 2");
        let stream = Line { method: "POST", target: &target("/score", ""), status: 500, elapsed, length: None };
        assert_eq!(stream.to_string(), "POST /score 500 1.234ms N/A");
    }
}
