//! How a worker runs the jobs that it has claimed.
//!
//! The worker's loop (`worker/mod.rs`) receives frames, claims jobs and hands them to its executor,
//! which calls the script and sends the replies. `serial.rs` runs one job at a time,
//! `batching.rs` (with `batches.rs`) several jobs with one call, `asynchronous.rs` the jobs of an async script together.
//! Used on the worker's thread.

#[cfg(unix)]
mod asynchronous;
mod batches;
mod batching;
#[cfg(unix)]
mod cooperative;
mod serial;

use pyo3::prelude::*;

#[cfg(unix)]
pub(super) use self::{asynchronous::Asynchronous, cooperative::Cooperative};
pub(super) use self::{batches::Batches, batching::Batching, serial::Serial};
use super::{
    claimed_job::ClaimedJob,
    transport::{Arrived, Front, Received},
};
use crate::ipc::frame::Kind;

/// What the front says about a job that a worker has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notice {
    /// Its client has left.
    Cancel,
    /// The client of its stream does not read.
    Hold,
    /// The client of its stream has read.
    Resume,
}

impl Notice {
    /// What a frame of this kind says about a job; `None` if it says nothing about one.
    pub(super) fn of(kind: Kind) -> Option<Self> {
        match kind {
            Kind::Cancel => Some(Self::Cancel),
            Kind::Hold => Some(Self::Hold),
            Kind::Resume => Some(Self::Resume),
            _ => None,
        }
    }
}

/// Runs the jobs of one worker.
pub(super) trait Executor<'py> {
    /// Waits for the front's next frame. Meanwhile other code of the script runs, jobs that have not
    /// ended included.
    fn receive(&mut self, py: Python<'py>, front: &mut dyn Front) -> PyResult<Received>;

    /// Claims a job that has arrived, and executes it. A job that the front has revoked is skipped.
    fn accept(&mut self, py: Python<'py>, front: &mut dyn Front, arrived: Arrived) -> PyResult<()> {
        match ClaimedJob::claim(py, front, arrived)? {
            Some(claimed) => self.execute(py, front, claimed),
            None => Ok(()),
        }
    }

    /// Takes a claimed job. Returns when the worker can take another one. An error is a fault of
    /// the protocol with the front, never of the script.
    fn execute(&mut self, py: Python<'py>, front: &mut dyn Front, claimed: ClaimedJob) -> PyResult<()>;

    /// The front has said something about a job that may run. A serial executor has no such
    /// job: the notice came too late, because the job has been answered.
    fn note(&mut self, _py: Python<'py>, _id: u64, _notice: Notice) -> PyResult<()> {
        Ok(())
    }

    /// Waits until all jobs that it has taken are answered. The worker takes no others.
    fn finish(&mut self, _py: Python<'py>, _front: &mut dyn Front) -> PyResult<()> {
        Ok(())
    }
}
