//! URLs as Application Insights shows them. Pure functions.

use std::borrow::Cow;

/// A URL for people: percent-encoded text beyond ASCII is decoded, everything else stays (`%C3%A9` is `é`, `%20` stays).
pub fn iri(url: &str) -> Cow<'_, str> {
    if !url.contains('%') {
        return url.into();
    }
    let bytes = url.as_bytes();
    let mut out: Vec<u8> = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&first, after)) = rest.split_first() {
        let run: Vec<u8> = percent_run(rest);
        if run.is_empty() {
            out.push(first);
            rest = after;
            continue;
        }
        match std::str::from_utf8(&run) {
            Ok(_) => out.extend_from_slice(&run),
            Err(_) => out.extend_from_slice(&rest[..run.len() * 3]),
        }
        rest = &rest[run.len() * 3..];
    }
    String::from_utf8_lossy(&out).into_owned().into()
}

/// The bytes of the percent-encoded run beyond ASCII that `text` begins with.
fn percent_run(text: &[u8]) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    text.chunks_exact(3)
        .map_while(|chunk| match *chunk {
            [b'%', high, low] => Some(digit(high)? * 16 + digit(low)?).filter(|byte| *byte >= 0x80),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_text_beyond_ascii_is_decoded() {
        for (url, expected) in [
            ("/score?a=%C3%A9%20", "/score?a=é%20"),
            ("/score?a=%FF%41", "/score?a=%FF%41"),
            ("%", "%"),
            ("%C3", "%C3"),
            ("%c3%a9%C3", "%c3%a9%C3"),
            ("/é", "/é"),
        ] {
            assert_eq!(iri(url), expected);
        }
    }
}
