//! A reply of the worker before it is framed, and what it is made of.

use bytes::Bytes;
use pyo3::prelude::*;

use crate::{
    ipc::frame::{Field, Origin},
    json::write,
};

/// Content type of replies that the worker writes itself.
pub(super) const JSON: Field = (Bytes::from_static(b"content-type"), Bytes::from_static(b"application/json"));

/// Content type of replies with tensors as bytes.
pub(super) const OCTETS: Field = (Bytes::from_static(b"content-type"), Bytes::from_static(b"application/octet-stream"));

/// A reply before it is framed.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) origin: Origin,
    pub(super) run_ms: Option<f64>,
    pub(super) error_location: Bytes,
    pub(super) fields: Vec<Field>,
    pub(super) outcome: Outcome,
}

impl Reply {
    /// The reply in the form of the Open Inference Protocol, which has `error` where `/score` has `message`.
    pub(super) fn in_form_of_v2(self) -> Self {
        let body = match (&self.origin, &self.outcome) {
            (Origin::Result | Origin::Response, _) => None,
            (_, Outcome::Whole(body)) => error_of_v2(body),
            _ => None,
        };
        match body {
            Some(body) => Self { outcome: Outcome::Whole(body.into()), ..self },
            None => self,
        }
    }
}

/// `{"message": …}` as `{"error": …}`, with what `--error_details` adds. `None` for a body of another form, such as a page.
fn error_of_v2(body: &[u8]) -> Option<Vec<u8>> {
    let mut members: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(body).ok()?;
    let message = members.remove("message")?;
    let message = message.as_str()?;
    let error = match members.get("error").and_then(|detail| detail.as_str()) {
        Some(detail) => format!("{message} {detail}"),
        None => message.to_owned(),
    };
    if members.is_empty() {
        return Some(write::error_body(&error));
    }
    members.insert("error".to_owned(), error.into());
    serde_json::to_vec(&members).ok()
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

#[cfg(test)]
mod tests {
    use super::error_of_v2;

    #[test]
    fn errors_of_the_open_inference_protocol_have_the_message_as_error() {
        for (body, expected) in [
            (r#"{"message": "no \"x\""}"#, Some(r#"{"error": "no \"x\""}"#)),
            (
                r#"{"message": "It failed.", "error": "KeyError: 1", "location": "score.py:1"}"#,
                Some(r#"{"error":"It failed. KeyError: 1","location":"score.py:1"}"#),
            ),
            ("<html>", None),
            ("[1]", None),
        ] {
            let made = error_of_v2(body.as_bytes()).map(|made| String::from_utf8_lossy(&made).into_owned());
            assert_eq!(made.as_deref(), expected, "{body}");
        }
    }
}
