//! `--record`: requests to the script, by `/score` or by the Open Inference Protocol, and their answers as samples for
//! `azmlinfsrv validate` and `azmlinfsrv replay`.
//!
//! Owns which requests are recorded and what of them. The front's event loop collects a request and its answer in the
//! request's record ([`Sampled`]), and puts the sample into a bounded queue (`queue.rs`). A thread of its own writes the files
//! (`writer.rs`), because a disk may be slow or full, and requests must not wait for it. `redaction.rs` has the headers that
//! are never written.

use std::{
    path::PathBuf,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::Method;

use crate::telemetry::{
    record::{Delivery, Field, Outcome, Refusal, RequestRecord, Route, Sampled, StreamStart},
    recorder::Reader,
};

mod queue;
mod redaction;
mod writer;

use queue::{Missed, Queue};

/// Logger of its lines.
const LOG: &str = "azmlinfsrv.record";
/// How long the server waits at its end for samples to be written.
const STOP_PATIENCE: Duration = Duration::from_millis(1800);
/// How often the end of the thread is looked for then.
const LOOK: Duration = Duration::from_millis(5);

/// What is recorded where.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The folder of the samples (`--record`).
    pub folder: PathBuf,
    /// How many samples it may hold (`--record_count`).
    pub count: usize,
    /// The largest body that is written, in bytes (`--record_body_size`).
    pub body_size: usize,
}

/// A request to the script, and the answer to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    method: String,
    path: String,
    query: String,
    fields: Vec<Field>,
    body: Bytes,
    status: u16,
    reply_fields: Vec<Field>,
    /// `None` if the answer has no body, or one above `--record_body_size`.
    reply: Option<Bytes>,
}

impl Sample {
    /// About how many bytes of memory it takes.
    fn size(&self) -> usize {
        let fields = self.fields.iter().chain(&self.reply_fields);
        let fields: usize = fields.map(|(name, value)| name.len() + value.len()).sum();
        size_of::<Self>()
            + self.path.len()
            + self.query.len()
            + fields
            + self.body.len()
            + self.reply.as_ref().map_or(0, Bytes::len)
    }
}

/// The thread that writes samples.
pub struct Recorder {
    queue: Arc<Queue>,
    body_size: usize,
    thread: JoinHandle<()>,
}

impl Recorder {
    /// Starts the thread. A server that cannot record serves all the same: then the log says so, and this is `None`.
    pub fn start(plan: Plan) -> Option<Self> {
        let (queue, body_size) = (Arc::new(Queue::default()), plan.body_size);
        let of_thread = queue.clone();
        let thread = std::thread::Builder::new().name("azmlinfsrv-record".to_owned());
        match thread.spawn(move || writer::run(plan, &of_thread)) {
            Ok(thread) => Some(Self { queue, body_size, thread }),
            Err(error) => {
                log::error!(target: LOG, "Cannot start the thread that records requests (--record): {error}.");
                None
            }
        }
    }

    /// The reader of requests that gives samples to the thread.
    pub fn reader(&self) -> Box<dyn Reader> {
        Box::new(Samples { queue: self.queue.clone(), body_size: self.body_size })
    }

    /// Lets the thread write what waits, for at most [`STOP_PATIENCE`]. Call it when no more requests come.
    pub fn finish(self) {
        let deadline = Instant::now() + STOP_PATIENCE;
        self.queue.end();
        while !self.thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(LOOK);
        }
        // A thread that still waits for the disk ends with the process.
        let left = self.queue.length();
        if left > 0 {
            log::warn!(target: LOG, "{left} requests were not recorded (--record), because the server ended.");
        }
    }
}

struct Samples {
    queue: Arc<Queue>,
    body_size: usize,
}

impl Reader for Samples {
    fn begun(&self, record: &mut RequestRecord) {
        if self.queue.takes_more() {
            record.sampled = Some(Box::new(Sampled::new(self.body_size)));
            // One byte more shows that a stream is larger.
            StreamStart::want(&mut record.stream_start, self.body_size + 1);
        }
    }

    fn finished(&self, record: &RequestRecord) {
        match sample_of(record, self.body_size) {
            Some(Ok(sample)) => self.queue.push(sample),
            Some(Err(missed)) => self.queue.note_missed(missed),
            None => {}
        }
    }
}

