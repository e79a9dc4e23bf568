//! The worker's loop: receive a job from the front, claim it, have it executed, which ends with the reply.
//!
//! Runs on the main thread of a worker process, which also is the interpreter's main thread, so that `run()` may use
//! signals and event loops as always; or on a thread of its own in the front's process. The GIL is given up whenever the
//! loop waits, so threads started by `init()` get their turn. `transport/` has the connection to the front, `convert/`
//! makes arguments and results, `call.rs` runs the script; this file is their order.

mod about;
mod batch_size;
mod call;
mod claimed_job;
mod convert;
mod current_request;
mod deadline;
mod executor;
#[cfg(unix)]
mod pool;
mod reply;
mod retirement;
mod script;
mod sending;
mod transport;
pub(crate) mod user_metrics;

use std::collections::BTreeMap;
#[cfg(unix)]
use std::sync::{Arc, Mutex};

use pyo3::{intern, prelude::*};

#[cfg(unix)]
use self::executor::Asynchronous;
use self::{
    call::Caller,
    deadline::Deadline,
    executor::{Batches, Batching, Executor, Notice, Serial},
    retirement::Retirement,
    script::Script,
    transport::{Front, Received, ThreadFront},
};
pub(crate) use self::{
    convert::input::{for_tests as arguments_for_tests, Converted},
    current_request::CurrentRequest,
    deadline::Watcher,
};
use crate::{
    ipc::{
        frame::{self, Frame, Hello, Kind},
        thread_channel::ThreadChannel,
    },
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
    let batches = Batches::of(&script.object, settings)?;
    let hello = Hello {
        protocol: frame::PROTOCOL_VERSION,
        worker,
        pid: std::process::id(),
        shares_claims: false,
        shares_bodies: false,
        raw: script.is_raw(),
        wants_request: script.wants_request(py),
        follows_traces: script.follows_traces(py),
        capacity: match &place {
            _ if script.is_async => settings.max_concurrency,
            #[cfg(unix)]
            Place::Socket(..) => settings.worker_threads,
            Place::ThisProcess(..) => 1,
        },
        batch: batches.as_ref().map_or(1, |batches| batches.wanted_size()),
        concurrent: script.is_async || settings.worker_threads > 1,
        cancels: script.is_async,
        model: script.object.getattr(intern!(py, "model_description"))?.extract()?,
        swagger,
    };
    let retirement = Retirement::new(retiring)?;
    match place {
        #[cfg(unix)]
        Place::Socket(entrance, spare) => {
            let entrance = (entrance, spare);
            let hello = Arc::new(Mutex::new(hello));
            let max_body = settings.max_request_size;
            let front = transport::SocketFront::connect(py, entrance, hello.clone(), max_body, retirement.share(py))?;
            let Some(mut front) = front else { return Ok(()) };
            if settings.worker_threads > 1 {
                return pool::work(py, settings, &script.object, &mut front, hello, &retirement);
            }
            let limits = deadline::Limits::of(settings.scoring_timeout, settings.worker_timeout);
            let caller = Caller::new(py, &script, settings, Deadline::by_signal(py, limits)?)?;
            if script.is_async {
                let mut executor = Asynchronous::new(py, caller, retirement.share(py))?;
                serve(py, &mut front, &mut executor, &retirement)
            } else {
                let cooperative = executor::Cooperative::new(&script.object)?;
                let serial = Serial::in_process(caller, cooperative, retirement.share(py));
                serve_serially(py, &mut front, serial, batches, &retirement)
            }
        }
        Place::ThisProcess(channel, watcher) => {
            let caller = Caller::new(py, &script, settings, Deadline::Watched(watcher.watch_this_thread(py)?))?;
            match ThreadFront::connect(py, channel, hello)? {
                Some(mut front) => serve_serially(py, &mut front, Serial::in_thread(caller), batches, &retirement),
                None => Ok(()),
            }
        }
    }
}

/// Serves with one call of `run()` at a time, which answers one job, or a batch.
fn serve_serially<'py>(
    py: Python<'py>,
    front: &mut dyn Front,
    mut serial: Serial<'_, 'py>,
    batches: Option<Batches<'py>>,
    retirement: &Retirement,
) -> PyResult<()> {
    match batches {
        Some(batches) => serve(py, front, &mut Batching::new(serial, batches), retirement),
        None => serve(py, front, &mut serial, retirement),
    }
}

fn serve<'py>(
    py: Python<'py>,
    front: &mut dyn Front,
    executor: &mut dyn Executor<'py>,
    retirement: &Retirement,
) -> PyResult<()> {
    loop {
        if retirement.is_asked(py)? {
            front.say_goodbye(py);
            return executor.finish(py, front);
        }
        let arrived = match executor.receive(py, front)? {
            Received::Frame(arrived) => arrived,
            // A signal arrived, or the wait is over: ask `retirement` again.
            Received::Nothing => continue,
            Received::FrontGone => return Ok(()),
        };
        match arrived.frame.kind {
            Kind::Job => executor.accept(py, front, arrived)?,
            Kind::Retire => return executor.finish(py, front),
            kind => match Notice::of(kind) {
                Some(notice) => executor.note(py, job_of(&arrived.frame)?, notice)?,
                None => return Err(protocol_error(&format!("the front sent an unexpected {kind:?}"))),
            },
        }
    }
}

/// The job that a frame with an id is about.
fn job_of(frame: &Frame) -> PyResult<u64> {
    frame::decode_id(frame).map_err(|error| protocol_error(&error.to_string()))
}

fn protocol_error(text: &str) -> PyErr {
    pyo3::exceptions::PyRuntimeError::new_err(text.to_owned())
}
