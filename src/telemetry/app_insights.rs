//! Items of Application Insights: requests, messages, exceptions and events as JSON.
//!
//! Pure functions. Names, order of properties and lengths are those of azureml-inference-server-http 1.5.1
//! (docs/telemetry.md lists what differs, and why). Runs in the exporter's thread.

use std::{
    fmt::Write as _,
    time::{Duration, SystemTime},
};

use http::Method;
use serde::{ser::SerializeMap as _, Serialize, Serializer};

use super::{
    item::{Exception, LogRecord, Request, Sample},
    record::{Refusal, Route},
    trace_context::Hex,
};

/// Longest value of a property, in characters.
pub const MAX_VALUE: usize = 8192;
/// Longest key of a property; longer ones are dropped.
const MAX_KEY: usize = 150;
/// Longest message and traceback, in characters.
const MAX_MESSAGE: usize = 32768;
/// Longest name, in characters.
const MAX_NAME: usize = 1024;
/// `Response Value` of a body that is no text. The quotes belong to it.
const NOT_TEXT: &str = "\"Scoring request response payload is a non serializable object or raw binary\"";

/// What all items of one server have in common.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    /// Instrumentation key.
    pub key: String,
    /// `SERVICE_NAME`.
    pub service: String,
    /// `WORKSPACE_NAME`.
    pub workspace: String,
    /// `HOSTNAME`.
    pub container: String,
    /// Tags of every item, in order.
    pub tags: Vec<(&'static str, String)>,
}

/// The kinds of items.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Request,
    Message,
    Exception,
    Event,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Request => "Microsoft.ApplicationInsights.Request",
            Self::Message => "Microsoft.ApplicationInsights.Message",
            Self::Exception => "Microsoft.ApplicationInsights.Exception",
            Self::Event => "Microsoft.ApplicationInsights.Event",
        }
    }

    fn base_type(self) -> &'static str {
        match self {
            Self::Request => "RequestData",
            Self::Message => "MessageData",
            Self::Exception => "ExceptionData",
            Self::Event => "EventData",
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a, T> {
    ver: u8,
    name: &'static str,
    time: String,
    sample_rate: f64,
    i_key: &'a str,
    tags: Pairs<'a>,
    data: Data<T>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Data<T> {
    base_type: &'static str,
    base_data: T,
}

/// An object whose members keep their order.
struct Pairs<'a>(Vec<(&'a str, &'a str)>);

impl Serialize for Pairs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in &self.0 {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RequestData<'a> {
    ver: u8,
    id: String,
    name: &'a str,
    duration: String,
    success: bool,
    response_code: String,
    properties: Pairs<'a>,
    measurements: Pairs<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MessageData<'a> {
    ver: u8,
    message: &'a str,
    severity_level: &'static str,
    properties: Pairs<'a>,
}

#[derive(Serialize)]
struct EventData<'a> {
    ver: u8,
    name: &'a str,
    properties: Pairs<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExceptionData<'a> {
    ver: u8,
    exceptions: [ExceptionDetails<'a>; 1],
    severity_level: &'static str,
    properties: Pairs<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExceptionDetails<'a> {
    type_name: &'a str,
    message: &'a str,
    has_full_stack: bool,
    stack: &'a str,
}

/// False for a request that 1.5.1 does not report either: routes other than `/score` and `/swagger.json`, and requests that
/// no route takes.
pub fn reports(request: &Request) -> bool {
    let is_refused = request.error.as_deref() == Some(Refusal::Method.name()) && request.method != Method::HEAD;
    matches!(request.route, Some(Route::Score | Route::Swagger)) && !is_refused && request.status.is_some()
}

/// The item of a request; `None` for a request that is not reported.
pub fn request(origin: &Origin, request: &Request) -> Option<Vec<u8>> {
    if !reports(request) {
        return None;
    }
    let (path, status) = (request.route?.path(), request.status?);
    let success = status < 400;
    let response = request.sample.as_ref().map(|sample| match sample {
        Sample::Text(text) => text.as_str(),
        Sample::Binary => NOT_TEXT,
    });
    let status = status.to_string();
    let scheme = if request.is_https { "https" } else { "http" };
    let url = iri(&format!("{scheme}://{}{}", request.host, request.target));
    let start = time_text(request.began_at, false);
    let duration = span_text(request.duration);
    let properties = properties(
        [
            ("Container Id", origin.container.as_str()),
            ("Request Id", &request.request_id),
            ("Client Request Id", &request.client_request_id),
            ("Response Value", response.unwrap_or_default()),
            ("name", path),
            ("url", &url),
            ("start_time", &start),
            ("duration", &duration),
            ("resultCode", &status),
            ("success", if success { "True" } else { "False" }),
            ("http_method", request.method.as_str()),
            ("Workspace Name", &origin.workspace),
            ("Service Name", &origin.service),
        ]
        .into_iter()
        .filter(|(key, _)| *key != "Response Value" || response.is_some()),
    );
    let (trace, span) = (Hex(&request.span.trace_id).to_string(), Hex(&request.span.span_id).to_string());
    let parent = request.parent.map(|parent| Hex(&parent.span_id).to_string());
    let mut tags = vec![("ai.operation.id", trace.as_str())];
    tags.extend(parent.as_deref().map(|parent| ("ai.operation.parentId", parent)));
    tags.push(("ai.operation.name", path));
    let data = RequestData {
        ver: 2,
        id: span,
        name: path,
        duration: native_span(request.duration),
        response_code: status.clone(),
        success,
        properties,
        measurements: Pairs(Vec::new()),
    };
    Some(envelope(origin, Kind::Request, time_text(request.began_at, true), tags, data))
}

/// The item of a log record: an exception, an event or a message.
pub fn log_record(origin: &Origin, record: &LogRecord) -> Vec<u8> {
    let time = time_text(record.at(), true);
    let zeros = "0".repeat(32);
    let (trace, span) =
        if record.trace.is_empty() { (&zeros[..], &zeros[..16]) } else { (&*record.trace, &*record.span) };
    let tags = vec![("ai.operation.id", trace), ("ai.operation.parentId", span)];
    let properties = properties(record.properties.iter().map(|(key, value)| (key.as_str(), value.as_str())));
    if let Some(exception) = &record.exception {
        let Exception { kind, message, stack } = exception;
        let details = ExceptionDetails {
            type_name: cut(kind, MAX_NAME),
            message: cut(message, MAX_MESSAGE),
            has_full_stack: true,
            stack: cut(stack, MAX_MESSAGE),
        };
        let data = ExceptionData { ver: 2, severity_level: severity(record.level), properties, exceptions: [details] };
        return envelope(origin, Kind::Exception, time, tags, data);
    }
    if let Some(name) = &record.event {
        let data = EventData { ver: 2, name: cut(name, MAX_NAME), properties };
        return envelope(origin, Kind::Event, time, tags, data);
    }
    let message = cut(&record.message, MAX_MESSAGE);
    let data = MessageData { ver: 2, message, severity_level: severity(record.level), properties };
    envelope(origin, Kind::Message, time, tags, data)
}

fn envelope<T: Serialize>(origin: &Origin, kind: Kind, time: String, own: Vec<(&str, &str)>, data: T) -> Vec<u8> {
    let tags = origin.tags.iter().map(|(key, value)| (*key, value.as_str())).chain(own).collect();
    let envelope = Envelope {
        ver: 1,
        name: kind.name(),
        time,
        sample_rate: 100.0,
        i_key: &origin.key,
        tags: Pairs(tags),
        data: Data { base_type: kind.base_type(), base_data: data },
    };
    // Texts and numbers always serialize.
    serde_json::to_vec(&envelope).unwrap_or_default()
}

fn properties<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Pairs<'a> {
    let kept = pairs.into_iter().filter(|(key, _)| !key.is_empty() && key.chars().count() <= MAX_KEY);
    Pairs(kept.map(|(key, value)| (key, cut(value, MAX_VALUE))).collect())
}

/// The first `limit` characters.
pub fn cut(text: &str, limit: usize) -> &str {
    match text.char_indices().nth(limit) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

fn severity(level: u32) -> &'static str {
    match level {
        50.. => "4",
        40..=49 => "3",
        30..=39 => "2",
        20..=29 => "1",
        _ => "0",
    }
}

/// UTC with up to six digits of a second: `2026-11-30T05:38:31.33861Z`. `trims` leaves out zeros at the end.
pub fn time_text(time: SystemTime, trims: bool) -> String {
    let time = time::OffsetDateTime::from(time);
    let mut text = format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
        time.year(),
        u8::from(time.month()),
        time.day(),
        time.hour(),
        time.minute(),
        time.second()
    );
    let micros = time.microsecond();
    if micros > 0 {
        // Writing to a String cannot fail.
        let _ = write!(text, ".{micros:06}");
        if trims {
            text.truncate(text.trim_end_matches('0').len());
        }
    }
    text.push('Z');
    text
}

