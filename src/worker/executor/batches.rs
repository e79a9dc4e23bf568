//! What a script says about its joint calls: the Rust side of `scripting/batching.py`.
//!
//! Used on the worker's thread.

use std::time::Duration;

use pyo3::{intern, prelude::*, types::PyDict};

use super::super::batch_size::BatchSize;
use crate::settings::Settings;

/// `batching.Joint`: jobs whose arguments have been joined.
pub(super) struct Joint<'py> {
    pub(super) object: Bound<'py, PyAny>,
    /// The places of the jobs in the batch.
    pub(super) places: Vec<usize>,
    pub(super) arguments: Bound<'py, PyDict>,
    /// The rows of each job.
    pub(super) rows: Vec<usize>,
}

impl<'py> Joint<'py> {
    fn of(object: Bound<'py, PyAny>) -> PyResult<Self> {
        let py = object.py();
        Ok(Self {
            places: object.getattr(intern!(py, "places"))?.extract()?,
            arguments: object.getattr(intern!(py, "arguments"))?.cast_into()?,
            rows: object.getattr(intern!(py, "rows"))?.extract()?,
            object,
        })
    }
}

/// `batching.Split`: the part of a joint result for each job, and the places among them of those that are compared with
/// the result of a call for the job alone.
pub(super) type Split<'py> = (Vec<Bound<'py, PyAny>>, Vec<usize>);

/// What a script says about its batches: `batching.Batches`.
pub(in crate::worker) struct Batches<'py> {
    pub(super) object: Bound<'py, PyAny>,
    /// The function that a joint call calls.
    pub(super) run: Bound<'py, PyAny>,
    /// Calls are joined although a request context of Flask belongs to one request.
    pub(super) fits_flask: bool,
    pub(super) size: BatchSize,
    pub(super) wait: Duration,
}

impl<'py> Batches<'py> {
    /// `None` if each call of this `script.Script` answers one request.
    pub(in crate::worker) fn of(script: &Bound<'py, PyAny>, settings: &Settings) -> PyResult<Option<Self>> {
        let py = script.py();
        let object = script.call_method0(intern!(py, "batches"))?;
        if object.is_none() {
            return Ok(None);
        }
        let most: usize = object.getattr(intern!(py, "most"))?.extract()?;
        let wait = Duration::from_secs_f64(object.getattr(intern!(py, "wait"))?.extract()?);
        let size = if object.getattr(intern!(py, "adapts"))?.is_truthy()? {
            BatchSize::growing(most, settings.scoring_timeout)
        } else {
            BatchSize::fixed(most)
        };
        let run = object.getattr(intern!(py, "run"))?;
        let fits_flask = object.getattr(intern!(py, "fits_flask"))?.is_truthy()?;
        Ok(Some(Self { object, run, fits_flask, size, wait }))
    }

    /// How many jobs to claim together now, as the hello says it.
    pub(in crate::worker) fn wanted_size(&self) -> u16 {
        self.size.wanted().try_into().unwrap_or(u16::MAX)
    }

    /// What [`Batches::join`] needs of a job with these arguments; `None` if the job cannot be joined.
    pub(super) fn convert(&self, py: Python<'py>, arguments: Bound<'py, PyDict>) -> Option<Bound<'py, PyAny>> {
        let converted = self.object.call_method1(intern!(py, "convert"), (arguments,));
        shown(py, converted).filter(|converted| !converted.is_none())
    }

    /// The groups of jobs that one call each can answer, by their converted arguments.
    pub(super) fn join(&self, py: Python<'py>, converted: Vec<Option<Bound<'py, PyAny>>>) -> Vec<Joint<'py>> {
        let joined = self.object.call_method1(intern!(py, "join"), (converted,));
        let joints = joined.and_then(|joined| joined.try_iter()?.map(|joint| Joint::of(joint?)).collect());
        shown(py, joints).unwrap_or_default()
    }

    /// The parts of a joint result; `None` if it cannot be split.
    pub(super) fn split(&self, joint: &Joint<'py>, result: &Bound<'py, PyAny>) -> Option<Split<'py>> {
        let py = result.py();
        let split = self.object.call_method1(intern!(py, "split"), (&joint.object, result));
        shown(py, split.and_then(|split| split.extract())).flatten()
    }

    /// False once the script has proven that its calls cannot be joined.
    pub(super) fn are_possible(&self, py: Python<'py>) -> PyResult<bool> {
        self.object.getattr(intern!(py, "are_possible"))?.is_truthy()
    }
}

/// The result. An error is shown on standard error: the jobs then get calls of their own.
pub(super) fn shown<T>(py: Python<'_>, result: PyResult<T>) -> Option<T> {
    result.map_err(|error| error.write_unraisable(py, None)).ok()
}
