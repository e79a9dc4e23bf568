//! What the log says about a request: its line, and what `gunicorn.access` gets (contract section 13).
//!
//! Every request has a line, health checks excepted; `access_line.rs` is its text. A worker whose script has changed the
//! logger writes those of the requests that it serves (`worker/call.rs`). The access record is for
//! users whose logging.json names that logger, and costs nothing otherwise: it has every request, with what gunicorn's
//! record had. `log_config.log_access` makes the text of it. Runs in the front's event loop.

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

use crate::access_line::{Line, DEPRECATED_ID};

/// Logger of the access records.
pub const ACCESS_LOGGER: &str = "gunicorn.access";

/// Logger of the lines.
const TARGET: &str = "azmlinfsrv";

/// Writes the line of a request; `pid` is the process that served it, `None` if no worker did.
pub fn write(line: &Line<'_>, pid: Option<u32>) {
    write_about(Level::Info, &line.to_string(), pid);
}

/// Warns of a request that was named by the deprecated header.
pub fn warn_of_deprecated_id() {
    write_about(Level::Warn, DEPRECATED_ID, None);
}

/// Writes something else about a request.
pub fn write_about(level: Level, text: &str, pid: Option<u32>) {
    match pid {
        Some(pid) => log::log!(target: TARGET, level, worker_pid = pid; "{text}"),
        None => log::log!(target: TARGET, level, "{text}"),
    }
}

/// The worker that served a request, among the request's extensions.
struct ServedBy(u32);

/// Notes the worker that served a request for its access record, if anybody wants that.
pub fn note_worker(request: &HttpRequest, pid: Option<u32>) {
    if let Some(pid) = pid.filter(|_| access_is_logged()) {
        request.extensions_mut().insert(ServedBy(pid));
    }
}

fn access_is_logged() -> bool {
    log::log_enabled!(target: ACCESS_LOGGER, Level::Info)
}

/// The access record of one request. It is logged when it is dropped, which is when the reply has been handed over or
/// given up.
pub struct Access {
    request: HttpRequest,
    started: Instant,
    /// Status of the reply; `None` if the client left before there was one.
    status: Option<u16>,
    /// Body bytes handed over.
    sent: u64,
}

impl Access {
    /// Begins the record of a request, if anybody wants it.
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
        // A HEAD gets the head alone, whatever body was made for it.
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

/// A body that counts what is sent of it for its access record.
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
