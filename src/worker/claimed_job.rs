//! A job that this worker has claimed: its request, decoded from the front's frame.

use std::{cell::OnceCell, time::Instant};

use bytes::Bytes;
use pyo3::{exceptions::PyRuntimeError, prelude::*, types::PyBytes};

use super::transport::{Arrived, Front};
use crate::{
    fault_injection::{point, Point},
    ipc::frame::{self, Job, Kind},
};

/// A claimed job.
pub(super) struct ClaimedJob {
    /// The request without its body.
    pub(super) job: Job,
    pub(super) body: Bytes,
    /// The Python object that the body was received into, if it was. For a request of the Open Inference Protocol a few bytes
    /// precede the body in it.
    pub(super) object: Option<Py<PyBytes>>,
    /// What the reply must have (`open_inference.Asked`), once a request of the Open Inference Protocol has been decoded.
    pub(super) asked: OnceCell<Py<PyAny>>,
    /// When the worker had received the job.
    pub(super) received: Instant,
}

impl ClaimedJob {
    /// Claims a job that has arrived; `None` if the front has revoked it. An error is a fault of the
    /// protocol with the front.
    pub(super) fn claim(py: Python<'_>, front: &mut dyn Front, arrived: Arrived) -> PyResult<Option<Self>> {
        if !front.claim_next() {
            front.send(py, frame::encode_bare(Kind::Skipped), Bytes::new());
            return Ok(None);
        }
        let claimed = Self::decode(arrived)?;
        point(Point::Worker);
        Ok(Some(claimed))
    }

    /// Decodes the frame of a job. An error is a fault of the protocol with the front.
    fn decode(arrived: Arrived) -> PyResult<Self> {
        let received = Instant::now();
        let Arrived { frame, object } = arrived;
        let job = Job::decode(&frame).map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
        Ok(Self { job, body: frame.body, object, asked: OnceCell::new(), received })
    }
}
