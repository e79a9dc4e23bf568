//! Makes the HTTP response from an outcome: status, the headers of contract sections 5, 7, 8 and 9,
//! body.
//!
//! Runs in the front's event loop. Knows nothing of routes or workers beyond what a [`ReplyHead`]
//! says.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use actix_web::{
    body::{BodySize, MessageBody},
    http::{
        header::{HeaderName, HeaderValue, ALLOW, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, SERVER},
        StatusCode,
    },
    HttpResponse, HttpResponseBuilder,
};
use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use super::{
    cors::Addition,
    error::{ErrorHeaders, RequestError},
    http1::{After, Connection, OpenRequest},
    memory_budget::{Budget, Share},
    request_ids::RequestIds,
};
use crate::{
    dispatch::Parts,
    ipc::frame::{Origin, ReplyHead},
    json::write,
    telemetry::{
        access_line::Milliseconds,
        record::{Outcome, RequestRecord},
    },
};

const FAILED: HeaderName = HeaderName::from_static("x-ms-run-function-failed");
const RUN_MS: HeaderName = HeaderName::from_static("x-ms-run-fn-exec-ms");
const SERVER_VERSION: HeaderName = HeaderName::from_static("x-ms-server-version");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const MS_REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-request-id");
const CLIENT_REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-client-request-id");
const TRACE_ID: HeaderName = HeaderName::from_static("traceid");
const FAILED_RELOAD: HeaderName = HeaderName::from_static("x-azmlinfsrv-reload");
const ERROR_LOCATION: HeaderName = HeaderName::from_static("x-ms-run-error-location");

const TRUE: HeaderValue = HeaderValue::from_static("True");
const FALSE: HeaderValue = HeaderValue::from_static("False");
/// The type of JSON replies.
pub const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// The type of all other replies of the front.
pub const TEXT: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

/// Header fields that describe the connection, not the reply: a script's are dropped (contract
/// section 7).
const HOP_BY_HOP: [&str; 6] = ["connection", "keep-alive", "proxy-authenticate", "te", "transfer-encoding", "upgrade"];

/// Larger bodies are written in pieces of this many bytes.
const PIECE: usize = 128 * 1024;

/// The parts of a request that its reply needs.
pub struct ReplyContext {
    /// The request ids that the reply repeats.
    pub ids: RequestIds,
    /// The connection it goes to.
    pub connection: Rc<Connection>,
    /// `x-ms-server-version` of replies that no worker made.
    pub server_version: Bytes,
    /// Cross-origin headers for this request.
    pub cors: Vec<Addition>,
    /// Errors have the form of the Open Inference Protocol.
    pub is_v2: bool,
    /// For `/score`: why the files of the script could not be loaded after their last change
    /// (`--reload`).
    pub failed_reload: Option<HeaderValue>,
    /// The request is a HEAD: a stream's reply has no length and no body.
    pub head_only: bool,
    /// The request is HTTP/1.0: a stream ends with the connection instead of a last chunk.
    pub http_1_0: bool,
}

/// A reply that cannot be sent because of what the script put into it.
#[derive(Debug, thiserror::Error)]
pub enum UnsendableReply {
    /// Not a final HTTP status.
    #[error("status {0} is not one of a final HTTP response (200 to 999)")]
    Status(u16),
    /// A header field that HTTP cannot carry.
    #[error("header {0:?} has a name or value that HTTP does not allow")]
    Field(String),
}

impl ReplyContext {
    /// A short text reply of the front: health and OPTIONS.
    pub fn text(&self, text: &'static str, allow: Option<&'static str>, record: &mut RequestRecord) -> HttpResponse {
        let mut response = self.of_front(TEXT, record);
        if let Some(methods) = allow {
            response.insert_header((ALLOW, HeaderValue::from_static(methods)));
        }
        response.body(Bytes::from_static(text.as_bytes()))
    }

    /// A JSON document of the front (swagger).
    pub fn json(&self, document: Bytes, record: &mut RequestRecord) -> HttpResponse {
        record.reply_body = Some(document.clone());
        self.of_front(JSON, record).insert_header((FAILED, FALSE)).body(document)
    }

    /// A reply of the front about itself: to `/metrics`, and about its health as JSON.
    pub fn report(&self, content_type: HeaderValue, body: Bytes, record: &mut RequestRecord) -> HttpResponse {
        self.of_front(content_type, record).body(body)
    }

    /// Begins a reply of the front that is no error.
    fn of_front(&self, content_type: HeaderValue, record: &mut RequestRecord) -> HttpResponseBuilder {
        record.outcome = Outcome::Answered;
        let mut response = self.builder(StatusCode::OK);
        response.insert_header((CONTENT_TYPE, content_type));
        self.identify(&mut response, &self.server_version, false);
        response
    }

    /// An error reply of the front. The record gets the error as its outcome.
    pub fn refuse(&self, error: &RequestError, record: &mut RequestRecord) -> HttpResponse {
        let message = error.to_string();
        let response = self.error(error, &message);
        record.outcome = error.outcome();
        record.error = Some(message);
        record.is_logged = false;
        response
    }

