//! Where one request ends and the next begins, in the bytes that a client sends (RFC 9112 sections 6 and 7.1).
//!
//! Pure bookkeeping for `connection.rs`, which hands the parser one request at a time: actix-http applies what it read
//! last (version, method, `Connection`) to the answers that it still owes, so pipelined requests must not reach it
//! together. What is malformed is not judged here: it passes through, and the parser refuses it.

/// More fields than the parser accepts.
const MAX_FIELDS: usize = 128;
/// A head longer than this is one that the parser refuses.
const MAX_HEAD: usize = 256 * 1024;

/// Follows one connection.
#[derive(Debug, Default)]
pub struct Framing {
    state: State,
    /// The head, as far as it has come in earlier reads.
    head: Vec<u8>,
    lacks_length: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Head,
    /// Bytes of the body that are still to come.
    Body(u64),
    Chunked(Chunk),
    Complete,
    /// Nothing that this file understands; the parser will not either.
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chunk {
    /// Value of the digits so far, if there are any.
    Size(Option<u64>),
    /// After the digits: an extension, until the end of the line. The size of the chunk.
    Extension(u64),
    SizeEnd(u64),
    /// Bytes of data that are still to come, the line end after them included.
    Data(u64),
    /// After the last chunk.
    End,
    EndOfEnd,
}

impl Framing {
    /// True from the last byte of a request until [`Framing::start_next`].
    pub fn is_complete(&self) -> bool {
        self.state == State::Complete
    }

    /// True while the head of a request is not complete.
    pub fn is_in_head(&self) -> bool {
        self.state == State::Head
    }

    /// True for an HTTP/1.0 POST that says nothing of a body, so has none (RFC 9112 section 6.3). The parser takes that
    /// for a fault, but proxies which speak HTTP/1.0 send it when their client's POST has no body.
    pub fn lacks_length(&self) -> bool {
        self.lacks_length
    }

    /// Begins with the next request.
    pub fn start_next(&mut self) {
        *self = Self::default();
    }

    /// Takes note of bytes. Returns how many of them belong to the current request.
    pub fn advance(&mut self, bytes: &[u8]) -> usize {
        let mut used = 0;
        while used < bytes.len() && self.state != State::Complete {
            used += match self.state {
                State::Head => self.head(&bytes[used..]),
                State::Body(length) => self.body(length, bytes.len() - used),
                State::Chunked(chunk) => self.chunk(chunk, &bytes[used..]),
                State::Complete => 0,
                State::Unknown => bytes.len() - used,
            };
        }
        used
    }

    fn head(&mut self, bytes: &[u8]) -> usize {
        let earlier = self.head.len();
        let parsed = if earlier == 0 {
            parse_head(bytes)
        } else {
            self.head.extend_from_slice(bytes);
            parse_head(&self.head)
        };
        match parsed {
            Head::Partial if earlier + bytes.len() > MAX_HEAD => self.state = State::Unknown,
            Head::Partial => {
                if earlier == 0 {
                    self.head.extend_from_slice(bytes);
                }
            }
            Head::Broken => self.state = State::Unknown,
            Head::Complete { length, body, lacks_length } => {
                self.head = Vec::new();
                self.state = body;
                self.lacks_length = lacks_length;
                return length - earlier;
            }
        }
        bytes.len()
    }

    fn body(&mut self, length: u64, available: usize) -> usize {
        let taken = usize::try_from(length).unwrap_or(usize::MAX).min(available);
        let left = length - taken as u64;
        self.state = if left == 0 { State::Complete } else { State::Body(left) };
        taken
    }

