//! Waiting for a job while greenlets and asyncio tasks of the script run, for scripts that use such a scheduler.
//!
//! Runs on the main thread of a worker process. `cooperative.py` is the other half: it knows the schedulers.

use std::{os::fd::RawFd, time::Duration};

use pyo3::{intern, prelude::*, types::PyDict};

/// A cooperative wait ends after this time. A scheduler may go on waiting when a signal comes, and a worker that is told to
/// end must notice that well within the half second after which it is killed.
const LONGEST: Duration = Duration::from_millis(100);

/// The script's schedulers, as far as the worker has to let them run.
pub(super) struct Cooperative {
    /// `sys.modules`.
    modules: Py<PyDict>,
    /// `cooperative.Waiter`.
    waiter: Py<PyAny>,
}

impl Cooperative {
    /// For the worker of this `script.Script`.
    pub(super) fn new(script: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = script.py();
        let modules: Bound<'_, PyDict> = py.import(intern!(py, "sys"))?.getattr(intern!(py, "modules"))?.cast_into()?;
        let waiter = script.call_method0(intern!(py, "waiter"))?;
        Ok(Self { modules: modules.unbind(), waiter: waiter.unbind() })
    }

    /// True if the script has imported a library with a scheduler. Cheap: every worker asks before every wait.
    pub(super) fn may_be_used(&self, py: Python<'_>) -> PyResult<bool> {
        let modules = self.modules.bind(py);
        for name in [intern!(py, "asyncio"), intern!(py, "gevent"), intern!(py, "eventlet")] {
            if modules.contains(name)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Lets the scheduler run until there is something to read, or a moment has passed. False if there is none to run.
    pub(super) fn wait(&self, py: Python<'_>, descriptor: RawFd) -> PyResult<bool> {
        self.waiter.bind(py).call_method1(intern!(py, "wait"), (descriptor, LONGEST.as_secs_f64()))?.is_truthy()
    }
}
