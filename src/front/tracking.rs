//! Fills the record of a request with what the front knows: its head, and what has become of its job.
//!
//! `routes.rs` begins the record of each request, and the connection finishes it when the reply has been written
//! (`http1/connection.rs`). Runs in the front's event loop.

use actix_web::{
    body::{BodySize, MessageBody as _},
    http::header::{HeaderMap, HeaderName, AUTHORIZATION, HOST, REFERER, USER_AGENT},
    HttpRequest, HttpResponse,
};
use bytes::Bytes;

use super::{error::RequestError, proxies, request_ids, Front};
use crate::{
    dispatch::{Answer, Answered, Parts, Pending},
    fault_injection::{point, Point},
    ipc::{
        body::Body,
        frame::{Field, Origin, ReplyHead},
    },
    panics,
    telemetry::{
        record::{Head, Outcome, Refusal, RequestRecord, Run, Stage},
        recorder::Recording,
        trace_context::TraceParent,
    },
};

/// The header with the caller's span.
pub static TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");
static TRACE_STATE: HeaderName = HeaderName::from_static("tracestate");

/// Begins the record of a request that the parser has accepted.
pub fn begin(front: &Front, request: &HttpRequest) -> Recording {
    let headers = request.headers();
    let head = Head {
        method: request.method().clone(),
        uri: request.uri().clone(),
        version: request.version(),
        host: headers.get(HOST).cloned(),
        user_agent: headers.get(USER_AGENT).cloned(),
        referer: headers.get(REFERER).cloned(),
        authorization: headers.get(AUTHORIZATION).cloned(),
    };
    let mut record = RequestRecord::begin(Some(head), request.peer_addr());
    match proxies::client(&front.settings.trusted_proxies, record.peer, headers) {
        Some(said) => (record.client, record.is_https) = (Some(said.address), said.is_https),
        None if proxies::says_https(record.peer, headers) => record.is_https = Some(true),
        None => {}
    }
    record.parent = trace_parent(headers);
    record.trace_state = record.parent.and_then(|_| request_ids::field(headers, &TRACE_STATE));
    front.recorder.begin(record)
}

/// The caller's span. A request with two of them has none that is valid.
fn trace_parent(headers: &HeaderMap) -> Option<TraceParent> {
    let mut values = headers.get_all(&TRACE_PARENT);
    let parent = TraceParent::parse(values.next()?.as_bytes());
    parent.filter(|_| values.next().is_none())
}

/// Notes the reply as it is going to be written.
pub fn note_reply(record: &mut RequestRecord, response: &HttpResponse) {
    record.status = Some(response.status().as_u16());
    if let (BodySize::Sized(length), false) = (response.body().size(), record.is_stream) {
        record.reply_length = Some(length);
    }
}

/// A worker's reply, which can be passed on.
pub enum Reply {
    /// All of it.
    Whole(ReplyHead, Bytes),
    /// Its parts follow.
    Stream(ReplyHead, Parts),
}

/// Notes what has become of the job, and returns the worker's reply.
pub fn note_answer(record: &mut RequestRecord, answered: Answered) -> Result<Reply, RequestError> {
    (record.job, record.worker) = (answered.times, answered.worker);
    match answered.answer {
        Answer::Whole { head, .. } if head.origin == Origin::Cancelled => Err(RequestError::ClientLeft),
        Answer::Whole { head, body } => {
            note_head(record, &head);
            record.reply_body = Some(body.clone());
            Ok(Reply::Whole(head, body))
        }
        Answer::Stream { head, parts } => {
            note_head(record, &head);
            record.is_stream = true;
            Ok(Reply::Stream(head, parts))
        }
        Answer::Overdue { message } => {
            record.run = Some(Run::Timeout);
            record.job.give_up();
            Err(RequestError::Overdue(message))
        }
        Answer::Lost { cause } => {
            record.run = record.job.started.map(|_| Run::Lost);
            record.job.give_up();
            Err(RequestError::WorkerLost { cause })
        }
        Answer::QueueFull { waiting } => Err(RequestError::QueueFull { waiting }),
        Answer::Stopped => Err(RequestError::Stopped),
    }
}

/// Keeps request and body, if they are recorded (`--record`). `body` is what the worker gets.
pub fn note_request(record: &mut RequestRecord, request: &HttpRequest, body: &Body) {
    let Some(sampled) = &mut record.sampled else { return };
    sampled.fields = fields_as_sent(request);
    if body.length() <= sampled.limit {
        // An error means that the shared memory cannot be read; then the worker's answer says so.
        sampled.body = body.to_bytes().ok();
    }
}

