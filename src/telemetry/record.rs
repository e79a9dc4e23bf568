//! The facts about one request, collected in one place for every reader (log, metrics, exporters).
//!
//! Only the front's event loop thread makes, fills and reads records, so nothing here needs a lock.
//! `recorder.rs` makes a record when a request head has been read and finishes it at the last byte
//! of the reply, whatever becomes of the request. A reader sees a record at three times, and each
//! field says from which of them on it has its value:
//!
//! 1. **begun**: the request head has been read;
//! 2. **answered**: the status and the outcome are known, and nothing of the reply has been written;
//! 3. **finished**: the last byte of the reply has been written to the client's socket, or no more
//!    will be.
//!
//! Fields hold what the server has at hand. They are formatted only when a reader wants that.

mod refusal;
mod route;

use std::{
    net::SocketAddr,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Uri, Version};

pub use self::{refusal::Refusal, route::Route};
use super::trace_context::{Span, TraceParent};

/// A header field as the client or the script sent it: name and value.
pub type Field = (Bytes, Bytes);

/// One request: what it was, what became of it, and when.
#[derive(Debug)]
pub struct RequestRecord {
    /// What the client sent. `None` if it was not a request: the HTTP parser refused it.
    /// Known from the beginning.
    pub head: Option<Head>,
    /// Where the request's path leads; `None` if nowhere. Known when the request is answered.
    pub route: Option<Route>,
    /// The ids in the reply's headers. Known from the beginning.
    pub ids: Ids,
    /// The span of the caller, from a valid `traceparent`. Known from the beginning.
    pub parent: Option<TraceParent>,
    /// The value of `tracestate`, if `parent` is known. Known from the beginning.
    pub trace_state: Option<Bytes>,
    /// The span of this request. A reader sets it in [`Reader::begun`](super::recorder::Reader::begun)
    /// if it exports spans; else it is `None`.
    pub span: Option<Span>,
    /// Address of the connection's other end. Known from the beginning.
    pub peer: Option<SocketAddr>,
    /// Who sent the request: what a proxy of `--trusted_proxies` says, else `peer`. Port 0 if the proxy does not name it.
    /// Known from the beginning.
    pub client: Option<SocketAddr>,
    /// Whether the client used https, if a proxy of `--trusted_proxies`, or one on this machine, says that. Known from the
    /// beginning.
    pub is_https: Option<bool>,
    /// When the head had been read, by the clock on the wall. Known from the beginning.
    pub began_at: SystemTime,
    /// When the head had been read. The front's event loop sets this and all later times, so that they can be subtracted.
    /// Known from the beginning.
    pub began: Instant,
    /// Bytes of the request body that have been read, without the chunked coding. Known when the request is answered.
    pub bytes_in: u64,
    /// When the job was queued, sent, started and ended. Known when the request is answered, except for the end of a stream,
    /// which is known when the request is finished. Nothing is set if the request did not become a job.
    pub job: JobTimes,
    /// The worker that had the job when the outcome was decided. Known when the request is answered.
    pub worker: Option<Worker>,
    /// How `run()` ended; `None` if it was not called, or if nobody knows. For a stream it says how the call of `run()`
    /// ended, not the stream. Known when the request is answered.
    pub run: Option<Run>,
    /// What the server did about the request. Known when the request is answered.
    pub outcome: Outcome,
    /// Whether the client has got the whole reply. A client can leave after the request has been answered, so this is known
    /// when the request is finished.
    pub delivery: Delivery,
    /// Status of the reply, also if the client had left before it was made. `None` if there is no reply, because the client
    /// left first: [`Outcome::Abandoned`]. Known when the request is answered.
    pub status: Option<u16>,
    /// The reply is a stream: its parts are written as the script yields them. Known when the request is answered.
    pub is_stream: bool,
    /// Length of the reply's body; `None` for a stream, and if there is no reply. Known when the request is answered.
    pub reply_length: Option<u64>,
    /// The body of a worker's reply or of a swagger document, unless it is a stream. Known when the request is answered.
    pub reply_body: Option<Bytes>,
    /// The first bytes of a stream, if a reader asks for them with [`StreamStart::want`] in
    /// [`Reader::begun`](super::recorder::Reader::begun). Known when the request is finished.
    pub stream_start: Option<StreamStart>,
    /// What `--record` writes of request and answer, if it records the request: its reader puts it here in
    /// [`Reader::begun`](super::recorder::Reader::begun). Known when the request is answered.
    pub sampled: Option<Box<Sampled>>,
    /// What the client is told, if the front makes the reply of an error: `message` in its body. Known when the request is
    /// answered.
    pub error: Option<String>,
    /// Deepest frame of the script's files and class of its error, `score.py:12 ZeroDivisionError`; empty unless `run()`
    /// failed. Known when the request is answered.
    pub error_location: Bytes,
    /// The worker has written the request's log line by itself. Known when the request is answered.
    pub is_logged: bool,
    /// When the request was answered.
    pub answered: Option<Instant>,
    /// Bytes of the reply's body that were written; 0 for a HEAD. Of a reply of up to 128 KiB that was not written completely
    /// nobody knows how much was, so it counts as 0. Known when the request is finished.
    pub bytes_out: u64,
    /// When the request was finished.
    pub finished: Option<Instant>,
}

