//! What is exported: requests that have ended, and log records of workers, before any receiver's format.

use std::{
    borrow::Cow,
    net::SocketAddr,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use http::{Method, Version};
use serde::Deserialize;

use super::{
    app_insights::{cut, MAX_VALUE},
    lane::Weighed,
    pieces::Pieces,
    record::{JobTimes, Outcome, RequestRecord, Route, Worker},
    trace_context::{Span, TraceParent},
};

/// A request that has ended, for threads that write about it: the exporter's, and the one that writes the log.
///
/// The front's event loop makes one for each queue, with a copy of all texts, because those of the record share a read buffer,
/// which may be large. Whoever reads it makes everything else of it. It is passed on by value: memory that one thread allocates
/// and another frees costs both threads more time than these copies.
#[derive(Debug, Clone)]
pub struct Request {
    /// When its head had been read.
    pub began_at: SystemTime,
    /// The same by the clock of `job`.
    pub began: Instant,
    /// From then until the last byte of the reply was written.
    pub duration: Duration,
    /// From then until status and outcome were known.
    pub elapsed: Duration,
    /// Request method.
    pub method: Method,
    /// Minor version of HTTP/1.x.
    pub http_minor: u8,
    /// Where its path leads.
    pub route: Option<Route>,
    /// The server's span, if it exports spans or writes to Application Insights.
    pub span: Option<Span>,
    /// The caller's span.
    pub parent: Option<TraceParent>,
    /// Address of the connection's other end.
    pub peer: Option<SocketAddr>,
    /// Who sent the request (`RequestRecord::client`).
    pub client: Option<SocketAddr>,
    /// The client is known to have used https.
    pub is_https: bool,
    /// Status of the reply; `None` if the client left before there was one.
    pub status: Option<u16>,
    /// What the server did about it.
    pub outcome: Outcome,
    /// Parts of its life.
    pub job: JobTimes,
    /// The worker that had it.
    pub worker: Option<Worker>,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the reply's body that were written.
    pub bytes_out: u64,
    /// Length of the reply's body; `None` for a stream, and if there is no reply.
    pub reply_length: Option<u64>,
    /// See [`Self::text`].
    pub texts: Texts,
}

/// The texts of a request. They are bytes, because nobody has checked them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Text {
    /// Path and query as the client sent them.
    Target,
    /// Field `Host`.
    Host,
    /// Field `User-Agent`.
    UserAgent,
    /// The value of `tracestate`.
    TraceState,
    /// The effective `x-request-id`.
    RequestId,
    /// The effective `x-ms-client-request-id`.
    ClientRequestId,
    /// `RequestRecord::error_location`.
    ErrorLocation,
}

/// All texts one behind the other, and where each of them ends. Their order is that of [`Text`].
#[derive(Debug, Clone)]
pub struct Texts {
    bytes: Bytes,
    ends: [usize; Self::COUNT],
}

impl Texts {
    const COUNT: usize = 7;

    fn of(texts: [&[u8]; Self::COUNT], pieces: &mut Pieces) -> Self {
        let mut end = 0;
        let ends = texts.map(|text| {
            end += text.len();
            end
        });
        Self { bytes: pieces.copy(&texts), ends }
    }

    fn get(&self, text: Text) -> &[u8] {
        let at = text as usize;
        let from = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[from..self.ends[at]]
    }
}

/// A part of a request's life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Phase {
    /// What happened.
    pub name: &'static str,
    /// Since the request's beginning.
    pub from: Duration,
    /// Since the request's beginning.
    pub to: Duration,
}

impl Request {
    /// What is known of a request that is finished; `None` if the client sent no request. `pieces` are those of the queue
    /// that it comes into.
    pub fn of(record: &RequestRecord, pieces: &mut Pieces) -> Option<Self> {
        let since = |instant: Instant| instant.saturating_duration_since(record.began);
        let head = record.head.as_ref()?;
        let texts = [
            head.uri.path_and_query().map_or(&b""[..], |target| target.as_str().as_bytes()),
            head.host.as_ref().map_or(&b""[..], |host| host.as_bytes()),
            head.user_agent.as_ref().map_or(&b""[..], |agent| agent.as_bytes()),
            record.trace_state.as_deref().unwrap_or_default(),
            record.ids.request.as_deref().unwrap_or_default(),
            record.ids.client_request.as_deref().unwrap_or_default(),
            &record.error_location,
        ];
        Some(Self {
            began_at: record.began_at,
            began: record.began,
            duration: record.finished.map_or(Duration::ZERO, since),
            elapsed: record.answered.map_or(Duration::ZERO, since),
            method: head.method.clone(),
            http_minor: u8::from(head.version == Version::HTTP_11),
            route: record.route,
            span: record.span,
            parent: record.parent,
            peer: record.peer,
            client: record.client,
            is_https: record.is_https == Some(true),
            status: record.status,
            outcome: record.outcome,
            job: record.job,
            worker: record.worker,
            bytes_in: record.bytes_in,
            bytes_out: record.bytes_out,
            reply_length: record.reply_length,
            texts: Texts::of(texts, pieces),
        })
    }

