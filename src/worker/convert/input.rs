//! Makes the arguments of `run()` from a job.
//!
//! This file makes text bodies and `request_headers`. It calls `scripting/inputs.py` through the
//! script object for everything that needs Python's exact behaviour (error texts, GET queries,
//! schemas). Runs on the worker's main thread.

use bytes::Bytes;
use jiter::{PythonParse, StringCacheMode};
use pyo3::{
    intern,
    prelude::*,
    types::{PyBytes, PyDict, PyString},
};

use super::arrays;
use crate::{
    ipc::frame::{Field, Job},
    worker::script::{Mode, Script},
};

/// Why `run()` is not called.
pub(in crate::worker) enum InputError {
    /// The client's fault: status and message of the reply.
    Refused(u16, String),
    /// A fault on this side; contract section 6 answers some broken bodies this way.
    Internal(PyErr),
}

impl From<PyErr> for InputError {
    fn from(error: PyErr) -> Self {
        Self::Internal(error)
    }
}

/// Keyword arguments for `run()`; `None` for a raw script, whose only argument is the request
/// itself.
pub(in crate::worker) fn arguments<'py>(
    py: Python<'py>,
    script: &Script<'py>,
    job: &Job,
    body: &Bytes,
) -> Result<Option<Bound<'py, PyDict>>, InputError> {
    let arguments = match script.mode {
        Mode::Raw => return Ok(None),
        Mode::Tensors => {
            let path = script.object.call_method0(intern!(py, "infer_path"))?;
            let message = format!(
                "run() is decorated with @raw_v2, so it takes requests of the Open Inference Protocol only. Send them to {path}."
            );
            return Err(InputError::Refused(400, message));
        }
        Mode::Text => {
            let arguments = PyDict::new(py);
            arguments.set_item(&script.input_name, text(py, script, job, body)?)?;
            arguments
        }
        Mode::Schema => schema_arguments(py, script, job, body)?,
    };
    pass_headers(py, script, job, &arguments)?;
    Ok(Some(arguments))
}

/// Adds `request_headers`, if `run()` has this parameter.
pub(in crate::worker) fn pass_headers<'py>(
    py: Python<'py>,
    script: &Script<'py>,
    job: &Job,
    arguments: &Bound<'py, PyDict>,
) -> PyResult<()> {
    if script.pass_headers {
        arguments.set_item(intern!(py, "request_headers"), request_headers(py, &job.fields)?)?;
    }
    Ok(())
}

/// The result of [`for_tests`]: the arguments, or the reason why `run()` cannot be called
/// (`flask_context.Problem`).
pub(crate) type Converted<'py> = (Option<Bound<'py, PyDict>>, Option<Bound<'py, PyAny>>);

/// Converts a request for the application that tests of scripts call in their own process
/// (`server/create_app.py`), so that their `run()` gets what it gets in a worker. `fields` has its
/// headers in the order sent.
pub(crate) fn for_tests<'py>(
    py: Python<'py>,
    script: &Bound<'py, PyAny>,
    method: String,
    query: &[u8],
    fields: Vec<(String, String)>,
    body: &[u8],
) -> PyResult<Converted<'py>> {
    let script = Script::read(script)?;
    let bytes = |text: &str| text.chars().map(|character| character as u8).collect::<Bytes>();
    let fields: Vec<Field> =
        fields.iter().map(|(name, value)| (bytes(&name.to_ascii_lowercase()), bytes(value))).collect();
    let content_type = fields.iter().find(|(name, _)| name == "content-type").map(|(_, value)| value.clone());
    let job = Job {
        method,
        query: Bytes::copy_from_slice(query),
        content_type: content_type.unwrap_or_default(),
        http_minor: 1,
        whole_request: true,
        fields,
        ..Job::default()
    };
    let problem = match arguments(py, &script, &job, &Bytes::copy_from_slice(body)) {
        Ok(arguments) => return Ok((arguments, None)),
        Err(InputError::Refused(status, message)) => (status, message).into_pyobject(py)?.into_any(),
        Err(InputError::Internal(error)) => error.into_value(py).into_bound(py).into_any(),
    };
    Ok((None, Some(problem)))
}

fn text<'py>(
    py: Python<'py>,
    script: &Script<'py>,
    job: &Job,
    body: &Bytes,
) -> Result<Bound<'py, PyString>, InputError> {
    if job.method == "GET" {
        let query = PyBytes::new(py, &job.query);
        let text = script.object.call_method1(intern!(py, "query_input"), (query,))?;
        return Ok(text.cast_into::<PyString>().map_err(PyErr::from)?);
    }
    // Contract section 6: a parsed form leaves no text behind. curl's default form type is not
    // parsed here (docs/compatibility.md).
    if is_multipart_form(&job.content_type) {
        return Ok(PyString::new(py, ""));
    }
    match std::str::from_utf8(body) {
        Ok(text) => Ok(PyString::new(py, text)),
        Err(_) => Err(undecodable(py, body)),
    }
}

/// Asks CPython for its own words about why the bytes are not UTF-8.
fn undecodable(py: Python<'_>, body: &Bytes) -> InputError {
    match PyBytes::new(py, body).call_method1(intern!(py, "decode"), (intern!(py, "utf-8"),)) {
        Err(reason) => InputError::Refused(400, format!("Input cannot be decoded as UTF-8: {}", reason.value(py))),
        Ok(_) => InputError::Refused(400, "Input cannot be decoded as UTF-8".to_owned()),
    }
}

