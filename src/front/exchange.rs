//! One request to `/score`, `/swagger.json` or a model of `/v2`, from its head to its reply.
//!
//! Owns the order: read the body, queue the job, wait for its answer, make the reply. Runs in the front's event loop.

use std::{future::Future, rc::Rc};

use actix_web::{
    dev::Payload,
    http::{
        header::{HeaderName, CONTENT_ENCODING, CONTENT_TYPE, EXPECT},
        Method, Version,
    },
    HttpRequest, HttpResponse,
};
use bytes::Bytes;
use log::Level;

use super::{
    access_log,
    body_rate::LeastRate,
    body_reader,
    error::RequestError,
    http1::OpenRequest,
    memory_budget::Share,
    reply::ReplyContext,
    swagger,
    tracking::{self, Awaited, Reply, TRACE_PARENT},
    Front,
};
use crate::{
    dispatch::{Answered, Pending},
    fault_injection::{point, Point},
    ipc::frame::{Hello, Inference, Job, ReplyHead},
    telemetry::{
        record::{Outcome, RequestRecord, Stage},
        recorder::Recording,
        trace_context::Span,
    },
};

/// How many bytes of a body are JSON, if tensors follow as bytes.
const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// A request that is being answered.
pub struct Exchange {
    front: Rc<Front>,
    request: HttpRequest,
    context: ReplyContext,
    inference: Option<Inference>,
}

impl Exchange {
    /// Begins the exchange of a request whose head has been read.
    pub fn new(front: Rc<Front>, request: HttpRequest, context: ReplyContext) -> Self {
        Self { front, request, context, inference: None }
    }

    /// Answers a request to `/score`.
    pub async fn score(self, payload: Payload, open: OpenRequest, recording: &mut Recording) -> HttpResponse {
        let mut share = self.front.budget.share();
        let response = match self.answer(payload, &mut share, recording).await {
            Ok(Reply::Whole(head, body)) => {
                share.charge(body.len());
                self.context.whole(head, body, share, open)
            }
            Ok(Reply::Stream(head, parts)) => self.context.stream(head, parts, &self.front.budget, open),
            Err(error) => return self.context.refuse(&error, recording),
        };
        response.unwrap_or_else(|problem| {
            let text = format!("The reply of run() cannot be sent: {problem}");
            access_log::write_about(Level::Error, &text, recording.worker);
            self.context.refuse(&RequestError::Internal, recording)
        })
    }

