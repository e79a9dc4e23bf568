//! One request on its way to a worker, and the place of its body.

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::telemetry::trace_context::Span;

use super::{
    codec::{encode, put_bytes, put_fields, Reader},
    Frame, FrameError, Kind,
};

/// The scheme of the client, in place of 0 for an unknown one.
const HTTP: u8 = 1;
const HTTPS: u8 = 2;

/// What precedes a span in the head of a job, in place of 0 for no span.
const SAMPLED: u8 = 2;
const UNSAMPLED: u8 = 1;

/// Name and value of a header field. They are bytes, because HTTP does not require values to be
/// valid text.
pub type Field = (Bytes, Bytes);

/// What a request of the Open Inference Protocol has beyond one to `/score`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inference {
    /// The path that the client sent, for log lines.
    pub path: Bytes,
    /// The value of `Inference-Header-Content-Length`: how many bytes of the body are JSON, before those of tensors. Empty
    /// if all of them are.
    pub json_length: Bytes,
}

/// One request, for a worker. If the worker did not set `wants_request`, `target`, `peer`,
/// `client`, `is_https` and `fields` are empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Job {
    /// Names the job in replies and cancellations. A front never uses an id again.
    pub id: u64,
    /// Request method, upper case.
    pub method: String,
    /// Request target, as the client sent it.
    pub target: Bytes,
    /// The text after the first `?` of the target, as the client sent it.
    pub query: Bytes,
    /// The Content-Type field, empty if there is none.
    pub content_type: Bytes,
    /// Minor version of HTTP/1.x.
    pub http_minor: u8,
    /// True if `target`, `peer`, `client`, `is_https` and `fields` are filled.
    pub whole_request: bool,
    /// True if the client sent the deprecated header `x-ms-request-id`. A warning in the log says
    /// so.
    pub deprecated_id: bool,
    /// Address of the connection's other end, `ip:port`.
    pub peer: String,
    /// Address of the client, `ip:port`, if a trusted proxy names it; else empty.
    pub client: String,
    /// Whether the client used https, if a trusted proxy says that.
    pub is_https: Option<bool>,
    /// The `x-request-id` of the reply; empty if the client sent it empty.
    pub request_id: Bytes,
    /// The `x-ms-client-request-id` of the reply; empty if the client sent none.
    pub client_request_id: Bytes,
    /// The span that the call of `run()` belongs to: that of the server, or else that of the
    /// client.
    pub span: Option<Span>,
    /// The caller's `tracestate`, if the worker set `follows_traces`.
    pub tracestate: Bytes,
    /// Set if the body is a request of the Open Inference Protocol.
    pub inference: Option<Inference>,
    /// Header fields in the order sent, names in lower case.
    pub fields: Vec<Field>,
}

/// The place of a body in the memory that front and workers share (`ipc/body_arena.rs`), in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Position in the file.
    pub offset: u64,
    /// Length of the body.
    pub length: u64,
}

impl Place {
    /// Takes the place from the head of a [`Kind::SharedJob`]. The rest is the head of a
    /// [`Kind::Job`].
    pub fn split_from(head: &mut Bytes) -> Result<Self, FrameError> {
        let mut fields = Reader::new(head, "place");
        let place = Self { offset: fields.u64()?, length: fields.u64()? };
        *head = fields.rest();
        Ok(place)
    }
}

/// Where the worker finds the body of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyAt {
    /// The body is in the same frame. The number is its length in bytes.
    Frame(usize),
    /// The body is in shared memory.
    Shared(Place),
}

/// Writes the prefix and the head of a job.
fn encode_job(body: BodyAt, write_head: impl FnOnce(&mut BytesMut)) -> Bytes {
    let encoded = match body {
        BodyAt::Frame(length) => encode(Kind::Job, length, write_head),
        BodyAt::Shared(place) => encode(Kind::SharedJob, 0, |out| {
            out.put_u64_le(place.offset);
            out.put_u64_le(place.length);
            write_head(out);
        }),
    };
    encoded.freeze()
}

