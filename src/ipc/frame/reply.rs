//! The head of a reply, complete or streamed.

use bytes::{BufMut as _, Bytes};

use super::{
    codec::{encode, limited, put_bytes, put_fields, Reader},
    Field, Frame, FrameError, Kind, MAX_BODY_LEN, MAX_HEAD_LEN, PREFIX_LEN,
};

/// The origin of a reply. It decides which headers the front adds (contract sections 5, 7 and 8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Origin {
    /// `run()` returned a plain result, rendered as JSON. The front adds `x-ms-run-function-failed:
    /// False`.
    #[default]
    Result = 0,
    /// `run()` returned a Response object. The front adds `x-ms-run-function-failed: True` if its
    /// status is 500 or more, and otherwise no such header.
    Response = 1,
    /// `run()` raised an exception. The front adds `x-ms-run-function-failed: True`.
    ScriptError = 2,
    /// The input was refused, or the result could not be rendered. The front adds
    /// `x-ms-run-function-failed: False`.
    ServerError = 3,
    /// `run()` exceeded its time limit. The front adds `x-ms-run-function-failed: True`.
    Timeout = 4,
    /// The call was cancelled, because the client has left. Nobody gets the reply.
    Cancelled = 5,
}

/// A reply without its body.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ReplyHead {
    /// The job that this reply answers.
    pub id: u64,
    /// HTTP status code.
    pub status: u16,
    /// The origin of the reply.
    pub origin: Origin,
    /// True if the worker has written the request's log lines, because its script has changed the
    /// logger.
    pub is_logged: bool,
    /// Milliseconds that `run()` took, also if it failed; `None` if it was not called.
    pub run_ms: Option<f64>,
    /// Milliseconds that the worker was busy with the job, including its input and output. The
    /// front decides by it how many jobs it prefetches (`dispatch/prefetch.rs`).
    pub busy_ms: f64,
    /// Value of `x-ms-server-version`, which the script can change by an environment variable;
    /// empty for no header (contract section 9).
    pub server_version: Bytes,
    /// Value of `x-ms-run-error-location`; empty for no header.
    pub error_location: Bytes,
    /// Header fields that the script has set, and the content type.
    pub fields: Vec<Field>,
}

impl ReplyHead {
    /// Writes the prefix and the head of a [`Kind::Reply`] or [`Kind::StreamStart`]. The caller
    /// sends `body_len` bytes of body after them. Returns an error if head or body exceed the
    /// limits of the front, because nothing else limits the reply of a script.
    pub fn encode(&self, kind: Kind, body_len: usize) -> Result<Bytes, FrameError> {
        limited("body", body_len as u64, MAX_BODY_LEN)?;
        let encoded = encode(kind, body_len, |out| {
            out.put_u64_le(self.id);
            out.put_u16_le(self.status);
            out.put_u8(self.origin as u8);
            out.put_u8(self.is_logged.into());
            out.put_f64_le(self.run_ms.unwrap_or(f64::NAN));
            out.put_f64_le(self.busy_ms);
            put_bytes(out, &self.server_version);
            put_bytes(out, &self.error_location);
            put_fields(out, &self.fields);
        });
        limited("head", (encoded.len() - PREFIX_LEN) as u64, MAX_HEAD_LEN as u64)?;
        Ok(encoded.freeze())
    }

    /// Reads the head of a [`Kind::Reply`] or [`Kind::StreamStart`] frame.
    pub fn decode(frame: &Frame) -> Result<Self, FrameError> {
        const WHAT: &str = "reply";
        let mut head = Reader::new(&frame.head, WHAT);
        let reply = Self {
            id: head.u64()?,
            status: head.u16()?,
            origin: match head.u8()? {
                0 => Origin::Result,
                1 => Origin::Response,
                2 => Origin::ScriptError,
                3 => Origin::ServerError,
                4 => Origin::Timeout,
                5 => Origin::Cancelled,
                _ => return Err(FrameError::Malformed(WHAT)),
            },
            is_logged: head.flag()?,
            run_ms: Some(head.f64()?).filter(|ms| !ms.is_nan()),
            busy_ms: head.f64()?,
            server_version: head.bytes()?,
            error_location: head.bytes()?,
            fields: head.fields()?,
        };
        head.end()?;
        Ok(reply)
    }
}
