//! A worker process's end of the socket to the front. It gives up the GIL while it waits to read or
//! to write.
//!
//! Runs on the process's main thread. If the front dies, the supervisor starts another one. The
//! worker connects to it (`entrance.rs`) and says hello again; the process, and with it the loaded
//! model, stays.

use std::{
    cell::Cell,
    collections::VecDeque,
    io,
    os::{
        fd::{AsRawFd as _, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use nix::errno::Errno;
use pyo3::prelude::*;
use socket2::SockRef;

use super::{
    entrance::{is_pause, Connection, Entrance, Life, READ_TIMEOUT},
    large_body::{self, LargeBody},
    lock,
    writing::{is_sent, send_at_once, send_parts},
    Arrived, Front, Received,
};
#[cfg(target_os = "linux")]
use crate::ipc::frame::{Frame, FrameError, Place};
use crate::ipc::{
    claims::Claims,
    frame::{self, Decoder, Hello, Kind},
    unix_socket,
};
use crate::worker::retirement::Retirement;

/// A body from this size on is received into Python's object.
const LARGE_BODY: usize = 256 * 1024;
/// The read buffer grows by this many bytes.
const READ_SIZE: usize = 64 * 1024;

/// Connection to the front.
pub(in crate::worker) struct SocketFront {
    /// `None` while the worker connects again. The lost connection is dropped first, because its
    /// descriptors may be the last ones that the process can have.
    connection: Option<Connection>,
    entrance: Entrance,
    /// How many times the worker has connected.
    connections: u64,
    hello: Arc<Mutex<Hello>>,
    /// How many jobs of this connection the worker has claimed or skipped.
    received: u64,
    /// How many jobs of this connection have been decoded.
    decoded: u64,
    decoder: Decoder,
    buffer: BytesMut,
    /// Frames read while a stream was being sent.
    early: VecDeque<Arrived>,
    /// The large job whose body is being received.
    large_body: Option<LargeBody>,
    /// Why a reply could not be sent.
    failed: Cell<Option<Errno>>,
    life: Life,
}

/// Whether reading may wait in a system call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// Until bytes arrive, a second has passed, or a signal has come.
    ForBytes,
    Never,
}

impl SocketFront {
    /// Connects and says hello; `None` if there is no front. Jobs may be `max_body` bytes long.
    pub(in crate::worker) fn connect(
        py: Python<'_>,
        (socket, spare): (OwnedFd, OwnedFd),
        hello: Arc<Mutex<Hello>>,
        max_body: usize,
        retirement: Retirement,
    ) -> PyResult<Option<Self>> {
        let life = Life::new(retirement);
        let mut entrance = Entrance::new(socket, spare);
        let Some(connection) = entrance.connect(py, &hello, &life)? else { return Ok(None) };
        Ok(Some(Self {
            connection: Some(connection),
            entrance,
            connections: 1,
            hello,
            received: 0,
            decoded: 0,
            decoder: Decoder { max_body_len: max_body as u64, trusted: true },
            buffer: BytesMut::with_capacity(READ_SIZE),
            early: VecDeque::new(),
            large_body: None,
            failed: Cell::new(None),
            life,
        }))
    }
}

impl Front for SocketFront {
    fn hello(&self) -> &Mutex<Hello> {
        &self.hello
    }

    fn claim_next(&mut self) -> bool {
        let number = self.received;
        self.received += 1;
        self.claims().is_none_or(|claims| claims.claim(number))
    }

    /// Python signal handlers run while it waits. An exception of a handler is only shown (see
    /// [`Retirement::take_note_of`]).
    fn receive(&mut self, py: Python<'_>) -> PyResult<Received> {
        match self.next_frame(py, Wait::ForBytes)? {
            Received::Nothing => Ok(self.pause(py)),
            received => Ok(received),
        }
    }

    fn take(&mut self, py: Python<'_>) -> PyResult<Received> {
        self.next_frame(py, Wait::Never)
    }

    fn take_after_wait(&mut self, py: Python<'_>) -> PyResult<Received> {
        match self.next_frame(py, Wait::Never)? {
            Received::Nothing => Ok(self.pause(py)),
            received => Ok(received),
        }
    }

    fn wait_for_frames(&self, py: Python<'_>, at_most: Duration) -> PyResult<()> {
        let Some(Connection { stream, .. }) = &self.connection else { return Ok(()) };
        // Rounded up, because a wait of zero would make the caller's loop a busy one.
        let milliseconds = u16::try_from(at_most.as_micros().div_ceil(1000)).unwrap_or(u16::MAX);
        match py.detach(|| unix_socket::wait_readable(stream, milliseconds.into())) {
            Err(error) if !is_pause(&error) => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn has_begun_frame(&self) -> bool {
        !self.buffer.is_empty() || self.large_body.is_some()
    }

    fn connections(&self) -> u64 {
        self.connections
    }

    fn descriptor(&self) -> Option<RawFd> {
        self.connection.as_ref().map(|connection| connection.stream.as_raw_fd())
    }

    fn was_cancelled(&mut self, py: Python<'_>, id: u64) -> PyResult<bool> {
        // A front that is gone has no client for the stream.
        let is_gone = loop {
            match py.detach(|| self.read(Wait::Never)) {
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

    /// If the front is gone the reply has no client left; the next read notices and connects again.
    ///
    /// Keeps the GIL for one write of a small reply, because to give it up and take it again costs as
    /// much. Other threads of the script would have to wait for all of a large one.
    fn send(&self, py: Python<'_>, head: Bytes, body: Bytes) {
        let Some(Connection { stream, .. }) = &self.connection else { return };
        let mut rest = [head, body];
        let sent = send_at_once(stream, &mut rest);
        let sent =
            sent.and_then(|()| if is_sent(&rest) { Ok(()) } else { py.detach(|| send_parts(stream, &mut rest)) });
        if let Err(error) = sent {
            self.failed.set(Some(error));
        }
    }
}

impl SocketFront {
    /// What the threads of a pool need to claim jobs and to send replies. The stream is closed when
    /// the connection has ended. `None` without a connection.
    pub(in crate::worker) fn handles(&self) -> Option<(Weak<UnixStream>, Option<Arc<Claims>>)> {
        let Connection { stream, claims, .. } = self.connection.as_ref()?;
        Some((Arc::downgrade(stream), claims.clone()))
    }

    /// Waits until bytes of the front or of `wake` have arrived, a second has passed, or a signal
    /// has come. Takes the bytes of `wake`.
    pub(in crate::worker) fn wait_unless_woken(&self, py: Python<'_>, wake: &UnixStream) {
        let Some(Connection { stream, .. }) = &self.connection else { return };
        py.detach(|| unix_socket::wait_readable_or_woken(stream, wake, READ_TIMEOUT.into()));
    }

    fn claims(&self) -> Option<&Claims> {
        self.connection.as_ref()?.claims.as_deref()
    }

    /// The next frame. While this waits, other threads run.
    fn next_frame(&mut self, py: Python<'_>, wait: Wait) -> PyResult<Received> {
        loop {
            // Jobs that have arrived on a lost connection must not run, because no client waits for
            // them.
            match self.failed.take() {
                None => {}
                Some(Errno::EPIPE | Errno::ECONNRESET) if self.reconnect(py)? => {}
                Some(Errno::EPIPE | Errno::ECONNRESET) => return Ok(Received::FrontGone),
                // The script has closed the socket. Its descriptor number may belong to another
                // file by now.
                Some(error) => return Err(io::Error::from(error).into()),
            }
            if let Some(arrived) = self.next_arrived(py)? {
                return Ok(Received::Frame(arrived));
            }
            match py.detach(|| self.read(wait)) {
                Ok(0) => {
                    if !self.reconnect(py)? {
                        return Ok(Received::FrontGone);
                    }
                }
                Ok(_) => {}
                Err(error) if is_pause(&error) => return Ok(Received::Nothing),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    if !self.reconnect(py)? {
                        return Ok(Received::FrontGone);
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Does what a worker does when it has waited and nothing has come.
    fn pause(&mut self, py: Python<'_>) -> Received {
        #[cfg(target_os = "linux")]
        if let Some(Connection { shared: Some(shared), .. }) = &mut self.connection {
            shared.rest();
        }
        self.life.check_signals(py);
        if self.life.is_orphaned() {
            Received::FrontGone
        } else {
            Received::Nothing
        }
    }

    fn next_arrived(&mut self, py: Python<'_>) -> PyResult<Option<Arrived>> {
        if let Some(arrived) = self.early.pop_front() {
            return Ok(Some(arrived));
        }
        self.next_decoded(py)
    }

    fn next_decoded(&mut self, py: Python<'_>) -> PyResult<Option<Arrived>> {
        if self.large_body.is_none() {
            let large = self.decoder.decode_large_job(&mut self.buffer, LARGE_BODY).map_err(protocol_error)?;
            if let Some((head, length)) = large {
                let padding = self.padding(&head);
                self.large_body = Some(LargeBody::new(py, head, padding, length, &self.buffer)?);
                self.buffer.clear();
            }
        }
        let arrived = if let Some(full) = self.large_body.take_if(|large_body| large_body.is_full()) {
            full.finish(py)
        } else {
            match self.decoder.decode(&mut self.buffer).map_err(protocol_error)? {
                #[cfg(target_os = "linux")]
                Some(frame) if frame.kind == Kind::SharedJob => self.fetch(py, frame.head)?,
                Some(frame) => frame.into(),
                None => return Ok(None),
            }
        };
        if arrived.frame.kind == Kind::Job {
            self.decoded += 1;
        }
        Ok(Some(arrived))
    }

    /// How many unused bytes must precede the body of this job. Only the Open Inference Protocol needs some, so the head is
    /// decoded only if the front serves it.
    fn padding(&self, head: &Bytes) -> usize {
        let serves_tensors = !lock(&self.hello).model.is_empty();
        if serves_tensors {
            large_body::padding(head)
        } else {
            0
        }
    }

    /// Completes a job whose body is in shared memory.
    #[cfg(target_os = "linux")]
    #[allow(unsafe_code)]
    fn fetch(&mut self, py: Python<'_>, mut head: Bytes) -> PyResult<Arrived> {
        let place = Place::split_from(&mut head).map_err(protocol_error)?;
        if self.claims().is_some_and(|claims| claims.is_revoked(self.decoded)) {
            // The worker will skip this revoked job, so it needs no body. The memory may hold
            // another job's body by now.
            return Ok(Frame { kind: Kind::Job, head, body: Bytes::new() }.into());
        }
        let padding = self.padding(&head);
        let Some(Connection { shared: Some(shared), .. }) = &mut self.connection else {
            return Err(protocol_error(FrameError::Malformed("job for this worker")));
        };
        let length = usize::try_from(place.length)?;
        let mut large_body = LargeBody::new(py, head, padding, length, &[])?;
        py.detach(|| shared.read(place, large_body.room()))?;
        // SAFETY: all of the room has just been written.
        unsafe { large_body.advance(length) };
        Ok(large_body.finish(py))
    }

    /// Reads the bytes that have arrived, or waits for some. Zero bytes mean the end of the stream.
    #[allow(unsafe_code)]
    fn read(&mut self, wait: Wait) -> io::Result<usize> {
        let Some(Connection { stream, .. }) = &self.connection else { return Ok(0) };
        let flags = if wait == Wait::ForBytes { 0 } else { nix::libc::MSG_DONTWAIT };
        if let Some(large_body) = &mut self.large_body {
            // Waits for all of the body, unless a second passes or a signal arrives.
            let read = SockRef::from(&**stream).recv_with_flags(large_body.room(), flags | nix::libc::MSG_WAITALL)?;
            // SAFETY: the call above has just written `read` bytes of the room.
            unsafe { large_body.advance(read) };
            return Ok(read);
        }
        // Jobs are parts of the buffer, and the last one may be in use, so that more room is a new
        // buffer. That takes longer than most jobs, so use up the old one first.
        if self.buffer.capacity() - self.buffer.len() < READ_SIZE / 4 {
            self.buffer.reserve(READ_SIZE);
        }
        match unix_socket::receive(stream, &mut self.buffer) {
            Err(error) if wait == Wait::ForBytes && error.kind() == io::ErrorKind::WouldBlock => {}
            read => return read,
        }
        unix_socket::wait_readable(stream, READ_TIMEOUT.into())?;
        unix_socket::receive(stream, &mut self.buffer)
    }

    fn reconnect(&mut self, py: Python<'_>) -> PyResult<bool> {
        self.buffer.clear();
        self.early.clear();
        self.large_body = None;
        self.connection = None;
        (self.received, self.decoded) = (0, 0);
        self.connection = self.entrance.connect(py, &self.hello, &self.life)?;
        self.connections += 1;
        Ok(self.connection.is_some())
    }
}

fn protocol_error(error: frame::FrameError) -> PyErr {
    pyo3::exceptions::PyRuntimeError::new_err(format!("the front sent what is no frame: {error}"))
}
