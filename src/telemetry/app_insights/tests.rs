//! Tests of `app_insights.rs`.

use serde_json::{json, Value};

use super::*;
use crate::telemetry::item::tests::scored;

fn origin() -> Origin {
    Origin::new(Facts {
        key: "00000000-0000-0000-0000-000000000001".to_owned(),
        service: "ML service".to_owned(),
        workspace: String::new(),
        container: "Unknown".to_owned(),
        tags: vec![("ai.cloud.role", "ML service".to_owned())],
    })
}

/// The item of a request; `None` if it has none.
fn item(of: &Request, reply: Option<&[u8]>) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    request(&mut out, &origin(), of, reply.map(|bytes| ReplyStart::of(bytes, true)).as_ref());
    (!out.is_empty()).then_some(out)
}

fn json_of(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("JSON")
}

#[test]
fn a_request_has_the_properties_of_1_5_1_and_true_native_fields() {
    let bytes = item(&scored(), Some(b"[1]")).expect("an item");
    assert_eq!(
        json_of(&bytes),
        json!({
            "ver": 1, "name": "Microsoft.ApplicationInsights.Request", "time": "2026-11-30T05:38:31.33861Z",
            "sampleRate": 100.0, "iKey": "00000000-0000-0000-0000-000000000001",
            "tags": {
                "ai.cloud.role": "ML service", "ai.operation.id": "ab".repeat(16),
                "ai.operation.parentId": "ef".repeat(8), "ai.operation.name": "/score",
            },
            "data": {"baseType": "RequestData", "baseData": {
                "ver": 2, "id": "cd".repeat(8), "name": "/score", "duration": "0.00:00:00.012345",
                "responseCode": "200", "success": true, "measurements": {},
                "properties": {
                    "Container Id": "Unknown", "Request Id": "r", "Client Request Id": "",
                    "Response Value": "[1]", "name": "/score",
                    "url": "http://127.0.0.1:5001/score?name=é%20x",
                    "start_time": "2026-11-30T05:38:31.338610Z", "duration": "00:00:00.012",
                    "resultCode": "200", "success": "True", "http_method": "POST",
                    "Workspace Name": "", "Service Name": "ML service",
                },
            }},
        })
    );
    let text = String::from_utf8(bytes).expect("text");
    let order = ["Container Id", "Request Id", "Client Request Id", "Response Value", "\"name\":\"/score\",\"url\""];
    let places: Vec<_> = order.iter().map(|name| text.find(name)).collect();
    assert!(places.is_sorted() && places.iter().all(Option::is_some), "{text}");
}

#[test]
fn failures_streams_and_bodies_that_are_no_text() {
    let failed = Request { status: Some(500), ..scored() };
    let bytes = item(&failed, Some(b"\xff")).expect("an item");
    let found = json_of(&bytes);
    let data = &found["data"]["baseData"];
    assert_eq!((&data["success"], &data["responseCode"]), (&json!(false), &json!("500")));
    assert_eq!(data["properties"]["success"], "False");
    assert_eq!(data["properties"]["Response Value"], NOT_TEXT);
    let found = json_of(&item(&scored(), None).expect("an item"));
    assert_eq!(found["data"]["baseData"]["properties"].get("Response Value"), None);
}

#[test]
fn the_url_is_what_the_client_used_without_secrets() {
    let secret = Request { is_https: true, ..scored() }.with(Text::Target, b"/score?a=%C3%A9&code=x");
    let found = json_of(&item(&secret, None).expect("an item"));
    assert_eq!(found["data"]["baseData"]["properties"]["url"], "https://127.0.0.1:5001/score?a=é&code=REDACTED");
}

#[test]
fn texts_of_clients_are_escaped() {
    let hostile = scored().with(Text::RequestId, b"\"\\\n\xff");
    let found = json_of(&item(&hostile, Some(b"\"\x01")).expect("an item"));
    let properties = &found["data"]["baseData"]["properties"];
    assert_eq!(
        (&properties["Request Id"], &properties["Response Value"]),
        (&json!("\"\\\n\u{fffd}"), &json!("\"\u{1}"))
    );
}