    fn chunk(&mut self, chunk: Chunk, bytes: &[u8]) -> usize {
        if let Chunk::Data(length) = chunk {
            let taken = usize::try_from(length).unwrap_or(usize::MAX).min(bytes.len());
            let left = length - taken as u64;
            self.state = State::Chunked(if left == 0 { Chunk::Size(None) } else { Chunk::Data(left) });
            return taken;
        }
        self.state = chunk.next(bytes[0]);
        1
    }
}

impl Chunk {
    /// What follows this byte of a chunk's line.
    fn next(self, byte: u8) -> State {
        State::Chunked(match (self, byte) {
            (Self::Size(size), digit) if digit.is_ascii_hexdigit() => {
                let value = char::from(digit).to_digit(16).unwrap_or(0);
                match size.unwrap_or(0).checked_mul(16).and_then(|size| size.checked_add(u64::from(value))) {
                    Some(size) => Self::Size(Some(size)),
                    None => return State::Unknown,
                }
            }
            (Self::Size(Some(size)) | Self::Extension(size), b'\r') => Self::SizeEnd(size),
            (Self::Size(Some(size)), b';' | b' ' | b'\t') | (Self::Extension(size), _) => Self::Extension(size),
            (Self::SizeEnd(0), b'\n') => Self::End,
            (Self::SizeEnd(size), b'\n') => match size.checked_add(2) {
                Some(with_line_end) => Self::Data(with_line_end),
                None => return State::Unknown,
            },
            (Self::End, b'\r') => Self::EndOfEnd,
            (Self::EndOfEnd, b'\n') => return State::Complete,
            _ => return State::Unknown,
        })
    }
}

enum Head {
    Partial,
    Broken,
    Complete {
        length: usize,
        /// What follows it.
        body: State,
        lacks_length: bool,
    },
}

fn parse_head(bytes: &[u8]) -> Head {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(bytes) {
        Ok(httparse::Status::Partial) => Head::Partial,
        Ok(httparse::Status::Complete(length)) => {
            let says = |name| request.headers.iter().any(|field| field.name.eq_ignore_ascii_case(name));
            let lacks_length = request.version == Some(0)
                && request.method == Some("POST")
                && !says("content-length")
                && !says("transfer-encoding");
            Head::Complete { length, body: body_of(request.headers), lacks_length }
        }
        Err(_) => Head::Broken,
    }
}

/// What the fields say about the body.
fn body_of(fields: &[httparse::Header<'_>]) -> State {
    let mut body = State::Complete;
    for field in fields {
        if field.name.eq_ignore_ascii_case("transfer-encoding") {
            return State::Chunked(Chunk::Size(None));
        }
        if field.name.eq_ignore_ascii_case("content-length") {
            let length = std::str::from_utf8(field.value).ok().and_then(|text| text.trim().parse().ok());
            body = match length {
                Some(0) => State::Complete,
                Some(length) => State::Body(length),
                None => return State::Unknown,
            };
        }
    }
    body
}

#[cfg(test)]
mod tests {
    use super::Framing;

    const NEXT: &[u8] = b"GET / HTTP/1.1\r\n\r\n";

    /// Bytes of `request` that are taken for it when another follows, however the two are cut.
    fn taken(request: &[u8]) -> Vec<usize> {
        let both = [request, NEXT].concat();
        (1..both.len())
            .map(|cut| {
                let mut framing = Framing::default();
                let first = framing.advance(&both[..cut]);
                let taken = first + if first == cut { framing.advance(&both[cut..]) } else { 0 };
                assert_eq!(framing.is_complete(), taken < both.len(), "cut at {cut}");
                taken
            })
            .collect()
    }

    #[test]
    fn requests_end_where_their_framing_says_wherever_they_are_cut() {
        for request in [
            "GET /score HTTP/1.1\r\nHost: a\r\n\r\n",
            "\r\nGET /score HTTP/1.1\r\n\r\n",
            "POST /score HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
            "POST /score HTTP/1.1\r\ncontent-length: 5\r\n\r\nhello",
            "POST /score HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0a\r\n0123456789\r\n0\r\n\r\n",
        ] {
            assert!(taken(request.as_bytes()).iter().all(|taken| *taken == request.len()), "{request:?}");
        }
    }

    #[test]
    fn what_the_parser_will_refuse_passes_through() {
        for request in [
            "nonsense\x01\r\n\r\n",
            "POST /score HTTP/1.1\r\nContent-Length: x\r\n\r\n",
            "POST /score HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
            "POST /score HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
            "POST /score HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\n\r\n",
        ] {
            let both = [request.as_bytes(), NEXT].concat();
            let mut framing = Framing::default();
            assert_eq!(framing.advance(&both), both.len(), "{request:?}");
            assert!(!framing.is_complete());
        }
    }

    #[test]
    fn the_next_request_starts_afresh() {
        let mut framing = Framing::default();
        for _ in 0..3 {
            assert!(framing.is_in_head());
            assert_eq!(framing.advance(NEXT), NEXT.len());
            assert!(framing.is_complete());
            assert_eq!(framing.advance(NEXT), 0);
            framing.start_next();
        }
    }
}
