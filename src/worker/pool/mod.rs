//! `--worker_threads`: several calls of `run()` at once in one worker process.
//!
//! The main thread receives what the front sends and puts jobs into the pool. Each thread of the
//! pool runs the same loop as a worker with one call at a time (`worker/mod.rs`, `serial.rs`), on
//! its own end of the pool (`end.rs`), and sends its replies itself. `state.rs` has what they share.
//!
//! This file starts the threads, and is the loop of the main thread.

mod end;
mod outlet;
mod state;

use std::{
    os::unix::net::UnixStream,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use pyo3::{
    exceptions::PyRuntimeError,
    intern,
    prelude::*,
    types::{PyCFunction, PyDict, PyTuple},
};

use self::{end::PoolEnd, outlet::Outlet, state::Shared};
use super::{
    call::Caller,
    deadline::{Deadline, Watcher},
    executor::{Cooperative, Notice, Serial},
    job_of, protocol_error,
    retirement::Retirement,
    script::Script,
    serve,
    transport::{Front as _, Received, SocketFront},
};
use crate::{
    ipc::frame::{self, Hello, Job, Kind},
    panics::catch,
    settings::Settings,
};

/// Everything that the threads of a pool and the main thread share.
pub(super) struct Pool {
    shared: Shared,
    outlet: Outlet,
    hello: Arc<Mutex<Hello>>,
    watcher: Watcher,
}

impl Pool {
    /// A pool without threads, and the socket that can be read when the main thread must look at the pool.
    fn new(hello: Arc<Mutex<Hello>>) -> std::io::Result<(Arc<Self>, UnixStream)> {
        let (wake, woken) = UnixStream::pair()?;
        let watcher = Watcher::default();
        Ok((Arc::new(Self { shared: Shared::new(wake), outlet: Outlet::default(), hello, watcher }), woken))
    }
}

/// Serves jobs with `settings.worker_threads` threads until the front retires this worker, its
/// supervisor has died, or it has been asked to finish. `hello` is the one that `front` said.
pub(super) fn work(
    py: Python<'_>,
    settings: &Settings,
    script: &Bound<'_, PyAny>,
    front: &mut SocketFront,
    hello: Arc<Mutex<Hello>>,
    retirement: &Retirement,
) -> PyResult<()> {
    let (pool, woken) = Pool::new(hello)?;
    start_threads(py, &pool, settings, script)?;
    let cooperative = Cooperative::new(script)?;
    Relay { pool, connection: 0, received: 0, is_closed: false }.run(py, front, &woken, &cooperative, retirement)
}

fn start_threads(py: Python<'_>, pool: &Arc<Pool>, settings: &Settings, script: &Bound<'_, PyAny>) -> PyResult<()> {
    let start = py.import(intern!(py, "azureml_inference_server_http.scripting.worker_threads"))?.getattr("start")?;
    for number in 1..=settings.worker_threads {
        let (pool, settings, script) = (pool.clone(), settings.clone(), script.clone().unbind());
        pool.shared.thread_begins();
        let body = move |arguments: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| {
            let py = arguments.py();
            let served = catch(|| run_thread(py, &pool, &settings, script.bind(py)));
            let fault = match served {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(panic) => Some(panic.to_string()),
            };
            pool.shared.thread_ends(fault);
        };
        start.call1((number, PyCFunction::new_closure(py, None, None, body)?))?;
    }
    Ok(())
}

/// The life of one thread.
fn run_thread(py: Python<'_>, pool: &Arc<Pool>, settings: &Settings, script: &Bound<'_, PyAny>) -> PyResult<()> {
    let script = Script::read(script)?;
    let caller = Caller::new(py, &script, settings, Deadline::Watched(pool.watcher.watch_this_thread(py)?))?;
    let mut executor = Serial::in_thread(caller);
    // Nobody asks this one: the main thread closes the pool when the worker has been asked to finish.
    let worker = py.import(intern!(py, "azureml_inference_server_http.scripting.worker"))?;
    let retirement = Retirement::new(&worker.getattr(intern!(py, "Retirement"))?.call0()?)?;
    serve(py, &mut PoolEnd::new(pool.clone()), &mut executor, &retirement)
}

/// The main thread of a worker process with a pool: passes on what the front sends.
struct Relay {
    pool: Arc<Pool>,
    /// Which connection to the front the pool knows; see `Front::connections`.
    connection: u64,
    /// How many jobs have come on this connection.
    received: u64,
    /// The pool takes no more jobs, and this worker ends when its threads have ended.
    is_closed: bool,
}

impl Relay {
    fn run(
        &mut self,
        py: Python<'_>,
        front: &mut SocketFront,
        woken: &UnixStream,
        cooperative: &Cooperative,
        retirement: &Retirement,
    ) -> PyResult<()> {
        loop {
            self.follow(py, front)?;
            if let Some(fault) = self.pool.shared.fault() {
                return Err(PyRuntimeError::new_err(format!("a thread of the worker failed: {fault}")));
            }
            if self.pool.shared.has_no_threads() {
                return Ok(());
            }
            if !self.is_closed && retirement.is_asked(py)? {
                self.say_goodbye(py);
                self.close();
            }
            let received = receive(py, front, woken, cooperative, retirement)?;
            self.follow(py, front)?;
            match received {
                Received::FrontGone => return Ok(()),
                Received::Nothing => {}
                Received::Frame(arrived) => match arrived.frame.kind {
                    // Not claimed, so the front gives it to another worker.
                    Kind::Job if self.is_closed => {}
                    Kind::Job => {
                        let id = Job::decode_id(&arrived.frame).map_err(|error| protocol_error(&error.to_string()))?;
                        self.pool.shared.push(self.received, id, arrived);
                        self.received += 1;
                    }
                    Kind::Retire => self.close(),
                    kind => match Notice::of(kind) {
                        Some(notice) => self.pool.shared.note(job_of(&arrived.frame)?, notice),
                        None => return Err(protocol_error(&format!("the front sent an unexpected {kind:?}"))),
                    },
                },
            }
        }
    }

    /// Tells the pool if the worker has connected again. A worker that is to end says goodbye to the
    /// new front too.
    fn follow(&mut self, py: Python<'_>, front: &SocketFront) -> PyResult<()> {
        if front.connections() == self.connection {
            return Ok(());
        }
        let is_first = self.connection == 0;
        (self.connection, self.received) = (front.connections(), 0);
        let Some((stream, claims)) = front.handles() else { return Ok(()) };
        self.pool.shared.connected(self.connection, stream.clone(), claims);
        self.pool.outlet.connected(self.connection, stream);
        if !is_first {
            // A thread may have changed the hello since this connection began with it.
            py.detach(|| self.pool.outlet.say_hello(&self.pool.hello))?;
        }
        if self.is_closed {
            self.say_goodbye(py);
        }
        Ok(())
    }

    /// Tells the front that this worker starts no more jobs, when no other thread is sending.
    fn say_goodbye(&self, py: Python<'_>) {
        py.detach(|| self.pool.outlet.send(self.connection, frame::encode_bare(Kind::Goodbye), Bytes::new()));
    }

    fn close(&mut self) {
        self.is_closed = true;
        self.pool.shared.close();
    }
}

/// Waits for the front's next frame, or until a thread of the pool has ended. Meanwhile the
/// greenlets and asyncio tasks that the script left on the main thread run.
fn receive(
    py: Python<'_>,
    front: &mut SocketFront,
    woken: &UnixStream,
    cooperative: &Cooperative,
    retirement: &Retirement,
) -> PyResult<Received> {
    match front.take(py)? {
        Received::Nothing => {}
        received => return Ok(received),
    }
    let waited = cooperative.may_be_used(py)? && {
        let waited = cooperative.wait(py, front.descriptor());
        waited.unwrap_or_else(|error| {
            retirement.take_note_of(py, error);
            false
        })
    };
    if !waited {
        front.wait_unless_woken(py, woken);
    }
    front.take_after_wait(py)
}