impl Job {
    /// Reads only the id from the frame of a job.
    pub fn decode_id(frame: &Frame) -> Result<u64, FrameError> {
        Reader::new(&frame.head, "job id").u64()
    }

    /// Writes the prefix and the head. If the body is in the same frame, the caller sends it after
    /// them.
    pub fn encode_head(&self, body: BodyAt) -> Bytes {
        self.encode(body, true)
    }

    /// Writes the prefix and the head for a worker that did not set `wants_request`. Fields that it
    /// does not need are empty.
    pub fn encode_short_head(&self, body: BodyAt) -> Bytes {
        self.encode(body, false)
    }

    fn encode(&self, body: BodyAt, whole: bool) -> Bytes {
        let (target, peer, client, fields) =
            if whole { (&*self.target, &*self.peer, &*self.client, &*self.fields) } else { (&[][..], "", "", &[][..]) };
        encode_job(body, |out| {
            out.put_u64_le(self.id);
            out.put_u8(self.http_minor);
            out.put_u8(whole.into());
            out.put_u8(self.deprecated_id.into());
            let parts =
                [self.method.as_bytes(), target, &self.query, &self.content_type, peer.as_bytes(), client.as_bytes()];
            for part in parts {
                put_bytes(out, part);
            }
            out.put_u8(match self.is_https.filter(|_| whole) {
                None => 0,
                Some(false) => HTTP,
                Some(true) => HTTPS,
            });
            self.put_ids(out);
            match &self.inference {
                None => out.put_u8(0),
                Some(Inference { path, json_length }) => {
                    out.put_u8(1);
                    put_bytes(out, path);
                    put_bytes(out, json_length);
                }
            }
            put_fields(out, fields);
        })
    }

    fn put_ids(&self, out: &mut BytesMut) {
        for id in [&self.request_id, &self.client_request_id, &self.tracestate] {
            put_bytes(out, id);
        }
        match self.span {
            None => out.put_u8(0),
            Some(Span { trace_id, span_id, is_sampled }) => {
                out.put_u8(if is_sampled { SAMPLED } else { UNSAMPLED });
                out.extend_from_slice(&trace_id);
                out.extend_from_slice(&span_id);
            }
        }
    }

    /// Reads the head of a [`Kind::Job`] frame.
    pub fn decode(frame: &Frame) -> Result<Self, FrameError> {
        const WHAT: &str = "job";
        let mut head = Reader::new(&frame.head, WHAT);
        let job = Self {
            id: head.u64()?,
            http_minor: head.u8()?,
            whole_request: head.flag()?,
            deprecated_id: head.flag()?,
            method: head.text()?,
            target: head.bytes()?,
            query: head.bytes()?,
            content_type: head.bytes()?,
            peer: head.text()?,
            client: head.text()?,
            is_https: match head.u8()? {
                0 => None,
                HTTP => Some(false),
                HTTPS => Some(true),
                _ => return Err(FrameError::Malformed(WHAT)),
            },
            request_id: head.bytes()?,
            client_request_id: head.bytes()?,
            tracestate: head.bytes()?,
            span: read_span(&mut head)?,
            inference: match head.flag()? {
                false => None,
                true => Some(Inference { path: head.bytes()?, json_length: head.bytes()? }),
            },
            fields: head.fields()?,
        };
        head.end()?;
        Ok(job)
    }
}

fn read_span(head: &mut Reader<'_>) -> Result<Option<Span>, FrameError> {
    let is_sampled = match head.u8()? {
        0 => return Ok(None),
        UNSAMPLED => false,
        SAMPLED => true,
        _ => return Err(FrameError::Malformed("job")),
    };
    Ok(Some(Span { trace_id: head.array()?, span_id: head.array()?, is_sampled }))
}
