//! Fields of log records: those of JSON lines, and attributes of Python's records.
//!
//! `access_line.rs` makes the text of a request's line, `logging/request_line.rs` its JSON form.

use std::{borrow::Cow, fmt};

use bytes::Bytes;
use log::kv;

use super::{
    record::RequestRecord,
    trace_context::{trace_id, Hex},
};

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

/// The ids of a request, which records of Python have as attributes (`scripting/current_request.py`).
pub fn ids(record: &RequestRecord) -> Fields {
    let mut fields = Fields::default();
    let text = |bytes: &Bytes| Value::Text(String::from_utf8_lossy(bytes).into_owned());
    if let Some(id) = &record.ids.request {
        fields.add("request_id", text(id));
    }
    if let Some(id) = &record.ids.client_request {
        fields.add("client_request_id", text(id));
    }
    if let Some(id) = trace_id(record.span, record.parent) {
        fields.add("trace_id", Value::Text(Hex(&id).to_string()));
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::trace_context::TraceParent;

    #[test]
    fn ids_that_are_not_known_are_left_out() {
        let mut record = RequestRecord::begin(None, None);
        assert_eq!(ids(&record), Fields::default());
        record.ids.request = Some(Bytes::from_static(b"r"));
        record.ids.client_request = Some(Bytes::from_static(b"\xff"));
        record.parent = Some(TraceParent { trace_id: [0xab; 16], span_id: [1; 8], flags: 0 });
        let found: Vec<_> = ids(&record).0.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let trace = format!("trace_id={}", "ab".repeat(16));
        assert_eq!(found, ["request_id=r", "client_request_id=\u{fffd}", &trace]);
    }
}
