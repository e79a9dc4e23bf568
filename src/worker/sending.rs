//! Makes frames of a reply and sends them to the front.
//!
//! Every executor sends its replies here. The front learns before the reply if the script needs
//! other input from now on. A reply that is too large for the front is replaced by an error reply.
//! Runs on the worker's thread.

use bytes::Bytes;
use pyo3::{exceptions::PyValueError, prelude::*};

use super::{
    call::Caller,
    claimed_job::ClaimedJob,
    reply::{self, Outcome, Reply},
    transport::Front,
};
use crate::{
    ipc::frame::{self, FrameError, Job, Kind, Origin, ReplyHead},
    json::write,
};

/// What has been sent of a reply.
pub(super) enum Sent {
    /// All of it.
    Whole,
    /// The head of a stream: `first`, the parts of `rest`, and an end must follow.
    Head { first: Option<Bytes>, rest: Py<PyAny> },
    /// The head of a stream that an async script makes: parts and an end must follow.
    AsyncHead,
}

/// Logs the request, if that is this worker's to do, and sends the reply, or its head.
pub(super) fn send_reply<'py>(
    py: Python<'py>,
    caller: &Caller<'_, 'py>,
    front: &mut dyn Front,
    claimed: &ClaimedJob,
    reply: Reply,
) -> PyResult<Sent> {
    // Send this before the reply: a client that has read the reply may expect that its next request
    // is called in the new way.
    say_hello_again_if_changed(py, caller, front)?;
    let reply = if claimed.job.inference.is_some() { reply.in_form_of_v2() } else { reply };
    let head = ReplyHead {
        id: claimed.job.id,
        status: reply.status,
        origin: reply.origin,
        is_logged: caller.script().logs_requests,
        run_ms: reply.run_ms,
        busy_ms: claimed.received.elapsed().as_secs_f64() * 1e3,
        server_version: server_version(),
        error_location: reply.error_location,
        fields: reply.fields,
    };
    let (kind, length) = match &reply.outcome {
        Outcome::Whole(body) => (Kind::Reply, body.len()),
        Outcome::Stream { .. } | Outcome::AsyncStream => (Kind::StreamStart, 0),
    };
    let log = |status, length| {
        if head.is_logged {
            caller.log_request(py, &claimed.job, status, length, claimed.received.elapsed());
        }
    };
    match (head.encode(kind, length), reply.outcome) {
        (Ok(encoded), Outcome::Whole(body)) => {
            log(head.status, Some(body.len()));
            front.send(py, encoded, body);
            Ok(Sent::Whole)
        }
        (Ok(encoded), Outcome::Stream { first, rest }) => {
            log(head.status, None);
            front.send(py, encoded, Bytes::new());
            Ok(Sent::Head { first, rest })
        }
        (Ok(encoded), Outcome::AsyncStream) => {
            log(head.status, None);
            front.send(py, encoded, Bytes::new());
            Ok(Sent::AsyncHead)
        }
        (Err(problem), outcome) => {
            if let Outcome::Stream { rest, .. } = outcome {
                caller.close_stream(py, rest.bind(py));
            }
            let (status, encoded, body) = too_large(py, caller, &claimed.job, &head, &problem)?;
            log(status, Some(body.len()));
            front.send(py, encoded, body);
            Ok(Sent::Whole)
        }
    }
}

/// Sends one part of a stream. An empty part is left out.
pub(super) fn send_part(py: Python<'_>, front: &mut dyn Front, id: u64, part: Bytes) {
    if !part.is_empty() {
        front.send(py, frame::encode_with_id(Kind::StreamChunk, id, part.len()), part);
    }
}

/// Sends the end of a stream.
pub(super) fn send_end(py: Python<'_>, front: &mut dyn Front, id: u64) {
    front.send(py, frame::encode_with_id(Kind::StreamEnd, id, 0), Bytes::new());
}

/// Logs why a stream has failed, and tells the front, which cuts the client's connection.
pub(super) fn send_failure<'py>(
    py: Python<'py>,
    caller: &Caller<'_, 'py>,
    front: &mut dyn Front,
    id: u64,
    error: PyErr,
) {
    let reason = Bytes::from(error.to_string());
    caller.log_internal(py, error);
    front.send(py, frame::encode_with_id(Kind::StreamEnd, id, reason.len()), reason);
}

/// Tells the front if the script needs more of each request than it has said so far.
fn say_hello_again_if_changed<'py>(py: Python<'py>, caller: &Caller<'_, 'py>, front: &dyn Front) -> PyResult<()> {
    let needs = (caller.script().wants_request(py), caller.script().follows_traces(py));
    front.say_hello_again_if(py, &mut |hello| {
        let before = (hello.wants_request, hello.follows_traces);
        hello.wants_request |= needs.0;
        hello.follows_traces |= needs.1;
        (hello.wants_request, hello.follows_traces) != before
    })
}

/// What is sent in place of a reply that is too large for the front: an error reply, which names the limit. The log has the
/// same text.
fn too_large<'py>(
    py: Python<'py>,
    caller: &Caller<'_, 'py>,
    job: &Job,
    head: &ReplyHead,
    problem: &FrameError,
) -> PyResult<(u16, Bytes, Bytes)> {
    let error = |text: String| PyValueError::new_err(text);
    let message = match problem {
        FrameError::TooLong { what, len, limit } => {
            let what = if *what == "head" { "headers" } else { "body" };
            format!(
                "The {what} of the scoring script's response are too large: {len} bytes, where the limit is {limit} bytes."
            )
        }
        other => other.to_string(),
    };
    caller.log_internal(py, error(message.clone()));
    let is_v2 = job.inference.is_some();
    let body = Bytes::from(if is_v2 { write::error_body(&message) } else { write::message_body(&message) });
    let head = ReplyHead {
        status: 500,
        origin: Origin::ServerError,
        fields: vec![reply::JSON],
        error_location: Bytes::new(),
        ..head.clone()
    };
    let encoded = head.encode(Kind::Reply, body.len()).map_err(|problem| error(problem.to_string()))?;
    Ok((head.status, encoded, body))
}

/// `x-ms-server-version`: a script may change the variable at any time (contract section 9).
fn server_version() -> Bytes {
    std::env::var_os("HTTP_X_MS_SERVER_VERSION").map(|value| value.into_encoded_bytes().into()).unwrap_or_default()
}
