//! Tests of `otlp.rs`.

use http::Method;
use opentelemetry_proto::tonic::collector::{logs::v1::ExportLogsServiceRequest, trace::v1::ExportTraceServiceRequest};

use super::*;
use crate::telemetry::{
    item::tests::scored,
    record::{JobTimes, Outcome, Refusal, Route},
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
    let mut request = scored();
    let at = |millis| Some(request.began + Duration::from_millis(millis));
    let run = Some(Duration::from_millis(7));
    request.job = JobTimes { queued: at(1), started: at(2), ended: at(10), run, ..JobTimes::default() };
    let found = decoded(&request);
    let [server, queue, _, run] = found.as_slice() else { panic!("{} spans", found.len()) };
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
    let failed = |status, outcome| {
        let request = Request { status, outcome, ..scored() }.with(Text::ErrorLocation, b"score.py:1 ValueError");
        let server = decoded(&request).remove(0);
        (server.status.clone().map(|status| status.code), value(&server, "error.type").cloned())
    };
    let error = Some(StatusCode::Error as i32);
    assert_eq!(failed(Some(404), Outcome::Refused(Refusal::NotFound)), (None, None));
    assert_eq!(failed(Some(500), Outcome::ScriptError), (error, string("ValueError")));
    assert_eq!(failed(Some(503), Outcome::Answered), (error, string("503")));
    assert_eq!(failed(None, Outcome::Abandoned), (error, string("client_left")));
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
    request.span.iter_mut().for_each(|span| span.is_sampled = false);
    assert!(spans(&request, AttributeLimits::default()).is_empty());
}

#[test]
fn secrets_of_a_query_are_not_sent() {
    let server = decoded(&scored().with(Text::Target, b"/score?a=1&sig=x&code=y")).remove(0);
    assert_eq!(value(&server, "url.query").cloned(), string("a=1&sig=REDACTED&code=REDACTED"));
    assert_eq!(value(&server, "url.path").cloned(), string("/score"));
}

#[test]
fn the_scheme_is_that_of_the_client() {
    for (is_https, scheme) in [(false, "http"), (true, "https")] {
        let server = decoded(&Request { is_https, ..scored() }).remove(0);
        assert_eq!(value(&server, "url.scheme").cloned(), string(scheme));
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
    let items = [spans(&scored(), AttributeLimits::default()), spans(&scored(), AttributeLimits::default())].concat();
    let items: Vec<_> = items.into_iter().map(Bytes::from).collect();
    let bytes = body(&resource, &items);
    assert!(items.iter().all(|item| is_span(item)) && !is_span(b"damaged") && !is_log_record(b"damaged"));
    let sent = ExportTraceServiceRequest::decode(bytes.as_slice()).expect("a request");
    assert_eq!(sent.encode_to_vec(), bytes);
    assert_eq!(sent.resource_spans[0].resource.as_ref(), Some(&resource));
    let of_scope = &sent.resource_spans[0].scope_spans[0];
    assert_eq!((of_scope.scope.as_ref(), of_scope.spans.len()), (Some(&scope()), 2));
    let record = LogRecord {
        time: 1.5,
        level: 30,
        logger: "azmlinfsrv.print".to_owned(),
        message: "hello".to_owned(),
        trace: "ab".repeat(16),
        span: "cd".repeat(8),
        ..LogRecord::default()
    };
    let item = log_record(&record, AttributeLimits::default());
    assert!(is_log_record(&item));
    let sent = ExportLogsServiceRequest::decode(body(&resource, &[item.into()]).as_slice()).expect("a request");
    let found = &sent.resource_logs[0].scope_logs[0].log_records[0];
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
