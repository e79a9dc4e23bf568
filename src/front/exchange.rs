//! One request to `/score` or `/swagger.json`, from its head to its log line.
//!
//! Owns the order: read the body, queue the job, wait for its answer, make the reply, log. Every
//! request is logged, even if its client leaves ([`Unanswered`]). Runs in the front's event loop.

use std::{future::Future, rc::Rc, time::Instant};

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
    access_log::{self, note_worker},
    body_rate::LeastRate,
    body_reader,
    error::RequestError,
    http1::OpenRequest,
    memory_budget::Share,
    reply::ReplyContext,
    routes::sized,
    swagger, Front,
};
use crate::{
    dispatch::{Answer, Parts, Pending},
    ipc::frame::{Field, Hello, Job, ReplyHead},
    json::write,
    telemetry::access_line::{self, Line},
};

/// A request that is being answered.
pub struct Exchange {
    front: Rc<Front>,
    request: HttpRequest,
    context: ReplyContext,
    /// The route's own path, for the log.
    path: &'static str,
    started: Instant,
}

impl Exchange {
    /// Begins the exchange of a request whose head has been read.
    pub fn new(front: Rc<Front>, request: HttpRequest, context: ReplyContext, path: &'static str) -> Self {
        Self { front, request, context, path, started: Instant::now() }
    }

    /// Answers a request to `/score`.
    pub async fn score(self, payload: Payload, open: OpenRequest) -> HttpResponse {
        let mut share = self.front.budget.share();
        let mut unanswered = Unanswered::new(&self);
        let outcome = self.answer(payload, &mut share, &mut unanswered).await;
        unanswered.is_over = true;
        let (response, length, served) = match outcome.and_then(Reply::of) {
            Ok(Reply::Whole { served, head, body }) => {
                let length = Some(body.len() as u64);
                share.charge(body.len());
                (self.context.whole(head, body, share, open), length, served)
            }
            Ok(Reply::Stream { served, head, parts }) => {
                (self.context.stream(head, parts, &self.front.budget, open), None, served)
            }
            Err(Failure { error, pid }) => return self.refuse(&error, pid),
        };
        note_worker(&self.request, served.pid);
        match response {
            Ok(response) => {
                if !served.is_logged {
                    self.summary().log(response.status().as_u16(), length, served.pid);
                }
                response
            }
            Err(problem) => {
                let text = format!("The reply of run() cannot be sent: {problem}");
                access_log::write_about(Level::Error, &text, served.pid);
                self.refuse(&RequestError::Internal, served.pid)
            }
        }
    }

    /// Answers a request to `/swagger.json`, as soon as a worker has sent the documents.
    pub async fn swagger(self) -> HttpResponse {
        let mut unanswered = Unanswered::new(&self);
        let script = self.script().await;
        unanswered.is_over = true;
        let document = script.and_then(|script| swagger::document(&script, self.request.query_string()));
        match document {
            Ok(document) => {
                self.summary().log(200, Some(document.len() as u64), None);
                self.context.json(document)
            }
            Err(error) => self.refuse(&error, None),
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
            // Only raw scripts see OPTIONS and HEAD. For other scripts the front answers them.
            return if *method == Method::OPTIONS {
                Ok(Answer::Whole { pid: None, head: self.options_head(), body: Bytes::new() })
            } else {
                Err(RequestError::ScoreMethod.into())
            };
        }
        let settings = &self.front.settings;
        let rate = LeastRate { bytes_per_second: settings.min_body_rate, pause: settings.client_timeout };
        let limits = body_reader::Limits { size: settings.max_request_size, rate };
        let body = body_reader::read(self.request.headers(), payload, &limits, share, &self.front.bodies).await;
        let body = body.map_err(|error| match error {
            // The parser does not know why a body ends early.
            RequestError::BodyIncomplete => match self.context.connection.take_body_fault() {
                Some(fault) => RequestError::BodyInvalid(fault),
                None => RequestError::BodyIncomplete,
            },
            error => error,
        })?;
        self.context.connection.note_body_read();
        let pending = self.front.dispatcher.submit(self.job(), body);
        self.wait(unanswered.pending.insert(pending)).await
    }

    /// If the client disconnects, or its patience ends, while the job is queued, the job is
    /// cancelled. If a worker has the job, the job may be running. Then the front waits for its
    /// answer, unless the worker gives the job back.
    async fn wait(&self, pending: &mut Pending) -> Result<Answer, Failure> {
        let id = pending.id();
        let is_waiting = || self.front.dispatcher.is_waiting(id);
        let given_up = match self.patiently(pending.answer(), is_waiting).await {
            Ok(answer) => return Ok(answer),
            Err(given_up) => given_up,
        };
        pending.give_up();
        pending.answer_if_started().await.ok_or(given_up.into())
    }

