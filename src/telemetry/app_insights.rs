//! Items of Application Insights: requests, messages, exceptions and events as JSON.
//!
//! Pure functions. Names, order of properties and lengths are those of azureml-inference-server-http 1.5.1
//! (docs/telemetry.md lists what differs, and why). Runs in the exporter's thread.

mod iri;

use http::Method;
use serde::{ser::SerializeMap as _, Serialize, Serializer};

use self::iri::iri;
use super::{
    item::{Exception, LogRecord, ReplyStart, Request, Text},
    record::{Outcome, Refusal, Route},
    redaction,
    times::{native_span, span_text, time_text},
    trace_context::write_hex,
};
use crate::json::utf8::write_text;

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
    facts: Facts,
    /// A request's item up to its time.
    head: Vec<u8>,
    /// Between the time of an item and its own tags.
    tags: Vec<u8>,
    /// Between the tags of a request and its id.
    data: Vec<u8>,
    /// Between the duration of a request and its properties.
    properties: Vec<u8>,
    /// The end of a request's properties.
    end: Vec<u8>,
}

/// Where items come from.
#[derive(Debug, Clone, Default)]
pub struct Facts {
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
    time: &'a str,
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

impl Origin {
    /// Writes the parts of items that never change.
    pub fn new(facts: Facts) -> Self {
        let mut tags = b"\",\"sampleRate\":100.0,\"iKey\":".to_vec();
        write_text(&mut tags, &facts.key);
        tags.extend_from_slice(b",\"tags\":{");
        for (name, value) in &facts.tags {
            write_text(&mut tags, name);
            tags.push(b':');
            write_text(&mut tags, value);
            tags.push(b',');
        }
        tags.extend_from_slice(b"\"ai.operation.id\":\"");
        let mut properties = b",\"properties\":{\"Container Id\":".to_vec();
        write_text(&mut properties, cut(&facts.container, MAX_VALUE));
        properties.extend_from_slice(b",\"Request Id\":");
        let mut end = b",\"Workspace Name\":".to_vec();
        write_text(&mut end, cut(&facts.workspace, MAX_VALUE));
        end.extend_from_slice(b",\"Service Name\":");
        write_text(&mut end, cut(&facts.service, MAX_VALUE));
        end.extend_from_slice(b"},\"measurements\":{}}}}");
        let [name, kind] = [Kind::Request.name(), Kind::Request.base_type()];
        Self {
            facts,
            head: format!("{{\"ver\":1,\"name\":\"{name}\",\"time\":\"").into_bytes(),
            tags,
            data: format!("}},\"data\":{{\"baseType\":\"{kind}\",\"baseData\":{{\"ver\":2,\"id\":\"").into_bytes(),
            properties,
            end,
        }
    }

    /// Instrumentation key.
    pub fn key(&self) -> &str {
        &self.facts.key
    }