    /// One of its texts. Bytes that are no text are replaced.
    pub fn text(&self, text: Text) -> Cow<'_, str> {
        String::from_utf8_lossy(self.texts.get(text))
    }

    /// Path and query as its line in the log shows them (`RequestRecord::target`).
    pub fn shown_target(&self) -> Cow<'_, str> {
        match self.text(Text::Target) {
            Cow::Borrowed(sent) => Route::shown(self.route, sent),
            Cow::Owned(sent) => Route::shown(self.route, &sent).into_owned().into(),
        }
    }

    /// True if the server's span is to be sent.
    pub fn is_sampled(&self) -> bool {
        self.span.is_some_and(|span| span.is_sampled)
    }

    /// The class of the exception of a failed `run()`, as its location names it; else the name of the outcome.
    pub fn error(&self) -> Option<Cow<'_, str>> {
        match self.outcome {
            Outcome::Answered => None,
            Outcome::ScriptError => {
                let location = std::str::from_utf8(self.texts.get(Text::ErrorLocation)).unwrap_or_default();
                Some(location.rsplit(' ').next().unwrap_or_default().into())
            }
            Outcome::Timeout => Some("timeout".into()),
            Outcome::WorkerLost => Some("worker_lost".into()),
            Outcome::Refused(refusal) => Some(refusal.name().into()),
            Outcome::Abandoned => Some("client_left".into()),
        }
    }

    /// The job's time in the queue, in conversions and in `run()`. Only the length of `run()` is known, not its start, so
    /// the conversion of the output counts as a part of the conversion before it.
    pub fn phases(&self) -> Vec<Phase> {
        let since = |instant: Instant| instant.saturating_duration_since(self.began);
        let mut phases = Vec::new();
        let (Some(queued), Some(started)) = (self.job.queued, self.job.started) else { return phases };
        let (queued, started) = (since(queued), since(started));
        phases.push(Phase { name: "queue", from: queued, to: started });
        if let (Some(ended), Some(run)) = (self.job.ended.map(since), self.job.run) {
            let run_from = ended.saturating_sub(run).max(started);
            phases.push(Phase { name: "convert", from: started, to: run_from });
            phases.push(Phase { name: "run", from: run_from, to: ended });
        }
        phases
    }
}

/// The beginning of a reply's body, as bytes that nobody has looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplyStart {
    bytes: Box<[u8]>,
    /// Nothing follows, so that the last character must not be incomplete.
    is_all: bool,
}

impl ReplyStart {
    /// Copies what an item may need of a body, or of the beginning of one. `is_all`: nothing follows `bytes`.
    pub fn of(bytes: &[u8], is_all: bool) -> Self {
        // A character has four bytes at most.
        let first = &bytes[..bytes.len().min(4 * MAX_VALUE)];
        Self { bytes: first.into(), is_all: is_all && first.len() == bytes.len() }
    }

    /// Text of at most [`MAX_VALUE`] characters; `None` if the body is no UTF-8 text.
    pub fn text(&self) -> Option<&str> {
        let text = match std::str::from_utf8(&self.bytes) {
            Ok(text) => text,
            Err(error) if error.error_len().is_none() && !self.is_all => {
                std::str::from_utf8(&self.bytes[..error.valid_up_to()]).unwrap_or_default()
            }
            Err(_) => return None,
        };
        Some(cut(text, MAX_VALUE))
    }
}

/// A log record of a worker, as `scripting/telemetry.py` writes it in JSON.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct LogRecord {
    /// Seconds since 1970.
    pub time: f64,
    /// Level of Python's logging.
    pub level: u32,
    /// The logger's name.
    pub logger: String,
    /// The message.
    pub message: String,
    /// Names and values of further properties, in order.
    pub properties: Vec<(String, String)>,
    /// The exception that was logged with it.
    pub exception: Option<Exception>,
    /// Name of the custom event that the record stands for.
    pub event: Option<String>,
    /// Trace and span id in hexadecimal digits; empty if there are none.
    pub trace: String,
    /// See `trace`.
    pub span: String,
    /// Application Insights gets it. OTLP gets all records.
    pub for_app_insights: bool,
    /// Records of that worker that were lost before this one.
    pub lost: usize,
}

impl LogRecord {
    /// When it was made.
    pub fn at(&self) -> SystemTime {
        let seconds = if self.time.is_finite() { self.time.max(0.0) } else { 0.0 };
        SystemTime::UNIX_EPOCH + Duration::try_from_secs_f64(seconds).unwrap_or_default()
    }
}

impl Default for LogRecord {
    fn default() -> Self {
        Self {
            time: 0.0,
            level: 20,
            logger: String::new(),
            message: String::new(),
            properties: Vec::new(),
            exception: None,
            event: None,
            trace: String::new(),
            span: String::new(),
            for_app_insights: true,
            lost: 0,
        }
    }
}

/// An exception.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Exception {
    /// Name of its class, without the module.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its text.
    pub message: String,
    /// The traceback.
    pub stack: String,
}

/// What waits in the intake.
#[derive(Debug)]
// Nearly all items are requests. `Request` says why they are not in a box.
#[allow(clippy::large_enum_variant)]
pub enum Item {
    /// A request, and the beginning of the reply if it is wanted and there was one.
    Request(Request, Option<ReplyStart>),
    /// A [`LogRecord`] as the worker sent it. The exporter's thread reads it.
    Log(Bytes),
    /// The metrics at one time, encoded (`otlp_metrics.rs`).
    Metrics(Bytes),
}

impl Weighed for Item {
    fn size(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::Request(request, reply) => {
                    request.texts.bytes.len() + reply.as_ref().map_or(0, |reply| reply.bytes.len())
                }
                Self::Log(bytes) | Self::Metrics(bytes) => bytes.len(),
            }
    }
}

#[cfg(test)]
pub(in crate::telemetry) mod tests;
