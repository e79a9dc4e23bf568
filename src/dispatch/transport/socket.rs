//! The front's connection to a worker process: reads the worker's frames and writes jobs.
//!
//! Runs in the front's event loop. The code that assigns jobs also writes them, with one vectored
//! write for all jobs that follow from one batch of replies. The writer task sends only what the
//! socket had no room for. `mod.rs` has the interface for both worker classes.

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
use crate::ipc::body_arena::Arena;
use crate::{
    dispatch::LOG,
    ipc::{
        body::Store,
        claims::Claims,
        frame::{self, Decoder, Frame, Hello, Kind},
        unix_socket,
    },
    shortage,
};

/// Parts of frames that one system call writes.
const MAX_PARTS: usize = 64;
/// Size of the socket's send buffer. A large one means fewer wake-ups on both sides while a large
/// body is sent.
const SEND_BUFFER: usize = 1 << 20;
/// How much the read buffer grows at once. A frame of this size or more does not share the read
/// buffer's memory (`detach`).
const READ_SIZE: usize = 64 * 1024;

/// The sending side of a worker's socket.
pub(in crate::dispatch) struct SocketSender {
    stream: Rc<UnixStream>,
    outbox: RefCell<VecDeque<Bytes>>,
    /// The next reply has arrived already and may send the worker another job: keep the outbox, so
    /// that one system call sends both.
    corked: Cell<bool>,
    /// The socket has no room at the moment. The writer task continues when it has.
    full: Cell<bool>,
    filled_up: Notify,
    closed: Cell<bool>,
    close: Notify,
}

impl SocketSender {
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

    /// Keeps the parts of one frame until [`SocketSender::flush`].
    pub(super) fn enqueue(&self, head: Bytes, body: Bytes) {
        self.outbox.borrow_mut().extend([head, body].into_iter().filter(|part| !part.is_empty()));
    }

    /// Writes what was enqueued, unless the sender is corked. Never blocks. If writing fails, the
    /// reading side reports the worker as lost.
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

    /// Writes what [`SocketSender::flush`] could not, for as long as the worker is connected. Calls
    /// `progress` each time the worker has read some of it. Ends with an error when the worker is
    /// gone.
    pub(super) async fn write_backlog(&self, progress: impl Fn()) -> io::Result<()> {
        loop {
            self.filled_up.notified().await;
            if !self.full.get() {
                continue;
            }
            // Watch the socket only now: it gets room whenever the worker reads, which would wake
            // the front for nothing.
            let socket = unix_socket::watch(self.stream.clone(), Interest::WRITABLE)
                .inspect_err(|error| log::error!(target: LOG, "Cannot wait for a worker to read: {error}"))?;
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
                // The connection is broken. The reading task notices too, and reports the loss
                // after it has read all frames.
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
pub(in crate::dispatch) struct SocketReceiver {
    pub(super) sender: Rc<SocketSender>,
    stream: AsyncFd<Rc<UnixStream>>,
    /// The counter that the worker has been sent.
    claims: Option<Claims>,
    decoder: Decoder,
    buffer: BytesMut,
}

impl SocketReceiver {
    /// Takes in a worker that has connected: sends it the claim counter and the file of shared
    /// bodies.
    #[cfg_attr(not(target_os = "linux"), allow(unused_variables))]
    pub(super) fn new(stream: UnixStream, bodies: &Store) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        // Ignore a failure: the system's own buffer size works too.
        let _ = SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER);
        // The event loop registers a descriptor once, and the reading and the writing side wait for
        // different events, so each has its own descriptor.
        let sender = Rc::new(SocketSender::new(stream.try_clone()?));
        let (claims, counter) = Claims::share()
            .inspect_err(|error| {
                let remedy = shortage::remedy(error);
                log::warn!(target: LOG, "A worker gets one job at a time, because there is no memory file for its job counter: {error}. {remedy}");
            })
            .map_or((None, None), |(claims, counter)| (Some(claims), Some(counter)));
        #[cfg(target_os = "linux")]
        let bodies = bodies.arena().map(Arena::file);
        #[cfg(not(target_os = "linux"))]
        let bodies = None;
        // Ignore a failure: if the worker is gone already, the next read notices.
        let _ = unix_socket::send_descriptor(&stream, counter.as_ref().map(AsFd::as_fd))
            .and_then(|()| unix_socket::send_descriptor(&stream, bodies));
        Ok(Self {
            sender,
            stream: unix_socket::watch(Rc::new(stream), Interest::READABLE)?,
            claims,
            decoder: Decoder { max_body_len: frame::MAX_BODY_LEN, trusted: false },
            buffer: BytesMut::with_capacity(READ_SIZE),
        })
    }

    /// The counter, if the worker shares it.
    pub(super) fn take_claims(&mut self, hello: &Hello) -> Option<Claims> {
        let claims = self.claims.take();
        if claims.is_some() && !hello.shares_claims {
            log::warn!(
                target: LOG,
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
                // Each reply may lead to the worker's next job, so the sender may keep jobs until the
                // next reply is handled. Other frames must not delay jobs, because somebody may
                // wait for them.
                self.sender.corked.set(frame.kind == Kind::Reply && self.buffer.len() > frame::PREFIX_LEN);
                return Ok(Some(self.detach(frame)));
            }
            self.sender.corked.set(false);
            self.sender.write_now();
            if self.buffer.capacity() - self.buffer.len() < READ_SIZE / 4 {
                self.buffer.reserve(READ_SIZE);
            }
            let read = if self.sender.closed.get() {
                unix_socket::receive(self.stream.get_ref(), &mut self.buffer)
            } else {
                tokio::select! {
                    biased;
                    read = receive(&self.stream, &mut self.buffer) => read,
                    () = self.sender.close.notified() => continue,
                }
            };
            match read {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                // The connection is closed, and everything has been read.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                // A worker that died with jobs unread resets the connection instead of closing it.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error.to_string()),
            }
        }
    }
}

impl SocketReceiver {
    /// Copies what would keep a large frame's memory in use for too long.
    ///
    /// Head, body and the rest of the read buffer are parts of one allocation. The read buffer
    /// would own all of it for as long as the worker is connected, and a header field for as long
    /// as its response is in use.
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

/// Waits for bytes and appends them. Zero bytes mean the end.
async fn receive(stream: &AsyncFd<Rc<UnixStream>>, buffer: &mut BytesMut) -> io::Result<usize> {
    loop {
        let mut ready = stream.readable().await?;
        let room = buffer.capacity() - buffer.len();
        let read = unix_socket::receive(stream.get_ref(), buffer);
        match &read {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
            // The socket is empty now. Clearing the readiness saves the next read a system call,
            // which would delay the reply to a client.
            Ok(read @ 1..) if *read < room => {
                ready.clear_ready();
                return Ok(*read);
            }
            _ => return read,
        }
    }
}
