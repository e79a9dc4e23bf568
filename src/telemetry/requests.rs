//! The reader of request records that exports them.
//!
//! Runs in the front's event loop: it chooses the ids of the server's span when a request begins, and puts the request into
//! the intake when it is finished.

use super::{
    app_insights::{cut, MAX_VALUE},
    ids::Sampler,
    intake::Intake,
    item::{Item, Request, Sample},
    record::{RequestRecord, Route, StreamStart},
    recorder::Reader,
};
use crate::json::write;

/// Bytes of a stream that an item may have.
const MAX_STREAM_START: usize = 32 * 1024;

/// Exports requests.
pub struct ExportedRequests {
    intake: Intake,
    sampler: Sampler,
    /// Items have the beginning of the reply.
    has_response: bool,
}

impl ExportedRequests {
    /// Puts finished requests into this intake.
    pub fn new(intake: Intake, sampler: Sampler, has_response: bool) -> Self {
        Self { intake, sampler, has_response }
    }
}

/// Takes the caller's trace context from requests, so that each of them begins a trace (`OTEL_PROPAGATORS`). It must be the
/// first reader.
pub struct OwnTraces;

impl Reader for OwnTraces {
    fn begun(&self, record: &mut RequestRecord) {
        (record.parent, record.trace_state) = (None, None);
    }
}

impl Reader for ExportedRequests {
    fn begun(&self, record: &mut RequestRecord) {
        record.span = Some(self.sampler.begin(record.parent));
        if self.has_response {
            StreamStart::want(&mut record.stream_start, MAX_STREAM_START);
        }
    }

    fn finished(&self, record: &RequestRecord) {
        // Probes come all the time, and nobody wants to pay for storing them. The page is not about the script's requests.
        if matches!(record.route, Some(Route::Docs | Route::Health | Route::Live | Route::Ready | Route::Metrics)) {
            return;
        }
        if let Some(mut request) = record.span.and_then(|span| Request::of(record, span)) {
            request.sample = if self.has_response { sample(record) } else { None };
            self.intake.push(Item::Request(Box::new(request)));
        }
    }
}

/// The beginning of the reply. `None` if the client left before there was one.
fn sample(record: &RequestRecord) -> Option<Sample> {
    record.status?;
    Some(match (&record.reply_body, &record.error, &record.stream_start) {
        (Some(body), _, _) => beginning(body, true),
        (None, Some(message), _) => beginning(&write::message_body(message), true),
        (None, None, Some(start)) => {
            let bytes = start.bytes();
            beginning(&bytes[..bytes.len().min(MAX_STREAM_START)], bytes.len() < MAX_STREAM_START)
        }
        (None, None, None) => Sample::Text(String::new()),
    })
}

/// The first characters of a body. `is_all`: nothing follows `bytes`, so that a character must not be incomplete.
fn beginning(bytes: &[u8], is_all: bool) -> Sample {
    // A character has four bytes at most.
    let first = &bytes[..bytes.len().min(4 * MAX_VALUE)];
    let is_all = is_all && first.len() == bytes.len();
    let text = match std::str::from_utf8(first) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() && !is_all => {
            std::str::from_utf8(&first[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => return Sample::Binary,
    };
    Sample::Text(cut(text, MAX_VALUE).to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::Method;

    use super::*;
    use crate::telemetry::{
        record::{Head, Ids},
        recorder::Recorder,
        trace_context::TraceParent,
    };

    fn exported(route: Option<Route>, has_head: bool) -> Option<Request> {
        let intake = Intake::default();
        let recorder = Recorder::new(vec![Box::new(ExportedRequests::new(intake.clone(), Sampler::default(), true))]);
        let head = Head::without_fields(Method::POST, "/score?a=1");
        let mut record = RequestRecord::begin(has_head.then_some(head), None);
        record.parent = Some(TraceParent { trace_id: [1; 16], span_id: [2; 8], flags: 1 });
        let mut recording = recorder.begin(record);
        recording.route = route;
        recording.ids = Ids { request: Some("r".into()), ..Ids::default() };
        recording.status = Some(200);
        recording.reply_body = Some("[1]".into());
        recording.complete();
        intake.end();
        intake.take(Duration::ZERO, None).items.pop_front().map(|item| match item {
            Item::Request(request) => *request,
            Item::Log(_) | Item::Metrics(_) => panic!("no request"),
        })
    }

    #[test]
    fn a_finished_request_is_exported_in_the_callers_trace() {
        let request = exported(Some(Route::Score), true).expect("exported");
        assert_eq!((request.target.as_str(), request.request_id.as_str()), ("/score?a=1", "r"));
        assert_eq!((request.span.trace_id, request.status), ([1; 16], Some(200)));
        assert_ne!(request.span.span_id, [2; 8]);
        assert_eq!(request.sample, Some(Sample::Text("[1]".to_owned())));
    }

    #[test]
    fn the_beginning_of_a_reply_is_cut_in_characters() {
        let text = |bytes: &[u8], is_all| match beginning(bytes, is_all) {
            Sample::Text(text) => Some(text.chars().count()),
            Sample::Binary => None,
        };
        assert_eq!(text(b"", true), Some(0));
        assert_eq!(text(&[b'a'; 9000], true), Some(MAX_VALUE));
        assert_eq!(text("\u{1f600}".repeat(9000).as_bytes(), true), Some(MAX_VALUE));
        assert_eq!(text(b"\xff", true), None);
        assert_eq!(text("é".as_bytes().split_at(1).0, true), None, "an incomplete character is no text");
        assert_eq!(text("é".as_bytes().split_at(1).0, false), Some(0), "it is completed later");
    }

    #[test]
    fn a_stream_has_its_beginning_and_a_refusal_its_message() {
        let mut record = RequestRecord::begin(None, None);
        assert_eq!(sample(&record), None, "the client left before there was a reply");
        record.status = Some(200);
        StreamStart::want(&mut record.stream_start, MAX_STREAM_START);
        record.note_streamed(&vec![b'a'; MAX_STREAM_START - 1]);
        record.note_streamed("éé".as_bytes());
        assert_eq!(record.stream_start.as_ref().map(|start| start.bytes().len()), Some(MAX_STREAM_START));
        assert_eq!(sample(&record), Some(Sample::Text("a".repeat(MAX_VALUE))));
        record.error = Some("no".to_owned());
        assert_eq!(sample(&record), Some(Sample::Text("{\"message\": \"no\"}".to_owned())));
    }

    #[test]
    fn probes_and_what_is_no_request_are_not_exported() {
        for route in [Route::Docs, Route::Health, Route::Live, Route::Ready, Route::Metrics] {
            assert!(exported(Some(route), true).is_none());
        }
        assert!(exported(None, false).is_none());
        assert!(exported(None, true).is_some(), "a path without a route is a request");
    }
}
