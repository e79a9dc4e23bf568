//! The routes: which method does what on `/`, `/score`, `/swagger.json`, `/docs`, `/livez`, `/readyz`, `/metrics` and below
//! `/v2` (`open_inference.rs`); JSON 404 and 405.
//!
//! Runs in the front's event loop. The front answers health from what it knows, so health never
//! waits for a worker (contract section 5). `/score` and `/swagger.json` need a script;
//! `exchange.rs` handles their requests.

use std::{borrow::Cow, rc::Rc};

use actix_web::{
    http::{
        header::{HeaderMap, HeaderValue, CONNECTION, UPGRADE},
        Method, Version,
    },
    HttpRequest, HttpResponse,
};

use super::{
    docs::wants_page,
    error::RequestError,
    exchange::Exchange,
    http1::Connection,
    metrics::{self, Exposure},
    open_inference::{self, Asked},
    reply::{ReplyContext, JSON},
    request_ids::{self, RequestIds},
    tracking, Front,
};
use crate::telemetry::{metrics::text::CONTENT_TYPE as METRICS, record::Route, recorder::Recording};

/// Methods of the route that takes tensors.
const INFER_METHODS: &str = "POST, OPTIONS";
/// Methods of the routes that only report something.
const READ_METHODS: &str = "GET, HEAD, OPTIONS";

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
            "docs" => Self::Docs,
            "livez" => Self::Live,
            "metrics" => Self::Metrics,
            "readyz" => Self::Ready,
            "score" => Self::Score,
            "swagger.json" => Self::Swagger,
            _ => return None,
        })
    }

    fn accepts(self, method: &Method) -> bool {
        if self == Self::V2Infer {
            return matches!(*method, Method::POST | Method::OPTIONS);
        }
        let reads = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
        reads || (self == Self::Score && *method == Method::POST)
    }
}

/// Answers one request, and records it.
pub async fn handle(
    front: Rc<Front>,
    exposure: Exposure,
    request: HttpRequest,
    payload: actix_web::dev::Payload,
) -> HttpResponse {
    let Some(connection) = request.conn_data::<Rc<Connection>>().cloned() else {
        // Every connection gets its state when it is accepted.
        return HttpResponse::InternalServerError().finish();
    };
    let mut recording = tracking::begin(&front, &request);
    let response = answer(front, exposure, request, payload, connection.clone(), &mut recording).await;
    tracking::note_reply(&mut recording, &response);
    recording.answer();
    connection.record_reply(recording);
    response
}

async fn answer(
    front: Rc<Front>,
    exposure: Exposure,
    request: HttpRequest,
    payload: actix_web::dev::Payload,
    connection: Rc<Connection>,
    recording: &mut Recording,
) -> HttpResponse {
    let open = connection.begin_request();
    if front.is_draining() {
        connection.end();
    }
    let path = request.uri().path();
    let asked = front.settings.open_inference.as_ref().and_then(|_| Asked::of(path));
    let route = match &asked {
        Some(asked) => asked.route,
        None => Route::of(path).filter(|route| match route {
            Route::Metrics => exposure.metrics.is_some(),
            Route::Docs => front.docs.is_some(),
            _ => true,
        }),
    };
    if !keeps_connection(route, request.headers()) {
        connection.close_after_reply();
    }
    let (ids, id_error) = RequestIds::read(request.headers(), request_ids::new_uuid);
    recording.ids = ids.for_record();
    let cors = front.cors.as_ref().map(|cors| cors.additions(request.method(), request.headers())).unwrap_or_default();
    let context = ReplyContext {
        ids,
        connection,
        server_version: front.server_version.clone(),
        cors,
        is_v2: asked.is_some(),
        failed_reload: route.filter(|route| route.is_for_script()).and_then(|_| front.failed_reload()),
        head_only: *request.method() == Method::HEAD,
        http_1_0: request.version() == Version::HTTP_10,
    };
    let route = match route_of(route, &request) {
        Ok(route) => route,
        Err(error) => return context.refuse(&error, recording),
    };
    recording.route = Some(route);
    if let Some(error) = id_error {
        return context.refuse(&error, recording);
    }
    if let (Some(asked), Some(served)) = (asked, &front.settings.open_inference) {
        if let Err(error) = asked.check(served) {
            return context.refuse(&error, recording);
        }
    }
    let response = match route {
        Route::V2Infer if request.method() == Method::OPTIONS => Some(context.text("", Some(INFER_METHODS), recording)),
        Route::V2Infer => return Exchange::new(front, request, context).infer(payload, open, recording).await,
        Route::Score => return Exchange::new(front, request, context).score(payload, open, recording).await,
        _ if request.method() == Method::OPTIONS => Some(context.text("", Some(READ_METHODS), recording)),
        Route::Swagger => return Exchange::new(front, request, context).swagger(recording).await,
        Route::V2Model => return Exchange::new(front, request, context).model(recording).await,
        Route::V2 => Some(context.json(open_inference::server_metadata(), recording)),
        Route::V2Live => Some(context.report(JSON, open_inference::live(), recording)),
        Route::V2Ready | Route::V2ModelReady => {
            let named = front.settings.open_inference.as_ref().filter(|_| route == Route::V2ModelReady);
            Some(match open_inference::ready(&front, named.map(|served| served.model.as_str())) {
                Ok(body) => context.report(JSON, body, recording),
                Err(error) => context.refuse(&error, recording),
            })
        }
        Route::Live => Some(context.text("Alive", None, recording)),
        Route::Health => Some(health(&front, &context, &request, recording)),
        Route::Ready => Some(ready(&front, &context, recording)),
        Route::Docs => front.docs.as_ref().and_then(|docs| match request.query_string() {
            "errors" => docs.errors(&context, recording),
            _ => Some(docs.page(&context, recording)),
        }),
        Route::Metrics => exposure.metrics.map(|metrics| {
            let text = metrics::text(&front, metrics, exposure.first_process);
            context.report(HeaderValue::from_static(METRICS), text.into(), recording)
        }),
    };
    response.unwrap_or_else(|| context.refuse(&RequestError::NotFound, recording))
}

