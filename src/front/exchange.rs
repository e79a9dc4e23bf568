//! One request to `/score` or `/swagger.json`, from its head to its log line.
//!
//! Owns the order: read the body, queue the job, wait for its answer, make the reply, log. Every request is logged, also
//! one whose client leaves: [`Unanswered`] is what makes sure of that. Runs in the front's event loop.

use std::{borrow::Cow, future::Future, rc::Rc, time::Instant};

use actix_web::{
    dev::Payload,
    http::{
        header::{HeaderName, CONTENT_TYPE, EXPECT},
        Method, Version,
    },
    HttpRequest, HttpResponse,
};
use bytes::Bytes;
use log::Level;

use super::{
    access_log::{note_worker, warn_of_deprecation, Line},
    body,
    body_rate::LeastRate,
    budget::Share,
    error::RequestError,
    http1::OpenRequest,
    reply::ReplyContext,
    routes::sized,
    swagger, Front,
};
use crate::{
    dispatch::{request_log::RequestLog, Answer, Pending},
    frame::{Field, Hello, Job, ReplyHead},
    pyjson,
};

/// A request that is being answered.
pub struct Exchange {
    front: Rc<Front>,
    request: HttpRequest,
    context: ReplyContext,
    /// The route's own path, for the log.
    path: &'static str,
    started: Instant,
    /// The warning about a deprecated header is to be logged with the request's line.
    deprecation_waits: bool,
}

impl Exchange {
    /// Of a request whose head has been read.
    pub fn new(
        front: Rc<Front>,
        request: HttpRequest,
        context: ReplyContext,
        path: &'static str,
        deprecation_waits: bool,
    ) -> Self {
        Self { front, request, context, path, started: Instant::now(), deprecation_waits }
    }

    /// Answers a request to `/score`.
    pub async fn score(self, payload: Payload, open: OpenRequest) -> HttpResponse {
        let mut share = self.front.budget.share();
        let mut unanswered = Unanswered::new(&self);
        let outcome = self.answer(payload, &mut share, &mut unanswered).await;
        unanswered.is_over = true;
        let (response, length, mut log) = match outcome.and_then(Reply::of) {
            Ok(Reply::Whole { head, body, log }) => {
                let length = Some(body.len() as u64);
                share.charge(body.len());
                (self.context.whole(head, body, share, open), length, log)
            }
            Ok(Reply::Stream { head, parts, log }) => {
                (self.context.stream(head, parts, &self.front.budget, open), None, log)
            }
            Err(Failure { error, pid }) => return self.refuse(&error, RequestLog::here(pid)),
        };
        match response {
            Ok(response) => {
                self.log(response.status().as_u16(), length, &mut log);
                response
            }
            Err(problem) => {
                log.line(Level::Error, format_args!("The reply of run() cannot be sent: {problem}"));
                self.refuse(&RequestError::Internal, log)
            }
        }
    }

    /// Answers a request to `/swagger.json`, when a worker has brought the documents.
    pub async fn swagger(self) -> HttpResponse {
        let mut unanswered = Unanswered::new(&self);
        let script = self.script().await;
        unanswered.is_over = true;
        let document = script.and_then(|script| swagger::document(&script, self.request.query_string()));
        match document {
            Ok(document) => {
                self.log(200, Some(document.len() as u64), &mut RequestLog::here(None));
                self.context.json(document)
            }
            Err(error) => self.refuse(&error, RequestLog::here(None)),
        }
    }

    /// Reads the body, queues the job, waits for the worker.
    async fn answer(
        &self,
        payload: Payload,
        share: &mut Share,
        unanswered: &mut Unanswered<'_>,
    ) -> Result<Answer, Failure> {
        self.check_expectation()?;
        if self.context.connection.is_late() {
            return Err(RequestError::Stopping.into());
        }
        let method = self.request.method();
        if matches!(*method, Method::OPTIONS | Method::HEAD) && !self.script().await?.raw {
            // The two methods that only a raw script sees; answered here without a worker.
            return if *method == Method::OPTIONS {
                Ok(Answer::Whole { head: self.options_head(), body: Bytes::new(), log: RequestLog::here(None) })
            } else {
                Err(RequestError::ScoreMethod.into())
            };
        }
        let settings = &self.front.settings;
        let rate = LeastRate { bytes_per_second: settings.min_body_rate, pause: settings.client_timeout };
        let limits = body::Limits { size: settings.max_request_size, rate };
        let body = body::read(self.request.headers(), payload, &limits, share, &self.front.bodies).await;
        let body = body.map_err(|error| match error {
            // The parser does not know why a body ends early.
            RequestError::BodyIncomplete => match self.context.connection.take_body_fault() {
                Some(fault) => RequestError::BodyInvalid(fault),
                None => RequestError::BodyIncomplete,
            },
            error => error,
        })?;
        self.context.connection.note_body_read();
        let dispatcher = &self.front.dispatcher;
        let pending = dispatcher
            .submit(self.job(), body)
            .map_err(|_| RequestError::QueueFull { waiting: dispatcher.queued() })?;
        self.wait(unanswered.pending.insert(pending)).await
    }