    /// Answers a request with tensors (Open Inference Protocol).
    pub async fn infer(mut self, payload: Payload, open: OpenRequest, recording: &mut Recording) -> HttpResponse {
        let coding = self.header(CONTENT_ENCODING);
        if !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity") {
            let error = RequestError::ContentCoding(String::from_utf8_lossy(&coding).into_owned());
            return self.context.refuse(&error, recording);
        }
        let path = Bytes::copy_from_slice(self.request.uri().path().as_bytes());
        self.inference = Some(Inference { path, json_length: self.header(JSON_LENGTH) });
        self.score(payload, open, recording).await
    }

    /// Answers a request for the model's description, as soon as a worker has sent it.
    pub async fn model(self, recording: &mut Recording) -> HttpResponse {
        match self.script(recording).await {
            Ok(script) => self.context.json(script.model.clone().into(), recording),
            Err(error) => self.context.refuse(&error, recording),
        }
    }

    /// Answers a request to `/swagger.json`, as soon as a worker has sent the documents.
    pub async fn swagger(self, recording: &mut Recording) -> HttpResponse {
        let script = self.script(recording).await;
        match script.and_then(|script| swagger::document(&script, self.request.query_string())) {
            Ok(document) => self.context.json(document, recording),
            Err(error) => self.context.refuse(&error, recording),
        }
    }

    /// Reads the body, queues the job, waits for the worker.
    async fn answer(
        &self,
        payload: Payload,
        share: &mut Share,
        recording: &mut Recording,
    ) -> Result<Reply, RequestError> {
        self.check_expectation()?;
        if self.context.connection.is_late() {
            return Err(RequestError::Stopping);
        }
        let method = self.request.method();
        if matches!(*method, Method::OPTIONS | Method::HEAD) && !self.script(recording).await?.raw {
            // Only raw scripts see OPTIONS and HEAD. For other scripts the front answers them.
            return if *method == Method::OPTIONS {
                recording.outcome = Outcome::Answered;
                Ok(Reply::Whole(self.options_head(), Bytes::new()))
            } else {
                Err(RequestError::ScoreMethod)
            };
        }
        let settings = &self.front.settings;
        let rate = LeastRate { bytes_per_second: settings.min_body_rate, pause: settings.client_timeout };
        let limits = body_reader::Limits { size: settings.max_request_size, rate };
        recording.enter(Stage::Arriving);
        self.context.connection.parser_continues().await;
        let arrived = &mut recording.bytes_in;
        let body =
            body_reader::read(self.request.headers(), payload, &limits, share, &self.front.bodies, arrived).await;
        let body = body.map_err(|error| match error {
            // The parser does not know why a body ends early.
            RequestError::BodyIncomplete => match self.context.connection.take_body_fault() {
                Some(fault) => RequestError::BodyInvalid(fault),
                None => RequestError::BodyIncomplete,
            },
            error => error,
        })?;
        self.context.connection.note_body_read();
        tracking::note_request(recording, &self.request, &body);
        let pending = self.front.dispatcher.submit(self.job(recording), body);
        let mut awaited = Awaited::new(recording);
        let pending = awaited.pending.insert(pending);
        point(Point::Request);
        let answered = self.wait(pending).await?;
        drop(awaited);
        tracking::note_answer(recording, answered)
    }

    /// If the client disconnects, or its patience ends, while the job is queued, the job is
    /// cancelled. If a worker has the job, the job may be running. Then the front waits for its
    /// answer, unless the worker gives the job back. A worker with an async script cancels the call
    /// of a client that has left, which is an answer too.
    async fn wait(&self, pending: &mut Pending) -> Result<Answered, RequestError> {
        let id = pending.id();
        let is_cancellable = || self.front.dispatcher.is_cancellable(id);
        let given_up = match self.patiently(pending.answer(), is_cancellable).await {
            Ok(answer) => return Ok(answer),
            Err(given_up) => given_up,
        };
        match given_up {
            RequestError::ClientLeft => pending.leave(),
            _ => pending.give_up(),
        }
        pending.answer_if_started().await.ok_or(given_up)
    }

    /// Waits for `outcome` until the client leaves or `--queue_timeout` has passed. The front looks
    /// if a client is still there only while `is_cancellable` says that this matters.
    async fn patiently<T>(
        &self,
        outcome: impl Future<Output = T>,
        is_cancellable: impl Fn() -> bool,
    ) -> Result<T, RequestError> {
        let patience = self.front.settings.queue_timeout;
        let patience_ends = async {
            // Most servers have no such limit, and then no timer is made.
            match patience.is_zero() {
                true => std::future::pending().await,
                false => tokio::time::sleep(patience).await,
            }
        };
        tokio::select! {
            biased;
            outcome = outcome => Ok(outcome),
            () = self.context.connection.client_left(is_cancellable) => Err(RequestError::ClientLeft),
            () = patience_ends => {
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
    async fn script(&self, recording: &mut Recording) -> Result<Rc<Hello>, RequestError> {
        recording.enter(Stage::Queued);
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

    fn job(&self, record: &RequestRecord) -> Job {
        let uri = self.request.uri();
        let mut job = Job {
            method: self.request.method().as_str().to_owned(),
            query: Bytes::copy_from_slice(uri.query().unwrap_or_default().as_bytes()),
            content_type: self.header(CONTENT_TYPE),
            http_minor: u8::from(self.request.version() == Version::HTTP_11),
            deprecated_id: self.context.ids.deprecated,
            request_id: self.context.ids.request.clone().unwrap_or_default(),
            client_request_id: self.context.ids.client.clone().unwrap_or_default(),
            span: record.span.or(record.parent.map(Span::from)),
            inference: self.inference.clone(),
            ..Job::default()
        };
        // Keep the whole request until the first worker has said what its script needs.
        let script = self.front.dispatcher.script();
        let wants_request = script.as_ref().is_none_or(|script| script.wants_request);
        if wants_request {
            job.target = match self.context.connection.target() {
                Some(sent) => sent.into(),
                None => Bytes::copy_from_slice(uri.path_and_query().map_or("/", |target| target.as_str()).as_bytes()),
            };
            job.peer = self.request.peer_addr().map(|peer| peer.to_string()).unwrap_or_default();
            if record.client != record.peer {
                job.client = record.client.map(|client| client.to_string()).unwrap_or_default();
            }
            job.is_https = record.is_https;
            job.fields = tracking::fields_as_sent(&self.request);
            if let Some(span) = record.span {
                // What the script calls belongs to the server's span.
                job.fields.retain(|(name, _)| name != TRACE_PARENT.as_str());
                job.fields.push((TRACE_PARENT.as_str().into(), span.to_string().into()));
            }
        }
        if script.is_some_and(|script| script.follows_traces) {
            job.tracestate = record.trace_state.clone().unwrap_or_default();
        }
        job
    }

    fn header(&self, name: HeaderName) -> Bytes {
        let value = self.request.headers().get(name);
        value.map(|value| Bytes::copy_from_slice(value.as_bytes())).unwrap_or_default()
    }
}
