//! A thread's end of the pool: for the thread, it is the connection to the front.
//!
//! Runs on the pool's threads.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use pyo3::prelude::*;

use super::{
    super::transport::{Front, GilOffers, Received},
    state::{Claim, Next},
    Pool,
};
use crate::ipc::frame::Hello;

/// One thread's end.
pub(super) struct PoolEnd {
    pool: Arc<Pool>,
    /// The connection of the last job; 0 without one.
    connection: u64,
    /// The last job, if this thread has claimed it.
    claim: Option<Claim>,
    gil_offers: GilOffers,
}

impl PoolEnd {
    /// The end of a thread that has no job.
    pub(super) fn new(pool: Arc<Pool>) -> Self {
        Self { pool, connection: 0, claim: None, gil_offers: GilOffers::default() }
    }

    fn end_job(&mut self) {
        self.connection = 0;
        if let Some(claim) = self.claim.take() {
            self.pool.shared.end(claim);
        }
    }
}

/// A thread that fails must not keep its job for ever.
impl Drop for PoolEnd {
    fn drop(&mut self) {
        self.end_job();
    }
}

impl Front for PoolEnd {
    fn receive(&mut self, py: Python<'_>) -> PyResult<Received> {
        self.end_job();
        self.gil_offers.offer_if_due(py);
        match self.pool.shared.take() {
            Next::Job { arrived, connection, claim } => {
                self.gil_offers.note_job();
                (self.connection, self.claim) = (connection, claim);
                Ok(Received::Frame(arrived))
            }
            Next::Nothing => {
                self.gil_offers.note_wait();
                py.detach(|| self.pool.shared.wait());
                Ok(Received::Nothing)
            }
            Next::Closed => Ok(Received::FrontGone),
        }
    }

    fn take(&mut self, py: Python<'_>) -> PyResult<Received> {
        self.receive(py)
    }

    fn take_after_wait(&mut self, py: Python<'_>) -> PyResult<Received> {
        self.receive(py)
    }

    /// The main thread has it.
    fn descriptor(&self) -> Option<std::os::fd::RawFd> {
        None
    }

    /// Only batches wait for more jobs than one, and threads make none.
    fn wait_for_frames(&self, _py: Python<'_>, _at_most: Duration) -> PyResult<()> {
        Ok(())
    }

    /// The pool has whole frames.
    fn has_begun_frame(&self) -> bool {
        false
    }

    fn connections(&self) -> u64 {
        self.connection
    }

    /// Waits while the client of the stream does not read.
    fn was_cancelled(&mut self, py: Python<'_>, id: u64) -> PyResult<bool> {
        let connection = self.connections();
        if self.pool.shared.must_wait(connection, id) {
            py.detach(|| self.pool.shared.wait_for_client(connection, id));
        }
        Ok(self.pool.shared.has_left(connection, id))
    }

    fn send(&self, py: Python<'_>, head: Bytes, body: Bytes) {
        let connection = self.connections();
        py.detach(|| self.pool.outlet.send(connection, head, body));
    }

    /// The front keeps the hello that it gets last, so threads must not say an older one behind a
    /// newer one.
    fn say_hello(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.pool.outlet.say_hello(&self.pool.hello))
    }

    fn hello(&self) -> &Mutex<Hello> {
        &self.pool.hello
    }

    /// The job was claimed when it was taken from the pool.
    fn claim_next(&mut self) -> bool {
        self.claim.is_some()
    }
}
