//! Frames and parts of their heads, to and from bytes.
//!
//! [`Decoder`] takes frames from a read buffer, [`encode`] writes them, and [`Reader`] takes the
//! fields of a head. The other files of this folder say which fields each message has. Both ends
//! use it. It does no I/O.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use super::{Field, Frame, FrameError, Kind, MAX_HEAD_LEN, PREFIX_LEN};

/// Limit for the memory that the decoder reserves for bytes that have not arrived yet.
pub(super) const MAX_RESERVE: usize = 1 << 20;

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

pub(super) fn limited(what: &'static str, len: u64, limit: u64) -> Result<usize, FrameError> {
    match usize::try_from(len) {
        Ok(small) if len <= limit => Ok(small),
        _ => Err(FrameError::TooLong { what, len, limit }),
    }
}

/// Writes the prefix and the head of a frame. The caller sends the body after it, usually in the
/// same system call.
pub(super) fn encode(kind: Kind, body_len: usize, write_head: impl FnOnce(&mut BytesMut)) -> BytesMut {
    let mut out = BytesMut::with_capacity(192);
    out.put_u8(kind as u8);
    out.put_u32_le(0);
    out.put_u64_le(body_len as u64);
    write_head(&mut out);
    let head_len = u32::try_from(out.len() - PREFIX_LEN).unwrap_or(u32::MAX);
    out[1..5].copy_from_slice(&head_len.to_le_bytes());
    out
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

pub(super) fn put_bytes(out: &mut BytesMut, part: &[u8]) {
    // The HTTP parser limits parts of a request far below 4 GiB, and `ReplyHead::encode` refuses
    // such replies. A longer part would be cut here, so that the length is right in any case.
    let len = u32::try_from(part.len()).unwrap_or(u32::MAX);
    out.put_u32_le(len);
    out.extend_from_slice(&part[..len as usize]);
}

pub(super) fn put_fields(out: &mut BytesMut, fields: &[Field]) {
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
///
/// Numbers are read from the plain slice. To split each of them off as `Bytes` would count the
/// references to the buffer up and down, a dozen times for each frame.
pub(super) struct Reader<'a> {
    head: &'a Bytes,
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    pub(super) fn new(head: &'a Bytes, what: &'static str) -> Self {
        Self { head, rest: head, what }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], FrameError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(FrameError::Malformed(self.what))?;
        self.rest = rest;
        Ok(taken)
    }

    /// The bytes that have not been read.
    pub(super) fn rest(self) -> Bytes {
        self.head.slice_ref(self.rest)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(FrameError::Malformed(self.what))?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, FrameError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn flag(&mut self) -> Result<bool, FrameError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(FrameError::Malformed(self.what)),
        }
    }

    pub(super) fn u16(&mut self) -> Result<u16, FrameError> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, FrameError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, FrameError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn f64(&mut self) -> Result<f64, FrameError> {
        self.array().map(f64::from_le_bytes)
    }

    pub(super) fn bytes(&mut self) -> Result<Bytes, FrameError> {
        let len = self.u32()? as usize;
        let taken = self.take(len)?;
        Ok(self.head.slice_ref(taken))
    }

    pub(super) fn text(&mut self) -> Result<String, FrameError> {
        let len = self.u32()? as usize;
        std::str::from_utf8(self.take(len)?).map(str::to_owned).map_err(|_| FrameError::Malformed(self.what))
    }

    pub(super) fn fields(&mut self) -> Result<Vec<Field>, FrameError> {
        let count = self.u32()?;
        // No memory is reserved for the declared count, because it may be false. Each field that is
        // added has at least eight bytes in the head.
        let mut fields = Vec::new();
        for _ in 0..count {
            fields.push((self.bytes()?, self.bytes()?));
        }
        Ok(fields)
    }

    pub(super) fn end(&self) -> Result<(), FrameError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(FrameError::Malformed(self.what))
        }
    }
}