/// The first bytes of a stream, as many as one of the readers wants.
#[derive(Debug)]
pub struct StreamStart {
    bytes: Vec<u8>,
    limit: usize,
}

impl StreamStart {
    /// Asks for this many bytes.
    pub fn want(start: &mut Option<Self>, limit: usize) {
        let start = start.get_or_insert(Self { bytes: Vec::new(), limit });
        start.limit = start.limit.max(limit);
    }

    fn add(&mut self, part: &[u8]) {
        self.bytes.extend_from_slice(&part[..part.len().min(self.limit - self.bytes.len())]);
    }

    /// The bytes so far.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// The parts of a request and its answer that only `--record` needs.
#[derive(Debug)]
pub struct Sampled {
    /// The largest body that is kept, in bytes.
    pub limit: usize,
    /// The header fields of the request.
    pub fields: Vec<Field>,
    /// The body of the request; `None` if it is above the limit.
    pub body: Option<Bytes>,
    /// The header fields of a worker's reply.
    pub reply_fields: Vec<Field>,
}

impl Sampled {
    /// Keeps bodies of up to `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit, fields: Vec::new(), body: None, reply_fields: Vec::new() }
    }
}

/// What the client sent as its request head.
#[derive(Debug, Clone)]
pub struct Head {
    /// Request method.
    pub method: Method,
    /// Request target. Its path and query are as the client sent them.
    pub uri: Uri,
    /// `HTTP/1.1` or `HTTP/1.0`.
    pub version: Version,
    /// Field `Host`.
    pub host: Option<HeaderValue>,
    /// Field `User-Agent`.
    pub user_agent: Option<HeaderValue>,
    /// Field `Referer`.
    pub referer: Option<HeaderValue>,
    /// Field `Authorization`. It is here for the user's name in lines of `gunicorn.access`; no reader may show the rest.
    pub authorization: Option<HeaderValue>,
}

#[cfg(test)]
impl Head {
    /// A head of HTTP/1.1 without header fields.
    pub fn without_fields(method: Method, target: &'static str) -> Self {
        let (uri, version) = (Uri::from_static(target), Version::HTTP_11);
        Self { method, uri, version, host: None, user_agent: None, referer: None, authorization: None }
    }
}

/// The ids of a request, as its reply shows them (contract section 9).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ids {
    /// `x-request-id`. `None` if the client sent it empty or too long.
    pub request: Option<Bytes>,
    /// `x-ms-client-request-id`, if the client sent it or the deprecated `x-ms-request-id`.
    pub client_request: Option<Bytes>,
    /// The client used the deprecated `x-ms-request-id`.
    pub uses_deprecated: bool,
}

/// When a job passed from one stage to the next. The dispatcher notes these times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct JobTimes {
    /// The front had read the whole body and put the job into the queue.
    pub queued: Option<Instant>,
    /// The front sent the job to the worker that had it last.
    pub sent: Option<Instant>,
    /// The worker started to work on the job: it converts the input, calls `run()` and converts the output.
    pub started: Option<Instant>,
    /// The worker's reply arrived, or the last part of its stream, or the news that there is no reply.
    pub ended: Option<Instant>,
    /// Time inside `run()`, as the worker measured it; if that was lost or killed, from the start to the news. `None` if
    /// `run()` was not called.
    pub run: Option<Duration>,
}

