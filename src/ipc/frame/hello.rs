//! The first message of a worker: what it is, and how to call its script.

use bytes::BytesMut;

use super::{codec::encode, Frame, FrameError, Kind};

/// What a worker tells the front about itself and its script.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Hello {
    /// [`PROTOCOL_VERSION`] of the worker.
    pub protocol: u16,
    /// The supervisor's name for the worker: its process id, or its number if it is a thread.
    pub worker: u32,
    /// Id of its process, for log lines.
    pub pid: u32,
    /// True if the worker uses the counter of claimed jobs whose memory the front has sent
    /// (`ipc/claims.rs`).
    pub shares_claims: bool,
    /// True if OPTIONS and HEAD on `/score` reach the script (`@rawhttp`, contract section 11).
    pub raw: bool,
    /// True if jobs must have the request's headers, target and peer address. Otherwise the front
    /// sends only method, query, content type and body.
    pub wants_request: bool,
    /// True if jobs must have the caller's trace context, because the script uses OpenTelemetry.
    pub follows_traces: bool,
    /// True if the worker can read bodies in shared memory (`ipc/body_arena.rs`).
    pub shares_bodies: bool,
    /// How many jobs it may run at once; at least 1.
    pub capacity: u16,
    /// How many jobs it may claim together, for one call of `run()`; 1 if it makes no batches.
    pub batch: u16,
    /// True if its jobs go on while it waits for the front: it holds one stream while others go on.
    pub concurrent: bool,
    /// True if it cancels the call of a client that leaves.
    pub cancels: bool,
    /// The description of the model in JSON (Open Inference Protocol); empty if the front does not serve it.
    pub model: String,
    /// The text of the Swagger documents by version: `"2"`, `"3"`, `"3.1"` (contract section 14).
    pub swagger: std::collections::BTreeMap<String, String>,
}

impl Hello {
    /// Makes the whole frame.
    pub fn encode(&self) -> Result<BytesMut, serde_json::Error> {
        let body = serde_json::to_vec(self)?;
        let mut out = encode(Kind::Hello, body.len(), |_| ());
        out.extend_from_slice(&body);
        Ok(out)
    }

    /// Reads the body of a [`Kind::Hello`] frame.
    pub fn decode(frame: &Frame) -> Result<Self, FrameError> {
        serde_json::from_slice(&frame.body).map_err(|_| FrameError::Malformed("hello"))
    }
}
