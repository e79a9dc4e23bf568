//! A reply of the worker before it is framed, and what it is made of.

use bytes::Bytes;
use pyo3::prelude::*;

use crate::{
    ipc::frame::{Field, Origin},
    json::write,
};

/// Content type of replies that the worker writes itself.
pub(super) const JSON: Field = (Bytes::from_static(b"content-type"), Bytes::from_static(b"application/json"));

/// A reply before it is framed.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) origin: Origin,
    pub(super) run_ms: Option<f64>,
    pub(super) error_location: Bytes,
    pub(super) fields: Vec<Field>,
    pub(super) outcome: Outcome,
}

/// The body of a reply.
pub(super) enum Outcome {
    /// All of it.
    Whole(Bytes),
    /// An iterator whose first part has been fetched, so that a failure before it is still a proper error reply.
    Stream {
        /// The first part; `None` if the stream is empty.
        first: Option<Bytes>,
        /// The iterator with the others.
        rest: Py<PyAny>,
    },
    /// Parts that an async script makes. They are sent as they come.
    #[cfg_attr(not(unix), allow(dead_code))]
    AsyncStream,
}

/// The origin by its name in `scripting/outputs.py`.
pub(super) fn origin_named(name: &str) -> PyResult<Origin> {
    match name {
        "result" => Ok(Origin::Result),
        "response" => Ok(Origin::Response),
        "script_error" => Ok(Origin::ScriptError),
        "server_error" => Ok(Origin::ServerError),
        "timeout" => Ok(Origin::Timeout),
        other => Err(pyo3::exceptions::PyValueError::new_err(format!("unknown origin {other:?} of an answer"))),
    }
}

/// An error that the script has not made: `{"message": …}`.
pub(super) fn error_reply(status: u16, message: &str) -> Reply {
    Reply {
        status,
        origin: Origin::ServerError,
        run_ms: None,
        error_location: Bytes::new(),
        fields: vec![JSON],
        outcome: Outcome::Whole(write::message_body(message).into()),
    }
}

/// The reply to a request whose time is over.
#[cfg(unix)]
pub(super) fn timeout_reply(message: &str) -> Reply {
    Reply { origin: Origin::Timeout, ..error_reply(500, message) }
}

/// The reply to a request whose call was cancelled, because its client has left. Nobody gets it.
#[cfg(unix)]
pub(super) fn cancelled_reply() -> Reply {
    Reply { origin: Origin::Cancelled, ..error_reply(503, "The client has left.") }
}

/// Header text as bytes, one per character; anything beyond latin-1 cannot be sent.
pub(super) fn to_latin1(text: &str) -> PyResult<Bytes> {
    if text.is_ascii() {
        return Ok(Bytes::copy_from_slice(text.as_bytes()));
    }
    let bytes = text.chars().map(|character| u8::try_from(u32::from(character)));
    bytes.collect::<Result<Vec<u8>, _>>().map(Bytes::from).map_err(|_| {
        pyo3::exceptions::PyValueError::new_err(format!("the header text {text:?} has characters beyond latin-1"))
    })
}
