//! The wire format between the front and a worker: one codec, used by both ends.
//!
//! Owns the frame layout, its limits and the conversion of each message to and from bytes. It does no I/O and knows
//! neither sockets nor Python, so every partial read can be tested here. Runs in the front's event loop and on a
//! worker's main thread.
//!
//! Layout, little endian: `kind: u8 | head_len: u32 | body_len: u64 | head | body`. The head carries the small fields,
//! the body is passed through untouched and never copied by the codec (`Bytes` slices of the read buffer).

use bytes::{Buf, BufMut, Bytes, BytesMut};

#[cfg(test)]
pub(crate) mod tests;

/// Version of the protocol; part of [`Hello`], so that a stray peer is refused before any job is sent to it.
pub const PROTOCOL_VERSION: u16 = 3;
/// Bytes in front of every head.
pub const PREFIX_LEN: usize = 13;
/// Largest head: header fields and target of a request are limited far below this by the HTTP parser.
pub const MAX_HEAD_LEN: usize = 4 << 20;
/// Largest body that a worker may send.
pub const MAX_BODY_LEN: u64 = u32::MAX as u64;
/// The decoder reserves at most this much ahead of the bytes that really arrived.
const MAX_RESERVE: usize = 1 << 20;

/// Why bytes are not a frame. The connection is beyond repair after any of these.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FrameError {
    /// The kind byte is none of [`Kind`].
    #[error("unknown frame kind {0}")]
    UnknownKind(u8),
    /// A declared length is above its limit.
    #[error("frame {what} of {len} bytes is above the limit of {limit}")]
    TooLong {
        /// `head` or `body`.
        what: &'static str,
        /// The declared length in bytes.
        len: u64,
        /// The largest accepted length in bytes.
        limit: u64,
    },
    /// The head ends early, has bytes left over, or holds text that is not UTF-8.
    #[error("frame head does not hold a {0}")]
    Malformed(&'static str),
}

/// What a frame is. The number is the wire value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Worker to front, first frame: who it is and how its script wants to be called. Again whenever that changes.
    Hello = 1,
    /// Front to worker: one request.
    Job = 2,
    /// Worker to front: a complete reply.
    Reply = 3,
    /// Worker to front: status and headers of a streamed reply.
    StreamStart = 4,
    /// Worker to front: one part of a streamed reply.
    StreamChunk = 5,
    /// Worker to front: end of a streamed reply; a non-empty body is the reason it broke off.
    StreamEnd = 6,
    /// Front to worker: the client of this job left; stop streaming to it.
    Cancel = 7,
    /// Front to worker: no more jobs will come; finish and exit.
    Retire = 8,
    /// Worker to front: it will not start any job that it has not answered yet.
    Goodbye = 9,
    /// Worker to front: it found a job revoked and did not start it.
    Skipped = 10,
    /// Front to worker: one request, whose body is in shared memory. Its head begins with the [`Place`].
    SharedJob = 12,
}

impl Kind {
    fn from_wire(value: u8) -> Result<Self, FrameError> {
        Ok(match value {
            1 => Self::Hello,
            2 => Self::Job,
            3 => Self::Reply,
            4 => Self::StreamStart,
            5 => Self::StreamChunk,
            6 => Self::StreamEnd,
            7 => Self::Cancel,
            8 => Self::Retire,
            9 => Self::Goodbye,
            10 => Self::Skipped,
            12 => Self::SharedJob,
            other => return Err(FrameError::UnknownKind(other)),
        })
    }
}

/// One decoded frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub kind: Kind,
    /// The small fields, still encoded.
    pub head: Bytes,
    /// The payload.
    pub body: Bytes,
}

impl Frame {
    /// The frame that `encoded`, followed by `body`, is on a socket: for the way between two threads, which needs none.
    ///
    /// `encoded` is what one of this file's functions made. It may hold the body already; then `body` is empty.
    pub fn from_parts(mut encoded: Bytes, body: Bytes) -> Result<Self, FrameError> {
        let Some(prefix) = encoded.first_chunk::<PREFIX_LEN>() else {
            return Err(FrameError::Malformed("frame"));
        };
        let mut prefix = &prefix[..];
        let kind = Kind::from_wire(prefix.get_u8())?;
        let head_len = prefix.get_u32_le() as usize;
        encoded.advance(PREFIX_LEN);
        if encoded.len() == head_len {
            return Ok(Self { kind, head: encoded, body });
        }
        if encoded.len() < head_len || !body.is_empty() {
            return Err(FrameError::Malformed("frame"));
        }
        let head = encoded.split_to(head_len);
        Ok(Self { kind, head, body: encoded })
    }
}