    fn error(&self, error: &RequestError, message: &str) -> HttpResponse {
        if error.closes_connection() {
            self.connection.close_after_reply();
        }
        let mut response = self.builder(error.status());
        response.insert_header((CONTENT_TYPE, JSON));
        if error.headers() != ErrorHeaders::NoFlag {
            response.insert_header((FAILED, if error.run_failed() { TRUE } else { FALSE }));
        }
        if let Some(methods) = error.allow() {
            response.insert_header((ALLOW, HeaderValue::from_static(methods)));
        }
        if let Some(seconds) = error.retry_after() {
            response.insert_header((RETRY_AFTER, seconds));
        }
        if error.headers() != ErrorHeaders::FlagOnly {
            self.identify(&mut response, &self.server_version, false);
        }
        response.body(if self.is_v2 { write::error_body(message) } else { write::message_body(message) })
    }

    /// A complete reply of a worker. `share` is the memory that it takes, which is released when
    /// the reply has been written. `open` keeps the request open until then.
    pub fn whole(
        &self,
        head: ReplyHead,
        body: Bytes,
        share: Share,
        open: OpenRequest,
    ) -> Result<HttpResponse, UnsendableReply> {
        let mut response = self.of_worker(head)?;
        if body.len() <= PIECE {
            return Ok(response.body(body));
        }
        Ok(response.body(LargeBody { rest: body, _share: share, open }))
    }

    /// A streamed reply of a worker. Its parts take memory from `budget`. `open` keeps the request
    /// open until the stream ends.
    pub fn stream(
        &self,
        head: ReplyHead,
        parts: Parts,
        budget: &Rc<Budget>,
        open: OpenRequest,
    ) -> Result<HttpResponse, UnsendableReply> {
        let declared = declared_length(&head);
        if self.http_1_0 {
            self.connection.close_after_reply();
        }
        let mut builder = self.of_worker(head)?;
        if self.head_only && declared.is_none() {
            return Ok(builder.body(actix_web::body::None::new()));
        }
        let size = declared.map_or(BodySize::Stream, BodySize::Sized);
        let part = Bytes::new();
        let budget = budget.clone();
        let body = StreamBody { parts, part, size, room: None, share: None, budget, failure: None, open };
        let mut response = builder.body(body);
        if self.http_1_0 {
            response.head_mut().no_chunking(true);
        }
        Ok(response)
    }

    /// A reply of the front with this status. The caller adds its type, and calls [`ReplyContext::identify`].
    pub fn builder(&self, status: StatusCode) -> HttpResponseBuilder {
        let mut response = HttpResponse::build(status);
        response.insert_header((SERVER, HeaderValue::from_static("azmlinfsrv")));
        if self.connection.begin_reply() == After::Close {
            response.force_close();
        }
        response
    }

    fn of_worker(&self, head: ReplyHead) -> Result<HttpResponseBuilder, UnsendableReply> {
        let status = StatusCode::from_u16(head.status).ok().filter(|status| !status.is_informational());
        let status = status.ok_or(UnsendableReply::Status(head.status))?;
        let mut response = self.builder(status);
        if status.canonical_reason().is_none() {
            response.reason("Unknown");
        }
        let forced = match head.origin {
            Origin::Result | Origin::ServerError | Origin::Cancelled => Some(FALSE),
            Origin::ScriptError | Origin::Timeout => Some(TRUE),
            Origin::Response => is_failure(status).then_some(TRUE),
        };
        let own_fields = |name: &HeaderName| !(is_failure(status) && *name == FAILED);
        for (name, value) in &head.fields {
            // The type of nearly all replies needs no check and no copy.
            if name == CONTENT_TYPE.as_str() && value == JSON.as_bytes() {
                response.append_header((CONTENT_TYPE, JSON));
                continue;
            }
            let unsendable = || UnsendableReply::Field(String::from_utf8_lossy(name).into_owned());
            let name = HeaderName::from_bytes(name).map_err(|_| unsendable())?;
            // Copy the value, because actix-http keeps response heads for reuse. A slice would keep
            // the whole buffer that the worker's frame was read into.
            let value = HeaderValue::from_bytes(value).map_err(|_| unsendable())?;
            let kept = !HOP_BY_HOP.contains(&name.as_str()) && name != CONTENT_LENGTH && own_fields(&name);
            if kept {
                response.append_header((name, value));
            }
        }
        if let Some(failed) = forced {
            response.append_header((FAILED, failed));
        }
        let is_of_run = matches!(head.origin, Origin::Result | Origin::Response);
        if let Some(run_ms) = head.run_ms.filter(|_| is_of_run) {
            response.append_header((RUN_MS, Milliseconds::from(run_ms).to_string()));
        }
        if let Some(location) = Some(head.error_location).filter(|location| !location.is_empty()) {
            append_bytes(&mut response, ERROR_LOCATION, &location);
        }
        let own_cors = head.fields.iter().any(|(name, _)| name.eq_ignore_ascii_case(b"access-control-allow-origin"));
        self.identify(&mut response, &head.server_version, own_cors);
        Ok(response)
    }

