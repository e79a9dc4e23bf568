//! The routes: which method does what on `/`, `/score`, `/swagger.json`, `/livez` and `/readyz`; JSON 404 and 405.
//!
//! Runs in the front's event loop. `/score` is the only route that involves a worker; the others answer from what the
//! front knows, so they never wait (contract section 5, `docs/decisions/2026-11-22-behaviour.md`).

use std::{
    borrow::Cow,
    future::Future,
    rc::Rc,
    time::{Duration, Instant},
};

use actix_web::{
    body::{BodySize, MessageBody as _},
    http::{
        header::{HeaderMap, HeaderName, CONNECTION, CONTENT_TYPE, EXPECT, UPGRADE},
        Method, Version,
    },
    HttpRequest, HttpResponse,
};
use bytes::Bytes;
use log::Level;

use super::{
    access_log::{note_worker, Access, Line},
    body,
    budget::Share,
    connection::Connection,
    error::RequestError,
    ids::{self, RequestIds},
    reply::ReplyContext,
    swagger, Front,
};
use crate::{
    dispatch::{request_log::RequestLog, Answer, Pending},
    frame::{Field, Job},
};

/// Methods of the routes that only tell something.
const READ_METHODS: &str = "GET, HEAD, OPTIONS";

/// How often a request that waited long enough is looked at, to see whether it went back from a worker to the queue.
const GIVEN_UP_CHECK: Duration = Duration::from_millis(20);

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// `/`: is there a worker that takes requests?
    Health,
    /// `/livez`: is the front alive?
    Live,
    /// `/readyz`: ready, and not draining?
    Ready,
    /// `/score`: the script.
    Score,
    /// `/swagger.json`: the script's description.
    Swagger,
}

impl Route {
    /// Percent-encoding is undone and leading slashes count once (`//score`, `/%73core`); nothing else is normalised.
    pub fn of(path: &str) -> Option<Self> {
        let decoded: Cow<'_, str> = if path.contains('%') {
            percent_encoding::percent_decode_str(path).decode_utf8_lossy()
        } else {
            path.into()
        };
        if !decoded.starts_with('/') {
            return None;
        }
        Some(match decoded.trim_start_matches('/') {
            "" => Self::Health,
            "livez" => Self::Live,
            "readyz" => Self::Ready,
            "score" => Self::Score,
            "swagger.json" => Self::Swagger,
            _ => return None,
        })
    }

    fn accepts(self, method: &Method) -> bool {
        let reads = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
        reads || (self == Self::Score && *method == Method::POST)
    }
}

/// Answers one request.
pub async fn handle(front: Rc<Front>, request: HttpRequest, payload: actix_web::dev::Payload) -> HttpResponse {
    match Access::begin(&request) {
        None => answer(front, request, payload).await,
        Some(access) => access.follow(answer(front, request, payload).await),
    }
}

