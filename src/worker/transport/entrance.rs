//! How a worker process connects to the front, and to the front's successor if the front dies.
//!
//! A connection is a pair of sockets that the worker makes; it sends one of them to the front,
//! through a socket that the supervisor made before any process was forked: the entrance
//! (`supervise/worker_socket.py`). So the entrance needs no path and no folder, and only
//! descendants of the supervisor can connect. Runs on the process's main thread.

use std::{
    io::{self, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use pyo3::{exceptions::PyRuntimeError, prelude::*};

use super::{encoded, lock};
#[cfg(target_os = "linux")]
use crate::ipc::body_arena::SharedFile;
use crate::{
    fd::ExposedFd,
    ipc::{claims::Claims, frame::Hello, unix_socket},
    shortage,
    worker::retirement::Retirement,
};

/// A waiting read returns after this time (milliseconds), so that the worker notices a signal that
/// arrived just before the read, or that the supervisor has died.
pub(super) const READ_TIMEOUT: u16 = 1000;
/// How long connecting may fail. The supervisor keeps the entrance open, so a longer failure means
/// that the supervisor has died, or that the system lacks descriptors or memory.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pause between attempts to connect.
const PAUSE: Duration = Duration::from_millis(20);
const CLOSED: &str = "the script has closed a file descriptor that it did not open: \
    the one through which this worker connects to the front. It must close only what it has opened.";

/// A connection to one front.
pub(super) struct Connection {
    pub(super) stream: Arc<UnixStream>,
    /// The counter that decides who owns the jobs that the front has sent.
    pub(super) claims: Option<Arc<Claims>>,
    /// The file in which the front puts large bodies.
    #[cfg(target_os = "linux")]
    pub(super) shared: Option<SharedFile>,
}

/// The socket that takes new connections to the front. All workers share it.
pub(super) struct Entrance {
    socket: ExposedFd,
    /// A duplicate of the socket, opened before the script is loaded. It is closed while the worker
    /// connects, which takes two descriptors for a moment. So the script may use up all but one
    /// descriptor.
    spare: Option<ExposedFd>,
}

impl Entrance {
    /// Takes over the socket and its duplicate.
    pub(super) fn new(socket: OwnedFd, spare: OwnedFd) -> Self {
        Self { socket: ExposedFd::new(socket), spare: Some(ExposedFd::new(spare)) }
    }

    /// Connects to whichever front receives at the entrance, and says hello. `None` if the worker
    /// must not continue ([`Life`]). An error means that the script has closed the entrance, or
    /// that connecting has failed for too long.
    pub(super) fn connect(
        &mut self,
        py: Python<'_>,
        hello: &Mutex<Hello>,
        life: &Life,
    ) -> PyResult<Option<Connection>> {
        let mut deadline = Instant::now() + PATIENCE;
        loop {
            match self.knock() {
                Ok(None) => return Err(PyRuntimeError::new_err(CLOSED)),
                Ok(Some(stream)) => {
                    if let Some(connection) = self.await_welcome(py, stream, life)? {
                        let greeting = encoded(&said_on(&connection, hello))?;
                        if (&*connection.stream).write_all(&greeting).is_ok() {
                            return Ok(Some(connection));
                        }
                    }
                    deadline = Instant::now() + PATIENCE;
                }
                Err(error) if Instant::now() >= deadline => {
                    let remedy = shortage::remedy(&error);
                    let text = format!("this worker cannot connect to the front: {error}. {remedy}");
                    return Err(PyRuntimeError::new_err(text));
                }
                Err(_) => {}
            }
            if !life.goes_on(py)? {
                return Ok(None);
            }
            py.detach(|| std::thread::sleep(PAUSE));
        }
    }

    /// A new connection, which the front may not have received yet; `None` if the script has closed
    /// the entrance.
    fn knock(&mut self) -> io::Result<Option<UnixStream>> {
        self.spare = None;
        let Some(socket) = self.socket.get() else { return Ok(None) };
        let (ours, theirs) = UnixStream::pair()?;
        unix_socket::send_descriptor(socket, Some(theirs.as_fd()))?;
        Ok(Some(ours))
    }

    /// Waits, without a limit, until the front has sent the claim counter and the file of shared
    /// bodies on this connection. `None` if the front has gone, or the worker must not continue.
    fn await_welcome(&mut self, py: Python<'_>, stream: UnixStream, life: &Life) -> PyResult<Option<Connection>> {
        if stream.set_read_timeout(Some(Duration::from_millis(READ_TIMEOUT.into()))).is_err() {
            return Ok(None);
        }
        let Some(counter) = await_descriptor(py, &stream, life)? else { return Ok(None) };
        let claims = counter.and_then(|counter| Claims::open(&counter.into()).ok());
        // The mapped counter does not need its descriptor any more, so there is one for the spare.
        // The file of bodies keeps its descriptor, so it comes last.
        self.spare = self.socket.get().and_then(|socket| socket.try_clone().ok()).map(ExposedFd::new);
        let Some(bodies) = await_descriptor(py, &stream, life)? else { return Ok(None) };
        #[cfg(not(target_os = "linux"))]
        drop(bodies);
        Ok(Some(Connection {
            stream: Arc::new(stream),
            claims: claims.map(Arc::new),
            #[cfg(target_os = "linux")]
            shared: bodies.and_then(|bodies| SharedFile::new(bodies).ok()),
        }))
    }
}

/// What the worker says on a new connection. The lock is free again when this returns.
fn said_on(connection: &Connection, hello: &Mutex<Hello>) -> Hello {
    let mut hello = lock(hello);
    hello.shares_claims = connection.claims.is_some();
    #[cfg(target_os = "linux")]
    {
        hello.shares_bodies = connection.shared.is_some();
    }
    hello.clone()
}

/// Waits for one descriptor. `None` if the front has gone, or the worker must not continue.
/// `Some(None)` if the front has no such file, or this process has no free descriptor.
fn await_descriptor(py: Python<'_>, stream: &UnixStream, life: &Life) -> PyResult<Option<Option<OwnedFd>>> {
    loop {
        match py.detach(|| unix_socket::receive_descriptor(stream)) {
            Ok(descriptor) => return Ok(Some(descriptor)),
            Err(error) if is_pause(&error) && life.goes_on(py)? => {}
            Err(_) => return Ok(None),
        }
    }
}

/// True if the read timed out or a signal interrupted it.
pub(super) fn is_pause(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

/// Decides whether a worker without a front must continue to look for one.
pub(super) struct Life {
    supervisor: nix::unistd::Pid,
    retirement: Retirement,
}

impl Life {
    /// The life of a child of the supervisor.
    pub(super) fn new(retirement: Retirement) -> Self {
        Self { supervisor: nix::unistd::getppid(), retirement }
    }

    /// False once the supervisor has died, or this process has been asked to finish.
    fn goes_on(&self, py: Python<'_>) -> PyResult<bool> {
        self.check_signals(py);
        Ok(!self.is_orphaned() && !self.retirement.is_asked(py)?)
    }

    /// Lets Python's signal handlers run.
    pub(super) fn check_signals(&self, py: Python<'_>) {
        self.retirement.check_signals(py);
    }

    /// True once the supervisor is gone.
    pub(super) fn is_orphaned(&self) -> bool {
        nix::unistd::getppid() != self.supervisor
    }
}
