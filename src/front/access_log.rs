//! What the log says about a request: its line, and its record for the logger `gunicorn.access`
//! (contract section 13).
//!
//! Two readers of the requests' records. Every request that is valid HTTP has a line, except health
//! checks and what `--access_log` leaves out; `telemetry/access_line.rs` makes its text. If the script
//! has changed the logger, the worker writes the lines of the requests that it serves
//! (`worker/call.rs`). Access records are made only if the user's logging.json names
//! `gunicorn.access`. Then every request that has got a reply, and that `--access_log` does not leave
//! out, has one, with the fields of gunicorn's record; `supervise/access_log.py` makes its text. Runs
//! in the front's event loop.

use std::{cell::RefCell, fmt, time::Duration};

use actix_web::http::{header::HeaderValue, Method};
use log::{kv, Level, Record};

use super::error::RequestError;
use crate::{
    settings::AccessLog,
    telemetry::{
        access_fields,
        access_line::{Line, DEPRECATED_ID},
        item::Request,
        pieces::Pieces,
        record::{Delivery, Outcome, Refusal, RequestRecord, Route, Stage, Worker},
        recorder::Reader,
    },
};

/// Logger of the access records.
pub const ACCESS_LOGGER: &str = "gunicorn.access";

/// Logger of the lines.
pub const REQUEST_LOGGER: &str = "azmlinfsrv";

/// Writes a text about a request at this level; `worker` is the one that served it, `None` if no worker did.
pub fn write_about(level: Level, text: impl fmt::Display, worker: Option<Worker>) {
    match worker {
        Some(worker) => log::log!(target: REQUEST_LOGGER, level, worker_pid = worker.pid; "{text}"),
        None => log::log!(target: REQUEST_LOGGER, level, "{text}"),
    }
}

/// Takes requests whose lines are JSON. The thread that writes the log makes the lines.
pub type JsonLines = Box<dyn Fn(Request) + Send>;

/// Where the line of a request goes.
pub enum RequestLine {
    /// To the log, as text (contract section 13).
    Text,
    /// To the log, as JSON.
    Json(JsonLines),
    /// To Python's `logging`, with the request's ids as attributes.
    Python,
}

/// Writes the line of each request: when it is answered, or if lines are JSON, when the last byte of the reply has been
/// written, because a field says how many bytes there were.
pub struct RequestLines {
    /// Which requests have a line.
    pub access: AccessLog,
    /// Where lines go.
    pub to: RequestLine,
    /// The texts of the requests that wait for their JSON lines.
    pub texts: RefCell<Pieces>,
}

impl RequestLines {
    fn has_line(&self, record: &RequestRecord) -> bool {
        !record.is_logged && self.access.includes(record.status) && has_line(record)
    }
}

impl Reader for RequestLines {
    fn answered(&self, record: &RequestRecord) {
        if !record.is_logged && warns_of_deprecated_id(record) {
            write_about(Level::Warn, DEPRECATED_ID, None);
        }
        if matches!(self.to, RequestLine::Json(_)) || !self.has_line(record) {
            return;
        }
        let target = record.target();
        let Some(line) = line(record, &target) else { return };
        if matches!(self.to, RequestLine::Text) {
            return write_about(Level::Info, line, record.worker);
        }
        let mut fields = access_fields::ids(record);
        fields
            .0
            .extend(record.worker.map(|worker| ("worker_pid".into(), access_fields::Value::Whole(worker.pid.into()))));
        let fields: &dyn kv::Source = &fields;
        let mut made = Record::builder();
        made.target(REQUEST_LOGGER).level(Level::Info).key_values(fields);
        log::logger().log(&made.args(format_args!("{line}")).build());
    }

    fn finished(&self, record: &RequestRecord) {
        if let RequestLine::Json(lines) = &self.to {
            if self.has_line(record) && log::log_enabled!(target: REQUEST_LOGGER, Level::Info) {
                Request::of(record, &mut self.texts.borrow_mut()).into_iter().for_each(lines);
            }
        }
    }
}

/// True if the log warns that the request used the deprecated id header. Requests that no route takes are not worth it.
fn warns_of_deprecated_id(record: &RequestRecord) -> bool {
    record.ids.uses_deprecated && record.route.is_some()
}

/// True if the request has a line in the log at all.
fn has_line(record: &RequestRecord) -> bool {
    let Some(head) = &record.head else { return false };
    let is_logged = match record.route {
        None => true,
        Some(route) if route.is_for_script() => true,
        Some(route) if route.is_probe() => false,
        // The front answers OPTIONS for `/swagger.json`, as it does for health.
        Some(_) => head.method != Method::OPTIONS,
    };
    is_logged || record.outcome == Outcome::Refused(Refusal::IdTooLong)
}

/// Status and length in the line of a request whose client has left: those of the reply that the client would have got.
pub fn shown_of_abandoned(route: Option<Route>) -> (u16, Option<u64>) {
    let error = RequestError::ClientLeft;
    (error.status().as_u16(), Some(Route::error_body(route, &error.to_string()).len() as u64))
}

/// The line of a request. `target` is that of the record.
fn line<'a>(record: &'a RequestRecord, target: &'a str) -> Option<Line<'a>> {
    let head = record.head.as_ref()?;
    let (status, length) = match record.status {
        Some(status) => (status, record.reply_length),
        None => shown_of_abandoned(record.route),
    };
    Some(Line { method: head.method.as_str(), target, status, elapsed: record.elapsed(), length })
}

/// Makes the access record of each request when it is finished, if access records are wanted.
pub struct AccessRecords(pub AccessLog);

impl Reader for AccessRecords {
    fn finished(&self, record: &RequestRecord) {
        let was_replied_to =
            matches!(record.delivery, Delivery::Complete | Delivery::BrokenOff | Delivery::ClientLeft(Stage::Replying));
        let (Some(head), Some(status), true) = (&record.head, record.status, was_replied_to) else { return };
        if !self.0.includes(Some(status)) || !log::log_enabled!(target: ACCESS_LOGGER, Level::Info) {
            return;
        }
        let field = |value: &Option<HeaderValue>| {
            value.as_ref().map_or("-".into(), |value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let uri = head.uri.to_string();
        let client = record.client.map_or_else(|| "-".to_owned(), |client| client.ip().to_string());
        let pid = record.worker.map_or_else(std::process::id, |worker| worker.pid);
        let time = record.finished.map_or(Duration::ZERO, |finished| finished.duration_since(record.began));
        let microseconds = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        log::info!(
            target: ACCESS_LOGGER,
            method = head.method.as_str(),
            uri = uri.as_str(),
            path = head.uri.path(),
            query = head.uri.query().unwrap_or_default(),
            version:? = head.version,
            client = client.as_str(),
            authorization = field(&head.authorization).as_str(),
            referer = field(&head.referer).as_str(),
            agent = field(&head.user_agent).as_str(),
            microseconds = microseconds,
            status = status,
            sent = record.bytes_out,
            worker_pid = pid;
            ""
        );
    }
}
