//! What the script's log records and spans are about, while it works on a request.
//!
//! Runs on the worker's thread. Costs nothing unless something is exported, or the script uses OpenTelemetry.

use pyo3::{intern, prelude::*};

use super::script::Script;
use crate::ipc::frame::Job;

/// The script works on one request, for as long as this exists: its log records have the request's ids, and its spans are
/// children of the server's span.
pub(super) struct About<'py> {
    /// What began, in order.
    begun: [Option<Begun<'py>>; 2],
}

/// What a method of `object` has begun; its method `end` ends it, called with `token`.
struct Begun<'py> {
    object: Bound<'py, PyAny>,
    end: &'static str,
    token: Bound<'py, PyAny>,
}

impl<'py> About<'py> {
    /// Begins to work on a job.
    pub(super) fn begin(py: Python<'py>, script: &Script<'py>, job: &Job) -> Self {
        let mut begun = [None, None];
        if job.traceparent.is_empty() {
            return Self { begun };
        }
        if let Some(reporter) = &script.reporter {
            let mut parts = job.traceparent.split('-').skip(1);
            let (trace, span) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            let ids = (&job.request_id, &job.client_request_id, trace, span);
            let token = shown(py, reporter.call_method1(intern!(py, "begin"), ids));
            begun[0] = token.map(|token| Begun { object: reporter.clone(), end: "end", token });
        }
        if script.follows_traces(py) {
            let context = (&job.traceparent, &job.tracestate);
            let token = shown(py, script.object.call_method1(intern!(py, "attach_span"), context));
            let token = token.filter(|token| !token.is_none());
            begun[1] = token.map(|token| Begun { object: script.object.clone(), end: "detach_span", token });
        }
        Self { begun }
    }
}

impl Drop for About<'_> {
    fn drop(&mut self) {
        // The last that began ends first.
        for Begun { object, end, token } in self.begun.iter_mut().rev().filter_map(Option::take) {
            shown(object.py(), object.call_method1(end, (token,)));
        }
    }
}

/// The result. An error is shown on standard error, because it must not change the reply.
fn shown<'py>(py: Python<'py>, result: PyResult<Bound<'py, PyAny>>) -> Option<Bound<'py, PyAny>> {
    result.map_err(|error| error.write_unraisable(py, None)).ok()
}
