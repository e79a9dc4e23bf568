//! Writes JSON text exactly as Python's `json.dumps` does by default: escapes, floats, separators.
//!
//! Knows no Python objects: the worker's output conversion visits the objects and calls these
//! functions. The front uses them for its error bodies, so that both ends write JSON in the same
//! way (contract section 7).

#[cfg(test)]
mod tests;

/// Written between the items of a list or object.
pub const ITEM_SEPARATOR: &[u8] = b", ";
/// Written between a key and its value.
pub const KEY_SEPARATOR: &[u8] = b": ";

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Appends `text` as a JSON string in ASCII, as `json.dumps` writes it (`ensure_ascii=True`).
pub fn write_str(out: &mut Vec<u8>, text: &str) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut plain_from = 0;
    let mut at = 0;
    while at < bytes.len() {
        let byte = bytes[at];
        if is_plain(byte) {
            at += 1;
            continue;
        }
        out.extend_from_slice(&bytes[plain_from..at]);
        if byte.is_ascii() {
            write_ascii_escape(out, byte);
            at += 1;
        } else {
            // `at` is always the start of a character, so the slice is valid text and has a first
            // character.
            let Some(character) = text[at..].chars().next() else {
                break;
            };
            let mut units = [0u16; 2];
            for unit in character.encode_utf16(&mut units) {
                write_unicode_escape(out, *unit);
            }
            at += character.len_utf8();
        }
        plain_from = at;
    }
    out.extend_from_slice(&bytes[plain_from..]);
    out.push(b'"');
}

/// True for bytes that are written unescaped: printable ASCII except quote and backslash. Like
/// CPython, this escapes DEL (0x7f).
const fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\'
}

fn write_ascii_escape(out: &mut Vec<u8>, byte: u8) {
    let short = match byte {
        b'"' => b'"',
        b'\\' => b'\\',
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x08 => b'b',
        0x0c => b'f',
        _ => return write_unicode_escape(out, u16::from(byte)),
    };
    out.extend_from_slice(&[b'\\', short]);
}

fn write_unicode_escape(out: &mut Vec<u8>, unit: u16) {
    let digit = |shift: u16| HEX[usize::from(unit >> shift & 0xf)];
    out.extend_from_slice(&[b'\\', b'u', digit(12), digit(8), digit(4), digit(0)]);
}

/// Appends a float as `float.__repr__` writes it, and the three values that are not finite as
/// `NaN`, `Infinity` and `-Infinity`.
pub fn write_float(out: &mut Vec<u8>, value: f64) {
    if value.is_nan() {
        out.extend_from_slice(b"NaN");
        return;
    }
    if value.is_infinite() {
        out.extend_from_slice(if value > 0.0 { b"Infinity" } else { b"-Infinity" });
        return;
    }
    let mut buffer = ryu::Buffer::new();
    let shortest = buffer.format_finite(value).as_bytes();
    // Both ryu and repr write exponents from 1e16 on. For small numbers ryu writes exponents below
    // 1e-5, repr below 1e-4.
    match shortest.iter().position(|&byte| byte == b'e') {
        None => write_plain_float(out, value, shortest),
        Some(at) => write_exponent_float(out, &shortest[..at], &shortest[at + 1..]),
    }
}

/// Appends a float that ryu has written without an exponent. Below 1e-4 it gets one, because repr
/// writes one.
fn write_plain_float(out: &mut Vec<u8>, value: f64, shortest: &[u8]) {
    if value == 0.0 || value.abs() >= 1e-4 {
        out.extend_from_slice(shortest);
        return;
    }
    // Splits "-0.0000123" into the sign and the digits. The number of zeros after the point gives
    // the exponent.
    let (sign, digits) = match shortest.strip_prefix(b"-") {
        Some(rest) => (&b"-"[..], rest),
        None => (&b""[..], shortest),
    };
    let fraction = &digits[2..];
    let zeros = fraction.iter().take_while(|&&byte| byte == b'0').count();
    let significant = &fraction[zeros..];
    out.extend_from_slice(sign);
    out.push(significant[0]);
    if significant.len() > 1 {
        out.push(b'.');
        out.extend_from_slice(&significant[1..]);
    }
    write_exponent(out, -(zeros as i32 + 1));
}

/// Appends a float that ryu has written with an exponent. repr has the same digits, but always
/// writes the sign of the exponent, and at least two digits of it.
fn write_exponent_float(out: &mut Vec<u8>, mantissa: &[u8], exponent: &[u8]) {
    let exponent: i32 = std::str::from_utf8(exponent).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let significant = mantissa.strip_suffix(b".0").unwrap_or(mantissa);
    if (0..16).contains(&exponent) {
        // ryu writes no such exponents today. This keeps the result exact if a later version does.
        write_positional(out, significant, exponent as usize);
        return;
    }
    out.extend_from_slice(significant);
    write_exponent(out, exponent);
}

fn write_positional(out: &mut Vec<u8>, mantissa: &[u8], exponent: usize) {
    let mut digits: Vec<u8> = mantissa.iter().copied().filter(u8::is_ascii_digit).collect();
    if mantissa.starts_with(b"-") {
        out.push(b'-');
    }
    while digits.len() < exponent + 2 {
        digits.push(b'0');
    }
    out.extend_from_slice(&digits[..=exponent]);
    out.push(b'.');
    out.extend_from_slice(&digits[exponent + 1..]);
}

fn write_exponent(out: &mut Vec<u8>, exponent: i32) {
    out.push(b'e');
    out.push(if exponent < 0 { b'-' } else { b'+' });
    let size = exponent.unsigned_abs();
    if size < 10 {
        out.push(b'0');
    }
    out.extend_from_slice(itoa::Buffer::new().format(size).as_bytes());
}

/// Makes the body of an error reply: `{"message": …}`.
pub fn message_body(message: &str) -> Vec<u8> {
    one_member(b"{\"message\": ", message)
}

/// Makes the body of an error reply of the Open Inference Protocol: `{"error": …}`.
pub fn error_body(message: &str) -> Vec<u8> {
    one_member(b"{\"error\": ", message)
}

fn one_member(begin: &[u8], message: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + 16);
    out.extend_from_slice(begin);
    write_str(&mut out, message);
    out.push(b'}');
    out
}
