//! Fuzz target: strings and floats are written as Python's `json.dumps` writes them.
//!
//! Owns two oracles that share no code with `pyjson`: strings are spelled once more, character by
//! character, from the rules of RFC 8259 and `ensure_ascii`, and read back by serde_json; floats
//! take their digits from the standard library and only the shape from the rules of
//! `float.__repr__`. `tests/fuzz` has Python itself as the oracle; this one is faster by far. Run
//! by libFuzzer, see `Cargo.toml` beside this folder.

#![no_main]

use _core::json::write::{message_body, write_float, write_str};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    check_text(&String::from_utf8_lossy(data));
    for chunk in data.chunks_exact(8) {
        let bits = u64::from_le_bytes(chunk.try_into().expect("eight bytes"));
        check_float(f64::from_bits(bits));
        check_short_decimal(bits);
    }
});

fn check_text(text: &str) {
    let mut out = b"kept".to_vec();
    write_str(&mut out, text);
    let written = out.strip_prefix(b"kept").expect("what was there stays");
    assert_eq!(std::str::from_utf8(written), Ok(spelled(text).as_str()));
    assert_eq!(serde_json::from_slice::<String>(written).expect("valid JSON"), text);
    let message: serde_json::Value = serde_json::from_slice(&message_body(text)).expect("valid JSON");
    assert_eq!(message, serde_json::json!({ "message": text }));
}

fn spelled(text: &str) -> String {
    let inside = text.chars().map(|character| match character {
        '"' => "\\\"".to_owned(),
        '\\' => "\\\\".to_owned(),
        '\u{8}' => "\\b".to_owned(),
        '\t' => "\\t".to_owned(),
        '\n' => "\\n".to_owned(),
        '\u{c}' => "\\f".to_owned(),
        '\r' => "\\r".to_owned(),
        ' '..='~' => character.to_string(),
        _ => character.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect(),
    });
    format!("\"{}\"", inside.collect::<String>())
}

fn check_float(value: f64) {
    let mut out = Vec::new();
    write_float(&mut out, value);
    let written = String::from_utf8(out).expect("ASCII");
    assert_eq!(written, represented(value), "bits {:#x}", value.to_bits());
    if value.is_finite() {
        let again: f64 = written.parse().expect("a number");
        assert_eq!(again.to_bits(), value.to_bits(), "{written}");
    }
}

/// Random bits seldom make a number with few digits, or one near the limits where the notation
/// changes, so such numbers are added.
fn check_short_decimal(bits: u64) {
    let digits = bits % 10_u64.pow(1 + (bits >> 60) as u32);
    let exponent = (bits >> 50) as i32 % 48 - 24;
    check_float(format!("{digits}e{exponent}").parse().expect("a number"));
}

/// Computes the fewest digits that identify the value. Of several such numbers it takes the nearest
/// one, and of two equally near ones the even one.
fn shortest_digits(value: f64) -> String {
    // `{:e}` gives the right number of digits. But if two numbers with that many digits are equally
    // near, it may choose either, so the digits are computed again by exact rounding.
    let shortest = format!("{value:e}");
    let digits = shortest.bytes().take_while(|&byte| byte != b'e').filter(u8::is_ascii_digit).count();
    let nearest = format!("{value:.*e}", digits - 1);
    if nearest.parse() == Ok(value) {
        nearest
    } else {
        shortest
    }
}

/// Writes the digits as `float.__repr__` does: with an exponent below 1e-4 and from 1e16 on, and
/// with at least two digits of the exponent.
fn represented(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let scientific = shortest_digits(value.abs());
    let (mantissa, exponent) = scientific.split_once('e').expect("an exponent");
    let exponent: i32 = exponent.parse().expect("a number");
    let sign = if value.is_sign_negative() { "-" } else { "" };
    if !(-4..16).contains(&exponent) {
        let sign_of_exponent = if exponent < 0 { '-' } else { '+' };
        return format!("{sign}{mantissa}e{sign_of_exponent}{:02}", exponent.abs());
    }
    let digits = mantissa.replace('.', "");
    if exponent < 0 {
        return format!("{sign}0.{}{digits}", "0".repeat(-exponent as usize - 1));
    }
    let point = exponent as usize + 1;
    let padded = format!("{digits:0<width$}", width = point + 1);
    format!("{sign}{}.{}", &padded[..point], &padded[point..])
}