/// `HH:MM:SS.mmm`, with `D.` in front from one day on.
fn span_text(duration: Duration) -> String {
    let (days, clock) = clock_text(duration);
    if days > 0 {
        format!("{days}.{clock}.{:03}", duration.subsec_millis())
    } else {
        format!("{clock}.{:03}", duration.subsec_millis())
    }
}

/// The native form: `D.HH:MM:SS.ffffff`.
fn native_span(duration: Duration) -> String {
    let (days, clock) = clock_text(duration);
    format!("{days}.{clock}.{:06}", duration.subsec_micros())
}

fn clock_text(duration: Duration) -> (u64, String) {
    let seconds = duration.as_secs();
    let clock = format!("{:02}:{:02}:{:02}", seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    (seconds / 86400, clock)
}

/// A URL for people: percent-encoded text beyond ASCII is decoded, everything else stays (`%C3%A9` is `é`, `%20` stays).
fn iri(url: &str) -> String {
    let bytes = url.as_bytes();
    let mut out: Vec<u8> = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&first, after)) = rest.split_first() {
        let run: Vec<u8> = percent_run(rest);
        if run.is_empty() {
            out.push(first);
            rest = after;
            continue;
        }
        match std::str::from_utf8(&run) {
            Ok(_) => out.extend_from_slice(&run),
            Err(_) => out.extend_from_slice(&rest[..run.len() * 3]),
        }
        rest = &rest[run.len() * 3..];
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The bytes of the percent-encoded run beyond ASCII that `text` begins with.
fn percent_run(text: &[u8]) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    text.chunks_exact(3)
        .map_while(|chunk| match *chunk {
            [b'%', high, low] => Some(digit(high)? * 16 + digit(low)?).filter(|byte| *byte >= 0x80),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests;
