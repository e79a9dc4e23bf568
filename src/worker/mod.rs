//! The worker's loop: take a job from the front, call the script, send the reply.
//!
//! Runs on the main thread of a worker process, which also is the interpreter's main thread, so that `run()` may use
//! signals and event loops as always; or on a thread of its own in the front's process. The GIL is given up whenever the
//! loop waits, so threads started by `init()` get their turn. `transport/` has the connection to the front, `convert/`
//! makes arguments and results, `call.rs` runs the script; this file is their order.

mod about;
mod call;
mod convert;
mod current_request;
mod deadline;
mod reply;
mod script;
mod transport;
pub(crate) mod user_metrics;

use std::{collections::BTreeMap, time::Instant};

use bytes::Bytes;
use pyo3::{prelude::*, types::PyBytes};

use self::{
    call::Caller,
    deadline::Deadline,
    reply::Outcome,
    script::Script,
    transport::{Arrived, Front, Received, ThreadFront},
};
pub(crate) use self::{
    convert::input::{for_tests as arguments_for_tests, Converted},
    current_request::CurrentRequest,
    deadline::Watcher,
};
use crate::{
    fault_injection::{point, Point},
    ipc::{
        frame::{self, FrameError, Hello, Job, Kind, Origin, ReplyHead},
        thread_channel::ThreadChannel,
    },
    json::write,
    settings::Settings,
};

/// Where the front is.
pub(crate) enum Place<'a> {
    /// In another process, which receives connections that are sent to this socket. The second descriptor is a duplicate.
    #[cfg(unix)]
    Socket(std::os::fd::OwnedFd, std::os::fd::OwnedFd),
    /// In this process.
    ThisProcess(&'a ThreadChannel, &'a Watcher),
}

/// Serves jobs until the front retires this worker, the supervisor has died, or `retiring` returns
/// true.
///
/// `worker` is the supervisor's name for this worker, `script` the loaded and initialised script,
/// `swagger` its documents by version, `retiring` a callable that tells whether the worker has been
/// asked to finish. Returns when it is done.
pub(crate) fn work(
    py: Python<'_>,
    settings: &Settings,
    place: Place<'_>,
    worker: u32,
    script: &Bound<'_, PyAny>,
    swagger: BTreeMap<String, String>,
    retiring: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let script = Script::read(script)?;
    let hello = Hello {
        protocol: frame::PROTOCOL_VERSION,
        worker,
        pid: std::process::id(),
        shares_claims: false,
        shares_bodies: false,
        raw: script.is_raw(),
        wants_request: script.wants_request(py),
        follows_traces: script.follows_traces(py),
        capacity: 1,
        swagger,
    };
    match place {
        #[cfg(unix)]
        Place::Socket(entrance, spare) => {
            let entrance = (entrance, spare);
            let caller = Caller::new(py, &script, settings, Deadline::by_signal(py)?)?;
            let cooperative = transport::Cooperative::new(&script.object)?;
            match transport::SocketFront::connect(
                py,
                entrance,
                hello,
                settings.max_request_size,
                retiring,
                cooperative,
            )? {
                Some(mut front) => serve(py, &mut front, &caller, retiring),
                None => Ok(()),
            }
        }
        Place::ThisProcess(channel, watcher) => {
            let caller = Caller::new(py, &script, settings, Deadline::Watched(watcher.watch_this_thread(py)?))?;
            match ThreadFront::connect(py, channel, hello)? {
                Some(mut front) => serve(py, &mut front, &caller, retiring),
                None => Ok(()),
            }
        }
    }
}

fn serve<'py>(
    py: Python<'py>,
    front: &mut dyn Front,
    caller: &Caller<'_, 'py>,
    retiring: &Bound<'_, PyAny>,
) -> PyResult<()> {
    loop {
        if retiring.call0()?.is_truthy()? {
            front.say_goodbye(py);
            break;
        }
        match front.receive(py)? {
            Received::Frame(job) if job.frame.kind == Kind::Job => {
                if !front.claim_next() {
                    front.send(py, frame::encode_bare(Kind::Skipped), Bytes::new());
                    continue;
                }
                let (job, frame_body, object) = decoded(job)?;
                let _about = caller.about(py, &job);
                let answered = answer(py, caller, job, &frame_body, object.as_ref());
                // Send this before the reply: a client that has read the reply may expect that its
                // next request is called in the new way.
                let (script, hello) = (caller.script(), front.hello());
                let wants_request = hello.wants_request || script.wants_request(py);
                let follows_traces = hello.follows_traces || script.follows_traces(py);
                if (wants_request, follows_traces) != (hello.wants_request, hello.follows_traces) {
                    (hello.wants_request, hello.follows_traces) = (wants_request, follows_traces);
                    front.say_hello_again(py)?;
                }
                deliver(py, caller, front, answered)?;
            }
            // The cancel came too late: the stream has ended, or the job has been answered.
            Received::Frame(Arrived { frame, .. }) if frame.kind == Kind::Cancel => {}
            Received::Frame(Arrived { frame, .. }) if frame.kind == Kind::Retire => break,
            Received::Frame(Arrived { frame, .. }) => {
                let text = format!("the front sent an unexpected {:?}", frame.kind);
                return Err(pyo3::exceptions::PyRuntimeError::new_err(text));
            }
            // A signal arrived, or the read timed out: ask `retiring` again.
            Received::Nothing => {}
            Received::FrontGone => return Ok(()),
        }
    }
    Ok(())
}

