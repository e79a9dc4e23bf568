//! Reads the chunked coding of a request body and writes its canonical form (RFC 9112 section 7.1).
//!
//! The canonical form has no extensions, trailers or leading zeros, so every parser reads it in the
//! same way. Pure; runs in the front's event loop.

use bytes::BytesMut;

use super::parse_error::Refusal;

/// Largest number of bytes in a body that are neither data nor needed to tell its length:
/// extensions, white space and trailers.
const MAX_EXTRA: usize = 16 * 1024;
/// Largest number of digits in a chunk size; more would not fit into 64 bits.
const MAX_DIGITS: u8 = 16;

/// Follows one chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunked {
    state: State,
    /// Bytes of `MAX_EXTRA` that are used up.
    extra: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The next byte is a digit of a chunk's size, or follows the digits.
    Size {
        digits: u8,
        size: u64,
    },
    /// White space after the digits.
    Padding(u64),
    /// The next byte belongs to the extensions of a chunk of this size.
    Extension(u64),
    /// After the CR that ends the line with the size.
    SizeLf(u64),
    /// This many bytes of data are still to come.
    Data(u64),
    DataCr,
    DataLf,
    /// The next byte begins a line of the trailer section.
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    /// After the CR of the empty line at the end.
    EndLf,
    Complete,
}

impl Default for Chunked {
    fn default() -> Self {
        Self { state: State::Size { digits: 0, size: 0 }, extra: 0 }
    }
}

impl Chunked {
    /// True after the last byte of the body.
    pub fn is_complete(&self) -> bool {
        self.state == State::Complete
    }

    /// How many of the next bytes are data.
    pub fn data_left(&self) -> u64 {
        match self.state {
            State::Data(left) => left,
            _ => 0,
        }
    }

    /// Notes that `length` bytes of data have been passed on.
    pub fn pass_data(&mut self, length: u64) {
        if let State::Data(left) = self.state {
            let left = left.saturating_sub(length);
            self.state = if left == 0 { State::DataCr } else { State::Data(left) };
        }
    }

    /// Reads the chunk lines and trailers, up to the next data or the end of the body, and writes
    /// their canonical form to `out`. Returns how many bytes it has read.
    pub fn read(&mut self, bytes: &[u8], out: &mut BytesMut) -> Result<usize, Refusal> {
        for (index, &byte) in bytes.iter().enumerate() {
            if matches!(self.state, State::Data(_) | State::Complete) {
                return Ok(index);
            }
            self.state = self.next(byte, out).map_err(Refusal::broken_coding)?;
            let extra = matches!(
                self.state,
                State::Padding(_) | State::Extension(_) | State::TrailerName | State::TrailerValue | State::TrailerLf
            );
            self.extra += usize::from(extra);
            if self.extra > MAX_EXTRA {
                return Err(Refusal::broken_coding("its extensions and trailers are too long."));
            }
        }
        Ok(bytes.len())
    }

    fn next(self, byte: u8, out: &mut BytesMut) -> Result<State, &'static str> {
        const BAD_SIZE: &str = "a chunk's size is malformed.";
        const BAD_TRAILER: &str = "a trailer is malformed.";
        Ok(match (self.state, byte) {
            (State::Size { digits: MAX_DIGITS, .. }, digit) if digit.is_ascii_hexdigit() => return Err(BAD_SIZE),
            (State::Size { digits, size }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let value = char::from(byte).to_digit(16).unwrap_or_default();
                State::Size { digits: digits + 1, size: size << 4 | u64::from(value) }
            }
            (State::Size { digits: 0, .. }, _) => return Err(BAD_SIZE),
            (State::Size { size, .. } | State::Padding(size) | State::Extension(size), b'\r') => State::SizeLf(size),
            (State::Size { size, .. } | State::Padding(size), b';') => State::Extension(size),
            (State::Size { size, .. } | State::Padding(size), b' ' | b'\t') => State::Padding(size),
            (State::Size { .. } | State::Padding(_), _) => return Err(BAD_SIZE),
            (State::Extension(size), byte) if is_text(byte) => State::Extension(size),
            (State::Extension(_), _) => return Err("a chunk's extension has a character that is not allowed."),
            (State::SizeLf(0), b'\n') => State::TrailerStart,
            (State::SizeLf(size), b'\n') => {
                out.extend_from_slice(format!("{size:x}\r\n").as_bytes());
                State::Data(size)
            }
            (State::SizeLf(_), _) => return Err("a line ends in CR without LF."),
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => {
                out.extend_from_slice(b"\r\n");
                State::Size { digits: 0, size: 0 }
            }
            (State::DataCr | State::DataLf, _) => return Err("a chunk is longer than its size."),
            (State::TrailerStart, b'\r') => State::EndLf,
            (State::TrailerStart | State::TrailerName, byte) if is_token(byte) => State::TrailerName,
            (State::TrailerName, b':') => State::TrailerValue,
            (State::TrailerValue, byte) if is_text(byte) => State::TrailerValue,
            (State::TrailerValue, b'\r') => State::TrailerLf,
            (State::TrailerLf, b'\n') => State::TrailerStart,
            (State::EndLf, b'\n') => {
                out.extend_from_slice(b"0\r\n\r\n");
                State::Complete
            }
            (State::TrailerStart | State::TrailerName | State::TrailerValue, _) => return Err(BAD_TRAILER),
            (State::TrailerLf | State::EndLf, _) => return Err("a line ends in CR without LF."),
            (State::Data(_) | State::Complete, _) => self.state,
        })
    }
}

