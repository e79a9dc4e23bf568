//! What is exported: requests that have ended, and log records of workers, before any receiver's format.

use std::{
    net::SocketAddr,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Version};
use serde::Deserialize;

use super::{
    lane::Weighed,
    record::{JobTimes, Outcome, RequestRecord, Route},
    trace_context::{Span, TraceParent},
};

/// The beginning of a reply's body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sample {
    /// Text of at most 8192 characters.
    Text(String),
    /// The body is no UTF-8 text.
    Binary,
}

/// A request that has ended: what exporters need of its record, in a form that the exporter's thread may own.
#[derive(Debug, Clone)]
pub struct Request {
    /// When its head had been read.
    pub began_at: SystemTime,
    /// From then until the last byte of the reply was written.
    pub duration: Duration,
    /// Request method.
    pub method: Method,
    /// Path and query as the client sent them.
    pub target: String,
    /// Minor version of HTTP/1.x.
    pub http_minor: u8,
    /// Field `Host`.
    pub host: String,
    /// Field `User-Agent`.
    pub user_agent: String,
    /// Where its path leads.
    pub route: Option<Route>,
    /// The server's span.
    pub span: Span,
    /// The caller's span.
    pub parent: Option<TraceParent>,
    /// The value of `tracestate`.
    pub trace_state: String,
    /// Address of the connection's other end.
    pub peer: Option<SocketAddr>,
    /// Who sent the request (`RequestRecord::client`).
    pub client: Option<SocketAddr>,
    /// The client is known to have used https.
    pub is_https: bool,
    /// Status of the reply; `None` if the client left before there was one.
    pub status: Option<u16>,
    /// The effective `x-request-id`.
    pub request_id: String,
    /// The effective `x-ms-client-request-id`.
    pub client_request_id: String,
    /// The beginning of the reply's body, if it is wanted.
    pub sample: Option<Sample>,
    /// Class of the exception that `run()` raised, or another word for what went wrong.
    pub error: Option<String>,
    /// Parts of its life, for child spans: name, and from when to when since its beginning.
    pub phases: Vec<Phase>,
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
    /// What exporters need of a record that is finished; `None` if the client sent no request.
    ///
    /// All texts are copied, because those of the record share a read buffer, which may be large.
    pub fn of(record: &RequestRecord, span: Span) -> Option<Self> {
        let since = |instant: Instant| instant.saturating_duration_since(record.began);
        let ended = record.finished.map_or(Duration::ZERO, since);
        let head = record.head.as_ref()?;
        let field =
            |value: &Option<HeaderValue>| value.as_ref().map(|value| lossy(value.as_bytes())).unwrap_or_default();
        let id = |id: &Option<Bytes>| id.as_deref().map(lossy).unwrap_or_default();
        Some(Self {
            began_at: record.began_at,
            duration: ended,
            method: head.method.clone(),
            target: head.uri.path_and_query().map_or_else(String::new, |target| target.as_str().to_owned()),
            http_minor: u8::from(head.version == Version::HTTP_11),
            host: field(&head.host),
            user_agent: field(&head.user_agent),
            route: record.route,
            span,
            parent: record.parent,
            trace_state: id(&record.trace_state),
            peer: record.peer,
            client: record.client,
            is_https: record.is_https == Some(true),
            status: record.status,
            request_id: id(&record.ids.request),
            client_request_id: id(&record.ids.client_request),
            sample: None,
            error: error(record),
            phases: phases(&record.job, since),
        })
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The class of the exception of a failed `run()`, as its location names it; else the name of the outcome.
fn error(record: &RequestRecord) -> Option<String> {
    let location = std::str::from_utf8(&record.error_location).unwrap_or_default();
    match record.outcome {
        Outcome::Answered => None,
        Outcome::ScriptError => Some(location.rsplit(' ').next().unwrap_or_default().to_owned()),
        Outcome::Timeout => Some("timeout".to_owned()),
        Outcome::WorkerLost => Some("worker_lost".to_owned()),
        Outcome::Refused(refusal) => Some(refusal.name().to_owned()),
        Outcome::Abandoned => Some("client_left".to_owned()),
    }
}

/// The job's time in the queue, in conversions and in `run()`. Only the length of `run()` is known, not its start, so the
/// conversion of the output counts as a part of the conversion before it.
fn phases(job: &JobTimes, since: impl Fn(Instant) -> Duration) -> Vec<Phase> {
    let mut phases = Vec::new();
    let (Some(queued), Some(started)) = (job.queued, job.started) else { return phases };
    let (queued, started) = (since(queued), since(started));
    phases.push(Phase { name: "queue", from: queued, to: started });
    if let (Some(ended), Some(run)) = (job.ended.map(&since), job.run) {
        let run_from = ended.saturating_sub(run).max(started);
        phases.push(Phase { name: "convert", from: started, to: run_from });
        phases.push(Phase { name: "run", from: run_from, to: ended });
    }
    phases
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
pub enum Item {
    /// A request.
    Request(Box<Request>),
    /// A [`LogRecord`] as the worker sent it. The exporter's thread reads it.
    Log(Bytes),
    /// The metrics at one time, encoded (`otlp_metrics.rs`).
    Metrics(Bytes),
}

impl Weighed for Item {
    fn size(&self) -> usize {
        match self {
            Self::Request(request) => {
                let sample = match &request.sample {
                    Some(Sample::Text(text)) => text.len(),
                    _ => 0,
                };
                let texts = [&request.target, &request.host, &request.user_agent, &request.trace_state];
                let ids = request.request_id.len() + request.client_request_id.len();
                let phases = request.phases.len() * size_of::<Phase>();
                size_of::<Request>() + texts.iter().map(|text| text.len()).sum::<usize>() + ids + phases + sample
            }
            Self::Log(bytes) | Self::Metrics(bytes) => size_of::<Self>() + bytes.len(),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::telemetry) fn at(seconds: u64, micros: u32) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::new(seconds, micros * 1000)
    }

    /// A request to `/score` that succeeded.
    pub(in crate::telemetry) fn scored() -> Request {
        Request {
            began_at: at(1_796_017_111, 338_610),
            duration: Duration::from_micros(12_345),
            method: Method::POST,
            target: "/score?name=%C3%A9%20x".to_owned(),
            http_minor: 1,
            host: "127.0.0.1:5001".to_owned(),
            user_agent: String::new(),
            route: Some(Route::Score),
            span: Span { trace_id: [0xab; 16], span_id: [0xcd; 8], is_sampled: true },
            parent: Some(TraceParent { trace_id: [0xab; 16], span_id: [0xef; 8], flags: 1 }),
            trace_state: String::new(),
            peer: None,
            client: None,
            is_https: false,
            status: Some(200),
            request_id: "r".to_owned(),
            client_request_id: String::new(),
            sample: Some(Sample::Text("[1]".to_owned())),
            error: None,
            phases: Vec::new(),
        }
    }

    #[test]
    fn the_parts_of_a_request_follow_each_other() {
        let began = Instant::now();
        let at = |millis| Some(began + Duration::from_millis(millis));
        let since = |instant: Instant| instant.duration_since(began);
        let mut job = JobTimes { queued: at(1), sent: at(2), started: at(4), ended: at(20), ..JobTimes::default() };
        let names = |phases: &[Phase]| phases.iter().map(|phase| phase.name).collect::<Vec<_>>();
        assert_eq!(names(&phases(&job, since)), ["queue"]);
        job.run = Some(Duration::from_millis(10));
        let found = phases(&job, since);
        assert_eq!(names(&found), ["queue", "convert", "run"]);
        assert!(found.windows(2).all(|pair| pair[0].to == pair[1].from && pair[0].from <= pair[0].to));
        // The worker's clock may say that `run()` took longer than the front saw the job with the worker.
        job.run = Some(Duration::from_secs(10));
        assert!(phases(&job, since)
            .iter()
            .all(|phase| phase.from <= phase.to && phase.to <= Duration::from_millis(20)));
        job.started = None;
        assert!(phases(&job, since).is_empty());
    }
}
