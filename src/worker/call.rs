//! Calling the script: arguments, time limit, result or error, as one reply.
//!
//! Every failure becomes a reply here; nothing a script raises, `SystemExit` included, leaves this file. Runs on the
//! worker's thread.
//!
//! One file of more than 400 lines, because each step of a call may fail, and its failure becomes the reply here.

use std::{
    borrow::Cow,
    cell::Cell,
    time::{Duration, Instant},
};

use bytes::Bytes;
use pyo3::{
    exceptions::{PyBaseException, PyTimeoutError},
    intern,
    prelude::*,
    types::{PyBytes, PyDict, PyString, PyTuple},
};

use super::{
    about::About,
    claimed_job::ClaimedJob,
    convert::{
        inference,
        input::{self, InputError},
        output,
    },
    current_request::Current,
    deadline::{Deadline, Limits},
    reply::{error_reply, origin_named, to_latin1, Outcome, Reply, JSON, OCTETS},
    script::Script,
};
use crate::{
    ipc::frame::{Field, Inference, Job, Origin},
    logging::text::plain_line,
    settings::{AccessLog, Settings},
    telemetry::{access_line, redaction},
};

const SCRIPT_ERROR: &str = "An unexpected error occurred in scoring script. Check the logs for more info.";
const INTERNAL_ERROR: &str = "An unexpected internal error occurred. Check the logs for more info.";
/// Levels of Python's `logging`.
const PYTHON_INFO: u8 = 20;
const PYTHON_WARNING: u8 = 30;
/// How many results of a worker, and how many of the first bytes of each, are looked at for hints in the log.
const NOTED_RESULTS: u32 = 1000;
const NOTED_BYTES: usize = 16 * 1024;

/// `outputs.Answer`: status, own reason text, headers, body, origin, seconds inside `run()`, error location.
type Answer<'py> = (u16, Option<String>, Vec<(String, String)>, Bound<'py, PyAny>, String, Option<f64>, String);

/// The fields of `wsgi_environ.Request`: method, target, minor version of HTTP, header fields, body, sender, request id,
/// what a reply of the Open Inference Protocol must have.
type WholeRequest<'a, 'py> = (
    &'a str,
    Bound<'py, PyString>,
    u8,
    Vec<(Bound<'py, PyString>, Bound<'py, PyString>)>,
    Bound<'py, PyBytes>,
    (&'a str, &'a str, Option<bool>),
    Cow<'a, str>,
    Option<Bound<'py, PyAny>>,
);

