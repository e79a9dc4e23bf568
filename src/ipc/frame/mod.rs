//! The wire format between the front and a worker: one codec for both ends.
//!
//! Owns the layout of frames, their limits, and the conversion of each message to and from bytes.
//! It does no I/O, so that tests can cut a frame at every byte. Runs in the front's event loop and
//! in a worker's thread.
//!
//! Layout, little endian: `kind: u8 | head_len: u32 | body_len: u64 | head | body`. The head has
//! the small fields. The codec never copies the body: it returns slices of the read buffer
//! (`Bytes`).

use bytes::{Buf, BufMut, Bytes, BytesMut};

#[cfg(test)]
pub(crate) mod tests;

/// Version of the protocol. It is part of [`Hello`], so that the front refuses another program
/// before it sends a job to it.
pub const PROTOCOL_VERSION: u16 = 3;
/// Length of kind, head length and body length, in bytes.
pub const PREFIX_LEN: usize = 13;
/// Limit for a head, in bytes. The HTTP parser limits target and header fields of a request to far
/// less.
pub const MAX_HEAD_LEN: usize = 4 << 20;
/// Limit for a body that a worker sends, in bytes.
pub const MAX_BODY_LEN: u64 = u32::MAX as u64;
/// Limit for the memory that the decoder reserves for bytes that have not arrived yet.
const MAX_RESERVE: usize = 1 << 20;

/// Why bytes are not a frame. After any of these errors the connection must be closed, because the
/// reader does not know where the next frame begins.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FrameError {
    /// No [`Kind`] has this number.
    #[error("unknown frame kind {0}")]
    UnknownKind(u8),
    /// The prefix declares a length above its limit.
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

/// The kinds of frames. The number is the first byte of the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Worker to front: its ids, and how to call its script. The first frame, sent again whenever
    /// that changes.
    Hello = 1,
    /// Front to worker: one request.
    Job = 2,
    /// Worker to front: a complete reply.
    Reply = 3,
    /// Worker to front: status and headers of a streamed reply.
    StreamStart = 4,
    /// Worker to front: one part of a streamed reply.
    StreamChunk = 5,
    /// Worker to front: the end of a streamed reply. If the stream failed, the body has the reason.
    StreamEnd = 6,
    /// Front to worker: the client of this job has left, so the worker must stop the stream.
    Cancel = 7,
    /// Front to worker: no more jobs will come. The worker must finish its jobs and exit.
    Retire = 8,
    /// Worker to front: it exits, and does not start the jobs that it has not answered.
    Goodbye = 9,
    /// Worker to front: it has not started a job, because the job was revoked.
    Skipped = 10,
    /// Front to worker: one request with its body in shared memory. Its head begins with the
    /// [`Place`] of the body.
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
    /// The kind of the frame.
    pub kind: Kind,
    /// The small fields, still encoded.
    pub head: Bytes,
    /// The body of a request or of a reply, or of a part of a streamed reply.
    pub body: Bytes,
}

impl Frame {
    /// Makes the frame that a reader would decode from `encoded` followed by `body`. For two
    /// threads, which pass frames through a queue and not through a socket.
    ///
    /// `encoded` must be the result of an `encode` function of this file. If it contains the body,
    /// `body` is empty.
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

/// Takes complete frames from the beginning of a read buffer.
#[derive(Debug, Clone, Copy)]
pub struct Decoder {
    /// Limit for a body, in bytes.
    pub max_body_len: u64,
    /// True if the other end is the front. Then memory for a whole frame is reserved at once.
    pub trusted: bool,
}

impl Decoder {
    /// Takes the next whole frame from `buf`. Returns `None` if more bytes are needed, which is no
    /// error.
    ///
    /// Before it returns `None`, it reserves memory for the rest of the frame. Unless the other end
    /// is trusted, this is never much more than has arrived already, so that a false length from a
    /// script's process cannot make the front allocate memory.
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

