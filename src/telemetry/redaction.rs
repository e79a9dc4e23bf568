//! Queries without secrets, for everything that leaves the server in a form of its own: JSON lines, spans, Application
//! Insights, and the samples of `--record`. docs/logs.md has the list.
//!
//! The text form of a request's line is that of contract section 13, and `gunicorn.access` is what the user's logging.json
//! makes of it: both have the query as the client sent it. Pure functions.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// Stands in place of a secret (OpenTelemetry's semantic conventions, `url.query`).
const REDACTED: &str = "REDACTED";
/// Parameters that hold a secret. A query is input of the script, so only exact names count: `max_tokens` does not.
const SECRETS: [&str; 29] = [
    "access_token",
    "api-key",
    "api_key",
    "apikey",
    "auth",
    "authorization",
    "awsaccesskeyid",
    "client_secret",
    // Azure Functions and OAuth.
    "code",
    "functions-key",
    "id_token",
    "jwt",
    // API gateways.
    "key",
    "passwd",
    "password",
    "pwd",
    "refresh_token",
    "secret",
    "session_token",
    "sig",
    "signature",
    "subscription-key",
    "token",
    "x-amz-credential",
    "x-amz-security-token",
    "x-amz-signature",
    "x-api-key",
    "x-goog-credential",
    "x-goog-signature",
];

/// The query without the values of secrets.
pub fn query(query: &str) -> Cow<'_, str> {
    if !query.split('&').any(is_secret) {
        return query.into();
    }
    let hidden = |pair| match name_of(pair) {
        name if is_secret(pair) => format!("{name}={REDACTED}"),
        _ => str::to_owned(pair),
    };
    query.split('&').map(hidden).collect::<Vec<_>>().join("&").into()
}

/// The target of a request, without the values of secrets in its query.
pub fn target(target: &str) -> Cow<'_, str> {
    match target.split_once('?') {
        None => target.into(),
        Some((path, sent)) => match query(sent) {
            Cow::Borrowed(_) => target.into(),
            Cow::Owned(shown) => format!("{path}?{shown}").into(),
        },
    }
}

fn name_of(pair: &str) -> &str {
    pair.split('=').next().unwrap_or_default()
}

/// True if the pair has a value, and a name that says that the value is secret.
fn is_secret(pair: &str) -> bool {
    let name = name_of(pair);
    let plain = || percent_decode_str(name).decode_utf8_lossy().to_ascii_lowercase();
    pair.len() > name.len() && SECRETS.contains(&&*plain())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_secrets_are_hidden_and_other_parameters_are_kept() {
        for (sent, shown) in [
            ("", ""),
            ("a=1&b", "a=1&b"),
            ("token=x&a=1", "token=REDACTED&a=1"),
            ("a=1&API%5FKEY=x&sig=%20", "a=1&API%5FKEY=REDACTED&sig=REDACTED"),
            ("key=k&code=c&max_tokens=5", "key=REDACTED&code=REDACTED&max_tokens=5"),
            ("X-Amz-Signature=x", "X-Amz-Signature=REDACTED"),
            // Without a value there is nothing to hide.
            ("keyword=k&token", "keyword=k&token"),
        ] {
            assert_eq!(query(sent), shown);
            assert_eq!(target(&format!("/score?{sent}")), format!("/score?{shown}"));
        }
        assert_eq!(target("/key=1"), "/key=1");
    }

    #[test]
    fn the_list_is_in_order_and_in_lower_case() {
        assert!(SECRETS.is_sorted());
        assert!(SECRETS.iter().all(|name| !name.contains(char::is_uppercase)));
    }
}
