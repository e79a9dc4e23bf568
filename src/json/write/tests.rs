//! Literal expectations, each taken from `json.dumps` of CPython 3.11. The fuzzers compare many
//! more.

use super::*;

fn string(text: &str) -> String {
    let mut out = Vec::new();
    write_str(&mut out, text);
    String::from_utf8(out).expect("ASCII")
}

fn float(value: f64) -> String {
    let mut out = Vec::new();
    write_float(&mut out, value);
    String::from_utf8(out).expect("ASCII")
}

#[test]
fn strings_are_escaped_as_python_does() {
    for (text, expected) in [
        ("", r#""""#),
        ("plain /<>&", r#""plain /<>&""#),
        ("q\"b\\", r#""q\"b\\""#),
        ("\n\r\t\u{8}\u{c}", r#""\n\r\t\b\f""#),
        ("\u{0}\u{1f}\u{7f}", r#""\u0000\u001f\u007f""#),
        ("é", r#""\u00e9""#),
        ("a€b", r#""a\u20acb""#),
        ("😀!", r#""\ud83d\ude00!""#),
        ("\u{2028}", r#""\u2028""#),
    ] {
        assert_eq!(string(text), expected);
    }
}

#[test]
fn floats_are_written_as_repr_does() {
    for (value, expected) in [
        (0.0, "0.0"),
        (-0.0, "-0.0"),
        (1.0, "1.0"),
        (-1.5, "-1.5"),
        (0.1, "0.1"),
        (0.0001, "0.0001"),
        (0.00012, "0.00012"),
        (0.00001, "1e-05"),
        (0.000012, "1.2e-05"),
        (-0.0000123, "-1.23e-05"),
        (1e-7, "1e-07"),
        (1e-10, "1e-10"),
        (1.5e-300, "1.5e-300"),
        (1e15, "1000000000000000.0"),
        (9999999999999998.0, "9999999999999998.0"),
        (1e16, "1e+16"),
        (1.2345e16, "1.2345e+16"),
        (1e22, "1e+22"),
        (1.7976931348623157e308, "1.7976931348623157e+308"),
        (5e-324, "5e-324"),
        (123456789.125, "123456789.125"),
        (f64::NAN, "NaN"),
        (f64::INFINITY, "Infinity"),
        (f64::NEG_INFINITY, "-Infinity"),
    ] {
        assert_eq!(float(value), expected);
    }
}

#[test]
fn positional_digits_are_padded() {
    let mut out = Vec::new();
    write_positional(&mut out, b"-1.25", 4);
    assert_eq!(out, b"-12500.0");
}

#[test]
fn error_bodies_are_json() {
    assert_eq!(message_body("a \"b\""), br#"{"message": "a \"b\""}"#);
}