/// The sample of a finished request; `None` if it is none of those that are recorded: requests to `/score` that the script
/// has answered, or has failed at. What the front refuses because of load says nothing about the script.
fn sample_of(record: &RequestRecord, body_size: usize) -> Option<Result<Sample, Missed>> {
    let (head, sampled, status) = (record.head.as_ref()?, record.sampled.as_ref()?, record.status?);
    let is_of_script = match record.outcome {
        Outcome::Answered | Outcome::ScriptError | Outcome::Timeout | Outcome::WorkerLost => record.worker.is_some(),
        Outcome::Refused(refusal) => refusal == Refusal::Unusable,
        Outcome::Abandoned => false,
    };
    let route = record.route.filter(|route| route.is_for_script())?;
    if !is_of_script {
        return None;
    }
    let Some(body) = &sampled.body else { return Some(Err(Missed::Large)) };
    let reply = match (&record.reply_body, &record.error, &record.stream_start) {
        (Some(body), _, _) => body.clone(),
        (None, Some(message), _) => record.error_body(message).into(),
        (None, None, _) if record.delivery != Delivery::Complete => return Some(Err(Missed::Incomplete)),
        (None, None, Some(start)) => Bytes::copy_from_slice(start.bytes()),
        (None, None, None) => return None,
    };
    let has_body = head.method != Method::HEAD && reply.len() <= body_size;
    let json = || vec![(Bytes::from_static(b"content-type"), Bytes::from_static(b"application/json"))];
    Some(Ok(Sample {
        method: head.method.as_str().to_owned(),
        path: if route == Route::Score { route.path().to_owned() } else { head.uri.path().to_owned() },
        query: head.uri.query().unwrap_or_default().to_owned(),
        fields: sampled.fields.clone(),
        body: body.clone(),
        status,
        reply_fields: if record.error.is_some() { json() } else { sampled.reply_fields.clone() },
        reply: has_body.then_some(reply),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::record::{Head, Worker};

    const LIMIT: usize = 20;

    fn record(method: Method, outcome: Outcome) -> RequestRecord {
        let head = Head::without_fields(method, "//score?a=1");
        let mut record = RequestRecord::begin(Some(head), None);
        let mut sampled = Sampled::new(LIMIT);
        sampled.body = Some(Bytes::from_static(b"body"));
        (record.route, record.status, record.outcome) = (Some(Route::Score), Some(200), outcome);
        record.worker = Some(Worker { pid: 1, slot: 0 });
        record.sampled = Some(Box::new(sampled));
        record.reply_body = Some(Bytes::from_static(b"reply"));
        record
    }

    fn answered() -> RequestRecord {
        record(Method::POST, Outcome::Answered)
    }

    /// What becomes of a record, in words.
    fn told(record: &RequestRecord) -> String {
        match sample_of(record, LIMIT) {
            None => "not recorded".to_owned(),
            Some(Err(missed)) => format!("{missed:?}"),
            Some(Ok(sample)) => match sample.reply {
                None => "no body".to_owned(),
                Some(reply) => String::from_utf8_lossy(&reply).into_owned(),
            },
        }
    }

    #[test]
    fn a_sample_has_what_the_client_sent() {
        let sample = sample_of(&answered(), LIMIT).expect("recorded").expect("complete");
        assert_eq!((&*sample.method, &*sample.query, &sample.body[..]), ("POST", "a=1", &b"body"[..]));
        assert_eq!(sample.path, "/score");
        let mut tensors = answered();
        tensors.route = Some(Route::V2Infer);
        tensors.head = Some(Head::without_fields(Method::POST, "/v2/models/m/infer"));
        let sample = sample_of(&tensors, LIMIT).expect("recorded").expect("complete");
        assert_eq!(sample.path, "/v2/models/m/infer");
    }

    #[test]
    fn what_the_script_has_answered_or_failed_at_is_recorded() {
        assert_eq!(told(&answered()), "reply");
        for outcome in [Outcome::ScriptError, Outcome::Timeout, Outcome::Refused(Refusal::Unusable)] {
            assert_eq!(told(&record(Method::POST, outcome)), "reply", "{outcome:?}");
        }
        let mut lost = record(Method::POST, Outcome::WorkerLost);
        (lost.reply_body, lost.error) = (None, Some("gone".to_owned()));
        assert_eq!(told(&lost), "{\"message\": \"gone\"}");
        for outcome in [Outcome::Abandoned, Outcome::Refused(Refusal::QueueFull), Outcome::Refused(Refusal::Stopped)] {
            assert_eq!(told(&record(Method::POST, outcome)), "not recorded", "{outcome:?}");
        }
        let by_front = RequestRecord { worker: None, ..answered() };
        assert_eq!(told(&by_front), "not recorded", "the front answers OPTIONS by itself");
        assert_eq!(told(&RequestRecord { route: Some(Route::Swagger), ..answered() }), "not recorded");
        assert_eq!(told(&RequestRecord { sampled: None, ..answered() }), "not recorded");
    }

    #[test]
    fn large_bodies_are_left_out() {
        let mut large = answered();
        large.reply_body = Some(Bytes::from_static(b"123456789012345678901"));
        assert_eq!(told(&large), "no body");
        let mut large = answered();
        large.sampled = Some(Box::new(Sampled::new(LIMIT)));
        assert_eq!(told(&large), "Large");
        assert_eq!(told(&record(Method::HEAD, Outcome::Answered)), "no body");
    }

    #[test]
    fn only_whole_streams_are_recorded() {
        let stream = |parts: &[&[u8]], delivery| {
            let mut record = RequestRecord { reply_body: None, is_stream: true, delivery, ..answered() };
            StreamStart::want(&mut record.stream_start, LIMIT + 1);
            parts.iter().for_each(|part| record.note_streamed(part));
            told(&record)
        };
        assert_eq!(stream(&[b"1234567890", b"1234567890"], Delivery::Complete), "12345678901234567890");
        assert_eq!(stream(&[b"1234567890", b"12345678901", b"2"], Delivery::Complete), "no body");
        assert_eq!(stream(&[], Delivery::Complete), "");
        assert_eq!(stream(&[b"1"], Delivery::BrokenOff), "Incomplete");
    }
}