/// A character of a field's value (RFC 9110 section 5.5).
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// A character of a field's name (RFC 9110 section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The canonical form of a body, and how many of `bytes` it took. Tries every way to cut
    /// `bytes` in two.
    fn canonical(bytes: &[u8]) -> Result<(String, usize), String> {
        let mut found: Vec<_> = (0..=bytes.len()).map(|cut| read_in_two(bytes, cut)).collect();
        let last = found.pop().expect("at least one");
        assert!(found.iter().all(|other| *other == last), "{bytes:?}");
        last
    }

    fn read_in_two(bytes: &[u8], cut: usize) -> Result<(String, usize), String> {
        let (mut body, mut out, mut used) = (Chunked::default(), BytesMut::new(), 0);
        for part in [&bytes[..cut], &bytes[cut..]] {
            let mut part = part;
            while !part.is_empty() && !body.is_complete() {
                let data = usize::try_from(body.data_left()).expect("small").min(part.len());
                out.extend_from_slice(&part[..data]);
                body.pass_data(data as u64);
                let length = data + body.read(&part[data..], &mut out).map_err(|refusal| refusal.message)?;
                part = &part[length..];
                used += length;
            }
        }
        let text = String::from_utf8(out.to_vec()).expect("text");
        if body.is_complete() {
            Ok((text, used))
        } else {
            Err("incomplete".to_owned())
        }
    }

    #[test]
    fn bodies_are_passed_on_in_one_form() {
        for (sent, passed) in [
            ("0\r\n\r\n", "0\r\n\r\n"),
            ("5\r\nhello\r\n0\r\n\r\n", "5\r\nhello\r\n0\r\n\r\n"),
            ("0005;a=\"b;c\"\r\nhello\r\n000\r\n\r\n", "5\r\nhello\r\n0\r\n\r\n"),
            ("A \t; x\r\n0123456789\r\n0;y\r\nX: y\r\nZ:\r\n\r\n", "a\r\n0123456789\r\n0\r\n\r\n"),
            ("1\r\n\r\r\n0\r\n\r\n", "1\r\n\r\r\n0\r\n\r\n"),
        ] {
            let followed = format!("{sent}GET / HTTP/1.1\r\n");
            assert_eq!(canonical(followed.as_bytes()), Ok((passed.to_owned(), sent.len())), "{sent}");
        }
    }

    #[test]
    fn what_two_readers_could_read_differently_is_refused() {
        for sent in [
            "\r\n",
            "x\r\n",
            "-1\r\n",
            "+1\r\n",
            "0x5\r\n",
            " 5\r\nhello\r\n",
            "5 5\r\n",
            "5\nhello",
            "5\r\r\n",
            "5;a\nhello",
            "5;\0\r\n",
            "5\r\nhelloX",
            "5\r\nhello\n0",
            "5\r\nhello\rX",
            "ffffffffffffffff0\r\n",
            "00000000000000005\r\n",
            "0\r\nX\r\n\r\n",
            "0\r\n: y\r\n\r\n",
            "0\r\nX : y\r\n\r\n",
            "0\r\nX: y\r\n z\r\n\r\n",
            "0\r\n X: y\r\n\r\n",
            "0\r\nX: y\n\r\n",
            "0\r\nX: \0\r\n\r\n",
            "0\r\nX: y\rz\r\n\r\n",
            "0\r\n\n",
            "0\r\n\rX",
            "0\n\n",
        ] {
            let refusal = canonical(sent.as_bytes()).expect_err(sent);
            assert!(refusal.contains("chunked coding is broken"), "{sent:?}: {refusal}");
        }
    }

    #[test]
    fn what_is_dropped_has_a_limit() {
        let long = "x".repeat(20_000);
        let many = "5;x\r\nhello\r\n".repeat(10_000);
        for sent in
            [format!("5;{long}\r\n"), format!("0\r\nX: {long}\r\n\r\n"), format!("5{}\r\n", " ".repeat(20_000)), many]
        {
            let refusal = read_in_two(sent.as_bytes(), 0).expect_err("too long");
            assert!(refusal.contains("too long"), "{refusal}");
        }
        let most = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(16_000));
        assert!(read_in_two(most.as_bytes(), 0).is_ok());
    }
}
