//! Refusals of bytes that are not valid HTTP: status, message and the JSON reply.
//!
//! Pure functions; runs in the front's event loop, only when a connection ends with such an error.

use super::head::{MAX_FIELDS, MAX_REQUEST_LINE};
use crate::{json::write, telemetry::record::Refusal as Kind};

/// How a TLS client begins (RFC 8446 section 5.1).
const TLS_HANDSHAKE: &[u8] = b"\x16\x03";
/// How many bytes of a request a message repeats at most.
const MAX_QUOTED: usize = 40;

/// Why bytes are refused as a request, or as its body.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Status of the reply.
    pub status: u16,
    /// What the record of the request says.
    pub kind: Kind,
    /// The fault, for the client and the log.
    pub message: String,
}

impl Refusal {
    /// A head that breaks a rule of RFC 9112.
    pub fn bad(fault: &str) -> Self {
        Self { status: 400, kind: Kind::NotHttp, message: format!("Not a valid HTTP request: {fault}") }
    }

    /// A body whose chunked coding breaks a rule of RFC 9112 section 7.1.
    pub fn broken_coding(fault: &str) -> Self {
        Self { status: 400, kind: Kind::BodyInvalid, message: format!("its chunked coding is broken: {fault}") }
    }

    /// A head that did not arrive within `--client_timeout`.
    pub fn late_head() -> Self {
        let message = "The request head did not arrive in time.".to_owned();
        Self { status: 408, kind: Kind::HeadTimeout, message }
    }

    /// The request line is too long.
    pub fn request_line_too_long() -> Self {
        let message = format!("The request line is longer than {MAX_REQUEST_LINE} bytes.");
        Self { status: 414, kind: Kind::HeadTooLarge, message }
    }

    /// The head that begins with `bytes` is too long.
    pub fn head_too_large(bytes: &[u8]) -> Self {
        let line_end = bytes.iter().position(|&byte| byte == b'\n').unwrap_or(bytes.len());
        if line_end > MAX_REQUEST_LINE {
            return Self::request_line_too_long();
        }
        let message = format!("The request header is too large, or has more than {MAX_FIELDS} fields.");
        Self { status: 431, kind: Kind::HeadTooLarge, message }
    }

    /// A transfer coding that this server does not know (RFC 9112 section 6.1).
    pub fn unknown_coding(coding: &[u8]) -> Self {
        let coding = coding[..coding.len().min(MAX_QUOTED)].escape_ascii();
        let message = format!("The transfer coding '{coding}' is not supported, only chunked.");
        Self { status: 501, kind: Kind::UnknownCoding, message }
    }

    /// The refusal for an error that httparse has found in the head that begins with `bytes`.
    pub fn of_parser(error: httparse::Error, bytes: &[u8]) -> Self {
        if bytes.starts_with(TLS_HANDSHAKE) {
            return Self::bad("it begins like TLS. This server speaks plain HTTP: use http://, not https://.");
        }
        Self::bad(match error {
            httparse::Error::HeaderName => "a header name has a character that is not allowed.",
            httparse::Error::HeaderValue => "a header value has a character that is not allowed.",
            httparse::Error::Version => "the version must be HTTP/1.0 or HTTP/1.1.",
            httparse::Error::Token => "the request line is malformed.",
            httparse::Error::TooManyHeaders => return Self::head_too_large(bytes),
            _ => "the request head is malformed.",
        })
    }

    /// The body of the reply.
    pub fn body(&self) -> Vec<u8> {
        write::message_body(&self.message)
    }

    /// The reply with this body, which is the last one on its connection.
    pub fn reply(&self, body: &[u8]) -> Vec<u8> {
        let status = self.status;
        let reason = actix_web::http::StatusCode::from_u16(status)
            .ok()
            .and_then(|status| status.canonical_reason())
            .unwrap_or("Error");
        let mut out = format!(
            "HTTP/1.1 {status} {reason}\r\nserver: azmlinfsrv\r\ncontent-type: application/json\r\n\
             x-ms-run-function-failed: False\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        )
        .into_bytes();
        out.extend_from_slice(body);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reply_is_complete_json() {
        let refusal = Refusal::bad("x");
        let text = String::from_utf8(refusal.reply(&refusal.body())).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("head and body");
        assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{head}");
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{head}");
        assert_eq!(body, "{\"message\": \"Not a valid HTTP request: x\"}");
    }

    #[test]
    fn a_tls_client_is_told_so() {
        let refusal = Refusal::of_parser(httparse::Error::Token, b"\x16\x03\x01");
        assert!(refusal.message.contains("begins like TLS"), "{}", refusal.message);
    }

    #[test]
    fn what_a_client_sent_is_quoted_in_part_and_without_control_characters() {
        let refusal = Refusal::unknown_coding(&[&b"\xc2\x9b31m\x1b'"[..], &[b'x'; 100]].concat());
        let shown = refusal.message.split('\'').nth(1).expect("a quotation");
        assert!(shown.starts_with(r"\xc2\x9b31m\x1b\") && shown.len() < 80, "{shown}");
    }
}
