//! A worker in a process of its own, as the front is connected to it: reading its frames, writing jobs to it.
//!
//! Runs in the front's event loop. A job is written by whoever assigns it, at once, with one vectored write; only what
//! the socket does not take waits in the outbox for the writer task. `link.rs` is the same for every kind of worker.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io::{self, IoSlice},
    path::PathBuf,
    rc::Rc,
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{net::UnixStream, sync::Notify};

use crate::{
    claims::Claims,
    frame::{Decoder, Frame},
};

/// Read buffer growth.
const READ_SIZE: usize = 64 * 1024;

/// The sending side of a worker's socket.
pub(super) struct SocketLink {
    stream: UnixStream,
    outbox: RefCell<VecDeque<Bytes>>,
    outbox_filled: Notify,
    closed: Cell<bool>,
    close: Notify,
}

impl SocketLink {
    fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            outbox: RefCell::default(),
            outbox_filled: Notify::new(),
            closed: Cell::new(false),
            close: Notify::new(),
        }
    }

    /// True if the kernel has taken everything sent so far.
    pub(super) fn is_flushed(&self) -> bool {
        self.outbox.borrow().is_empty()
    }

    /// Sends the parts of one frame in order. Never blocks; errors show at the reading side, as the loss of the worker.
    pub(super) fn send(&self, head: Bytes, body: Bytes) {
        let mut parts = [head, body];
        let mut outbox = self.outbox.borrow_mut();
        if outbox.is_empty() {
            write_now(&self.stream, &mut parts);
        }
        let left_over = parts.into_iter().filter(|part| !part.is_empty());
        let before = outbox.len();
        outbox.extend(left_over);
        if outbox.len() > before {
            self.outbox_filled.notify_one();
        }
    }

    /// Ends the reading task: the process behind the socket is known to be gone.
    pub(super) fn close(&self) {
        self.closed.set(true);
        self.close.notify_one();
    }

    /// Writes what [`SocketLink::send`] could not; runs beside the reading task for as long as the worker is connected.
    pub(super) async fn flush_outbox(&self) -> io::Result<()> {
        loop {
            self.outbox_filled.notified().await;
            while !self.is_flushed() {
                self.stream.writable().await?;
                let mut outbox = self.outbox.borrow_mut();
                let written = {
                    let slices: Vec<IoSlice<'_>> = outbox.iter().take(64).map(|part| IoSlice::new(part)).collect();
                    match self.stream.try_write_vectored(&slices) {
                        Ok(written) => written,
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                        Err(error) => return Err(error),
                    }
                };
                advance(&mut outbox, written);
            }
        }
    }
}

/// One attempt to write `parts`; advances them past what was written.
fn write_now(stream: &UnixStream, parts: &mut [Bytes; 2]) {
    while parts.iter().any(|part| !part.is_empty()) {
        let slices = [IoSlice::new(&parts[0]), IoSlice::new(&parts[1])];
        let written = match stream.try_write_vectored(&slices) {
            Ok(written) => written,
            // Full, or broken: then the reading task notices as well, and it is the one that handles the loss.
            Err(_) => return,
        };
        let from_head = written.min(parts[0].len());
        parts[0].advance(from_head);
        parts[1].advance(written - from_head);
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
pub(super) struct SocketFrames {
    pub(super) link: Rc<SocketLink>,
    /// Where the socket is, and the worker's counter.
    folder: Option<PathBuf>,
    decoder: Decoder,
    buffer: BytesMut,
}

impl SocketFrames {
    pub(super) fn new(stream: UnixStream, folder: Option<PathBuf>, max_body_len: u64) -> Self {
        Self {
            link: Rc::new(SocketLink::new(stream)),
            folder,
            decoder: Decoder { max_body_len },
            buffer: BytesMut::with_capacity(READ_SIZE),
        }
    }

    /// The counter in the file of this name.
    pub(super) fn open_claims(&self, name: &str) -> Option<Claims> {
        let folder = self.folder.as_ref().filter(|_| !name.is_empty() && !name.contains('/'))?;
        Claims::open(&folder.join(name))
            .inspect_err(
                |error| log::warn!(target: "azmlinfsrv.front", "Cannot share a counter with a worker: {error}"),
            )
            .ok()
    }

    /// The next frame; `None` when the worker is gone and everything it sent has been read.
    pub(super) async fn next(&mut self) -> Result<Option<Frame>, String> {
        loop {
            if let Some(frame) = self.decoder.decode(&mut self.buffer).map_err(|error| error.to_string())? {
                return Ok(Some(frame));
            }
            if self.buffer.capacity() - self.buffer.len() < READ_SIZE / 4 {
                self.buffer.reserve(READ_SIZE);
            }
            match self.link.stream.try_read_buf(&mut self.buffer) {
                Ok(0) => return Ok(None),
                Ok(_) => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // A worker that died with jobs unread resets the connection instead of closing it.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error.to_string()),
            }
            if self.link.closed.get() {
                return Ok(None);
            }
            tokio::select! {
                readable = self.link.stream.readable() => readable.map_err(|error| error.to_string())?,
                () = self.link.close.notified() => {}
            }
        }
    }
}
