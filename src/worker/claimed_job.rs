//! A job that this worker has claimed: its request, decoded from the front's frame.

use std::time::Instant;

use bytes::Bytes;
use pyo3::{exceptions::PyRuntimeError, prelude::*, types::PyBytes};

use super::transport::Arrived;
use crate::ipc::frame::Job;

/// A claimed job.
pub(super) struct ClaimedJob {
    /// The request without its body.
    pub(super) job: Job,
    pub(super) body: Bytes,
    /// The body as a Python object, if it was received into one.
    pub(super) object: Option<Py<PyBytes>>,
    /// When the worker had received the job.
    pub(super) received: Instant,
}

impl ClaimedJob {
    /// Decodes the frame of a job. An error is a fault of the protocol with the front.
    pub(super) fn decode(arrived: Arrived) -> PyResult<Self> {
        let received = Instant::now();
        let Arrived { frame, object } = arrived;
        let job = Job::decode(&frame).map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
        Ok(Self { job, body: frame.body, object, received })
    }
}
