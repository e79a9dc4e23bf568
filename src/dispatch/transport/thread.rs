//! A worker in a thread of this process, as the front is connected to it (`hub.rs`): no bytes, no system calls.
//!
//! Runs in the front's event loop. `mod.rs` is the same for every kind of worker.

use std::{cell::Cell, rc::Rc};

use bytes::Bytes;
use tokio::sync::{
    mpsc::{self, error::TryRecvError},
    Notify,
};

use crate::{
    claims::Claims,
    frame::Frame,
    hub::{FrontEnd, FrontSender},
};

/// The sending side.
pub(in crate::dispatch) struct LocalLink {
    sender: FrontSender,
    closed: Cell<bool>,
    close: Notify,
}

impl LocalLink {
    pub(super) fn send(&self, head: Bytes, body: Bytes) {
        match Frame::from_parts(head, body) {
            Ok(frame) => self.sender.send(frame),
            Err(error) => log::error!(target: "azmlinfsrv.front", "Cannot send to a worker: {error}"),
        }
    }

    /// Other than a process, an abandoned thread may still be alive: what it has not taken yet it never gets.
    pub(super) fn close(&self) {
        self.sender.close();
        self.closed.set(true);
        self.close.notify_one();
    }
}

/// The reading side.
pub(in crate::dispatch) struct LocalFrames {
    pub(super) link: Rc<LocalLink>,
    /// Until the pool takes them.
    pub(super) claims: Option<Claims>,
    replies: mpsc::Receiver<Frame>,
}

impl LocalFrames {
    pub(super) fn new(end: FrontEnd) -> Self {
        let link = LocalLink { sender: end.sender, closed: Cell::new(false), close: Notify::new() };
        Self { link: Rc::new(link), claims: Some(end.claims), replies: end.replies }
    }

    /// The next frame; `None` when the worker is gone and everything it sent has been read.
    pub(super) async fn next(&mut self) -> Option<Frame> {
        loop {
            match self.replies.try_recv() {
                Ok(frame) => return Some(frame),
                Err(TryRecvError::Disconnected) => return None,
                Err(TryRecvError::Empty) if self.link.closed.get() => return None,
                Err(TryRecvError::Empty) => {}
            }
            tokio::select! {
                frame = self.replies.recv() => return frame,
                () = self.link.close.notified() => {}
            }
        }
    }
}
