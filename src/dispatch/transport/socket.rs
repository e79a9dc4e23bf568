//! A worker in a process of its own, as the front is connected to it: reading its frames, writing jobs to it.
//!
//! Runs in the front's event loop. Jobs are written by whoever assigns them, with one vectored write for all that belong to
//! one batch of replies; only what the socket does not take waits for the writer task. `mod.rs` is the same for every kind of worker.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io::{self, IoSlice},
    os::{fd::AsFd, unix::net::UnixStream},
    rc::Rc,
};

use bytes::{Buf, Bytes, BytesMut};
use nix::errno::Errno;
use socket2::SockRef;
use tokio::{
    io::{unix::AsyncFd, Interest},
    sync::Notify,
};

#[cfg(target_os = "linux")]
use crate::shared_bodies::Arena;
use crate::{
    body::Store,
    claims::Claims,
    frame::{self, Decoder, Frame, Hello, Kind},
    shortage, unix_socket,
};

/// Parts of frames that one system call writes.
const MAX_PARTS: usize = 64;
/// What the kernel keeps for a worker that is not reading: fewer wake-ups on both sides while a large body crosses.
const SEND_BUFFER: usize = 1 << 20;
/// Read buffer growth. A frame from this size on leaves a new buffer behind.
const READ_SIZE: usize = 64 * 1024;

/// The sending side of a worker's socket.
pub(in crate::dispatch) struct SocketLink {
    stream: Rc<UnixStream>,
    outbox: RefCell<VecDeque<Bytes>>,
    /// More is likely to be sent at once: what is in the outbox goes out with it, in one system call.
    corked: Cell<bool>,
    /// The socket takes nothing at the moment; the writer task goes on when it does.
    full: Cell<bool>,
    filled_up: Notify,
    closed: Cell<bool>,
    close: Notify,
}

impl SocketLink {
    fn new(stream: UnixStream) -> Self {
        Self {
            stream: Rc::new(stream),
            outbox: RefCell::default(),
            corked: Cell::new(false),
            full: Cell::new(false),
            filled_up: Notify::new(),
            closed: Cell::new(false),
            close: Notify::new(),
        }
    }

    /// Keeps the parts of one frame until [`SocketLink::flush`].
    pub(super) fn enqueue(&self, head: Bytes, body: Bytes) {
        self.outbox.borrow_mut().extend([head, body].into_iter().filter(|part| !part.is_empty()));
    }

    /// Writes what was enqueued, unless more is likely to follow at once. Never blocks; errors show at the reading side, as
    /// the loss of the worker.
    pub(super) fn flush(&self) {
        if !self.corked.get() {
            self.write_now();
        }
    }

    /// Ends the reading task: the process behind the socket is known to be gone.
    pub(super) fn close(&self) {
        self.closed.set(true);
        self.close.notify_one();
    }

    /// Writes what [`SocketLink::flush`] could not, for as long as the worker is connected; `progress` is called each time the
    /// worker has read some of it. Ends with an error when the worker is gone.
    pub(super) async fn write_backlog(&self, progress: impl Fn()) -> io::Result<()> {
        loop {
            self.filled_up.notified().await;
            if !self.full.get() {
                continue;
            }
            // Watched only now: whenever a worker reads, the socket has room, and that would wake the front for nothing.
            let socket = unix_socket::watch(self.stream.clone(), Interest::WRITABLE).inspect_err(
                |error| log::error!(target: "azmlinfsrv.front", "Cannot wait for a worker to read: {error}"),
            )?;
            while self.full.get() {
                socket.writable().await?.clear_ready();
                progress();
                self.full.set(false);
                self.write_now();
            }
        }
    }

    /// Writes as much of the outbox as the socket takes.
    fn write_now(&self) {
        let mut outbox = self.outbox.borrow_mut();
        while !self.full.get() && !outbox.is_empty() {
            let mut slices = [IoSlice::new(&[]); MAX_PARTS];
            for (slice, part) in slices.iter_mut().zip(outbox.iter()) {
                *slice = IoSlice::new(part);
            }
            match unix_socket::send(&self.stream, &slices[..outbox.len().min(MAX_PARTS)], false) {
                Ok(written) => advance(&mut outbox, written),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    self.full.set(true);
                    self.filled_up.notify_one();
                }
                // Broken. The reading task notices as well, and it is the one that handles the loss, after what can be read.
                Err(_) => outbox.clear(),
            }
        }
    }
}

fn advance(outbox: &mut VecDeque<Bytes>, mut written: usize) {
    while let Some(front) = outbox.front_mut() {
        if written < front.len() {
            front.advance(written);
            return;
        }
        written -= front.len();
        outbox.pop_front();
    }
}