    /// Takes the head of a job from `buf` if its body has at least `least` bytes and has not
    /// arrived completely. The part of the body that has arrived stays in `buf`. Returns the head
    /// and the length of the body; `None` for any other frame.
    pub fn decode_large_job(&self, buf: &mut BytesMut, least: usize) -> Result<Option<(Bytes, usize)>, FrameError> {
        let Some((kind, head_len, body_len)) = self.prefix(buf)? else { return Ok(None) };
        let in_head = buf.len() < PREFIX_LEN + head_len;
        if kind != Kind::Job || body_len < least || in_head || buf.len() >= PREFIX_LEN + head_len + body_len {
            return Ok(None);
        }
        buf.advance(PREFIX_LEN);
        Ok(Some((buf.split_to(head_len).freeze(), body_len)))
    }

    /// Reads kind, head length and body length from the beginning of `buf`. `None` if they have not
    /// arrived completely.
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

/// Writes the prefix and the head of a frame. The caller sends the body after it, usually in the
/// same system call.
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
    /// True if the worker can read bodies in shared memory (`ipc/body_arena.rs`).
    pub shares_bodies: bool,
    /// How many jobs it may run at once; at least 1.
    pub capacity: u16,
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

/// Name and value of a header field. They are bytes, because HTTP does not require values to be
/// valid text.
pub type Field = (Bytes, Bytes);

/// One request, for a worker. If the worker did not set `wants_request`, `target`, `peer`,
/// `request_id` and `fields` are empty.
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
    /// True if `target`, `peer`, `request_id` and `fields` are filled.
    pub whole_request: bool,
    /// True if the client sent the deprecated header `x-ms-request-id`. A warning in the log says
    /// so.
    pub deprecated_id: bool,
    /// Address of the client, `ip:port`.
    pub peer: String,
    /// The `x-request-id` of the reply. Scripts may read it from `flask.g`.
    pub request_id: String,
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
        *head = fields.rest;
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
    /// Writes the prefix and the head. If the body is in the same frame, the caller sends it after
    /// them.
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

    /// Writes the prefix and the head for a worker that did not set `wants_request`. Fields that it
    /// does not need are empty.
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
    /// `run()` failed or exceeded its time. The front adds `x-ms-run-function-failed: True`.
    ScriptError = 2,
    /// The input was refused, or the result could not be rendered. The front adds
    /// `x-ms-run-function-failed: False`.
    ServerError = 3,
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
    /// Milliseconds that `run()` took; `None` if the reply is not a result of `run()`.
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

/// Writes the prefix and the head of a frame whose head is only a job id: [`Kind::StreamChunk`],
/// [`Kind::StreamEnd`], [`Kind::Cancel`]. The caller sends `body_len` bytes of body after them.
pub fn encode_with_id(kind: Kind, id: u64, body_len: usize) -> Bytes {
    encode(kind, body_len, |out| out.put_u64_le(id)).freeze()
}

/// Reads the job id of a frame that [`encode_with_id`] made.
pub fn decode_id(frame: &Frame) -> Result<u64, FrameError> {
    let mut head = Reader::new(&frame.head, "job id");
    let id = head.u64()?;
    head.end()?;
    Ok(id)
}

/// Makes a frame without head and body: [`Kind::Retire`], [`Kind::Goodbye`].
pub fn encode_bare(kind: Kind) -> Bytes {
    encode(kind, 0, |_| ()).freeze()
}

fn put_bytes(out: &mut BytesMut, part: &[u8]) {
    // The HTTP parser limits parts of a request far below 4 GiB, and `ReplyHead::encode` refuses
    // such replies. A longer part would be cut here, so that the length is right in any case.
    let len = u32::try_from(part.len()).unwrap_or(u32::MAX);
    out.put_u32_le(len);
    out.extend_from_slice(&part[..len as usize]);
}

fn put_fields(out: &mut BytesMut, fields: &[Field]) {
    // More fields than fit into a u32 would take gigabytes, and no head may be so large.
    let count = u32::try_from(fields.len()).unwrap_or(u32::MAX);
    out.put_u32_le(count);
    for (name, value) in &fields[..count as usize] {
        put_bytes(out, name);
        put_bytes(out, value);
    }
}

/// Reads the fields of a head. It returns an error if the head is too short, where `bytes::Buf`
/// would panic.
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
        // No memory is reserved for the declared count, because it may be false. Each field that is
        // added has at least eight bytes in the head.
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
