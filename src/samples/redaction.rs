//! Which headers are written to a sample, and which values are replaced by `redacted`. `telemetry/redaction.rs` does that
//! for parameters of a query.
//!
//! Pure functions. Hiding one value too many costs little, a password in a file costs a lot, so whatever has a name
//! like that of a secret is hidden. Bodies are written as they are.

use std::collections::BTreeMap;

use crate::telemetry::record::Field;

/// Stands in place of a value that is not written.
const REDACTED: &str = "redacted";
/// A header whose name has one of these in it holds a secret.
const SECRET_HEADERS: [&str; 13] = [
    "auth",
    "cookie",
    "key",
    "token",
    "secret",
    "passw",
    "pwd",
    "credential",
    "session",
    "signature",
    "cert",
    "jwt",
    "principal",
];
/// Headers about the connection or the length of the body. Whoever sends the sample makes them anew.
const OF_THE_CONNECTION: [&str; 12] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "upgrade-insecure-requests",
];
/// Headers of an answer that differ each time. They cannot be expected.
const OF_ONE_REPLY: [&str; 5] = ["age", "date", "expires", "server", "x-request-id"];

/// Headers for the file of a request: `None` means that the header must not be sent.
pub type Headers = BTreeMap<String, Option<String>>;

/// True if the header's value must not be written.
fn is_secret(name: &str) -> bool {
    SECRET_HEADERS.iter().any(|part| name.contains(part))
}

/// The headers of a request. Repeated ones are joined, as RFC 9110 section 5.3 allows. A body whose type the client has not
/// told is sent without one again.
pub fn of_request(fields: &[Field], has_body: bool) -> Headers {
    let mut headers = joined(fields, |name| OF_THE_CONNECTION.contains(&name));
    for (name, value) in &mut headers {
        if is_secret(name) {
            *value = Some(REDACTED.to_owned());
        }
    }
    if has_body {
        headers.entry("content-type".to_owned()).or_default();
    }
    headers
}

/// The headers of an answer that another answer to the same request must have too.
pub fn of_reply(fields: &[Field]) -> Headers {
    joined(fields, |name| {
        OF_THE_CONNECTION.contains(&name)
            || OF_ONE_REPLY.contains(&name)
            || name.starts_with("x-ms-")
            || is_secret(name)
    })
}

fn joined(fields: &[Field], is_left_out: impl Fn(&str) -> bool) -> Headers {
    let mut headers = Headers::new();
    for (name, value) in fields {
        let name = latin(name).to_ascii_lowercase();
        if is_left_out(&name) {
            continue;
        }
        let known: &mut Option<String> = headers.entry(name).or_default();
        *known = Some(match known.take() {
            Some(before) => format!("{before}, {}", latin(value)),
            None => latin(value),
        });
    }
    headers
}

/// Header values are bytes; Python's HTTP client reads and writes each as one character.
fn latin(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn fields(pairs: &[(&'static str, &'static str)]) -> Vec<Field> {
        let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
        pairs.iter().map(|(name, value)| (bytes(name), bytes(value))).collect()
    }

    #[test]
    fn secrets_are_hidden() {
        for name in [
            "Authorization",
            "Proxy-Authorization",
            "Cookie",
            "X-Api-Key",
            "Ocp-Apim-Subscription-Key",
            "X-Functions-Key",
            "X-Auth-Token",
            "X-Amz-Security-Token",
            "X-Forwarded-Client-Cert",
            "X-MS-Client-Principal",
            "X-Session-Id",
            "X-Password",
        ] {
            let headers = of_request(&fields(&[(name, "s3cret")]), false);
            assert_eq!(headers.get(&name.to_lowercase()), Some(&Some("redacted".to_owned())), "{name}");
            assert!(of_reply(&fields(&[(name, "s3cret")])).is_empty(), "{name}");
        }
    }

    #[test]
    fn other_headers_are_kept_and_those_of_the_connection_are_left_out() {
        let headers = of_request(
            &fields(&[
                ("host", "h"),
                ("content-length", "3"),
                ("Transfer-Encoding", "chunked"),
                ("content-type", "text/csv"),
                ("x-user", "a"),
                ("x-user", "b"),
                ("accept", "*/*"),
            ]),
            true,
        );
        let shown: Vec<_> = headers.iter().map(|(name, value)| (&**name, value.as_deref())).collect();
        assert_eq!(shown, [("accept", Some("*/*")), ("content-type", Some("text/csv")), ("x-user", Some("a, b"))]);
    }

    #[test]
    fn a_body_without_a_type_stays_without_one() {
        assert_eq!(of_request(&[], true).get("content-type"), Some(&None));
        assert!(of_request(&[], false).is_empty());
    }

    #[test]
    fn an_answer_keeps_what_can_be_expected() {
        let headers = of_reply(&fields(&[
            ("Content-Type", "text/plain"),
            ("Date", "now"),
            ("x-ms-run-fn-exec-ms", "1"),
            ("Set-Cookie", "a=b"),
            ("x-model", "7"),
            ("x-city", "K\u{f6}ln"),
        ]));
        let shown: Vec<_> = headers.iter().map(|(name, value)| (&**name, value.as_deref())).collect();
        assert_eq!(
            shown,
            [("content-type", Some("text/plain")), ("x-city", Some("K\u{c3}\u{b6}ln")), ("x-model", Some("7"))]
        );
    }
}
