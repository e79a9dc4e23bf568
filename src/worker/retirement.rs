//! Whether this worker has been asked to finish: `worker.Retirement`, which signal handlers change.

use pyo3::prelude::*;
#[cfg(unix)]
use pyo3::{exceptions::PySystemExit, intern};

/// Asks the Python object.
pub(super) struct Retirement {
    #[cfg(unix)]
    object: Py<PyAny>,
    /// Its method `__call__`. Every job asks, and a call of the method takes half the time of a call
    /// of the object.
    is_asked: Py<PyAny>,
}

impl Retirement {
    /// `object` is a callable that tells whether the worker has been asked to finish; its method
    /// `ask()` asks for it.
    pub(super) fn new(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        Ok(Self {
            #[cfg(unix)]
            object: object.clone().unbind(),
            is_asked: object.getattr("__call__")?.unbind(),
        })
    }

    /// Another handle to the same object.
    #[cfg(unix)]
    pub(super) fn share(&self, py: Python<'_>) -> Self {
        Self { object: self.object.clone_ref(py), is_asked: self.is_asked.clone_ref(py) }
    }

    /// True once the worker has been asked to finish.
    pub(super) fn is_asked(&self, py: Python<'_>) -> PyResult<bool> {
        self.is_asked.bind(py).call0()?.is_truthy()
    }

    /// Lets Python's signal handlers run.
    #[cfg(unix)]
    pub(super) fn check_signals(&self, py: Python<'_>) {
        if let Err(error) = py.check_signals() {
            self.take_note_of(py, error);
        }
    }

    /// Handles an exception that a signal handler, greenlet or task of the script has raised while
    /// the worker waited. `SystemExit` asks the process to end, as TERM does. Any other exception
    /// is only shown, and the worker continues.
    #[cfg(unix)]
    pub(super) fn take_note_of(&self, py: Python<'_>, error: PyErr) {
        if !error.is_instance_of::<PySystemExit>(py) {
            return error.write_unraisable(py, None);
        }
        if let Err(error) = self.object.bind(py).call_method0(intern!(py, "ask")) {
            error.write_unraisable(py, None);
        }
    }
}
