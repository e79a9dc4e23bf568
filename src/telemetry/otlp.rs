//! OpenTelemetry's own protocol, OTLP over HTTP with protobuf: spans and log records.
//!
//! Pure functions, with the official types. An item is one encoded span or log record; the body of a request has many.
//! Names are those of OpenTelemetry's semantic conventions for HTTP servers. Runs in the exporter's thread.

use std::{
    io::Write as _,
    time::{Duration, SystemTime},
};

use opentelemetry_proto::tonic::{
    collector::{logs::v1::ExportLogsServiceRequest, trace::v1::ExportTraceServiceRequest},
    common::v1::{any_value::Value, AnyValue, InstrumentationScope, KeyValue},
    logs::v1::{LogRecord as OtlpRecord, ResourceLogs, ScopeLogs},
    resource::v1::Resource,
    trace::v1::{span::SpanKind, status::StatusCode, ResourceSpans, ScopeSpans, Span as OtlpSpan, Status},
};
use prost::Message as _;

use super::{
    app_insights::cut,
    ids::random_bytes,
    item::{LogRecord, Request},
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
    if !request.span.is_sampled {
        return Vec::new();
    }
    let began = nanos(request.began_at);
    let at = |since: Duration| began.saturating_add(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX));
    let (attributes, dropped_attributes_count) = limits.apply(attributes(request));
    let server = OtlpSpan {
        trace_id: request.span.trace_id.to_vec(),
        span_id: request.span.span_id.to_vec(),
        parent_span_id: request.parent.map(|parent| parent.span_id.to_vec()).unwrap_or_default(),
        trace_state: request.trace_state.clone(),
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
    let parts = request.phases.iter().map(|phase| OtlpSpan {
        trace_id: request.span.trace_id.to_vec(),
        span_id: random_bytes::<8>().to_vec(),
        parent_span_id: request.span.span_id.to_vec(),
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

/// The body of a request with spans. Items that are damaged (on disk) are left out.
pub fn traces_body(resource: &Resource, items: &[Vec<u8>]) -> Vec<u8> {
    let spans = items.iter().filter_map(|item| OtlpSpan::decode(item.as_slice()).ok()).collect();
    let scope_spans = vec![ScopeSpans { scope: Some(scope()), spans, ..ScopeSpans::default() }];
    let resource_spans =
        vec![ResourceSpans { resource: Some(resource.clone()), scope_spans, ..ResourceSpans::default() }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec()
}

/// The body of a request with log records. Items that are damaged (on disk) are left out.
pub fn logs_body(resource: &Resource, items: &[Vec<u8>]) -> Vec<u8> {
    let log_records = items.iter().filter_map(|item| OtlpRecord::decode(item.as_slice()).ok()).collect();
    let scope_logs = vec![ScopeLogs { scope: Some(scope()), log_records, ..ScopeLogs::default() }];
    let resource_logs = vec![ResourceLogs { resource: Some(resource.clone()), scope_logs, ..ResourceLogs::default() }];
    ExportLogsServiceRequest { resource_logs }.encode_to_vec()
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
    let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
    let mut attributes = vec![
        text("http.request.method", if is_known { method } else { "_OTHER" }),
        text("url.scheme", "http"),
        text("url.path", path),
        text("network.protocol.version", if request.http_minor == 0 { "1.0" } else { "1.1" }),
    ];
    if !is_known {
        attributes.push(text("http.request.method_original", method));
    }
    if !query.is_empty() {
        attributes.push(text("url.query", &redacted(query)));
    }
    attributes.extend(request.route.map(|route| text("http.route", route.path())));
    attributes.extend(request.status.map(|status| number("http.response.status_code", i64::from(status))));
    if let Some((address, port)) = server_address(&request.host) {
        attributes.push(text("server.address", address));
        attributes.extend(port.map(|port| number("server.port", i64::from(port))));
    }
    if let Some(peer) = request.peer {
        attributes.push(text("client.address", &peer.ip().to_string()));
        attributes.push(text("network.peer.address", &peer.ip().to_string()));
        attributes.push(number("network.peer.port", i64::from(peer.port())));
    }
    if !request.user_agent.is_empty() {
        attributes.push(text("user_agent.original", &request.user_agent));
    }
    if request.status.is_none_or(|status| status >= 500) {
        let status = request.status.map(|status| status.to_string());
        let error = request.error.clone().or(status).unwrap_or_else(|| "_OTHER".to_owned());
        attributes.push(text("error.type", &error));
    }
    for (name, id) in
        [("azmlinfsrv.request_id", &request.request_id), ("azmlinfsrv.client_request_id", &request.client_request_id)]
    {
        if !id.is_empty() {
            attributes.push(text(name, id));
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

/// The query, without the values of parameters that clouds use for signatures (semantic conventions, `url.query`), and of
/// those whose name says that they are secret.
fn redacted(query: &str) -> String {
    let parts = query.split('&').map(|part| match part.split_once('=') {
        Some((name, _)) if is_secret(name) => format!("{name}=REDACTED"),
        _ => part.to_owned(),
    });
    parts.collect::<Vec<_>>().join("&")
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    matches!(name.as_str(), "awsaccesskeyid" | "signature" | "sig" | "x-goog-signature" | "code" | "key" | "apikey")
        || ["token", "secret", "password", "api_key", "api-key"].iter().any(|word| name.contains(word))
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
mod tests {
    use http::Method;

    use super::*;
    use crate::telemetry::{
        item::{tests::scored, Phase},
        record::Route,
    };

    fn decoded(request: &Request) -> Vec<OtlpSpan> {
        spans(request, AttributeLimits::default())
            .iter()
            .map(|span| OtlpSpan::decode(span.as_slice()).expect("a span"))
            .collect()
    }

    fn value<'a>(span: &'a OtlpSpan, key: &str) -> Option<&'a Value> {
        span.attributes.iter().find(|attribute| attribute.key == key)?.value.as_ref()?.value.as_ref()
    }

    fn string(text: &str) -> Option<Value> {
        Some(Value::StringValue(text.to_owned()))
    }

    #[test]
    fn a_request_is_a_server_span_with_its_parts_as_children() {
        let phase = |name, from, to| Phase { name, from: Duration::from_millis(from), to: Duration::from_millis(to) };
        let phases = vec![phase("queue", 1, 2), phase("run", 3, 10)];
        let found = decoded(&Request { phases, ..scored() });
        let [server, queue, run] = found.as_slice() else { panic!("{} spans", found.len()) };
        assert_eq!((server.name.as_str(), server.kind), ("POST /score", SpanKind::Server as i32));
        assert_eq!(
            (&server.trace_id[..], &server.span_id[..], &server.parent_span_id[..]),
            (&[0xab; 16][..], &[0xcd; 8][..], &[0xef; 8][..])
        );
        assert_eq!(server.end_time_unix_nano - server.start_time_unix_nano, 12_345_000);
        assert_eq!(value(server, "http.response.status_code"), Some(&Value::IntValue(200)));
        assert_eq!(value(server, "url.query").cloned(), string("name=%C3%A9%20x"));
        assert_eq!(value(server, "server.port"), Some(&Value::IntValue(5001)));
        assert_eq!((value(server, "error.type"), server.status.clone()), (None, None));
        for (part, name) in [(queue, "queue"), (run, "run")] {
            assert_eq!((part.name.as_str(), part.kind), (name, SpanKind::Internal as i32));
            assert_eq!((&part.trace_id, &part.parent_span_id), (&server.trace_id, &server.span_id));
        }
        assert_ne!(queue.span_id, run.span_id);
        assert_eq!(run.start_time_unix_nano - server.start_time_unix_nano, 3_000_000);
    }

    #[test]
    fn only_faults_of_the_server_are_errors() {
        let failed = |status, error: Option<&str>| {
            let request = Request { status, error: error.map(str::to_owned), ..scored() };
            let server = decoded(&request).remove(0);
            (server.status.clone().map(|status| status.code), value(&server, "error.type").cloned())
        };
        let error = Some(StatusCode::Error as i32);
        assert_eq!(failed(Some(404), Some("not_found")), (None, None));
        assert_eq!(failed(Some(500), Some("ValueError")), (error, string("ValueError")));
        assert_eq!(failed(Some(503), None), (error, string("503")));
        assert_eq!(failed(None, Some("client_left")), (error, string("client_left")));
    }

    #[test]
    fn names_have_few_values_whatever_clients_send() {
        let strange = Request { method: Method::from_bytes(b"BREW").expect("a method"), route: None, ..scored() };
        let server = decoded(&strange).remove(0);
        assert_eq!((server.name.as_str(), value(&server, "http.request.method").cloned()), ("HTTP", string("_OTHER")));
        let unrouted = Request { route: None, ..scored() };
        assert_eq!(decoded(&unrouted)[0].name, "POST");
        assert_eq!(decoded(&Request { route: Some(Route::Live), ..scored() })[0].name, "POST /livez");
    }

    #[test]
    fn a_trace_that_is_not_sampled_has_no_spans() {
        let mut request = scored();
        request.span.is_sampled = false;
        assert!(spans(&request, AttributeLimits::default()).is_empty());
    }

    #[test]
    fn secrets_of_a_query_are_not_sent() {
        for (query, expected) in [
            ("a=1&sig=x&b=2", "a=1&sig=REDACTED&b=2"),
            ("access_token=x&Api-Key=y", "access_token=REDACTED&Api-Key=REDACTED"),
            ("sig&plain", "sig&plain"),
        ] {
            assert_eq!(redacted(query), expected);
        }
    }

    #[test]
    fn hosts_are_addresses_and_ports() {
        for (host, expected) in [
            ("localhost:5001", Some(("localhost", Some(5001)))),
            ("[::1]:80", Some(("::1", Some(80)))),
            ("[::1]", Some(("::1", None))),
            ("example.com", Some(("example.com", None))),
            ("", None),
        ] {
            assert_eq!(server_address(host), expected);
        }
    }

    #[test]
    fn bodies_hold_all_items_and_the_resource() {
        let resource = resource(&[("service.name".to_owned(), "ML service".to_owned())]);
        let mut items = spans(&scored(), AttributeLimits::default());
        items.push(b"damaged".to_vec());
        let body = ExportTraceServiceRequest::decode(traces_body(&resource, &items).as_slice()).expect("a request");
        assert_eq!(body.resource_spans[0].resource.as_ref(), Some(&resource));
        assert_eq!(body.resource_spans[0].scope_spans[0].spans.len(), 1);
        let record = LogRecord {
            time: 1.5,
            level: 30,
            logger: "azmlinfsrv.print".to_owned(),
            message: "hello".to_owned(),
            trace: "ab".repeat(16),
            span: "cd".repeat(8),
            ..LogRecord::default()
        };
        let body = ExportLogsServiceRequest::decode(
            logs_body(&resource, &[log_record(&record, AttributeLimits::default())]).as_slice(),
        );
        let body = body.expect("a request");
        let found = &body.resource_logs[0].scope_logs[0].log_records[0];
        assert_eq!((found.time_unix_nano, found.severity_number), (1_500_000_000, 13));
        assert_eq!(found.body.clone().and_then(|body| body.value), string("hello"));
        assert_eq!((&found.trace_id[..], &found.span_id[..]), (&[0xab; 16][..], &[0xcd; 8][..]));
    }

    #[test]
    fn attributes_are_limited_in_number_and_length() {
        let limits = AttributeLimits { count: 3, length: 2 };
        let span = spans(&scored(), limits).remove(0);
        let span = OtlpSpan::decode(span.as_slice()).expect("a span");
        assert_eq!(value(&span, "http.request.method").cloned(), string("PO"));
        let all = decoded(&scored()).remove(0).attributes.len();
        assert_eq!((span.attributes.len(), span.dropped_attributes_count as usize), (3, all - 3));
        let record = LogRecord { logger: "éèà".to_owned(), ..LogRecord::default() };
        let record = OtlpRecord::decode(log_record(&record, limits).as_slice()).expect("a record");
        assert_eq!(record.attributes, [text("logger.name", "éè")]);
        assert_eq!(record.dropped_attributes_count, 0);
    }

    #[test]
    fn a_compressed_body_is_gzip() {
        use std::io::Read as _;
        let mut text = String::new();
        flate2::read::GzDecoder::new(gzip(b"hello").as_slice()).read_to_string(&mut text).expect("gzip");
        assert_eq!(text, "hello");
    }
}
