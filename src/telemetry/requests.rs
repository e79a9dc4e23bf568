//! The reader of request records that exports them.
//!
//! Runs in the front's event loop: it chooses the ids of the server's span when a request begins, and puts the request into
//! the intake when it is finished.

use std::cell::RefCell;

use super::{
    ids::Sampler,
    intake::Intake,
    item::{Item, ReplyStart, Request},
    pieces::Pieces,
    record::{RequestRecord, Route, StreamStart},
    recorder::Reader,
};

/// Bytes of a stream that an item may have.
const MAX_STREAM_START: usize = 32 * 1024;

/// Exports requests.
pub struct ExportedRequests {
    intake: Intake,
    sampler: Sampler,
    which: Exported,
    /// Items have the beginning of the reply.
    has_response: bool,
    /// The texts of the requests in the intake.
    texts: RefCell<Pieces>,
}

/// The requests that an exporter takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exported {
    /// All of them.
    All,
    /// Those whose trace is sampled.
    Sampled,
}

impl ExportedRequests {
    /// Puts finished requests into this intake.
    pub fn new(intake: Intake, sampler: Sampler, which: Exported, has_response: bool) -> Self {
        Self { intake, sampler, which, has_response, texts: RefCell::default() }
    }

    fn takes(&self, record: &RequestRecord) -> bool {
        // Probes come all the time, and nobody wants to pay for storing them. The page is not about the script's requests.
        if record.route.is_some_and(Route::is_probe) {
            return false;
        }
        self.which == Exported::All || record.span.is_some_and(|span| span.is_sampled)
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
        if !self.takes(record) {
            return;
        }
        if let Some(request) = Request::of(record, &mut self.texts.borrow_mut()) {
            let reply = if self.has_response { reply_start(record) } else { None };
            self.intake.push(Item::Request(request, reply));
        }
    }
}

/// The beginning of the reply. `None` if the client left before there was one.
fn reply_start(record: &RequestRecord) -> Option<ReplyStart> {
    record.status?;
    Some(match (&record.reply_body, &record.error, &record.stream_start) {
        (Some(body), _, _) => ReplyStart::of(body, true),
        (None, Some(message), _) => ReplyStart::of(&record.error_body(message), true),
        (None, None, Some(start)) => {
            let bytes = start.bytes();
            ReplyStart::of(&bytes[..bytes.len().min(MAX_STREAM_START)], bytes.len() < MAX_STREAM_START)
        }
        (None, None, None) => ReplyStart::of(&[], true),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::Method;

    use super::{
        super::{app_insights::MAX_VALUE, intake::Taken},
        *,
    };
    use crate::telemetry::{
        item::Text,
        record::{Head, Ids},
        recorder::Recorder,
        trace_context::TraceParent,
    };

    /// What is exported of a request of a caller that has set these flags.
    fn exported(
        which: Exported,
        flags: u8,
        route: Option<Route>,
        has_head: bool,
    ) -> Option<(Request, Option<ReplyStart>)> {
        let intake = Intake::default();
        let reader = ExportedRequests::new(intake.clone(), Sampler::default(), which, true);
        let recorder = Recorder::new(vec![Box::new(reader)]);
        let head = Head::without_fields(Method::POST, "/score?a=1");
        let mut record = RequestRecord::begin(has_head.then_some(head), None);
        record.parent = Some(TraceParent { trace_id: [1; 16], span_id: [2; 8], flags });
        let mut recording = recorder.begin(record);
        recording.route = route;
        recording.ids = Ids { request: Some("r".into()), ..Ids::default() };
        recording.status = Some(200);
        recording.reply_body = Some("[1]".into());
        recording.complete();
        intake.end();
        let mut taken = Taken::default();
        intake.take(Duration::ZERO, None, &mut taken);
        taken.items.pop_front().map(|item| match item {
            Item::Request(request, reply) => (request, reply),
            Item::Log(_) | Item::Metrics(_) => panic!("no request"),
        })
    }

    #[test]
    fn a_finished_request_is_exported_in_the_callers_trace() {
        let (request, reply) = exported(Exported::All, 1, Some(Route::Score), true).expect("exported");
        assert_eq!((&*request.text(Text::Target), &*request.text(Text::RequestId)), ("/score?a=1", "r"));
        let span = request.span.expect("a span");
        assert_eq!((span.trace_id, request.status), ([1; 16], Some(200)));
        assert_ne!(span.span_id, [2; 8]);
        assert_eq!(reply, Some(ReplyStart::of(b"[1]", true)));
    }

    #[test]
    fn a_request_whose_trace_is_not_sampled_costs_nothing_if_only_spans_are_exported() {
        for (which, flags, is_exported) in
            [(Exported::Sampled, 0, false), (Exported::Sampled, 1, true), (Exported::All, 0, true)]
        {
            let found = exported(which, flags, Some(Route::Score), true);
            assert_eq!(found.is_some(), is_exported, "{which:?} {flags}");
        }
    }

    #[test]
    fn texts_of_requests_in_the_intake_are_apart_from_those_of_other_queues() {
        let intake = Intake::default();
        let exported = ExportedRequests::new(intake.clone(), Sampler::default(), Exported::All, false);
        let others = RefCell::default();
        let record = RequestRecord::begin(Some(Head::without_fields(Method::POST, "/score")), None);
        for _ in 0..3 {
            exported.finished(&record);
            // A request that only the log takes.
            let _ = Request::of(&record, &mut others.borrow_mut());
        }
        let mut taken = Taken::default();
        intake.take(Duration::ZERO, None, &mut taken);
        let places = taken.items.iter().map(|item| match item {
            Item::Request(request, _) => request.text_bytes().as_ptr_range(),
            Item::Log(_) | Item::Metrics(_) => panic!("no request"),
        });
        let places: Vec<_> = places.collect();
        assert!(places.len() == 3 && places.windows(2).all(|pair| pair[0].end == pair[1].start), "{places:?}");
    }

    #[test]
    fn a_stream_has_its_beginning_and_a_refusal_its_message() {
        let mut record = RequestRecord::begin(None, None);
        assert_eq!(reply_start(&record), None, "the client left before there was a reply");
        record.status = Some(200);
        StreamStart::want(&mut record.stream_start, MAX_STREAM_START);
        record.note_streamed(&vec![b'a'; MAX_STREAM_START - 1]);
        record.note_streamed("éé".as_bytes());
        assert_eq!(record.stream_start.as_ref().map(|start| start.bytes().len()), Some(MAX_STREAM_START));
        let text = |record: &RequestRecord| reply_start(record).and_then(|reply| reply.text().map(str::to_owned));
        assert_eq!(text(&record), Some("a".repeat(MAX_VALUE)));
        record.error = Some("no".to_owned());
        assert_eq!(text(&record).as_deref(), Some("{\"message\": \"no\"}"));
    }

    #[test]
    fn probes_and_what_is_no_request_are_not_exported() {
        for route in [Route::Docs, Route::Health, Route::Live, Route::Ready, Route::Metrics] {
            assert!(exported(Exported::All, 1, Some(route), true).is_none());
        }
        assert!(exported(Exported::All, 1, None, false).is_none());
        assert!(exported(Exported::All, 1, None, true).is_some(), "a path without a route is a request");
    }
}