/// The route that takes the request.
fn route_of(route: Option<Route>, request: &HttpRequest) -> Result<Route, RequestError> {
    if request.headers().get(UPGRADE).is_some_and(|offer| offer.as_bytes().eq_ignore_ascii_case(b"websocket")) {
        return Err(RequestError::WebSocket);
    }
    if request.uri().path().is_empty() {
        return Err(RequestError::Target);
    }
    let route = route.ok_or(RequestError::NotFound)?;
    match route {
        _ if route.accepts(request.method()) => Ok(route),
        Route::V2Infer => Err(RequestError::V2Method(INFER_METHODS)),
        _ if route.is_v2() => Err(RequestError::V2Method(READ_METHODS)),
        _ => Err(RequestError::RouteMethod),
    }
}

/// True if the connection stays open after the reply, as far as the route decides.
///
/// The published server closes every connection after its reply, so a probe may read to the end of the stream without asking
/// for that end (contract section 5). `/score` keeps connections open unasked, because scoring clients gain from it, and so do
/// the routes of the Open Inference Protocol, which the published server does not have.
///
/// The front declines an offered upgrade by answering over HTTP/1.1, and closes the connection,
/// because the client must not read what follows as the other protocol.
fn keeps_connection(route: Option<Route>, headers: &HeaderMap) -> bool {
    let keeps = route.is_some_and(|route| route == Route::Score || route.is_v2());
    !headers.contains_key(UPGRADE) && (keeps || asks_to_keep_alive(headers))
}

/// True if the client sent the connection option `keep-alive` (RFC 9112 section 9.3).
fn asks_to_keep_alive(headers: &HeaderMap) -> bool {
    let mut options = headers.get_all(CONNECTION).flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"keep-alive"))
}

/// The health reply, from the workers' known condition; it does not ask them. A browser gets a page that leads to `/docs`.
fn health(front: &Front, context: &ReplyContext, request: &HttpRequest, recording: &mut Recording) -> HttpResponse {
    if front.dispatcher.ready_workers() == 0 {
        return context.refuse(&RequestError::NotReady, recording);
    }
    match &front.docs {
        Some(docs) if wants_page(request.headers()) => docs.healthy(context, recording),
        _ => context.text("Healthy", None, recording),
    }
}

/// As `health`, but a server that is shutting down is not ready.
fn ready(front: &Front, context: &ReplyContext, recording: &mut Recording) -> HttpResponse {
    match front.check_ready() {
        Ok(()) => context.text("Ready", None, recording),
        Err(error) => context.refuse(&error, recording),
    }
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
            ("/docs", Some(Route::Docs)),
            ("/docs/", None),
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
    fn only_routes_to_the_script_keep_connections_unless_the_client_asks() {
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
        assert!(keeps(Some(Route::Score), &[]) && keeps(Some(Route::V2Infer), &[]));
        let mut headers = HeaderMap::new();
        headers.insert(UPGRADE, HeaderValue::from_static("h2c"));
        headers.insert(CONNECTION, HeaderValue::from_static("keep-alive"));
        assert!(!keeps_connection(Some(Route::Score), &headers));
    }

    #[test]
    fn only_routes_to_the_script_take_posts() {
        assert!(Route::Score.accepts(&Method::POST));
        for route in [Route::Health, Route::Live, Route::Ready, Route::Swagger] {
            assert!(route.accepts(&Method::HEAD) && !route.accepts(&Method::POST));
        }
        assert!(!Route::Score.accepts(&Method::PUT));
        assert!(Route::V2Infer.accepts(&Method::POST) && !Route::V2Infer.accepts(&Method::GET));
        assert!(Route::V2Model.accepts(&Method::GET) && !Route::V2Model.accepts(&Method::POST));
    }
}
