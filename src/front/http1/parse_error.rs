//! JSON for the errors that the HTTP parser answers by itself.
//!
//! actix-http refuses what is not HTTP with a bare status and an empty body, below any handler. This module recognises
//! such a reply on its way out and writes the one this server promises: JSON, with a message that names the fault.
//! Pure functions over bytes; runs in the front's event loop, only when a connection ends with such an error.

use crate::pyjson;

/// Longest request line in bytes; the parser's limit for a target.
const MAX_REQUEST_LINE: usize = 65_535;
/// Number of header fields that the parser accepts.
const MAX_FIELDS: usize = 96;
/// How a TLS client begins (RFC 8446 section 5.1).
const TLS_HANDSHAKE: &[u8] = b"\x16\x03";
/// A bare reply has a status line and at most three short fields.
const MAX_BARE_LEN: usize = 256;

/// A bare error reply found at the end of written bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct BareError {
    /// Where it begins.
    pub at: usize,
    /// Its status.
    pub status: u16,
}

/// Finds a bare error reply at the end of `out`: an error status, no body, and no `server` field, which every reply of
/// a handler carries.
pub fn find(out: &[u8]) -> Option<BareError> {
    if !out.ends_with(b"\r\n\r\n") {
        return None;
    }
    let search_from = out.len().saturating_sub(MAX_BARE_LEN);
    let at = search_from + rfind(&out[search_from..], b"HTTP/1.")?;
    let head = std::str::from_utf8(&out[at..]).ok()?;
    let mut lines = head.strip_suffix("\r\n\r\n")?.split("\r\n");
    let status: u16 = lines.next()?.get(9..12)?.parse().ok()?;
    if status < 400 {
        return None;
    }
    let bare = lines.all(|line| {
        let name = line.split(':').next().unwrap_or_default();
        matches!(name, "date" | "connection") || line == "content-length: 0"
    });
    bare.then_some(BareError { at, status })
}

/// The reply with this status and message.
pub fn reply(status: u16, message: &str) -> Vec<u8> {
    let reason = actix_web::http::StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .unwrap_or("Error");
    let body = pyjson::message_body(message);
    let mut out = format!(
        "HTTP/1.1 {status} {reason}\r\nserver: azmlinfsrv\r\ncontent-type: application/json\r\n\
         x-ms-run-function-failed: False\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    )
    .into_bytes();
    out.extend_from_slice(&body);
    out
}

/// Status and message for the fault that the parser answered with `status`. It does not say which it was, so the bytes are
/// looked at once more: `seen`, those read since the last request began, as far as they were kept.
pub fn explain(status: u16, seen: &[u8]) -> (u16, String) {
    let line_end = seen.iter().position(|&byte| byte == b'\n').unwrap_or(seen.len());
    if line_end > MAX_REQUEST_LINE {
        return (414, format!("The request line is longer than {MAX_REQUEST_LINE} bytes."));
    }
    match status {
        408 => (408, "The request head did not arrive in time.".to_owned()),
        431 => (431, format!("The request header is too large, or has more than {MAX_FIELDS} fields.")),
        400 => explain_bad_request(seen),
        other => (other, "The request could not be processed.".to_owned()),
    }
}

fn explain_bad_request(seen: &[u8]) -> (u16, String) {
    if seen.starts_with(TLS_HANDSHAKE) {
        let text =
            "Not a valid HTTP request: it begins like TLS. This server speaks plain HTTP: use http://, not https://.";
        return (400, text.to_owned());
    }
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let fault = match request.parse(seen) {
        Err(httparse::Error::HeaderName) => "a header name has a character that is not allowed.",
        Err(httparse::Error::HeaderValue) => "a header value has a character that is not allowed.",
        Err(httparse::Error::Version) => "the version must be HTTP/1.0 or HTTP/1.1.",
        Err(httparse::Error::Token) => "the request line is malformed.",
        Err(_) => "the request head is malformed.",
        Ok(httparse::Status::Partial) => "the request head or its body is malformed.",
        Ok(httparse::Status::Complete(_)) => return explain_fields(&request),
    };
    (400, format!("Not a valid HTTP request: {fault}"))
}

/// The head parses by itself, so its fields contradict each other or the protocol (RFC 9112 sections 3.2 and 6).
fn explain_fields(request: &httparse::Request<'_, '_>) -> (u16, String) {
    let values = |wanted: &'static str| {
        request
            .headers
            .iter()
            .filter(move |field| field.name.eq_ignore_ascii_case(wanted))
            .map(|field| field.value.trim_ascii())
    };
    let bad = |fault: &str| (400, format!("Not a valid HTTP request: {fault}"));
    let codings = values("transfer-encoding").collect::<Vec<_>>();
    if !codings.is_empty() {
        if request.version == Some(0) {
            return bad("HTTP/1.0 has no Transfer-Encoding.");
        }
        let known = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked") || coding.eq_ignore_ascii_case(b"identity");
        let unknown = codings
            .iter()
            .flat_map(|value| value.split(|&byte| byte == b','))
            .find(|coding| !known(coding.trim_ascii()));
        if let Some(coding) = unknown {
            let coding = String::from_utf8_lossy(coding.trim_ascii()).into_owned();
            return (501, format!("The transfer coding '{coding}' is not supported, only chunked."));
        }
        if values("content-length").next().is_some() {
            return bad("Content-Length and Transfer-Encoding exclude each other.");
        }
        return bad("Transfer-Encoding must be chunked, once.");
    }
    match values("host").count() {
        0 if request.version == Some(1) => return bad("HTTP/1.1 needs a Host header."),
        0 | 1 => {}
        _ => return bad("there is more than one Host header."),
    }
    match values("content-length").count() {
        0 if request.version == Some(0) && request.method == Some("POST") => {
            bad("an HTTP/1.0 POST needs a Content-Length.")
        }
        0 => bad("the target is malformed."),
        1 => bad("Content-Length is not a number, or the target is malformed."),
        _ => bad("there is more than one Content-Length."),
    }
}

