//! The request that a worker works on, for the script and for log records
//! (`scripting/current_request.py`).
//!
//! The worker sets a context variable of Python to a [`CurrentRequest`] while it works on a job. The
//! ids become Python text only when somebody asks for them. Runs on the worker's thread.

use std::{
    cell::{Cell, RefCell},
    sync::{
        atomic::{AtomicBool, Ordering},
        Mutex, PoisonError,
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use pyo3::{intern, prelude::*, types::PyDict};

use crate::{
    ipc::frame::Job,
    telemetry::trace_context::{Hex, Span},
};

/// The request that `run()` is called for (`api.current_request`).
#[pyclass(frozen, module = "azureml_inference_server_http.api")]
pub(crate) struct CurrentRequest {
    request_id: Bytes,
    client_request_id: Bytes,
    span: Option<Span>,
    /// That of the last call for the request.
    deadline: Mutex<Option<Instant>>,
    is_finished: AtomicBool,
}

#[pymethods]
impl CurrentRequest {
    /// The `x-request-id` of the reply. Empty if the client sent an empty one.
    #[getter]
    fn request_id(&self) -> String {
        String::from_utf8_lossy(&self.request_id).into_owned()
    }

    /// The `x-ms-client-request-id` of the reply; None if the client sent none.
    #[getter]
    fn client_request_id(&self) -> Option<String> {
        let id = Some(&self.client_request_id).filter(|id| !id.is_empty());
        id.map(|id| String::from_utf8_lossy(id).into_owned())
    }

    /// The trace that the request belongs to, as 32 hexadecimal digits; None if the client sent no
    /// valid `traceparent`, and the server exports no traces.
    #[getter]
    fn trace_id(&self) -> Option<String> {
        self.span.map(|span| Hex(&span.trace_id).to_string())
    }

    /// The span that the call of `run()` belongs to, as 16 hexadecimal digits; None like `trace_id`.
    #[getter]
    fn span_id(&self) -> Option<String> {
        self.span.map(|span| Hex(&span.span_id).to_string())
    }

    /// A value of the header `traceparent` for requests that `run()` makes; None like `trace_id`.
    #[getter]
    fn traceparent(&self) -> Option<String> {
        self.span.map(|span| span.to_string())
    }

    /// When `run()` will be interrupted (SCORING_TIMEOUT_MS) or its worker killed (WORKER_TIMEOUT),
    /// in seconds of `time.monotonic()`; None without a limit.
    #[getter]
    fn deadline(&self, py: Python<'_>) -> PyResult<Option<f64>> {
        let Some(deadline) = *self.deadline.lock().unwrap_or_else(PoisonError::into_inner) else { return Ok(None) };
        let now = Instant::now();
        let monotonic: f64 = py.import(intern!(py, "time"))?.call_method0(intern!(py, "monotonic"))?.extract()?;
        let left = deadline.saturating_duration_since(now).as_secs_f64();
        let over = now.saturating_duration_since(deadline).as_secs_f64();
        Ok(Some(monotonic + left - over))
    }

    /// True when the reply has been sent, with all parts of a stream.
    #[getter]
    fn is_finished(&self) -> bool {
        self.is_finished.load(Ordering::Relaxed)
    }

    fn __repr__(&self) -> String {
        format!("<CurrentRequest {:?}>", self.request_id())
    }
}

/// Tells Python which request this worker works on.
pub(super) struct Current<'py> {
    module: Bound<'py, PyModule>,
    /// `set` of the context variable.
    set: Bound<'py, PyAny>,
    /// `sys.modules`.
    modules: Bound<'py, PyDict>,
    /// Pools of threads hand on the request.
    pools_are_told: Cell<bool>,
    /// How long `run()` may take.
    limit: Option<Duration>,
    request: RefCell<Option<Py<CurrentRequest>>>,
}

impl<'py> Current<'py> {
    /// `limits` are the time limits of a call; zero means none.
    pub(super) fn new(py: Python<'py>, limits: [Duration; 2]) -> PyResult<Self> {
        let module = py.import(intern!(py, "azureml_inference_server_http.scripting.current_request"))?;
        Ok(Self {
            set: module.getattr(intern!(py, "variable"))?.getattr(intern!(py, "set"))?,
            module,
            modules: py.import(intern!(py, "sys"))?.getattr(intern!(py, "modules"))?.cast_into()?,
            pools_are_told: Cell::new(false),
            limit: limits.into_iter().filter(|limit| !limit.is_zero()).min(),
            request: RefCell::default(),
        })
    }

    /// Notes that the worker begins to work on this job.
    pub(super) fn begin(&self, py: Python<'py>, job: &Job) -> PyResult<()> {
        if !self.pools_are_told.get() && self.modules.contains(intern!(py, "concurrent.futures.thread"))? {
            self.pools_are_told.set(true);
            self.module.call_method0(intern!(py, "hand_on_to_pools"))?;
        }
        let request = CurrentRequest {
            request_id: job.request_id.clone(),
            client_request_id: job.client_request_id.clone(),
            span: job.span,
            deadline: Mutex::new(None),
            is_finished: AtomicBool::new(false),
        };
        let request = Py::new(py, request)?;
        self.set.call1((&request,))?;
        self.request.replace(Some(request));
        Ok(())
    }

    /// Notes that the worker works again on a request that was set aside.
    pub(super) fn resume(&self, request: Option<Py<CurrentRequest>>) -> PyResult<Bound<'py, PyAny>> {
        let set = self.set.call1((&request,));
        self.request.replace(request);
        set
    }

    /// Takes out the request, whose call goes on: it is not finished when the worker turns to
    /// another one.
    pub(super) fn set_aside(&self) -> Option<Py<CurrentRequest>> {
        self.request.replace(None)
    }

    /// Notes that the time limit of `run()` starts.
    pub(super) fn start_time(&self) {
        if let (Some(limit), Some(request)) = (self.limit, &*self.request.borrow()) {
            *request.get().deadline.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + limit);
        }
    }

    /// Notes that the worker has finished with the job.
    pub(super) fn end(&self, py: Python<'py>) -> PyResult<()> {
        match self.request.replace(None) {
            // Nobody sees a finished request, so the variable may hold it until the next job.
            Some(request) => request.get().is_finished.store(true, Ordering::Relaxed),
            // The request was set aside and is not finished.
            None => drop(self.set.call1((py.None(),))?),
        }
        Ok(())
    }
}