    /// If the client disconnects, or its patience ends, while the job is queued, the job is cancelled. A job that a worker
    /// has may be running and is awaited, unless the worker gives it back.
    async fn wait(&self, pending: &mut Pending) -> Result<Answer, Failure> {
        let id = pending.id();
        let is_queued = || self.front.dispatcher.is_queued(id);
        let given_up = match self.patiently(pending.answer(), is_queued).await {
            Ok(answer) => return Ok(answer),
            Err(given_up) => given_up,
        };
        pending.give_up();
        pending.answer_if_started().await.ok_or(given_up.into())
    }

    /// Waits for as long as the client does, and `--queue_timeout` allows. `is_queued` says whether the outcome is still to
    /// begin.
    async fn patiently<T>(
        &self,
        outcome: impl Future<Output = T>,
        is_queued: impl Fn() -> bool,
    ) -> Result<T, RequestError> {
        let patience = self.front.settings.queue_timeout;
        tokio::select! {
            biased;
            outcome = outcome => Ok(outcome),
            () = self.context.connection.client_left(is_queued) => Err(RequestError::ClientLeft),
            () = tokio::time::sleep(patience), if !patience.is_zero() => {
                Err(RequestError::QueueTimeout { seconds: patience.as_secs_f64() })
            }
        }
    }

    /// RFC 9110 section 10.1.1; `100-continue` itself is met by the parser.
    fn check_expectation(&self) -> Result<(), RequestError> {
        let expectation = self.request.headers().get(EXPECT).filter(|value| !value.is_empty());
        match expectation {
            Some(value) if !value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"100-continue") => {
                Err(RequestError::Expectation)
            }
            _ => Ok(()),
        }
    }

    /// The script as the newest worker has described it. Waits for the first one.
    async fn script(&self) -> Result<Rc<Hello>, RequestError> {
        self.patiently(self.front.dispatcher.script_known(), || true).await?.ok_or(RequestError::Stopped)
    }

    fn options_head(&self) -> ReplyHead {
        let content_type = (Bytes::from_static(b"content-type"), Bytes::from_static(b"text/html; charset=utf-8"));
        ReplyHead {
            status: 200,
            server_version: self.front.server_version.clone(),
            fields: vec![content_type],
            ..Default::default()
        }
    }

    fn job(&self) -> Job {
        let uri = self.request.uri();
        let mut job = Job {
            method: self.request.method().as_str().to_owned(),
            query: Bytes::copy_from_slice(uri.query().unwrap_or_default().as_bytes()),
            content_type: self.header(CONTENT_TYPE),
            http_minor: u8::from(self.request.version() == Version::HTTP_11),
            ..Job::default()
        };
        // Before the first worker has said what its script needs, everything is kept.
        if self.front.dispatcher.script().is_none_or(|script| script.wants_request) {
            job.target = match self.context.connection.target() {
                Some(sent) => sent.into(),
                None => Bytes::copy_from_slice(uri.path_and_query().map_or("/", |target| target.as_str()).as_bytes()),
            };
            job.peer = self.request.peer_addr().map(|peer| peer.to_string()).unwrap_or_default();
            job.request_id = self.context.ids.request_text().into_owned();
            job.fields = fields_as_sent(&self.request);
        }
        job
    }

    fn header(&self, name: HeaderName) -> Bytes {
        let value = self.request.headers().get(name);
        value.map(|value| Bytes::copy_from_slice(value.as_bytes())).unwrap_or_default()
    }

    fn refuse(&self, error: &RequestError, mut log: RequestLog) -> HttpResponse {
        let response = self.context.error(error);
        self.log(response.status().as_u16(), sized(&response), &mut log);
        response
    }

    fn log(&self, status: u16, length: Option<u64>, log: &mut RequestLog) {
        note_worker(&self.request, log.pid());
        self.summary().log(status, length, log);
    }

    fn summary(&self) -> Summary {
        // The route's own path, however the client spelled it, and the query as sent.
        let target = match self.request.uri().query().filter(|query| !query.is_empty()) {
            Some(query) => format!("{}?{query}", self.path).into(),
            None => self.path.into(),
        };
        let method = self.request.method().clone();
        Summary { method, target, started: self.started, deprecation_waits: self.deprecation_waits }
    }
}

