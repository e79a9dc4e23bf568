//! Tests of `item.rs`, and the requests that tests of the formats take.

use super::*;

pub(in crate::telemetry) fn at(seconds: u64, micros: u32) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::new(seconds, micros * 1000)
}

impl Request {
    /// All of its texts.
    pub(in crate::telemetry) fn text_bytes(&self) -> &[u8] {
        &self.texts.bytes
    }

    /// The same request with another text.
    pub(in crate::telemetry) fn with(mut self, text: Text, bytes: &[u8]) -> Self {
        let all = [
            Text::Target,
            Text::Host,
            Text::UserAgent,
            Text::TraceState,
            Text::RequestId,
            Text::ClientRequestId,
            Text::ErrorLocation,
        ];
        self.texts = Texts::of(
            all.map(|known| if known == text { bytes } else { self.texts.get(known) }),
            &mut Pieces::default(),
        );
        self
    }
}

/// A request to `/score` that succeeded.
pub(in crate::telemetry) fn scored() -> Request {
    Request {
        began_at: at(1_796_017_111, 338_610),
        began: Instant::now(),
        duration: Duration::from_micros(12_345),
        elapsed: Duration::from_micros(12_000),
        method: Method::POST,
        http_minor: 1,
        route: Some(Route::Score),
        span: Some(Span { trace_id: [0xab; 16], span_id: [0xcd; 8], is_sampled: true }),
        parent: Some(TraceParent { trace_id: [0xab; 16], span_id: [0xef; 8], flags: 1 }),
        peer: None,
        client: None,
        is_https: false,
        status: Some(200),
        outcome: Outcome::Answered,
        job: JobTimes::default(),
        worker: None,
        bytes_in: 0,
        bytes_out: 0,
        reply_length: None,
        texts: Texts::of(
            [b"/score?name=%C3%A9%20x", b"127.0.0.1:5001", b"", b"", b"r", b"", b""],
            &mut Pieces::default(),
        ),
    }
}

#[test]
fn the_parts_of_a_request_follow_each_other() {
    let mut request = scored();
    let at = |millis| Some(request.began + Duration::from_millis(millis));
    request.job = JobTimes { queued: at(1), sent: at(2), started: at(4), ended: at(20), ..JobTimes::default() };
    let names = |phases: &[Phase]| phases.iter().map(|phase| phase.name).collect::<Vec<_>>();
    assert_eq!(names(&request.phases()), ["queue"]);
    request.job.run = Some(Duration::from_millis(10));
    let found = request.phases();
    assert_eq!(names(&found), ["queue", "convert", "run"]);
    assert!(found.windows(2).all(|pair| pair[0].to == pair[1].from && pair[0].from <= pair[0].to));
    // The worker's clock may say that `run()` took longer than the front saw the job with the worker.
    request.job.run = Some(Duration::from_secs(10));
    assert!(request.phases().iter().all(|phase| phase.from <= phase.to && phase.to <= Duration::from_millis(20)));
    request.job.started = None;
    assert!(request.phases().is_empty());
}

#[test]
fn each_text_is_where_it_was_put() {
    let request = scored().with(Text::UserAgent, b"a\xff").with(Text::ErrorLocation, b"score.py:1 KeyError");
    let texts = [Text::Target, Text::Host, Text::UserAgent, Text::TraceState, Text::RequestId, Text::ClientRequestId];
    let found = texts.map(|text| request.text(text));
    assert_eq!(found, ["/score?name=%C3%A9%20x", "127.0.0.1:5001", "a\u{fffd}", "", "r", ""]);
    assert_eq!(request.error(), None);
    let failed = Request { outcome: Outcome::ScriptError, ..request };
    assert_eq!(failed.error().as_deref(), Some("KeyError"));
}

#[test]
fn the_beginning_of_a_reply_is_cut_in_characters() {
    let text = |bytes: &[u8], is_all| ReplyStart::of(bytes, is_all).text().map(|text| text.chars().count());
    assert_eq!(text(b"", true), Some(0));
    assert_eq!(text(&[b'a'; 9000], true), Some(MAX_VALUE));
    assert_eq!(text("\u{1f600}".repeat(9000).as_bytes(), true), Some(MAX_VALUE));
    assert_eq!(text(b"\xff", true), None);
    assert_eq!(text("é".as_bytes().split_at(1).0, true), None, "an incomplete character is no text");
    assert_eq!(text("é".as_bytes().split_at(1).0, false), Some(0), "it is completed later");
}