async fn answer(front: Rc<Front>, request: HttpRequest, payload: actix_web::dev::Payload) -> HttpResponse {
    let Some(connection) = request.conn_data::<Rc<Connection>>().cloned() else {
        // Every connection gets its state when it is accepted.
        return HttpResponse::InternalServerError().finish();
    };
    let open = connection.begin_request();
    if front.is_draining() {
        connection.end();
    }
    let route = Route::of(request.uri().path());
    if !keeps_connection(route, request.headers()) {
        connection.close_after_reply();
    }
    let (ids, id_error) = RequestIds::read(request.headers(), ids::new_uuid);
    let cors = front.cors.as_ref().map(|cors| cors.additions(request.method(), request.headers())).unwrap_or_default();
    let context = ReplyContext {
        ids,
        connection,
        server_version: front.server_version.clone(),
        cors,
        head_only: *request.method() == Method::HEAD,
        http_1_0: request.version() == Version::HTTP_10,
    };
    if request.headers().get(UPGRADE).is_some_and(|offer| offer.as_bytes().eq_ignore_ascii_case(b"websocket")) {
        return refuse_unrouted(&context, &request, &RequestError::WebSocket);
    }
    if request.uri().path().is_empty() {
        return refuse_unrouted(&context, &request, &RequestError::Target);
    }
    let Some(route) = route else {
        return refuse_unrouted(&context, &request, &RequestError::NotFound);
    };
    if !route.accepts(request.method()) {
        return refuse_unrouted(&context, &request, &RequestError::RouteMethod);
    }
    // A worker that logs for itself gets the warning together with the request's line.
    let deprecation_waits = context.ids.deprecated
        && route == Route::Score
        && id_error.is_none()
        && front.dispatcher.script().is_some_and(|script| script.logs_requests);
    if context.ids.deprecated && !deprecation_waits {
        warn_of_deprecation(&mut RequestLog::here(None));
    }
    if let Some(error) = id_error {
        return refuse_unrouted(&context, &request, &error);
    }
    match route {
        Route::Score => {
            let exchange =
                Exchange { front, request, context, path: "/score", started: Instant::now(), deprecation_waits };
            exchange.score(payload, open).await
        }
        Route::Swagger => {
            let (path, started) = ("/swagger.json", Instant::now());
            let exchange = Exchange { front, request, context, path, started, deprecation_waits };
            exchange.swagger()
        }
        _ if request.method() == Method::OPTIONS => context.text("", Some(READ_METHODS)),
        Route::Live => context.text("Alive", None),
        Route::Health => health(&front, &context, "Healthy", false),
        Route::Ready => health(&front, &context, "Ready", true),
    }
}

/// True if the connection stays open after the reply, as far as the route decides.
///
/// The published server closes every connection after its reply, so a probe may read to the end of the stream without asking
/// for that end (contract section 5). Only `/score` keeps connections open unasked, because scoring clients gain from it.
///
/// The front declines an offered upgrade by answering over HTTP/1.1, and closes the connection: the client must not take
/// what follows for the other protocol.
fn keeps_connection(route: Option<Route>, headers: &HeaderMap) -> bool {
    !headers.contains_key(UPGRADE) && (route == Some(Route::Score) || asks_to_keep_alive(headers))
}

/// True if the client sent the connection option `keep-alive` (RFC 9112 section 9.3).
fn asks_to_keep_alive(headers: &HeaderMap) -> bool {
    let mut options = headers.get_all(CONNECTION).flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"keep-alive"))
}

fn warn_of_deprecation(log: &mut RequestLog) {
    let text = "x-ms-request-id header has been deprecated and will be removed from future versions of the server. \
                Please use x-ms-client-request-id.";
    log.line(Level::Warn, format_args!("{text}"));
}

/// Answers, and logs, a request that no route takes. The log has its target as sent.
fn refuse_unrouted(context: &ReplyContext, request: &HttpRequest, error: &RequestError) -> HttpResponse {
    let started = Instant::now();
    let response = context.error(error);
    let target = request.uri().path_and_query().map_or("", |target| target.as_str());
    let method = request.method().as_str();
    let (status, length) = (response.status().as_u16(), sized(&response));
    Line { method, target, status, started, length }.log(&mut RequestLog::here(None));
    response
}

/// Bytes of the body, if that is known.
fn sized(response: &HttpResponse) -> Option<u64> {
    match response.body().size() {
        BodySize::Sized(length) => Some(length),
        _ => None,
    }
}

/// Truth about the workers, told without asking them.
fn health(front: &Front, context: &ReplyContext, good: &'static str, drain_counts: bool) -> HttpResponse {
    if drain_counts && front.is_draining() {
        context.error(&RequestError::Draining)
    } else if front.dispatcher.ready_workers() == 0 {
        context.error(&RequestError::NotReady)
    } else {
        context.text(good, None)
    }
}