/// A job and what came of it.
struct Answered {
    job: Job,
    /// When the worker had received the job.
    received: Instant,
    head: ReplyHead,
    outcome: Outcome,
}

/// A job, its body, and the body as a Python object if it was received into one. An error is a fault of the protocol with
/// the front.
fn decoded(arrived: Arrived) -> PyResult<(Job, Bytes, Option<Py<PyBytes>>)> {
    let Arrived { frame, object } = arrived;
    let job = Job::decode(&frame).map_err(|error| pyo3::exceptions::PyRuntimeError::new_err(error.to_string()))?;
    Ok((job, frame.body, object))
}

/// Runs one job.
fn answer<'py>(
    py: Python<'py>,
    caller: &Caller<'_, 'py>,
    job: Job,
    body: &Bytes,
    object: Option<&Py<PyBytes>>,
) -> Answered {
    point(Point::Worker);
    let received = Instant::now();
    let reply = caller.answer(py, &job, body, object);
    let head = ReplyHead {
        id: job.id,
        status: reply.status,
        origin: reply.origin,
        is_logged: caller.script().logs_requests,
        run_ms: reply.run_ms,
        busy_ms: received.elapsed().as_secs_f64() * 1e3,
        server_version: server_version(),
        error_location: reply.error_location,
        fields: reply.fields,
    };
    Answered { job, received, head, outcome: reply.outcome }
}

/// Logs the request, if that is this worker's to do, and sends the reply.
fn deliver<'py>(py: Python<'py>, caller: &Caller<'_, 'py>, front: &mut dyn Front, answered: Answered) -> PyResult<()> {
    let Answered { job, received, head, outcome } = answered;
    let (kind, length) = match &outcome {
        Outcome::Whole(body) => (Kind::Reply, body.len()),
        Outcome::Stream { .. } => (Kind::StreamStart, 0),
    };
    let log = |status, length| {
        if head.is_logged {
            caller.log_request(py, &job, status, length, received.elapsed());
        }
    };
    match (head.encode(kind, length), outcome) {
        (Ok(encoded), Outcome::Whole(body)) => {
            log(head.status, Some(body.len()));
            front.send(py, encoded, body);
            Ok(())
        }
        (Ok(encoded), Outcome::Stream { first, rest }) => {
            log(head.status, None);
            front.send(py, encoded, Bytes::new());
            stream(py, caller, front, head.id, first, rest.bind(py))
        }
        (Err(problem), outcome) => {
            if let Outcome::Stream { rest, .. } = outcome {
                caller.close_stream(py, rest.bind(py));
            }
            let (status, encoded, body) = too_large(py, caller, &head, &problem)?;
            log(status, Some(body.len()));
            front.send(py, encoded, body);
            Ok(())
        }
    }
}

/// What is sent in place of a reply that is too large for the front: an error reply, which names the limit. The log has the
/// same text.
fn too_large<'py>(
    py: Python<'py>,
    caller: &Caller<'_, 'py>,
    head: &ReplyHead,
    problem: &FrameError,
) -> PyResult<(u16, Bytes, Bytes)> {
    let error = |text: String| pyo3::exceptions::PyValueError::new_err(text);
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
    let body = Bytes::from(write::message_body(&message));
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

/// Sends the parts of a stream until it ends, fails, or its client has left.
fn stream<'py>(
    py: Python<'py>,
    caller: &Caller<'_, 'py>,
    front: &mut dyn Front,
    id: u64,
    first: Option<Bytes>,
    rest: &Bound<'py, PyAny>,
) -> PyResult<()> {
    let mut part: PyResult<Option<Bytes>> = Ok(first);
    loop {
        match part {
            Ok(Some(bytes)) if bytes.is_empty() => {}
            Ok(Some(bytes)) => front.send(py, frame::encode_with_id(Kind::StreamChunk, id, bytes.len()), bytes),
            Ok(None) => {
                front.send(py, frame::encode_with_id(Kind::StreamEnd, id, 0), Bytes::new());
                break;
            }
            Err(error) => {
                let reason = Bytes::from(error.to_string());
                caller.log_internal(py, error);
                front.send(py, frame::encode_with_id(Kind::StreamEnd, id, reason.len()), reason);
                break;
            }
        }
        if front.was_cancelled(py, id)? {
            front.send(py, frame::encode_with_id(Kind::StreamEnd, id, 0), Bytes::new());
            break;
        }
        part = caller.next_part(rest);
    }
    caller.close_stream(py, rest);
    Ok(())
}

/// `x-ms-server-version`: a script may change the variable at any time (contract section 9).
fn server_version() -> Bytes {
    std::env::var_os("HTTP_X_MS_SERVER_VERSION").map(|value| value.into_encoded_bytes().into()).unwrap_or_default()
}
