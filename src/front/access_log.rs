//! What the log says about a request: its line, and its record for the logger `gunicorn.access`
//! (contract section 13).
//!
//! Every request except a health check has a line; `telemetry/access_line.rs` makes its text. If the script
//! has changed the logger, the worker writes the lines of the requests that it serves
//! (`worker/call.rs`). Access records are made only if the user's logging.json names
//! `gunicorn.access`. Then every request has one, with the fields of gunicorn's record;
//! `log_config.log_access` makes its text. Runs in the front's event loop.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use actix_web::{
    body::{BodySize, BoxBody, MessageBody},
    http::{
        header::{HeaderName, AUTHORIZATION, REFERER, USER_AGENT},
        Method,
    },
    HttpMessage as _, HttpRequest, HttpResponse,
};
use log::Level;

use crate::telemetry::access_line::{Line, DEPRECATED_ID};

/// Logger of the access records.
pub const ACCESS_LOGGER: &str = "gunicorn.access";

/// Logger of the lines.
const TARGET: &str = "azmlinfsrv";

/// Writes the line of a request; `pid` is the process that served it, `None` if no worker did.
pub fn write(line: &Line<'_>, pid: Option<u32>) {
    write_about(Level::Info, &line.to_string(), pid);
}

/// Warns that a request used the deprecated id header.
pub fn warn_of_deprecated_id() {
    write_about(Level::Warn, DEPRECATED_ID, None);
}

/// Writes a text about a request at this level.
pub fn write_about(level: Level, text: &str, pid: Option<u32>) {
    match pid {
        Some(pid) => log::log!(target: TARGET, level, worker_pid = pid; "{text}"),
        None => log::log!(target: TARGET, level, "{text}"),
    }
}

/// The worker that served a request, stored in the request's extensions.
struct ServedBy(u32);

/// Notes the worker that served a request, if access records are wanted.
pub fn note_worker(request: &HttpRequest, pid: Option<u32>) {
    if let Some(pid) = pid.filter(|_| access_is_logged()) {
        request.extensions_mut().insert(ServedBy(pid));
    }
}

fn access_is_logged() -> bool {
    log::log_enabled!(target: ACCESS_LOGGER, Level::Info)
}

/// The access record of one request. Dropping it logs it. That happens when the whole reply has
/// been given to the parser, or was given up.
pub struct Access {
    request: HttpRequest,
    started: Instant,
    /// Status of the reply; `None` if the client left before there was one.
    status: Option<u16>,
    /// Body bytes handed over.
    sent: u64,
}

impl Access {
    /// Begins the record of a request, if access records are wanted.
    pub fn begin(request: &HttpRequest) -> Option<Self> {
        access_is_logged().then(|| Self { request: request.clone(), started: Instant::now(), status: None, sent: 0 })
    }

    /// Lets the record follow the reply to its end.
    pub fn follow(mut self, response: HttpResponse) -> HttpResponse {
        self.status = Some(response.status().as_u16());
        response.map_body(|_, body| Followed { body, access: self }).map_into_boxed_body()
    }
}

impl Drop for Access {
    fn drop(&mut self) {
        let Some(status) = self.status else {
            return;
        };
        let request = &self.request;
        let field = |name: HeaderName| {
            request.headers().get(name).map_or("-".into(), |value| String::from_utf8_lossy(value.as_bytes()))
        };
        let uri = request.uri().to_string();
        let client = request.peer_addr().map_or_else(|| "-".to_owned(), |peer| peer.ip().to_string());
        // The reply to a HEAD is sent without its body.
        let sent = if *request.method() == Method::HEAD { 0 } else { self.sent };
        let pid = request.extensions().get::<ServedBy>().map_or_else(std::process::id, |served_by| served_by.0);
        let microseconds = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        log::info!(
            target: ACCESS_LOGGER,
            method = request.method().as_str(),
            uri = uri.as_str(),
            path = request.uri().path(),
            query = request.uri().query().unwrap_or_default(),
            version:? = request.version(),
            client = client.as_str(),
            authorization = &*field(AUTHORIZATION),
            referer = &*field(REFERER),
            agent = &*field(USER_AGENT),
            microseconds = microseconds,
            status = status,
            sent = sent,
            worker_pid = pid;
            ""
        );
    }
}

/// A body that counts its sent bytes for the access record.
struct Followed {
    body: BoxBody,
    access: Access,
}

impl MessageBody for Followed {
    type Error = Box<dyn std::error::Error>;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<bytes::Bytes, Self::Error>>> {
        let part = std::task::ready!(self.body.as_pin_mut().poll_next(cx));
        if let Some(Ok(bytes)) = &part {
            self.access.sent += bytes.len() as u64;
        }
        Poll::Ready(part)
    }
}
