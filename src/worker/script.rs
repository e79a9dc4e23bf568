//! The attributes of the loaded script, Python's `script.Script`, read once for the worker loop.
//!
//! Runs on the worker's thread.

use pyo3::{
    intern,
    prelude::*,
    types::{PyDict, PyString},
};

/// How `run()` gets its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// The body as text; for GET the query as JSON text.
    Text,
    /// Keyword arguments by inference-schema.
    Schema,
    /// The Flask request.
    Raw,
    /// The tensors of a request of the Open Inference Protocol, and no other request (`@raw_v2`).
    Tensors,
}

/// The parts of `script.Script` that every request needs.
pub(super) struct Script<'py> {
    /// The Python object, for calls of its methods.
    pub(super) object: Bound<'py, PyAny>,
    /// The function `run`, looked up once when the script is loaded (contract section 4).
    pub(super) run: Bound<'py, PyAny>,
    /// The mode of its input.
    pub(super) mode: Mode,
    /// Name of the argument that gets the input.
    pub(super) input_name: Bound<'py, PyString>,
    /// True if `run` has to be awaited.
    pub(super) is_async: bool,
    /// True if `run` has a parameter `request_headers`.
    pub(super) pass_headers: bool,
    /// True if the script has replaced functions of Python's json module.
    pub(super) json_is_changed: bool,
    /// True if the script has changed the logger of request lines. Then the worker logs them, so
    /// that its filters act.
    pub(super) logs_requests: bool,
    /// True if `script.py` makes the replies to errors (`--error_details`, `--client_errors`).
    pub(super) explains_errors: bool,
    /// True if input and output of each successful `run()` are exported.
    pub(super) collects_model_data: bool,
    /// `sys.modules`.
    modules: Bound<'py, PyDict>,
}

impl<'py> Script<'py> {
    /// Reads the attributes.
    pub(super) fn read(object: &Bound<'py, PyAny>) -> PyResult<Self> {
        let py = object.py();
        let mode: String = object.getattr(intern!(py, "mode"))?.extract()?;
        Ok(Self {
            object: object.clone(),
            run: object.getattr(intern!(py, "run"))?,
            mode: match mode.as_str() {
                "text" => Mode::Text,
                "schema" => Mode::Schema,
                "raw" => Mode::Raw,
                "raw_v2" => Mode::Tensors,
                other => return Err(pyo3::exceptions::PyValueError::new_err(format!("unknown script mode {other:?}"))),
            },
            input_name: object.getattr(intern!(py, "input_name"))?.cast_into()?,
            modules: py.import(intern!(py, "sys"))?.getattr(intern!(py, "modules"))?.cast_into()?,
            json_is_changed: object.getattr(intern!(py, "json_is_changed"))?.is_truthy()?,
            logs_requests: object.getattr(intern!(py, "logs_requests"))?.is_truthy()?,
            collects_model_data: object.getattr(intern!(py, "collects_model_data"))?.is_truthy()?,
            is_async: object.getattr(intern!(py, "is_async"))?.is_truthy()?,
            pass_headers: object.getattr(intern!(py, "pass_headers"))?.is_truthy()?,
            explains_errors: object.getattr(intern!(py, "explains_errors"))?.is_truthy()?,
        })
    }

    /// True if OPTIONS and HEAD reach the script.
    pub(super) fn is_raw(&self) -> bool {
        self.mode == Mode::Raw
    }

    /// True if `run` must be called inside a Flask request context: raw scripts, and scripts that
    /// imported Flask.
    pub(super) fn needs_context(&self, py: Python<'_>) -> bool {
        self.is_raw() || self.modules.contains(intern!(py, "flask")).unwrap_or(false)
    }

    /// True if the script has imported OpenTelemetry, so that it may make spans.
    pub(super) fn follows_traces(&self, py: Python<'_>) -> bool {
        self.modules.contains(intern!(py, "opentelemetry.trace")).unwrap_or(false)
    }

    /// True if jobs must carry the whole request.
    pub(super) fn wants_request(&self, py: Python<'_>) -> bool {
        self.pass_headers || self.explains_errors || self.needs_context(py)
    }
}
