//! OpenTelemetry's own protocol, OTLP over HTTP with protobuf: spans and log records.
//!
//! Pure functions, with the official types. An item is one encoded span or log record; the body of a request has many.
//! Names are those of OpenTelemetry's semantic conventions for HTTP servers. Runs in the exporter's thread.

use std::{
    io::Write as _,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use opentelemetry_proto::tonic::{
    common::v1::{any_value::Value, AnyValue, InstrumentationScope, KeyValue},
    logs::v1::LogRecord as OtlpRecord,
    resource::v1::Resource,
    trace::v1::{span::SpanKind, status::StatusCode, Span as OtlpSpan, Status},
};
use prost::Message as _;

use super::{
    app_insights::cut,
    ids::random_bytes,
    item::{LogRecord, Request, Text},
    redaction,
};

/// Methods that keep their name (semantic conventions, `http.request.method`).
const KNOWN_METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

/// Who sends: attributes that every body begins with.
pub fn resource(attributes: &[(String, String)]) -> Resource {
    let attributes = attributes.iter().map(|(key, value)| text(key, value)).collect();
    Resource { attributes, ..Resource::default() }
}

/// Limits for the attributes of spans or log records (`OTEL_ATTRIBUTE_COUNT_LIMIT` and the like).
#[derive(Debug, Clone, Copy)]
pub struct AttributeLimits {
    /// How many there may be. Further ones are dropped, and their number is sent.
    pub count: usize,
    /// Characters of a text. The rest is cut off.
    pub length: usize,
}

impl Default for AttributeLimits {
    fn default() -> Self {
        Self { count: usize::MAX, length: usize::MAX }
    }
}

impl AttributeLimits {
    /// The attributes that are sent, and the number of the others.
    fn apply(self, mut attributes: Vec<KeyValue>) -> (Vec<KeyValue>, u32) {
        let dropped = attributes.len().saturating_sub(self.count);
        attributes.truncate(self.count);
        for value in attributes.iter_mut().filter_map(|attribute| attribute.value.as_mut()) {
            if let Some(Value::StringValue(text)) = &mut value.value {
                text.truncate(cut(text, self.length).len());
            }
        }
        (attributes, u32::try_from(dropped).unwrap_or(u32::MAX))
    }
}

/// The spans of a request: the server's span, and those of its parts. Empty if the trace is not sampled.
pub fn spans(request: &Request, limits: AttributeLimits) -> Vec<Vec<u8>> {
    let Some(own) = request.span.filter(|span| span.is_sampled) else { return Vec::new() };
    let began = nanos(request.began_at);
    let at = |since: Duration| began.saturating_add(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX));
    let (attributes, dropped_attributes_count) = limits.apply(attributes(request));
    let server = OtlpSpan {
        trace_id: own.trace_id.to_vec(),
        span_id: own.span_id.to_vec(),
        parent_span_id: request.parent.map(|parent| parent.span_id.to_vec()).unwrap_or_default(),
        trace_state: request.text(Text::TraceState).into_owned(),
        flags: 1,
        name: span_name(request),
        kind: SpanKind::Server.into(),
        start_time_unix_nano: began,
        end_time_unix_nano: at(request.duration),
        attributes,
        dropped_attributes_count,
        status: status(request),
        ..OtlpSpan::default()
    };
    let parts = request.phases().into_iter().map(|phase| OtlpSpan {
        trace_id: own.trace_id.to_vec(),
        span_id: random_bytes::<8>().to_vec(),
        parent_span_id: own.span_id.to_vec(),
        flags: 1,
        name: phase.name.to_owned(),
        kind: SpanKind::Internal.into(),
        start_time_unix_nano: at(phase.from),
        end_time_unix_nano: at(phase.to),
        ..OtlpSpan::default()
    });
    std::iter::once(server.encode_to_vec()).chain(parts.map(|span| span.encode_to_vec())).collect()
}

/// One log record.
pub fn log_record(record: &LogRecord, limits: AttributeLimits) -> Vec<u8> {
    let time = u64::try_from(record.at().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos());
    let mut attributes = vec![text("logger.name", &record.logger)];
    attributes.extend(record.properties.iter().map(|(key, value)| text(key, value)));
    if let Some(exception) = &record.exception {
        attributes.push(text("exception.type", &exception.kind));
        attributes.push(text("exception.message", &exception.message));
        attributes.push(text("exception.stacktrace", &exception.stack));
    }
    let (attributes, dropped_attributes_count) = limits.apply(attributes);
    let (severity_number, severity_text) = severity(record.level);
    let record = OtlpRecord {
        time_unix_nano: time.unwrap_or_default(),
        observed_time_unix_nano: time.unwrap_or_default(),
        severity_number,
        severity_text: severity_text.to_owned(),
        body: Some(AnyValue { value: Some(Value::StringValue(record.message.clone())) }),
        trace_id: bytes_of(&record.trace).unwrap_or_default(),
        span_id: bytes_of(&record.span).unwrap_or_default(),
        event_name: record.event.clone().unwrap_or_default(),
        attributes,
        dropped_attributes_count,
        ..OtlpRecord::default()
    };
    record.encode_to_vec()
}

// How a field of a message begins that is a message itself (protobuf's wire format), for the numbers 1 and 2.
const FIRST_FIELD: u8 = 1 << 3 | 2;
const SECOND_FIELD: u8 = 2 << 3 | 2;

