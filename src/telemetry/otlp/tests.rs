//! Tests of `otlp.rs`.

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