    /// Adds server version and request ids.
    pub fn identify(&self, response: &mut HttpResponseBuilder, server_version: &Bytes, own_cors: bool) {
        if *server_version == self.server_version {
            // Do not copy what the front keeps anyway. Only a script that changes the variable has
            // another value.
            if let (false, Ok(value)) =
                (server_version.is_empty(), HeaderValue::from_maybe_shared(self.server_version.clone()))
            {
                response.append_header((SERVER_VERSION, value));
            }
        } else if !server_version.is_empty() {
            append_bytes(response, SERVER_VERSION, server_version);
        }
        let value = |id: &Option<Bytes>| HeaderValue::from_maybe_shared(id.clone()?).ok();
        let request = value(&self.ids.request);
        // Usually one id goes into two fields, and is checked once.
        let is_same = self.ids.ms_request == self.ids.request;
        let ms_request = if is_same { request.clone() } else { value(&self.ids.ms_request) };
        let ids = [(REQUEST_ID, request), (MS_REQUEST_ID, ms_request), (CLIENT_REQUEST_ID, value(&self.ids.client))];
        for (name, id) in ids {
            if let Some(id) = id {
                response.insert_header((name, id));
            }
        }
        if let Some(trace) = &self.ids.trace {
            append_bytes(response, TRACE_ID, trace);
        }
        if let Some(reason) = &self.failed_reload {
            response.insert_header((FAILED_RELOAD, reason.clone()));
        }
        // If the script sets the allowed origin itself, the front adds no cross-origin headers
        // (contract section 12).
        if !own_cors {
            for addition in &self.cors {
                response.append_header(addition.clone());
            }
        }
    }
}

/// True for every status of 500 or more, including unassigned codes (contract section 7).
fn is_failure(status: StatusCode) -> bool {
    status.as_u16() >= 500
}

/// Adds the field unless HTTP cannot carry its value, which comes from a client's header or an
/// environment variable.
fn append_bytes(response: &mut HttpResponseBuilder, name: HeaderName, value: &Bytes) {
    if let Ok(value) = HeaderValue::from_bytes(value) {
        response.append_header((name, value));
    }
}

fn declared_length(head: &ReplyHead) -> Option<u64> {
    let (_, value) = head.fields.iter().find(|(name, _)| name.eq_ignore_ascii_case(b"content-length"))?;
    std::str::from_utf8(value).ok()?.trim().parse().ok()
}

/// A large body, given to the parser piece by piece. The parser copies what it gets, and a slow
/// client must not make it hold a second copy of the whole body.
struct LargeBody {
    rest: Bytes,
    _share: Share,
    open: OpenRequest,
}

impl MessageBody for LargeBody {
    type Error = std::convert::Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.rest.len() as u64)
    }

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let length = self.rest.len().min(PIECE);
        self.open.note_written(length);
        Poll::Ready(Some(Ok(self.rest.split_to(length))))
    }
}

/// The parts of a stream as the body of a response.
struct StreamBody {
    parts: Parts,
    /// The rest of the current part that the parser has not got yet.
    part: Bytes,
    size: BodySize,
    /// The permits of the current part in its worker's stream buffer.
    room: Option<OwnedSemaphorePermit>,
    /// The memory of the current part.
    share: Option<Share>,
    budget: Rc<Budget>,
    /// Why the stream broke off. Kept until the earlier parts have been written.
    failure: Option<String>,
    open: OpenRequest,
}

impl MessageBody for StreamBody {
    type Error = Box<dyn std::error::Error>;

    fn size(&self) -> BodySize {
        self.size
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        // An error cuts the connection without the final chunk, the only way to tell the client.
        // The parser then drops what it has not written yet, so the error waits until the earlier
        // parts are on their way.
        if self.failure.is_some() {
            if self.open.has_unread() {
                return Poll::Pending;
            }
            self.open.note_broken_off();
            return Poll::Ready(self.failure.take().map(|reason| Err(reason.into())));
        }
        while self.part.is_empty() {
            // The parser has taken the part before, because it asks for more. Release that part's
            // memory.
            (self.room, self.share) = (None, None);
            match std::task::ready!(self.parts.receiver.poll_recv(cx)) {
                Some((Err(reason), _)) => {
                    self.failure = Some(reason);
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Some((Ok(part), room)) => {
                    let mut share = self.budget.share();
                    share.charge(part.len());
                    (self.part, self.room, self.share) = (part, room, Some(share));
                }
                None => {
                    self.open.note_end_of_stream();
                    return Poll::Ready(None);
                }
            }
        }
        // As in `LargeBody`: the parser keeps a buffer as large as the largest piece for as long as
        // the connection is open.
        let length = self.part.len().min(PIECE);
        self.open.note_streamed(&self.part[..length]);
        Poll::Ready(Some(Ok(self.part.split_to(length))))
    }
}
