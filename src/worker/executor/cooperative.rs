//! Waits for a job and lets the script's greenlets and asyncio tasks run meanwhile.
//!
//! Runs on the main thread of a worker process. `scripting/cooperative.py` is the other half: it
//! calls the schedulers.

use std::{os::fd::RawFd, time::Duration};

use pyo3::{intern, prelude::*, types::PyDict};

/// Longest cooperative wait. A scheduler may not stop waiting when a signal arrives. A worker that
/// is told to end must notice the signal well within half a second, because it is killed after
/// that.
const LONGEST: Duration = Duration::from_millis(100);

/// Access to the script's schedulers.
pub(in crate::worker) struct Cooperative {
    /// `sys.modules`.
    modules: Py<PyDict>,
    /// `cooperative.Waiter`.
    waiter: Py<PyAny>,
}

impl Cooperative {
    /// Makes the waiter for the worker of this `script.Script`.
    pub(in crate::worker) fn new(script: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = script.py();
        let modules: Bound<'_, PyDict> = py.import(intern!(py, "sys"))?.getattr(intern!(py, "modules"))?.cast_into()?;
        let waiter = script.call_method0(intern!(py, "waiter"))?;
        Ok(Self { modules: modules.unbind(), waiter: waiter.unbind() })
    }

    /// True if the script has imported a library with a scheduler. Cheap: every worker asks before
    /// every wait.
    pub(in crate::worker) fn may_be_used(&self, py: Python<'_>) -> PyResult<bool> {
        let modules = self.modules.bind(py);
        for name in [intern!(py, "asyncio"), intern!(py, "gevent"), intern!(py, "eventlet")] {
            if modules.contains(name)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Lets the scheduler run until `descriptor` is readable, or [`LONGEST`] has passed. False if
    /// there is no descriptor, or no scheduler is in use.
    pub(in crate::worker) fn wait(&self, py: Python<'_>, descriptor: Option<RawFd>) -> PyResult<bool> {
        let Some(descriptor) = descriptor else { return Ok(false) };
        self.waiter.bind(py).call_method1(intern!(py, "wait"), (descriptor, LONGEST.as_secs_f64()))?.is_truthy()
    }
}
