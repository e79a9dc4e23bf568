//! A worker thread's connection to the front of its own process (`ipc/thread_channel.rs`).
//!
//! Runs on the worker's thread. That is never the main thread, so nothing here handles signals.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use bytes::Bytes;
use pyo3::prelude::*;

use super::{encoded, gil_offers::GilOffers, Front, Received};
use crate::ipc::{
    frame::{self, Frame, Hello, Kind},
    thread_channel::{Taken, ThreadChannel, WorkerEnd},
};

/// Connection to the front.
pub(in crate::worker) struct ThreadFront {
    end: WorkerEnd,
    hello: Mutex<Hello>,
    /// How many jobs have been received.
    received: u64,
    gil_offers: GilOffers,
}

impl ThreadFront {
    /// Connects and says hello; `None` if there is no front.
    pub(in crate::worker) fn connect(py: Python<'_>, channel: &ThreadChannel, hello: Hello) -> PyResult<Option<Self>> {
        let Some(end) = channel.connect() else { return Ok(None) };
        let greeting = encoded(&hello)?;
        let front = Self { end, hello: Mutex::new(hello), received: 0, gil_offers: GilOffers::default() };
        front.send(py, greeting, Bytes::new());
        Ok(Some(front))
    }
}

impl Front for ThreadFront {
    fn receive(&mut self, py: Python<'_>) -> PyResult<Received> {
        self.gil_offers.offer_if_due(py);
        match self.end.take() {
            Taken::Frame(frame) => {
                self.gil_offers.note_job();
                Ok(Received::Frame(frame.into()))
            }
            Taken::Closed => Ok(Received::FrontGone),
            Taken::Nothing => {
                self.gil_offers.note_wait();
                py.detach(|| self.end.wait());
                Ok(Received::Nothing)
            }
        }
    }

    fn take(&mut self, _py: Python<'_>) -> PyResult<Received> {
        Ok(match self.end.take() {
            Taken::Frame(frame) => Received::Frame(frame.into()),
            Taken::Closed => Received::FrontGone,
            Taken::Nothing => Received::Nothing,
        })
    }

    #[cfg(unix)]
    fn take_after_wait(&mut self, py: Python<'_>) -> PyResult<Received> {
        self.take(py)
    }

    /// A queue has none.
    #[cfg(unix)]
    fn descriptor(&self) -> Option<std::os::fd::RawFd> {
        None
    }

    fn wait_for_frames(&self, py: Python<'_>, at_most: Duration) -> PyResult<()> {
        py.detach(|| self.end.wait_until(Instant::now() + at_most));
        Ok(())
    }

    /// A queue carries whole frames.
    fn has_begun_frame(&self) -> bool {
        false
    }

    fn connections(&self) -> u64 {
        1
    }

    /// If the connection is closed, the supervisor has left this thread behind, and no client waits
    /// for its stream.
    fn was_cancelled(&mut self, _py: Python<'_>, id: u64) -> PyResult<bool> {
        let cancels = |frame: &Frame| frame.kind == Kind::Cancel && frame::decode_id(frame) == Ok(id);
        Ok(self.end.is_closed_or_has(cancels))
    }

    fn send(&self, py: Python<'_>, head: Bytes, body: Bytes) {
        match Frame::from_parts(head, body) {
            Ok(frame) => {
                if let Some(frame) = self.end.try_send(frame) {
                    py.detach(|| self.end.send(frame));
                }
            }
            Err(error) => log::error!(target: "azmlinfsrv.front", "Cannot send to the front: {error}"),
        }
    }

    fn hello(&self) -> &Mutex<Hello> {
        &self.hello
    }

    fn claim_next(&mut self) -> bool {
        let number = self.received;
        self.received += 1;
        self.end.claims.claim(number)
    }
}