fn rfind(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).rposition(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BARE: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\ndate: x\r\n\r\n";

    #[test]
    fn bare_errors_are_found_alone_and_behind_another_reply() {
        assert_eq!(find(BARE), Some(BareError { at: 0, status: 400 }));
        let before = b"HTTP/1.1 200 OK\r\nserver: azmlinfsrv\r\ncontent-length: 2\r\n\r\n{}";
        let both = [&before[..], BARE].concat();
        assert_eq!(find(&both), Some(BareError { at: before.len(), status: 400 }));
    }

    #[test]
    fn replies_of_handlers_are_not() {
        for reply in [
            &b"HTTP/1.1 400 Bad Request\r\nserver: azmlinfsrv\r\ncontent-length: 0\r\ndate: x\r\n\r\n"[..],
            b"HTTP/1.1 204 No Content\r\ndate: x\r\n\r\n",
            b"HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\ndate: x\r\n\r\n{}",
            b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\ndate: x\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\n",
            b"\r\n\r\n",
            b"",
        ] {
            assert_eq!(find(reply), None, "{}", String::from_utf8_lossy(reply));
        }
    }

    #[test]
    fn faults_are_named_with_their_status() {
        let long = [b"GET /", &b"a".repeat(70_000)[..], b" HTTP/1.1\r\n\r\n"].concat();
        for (status, seen, expected, text) in [
            (400, &long[..], 414, "request line is longer"),
            (431, &b"GET / HTTP/1.1\r\nA: b\r\n"[..], 431, "header is too large"),
            (408, b"GET /", 408, "in time"),
            (400, b"GET / HTTP/1.1\r\n\r\n", 400, "Host"),
            (400, b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "more than one Host"),
            (400, b"GET / HTTP/3.1\r\n\r\n", 400, "version"),
            (400, b"G@T\x01 / HTTP/1.1\r\n\r\n", 400, "request line"),
            (400, b"GET / HTTP/1.1\r\nA B: c\r\n\r\n", 400, "header name"),
            (400, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501, "'gzip'"),
            (400, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", 400, "must be chunked"),
            (
                400,
                b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
                400,
                "exclude each other",
            ),
            (
                400,
                b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
                400,
                "more than one Content",
            ),
        ] {
            let (found, message) = explain(status, seen);
            assert_eq!(found, expected, "{message}");
            assert!(message.contains(text), "{message}");
        }
    }

    #[test]
    fn the_reply_is_complete_json() {
        let (status, message) = explain(400, b"nonsense\r\n\r\n");
        let text = String::from_utf8(reply(status, &message)).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("head and body");
        assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{head}");
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{head}");
        assert!(body.starts_with("{\"message\": \"Not a valid HTTP request: "), "{body}");
    }
}