/// The body of a request with these items, which are spans or log records.
///
/// The messages of both signals have the same numbers: a request has (1) the data of one resource, which are (1) the resource
/// and (2) the data of one scope, which are (1) the scope and (2) the items. A field that is a message is written as its
/// bytes with their length in front, so the items are put together as they are.
pub fn body(resource: &Resource, items: &[Bytes]) -> Vec<u8> {
    let (resource, scope) = (resource.encode_to_vec(), scope().encode_to_vec());
    let of_scope = length_of_field(scope.len()) + items.iter().map(|item| length_of_field(item.len())).sum::<usize>();
    let of_resource = length_of_field(resource.len()) + length_of_field(of_scope);
    let mut body = Vec::with_capacity(length_of_field(of_resource));
    begin_field(&mut body, FIRST_FIELD, of_resource);
    begin_field(&mut body, FIRST_FIELD, resource.len());
    body.extend_from_slice(&resource);
    begin_field(&mut body, SECOND_FIELD, of_scope);
    begin_field(&mut body, FIRST_FIELD, scope.len());
    body.extend_from_slice(&scope);
    for item in items {
        begin_field(&mut body, SECOND_FIELD, item.len());
        body.extend_from_slice(item);
    }
    body
}

fn length_of_field(length: usize) -> usize {
    1 + prost::length_delimiter_len(length) + length
}

fn begin_field(body: &mut Vec<u8>, field: u8, length: usize) {
    body.push(field);
    // A vector grows as needed.
    let _ = prost::encode_length_delimiter(length, body);
}

/// True if these bytes are a span. A file on the disk may be damaged.
pub fn is_span(bytes: &[u8]) -> bool {
    OtlpSpan::decode(bytes).is_ok()
}

/// True if these bytes are a log record.
pub fn is_log_record(bytes: &[u8]) -> bool {
    OtlpRecord::decode(bytes).is_ok()
}

/// The body, compressed.
pub fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    // Writing to a vector cannot fail.
    let _ = encoder.write_all(body);
    encoder.finish().unwrap_or_default()
}

pub(super) fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "azureml-inference-server-http".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    }
}

fn span_name(request: &Request) -> String {
    let method = request.method.as_str();
    let method = if KNOWN_METHODS.contains(&method) { method } else { "HTTP" };
    match request.route {
        Some(route) => format!("{method} {}", route.path()),
        None => method.to_owned(),
    }
}

/// Error for statuses from 500 on, and if the client got no reply; never for a fault of the client.
fn status(request: &Request) -> Option<Status> {
    let failed = request.status.is_none_or(|status| status >= 500);
    failed.then(|| Status { message: String::new(), code: StatusCode::Error.into() })
}

fn attributes(request: &Request) -> Vec<KeyValue> {
    let method = request.method.as_str();
    let is_known = KNOWN_METHODS.contains(&method);
    let target = request.text(Text::Target);
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let mut attributes = vec![
        text("http.request.method", if is_known { method } else { "_OTHER" }),
        text("url.scheme", if request.is_https { "https" } else { "http" }),
        text("url.path", path),
        text("network.protocol.version", if request.http_minor == 0 { "1.0" } else { "1.1" }),
    ];
    if !is_known {
        attributes.push(text("http.request.method_original", method));
    }
    if !query.is_empty() {
        attributes.push(text("url.query", &redaction::query(query)));
    }
    attributes.extend(request.route.map(|route| text("http.route", route.path())));
    attributes.extend(request.status.map(|status| number("http.response.status_code", i64::from(status))));
    if let Some((address, port)) = server_address(&request.text(Text::Host)) {
        attributes.push(text("server.address", address));
        attributes.extend(port.map(|port| number("server.port", i64::from(port))));
    }
    attributes.extend(request.client.map(|client| text("client.address", &client.ip().to_string())));
    if let Some(peer) = request.peer {
        attributes.push(text("network.peer.address", &peer.ip().to_string()));
        attributes.push(number("network.peer.port", i64::from(peer.port())));
    }
    let agent = request.text(Text::UserAgent);
    if !agent.is_empty() {
        attributes.push(text("user_agent.original", &agent));
    }
    if request.status.is_none_or(|status| status >= 500) {
        let status = request.status.map(|status| status.to_string());
        let error = request.error().or(status.map(Into::into)).unwrap_or("_OTHER".into());
        attributes.push(text("error.type", &error));
    }
    for (name, id) in
        [("azmlinfsrv.request_id", Text::RequestId), ("azmlinfsrv.client_request_id", Text::ClientRequestId)]
    {
        let id = request.text(id);
        if !id.is_empty() {
            attributes.push(text(name, &id));
        }
    }
    attributes
}

/// Address and port of a `Host` field.
fn server_address(host: &str) -> Option<(&str, Option<u16>)> {
    let (address, port) = match host.rsplit_once(':') {
        Some((address, port)) if !port.contains(']') => (address, port.parse().ok()),
        _ => (host, None),
    };
    (!address.is_empty()).then_some((address.trim_matches(['[', ']']), port))
}

/// Severity number and text (OpenTelemetry's logs data model) of a level of Python's logging.
fn severity(level: u32) -> (i32, &'static str) {
    match level {
        50.. => (21, "CRITICAL"),
        40..=49 => (17, "ERROR"),
        30..=39 => (13, "WARN"),
        20..=29 => (9, "INFO"),
        _ => (5, "DEBUG"),
    }
}

pub(super) fn text(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(Value::StringValue(value.to_owned())) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

pub(super) fn number(key: &str, value: i64) -> KeyValue {
    let value = Some(AnyValue { value: Some(Value::IntValue(value)) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

pub(super) fn nanos(time: SystemTime) -> u64 {
    u64::try_from(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}

/// The bytes of hexadecimal digits.
fn bytes_of(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).ok());
    pairs.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect()
}

#[cfg(test)]
mod tests;