/// Cuts frames out of a growing read buffer.
#[derive(Debug, Clone, Copy)]
pub struct Decoder {
    /// Largest accepted body in bytes.
    pub max_body_len: u64,
    /// The other end is the front: room is made for all of a frame at once.
    pub trusted: bool,
}

impl Decoder {
    /// The next whole frame in `buf`, or `None` if more bytes are needed (which is not an error).
    ///
    /// On `None`, room for the rest of the frame has been reserved, though never much more than what has already
    /// arrived, unless the other end is trusted: a length that a script's process declares cannot make this end allocate.
    pub fn decode(&self, buf: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        let Some((kind, head_len, body_len)) = self.prefix(buf)? else { return Ok(None) };
        let total = PREFIX_LEN + head_len + body_len;
        if buf.len() < total {
            let missing = total - buf.len();
            buf.reserve(if self.trusted { missing } else { missing.min(buf.len().max(MAX_RESERVE)) });
            return Ok(None);
        }
        buf.advance(PREFIX_LEN);
        let head = buf.split_to(head_len).freeze();
        let body = buf.split_to(body_len).freeze();
        Ok(Some(Frame { kind, head, body }))
    }

    /// Cuts off the head of a job whose body has `least` bytes or more, of which some are still to come. What has come is
    /// left in `buf`. Returns the length of the body as well; `None` for everything that is not such a job.
    pub fn decode_large_job(&self, buf: &mut BytesMut, least: usize) -> Result<Option<(Bytes, usize)>, FrameError> {
        let Some((kind, head_len, body_len)) = self.prefix(buf)? else { return Ok(None) };
        let in_head = buf.len() < PREFIX_LEN + head_len;
        if kind != Kind::Job || body_len < least || in_head || buf.len() >= PREFIX_LEN + head_len + body_len {
            return Ok(None);
        }
        buf.advance(PREFIX_LEN);
        Ok(Some((buf.split_to(head_len).freeze(), body_len)))
    }

    /// Kind, length of the head and length of the body, as soon as they have come.
    fn prefix(&self, buf: &[u8]) -> Result<Option<(Kind, usize, usize)>, FrameError> {
        let Some(mut prefix) = buf.get(..PREFIX_LEN) else { return Ok(None) };
        let kind = Kind::from_wire(prefix.get_u8())?;
        let head_len = limited("head", u64::from(prefix.get_u32_le()), MAX_HEAD_LEN as u64)?;
        let body_len = limited("body", prefix.get_u64_le(), self.max_body_len)?;
        Ok(Some((kind, head_len, body_len)))
    }
}

fn limited(what: &'static str, len: u64, limit: u64) -> Result<usize, FrameError> {
    match usize::try_from(len) {
        Ok(small) if len <= limit => Ok(small),
        _ => Err(FrameError::TooLong { what, len, limit }),
    }
}

/// Writes prefix and head of a frame; the caller sends the body after it (usually with one vectored write).
fn encode(kind: Kind, body_len: usize, write_head: impl FnOnce(&mut BytesMut)) -> BytesMut {
    let mut out = BytesMut::with_capacity(128);
    out.put_u8(kind as u8);
    out.put_u32_le(0);
    out.put_u64_le(body_len as u64);
    write_head(&mut out);
    let head_len = u32::try_from(out.len() - PREFIX_LEN).unwrap_or(u32::MAX);
    out[1..5].copy_from_slice(&head_len.to_le_bytes());
    out
}

/// How the front must talk to this worker's script.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Hello {
    /// [`PROTOCOL_VERSION`] of the worker.
    pub protocol: u16,
    /// How the supervisor calls the worker: by its process id, or by its number if it is a thread.
    pub worker: u32,
    /// Id of its process, for log lines.
    pub pid: u32,
    /// True if the worker shares the counter of started jobs that the front has sent (`claims.rs`).
    pub shares_claims: bool,
    /// True if OPTIONS and HEAD on `/score` reach the script (`@rawhttp`, contract section 11).
    pub raw: bool,
    /// True if jobs must carry request headers, target and peer; otherwise only method, query and body are sent.
    pub wants_request: bool,
    /// True if jobs may have their bodies in shared memory (`shared_bodies.rs`).
    pub shares_bodies: bool,
    /// Jobs that it may run at once; at least 1.
    pub capacity: u16,
    /// Swagger documents by version (`"2"`, `"3"`, `"3.1"`), as the text to serve (contract section 14).
    pub swagger: std::collections::BTreeMap<String, String>,
}

