//! Literal expectations, from `numpy.array(json.loads(text), dtype)`. `tests/fuzz` compares many
//! more with it.

use super::*;

fn array<T: Number>(text: &str) -> Option<(Vec<usize>, Vec<T>)> {
    let mut reader = Reader::new(text.as_bytes());
    reader.array().map(|Array { shape, values }| (shape, values))
}

fn doubles(text: &str) -> Option<Vec<f64>> {
    array(&format!("[{text}]")).map(|(_, values)| values)
}

#[test]
fn lists_of_lists_have_a_shape() {
    for (text, shape) in [
        ("[1]", vec![1]),
        ("[1, 2.5 ,-3e1]", vec![3]),
        ("[[1],[2]]", vec![2, 1]),
        (" [ [ 1 , 2 ]\n,\t[ 3 , 4 ] , [5,6]\r]", vec![3, 2]),
        ("[[[1,2,3]],[[4,5,6]]]", vec![2, 1, 3]),
    ] {
        let (found, values) = array::<f64>(text).expect(text);
        assert_eq!(found, shape, "{text}");
        assert_eq!(values.len(), shape.iter().product::<usize>(), "{text}");
    }
}

#[test]
fn values_are_in_the_order_of_the_text() {
    assert_eq!(array("[[1,2],[3,4]]"), Some((vec![2, 2], vec![1_i32, 2, 3, 4])));
}

#[test]
fn no_more_dimensions_than_numpy_has() {
    let nested = |depth| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    assert!(array::<f64>(&nested(MAX_DIMENSIONS)).is_some());
    assert!(array::<f64>(&nested(MAX_DIMENSIONS + 1)).is_none());
}

#[test]
fn whatever_is_not_lists_of_plain_numbers_is_refused() {
    for text in [
        "1",
        "",
        "[",
        "]",
        "[]",
        "[[]]",
        "[[],[]]",
        "[1",
        "[1,",
        "[1,]",
        "[,1]",
        "[1 2]",
        "[[1]",
        "[[1],[2]",
        "[[1],2]",
        "[1,[2]]",
        "[[1],[2,3]]",
        "[[1,2],[3]]",
        "[[[1]],[2]]",
        "[[1],[[2]]]",
        "[[1],[]]",
        "[null]",
        "[true]",
        "[\"1\"]",
        "[{}]",
        "[NaN]",
        "[Infinity]",
        "[-Infinity]",
        "[1}",
        "{1]",
        "-[1]",
    ] {
        assert_eq!(array::<f64>(text), None, "{text}");
    }
}

#[test]
fn numbers_are_those_of_json() {
    for text in [
        "01", "-01", "01.5", "-00e1", "00", "+1", ".5", "1.", "1.e5", "-", "--1", "- 1", "1e", "1e+", "1E-", "0x10",
        "1_0", "1.5.5", "inf", "nan", "-NaN", "1e5e5", "١",
    ] {
        assert_eq!(doubles(text), None, "{text}");
    }
}

#[test]
fn zero_has_a_sign_only_as_a_float() {
    let bits = |text| doubles(text).map(|values| values[0].to_bits());
    assert_eq!(bits("0"), Some(0.0_f64.to_bits()));
    assert_eq!(bits("-0"), Some(0.0_f64.to_bits()));
    for text in ["-0.0", "-0e0", "-0E5", "-1e-400"] {
        assert_eq!(bits(text), Some((-0.0_f64).to_bits()), "{text}");
    }
}

#[test]
fn doubles_are_rounded_to_the_nearest() {
    for (text, expected) in [
        ("0.1", 0.1),
        ("1E2", 100.0),
        ("1e+2", 100.0),
        ("2.5e-3", 0.0025),
        ("1e400", f64::INFINITY),
        ("5e-324", 5e-324),
        ("2e-324", 0.0),
        ("9007199254740993", 9_007_199_254_740_992.0),
        ("9007199254740995", 9_007_199_254_740_996.0),
        ("9007199254740993.0000000000000000001", 9_007_199_254_740_994.0),
        ("9223372036854775807", 9_223_372_036_854_775_808.0),
        ("-9223372036854775808", -9_223_372_036_854_775_808.0),
    ] {
        assert_eq!(doubles(text), Some(vec![expected]), "{text}");
    }
}

#[test]
fn integers_beyond_64_bits_are_refused() {
    for text in ["9223372036854775808", "-9223372036854775809", "18446744073709551616", "99999999999999999999999999"] {
        assert_eq!(doubles(text), None, "{text}");
        assert_eq!(array::<i64>(&format!("[{text}]")), None, "{text}");
    }
}

#[test]
fn floats_are_rounded_by_way_of_doubles() {
    let single = |text: &str| array::<f32>(&format!("[{text}]")).map(|(_, values)| values[0]);
    // Just above the middle of two floats, but the nearest double is the middle itself, which goes
    // to the even one.
    assert_eq!(single("1.00000005960464477540"), Some(1.0));
    assert_eq!(single("16777217"), Some(16_777_216.0));
    assert_eq!(single("9007199791611905"), Some(9_007_199_254_740_992.0));
    assert_eq!(single("1e-50"), Some(0.0));
    for text in ["1e39", "-3.5e38", "1e400"] {
        assert_eq!(single(text), None, "{text}");
    }
}

#[test]
fn integers_fit_their_type() {
    assert_eq!(array("[9223372036854775807, -9223372036854775808]"), Some((vec![2], vec![i64::MAX, i64::MIN])));
    assert_eq!(array("[2147483647, -2147483648, -0]"), Some((vec![3], vec![i32::MAX, i32::MIN, 0])));
    assert_eq!(array("[0, 255]"), Some((vec![2], vec![0_u8, 255])));
    for text in ["[2147483648]", "[-2147483649]", "[1.0]", "[1e2]"] {
        assert_eq!(array::<i32>(text), None, "{text}");
    }
    for text in ["[256]", "[-1]"] {
        assert_eq!(array::<u8>(text), None, "{text}");
    }
}

/// The keys of an object, or `None`.
fn keys(text: &str) -> Option<Vec<String>> {
    let mut reader = Reader::new(text.as_bytes());
    let mut keys = Vec::new();
    while let Some(key) = reader.next_key()? {
        keys.push(String::from_utf8_lossy(key).into_owned());
        reader.skip_value()?;
    }
    Some(keys)
}

#[test]
fn members_are_found_whatever_the_others_hold() {
    let text = r#" { "a" : [1, "]", {"b": [{}]}] , "" :"\"}\\" ,"é":null, "a":{"x":"}"} , "c": -1.5e3 } rest"#;
    assert_eq!(keys(text), Some(["a", "", "é", "a", "c"].map(str::to_owned).to_vec()));
}

#[test]
fn documents_without_plain_members_are_refused() {
    for text in [
        "",
        " ",
        "[]",
        "1",
        "{}",
        "{",
        "{\"a\"",
        "{\"a\":",
        "{\"a\":1",
        "{\"a\":\"",
        "{\"a\":\"\\",
        "{a:1}",
        "{\"a\" 1}",
        "{\"\\u0061\":1}",
        "{\"a\":1,}",
        "{\"a\":1]",
        "\u{feff}{\"a\":1}",
        "{\"a\":[1}",
    ] {
        assert_eq!(keys(text), None, "{text}");
    }
}
