//! The fields of the log line of a request, for JSON lines and for attributes of Python's records.
//!
//! `access_line.rs` makes the text of the line. docs/logs.md lists the fields.

use std::{borrow::Cow, fmt, time::Duration};

use bytes::Bytes;
use log::kv;

use super::{record::RequestRecord, trace_context::Hex};

/// The value of a field.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Text.
    Text(String),
    /// A whole number.
    Whole(u64),
    /// Any number.
    Number(f64),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Whole(number) => write!(f, "{number}"),
            Self::Number(number) => write!(f, "{number}"),
        }
    }
}

/// Names and values of a log record's fields.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Fields(pub Vec<(Cow<'static, str>, Value)>);

impl Fields {
    /// Adds a field.
    pub fn add(&mut self, name: &'static str, value: Value) {
        self.0.push((name.into(), value));
    }
}

impl kv::Source for Fields {
    fn visit<'kvs>(&'kvs self, visitor: &mut dyn kv::VisitSource<'kvs>) -> Result<(), kv::Error> {
        self.0.iter().try_for_each(|(name, value)| {
            let value = match value {
                Value::Text(text) => text.as_str().into(),
                Value::Whole(number) => (*number).into(),
                Value::Number(number) => (*number).into(),
            };
            visitor.visit_pair(kv::Key::from_str(name), value)
        })
    }
}

/// The fields of a request's line (docs/logs.md). What is not known is left out.
pub fn of(record: &RequestRecord, status: u16) -> Fields {
    let mut fields = Fields(Vec::with_capacity(16));
    let text = |bytes: &Bytes| Value::Text(String::from_utf8_lossy(bytes).into_owned());
    if let Some(worker) = record.worker {
        fields.add("worker_pid", Value::Whole(worker.pid.into()));
        fields.add("worker", Value::Whole(worker.slot.into()));
    }
    if let Some(id) = &record.ids.request {
        fields.add("request_id", text(id));
    }
    if let Some(id) = &record.ids.client_request {
        fields.add("client_request_id", text(id));
    }
    let trace_id = record.span.map(|span| span.trace_id).or(record.parent.map(|parent| parent.trace_id));
    if let Some(id) = trace_id {
        fields.add("trace_id", Value::Text(Hex(&id).to_string()));
    }
    if let Some(head) = &record.head {
        fields.add("method", Value::Text(head.method.as_str().to_owned()));
    }
    if let Some(route) = record.route {
        fields.add("route", Value::Text(route.path().to_owned()));
    }
    fields.add("status", Value::Whole(status.into()));
    let job = &record.job;
    if let (Some(queued), Some(started)) = (job.queued, job.started) {
        fields.add("queued_ms", milliseconds(started.saturating_duration_since(queued)));
    }
    if let Some(run) = job.run {
        fields.add("run_ms", milliseconds(run));
    }
    let total = record.finished.map_or_else(|| record.elapsed(), |end| end.saturating_duration_since(record.began));
    fields.add("total_ms", milliseconds(total));
    fields.add("bytes_in", Value::Whole(record.bytes_in));
    fields.add("bytes_out", Value::Whole(record.bytes_out));
    if let Some(client) = record.client {
        fields.add("client", Value::Text(client.ip().to_string()));
    }
    if let Some(agent) = record.head.as_ref().and_then(|head| head.user_agent.as_ref()) {
        fields.add("user_agent", Value::Text(String::from_utf8_lossy(agent.as_bytes()).into_owned()));
    }
    if !record.error_location.is_empty() {
        fields.add("error", text(&record.error_location));
    }
    fields
}

/// With three digits after the point.
fn milliseconds(time: Duration) -> Value {
    Value::Number((time.as_secs_f64() * 1e6).round() / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::record::{JobTimes, Route, Worker};

    fn names_and_values(record: &RequestRecord) -> Vec<String> {
        of(record, 200).0.iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let mut record = RequestRecord::begin(None, None);
        record.finished = Some(record.began + Duration::from_micros(1_234_567));
        assert_eq!(names_and_values(&record), ["status=200", "total_ms=1234.567", "bytes_in=0", "bytes_out=0"]);
    }

    #[test]
    fn all_fields_of_a_request_that_was_scored() {
        let mut record = RequestRecord::begin(None, Some(([192, 0, 2, 1], 9).into()));
        let at = |millis| Some(record.began + Duration::from_millis(millis));
        let (queued, started, finished) = (at(1), at(3), at(10));
        record.job = JobTimes { queued, started, run: Some(Duration::from_micros(4_500)), ..JobTimes::default() };
        record.finished = finished;
        record.worker = Some(Worker { pid: 7, slot: 1 });
        record.route = Some(Route::Score);
        record.ids.request = Some(Bytes::from_static(b"r"));
        record.ids.client_request = Some(Bytes::from_static(b"\xff"));
        (record.bytes_in, record.bytes_out) = (5, 6);
        record.error_location = Bytes::from_static(b"score.py:1 KeyError");
        assert_eq!(
            names_and_values(&record),
            [
                "worker_pid=7",
                "worker=1",
                "request_id=r",
                "client_request_id=\u{fffd}",
                "route=/score",
                "status=200",
                "queued_ms=2",
                "run_ms=4.5",
                "total_ms=10",
                "bytes_in=5",
                "bytes_out=6",
                "client=192.0.2.1",
                "error=score.py:1 KeyError",
            ]
        );
    }
}
