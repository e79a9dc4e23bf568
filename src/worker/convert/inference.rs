//! Between the bodies of the Open Inference Protocol and `scripting/open_inference.py`: parses the JSON of a request,
//! shows the bytes of tensors to numpy without copying them, and writes the JSON of a reply.
//!
//! Runs on the worker's thread.

#![allow(unsafe_code)]

use std::ffi::c_int;

use bytes::Bytes;
use jiter::{PythonParse, StringCacheMode};
use pyo3::{
    ffi, intern,
    prelude::*,
    pybacked::PyBackedBytes,
    types::{PyByteArray, PyBytes, PyDict, PyList},
};

use super::{
    input::{refusal, InputError},
    output,
};
use crate::{ipc::frame::Inference, worker::claimed_job::ClaimedJob, worker::script::Script};

/// Memory of tensors begins at a multiple of this many bytes, if nothing is in the way.
#[cfg(unix)]
const ALIGNMENT: usize = 16;

/// Header of a reply whose tensors follow the JSON as bytes.
const JSON_LENGTH: &[u8] = b"inference-header-content-length";

/// What has been made of a request: the keyword arguments of `run()`, and what the reply must have
/// (`open_inference.Asked`).
pub(in crate::worker) struct Decoded<'py> {
    pub(in crate::worker) arguments: Bound<'py, PyDict>,
    pub(in crate::worker) asked: Bound<'py, PyAny>,
}

/// How many bytes must precede a body in memory, so that tensors behind its JSON are aligned.
#[cfg(unix)]
pub(in crate::worker) fn padding(inference: &Inference) -> usize {
    json_length(inference).unwrap_or(None).map_or(0, |length| length.wrapping_neg() % ALIGNMENT)
}

/// The value of the header; `None` if the client has not sent it.
fn json_length(inference: &Inference) -> Result<Option<usize>, InputError> {
    let text = String::from_utf8_lossy(&inference.json_length);
    if text.is_empty() {
        return Ok(None);
    }
    match text.trim().parse() {
        Ok(length) => Ok(Some(length)),
        Err(_) => {
            let message =
                format!("Inference-Header-Content-Length is {text:?}. It must be the length of the JSON in bytes.");
            Err(InputError::Refused(400, message))
        }
    }
}

/// The arguments of `run()`. With `shares_body` code of the script may read the body as well, so tensors get a copy.
pub(in crate::worker) fn decode<'py>(
    py: Python<'py>,
    script: &Script<'py>,
    claimed: &ClaimedJob,
    inference: &Inference,
    shares_body: bool,
) -> Result<Decoded<'py>, InputError> {
    let body = &claimed.body;
    let refused = |message: String| InputError::Refused(400, message);
    let length = json_length(inference)?;
    let Some((json, tensors)) = body.split_at_checked(length.unwrap_or(body.len())) else {
        let (length, sent) = (length.unwrap_or_default(), body.len());
        return Err(refused(format!(
            "Inference-Header-Content-Length is {length}, but the body has only {sent} bytes. It must be the length of the JSON \
             in bytes."
        )));
    };
    // The bytes of a tensor alone: the model says what they are.
    let is_bare = json.is_empty() && !tensors.is_empty();
    if json.is_empty() && !is_bare {
        return Err(refused("The body is empty. Send an inference request in JSON.".to_owned()));
    }
    let parser = PythonParse { allow_inf_nan: true, cache_mode: StringCacheMode::Keys, ..PythonParse::default() };
    let parsed = if is_bare { Ok(py.None().into_bound(py)) } else { parser.python_parse(py, json) };
    let document = parsed.map_err(|error| {
        let remedy = match length {
            None if json.contains(&0) => {
                " If tensors follow the JSON as bytes, send the header Inference-Header-Content-Length."
            }
            _ => "",
        };
        refused(format!("The inference request is not JSON: {}.{remedy}", error.description(json)))
    })?;
    let memory = match length {
        None => None,
        Some(_) => Some(memory_of(py, claimed.object.as_ref().filter(|_| !shares_body), tensors)?),
    };
    let decoded = script.object.call_method1(intern!(py, "decode_inference"), (document, memory, is_bare));
    let (arguments, asked) = decoded.map_err(|error| refusal(py, error))?.extract()?;
    Ok(Decoded { arguments, asked })
}

