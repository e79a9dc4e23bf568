//! A worker process's end of the socket to the front: it waits to read and to write with the GIL given up.
//!
//! Runs on the process's main thread. A front that dies is waited for: the supervisor starts another on the same listener,
//! so this end connects again and says hello again; the process, and with it the loaded model, stays.

use std::{
    cell::Cell,
    collections::VecDeque,
    io::{self, IoSlice, Write as _},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use bytes::{Buf as _, Bytes, BytesMut};
use nix::errno::Errno;
use pyo3::{intern, prelude::*};
use socket2::SockRef;

use super::{
    arriving::Arriving,
    cooperative::Cooperative,
    front::{encoded, Arrived, Front, Received},
};
use crate::{
    claims::Claims,
    frame::{self, Decoder, Frame, Hello, Kind},
    unix_socket,
};
#[cfg(target_os = "linux")]
use crate::{
    frame::{FrameError, Place},
    shared_bodies::SharedFile,
};

/// A read that waits returns after this time (milliseconds), to notice a signal that came just before it and a supervisor
/// that is gone.
const READ_TIMEOUT: u16 = 1000;
/// How long there may be nothing to connect to. The listener itself stays open, so only a vanished supervisor exceeds it.
const RECONNECT_PATIENCE: Duration = Duration::from_secs(30);
/// Pause between attempts to connect.
const RECONNECT_PAUSE: Duration = Duration::from_millis(20);
/// A body from this size on is received into Python's object.
const LARGE_BODY: usize = 256 * 1024;
/// Read buffer growth.
const READ_SIZE: usize = 64 * 1024;

/// Connection to the front.
pub(super) struct FrontSocket {
    connection: Connection,
    path: PathBuf,
    hello: Hello,
    /// Jobs and lines received on this connection that have had their turn.
    received: u64,
    /// Those that have been decoded.
    decoded: u64,
    decoder: Decoder,
    buffer: BytesMut,
    /// Frames read while a stream was being sent.
    early: VecDeque<Arrived>,
    /// The large job whose body is being received.
    arriving: Option<Arriving>,
    /// Why a reply could not be sent.
    failed: Cell<Option<Errno>>,
    life: Life,
    /// The script's greenlets and asyncio tasks, which run while this worker waits.
    cooperative: Cooperative,
    /// No other front is looked for when this one is lost.
    is_last: bool,
}

/// What there is for each front.
struct Connection {
    stream: UnixStream,
    /// Who owns the jobs that the front has sent.
    claims: Option<Claims>,
    /// Where the front puts large bodies.
    #[cfg(target_os = "linux")]
    shared: Option<SharedFile>,
}

/// Whether there is a reason to look for a front.
struct Life {
    supervisor: nix::unistd::Pid,
    /// Tells whether a signal has asked this process to finish; `ask()` does the same.
    retiring: Py<PyAny>,
}

impl Life {
    /// False once the supervisor is gone, or this process is to finish.
    fn goes_on(&self, py: Python<'_>) -> PyResult<bool> {
        self.check_signals(py);
        Ok(!self.is_orphaned() && !self.retiring.bind(py).call0()?.is_truthy()?)
    }

    /// Lets Python's signal handlers run.
    fn check_signals(&self, py: Python<'_>) {
        if let Err(error) = py.check_signals() {
            self.take_note_of(py, error);
        }
    }

    /// Deals with what a signal handler, greenlet or task of the script has raised while the worker waited. `SystemExit`
    /// asks the process to end, like a TERM; the loop survives everything else, which is only shown.
    fn take_note_of(&self, py: Python<'_>, error: PyErr) {
        if !error.is_instance_of::<pyo3::exceptions::PySystemExit>(py) {
            return error.write_unraisable(py, None);
        }
        if let Err(error) = self.retiring.bind(py).call_method0(intern!(py, "ask")) {
            error.write_unraisable(py, None);
        }
    }

    fn is_orphaned(&self) -> bool {
        nix::unistd::getppid() != self.supervisor
    }
}

impl FrontSocket {
    /// Connects and says hello; `None` if there is no front. Jobs may be `max_body` bytes long. `retiring` is a callable
    /// that tells whether a signal has asked this process to finish.
    pub(super) fn connect(
        py: Python<'_>,
        path: PathBuf,
        mut hello: Hello,
        max_body: usize,
        retiring: &Bound<'_, PyAny>,
        cooperative: Cooperative,
    ) -> PyResult<Option<Self>> {
        let life = Life { supervisor: nix::unistd::getppid(), retiring: retiring.clone().unbind() };
        let Some(connection) = open(py, &path, &mut hello, &life)? else { return Ok(None) };
        Ok(Some(Self {
            connection,
            path,
            hello,
            received: 0,
            decoded: 0,
            decoder: Decoder { max_body_len: max_body as u64, trusted: true },
            buffer: BytesMut::with_capacity(READ_SIZE),
            early: VecDeque::new(),
            arriving: None,
            failed: Cell::new(None),
            life,
            cooperative,
            is_last: false,
        }))
    }
}

impl Front for FrontSocket {
    fn hello(&mut self) -> &mut Hello {
        &mut self.hello
    }

    fn claim_next(&mut self) -> bool {
        let number = self.received;
        self.received += 1;
        self.connection.claims.as_ref().is_none_or(|claims| claims.claim(number))
    }

    fn stay_with_this_one(&mut self) {
        self.is_last = true;
    }

    fn pass_over(&mut self) {
        self.received += 1;
    }

    /// Python signal handlers run while it waits; what they raise goes to the script's log only.
    fn receive(&mut self, py: Python<'_>) -> PyResult<Received> {
        loop {
            // What else has come on a lost connection must not be run for nobody.
            match self.failed.take() {
                None => {}
                Some(Errno::EPIPE | Errno::ECONNRESET) if self.reconnect(py)? => {}
                Some(Errno::EPIPE | Errno::ECONNRESET) => return Ok(Received::FrontGone),
                // The script has closed the socket. Its number may belong to another file by now.
                Some(error) => return Err(io::Error::from(error).into()),
            }
            if let Some(arrived) = self.next_arrived(py)? {
                return Ok(Received::Frame(arrived));
            }
            match self.wait_and_read(py)? {
                Ok(0) => {
                    if !self.reconnect(py)? {
                        return Ok(Received::FrontGone);
                    }
                }
                Ok(_) => {}
                Err(error) if is_pause(&error) => {
                    #[cfg(target_os = "linux")]
                    if let Some(shared) = &mut self.connection.shared {
                        shared.rest();
                    }
                    self.life.check_signals(py);
                    let orphaned = self.life.is_orphaned();
                    return Ok(if orphaned { Received::FrontGone } else { Received::Nothing });
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    if !self.reconnect(py)? {
                        return Ok(Received::FrontGone);
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn was_cancelled(&mut self, py: Python<'_>, id: u64) -> PyResult<bool> {
        // A front that is gone has no client for the stream.
        let is_gone = loop {
            match py.detach(|| self.read(false)) {
                Ok(0) => break true,
                Ok(_) => {}
                Err(_) => break self.failed.get().is_some(),
            }
        };
        while let Some(arrived) = self.next_decoded(py)? {
            self.early.push_back(arrived);
        }
        let cancels = |Arrived { frame, .. }: &Arrived| frame.kind == Kind::Cancel && frame::decode_id(frame) == Ok(id);
        Ok(is_gone || self.early.iter().any(cancels))
    }

    fn take_log(&mut self) -> Option<Frame> {
        let is_next = self.early.front().is_some_and(|arrived| arrived.frame.kind == Kind::Log);
        is_next.then(|| self.early.pop_front()).flatten().map(|arrived| arrived.frame)
    }

    /// If the front is gone the reply has no client left; the next read notices and connects again.
    fn send(&self, py: Python<'_>, mut head: Bytes, mut body: Bytes) {
        let stream = &self.connection.stream;
        let failed = py.detach(|| {
            while !(head.is_empty() && body.is_empty()) {
                match unix_socket::send(stream, &[IoSlice::new(&head), IoSlice::new(&body)], true) {
                    Ok(written) => {
                        let from_head = written.min(head.len());
                        head.advance(from_head);
                        body.advance(written - from_head);
                    }
                    Err(Errno::EINTR) => {}
                    Err(error) => return Some(error),
                }
            }
            None
        });
        if failed.is_some() {
            self.failed.set(failed);
        }
    }
}

impl FrontSocket {
    fn next_arrived(&mut self, py: Python<'_>) -> PyResult<Option<Arrived>> {
        if let Some(arrived) = self.early.pop_front() {
            return Ok(Some(arrived));
        }
        self.next_decoded(py)
    }

    fn next_decoded(&mut self, py: Python<'_>) -> PyResult<Option<Arrived>> {
        if self.arriving.is_none() {
            let large = self.decoder.decode_large_job(&mut self.buffer, LARGE_BODY).map_err(protocol_error)?;
            if let Some((head, length)) = large {
                self.arriving = Some(Arriving::new(py, head, length, &self.buffer)?);
                self.buffer.clear();
            }
        }
        let arrived = if let Some(full) = self.arriving.take_if(|arriving| arriving.is_full()) {
            full.finish(py)
        } else {
            match self.decoder.decode(&mut self.buffer).map_err(protocol_error)? {
                #[cfg(target_os = "linux")]
                Some(frame) if frame.kind == Kind::SharedJob => self.fetch(py, frame.head)?,
                Some(frame) => frame.into(),
                None => return Ok(None),
            }
        };
        if matches!(arrived.frame.kind, Kind::Job | Kind::Log) {
            self.decoded += 1;
        }
        Ok(Some(arrived))
    }

    /// Completes a job whose body is in shared memory.
    #[cfg(target_os = "linux")]
    #[allow(unsafe_code)]
    fn fetch(&mut self, py: Python<'_>, mut head: Bytes) -> PyResult<Arrived> {
        let place = Place::split_from(&mut head).map_err(protocol_error)?;
        if self.connection.claims.as_ref().is_some_and(|claims| claims.is_revoked(self.decoded)) {
            // It will be skipped, so it needs no body; what is there belongs to others.
            return Ok(Frame { kind: Kind::Job, head, body: Bytes::new() }.into());
        }
        let Some(shared) = &mut self.connection.shared else {
            return Err(protocol_error(FrameError::Malformed("job for this worker")));
        };
        let length = usize::try_from(place.length)?;
        let mut arriving = Arriving::new(py, head, length, &[])?;
        py.detach(|| shared.read(place, arriving.room()))?;
        // SAFETY: all of the room has just been written.
        unsafe { arriving.advance(length) };
        Ok(arriving.finish(py))
    }

    /// Reads what is there, waiting for something if there is nothing. While it waits, other threads run, and so do the
    /// greenlets and asyncio tasks of a script that uses such.
    fn wait_and_read(&mut self, py: Python<'_>) -> PyResult<io::Result<usize>> {
        if self.arriving.is_none() && self.cooperative.may_be_used(py)? {
            match py.detach(|| self.read(false)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return Ok(read),
            }
            match self.cooperative.wait(py, self.connection.stream.as_raw_fd()) {
                Ok(true) => return Ok(py.detach(|| self.read(false))),
                Ok(false) => {}
                // The native wait that follows keeps a scheduler that always fails from making this a busy loop.
                Err(error) => self.life.take_note_of(py, error),
            }
        }
        Ok(py.detach(|| self.read(true)))
    }

    /// Reads what is there, waiting natively if there is nothing and `wait` says so. Zero bytes mean the end of the stream.
    #[allow(unsafe_code)]
    fn read(&mut self, wait: bool) -> io::Result<usize> {
        let flags = if wait { 0 } else { nix::libc::MSG_DONTWAIT };
        if let Some(arriving) = &mut self.arriving {
            // All of it, unless a second passes or a signal comes.
            let read = SockRef::from(&self.connection.stream)
                .recv_with_flags(arriving.room(), flags | nix::libc::MSG_WAITALL)?;
            // SAFETY: so many bytes of the room have just been written.
            unsafe { arriving.advance(read) };
            return Ok(read);
        }
        self.buffer.reserve(READ_SIZE);
        let stream = &self.connection.stream;
        match unix_socket::receive(stream, &mut self.buffer) {
            Err(error) if wait && error.kind() == io::ErrorKind::WouldBlock => {}
            read => return read,
        }
        unix_socket::wait_readable(stream, READ_TIMEOUT.into())?;
        unix_socket::receive(stream, &mut self.buffer)
    }

    fn reconnect(&mut self, py: Python<'_>) -> PyResult<bool> {
        if self.is_last {
            return Ok(false);
        }
        self.buffer.clear();
        self.early.clear();
        self.arriving = None;
        let Some(connection) = open(py, &self.path, &mut self.hello, &self.life)? else { return Ok(false) };
        (self.connection, self.received, self.decoded) = (connection, 0, 0);
        Ok(true)
    }
}

/// Connects to whichever front listens, and says hello with a counter of its own. `None` once there is no reason to go on,
/// or patience has run out.
fn open(py: Python<'_>, path: &Path, hello: &mut Hello, life: &Life) -> PyResult<Option<Connection>> {
    let mut deadline = Instant::now() + RECONNECT_PATIENCE;
    loop {
        match py.detach(|| UnixStream::connect(path)) {
            Ok(stream) => {
                if let Some(welcome) = await_welcome(py, &stream, life)? {
                    // Only Linux shares bodies. Elsewhere the welcome just says that the front has accepted this worker.
                    #[cfg(not(target_os = "linux"))]
                    let _ = welcome;
                    let connection = Connection {
                        stream,
                        claims: new_claims(path, hello),
                        #[cfg(target_os = "linux")]
                        shared: welcome.file.and_then(|file| SharedFile::new(file).ok()),
                    };
                    #[cfg(target_os = "linux")]
                    {
                        hello.shares_bodies = connection.shared.is_some();
                    }
                    let greeting = encoded(hello)?;
                    if (&connection.stream).write_all(&greeting).is_ok() {
                        return Ok(Some(connection));
                    }
                }
                deadline = Instant::now() + RECONNECT_PATIENCE;
            }
            Err(_) if Instant::now() >= deadline => return Ok(None),
            Err(_) => {}
        }
        if !life.goes_on(py)? {
            return Ok(None);
        }
        py.detach(|| std::thread::sleep(RECONNECT_PAUSE));
    }
}

/// What a front says to a worker that it takes in.
struct Welcome {
    #[cfg_attr(not(target_os = "linux"), allow(dead_code))]
    file: Option<OwnedFd>,
}

/// Waits until the front of this connection takes the worker in, however busy that is. `None` if it has gone, or there is
/// no reason to wait.
fn await_welcome(py: Python<'_>, stream: &UnixStream, life: &Life) -> PyResult<Option<Welcome>> {
    if stream.set_read_timeout(Some(Duration::from_millis(READ_TIMEOUT.into()))).is_err() {
        return Ok(None);
    }
    loop {
        match py.detach(|| unix_socket::receive_welcome(stream)) {
            Ok(file) => return Ok(Some(Welcome { file })),
            Err(error) if is_pause(&error) && life.goes_on(py)? => {}
            Err(_) => return Ok(None),
        }
    }
}

/// A counter in a file beside the socket, named in the hello. Without one (a full disk) the front sends one job at a time.
fn new_claims(path: &Path, hello: &mut Hello) -> Option<Claims> {
    if !hello.claims.is_empty() {
        // The front takes the file away when it has opened it; one that never came to that leaves it here.
        let _ = std::fs::remove_file(path.with_file_name(&hello.claims));
    }
    hello.claims = format!("claims-{}", uuid::Uuid::new_v4());
    let claims = Claims::create(&path.with_file_name(&hello.claims)).ok();
    if claims.is_none() {
        hello.claims.clear();
    }
    claims
}

fn is_pause(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

fn protocol_error(error: frame::FrameError) -> PyErr {
    pyo3::exceptions::PyRuntimeError::new_err(format!("the front sent what is no frame: {error}"))
}