/// What the log says of a request, apart from its outcome.
struct Summary {
    method: Method,
    target: Cow<'static, str>,
    started: Instant,
    deprecation_waits: bool,
}

impl Summary {
    fn log(&self, status: u16, length: Option<u64>, log: &mut RequestLog) {
        if self.deprecation_waits {
            warn_of_deprecation(log);
        }
        Line { method: self.method.as_str(), target: &self.target, status, started: self.started, length }.log(log);
    }

    /// Logs the outcome of a request whose client has left. Dropping the answer ends a stream.
    fn log_outcome(&self, outcome: Result<Answer, Failure>) {
        match outcome.and_then(Reply::of) {
            Ok(Reply::Whole { head, body, mut log }) => self.log(head.status, Some(body.len() as u64), &mut log),
            Ok(Reply::Stream { head, mut log, .. }) => self.log(head.status, None, &mut log),
            Err(Failure { error, pid }) => {
                let length = pyjson::message_body(&error.to_string()).len() as u64;
                self.log(error.status().as_u16(), Some(length), &mut RequestLog::here(pid));
            }
        }
    }
}

/// What the worker has sent.
enum Reply {
    Whole { head: ReplyHead, body: Bytes, log: RequestLog },
    Stream { head: ReplyHead, parts: crate::dispatch::Parts, log: RequestLog },
}

/// Why there is no reply of a worker.
struct Failure {
    error: RequestError,
    /// Process id of the worker that had the job, for the log.
    pid: Option<u32>,
}

impl From<RequestError> for Failure {
    fn from(error: RequestError) -> Self {
        Self { error, pid: None }
    }
}

impl Reply {
    fn of(answer: Answer) -> Result<Self, Failure> {
        let failed = |error, pid| Err(Failure { error, pid: Some(pid) });
        match answer {
            Answer::Whole { head, body, log } => Ok(Self::Whole { head, body, log }),
            Answer::Stream { head, parts, log } => Ok(Self::Stream { head, parts, log }),
            Answer::Overdue { pid, message } => failed(RequestError::Overdue(message), pid),
            Answer::Lost { pid, cause } => failed(RequestError::WorkerLost { cause }, pid),
            Answer::Stopped => Err(RequestError::Stopped.into()),
        }
    }
}

/// Logs a request that is dropped before it is answered: its connection broke, and actix-http dropped the task.
struct Unanswered<'a> {
    exchange: &'a Exchange,
    pending: Option<Pending>,
    is_over: bool,
}

impl<'a> Unanswered<'a> {
    fn new(exchange: &'a Exchange) -> Self {
        Self { exchange, pending: None, is_over: false }
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let summary = self.exchange.summary();
        let Some(mut pending) = self.pending.take().filter(Pending::is_open) else {
            return summary.log_outcome(Err(RequestError::ClientLeft.into()));
        };
        pending.give_up();
        // The worker may be at it; its outcome is what the log has to say.
        tokio::task::spawn_local(async move {
            let answer = pending.answer_if_started().await;
            summary.log_outcome(answer.ok_or(RequestError::ClientLeft.into()));
        });
    }
}

/// The header fields in the order the client sent them, names in lower case.
///
/// actix-http's map forgets the order between names. Each value, however, is a slice of the one buffer that held the
/// head, so the addresses of the values are in the order sent.
fn fields_as_sent(request: &HttpRequest) -> Vec<Field> {
    let mut fields: Vec<_> = request.headers().iter().collect();
    fields.sort_by_key(|(_, value)| value.as_bytes().as_ptr());
    fields
        .into_iter()
        .map(|(name, value)| {
            (Bytes::copy_from_slice(name.as_str().as_bytes()), Bytes::copy_from_slice(value.as_bytes()))
        })
        .collect()
}