/// The header fields in the order the client sent them, names in lower case.
///
/// actix-http's map does not keep the order of names. Each value, however, is a slice of the one
/// buffer that held the head, so the addresses of the values are in the order sent.
pub fn fields_as_sent(request: &HttpRequest) -> Vec<Field> {
    let mut fields: Vec<_> = request.headers().iter().collect();
    fields.sort_by_key(|(_, value)| value.as_bytes().as_ptr());
    fields
        .into_iter()
        .map(|(name, value)| {
            (Bytes::copy_from_slice(name.as_str().as_bytes()), Bytes::copy_from_slice(value.as_bytes()))
        })
        .collect()
}

fn note_head(record: &mut RequestRecord, head: &ReplyHead) {
    if let Some(sampled) = &mut record.sampled {
        sampled.reply_fields.clone_from(&head.fields);
    }
    (record.outcome, record.run) = match head.origin {
        Origin::Result | Origin::Response => (Outcome::Answered, Some(Run::Ok)),
        Origin::ScriptError => (Outcome::ScriptError, Some(Run::Error)),
        Origin::Timeout => (Outcome::Timeout, Some(Run::Timeout)),
        Origin::Cancelled => (Outcome::Abandoned, None),
        // `run()` has returned a result that cannot be rendered, or it was not called.
        Origin::ServerError => (Outcome::Refused(Refusal::Unusable), head.run_ms.map(|_| Run::Error)),
    };
    record.error_location = head.error_location.clone();
    record.is_logged = head.is_logged;
}

/// A job whose answer the handler of its request awaits. If the handler is dropped before the answer has come, because the
/// connection broke, the job is cancelled. If a worker has started the job, the record still gets its outcome.
pub struct Awaited<'a> {
    /// The job; `None` before it is submitted.
    pub pending: Option<Pending>,
    recording: &'a mut Recording,
}

impl<'a> Awaited<'a> {
    /// Watches over a request whose job is about to be submitted.
    pub fn new(recording: &'a mut Recording) -> Self {
        recording.enter(Stage::Queued);
        Self { pending: None, recording }
    }
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        let Some(mut pending) = self.pending.take().filter(Pending::is_open) else { return };
        let mut recording = self.recording.take();
        if !pending.is_waiting() {
            recording.enter(Stage::Running);
        }
        pending.leave();
        let note_outcome = async move {
            let answered = pending.answer_if_started().await;
            point(Point::Outcome);
            match answered {
                Some(answered) => {
                    recording.abandon();
                    note_unsent(&mut recording, answered);
                }
                None => recording.enter(Stage::Queued),
            }
        };
        panics::spawn(note_outcome, |panic| {
            log::error!(target: "azmlinfsrv.front", "The task that awaits the outcome of a request whose client has left {panic}. The record of the request has no outcome.");
        });
    }
}

/// Notes the reply to a request whose client has left. Dropping the reply ends a stream.
fn note_unsent(record: &mut RequestRecord, answered: Answered) {
    match note_answer(record, answered) {
        Ok(Reply::Whole(head, body)) => {
            (record.status, record.reply_length) = (Some(head.status), Some(body.len() as u64));
        }
        Ok(Reply::Stream(head, _)) => record.status = Some(head.status),
        Err(error) => {
            let message = error.to_string();
            record.outcome = error.outcome();
            record.status = Some(error.status().as_u16());
            record.reply_length = Some(record.error_body(&message).len() as u64);
            record.error = Some(message);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::telemetry::record::JobTimes;

    #[test]
    fn the_time_of_a_worker_that_was_killed_or_lost_counts_as_time_in_run() {
        let began = Instant::now();
        let times = |started| JobTimes { started, ended: Some(began + Duration::from_secs(2)), ..JobTimes::default() };
        let answered = |answer, started| Answered { answer, times: times(started), worker: None };
        let overdue = Answer::Overdue { message: String::new() };
        for (answered, run, seconds) in [
            (answered(overdue, Some(began)), Some(Run::Timeout), Some(2)),
            (answered(Answer::Lost { cause: String::new() }, Some(began)), Some(Run::Lost), Some(2)),
            (answered(Answer::Lost { cause: String::new() }, None), None, None),
        ] {
            let mut record = RequestRecord::begin(None, None);
            assert!(note_answer(&mut record, answered).is_err());
            assert_eq!((record.run, record.job.run), (run, seconds.map(Duration::from_secs)));
        }
    }

    #[test]
    fn a_result_that_cannot_be_rendered_is_a_failed_run() {
        for (run_ms, run) in [(Some(3.0), Some(Run::Error)), (None, None)] {
            let mut record = RequestRecord::begin(None, None);
            note_head(&mut record, &ReplyHead { origin: Origin::ServerError, run_ms, ..ReplyHead::default() });
            assert_eq!(record.run, run);
        }
    }
}
