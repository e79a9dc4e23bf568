//! Tells Python which request the worker works on, and OpenTelemetry which span its spans belong to.
//!
//! Runs on the worker's thread.

use pyo3::{intern, prelude::*};

use super::{
    current_request::{Current, CurrentRequest},
    script::Script,
};
use crate::ipc::frame::Job;

/// The worker works on one request, for as long as this exists: log records have the request's ids, and spans of the
/// script are children of the server's span.
pub(super) struct About<'a, 'py> {
    script: &'a Script<'py>,
    current: &'a Current<'py>,
    /// What detaches the span, if OpenTelemetry was told.
    attached: Option<Bound<'py, PyAny>>,
}

impl<'a, 'py> About<'a, 'py> {
    /// Begins to work on a job.
    pub(super) fn begin(py: Python<'py>, script: &'a Script<'py>, current: &'a Current<'py>, job: &Job) -> Self {
        shown(py, current.begin(py, job));
        Self::attached(py, script, current, job)
    }

    /// Works again on a job whose request was set aside.
    pub(super) fn resume(
        py: Python<'py>,
        script: &'a Script<'py>,
        current: &'a Current<'py>,
        job: &Job,
        request: Option<Py<CurrentRequest>>,
    ) -> Self {
        shown(py, current.resume(request));
        Self::attached(py, script, current, job)
    }

    /// Sets the request aside, because its call goes on while the worker turns to other jobs. Tasks
    /// that were made before this keep the request and the span, in their own contexts.
    pub(super) fn set_aside(self) -> Option<Py<CurrentRequest>> {
        self.current.set_aside()
    }

    fn attached(py: Python<'py>, script: &'a Script<'py>, current: &'a Current<'py>, job: &Job) -> Self {
        let mut about = Self { script, current, attached: None };
        if let Some(span) = job.span.filter(|_| script.follows_traces(py)) {
            let context = (span.to_string(), String::from_utf8_lossy(&job.tracestate));
            let token = shown(py, script.object.call_method1(intern!(py, "attach_span"), context));
            about.attached = token.filter(|token| !token.is_none());
        }
        about
    }
}

impl Drop for About<'_, '_> {
    fn drop(&mut self) {
        let py = self.script.object.py();
        if let Some(token) = self.attached.take() {
            shown(py, self.script.object.call_method1(intern!(py, "detach_span"), (token,)));
        }
        shown(py, self.current.end(py));
    }
}

/// The result. An error is shown on standard error, because it must not change the reply.
fn shown<T>(py: Python<'_>, result: PyResult<T>) -> Option<T> {
    result.map_err(|error| error.write_unraisable(py, None)).ok()
}
