//! `/swagger.json`: picks the document for the asked version (contract section 14).
//!
//! The workers build the documents at start and send them in their hello; this is only the look-up.

use bytes::Bytes;

use super::error::RequestError;
use crate::ipc::frame::Hello;

/// Every version there can be: its name in a query, and the document it selects.
const VERSIONS: [(&str, &str); 5] = [("2", "2"), ("2.0", "2"), ("3", "3"), ("3.0", "3"), ("3.1", "3.1")];

/// The document for `?version=`, the first of repeated values; version 2 if none is asked for.
pub fn document(script: &Hello, query: &str) -> Result<Bytes, RequestError> {
    let asked = asked_version(query);
    let supported = script.swagger.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    let name = asked.as_deref().unwrap_or("2");
    let Some((_, version)) = VERSIONS.iter().find(|(known, _)| *known == name) else {
        let text = format!("Swagger version [{name}] is not valid. Supported versions: [{supported}].");
        return Err(RequestError::SwaggerVersion(text));
    };
    match script.swagger.get(*version) {
        Some(document) => Ok(Bytes::copy_from_slice(document.as_bytes())),
        None => {
            let text = format!(
                "Swagger version [{name}] is not supported for the scoring script. Supported swagger versions: \
                 [{supported}]."
            );
            Err(RequestError::SwaggerVersion(text))
        }
    }
}

/// The first `version` parameter, decoded.
fn asked_version(query: &str) -> Option<String> {
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.filter(|(name, _)| decoded(name) == "version").map(|(_, value)| decoded(value)).next()
}

/// Percent-encoding undone, except where the bytes are not UTF-8.
fn decoded(text: &str) -> String {
    let bytes: Vec<u8> = percent_encoding::percent_decode_str(&text.replace('+', " ")).collect();
    let mut decoded = String::new();
    for chunk in bytes.utf8_chunks() {
        decoded.push_str(chunk.valid());
        decoded.extend(chunk.invalid().iter().map(|byte| format!("%{byte:02X}")));
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipc::frame::tests::hello;

    fn script(versions: &[&str]) -> Hello {
        Hello {
            swagger: versions.iter().map(|version| ((*version).to_owned(), format!("doc {version}"))).collect(),
            ..hello()
        }
    }

    fn ask(versions: &[&str], query: &str) -> Result<String, String> {
        document(&script(versions), query)
            .map(|document| String::from_utf8_lossy(&document).into_owned())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn versions_select_their_document() {
        let all = ["2", "3", "3.1"];
        for (query, expected) in [
            ("", "doc 2"),
            ("VERSION=3", "doc 2"),
            ("version=2.0", "doc 2"),
            ("version=3", "doc 3"),
            ("version=3.0", "doc 3"),
            ("a=1&version=3.1&version=2", "doc 3.1"),
            ("version=%33", "doc 3"),
            ("%76ersion=3", "doc 3"),
            ("&version=3", "doc 3"),
            ("version[]=3", "doc 2"),
            ("version+=3", "doc 2"),
        ] {
            assert_eq!(ask(&all, query).as_deref(), Ok(expected), "{query}");
        }
    }

    #[test]
    fn refusals_name_what_there_is() {
        assert_eq!(
            ask(&["2", "3", "3.1"], "version=4"),
            Err("Swagger version [4] is not valid. Supported versions: [2, 3, 3.1].".to_owned())
        );
        assert_eq!(
            ask(&["3", "3.1"], ""),
            Err("Swagger version [2] is not supported for the scoring script. Supported swagger versions: [3, 3.1]."
                .to_owned())
        );
    }
}
