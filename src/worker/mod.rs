//! The worker process's loop: take a job from the front, call the script, send the reply.
//!
//! Runs on the main thread of a worker, which also is the interpreter's main thread: `run()` may use signals and event
//! loops as always. The GIL is given up whenever the loop waits, so threads started by `init()` get their turn.
//! `socket.rs` reads and writes, `input.rs` and `output.rs` convert, `call.rs` runs the script; this file is their order.

mod call;
mod input;
mod output;
mod script;
mod socket;

use std::{collections::BTreeMap, path::PathBuf, time::Instant};

use bytes::Bytes;
use pyo3::prelude::*;

use self::{
    call::{Caller, Outcome},
    script::Script,
    socket::{FrontSocket, Received},
};
use crate::{
    frame::{self, Frame, Hello, Job, Kind, ReplyHead},
    settings::Settings,
};

/// Serves jobs until the front lets this worker go, the supervisor is gone, or `retiring` says so.
///
/// `script` is the loaded and initialised script, `swagger` its documents by version, `retiring` a callable that tells
/// whether a signal has asked this process to finish. Returns when the process should exit with code 0.
pub(crate) fn work(
    py: Python<'_>,
    settings: &Settings,
    socket_path: PathBuf,
    script: &Bound<'_, PyAny>,
    swagger: BTreeMap<String, String>,
    retiring: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let script = Script::read(script)?;
    let caller = Caller::new(py, &script, settings)?;
    let hello = Hello {
        protocol: frame::PROTOCOL_VERSION,
        pid: std::process::id(),
        claims: String::new(),
        raw: script.is_raw(),
        wants_request: script.wants_request(py),
        swagger,
    };
    let Some(mut socket) = FrontSocket::connect(py, socket_path, hello, settings.max_request_size)? else {
        return Ok(());
    };
    loop {
        if retiring.call0()?.is_truthy()? {
            socket.say_goodbye(py);
            return Ok(());
        }
        match socket.receive(py)? {
            Received::Frame(frame) if frame.kind == Kind::Job => {
                if !socket.claim_next() {
                    socket.send(py, frame::encode_bare(Kind::Skipped), Bytes::new());
                    continue;
                }
                let (head, outcome) = answer(py, &caller, &frame)?;
                // Before the reply: whoever has read it may count on the next request being called in the new way.
                if !socket.hello().wants_request && script.wants_request(py) {
                    socket.ask_for_requests(py)?;
                }
                deliver(py, &caller, &mut socket, head, outcome)?;
            }
            // Its stream has ended meanwhile, or its job has been answered.
            Received::Frame(frame) if frame.kind == Kind::Cancel => {}
            Received::Frame(frame) if frame.kind == Kind::Retire => return Ok(()),
            Received::Frame(frame) => {
                let text = format!("the front sent an unexpected {:?}", frame.kind);
                return Err(pyo3::exceptions::PyRuntimeError::new_err(text));
            }
            // A signal arrived or nothing did for a while: look at `retiring` again.
            Received::Nothing => {}
            Received::FrontGone => return Ok(()),
        }
    }
}

/// Runs one job. An error is one of the connection's protocol, never of the script.
fn answer<'py>(py: Python<'py>, caller: &Caller<'_, 'py>, frame: &Frame) -> PyResult<(ReplyHead, Outcome)> {
    let started = Instant::now();
    let job = Job::decode(frame).map_err(|error| pyo3::exceptions::PyRuntimeError::new_err(error.to_string()))?;
    let reply = caller.answer(py, &job, &frame.body);
    let head = ReplyHead {
        id: job.id,
        status: reply.status,
        origin: reply.origin,
        run_ms: reply.run_ms,
        busy_ms: started.elapsed().as_secs_f64() * 1e3,
        server_version: server_version(),
        error_location: reply.error_location,
        fields: reply.fields,
    };
    Ok((head, reply.outcome))
}

fn deliver<'py>(
    py: Python<'py>,
    caller: &Caller<'_, 'py>,
    socket: &mut FrontSocket,
    head: ReplyHead,
    outcome: Outcome,
) -> PyResult<()> {
    match outcome {
        Outcome::Whole(body) => {
            socket.send(py, head.encode(Kind::Reply, body.len()), body);
            Ok(())
        }
        Outcome::Stream { first, rest } => {
            socket.send(py, head.encode(Kind::StreamStart, 0), Bytes::new());
            stream(py, caller, socket, head.id, first, rest.bind(py))
        }
    }
}

/// Sends the parts of a stream until it ends, fails, or its client has left.
fn stream<'py>(
    py: Python<'py>,
    caller: &Caller<'_, 'py>,
    socket: &mut FrontSocket,
    id: u64,
    first: Option<Bytes>,
    rest: &Bound<'py, PyAny>,
) -> PyResult<()> {
    let mut part: PyResult<Option<Bytes>> = Ok(first);
    loop {
        match part {
            Ok(Some(bytes)) if bytes.is_empty() => {}
            Ok(Some(bytes)) => socket.send(py, frame::encode_with_id(Kind::StreamChunk, id, bytes.len()), bytes),
            Ok(None) => {
                socket.send(py, frame::encode_with_id(Kind::StreamEnd, id, 0), Bytes::new());
                break;
            }
            Err(error) => {
                let reason = Bytes::from(error.to_string());
                caller.log_internal(py, error);
                socket.send(py, frame::encode_with_id(Kind::StreamEnd, id, reason.len()), reason);
                break;
            }
        }
        if socket.was_cancelled(py, id)? {
            socket.send(py, frame::encode_with_id(Kind::StreamEnd, id, 0), Bytes::new());
            break;
        }
        part = caller.next_part(rest);
    }
    caller.close_stream(py, rest);
    Ok(())
}

/// `x-ms-server-version`: a script may change the variable at any time (contract section 9).
fn server_version() -> Bytes {
    use std::os::unix::ffi::OsStringExt as _;
    std::env::var_os("HTTP_X_MS_SERVER_VERSION").map(|value| value.into_vec().into()).unwrap_or_default()
}
