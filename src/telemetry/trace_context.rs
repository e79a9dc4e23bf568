//! W3C Trace Context: reading `traceparent` (<https://www.w3.org/TR/trace-context/>).
//!
//! Pure functions over header values, used in the front's event loop.

use std::fmt;

/// The trace and the span of the caller, read from `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    /// Id of the trace; never all zeros.
    pub trace_id: [u8; 16],
    /// Names the caller's span; never all zeros.
    pub span_id: [u8; 8],
    /// The flags as sent; see [`Self::is_sampled`].
    pub flags: u8,
}

/// The server's own span of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Id of the trace: the caller's id, if the request has one.
    pub trace_id: [u8; 16],
    /// Id of the span.
    pub span_id: [u8; 8],
    /// The span is recorded, and so should be the spans of the script.
    pub is_sampled: bool,
}

/// The id of a request's trace: that of its span, else the caller's.
pub fn trace_id(span: Option<Span>, parent: Option<TraceParent>) -> Option<[u8; 16]> {
    span.map(|span| span.trace_id).or(parent.map(|parent| parent.trace_id))
}

impl TraceParent {
    /// Reads a value of `traceparent`. `None` if it is not valid; then its `tracestate` must not be used either
    /// (Trace Context section 3.2.2).
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (known, rest) = value.split_at_checked(55)?;
        let [version] = hex(&known[..2])?;
        let separated = known[2] == b'-' && known[35] == b'-' && known[52] == b'-';
        // A later version may add fields behind another dash.
        let ends = rest.is_empty() || (version > 0 && rest[0] == b'-');
        if version == 0xff || !separated || !ends {
            return None;
        }
        let parent =
            Self { trace_id: hex(&known[3..35])?, span_id: hex(&known[36..52])?, flags: hex::<1>(&known[53..])?[0] };
        (parent.trace_id != [0; 16] && parent.span_id != [0; 8]).then_some(parent)
    }

    /// The caller may have recorded its span.
    pub fn is_sampled(&self) -> bool {
        self.flags & 1 == 1
    }
}

impl From<TraceParent> for Span {
    /// The caller's span in place of the server's own, if the server exports none.
    fn from(parent: TraceParent) -> Self {
        Self { trace_id: parent.trace_id, span_id: parent.span_id, is_sampled: parent.is_sampled() }
    }
}

/// Writes the value of `traceparent` for requests that the server sends.
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", Hex(&self.trace_id), Hex(&self.span_id), u8::from(self.is_sampled))
    }
}

/// Shows an id as lower-case digits.
pub struct Hex<'a>(pub &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Appends an id as lower-case digits.
pub fn write_hex(out: &mut Vec<u8>, id: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.extend(id.iter().flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]));
}

/// Reads `N` bytes from lower-case hexadecimal digits, the only ones that `traceparent` may have.
fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

fn digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_valid_value_is_read_and_written_again() {
        let parent = TraceParent::parse(VALID.as_bytes()).expect("valid");
        assert_eq!(Hex(&parent.trace_id).to_string(), "0af7651916cd43dd8448eb211c80319c");
        let mut digits = Vec::new();
        write_hex(&mut digits, &parent.trace_id);
        assert_eq!(digits, b"0af7651916cd43dd8448eb211c80319c");
        assert!(parent.is_sampled());
        let TraceParent { trace_id, span_id, .. } = parent;
        assert_eq!(Span { trace_id, span_id, is_sampled: true }.to_string(), VALID);
        let unsampled = VALID.replace("-01", "-02");
        assert!(!TraceParent::parse(unsampled.as_bytes()).expect("valid").is_sampled());
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        for rest in ["", "-", "-what-the-future-will-bring"] {
            let value = format!("01{}{rest}", &VALID[2..]);
            assert!(TraceParent::parse(value.as_bytes()).is_some(), "{value}");
        }
    }

    #[test]
    fn everything_else_is_invalid() {
        let cases = [
            String::new(),
            VALID[..54].to_owned(),
            format!("{VALID}-"),
            format!("{VALID}0"),
            format!("01{}x", &VALID[2..]),
            format!("ff{}", &VALID[2..]),
            VALID.to_uppercase(),
            VALID.replace("0af7651916cd43dd8448eb211c80319c", "00000000000000000000000000000000"),
            VALID.replace("b7ad6b7169203331", "0000000000000000"),
            VALID.replace('-', "_"),
            VALID.replace("-01", "-0g"),
            VALID.replace("0af7", "0ag7"),
            "é".repeat(30),
        ];
        for value in cases {
            assert_eq!(TraceParent::parse(value.as_bytes()), None, "{value}");
        }
    }
}