/// The bytes of tensors as an object whose memory numpy arrays may use and change. `tensors` is the end of the body, and
/// `received` the object that the body was received into, if the tensors may stay there.
fn memory_of<'py>(py: Python<'py>, received: Option<&Py<PyBytes>>, tensors: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    match received {
        // No bytes object is written to that has fewer than two bytes, because the interpreter has one object for each
        // value of a byte, which all code of the process shares.
        Some(object) if !tensors.is_empty() && object.bind(py).as_bytes().len() > 1 => {
            let offset = object.bind(py).as_bytes().len() - tensors.len();
            Ok(Bound::new(py, Memory { bytes: object.clone_ref(py), offset })?.into_any())
        }
        _ => Ok(PyByteArray::new(py, tensors).into_any()),
    }
}

/// The bytes of tensors where they were received, behind the JSON of a request. numpy arrays use them without a copy, and may
/// be changed as any other arguments of `run()`.
#[pyclass(frozen)]
struct Memory {
    bytes: Py<PyBytes>,
    offset: usize,
}

#[pymethods]
impl Memory {
    /// # Safety
    ///
    /// Python calls this, with a `view` that it owns.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let memory = slf.get();
        let bytes = memory.bytes.bind(slf.py());
        let length = ffi::Py_ssize_t::try_from(bytes.as_bytes().len() - memory.offset)?;
        // SAFETY: the view keeps a reference to this object, and this object one to the bytes, so the memory stays. It may be
        // written to, because no other code reads these bytes once the JSON before them has been parsed: they were received
        // into an object that only the job has, and the script does not get it (`shares_body`). `memory_of` takes none of the
        // one-byte objects that the interpreter shares.
        let filled = unsafe {
            let start = ffi::PyBytes_AS_STRING(bytes.as_ptr()).cast_mut().add(memory.offset);
            ffi::PyBuffer_FillInfo(view, slf.as_ptr(), start.cast(), length, 0, flags)
        };
        match filled {
            0 => Ok(()),
            _ => Err(PyErr::fetch(slf.py())),
        }
    }
}

/// A reply: the value of `Inference-Header-Content-Length`, if tensors follow the JSON as bytes, and the body.
pub(in crate::worker) struct Encoded {
    pub(in crate::worker) json_length: Option<(Bytes, Bytes)>,
    pub(in crate::worker) body: Bytes,
}

/// Writes an `open_inference.Encoded`: the reply without the tensors that are sent as bytes, and those.
pub(in crate::worker) fn encode<'py>(
    script: &Script<'py>,
    document: &Bound<'py, PyAny>,
    tensors: &[Bound<'py, PyAny>],
) -> PyResult<Encoded> {
    let py = document.py();
    let json = match output::to_json(document) {
        Ok(json) => PyBytes::new(py, &json),
        Err(output::Unusual) => {
            script.object.call_method1(intern!(py, "to_json"), (document,))?.cast_into::<PyBytes>()?
        }
    };
    if tensors.is_empty() {
        return Ok(Encoded { json_length: None, body: Bytes::from_owner(PyBackedBytes::from(json)) });
    }
    let length = json.as_bytes().len().to_string();
    let parts = PyList::new(py, std::iter::once(json.as_any()).chain(tensors))?;
    let body = PyBytes::new(py, b"").call_method1(intern!(py, "join"), (parts,))?.cast_into::<PyBytes>()?;
    Ok(Encoded {
        json_length: Some((Bytes::from_static(JSON_LENGTH), length.into())),
        body: Bytes::from_owner(PyBackedBytes::from(body)),
    })
}