    /// Waits for `outcome` until the client leaves or `--queue_timeout` has passed. The limits
    /// count only while `is_waiting` says that no worker can have started the job.
    async fn patiently<T>(
        &self,
        outcome: impl Future<Output = T>,
        is_waiting: impl Fn() -> bool,
    ) -> Result<T, RequestError> {
        let patience = self.front.settings.queue_timeout;
        tokio::select! {
            biased;
            outcome = outcome => Ok(outcome),
            () = self.context.connection.client_left(is_waiting) => Err(RequestError::ClientLeft),
            () = tokio::time::sleep(patience), if !patience.is_zero() => {
                Err(RequestError::QueueTimeout { seconds: patience.as_secs_f64() })
            }
        }
    }

    /// Refuses an unknown `Expect` (RFC 9110 section 10.1.1). The parser answers `100-continue`.
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
            deprecated_id: self.context.ids.deprecated,
            ..Job::default()
        };
        // Keep the whole request until the first worker has said what its script needs.
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

    fn refuse(&self, error: &RequestError, pid: Option<u32>) -> HttpResponse {
        let response = self.context.error(error);
        note_worker(&self.request, pid);
        self.summary().log(response.status().as_u16(), sized(&response), pid);
        response
    }

    fn summary(&self) -> Summary {
        let target = access_line::target(self.path, self.request.uri().query().unwrap_or_default()).into_owned();
        let warns = self.context.ids.deprecated && self.path == "/score";
        Summary { method: self.request.method().clone(), target, started: self.started, warns }
    }
}

/// What the log says of a request, apart from its outcome.
struct Summary {
    method: Method,
    target: String,
    started: Instant,
    /// The log warns that the request used the deprecated id header.
    warns: bool,
}

impl Summary {
    /// Writes the line; `pid` is the process that served the request, `None` if no worker did.
    fn log(&self, status: u16, length: Option<u64>, pid: Option<u32>) {
        if self.warns {
            access_log::warn_of_deprecated_id();
        }
        let (method, target, elapsed) = (self.method.as_str(), self.target.as_str(), self.started.elapsed());
        access_log::write(&Line { method, target, status, elapsed, length }, pid);
    }

    /// Logs the outcome of a request whose client has left. Dropping the answer ends a stream.
    fn log_outcome(&self, outcome: Result<Answer, Failure>) {
        let (served, status, length) = match outcome.and_then(Reply::of) {
            Ok(Reply::Whole { served, head, body }) => (served, head.status, Some(body.len() as u64)),
            Ok(Reply::Stream { served, head, .. }) => (served, head.status, None),
            Err(Failure { error, pid }) => {
                let length = write::message_body(&error.to_string()).len() as u64;
                (Served { pid, is_logged: false }, error.status().as_u16(), Some(length))
            }
        };
        if !served.is_logged {
            self.log(status, length, served.pid);
        }
    }
}

/// Which process made a reply.
struct Served {
    /// Process id of the worker; `None` if the front answered by itself.
    pid: Option<u32>,
    /// The worker has logged the request.
    is_logged: bool,
}

/// A reply that can be passed on.
enum Reply {
    Whole { served: Served, head: ReplyHead, body: Bytes },
    Stream { served: Served, head: ReplyHead, parts: Parts },
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
            Answer::Whole { pid, head, body } => {
                Ok(Self::Whole { served: Served { pid, is_logged: head.is_logged }, head, body })
            }
            Answer::Stream { pid, head, parts } => {
                Ok(Self::Stream { served: Served { pid: Some(pid), is_logged: head.is_logged }, head, parts })
            }
            Answer::Overdue { pid, message } => failed(RequestError::Overdue(message), pid),
            Answer::Lost { pid, cause } => failed(RequestError::WorkerLost { cause }, pid),
            Answer::QueueFull { waiting } => Err(RequestError::QueueFull { waiting }.into()),
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
        // A worker may have started the job. If so, the log must show its outcome.
        tokio::task::spawn_local(async move {
            let answer = pending.answer_if_started().await;
            summary.log_outcome(answer.ok_or(RequestError::ClientLeft.into()));
        });
    }
}

/// The header fields in the order the client sent them, names in lower case.
///
/// actix-http's map does not keep the order of names. Each value, however, is a slice of the one
/// buffer that held the head, so the addresses of the values are in the order sent.
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
