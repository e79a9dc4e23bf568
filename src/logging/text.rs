//! Makes log text that may have parts from clients safe: one line, without control characters, of
//! limited length.
//!
//! A client chooses its target, its headers and thereby parts of error messages. Escape sequences
//! in them would act on the terminal of a person who reads the log, and newlines would forge
//! records. Every record of the front passes here once before it is queued (`logging/mod.rs`), and
//! so does every request line that a worker logs (`worker/call.rs`). The server's other records in
//! workers have no text of clients. What a script logs or prints does not pass here, because its
//! records may have several lines. Pure functions.

use std::{borrow::Cow, fmt::Write as _};

/// Longest text in bytes. A request line of 4,094 bytes, the longest that the published server
/// accepted, fits in.
const MAX_LEN: usize = 8192;
/// How much of a longer text is kept. The middle is left out, because the end of a request line has
/// its status and length.
const KEPT_HEAD: usize = 6144;
const KEPT_TAIL: usize = 1024;

/// The text, with every character that a terminal or a log reader may act on written as an escape
/// such as `\x1b` or `\u202e`. If the text is too long, its middle is left out.
pub fn plain_line(text: String) -> String {
    match plain(&text) {
        Cow::Borrowed(_) => text,
        Cow::Owned(plain) => plain,
    }
}

/// The same for a text that need not be kept.
pub fn plain(text: &str) -> Cow<'_, str> {
    if text.len() <= MAX_LEN && text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return text.into();
    }
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        if !commands(character) {
            plain.push(character);
            continue;
        }
        let code = u32::from(character);
        // Writing to a string cannot fail.
        let _ = if code < 0x100 { write!(plain, "\\x{code:02x}") } else { write!(plain, "\\u{code:04x}") };
    }
    shorten(plain).into()
}

/// Control characters (C0, DEL, C1), those that change the direction of writing (Unicode's
/// `Bidi_Control`), and the separators of lines and paragraphs, at which some readers break lines.
fn commands(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn shorten(mut text: String) -> String {
    if text.len() <= MAX_LEN {
        return text;
    }
    let is_boundary = |at: &usize| text.is_char_boundary(*at);
    let from = (0..=KEPT_HEAD).rev().find(is_boundary).unwrap_or(0);
    let to = (text.len() - KEPT_TAIL..text.len()).find(is_boundary).unwrap_or(text.len());
    let left_out = format!("[... {} bytes left out ...]", to - from);
    text.replace_range(from..to, &left_out);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> String {
        plain_line(text.to_owned())
    }

    #[test]
    fn ordinary_text_is_left_alone() {
        for text in ["", "GET /score?a=%20b\\d 200 1.234ms 5", "Grüße, 你好 😀", &"x".repeat(MAX_LEN)] {
            assert_eq!(plain(text), text);
        }
    }

    #[test]
    fn commands_are_written_out() {
        assert_eq!(plain("a\x1b[31mb\r\nc\td\0\x7f"), r"a\x1b[31mb\x0d\x0ac\x09d\x00\x7f");
        assert_eq!(plain("\u{9b}31m\u{85}"), r"\x9b31m\x85");
        assert_eq!(plain("\u{202e}gpj\u{2066}\u{200f}\u{61c}\u{2028}"), r"\u202egpj\u2066\u200f\u061c\u2028");
    }

    #[test]
    fn no_character_that_commands_anything_is_left_of_any() {
        let all: String = ('\0'..='\u{10ffff}').collect();
        for piece in all.chars().collect::<Vec<_>>().chunks(1000) {
            let found = plain_line(piece.iter().collect());
            assert!(!found.chars().any(|character| character.is_control() || commands(character)));
        }
    }

    #[test]
    fn a_long_text_loses_its_middle_and_says_so() {
        let text = format!("GET /{} 404 0.123ms 135", "x".repeat(60_000));
        let found = plain(&text);
        assert!(found.len() <= MAX_LEN, "{}", found.len());
        assert!(found.starts_with("GET /xxx") && found.ends_with("x 404 0.123ms 135"), "{found}");
        assert!(found.contains(&format!("x[... {} bytes left out ...]x", text.len() - KEPT_HEAD - KEPT_TAIL)));
    }

    #[test]
    fn the_limit_holds_for_what_is_written_out_and_never_splits_a_character() {
        for unit in ["\x1b", "é", "😀", "\u{202e}", "a😀\x1b"] {
            for extra in 0..4 {
                let found = plain(&format!("{}{}", "a".repeat(extra), unit.repeat(40_000)));
                assert!(found.len() <= MAX_LEN && found.contains(" bytes left out ...]"), "{}", found.len());
            }
        }
    }
}