impl Hello {
    /// The whole frame.
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

/// A name and value of a header field. Values are raw bytes: HTTP does not promise text.
pub type Field = (Bytes, Bytes);

/// One request as a worker needs it. Without `wants_request` only `id`, `method`, `query`, `content_type` and
/// the body are filled.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Job {
    /// Names the job in replies and cancellations; never reused by one front.
    pub id: u64,
    /// Request method, upper case.
    pub method: String,
    /// Request target as sent.
    pub target: Bytes,
    /// Raw query text behind the first `?`.
    pub query: Bytes,
    /// The Content-Type field, empty if there is none.
    pub content_type: Bytes,
    /// Minor version of HTTP/1.x.
    pub http_minor: u8,
    /// True if the request's own parts were sent along.
    pub whole_request: bool,
    /// True if the client named the request by the deprecated `x-ms-request-id`, of which the log warns.
    pub deprecated_id: bool,
    /// Peer address, `ip:port`.
    pub peer: String,
    /// The effective `x-request-id`, which scripts may read from `flask.g`.
    pub request_id: String,
    /// Header fields in the order sent, names in lower case.
    pub fields: Vec<Field>,
}

/// Where a body is in the memory that front and workers share (`shared_bodies.rs`); both in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// From the start of the file.
    pub offset: u64,
    /// Length of the body.
    pub length: u64,
}

impl Place {
    /// Cuts the place off the head of a [`Kind::SharedJob`]. What is left is the head of a [`Kind::Job`].
    pub fn split_from(head: &mut Bytes) -> Result<Self, FrameError> {
        let mut fields = Reader::new(head, "place");
        let place = Self { offset: fields.u64()?, length: fields.u64()? };
        *head = fields.rest;
        Ok(place)
    }
}

/// Where the worker finds the body of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyAt {
    /// In the same frame; its length in bytes.
    Frame(usize),
    /// In shared memory.
    Shared(Place),
}

/// Prefix and head of a job.
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
    /// Prefix and head; a body in the same frame follows.
    pub fn encode_head(&self, body: BodyAt) -> Bytes {
        encode_job(body, |out| {
            out.put_u64_le(self.id);
            out.put_u8(self.http_minor);
            out.put_u8(1);
            out.put_u8(self.deprecated_id.into());
            for part in [
                self.method.as_bytes(),
                &self.target,
                &self.query,
                &self.content_type,
                self.peer.as_bytes(),
                self.request_id.as_bytes(),
            ] {
                put_bytes(out, part);
            }
            put_fields(out, &self.fields);
        })
    }

    /// The same for a worker that did not ask for the request: only what calling the script needs.
    pub fn encode_short_head(&self, body: BodyAt) -> Bytes {
        encode_job(body, |out| {
            out.put_u64_le(self.id);
            out.put_u8(self.http_minor);
            out.put_u8(0);
            out.put_u8(self.deprecated_id.into());
            for part in [self.method.as_bytes(), b"", &self.query, &self.content_type, b"", b""] {
                put_bytes(out, part);
            }
            put_fields(out, &[]);
        })
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
            request_id: head.text()?,
            fields: head.fields()?,
        };
        head.end()?;
        Ok(job)
    }
}

/// Where a reply comes from; decides which headers the front adds (contract sections 5, 7 and 8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Origin {
    /// A plain result rendered as JSON: `x-ms-run-function-failed: False` is added.
    #[default]
    Result = 0,
    /// A Response object of the script: passed through, failure flag only from status 500 on.
    Response = 1,
    /// `run()` failed or timed out: the failure flag is `True`.
    ScriptError = 2,
    /// The input was refused or the result could not be rendered: the failure flag is `False`.
    ServerError = 3,
}