    /// Tags of every item.
    #[cfg(test)]
    pub fn tags(&self) -> &[(&'static str, String)] {
        &self.facts.tags
    }
}

/// False for a request that 1.5.1 does not report either: routes other than `/score` and `/swagger.json`, and requests that
/// no route takes. Requests of the Open Inference Protocol to the script count as those to `/score`.
pub fn reports(request: &Request) -> bool {
    let is_refused = request.outcome == Outcome::Refused(Refusal::Method) && request.method != Method::HEAD;
    request.route.is_some_and(|route| route.is_for_script() || route == Route::Swagger)
        && !is_refused
        && request.status.is_some()
}

/// Appends the item of a request; nothing if the request is not reported. `reply` is the beginning of the reply, if items
/// have it.
///
/// Each request has such an item, so it is written piece by piece, without anything in between.
pub fn request(out: &mut Vec<u8>, origin: &Origin, request: &Request, reply: Option<&ReplyStart>) {
    let (Some(span), Some(route), Some(status), true) = (request.span, request.route, request.status, reports(request))
    else {
        return;
    };
    let path = route.path().as_bytes();
    let success = status < 400;
    out.extend_from_slice(&origin.head);
    time_text(out, request.began_at, true);
    out.extend_from_slice(&origin.tags);
    write_hex(out, &span.trace_id);
    if let Some(parent) = request.parent {
        out.extend_from_slice(b"\",\"ai.operation.parentId\":\"");
        write_hex(out, &parent.span_id);
    }
    put(out, [b"\",\"ai.operation.name\":\"", path, b"\"", &origin.data]);
    write_hex(out, &span.span_id);
    put(out, [b"\",\"name\":\"", path, b"\",\"duration\":\""]);
    native_span(out, request.duration);
    out.extend_from_slice(if success { b"\",\"success\":true" } else { b"\",\"success\":false" });
    let mut digits = itoa::Buffer::new();
    let status = digits.format(status).as_bytes();
    put(out, [b",\"responseCode\":\"", status, b"\"", &origin.properties]);
    write_text(out, cut(&request.text(Text::RequestId), MAX_VALUE));
    out.extend_from_slice(b",\"Client Request Id\":");
    write_text(out, cut(&request.text(Text::ClientRequestId), MAX_VALUE));
    if let Some(reply) = reply {
        out.extend_from_slice(b",\"Response Value\":");
        write_text(out, reply.text().unwrap_or(NOT_TEXT));
    }
    put(out, [b",\"name\":\"", path, b"\",\"url\":"]);
    write_url(out, request);
    out.extend_from_slice(b",\"start_time\":\"");
    time_text(out, request.began_at, false);
    out.extend_from_slice(b"\",\"duration\":\"");
    span_text(out, request.duration);
    let success: &[u8] = if success { b"True" } else { b"False" };
    put(out, [b"\",\"resultCode\":\"", status, b"\",\"success\":\"", success, b"\",\"http_method\":"]);
    write_text(out, request.method.as_str());
    out.extend_from_slice(&origin.end);
}

fn put<const N: usize>(out: &mut Vec<u8>, parts: [&[u8]; N]) {
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

fn write_url(out: &mut Vec<u8>, request: &Request) {
    let scheme = if request.is_https { "https" } else { "http" };
    let (host, target) = (request.text(Text::Host), request.text(Text::Target));
    let target = redaction::target(&target);
    let mut url = String::with_capacity(scheme.len() + host.len() + target.len() + 3);
    [scheme, "://", &host, &target].into_iter().for_each(|part| url.push_str(part));
    write_text(out, cut(&iri(&url), MAX_VALUE));
}

/// The item of a log record: an exception, an event or a message.
pub fn log_record(origin: &Origin, record: &LogRecord) -> Vec<u8> {
    let mut time = Vec::new();
    time_text(&mut time, record.at(), true);
    let time = String::from_utf8_lossy(&time);
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
        return envelope(origin, Kind::Exception, &time, tags, data);
    }
    if let Some(name) = &record.event {
        let data = EventData { ver: 2, name: cut(name, MAX_NAME), properties };
        return envelope(origin, Kind::Event, &time, tags, data);
    }
    let message = cut(&record.message, MAX_MESSAGE);
    let data = MessageData { ver: 2, message, severity_level: severity(record.level), properties };
    envelope(origin, Kind::Message, &time, tags, data)
}

fn envelope<T: Serialize>(origin: &Origin, kind: Kind, time: &str, own: Vec<(&str, &str)>, data: T) -> Vec<u8> {
    let tags = origin.facts.tags.iter().map(|(key, value)| (*key, value.as_str())).chain(own).collect();
    let envelope = Envelope {
        ver: 1,
        name: kind.name(),
        time,
        sample_rate: 100.0,
        i_key: &origin.facts.key,
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
    if text.len() <= limit {
        return text;
    }
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

#[cfg(test)]
mod tests;