impl JobTimes {
    /// From the start of the job until its end.
    pub fn worked(&self) -> Option<Duration> {
        Some(self.ended?.saturating_duration_since(self.started?))
    }

    /// Notes that the worker has not ended the job, so that nobody knows better how long `run()` took.
    pub fn give_up(&mut self) {
        self.run = self.worked();
    }
}

/// Names a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Worker {
    /// Process id; that of the front if the worker is a thread of it.
    pub pid: u32,
    /// Smallest number from 0 on that no other worker had when this one connected to the front. The numbers of replaced
    /// workers are used again, so there are few of them, and they are fit for a label.
    pub slot: u32,
}

/// How a call of `run()` ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Run {
    /// It returned.
    Ok,
    /// It raised an exception, or its result could not be rendered.
    Error,
    /// It exceeded a time limit.
    Timeout,
    /// Its worker was lost.
    Lost,
}

/// What the server did about a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The script's reply, or what the front answers for it: health, swagger, OPTIONS.
    Answered,
    /// `run()` raised an exception.
    ScriptError,
    /// `run()` exceeded a time limit.
    Timeout,
    /// The worker was lost while it had the request.
    WorkerLost,
    /// The request was refused before `run()`.
    Refused(Refusal),
    /// The client left before there was a reply, and `run()` was not called, or was cancelled because of that. If it went
    /// on, its outcome counts.
    Abandoned,
}

/// Whether a client has got the whole reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Delivery {
    /// All of it was written to the client's socket.
    Complete,
    /// The connection ended earlier: the client left, or did not read in time, or the server stopped. At
    /// [`Stage::Replying`] the client may have got a part of the reply, at the other stages nothing was written.
    ClientLeft(Stage),
    /// The script's stream failed, or its worker was lost, so that the server cut the connection in the middle of the reply.
    BrokenOff,
}

/// Where a request was when its connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// The request body had not arrived completely.
    Arriving,
    /// The job was queued, or waited for the script to be loaded.
    Queued,
    /// A worker had the job and had not replied.
    Running,
    /// The reply was being written.
    Replying,
}

impl RequestRecord {
    /// A record that has just begun. If nothing more is noted, its request was abandoned.
    pub fn begin(head: Option<Head>, peer: Option<SocketAddr>) -> Self {
        Self {
            head,
            route: None,
            ids: Ids::default(),
            parent: None,
            trace_state: None,
            span: None,
            peer,
            client: peer,
            is_https: None,
            began_at: SystemTime::now(),
            began: Instant::now(),
            bytes_in: 0,
            job: JobTimes::default(),
            worker: None,
            run: None,
            outcome: Outcome::Abandoned,
            delivery: Delivery::Complete,
            status: None,
            is_stream: false,
            reply_length: None,
            reply_body: None,
            stream_start: None,
            sampled: None,
            error: None,
            error_location: Bytes::new(),
            is_logged: false,
            answered: None,
            bytes_out: 0,
            finished: None,
        }
    }

    /// Path and query for people (`Route::shown`). Empty if the client sent no request.
    pub fn target(&self) -> std::borrow::Cow<'_, str> {
        let Some(head) = &self.head else { return "".into() };
        Route::shown(self.route, head.uri.path_and_query().map_or("", |target| target.as_str()))
    }

    /// The body of a reply of the front to an error.
    pub fn error_body(&self, message: &str) -> Vec<u8> {
        Route::error_body(self.route, message)
    }

    /// Notes a part of a stream, if a reader wants the beginning of it.
    pub fn note_streamed(&mut self, part: &[u8]) {
        if let Some(start) = &mut self.stream_start {
            start.add(part);
        }
    }

    /// Where the request was when its client left, if it left before there was a reply.
    pub fn abandoned(&self) -> Option<Stage> {
        match (self.delivery, self.outcome) {
            (Delivery::ClientLeft(stage), _) if stage != Stage::Replying => Some(stage),
            // The client had only closed its sending side, so it was told.
            (_, Outcome::Abandoned) => Some(Stage::Queued),
            _ => None,
        }
    }

    /// Time from the head to the answer: what the log shows.
    pub fn elapsed(&self) -> Duration {
        self.answered.unwrap_or_else(Instant::now).saturating_duration_since(self.began)
    }
}