#[test]
fn routes_that_1_5_1_does_not_report_are_not_reported() {
    for route in [Some(Route::Health), Some(Route::Live), Some(Route::Ready), None] {
        assert_eq!(item(&Request { route, ..scored() }, None), None);
    }
    assert!(item(&Request { route: Some(Route::Swagger), ..scored() }, None).is_some());
    assert_eq!(item(&Request { status: None, ..scored() }, None), None, "a client that left got no reply");
    for (method, is_reported) in [(Method::PUT, false), (Method::HEAD, true)] {
        let refused = Request { outcome: Outcome::Refused(Refusal::Method), method, ..scored() };
        assert_eq!(item(&refused, None).is_some(), is_reported, "{:?}", refused.method);
    }
}

#[test]
fn a_message_has_a_level_as_text_and_its_properties_in_order() {
    let record = LogRecord {
        time: 1_796_017_111.5,
        level: 25,
        message: "hello".to_owned(),
        properties: vec![("b".to_owned(), "1".to_owned()), ("a".to_owned(), "(1, 2)".to_owned())],
        trace: "ab".repeat(16),
        span: "cd".repeat(8),
        ..LogRecord::default()
    };
    let bytes = log_record(&origin(), &record);
    let item = json_of(&bytes);
    assert_eq!(item["name"], "Microsoft.ApplicationInsights.Message");
    assert_eq!(item["time"], "2026-11-30T05:38:31.5Z");
    assert_eq!(item["tags"]["ai.operation.id"], "ab".repeat(16));
    assert_eq!(
        item["data"],
        json!({"baseType": "MessageData", "baseData": {
            "ver": 2, "message": "hello", "severityLevel": "1", "properties": {"b": "1", "a": "(1, 2)"}}})
    );
    assert!(String::from_utf8(bytes).expect("text").contains(r#"{"b":"1","a":"(1, 2)"}"#));
}

#[test]
fn levels_are_severities() {
    let expected = [(10, "0"), (20, "1"), (25, "1"), (30, "2"), (40, "3"), (49, "3"), (50, "4"), (1000, "4")];
    assert_eq!(expected.map(|(level, _)| (level, severity(level))), expected);
}

#[test]
fn a_record_without_a_request_has_ids_of_zeros() {
    let item = json_of(&log_record(&origin(), &LogRecord::default()));
    assert_eq!(item["tags"]["ai.operation.id"], "0".repeat(32));
    assert_eq!(item["tags"]["ai.operation.parentId"], "0".repeat(16));
    assert_eq!(item["time"], "1970-01-01T00:00:00Z");
}

#[test]
fn an_exception_and_an_event() {
    let exception =
        Exception { kind: "ValueError".to_owned(), message: "no".to_owned(), stack: "Traceback".to_owned() };
    let record = LogRecord { level: 40, exception: Some(exception), ..LogRecord::default() };
    let item = json_of(&log_record(&origin(), &record));
    assert_eq!(
        item["data"],
        json!({"baseType": "ExceptionData", "baseData": {
            "ver": 2, "severityLevel": "3", "properties": {}, "exceptions": [
                {"typeName": "ValueError", "message": "no", "hasFullStack": true, "stack": "Traceback"}]}})
    );
    let record = LogRecord { event: Some("bought".to_owned()), ..LogRecord::default() };
    let item = json_of(&log_record(&origin(), &record));
    assert_eq!(item["data"]["baseData"], json!({"ver": 2, "name": "bought", "properties": {}}));
}

#[test]
fn texts_are_cut_in_characters_and_long_keys_dropped() {
    let record = LogRecord {
        message: "é".repeat(MAX_MESSAGE + 5),
        properties: vec![("k".repeat(MAX_KEY), "ü".repeat(MAX_VALUE + 1)), ("k".repeat(MAX_KEY + 1), String::new())],
        ..LogRecord::default()
    };
    let item = json_of(&log_record(&origin(), &record));
    let data = &item["data"]["baseData"];
    assert_eq!(data["message"].as_str().map(|text| text.chars().count()), Some(MAX_MESSAGE));
    let properties = data["properties"].as_object().expect("an object");
    let lengths: Vec<_> = properties.values().map(|value| value.as_str().map(|text| text.chars().count())).collect();
    assert_eq!(lengths, [Some(MAX_VALUE)]);
}