/// A reply of the script: everything but the body.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ReplyHead {
    /// The job it answers.
    pub id: u64,
    /// HTTP status code.
    pub status: u16,
    /// Where it comes from.
    pub origin: Origin,
    /// True if the worker has written the request's log lines by itself, because its script has changed the logger.
    pub is_logged: bool,
    /// Milliseconds inside `run()`; `None` when `run()` produced no reply.
    pub run_ms: Option<f64>,
    /// Milliseconds the worker was busy with the job, input and output included; what the in-flight window looks at.
    pub busy_ms: f64,
    /// `x-ms-server-version` as the script's environment has it now; empty means no header (contract section 9).
    pub server_version: Bytes,
    /// `x-ms-run-error-location`, empty if there is none.
    pub error_location: Bytes,
    /// Header fields set by the script, and the content type.
    pub fields: Vec<Field>,
}

impl ReplyHead {
    /// Prefix and head of a [`Kind::Reply`] or [`Kind::StreamStart`]; `body_len` bytes of body follow. An error if the front
    /// would not accept them: what a script puts into a reply has no limit of its own.
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

/// A frame that carries only a job id: [`Kind::StreamChunk`], [`Kind::StreamEnd`], [`Kind::Cancel`]; `body_len` bytes
/// of body follow.
pub fn encode_with_id(kind: Kind, id: u64, body_len: usize) -> Bytes {
    encode(kind, body_len, |out| out.put_u64_le(id)).freeze()
}

/// The job id of a frame made by [`encode_with_id`].
pub fn decode_id(frame: &Frame) -> Result<u64, FrameError> {
    let mut head = Reader::new(&frame.head, "job id");
    let id = head.u64()?;
    head.end()?;
    Ok(id)
}

/// A frame without any field: [`Kind::Retire`], [`Kind::Goodbye`].
pub fn encode_bare(kind: Kind) -> Bytes {
    encode(kind, 0, |_| ()).freeze()
}

fn put_bytes(out: &mut BytesMut, part: &[u8]) {
    // Parts come from HTTP heads, which the parser limits far below 4 GiB; a longer one is cut, never mis-framed.
    let len = u32::try_from(part.len()).unwrap_or(u32::MAX);
    out.put_u32_le(len);
    out.extend_from_slice(&part[..len as usize]);
}

fn put_fields(out: &mut BytesMut, fields: &[Field]) {
    // More would be gigabytes, which no head may have.
    let count = u32::try_from(fields.len()).unwrap_or(u32::MAX);
    out.put_u32_le(count);
    for (name, value) in &fields[..count as usize] {
        put_bytes(out, name);
        put_bytes(out, value);
    }
}

/// Checked reads from a head; `bytes::Buf` panics on short input, this reports it.
struct Reader {
    rest: Bytes,
    what: &'static str,
}

impl Reader {
    fn new(head: &Bytes, what: &'static str) -> Self {
        Self { rest: head.clone(), what }
    }

    fn take(&mut self, len: usize) -> Result<Bytes, FrameError> {
        if self.rest.len() < len {
            return Err(FrameError::Malformed(self.what));
        }
        Ok(self.rest.split_to(len))
    }

    fn u8(&mut self) -> Result<u8, FrameError> {
        Ok(self.take(1)?.get_u8())
    }

    fn flag(&mut self) -> Result<bool, FrameError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(FrameError::Malformed(self.what)),
        }
    }

    fn u16(&mut self) -> Result<u16, FrameError> {
        Ok(self.take(2)?.get_u16_le())
    }

    fn u32(&mut self) -> Result<u32, FrameError> {
        Ok(self.take(4)?.get_u32_le())
    }

    fn u64(&mut self) -> Result<u64, FrameError> {
        Ok(self.take(8)?.get_u64_le())
    }

    fn f64(&mut self) -> Result<f64, FrameError> {
        Ok(self.take(8)?.get_f64_le())
    }

    fn bytes(&mut self) -> Result<Bytes, FrameError> {
        let len = self.u32()? as usize;
        self.take(len)
    }

    fn text(&mut self) -> Result<String, FrameError> {
        let bytes = self.bytes()?;
        std::str::from_utf8(&bytes).map(str::to_owned).map_err(|_| FrameError::Malformed(self.what))
    }

    fn fields(&mut self) -> Result<Vec<Field>, FrameError> {
        let count = self.u32()?;
        // No reservation from the declared count: each field takes at least eight bytes that must really be there.
        let mut fields = Vec::new();
        for _ in 0..count {
            fields.push((self.bytes()?, self.bytes()?));
        }
        Ok(fields)
    }

    fn end(&self) -> Result<(), FrameError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(FrameError::Malformed(self.what))
        }
    }
}
