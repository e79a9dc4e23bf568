//! The wire format between the front and a worker: one codec for both ends.
//!
//! Owns the layout of frames, their limits, and the conversion of each message to and from bytes.
//! It does no I/O, so that tests can cut a frame at every byte. Runs in the front's event loop and
//! in a worker's thread.
//!
//! Layout, little endian: `kind: u8 | head_len: u32 | body_len: u64 | head | body`. The head has
//! the small fields. The codec never copies the body: it returns slices of the read buffer
//! (`Bytes`).

mod codec;
mod hello;
mod job;
mod reply;
#[cfg(test)]
pub(crate) mod tests;

use bytes::{Buf as _, Bytes};

pub use self::{
    codec::{decode_id, encode_bare, encode_with_id, Decoder},
    hello::Hello,
    job::{BodyAt, Field, Inference, Job, Place},
    reply::{Origin, ReplyHead},
};

/// Version of the protocol. It is part of [`Hello`], so that the front refuses another program
/// before it sends a job to it.
pub const PROTOCOL_VERSION: u16 = 6;
/// Length of kind, head length and body length, in bytes.
pub const PREFIX_LEN: usize = 13;
/// Limit for a head, in bytes. The HTTP parser limits target and header fields of a request to far
/// less.
pub const MAX_HEAD_LEN: usize = 4 << 20;
/// Limit for a body that a worker sends, in bytes.
pub const MAX_BODY_LEN: u64 = u32::MAX as u64;

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
    /// Front to worker: the client of this job has left, so the worker must stop the stream, and a
    /// worker that is concurrent must cancel the call.
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
    /// Front to worker: the client of this stream does not read, so no more parts must come. Sent
    /// to workers that are concurrent. (To others the front stops reading.)
    Hold = 13,
    /// Front to worker: the client of this stream has read, so parts may come again.
    Resume = 14,
    /// Worker to front: it begins `run()` again for some of its started jobs, or still prepares a call. The front
    /// restarts the time limit of all of them; an async worker limits each call itself.
    CallsAgain = 15,
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
            13 => Self::Hold,
            14 => Self::Resume,
            15 => Self::CallsAgain,
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
