//! Where one request ends and the next begins, in the bytes that a client sends (RFC 9112 sections
//! 6 and 7.1).
//!
//! Pure bookkeeping for `socket.rs`. `head.rs` reads heads, and `chunked.rs` reads chunked bodies.
//! The parser gets only what this file accepts.

use bytes::BytesMut;

use super::{
    chunked::Chunked,
    head::{self, BodyLength, Head},
    parse_error::Refusal,
};

/// Follows one connection, a request at a time.
#[derive(Debug, Default)]
pub struct RequestBoundary {
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The next bytes belong to the head.
    Head {
        /// How many of its bytes had arrived when it was last read and found incomplete.
        read: usize,
        /// How many of its bytes were searched for its end.
        searched: usize,
    },
    /// This many bytes of the body are still to come.
    Body(u64),
    Chunked(Chunked),
    Complete,
}

impl Default for State {
    fn default() -> Self {
        Self::Head { read: 0, searched: 0 }
    }
}

/// The meaning of the next bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// A head.
    Head,
    /// This many bytes of body, which the parser gets unchanged.
    Data(u64),
    /// The lines around the data of a chunked body.
    ChunkLine,
    /// The next request: this one is complete.
    Nothing,
}

impl RequestBoundary {
    /// The meaning of the next bytes.
    pub fn next(&self) -> Next {
        match self.state {
            State::Head { .. } => Next::Head,
            State::Body(left) => Next::Data(left),
            State::Chunked(body) if body.data_left() > 0 => Next::Data(body.data_left()),
            State::Chunked(_) => Next::ChunkLine,
            State::Complete => Next::Nothing,
        }
    }

    /// Expects the head of the next request from now on.
    pub fn start_next(&mut self) {
        self.state = State::default();
    }

    /// Reads the head at the beginning of `bytes`, which must have all of the head that has
    /// arrived. `None` while the head is incomplete.
    pub fn read_head(&mut self, bytes: &[u8]) -> Result<Option<Head>, Refusal> {
        let State::Head { read, searched } = self.state else { return Ok(None) };
        // A head that arrives byte by byte is not read again for each byte. It is read when its end
        // may have arrived, or when twice as much has arrived, so that faults are found before the
        // client ends the head.
        let may_end = || bytes[searched.saturating_sub(2)..].windows(2).any(|pair| pair == b"\n\r" || pair == b"\n\n");
        if read > 0 && !may_end() && bytes.len() < 2 * read && bytes.len() <= head::MAX_HEAD {
            self.state = State::Head { read, searched: bytes.len() };
            return Ok(None);
        }
        let found = head::read(bytes)?;
        self.state = match &found {
            None => State::Head { read: bytes.len(), searched: bytes.len() },
            Some(head) => match head.body {
                BodyLength::Known(0) => State::Complete,
                BodyLength::Known(length) => State::Body(length),
                BodyLength::Chunked => State::Chunked(Chunked::default()),
            },
        };
        Ok(found)
    }

    /// Notes that `length` bytes of [`Next::Data`] have been passed on.
    pub fn pass_data(&mut self, length: u64) {
        match &mut self.state {
            State::Body(left) => {
                let left = left.saturating_sub(length);
                self.state = if left == 0 { State::Complete } else { State::Body(left) };
            }
            State::Chunked(body) => body.pass_data(length),
            State::Head { .. } | State::Complete => {}
        }
    }

    /// Reads a [`Next::ChunkLine`] and writes what the parser gets to `out`. Returns how many bytes
    /// it has read.
    pub fn read_chunk_line(&mut self, bytes: &[u8], out: &mut BytesMut) -> Result<usize, Refusal> {
        let State::Chunked(body) = &mut self.state else { return Ok(0) };
        let length = body.read(bytes, out)?;
        if body.is_complete() {
            self.state = State::Complete;
        }
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_byte_by_byte_is_read_only_when_its_end_may_have_come() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n";
        let mut boundary = RequestBoundary::default();
        for length in 1..head.len() {
            assert_eq!(boundary.read_head(&head[..length]), Ok(None), "{length}");
        }
        assert!(boundary.read_head(head).expect("valid").is_some());
        assert_eq!(boundary.next(), Next::Nothing);
    }

    #[test]
    fn a_fault_is_found_before_the_end_of_the_head() {
        let mut boundary = RequestBoundary::default();
        assert_eq!(boundary.read_head(b"G"), Ok(None));
        let refusal = boundary.read_head(b"G\x01").expect_err("a control character");
        assert_eq!(refusal.status, 400);
    }
}