/// What the script made of a request.
pub(super) enum Returned<'py> {
    /// The result of `run()`, yet to be rendered.
    Result(Bound<'py, PyAny>),
    /// An `outputs.Answer`: `run()` was called by way of Flask.
    Answer(Bound<'py, PyAny>),
}

/// Calls one script under the settings' time limit.
pub(super) struct Caller<'a, 'py> {
    script: &'a Script<'py>,
    /// This process; a child that the script forks in `run()` has another id.
    pid: u32,
    scoring_timeout: Duration,
    limits: Limits,
    deadline: Deadline,
    /// Results that may still be shown to `scripting/traps.py`.
    results_to_note: Cell<u32>,
    current: Current<'py>,
    access_log: AccessLog,
    /// Lines hide secrets of queries.
    logs_json: bool,
}

impl<'a, 'py> Caller<'a, 'py> {
    pub(super) fn new(
        py: Python<'py>,
        script: &'a Script<'py>,
        settings: &Settings,
        deadline: Deadline,
    ) -> PyResult<Self> {
        Ok(Self {
            script,
            pid: std::process::id(),
            scoring_timeout: settings.scoring_timeout,
            limits: Limits::of(settings.scoring_timeout, settings.worker_timeout),
            deadline,
            results_to_note: Cell::new(NOTED_RESULTS),
            current: Current::new(py, [settings.scoring_timeout, settings.worker_timeout])?,
            access_log: settings.access_log,
            logs_json: settings.logs_json,
        })
    }

    pub(super) fn script(&self) -> &'a Script<'py> {
        self.script
    }

    /// Runs the job, which takes as long as `run()` does.
    pub(super) fn answer(&self, py: Python<'py>, claimed: &ClaimedJob) -> Reply {
        let arguments = match self.arguments(py, claimed) {
            Ok(arguments) => arguments,
            Err(reply) => return *reply,
        };
        let collected = self.collected(arguments.as_ref());
        let started = Instant::now();
        let returned = self.run_in_time(py, claimed, arguments);
        let run_ms = started.elapsed().as_secs_f64() * 1e3;
        self.end_forked_child(py, returned.as_ref().err());
        self.conclude(py, claimed, collected.as_ref(), returned, run_ms)
    }

    /// Calls this function once for several jobs, under the time limit of one call. Returns its result and
    /// the milliseconds that it took.
    pub(super) fn run_together(
        &self,
        py: Python<'py>,
        run: &Bound<'py, PyAny>,
        arguments: &Bound<'py, PyDict>,
    ) -> (PyResult<Bound<'py, PyAny>>, f64) {
        let started = Instant::now();
        let returned = self.limited(py, || run.call((), Some(arguments)));
        let run_ms = started.elapsed().as_secs_f64() * 1e3;
        self.end_forked_child(py, returned.as_ref().err());
        (returned, run_ms)
    }

    /// The keyword arguments of `run()`; `None` for a raw script. An error is the reply to a request
    /// for which `run()` cannot be called.
    pub(super) fn arguments(
        &self,
        py: Python<'py>,
        claimed: &ClaimedJob,
    ) -> Result<Option<Bound<'py, PyDict>>, Box<Reply>> {
        let arguments = match &claimed.job.inference {
            None => input::arguments(py, self.script, &claimed.job, &claimed.body),
            Some(inference) => self.decoded(py, claimed, inference).map(Some),
        };
        arguments.map_err(|problem| Box::new(self.not_run(py, claimed, problem)))
    }

    /// As [`Caller::arguments`], for a request of the Open Inference Protocol.
    fn decoded(
        &self,
        py: Python<'py>,
        claimed: &ClaimedJob,
        inference: &Inference,
    ) -> Result<Bound<'py, PyDict>, InputError> {
        let shares_body = self.by_way_of_flask(py, &claimed.job);
        let decoded = inference::decode(py, self.script, claimed, inference, shares_body)?;
        input::pass_headers(py, self.script, &claimed.job, &decoded.arguments)?;
        claimed.asked.get_or_init(|| decoded.asked.unbind());
        Ok(decoded.arguments)
    }

    /// The arguments that are exported with the result, if results are exported.
    pub(super) fn collected(&self, arguments: Option<&Bound<'py, PyDict>>) -> Option<Bound<'py, PyDict>> {
        arguments.filter(|_| self.script.collects_model_data).cloned()
    }

    /// The reply to a call that has returned or raised an exception. `run_ms` is the time that
    /// `run()` took.
    pub(super) fn conclude(
        &self,
        py: Python<'py>,
        claimed: &ClaimedJob,
        collected: Option<&Bound<'py, PyDict>>,
        returned: PyResult<Returned<'py>>,
        run_ms: f64,
    ) -> Reply {
        match returned {
            Ok(Returned::Result(result)) => {
                if let Some(arguments) = collected {
                    self.collect(arguments, &result);
                }
                self.render(py, claimed, &result, run_ms)
            }
            Ok(Returned::Answer(answer)) => {
                let reply = self.reply(py, &answer);
                let reply = reply.unwrap_or_else(|error| self.internal_error(py, &claimed.job, error));
                match reply.origin {
                    Origin::ScriptError | Origin::Timeout => Reply { run_ms: Some(run_ms), ..reply },
                    _ => reply,
                }
            }
            Err(error) => Reply { run_ms: Some(run_ms), ..self.script_error(py, claimed, error) },
        }
    }

    /// Exports input and output of a `run()` that has succeeded.
    fn collect(&self, arguments: &Bound<'py, PyDict>, result: &Bound<'py, PyAny>) {
        let py = result.py();
        if let Err(failed) = self.script.object.call_method1(intern!(py, "collect"), (arguments, result)) {
            failed.write_unraisable(py, None);
        }
    }

    /// The worker works on the job, as far as Python sees it, until the result is dropped.
    pub(super) fn about(&self, py: Python<'py>, job: &Job) -> About<'_, 'py> {
        About::begin(py, self.script, &self.current, job)
    }

    /// As [`Caller::about`], for a job whose call has gone on meanwhile; see [`About::set_aside`].
    pub(super) fn about_again(
        &self,
        py: Python<'py>,
        job: &Job,
        request: Option<Py<super::current_request::CurrentRequest>>,
    ) -> About<'_, 'py> {
        About::resume(py, self.script, &self.current, job, request)
    }

    /// Notes that the time limit of the job's call starts.
    #[cfg(unix)]
    pub(super) fn start_time(&self) {
        self.current.start_time();
    }

    /// Logs the lines about a request through the logger that the script has changed. `elapsed` is
    /// the time since the worker had the job, `length` the bytes of the body, `None` for a stream.
    /// An exception of the script's log handler does not change the reply.
    pub(super) fn log_request(
        &self,
        py: Python<'py>,
        job: &Job,
        status: u16,
        length: Option<usize>,
        elapsed: Duration,
    ) {
        let sent = String::from_utf8_lossy(&job.query);
        let query = if self.logs_json { redaction::query(&sent) } else { (&*sent).into() };
        let path = job.inference.as_ref().map(|inference| String::from_utf8_lossy(&inference.path));
        let target = access_line::target(path.as_deref().unwrap_or("/score"), &query);
        let length = length.map(|length| length as u64);
        let line = access_line::Line { method: &job.method, target: &target, status, elapsed, length };
        let deprecation = job.deprecated_id.then(|| (PYTHON_WARNING, access_line::DEPRECATED_ID.to_owned()));
        let line = self.access_log.includes(Some(status)).then(|| (PYTHON_INFO, plain_line(line.text())));
        for (level, text) in deprecation.into_iter().chain(line) {
            if let Err(failed) = self.script.object.call_method1(intern!(py, "log_request"), (level, text)) {
                failed.write_unraisable(py, None);
            }
        }
    }

    /// Logs a fault that no reply can report.
    pub(super) fn log_internal(&self, py: Python<'py>, error: PyErr) {
        if let Err(failed) = self.script.object.call_method1(intern!(py, "internal_failed"), (exception(py, &error),)) {
            failed.write_unraisable(py, None);
        }
    }

    /// Closes the generator, finished or not, so that its `finally` blocks run (contract section
    /// 11).
    pub(super) fn close_stream(&self, py: Python<'py>, stream: &Bound<'py, PyAny>) {
        match stream.getattr_opt(intern!(py, "close")) {
            Ok(None) => {}
            Ok(Some(close)) => {
                if let Err(error) = close.call0() {
                    self.log_internal(py, error);
                }
            }
            Err(error) => self.log_internal(py, error),
        }
    }

    /// `run()` may have forked without exec, and then it returns in the child too. The child must
    /// not continue this worker's work, so it exits here as a script does at its end.
    fn end_forked_child(&self, py: Python<'py>, error: Option<&PyErr>) {
        if std::process::id() == self.pid {
            return;
        }
        let error = error.map(|error| exception(py, error));
        if let Err(failed) = self.script.object.call_method1(intern!(py, "end_forked_child"), (error,)) {
            failed.write_unraisable(py, None);
        }
    }

    /// The next part of a stream, `None` at its end. An exception of the generator ends only this
    /// stream.
    pub(super) fn next_part(&self, stream: &Bound<'py, PyAny>) -> PyResult<Option<Bytes>> {
        let py = stream.py();
        let part = stream.call_method0(intern!(py, "__next__"));
        self.end_forked_child(py, part.as_ref().err());
        match part {
            Ok(part) => Ok(Some(Bytes::copy_from_slice(part.cast::<PyBytes>()?.as_bytes()))),
            Err(error) if error.is_instance_of::<pyo3::exceptions::PyStopIteration>(py) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn run_in_time(
        &self,
        py: Python<'py>,
        claimed: &ClaimedJob,
        arguments: Option<Bound<'py, PyDict>>,
    ) -> PyResult<Returned<'py>> {
        self.limited(py, || self.run(py, claimed, arguments))
    }

    /// Calls the function under the time limit of one call of `run()`.
    fn limited<T>(&self, py: Python<'py>, call: impl FnOnce() -> PyResult<T>) -> PyResult<T> {
        if self.limits.are_none() {
            return call();
        }
        self.current.start_time();
        self.deadline.arm(self.limits)?;
        let returned = call();
        let in_time = self.deadline.disarm(py);
        returned.and_then(|returned| in_time.map(|()| returned))
    }

    fn run(
        &self,
        py: Python<'py>,
        claimed: &ClaimedJob,
        arguments: Option<Bound<'py, PyDict>>,
    ) -> PyResult<Returned<'py>> {
        if self.by_way_of_flask(py, &claimed.job) {
            return self.call_flask(py, claimed, arguments, None).map(Returned::Answer);
        }
        self.script.run.call((), arguments.as_ref()).map(Returned::Result)
    }

    /// True if the request goes through the Flask application. That needs a job with the whole
    /// request. A script that first imports Flask in `run()` gets such jobs only after that call.
    pub(super) fn by_way_of_flask(&self, py: Python<'py>, job: &Job) -> bool {
        job.whole_request && self.script.needs_context(py)
    }

    /// Calls the Flask application around the script, with the whole request at hand (contract section 11). With a
    /// `problem`, `run()` is not called.
    fn call_flask(
        &self,
        py: Python<'py>,
        claimed: &ClaimedJob,
        arguments: Option<Bound<'py, PyDict>>,
        problem: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (method, target, http_minor, fields, body, peer, request_id, asked) = self.whole_request(py, claimed);
        let request = (method, target, http_minor, fields, body, peer, request_id, arguments, problem, asked);
        self.script.object.call_method1(intern!(py, "call_with_request"), request)
    }

    /// The fields of `wsgi_environ.Request`.
    pub(super) fn whole_request<'job>(&self, py: Python<'py>, claimed: &'job ClaimedJob) -> WholeRequest<'job, 'py> {
        let ClaimedJob { job, body, object, asked, .. } = claimed;
        let fields: Vec<_> =
            job.fields.iter().map(|(name, value)| (input::latin1(py, name), input::latin1(py, value))).collect();
        let object = object.as_ref().filter(|_| job.inference.is_none());
        let body = object.map_or_else(|| PyBytes::new(py, body), |object| object.bind(py).clone());
        (
            &job.method,
            input::latin1(py, &job.target),
            job.http_minor,
            fields,
            body,
            (&job.peer, &job.client, job.is_https),
            String::from_utf8_lossy(&job.request_id),
            asked.get().map(|asked| asked.bind(py).clone()),
        )
    }

    /// The reply to a request for which `run()` cannot be called. It goes through the Flask
    /// application too, so that instrumentation of Flask sees it.
    fn not_run(&self, py: Python<'py>, claimed: &ClaimedJob, problem: InputError) -> Reply {
        if let InputError::Refused(_, message) = &problem {
            self.log_refusal(py, message);
        }
        if !self.by_way_of_flask(py, &claimed.job) {
            return match problem {
                InputError::Refused(status, message) => error_reply(status, &message),
                InputError::Internal(error) => self.internal_error(py, &claimed.job, error),
            };
        }
        let problem = match problem {
            InputError::Refused(status, message) => (status, message).into_pyobject(py).map(Bound::into_any),
            InputError::Internal(error) => Ok(exception(py, &error).clone().into_any()),
        };
        let answer = problem.and_then(|problem| self.call_flask(py, claimed, None, Some(problem)));
        let reply = answer.and_then(|answer| self.reply(py, &answer));
        reply.unwrap_or_else(|error| self.internal_error(py, &claimed.job, error))
    }

    /// Logs a fault of the client at level DEBUG. The reply explains it to the client.
    fn log_refusal(&self, py: Python<'py>, message: &str) {
        if let Err(failed) = self.script.object.call_method1(intern!(py, "input_refused"), (message,)) {
            failed.write_unraisable(py, None);
        }
    }

    fn script_error(&self, py: Python<'py>, claimed: &ClaimedJob, error: PyErr) -> Reply {
        let exception = exception(py, &error);
        if self.script.explains_errors {
            // run() may have changed the bytes of tensors.
            let body = if claimed.job.inference.is_none() { &claimed.body[..] } else { &[] };
            let failed = (exception, accept(py, &claimed.job), PyBytes::new(py, body));
            if let Some(reply) = self.explained(py, intern!(py, "run_failed"), failed) {
                return reply;
            }
        }
        let (origin, message) = if error.is_instance_of::<PyTimeoutError>(py) {
            (Origin::Timeout, format!("Scoring timeout after {} ms", self.scoring_timeout.as_millis()))
        } else {
            (Origin::ScriptError, SCRIPT_ERROR.to_owned())
        };
        let location = self
            .script
            .object
            .call_method1(intern!(py, "script_failed"), (exception,))
            .and_then(|location| location.extract::<String>());
        let location = location.unwrap_or_else(|failed| {
            failed.write_unraisable(py, None);
            String::new()
        });
        Reply { origin, error_location: location.into(), ..error_reply(500, &message) }
    }

    /// The reply to an error that this method of the script object makes. `None` if it fails, which is shown.
    fn explained(
        &self,
        py: Python<'py>,
        method: &Bound<'py, PyString>,
        arguments: impl pyo3::call::PyCallArgs<'py>,
    ) -> Option<Reply> {
        let answer = self.script.object.call_method1(method, arguments);
        match answer.and_then(|answer| self.reply(py, &answer)) {
            Ok(reply) => Some(reply),
            Err(failed) => {
                failed.write_unraisable(py, None);
                None
            }
        }
    }

    pub(super) fn internal_error(&self, py: Python<'py>, job: &Job, error: PyErr) -> Reply {
        if self.script.explains_errors {
            let failed = (exception(py, &error), accept(py, job));
            if let Some(reply) = self.explained(py, intern!(py, "server_failed"), failed) {
                return reply;
            }
        }
        self.log_internal(py, error);
        error_reply(500, INTERNAL_ERROR)
    }

    fn render(&self, py: Python<'py>, claimed: &ClaimedJob, result: &Bound<'py, PyAny>, run_ms: f64) -> Reply {
        match self.rendered(py, claimed, result) {
            Ok(reply) => {
                match &reply.outcome {
                    Outcome::Whole(body) if claimed.asked.get().is_none() => self.note_result(py, result, body),
                    _ => {}
                }
                Reply { run_ms: Some(run_ms), ..reply }
            }
            Err(error) => Reply { run_ms: Some(run_ms), ..self.internal_error(py, &claimed.job, error) },
        }
    }

    /// The reply with this result of `run()`. Nothing is logged.
    pub(super) fn rendered(
        &self,
        py: Python<'py>,
        claimed: &ClaimedJob,
        result: &Bound<'py, PyAny>,
    ) -> PyResult<Reply> {
        if let Some(asked) = claimed.asked.get() {
            return self.render_tensors(py, result, asked.bind(py));
        }
        let json = if self.script.json_is_changed { Err(output::Unusual) } else { output::to_json(result) };
        match json {
            Ok(body) => Ok(Reply {
                status: 200,
                origin: Origin::Result,
                run_ms: None,
                error_location: Bytes::new(),
                fields: vec![JSON],
                outcome: Outcome::Whole(body.into()),
            }),
            Err(output::Unusual) => self.render_in_python(py, &claimed.job, result),
        }
    }

    /// The reply with tensors (Open Inference Protocol).
    fn render_tensors(
        &self,
        py: Python<'py>,
        result: &Bound<'py, PyAny>,
        asked: &Bound<'py, PyAny>,
    ) -> PyResult<Reply> {
        let made = self.script.object.call_method1(intern!(py, "render_tensors"), (result, asked))?;
        match made.extract::<(Bound<'py, PyAny>, Vec<Bound<'py, PyAny>>)>() {
            Ok((document, tensors)) => {
                let encoded = inference::encode(self.script, &document, &tensors)?;
                let kind = if encoded.json_length.is_some() { OCTETS } else { JSON };
                let fields = std::iter::once(kind).chain(encoded.json_length).collect();
                let (origin, outcome) = (Origin::Result, Outcome::Whole(encoded.body));
                Ok(Reply { status: 200, origin, run_ms: None, error_location: Bytes::new(), fields, outcome })
            }
            Err(_) => self.reply(py, &made),
        }
    }

    /// Shows a result to `scripting/traps.py`, which may log a hint, if it is the first one, or looks like a trap.
    fn note_result(&self, py: Python<'py>, result: &Bound<'py, PyAny>, body: &[u8]) {
        let left = self.results_to_note.get();
        if left == 0 {
            return;
        }
        self.results_to_note.set(left - 1);
        let begin = &body[..body.len().min(NOTED_BYTES)];
        let has = |text: &[u8]| begin.windows(text.len()).any(|part| part == text);
        let looks_wrong = result.is_instance_of::<PyTuple>()
            || begin.starts_with(b"\"{")
            || begin.starts_with(b"\"[")
            || has(b"NaN")
            || has(b"Infinity");
        if left < NOTED_RESULTS && !looks_wrong {
            return;
        }
        if let Err(failed) = self.script.object.call_method1(intern!(py, "note_result"), (result,)) {
            failed.write_unraisable(py, None);
        }
    }

    fn render_in_python(&self, py: Python<'py>, job: &Job, result: &Bound<'py, PyAny>) -> PyResult<Reply> {
        let answer = self.script.object.call_method1(intern!(py, "render"), (result, &job.method))?;
        self.reply(py, &answer)
    }

    /// An `outputs.Answer` as a reply.
    fn reply(&self, py: Python<'py>, answer: &Bound<'py, PyAny>) -> PyResult<Reply> {
        let (status, _reason, headers, body, origin, seconds, location): Answer<'py> = answer.extract()?;
        let fields = headers.into_iter().map(|(name, value)| Ok((to_latin1(&name)?, to_latin1(&value)?)));
        let fields = fields.collect::<PyResult<Vec<Field>>>()?;
        let outcome = match body.cast_exact::<PyBytes>() {
            Ok(bytes) => Outcome::Whole(Bytes::copy_from_slice(bytes.as_bytes())),
            Err(_) => match self.next_part(&body) {
                Ok(first) => Outcome::Stream { first, rest: body.unbind() },
                Err(error) => {
                    self.close_stream(py, &body);
                    return Err(error);
                }
            },
        };
        Ok(Reply {
            status,
            origin: origin_named(&origin)?,
            run_ms: seconds.map(|seconds| seconds * 1e3),
            error_location: location.into(),
            fields,
            outcome,
        })
    }
}

/// The exception object of an error, with its traceback: before CPython 3.12 the two travel apart.
fn exception<'a, 'py>(py: Python<'py>, error: &'a PyErr) -> &'a Bound<'py, PyBaseException> {
    let value = error.value(py);
    if let Some(traceback) = error.traceback(py) {
        // Refused only by an exception class that overrides attribute access; then the log shows no frames.
        let _ = value.setattr(intern!(py, "__traceback__"), traceback);
    }
    value
}

/// The Accept header of a request, empty if there is none.
fn accept<'py>(py: Python<'py>, job: &Job) -> Bound<'py, PyString> {
    let sent = job.fields.iter().find(|(name, _)| name == "accept");
    input::latin1(py, sent.map_or(&[], |(_, value)| value))
}