/// The reading side of a worker's socket.
pub(in crate::dispatch) struct SocketFrames {
    pub(super) link: Rc<SocketLink>,
    stream: AsyncFd<Rc<UnixStream>>,
    /// The counter that the worker has been sent.
    claims: Option<Claims>,
    decoder: Decoder,
    buffer: BytesMut,
}

impl SocketFrames {
    /// Welcomes a worker that has connected: sends it the counter of started jobs and the file of shared bodies.
    #[cfg_attr(not(target_os = "linux"), allow(unused_variables))]
    pub(super) fn new(stream: UnixStream, max_body_len: u64, bodies: &Store) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        // A system that refuses the size goes on with its own.
        let _ = SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER);
        // The event loop tells descriptors apart, and each side is watched for what it waits for.
        let link = Rc::new(SocketLink::new(stream.try_clone()?));
        let (claims, counter) = Claims::share()
            .inspect_err(|error| {
                let remedy = shortage::remedy(error);
                log::warn!(target: "azmlinfsrv.front", "A worker gets one job at a time, because there is no memory file for its job counter: {error}. {remedy}");
            })
            .map_or((None, None), |(claims, counter)| (Some(claims), Some(counter)));
        #[cfg(target_os = "linux")]
        let bodies = bodies.arena().map(Arena::file);
        #[cfg(not(target_os = "linux"))]
        let bodies = None;
        // A worker that is gone already is noticed when it is read from.
        let _ = unix_socket::send_descriptor(&stream, counter.as_ref().map(AsFd::as_fd))
            .and_then(|()| unix_socket::send_descriptor(&stream, bodies));
        Ok(Self {
            link,
            stream: unix_socket::watch(Rc::new(stream), Interest::READABLE)?,
            claims,
            decoder: Decoder { max_body_len, trusted: false },
            buffer: BytesMut::with_capacity(READ_SIZE),
        })
    }

    /// The counter, if the worker shares it.
    pub(super) fn take_claims(&mut self, hello: &Hello) -> Option<Claims> {
        let claims = self.claims.take();
        if claims.is_some() && !hello.shares_claims {
            log::warn!(
                target: "azmlinfsrv.front",
                "Worker {} gets one job at a time, because it could not open its job counter. {}",
                hello.worker,
                shortage::OPEN_FILES_OR_MEMORY
            );
        }
        claims.filter(|_| hello.shares_claims)
    }

    /// The next frame; `None` when the worker is gone and everything it sent has been read.
    pub(super) async fn next(&mut self) -> Result<Option<Frame>, String> {
        loop {
            if let Some(frame) = self.decoder.decode(&mut self.buffer).map_err(|error| error.to_string())? {
                // Each reply may send the worker its next job. Other frames may be waited for.
                self.link.corked.set(frame.kind == Kind::Reply && self.buffer.len() > frame::PREFIX_LEN);
                return Ok(Some(self.detach(frame)));
            }
            self.link.corked.set(false);
            self.link.write_now();
            if self.buffer.capacity() - self.buffer.len() < READ_SIZE / 4 {
                self.buffer.reserve(READ_SIZE);
            }
            let read = if self.link.closed.get() {
                unix_socket::receive(self.stream.get_ref(), &mut self.buffer)
            } else {
                tokio::select! {
                    biased;
                    read = receive(&self.stream, &mut self.buffer) => read,
                    () = self.link.close.notified() => continue,
                }
            };
            match read {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                // Closed, and all is read.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                // A worker that died with jobs unread resets the connection instead of closing it.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error.to_string()),
            }
        }
    }
}

impl SocketFrames {
    /// Ends the sharing of memory between a large frame and what stays.
    ///
    /// Head, body and the rest of the read buffer are parts of one allocation. The read buffer would own all of it for as
    /// long as the worker is connected, and a header field for as long as its response is in use.
    fn detach(&mut self, mut frame: Frame) -> Frame {
        if frame.head.len() + frame.body.len() >= READ_SIZE {
            let mut fresh = BytesMut::with_capacity(READ_SIZE);
            fresh.extend_from_slice(&self.buffer);
            self.buffer = fresh;
            frame.head = Bytes::copy_from_slice(&frame.head);
        }
        frame
    }
}

/// Waits for bytes and appends them. Zero mean the end.
async fn receive(stream: &AsyncFd<Rc<UnixStream>>, buffer: &mut BytesMut) -> io::Result<usize> {
    loop {
        let mut ready = stream.readable().await?;
        let room = buffer.capacity() - buffer.len();
        let read = unix_socket::receive(stream.get_ref(), buffer);
        match &read {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
            // That was all there was: the next read waits without asking the kernel, while a client waits for the reply.
            Ok(read @ 1..) if *read < room => {
                ready.clear_ready();
                return Ok(*read);
            }
            _ => return read,
        }
    }
}