/// One request to a logged route, from its head to its log line.
struct Exchange {
    front: Rc<Front>,
    request: HttpRequest,
    context: ReplyContext,
    /// `/score` or `/swagger.json`, for the log.
    path: &'static str,
    started: Instant,
    /// The warning about a deprecated header is to be logged with the request's line.
    deprecation_waits: bool,
}

impl Exchange {
    async fn score(self, payload: actix_web::dev::Payload, open: super::connection::OpenRequest) -> HttpResponse {
        let mut share = self.front.budget.share();
        let outcome = self.answer(payload, &mut share).await;
        let here = RequestLog::here;
        let (response, length, mut log) = match outcome {
            Ok(Answer::Whole { head, body, log }) => {
                let length = Some(body.len() as u64);
                share.charge(body.len());
                (self.context.whole(head, body, share, open), length, log)
            }
            Ok(Answer::Stream { head, parts, log }) => (self.context.stream(head, parts, open), None, log),
            Ok(Answer::Overdue { pid, message }) => {
                return self.refuse(&RequestError::Overdue(message), here(Some(pid)));
            }
            Ok(Answer::Lost { pid, cause }) => {
                return self.refuse(&RequestError::WorkerLost { cause }, here(Some(pid)));
            }
            Ok(Answer::Stopped) => return self.refuse(&RequestError::Stopped, here(None)),
            Err(error) => return self.refuse(&error, here(None)),
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

    /// Reads the body, queues the job, waits for the worker.
    async fn answer(&self, payload: actix_web::dev::Payload, share: &mut Share) -> Result<Answer, RequestError> {
        self.check_expectation()?;
        if self.context.connection.is_late() {
            return Err(RequestError::Stopping);
        }
        let method = self.request.method();
        if matches!(*method, Method::OPTIONS | Method::HEAD) && !self.script_is_raw().await? {
            // The two methods that only a raw script sees; answered here without a worker.
            return if *method == Method::OPTIONS {
                Ok(Answer::Whole { head: self.options_head(), body: Bytes::new(), log: RequestLog::here(None) })
            } else {
                Err(RequestError::ScoreMethod)
            };
        }
        let settings = &self.front.settings;
        let limits = body::Limits { size: settings.max_request_size, pause: settings.client_timeout };
        let body =
            body::read(self.request.headers(), payload, &limits, share, &self.front.bodies).await.map_err(|error| {
                match error {
                    // The parser has one word for both. A client that is still there has not sent too little.
                    RequestError::BodyIncomplete if !self.context.connection.has_left() => {
                        RequestError::BodyInvalid("its chunked coding is broken.".to_owned())
                    }
                    error => error,
                }
            })?;
        let dispatcher = &self.front.dispatcher;
        let pending = dispatcher
            .submit(self.job(), body)
            .map_err(|_| RequestError::QueueFull { waiting: dispatcher.queued() })?;
        self.wait(pending).await
    }

    /// While the job is only queued, a client that leaves takes it along (docs/design.md, "The in-flight window").
    async fn wait(&self, mut pending: Pending) -> Result<Answer, RequestError> {
        let given_up = match self.patiently(pending.answer()).await {
            Ok(answer) => return Ok(answer),
            Err(given_up) => given_up,
        };
        // A job that a worker has may be running, and is awaited; or it is taken back because another takes too long.
        while !pending.is_queued() {
            if let Ok(answer) = tokio::time::timeout(GIVEN_UP_CHECK, pending.answer()).await {
                return Ok(answer);
            }
        }
        Err(given_up)
    }

    /// Waits for as long as the client does, and `--queue_timeout` allows.
    async fn patiently<T>(&self, outcome: impl Future<Output = T>) -> Result<T, RequestError> {
        let patience = self.front.settings.queue_timeout;
        tokio::select! {
            biased;
            outcome = outcome => Ok(outcome),
            () = self.context.connection.client_left() => Err(RequestError::ClientLeft),
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

    async fn script_is_raw(&self) -> Result<bool, RequestError> {
        let script = self.patiently(self.front.dispatcher.script_known()).await?;
        script.map(|script| script.raw).ok_or(RequestError::Stopped)
    }

    fn options_head(&self) -> crate::frame::ReplyHead {
        let content_type = (Bytes::from_static(b"content-type"), Bytes::from_static(b"text/html; charset=utf-8"));
        crate::frame::ReplyHead {
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
            // As sent, an absolute URL too; of the parser's making is only that a fragment is gone.
            job.target = uri.to_string().into();
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

    fn swagger(self) -> HttpResponse {
        if self.request.method() == Method::OPTIONS {
            return self.context.text("", Some(READ_METHODS));
        }
        let script = self.front.dispatcher.script();
        match swagger::document(script.as_deref(), self.request.query_string()) {
            Ok(document) => {
                self.log(200, Some(document.len() as u64), &mut RequestLog::here(None));
                self.context.json(document)
            }
            Err(error) => self.refuse(&error, RequestLog::here(None)),
        }
    }

    fn refuse(&self, error: &RequestError, mut log: RequestLog) -> HttpResponse {
        let response = self.context.error(error);
        self.log(response.status().as_u16(), sized(&response), &mut log);
        response
    }

    fn log(&self, status: u16, length: Option<u64>, log: &mut RequestLog) {
        if self.deprecation_waits {
            warn_of_deprecation(log);
        }
        note_worker(&self.request, log.pid());
        // The route's own path, however the client spelled it, and the query as sent.
        let target = match self.request.uri().query().filter(|query| !query.is_empty()) {
            Some(query) => &format!("{}?{query}", self.path),
            None => self.path,
        };
        let method = self.request.method().as_str();
        Line { method, target, status, started: self.started, length }.log(log);
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

#[cfg(test)]
mod tests {
    use actix_web::http::{
        header::{HeaderMap, HeaderValue, CONNECTION, UPGRADE},
        Method,
    };

    use super::{keeps_connection, Route};

    #[test]
    fn paths_of_contract_section_5() {
        for (path, route) in [
            ("/", Some(Route::Health)),
            ("//", Some(Route::Health)),
            ("/score", Some(Route::Score)),
            ("//score", Some(Route::Score)),
            ("/%73core", Some(Route::Score)),
            ("/swagger.json", Some(Route::Swagger)),
            ("/livez", Some(Route::Live)),
            ("/readyz", Some(Route::Ready)),
            ("/score/", None),
            ("/SCORE", None),
            ("/score%2F", None),
            ("/./score", None),
            ("/favicon.ico", None),
            ("*", None),
            ("", None),
        ] {
            assert_eq!(Route::of(path), route, "{path}");
        }
    }

    #[test]
    fn only_score_keeps_connections_unless_the_client_asks() {
        let all = [None, Some(Route::Health), Some(Route::Live), Some(Route::Ready), Some(Route::Swagger)];
        let keeps = |route, options: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in options {
                headers.append(CONNECTION, HeaderValue::from_static(value));
            }
            keeps_connection(route, &headers)
        };
        for route in all {
            assert!(!keeps(route, &[]) && !keeps(route, &["close"]) && !keeps(route, &["x-keep-alive"]), "{route:?}");
            assert!(keeps(route, &["Keep-Alive"]) && keeps(route, &["te", "a, keep-alive"]), "{route:?}");
        }
        assert!(keeps(Some(Route::Score), &[]));
        let mut headers = HeaderMap::new();
        headers.insert(UPGRADE, HeaderValue::from_static("h2c"));
        headers.insert(CONNECTION, HeaderValue::from_static("keep-alive"));
        assert!(!keeps_connection(Some(Route::Score), &headers));
    }

    #[test]
    fn only_score_takes_posts() {
        assert!(Route::Score.accepts(&Method::POST));
        for route in [Route::Health, Route::Live, Route::Ready, Route::Swagger] {
            assert!(route.accepts(&Method::HEAD) && !route.accepts(&Method::POST));
        }
        assert!(!Route::Score.accepts(&Method::PUT));
    }
}