/// True for `multipart/form-data` with a boundary, in any case.
fn is_multipart_form(content_type: &[u8]) -> bool {
    const FORM: &[u8] = b"multipart/form-data";
    let Some((media_type, parameters)) = content_type.split_at_checked(FORM.len()) else {
        return false;
    };
    media_type.eq_ignore_ascii_case(FORM)
        && parameters.split(|&byte| byte == b';').any(|parameter| {
            let parameter = parameter.trim_ascii();
            parameter.len() > b"boundary=".len() && parameter[..b"boundary=".len()].eq_ignore_ascii_case(b"boundary=")
        })
}

fn schema_arguments<'py>(
    py: Python<'py>,
    script: &Script<'py>,
    job: &Job,
    body: &Bytes,
) -> Result<Bound<'py, PyDict>, InputError> {
    if let Some(values) = parsed_object(py, script, job, body) {
        let bound = script.object.call_method1(intern!(py, "bind_parameters"), (values,));
        return match bound {
            Ok(arguments) => Ok(arguments.cast_into::<PyDict>().map_err(PyErr::from)?),
            Err(error) => Err(refusal(py, error)),
        };
    }
    let request = (&job.method, latin1(py, &job.content_type), PyBytes::new(py, &job.query), PyBytes::new(py, body));
    match script.object.call_method1(intern!(py, "schema_arguments"), request) {
        Ok(arguments) => Ok(arguments.cast_into::<PyDict>().map_err(PyErr::from)?),
        Err(error) => Err(refusal(py, error)),
    }
}

/// A JSON object parsed in Rust. `None` for everything else: whatever is unusual or wrong goes to
/// `json.loads`, whose values and error texts are the rule (contract section 6).
fn parsed_object<'py>(py: Python<'py>, script: &Script<'py>, job: &Job, body: &Bytes) -> Option<Bound<'py, PyDict>> {
    if job.method == "GET" || !job.content_type.eq_ignore_ascii_case(b"application/json") {
        return None;
    }
    let parser = PythonParse { allow_inf_nan: true, cache_mode: StringCacheMode::Keys, ..PythonParse::default() };
    let parse = |text: &[u8]| parser.python_parse(py, text).ok()?.cast_into_exact::<PyDict>().ok();
    arrays::members(py, script, body, parse).or_else(|| parse(body))
}

/// `inputs.InputError` has the status and the message of the reply. Any other exception is an error
/// of the server.
pub(super) fn refusal(py: Python<'_>, error: PyErr) -> InputError {
    let value = error.value(py);
    let status = value.getattr(intern!(py, "status")).and_then(|status| status.extract::<u16>());
    let message = value.getattr(intern!(py, "message")).and_then(|message| message.extract::<String>());
    match (status, message) {
        (Ok(status), Ok(message)) => InputError::Refused(status, message),
        _ => InputError::Internal(error),
    }
}

/// The `request_headers` dict of contract section 10.
pub(in crate::worker) fn request_headers<'py>(py: Python<'py>, fields: &[Field]) -> PyResult<Bound<'py, PyDict>> {
    let headers = PyDict::new(py);
    for (name, value) in fields {
        if name.contains(&b'_') || (value.is_empty() && name.eq_ignore_ascii_case(b"content-type")) {
            continue;
        }
        let name = latin1(py, title_case(name).as_bytes());
        let value = latin1(py, value);
        let joined = match headers.get_item(&name)? {
            Some(earlier) => earlier.add(intern!(py, ","))?.add(value)?,
            None => value.into_any(),
        };
        headers.set_item(name, joined)?;
    }
    Ok(headers)
}

/// `x-all-caps` to `X-All-Caps`: upper case at the start and behind every dash (names arrive in
/// lower case).
fn title_case(name: &[u8]) -> String {
    let mut at_start = true;
    name.iter()
        .map(|&byte| {
            // `X.Dot`: whatever is not a letter starts a new word, as str.title() has it.
            let shown = if at_start { byte.to_ascii_uppercase() } else { byte };
            at_start = !byte.is_ascii_alphabetic();
            char::from(shown)
        })
        .collect()
}

/// Bytes as text, one character each.
pub(in crate::worker) fn latin1<'py>(py: Python<'py>, bytes: &[u8]) -> Bound<'py, PyString> {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.is_ascii() => PyString::new(py, text),
        _ => PyString::new(py, &bytes.iter().copied().map(char::from).collect::<String>()),
    }
}

#[cfg(test)]
mod tests {
    use super::{is_multipart_form, title_case};

    #[test]
    fn names_are_title_cased_as_contract_section_10_shows() {
        for (sent, shown) in
            [("x-all-caps", "X-All-Caps"), ("etag", "Etag"), ("te", "Te"), ("x.dot", "X.Dot"), ("x-2b", "X-2B")]
        {
            assert_eq!(title_case(sent.as_bytes()), shown);
        }
    }

    #[test]
    fn forms_need_a_boundary() {
        for (content_type, expected) in [
            ("multipart/form-data; boundary=x", true),
            ("Multipart/Form-Data;charset=a; Boundary=\"x\"", true),
            ("multipart/form-data", false),
            ("multipart/form-data; boundary=", false),
            ("multipart/mixed; boundary=x", false),
            ("application/x-www-form-urlencoded", false),
            ("", false),
        ] {
            assert_eq!(is_multipart_form(content_type.as_bytes()), expected, "{content_type}");
        }
    }
}
