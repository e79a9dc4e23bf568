//! The front's connection to a worker thread of this process (`ipc/thread_channel.rs`): no encoding
//! of frames into bytes and no system calls.
//!
//! Runs in the front's event loop. `mod.rs` has the interface for both worker classes.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use bytes::Bytes;
use tokio::sync::{
    mpsc::{self, error::TryRecvError},
    Notify,
};

use crate::{
    dispatch::LOG,
    ipc::{
        claims::Claims,
        frame::Frame,
        thread_channel::{FrontEnd, FrontSender},
    },
};

/// The sending side.
pub(in crate::dispatch) struct ThreadSender {
    sender: FrontSender,
    outbox: RefCell<Vec<Frame>>,
    closed: Cell<bool>,
    close: Notify,
}

impl ThreadSender {
    /// Keeps a frame until [`ThreadSender::flush`].
    pub(super) fn enqueue(&self, head: Bytes, body: Bytes) {
        match Frame::from_parts(head, body) {
            Ok(frame) => self.outbox.borrow_mut().push(frame),
            Err(error) => log::error!(target: LOG, "Cannot send to a worker: {error}"),
        }
    }

    /// Sends what was enqueued, all at once: a worker that makes batches would begin with the first
    /// frame.
    pub(super) fn flush(&self) {
        self.sender.send_all(self.outbox.borrow_mut().drain(..));
    }

    /// Closes the channel too, because an abandoned thread may still be alive, unlike a process. It
    /// never gets the jobs that it has not received yet.
    pub(super) fn close(&self) {
        self.sender.close();
        self.closed.set(true);
        self.close.notify_one();
    }
}

/// The reading side.
pub(in crate::dispatch) struct ThreadReceiver {
    pub(super) sender: Rc<ThreadSender>,
    /// `None` once the session has taken them.
    pub(super) claims: Option<Claims>,
    replies: mpsc::Receiver<Frame>,
}

impl ThreadReceiver {
    pub(super) fn new(end: FrontEnd) -> Self {
        let sender = ThreadSender {
            sender: end.sender,
            outbox: RefCell::default(),
            closed: Cell::new(false),
            close: Notify::new(),
        };
        Self { sender: Rc::new(sender), claims: Some(end.claims), replies: end.replies }
    }

    /// The next frame; `None` when the worker is gone and everything it sent has been read.
    pub(super) async fn next(&mut self) -> Option<Frame> {
        loop {
            match self.replies.try_recv() {
                Ok(frame) => return Some(frame),
                Err(TryRecvError::Disconnected) => return None,
                Err(TryRecvError::Empty) if self.sender.closed.get() => return None,
                Err(TryRecvError::Empty) => {}
            }
            tokio::select! {
                frame = self.replies.recv() => return frame,
                () = self.sender.close.notified() => {}
            }
        }
    }
}
