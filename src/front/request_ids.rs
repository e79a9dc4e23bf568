//! Request ids: which are echoed under which name, how long they may be (contract section 9).
//!
//! Pure functions over header values; runs in the front's event loop.

use actix_web::http::header::{HeaderMap, HeaderName};
use bytes::Bytes;

use super::error::RequestError;
use crate::telemetry::record::Ids;

/// Limit for an id, in bytes.
const MAX_LEN: usize = 100;

// Looking a field up by its text would parse the text and allocate the name for each request.
static TRACE: HeaderName = HeaderName::from_static("traceid");
static REQUEST: HeaderName = HeaderName::from_static("x-request-id");
static MS_REQUEST: HeaderName = HeaderName::from_static("x-ms-request-id");
static CLIENT_REQUEST: HeaderName = HeaderName::from_static("x-ms-client-request-id");

/// The ids of one request, ready for its reply headers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RequestIds {
    /// `x-request-id`; absent only if the client sent it empty.
    pub request: Option<Bytes>,
    /// `x-ms-request-id`: as the client sent it, else its client request id, else the request id.
    pub ms_request: Option<Bytes>,
    /// `x-ms-client-request-id`; absent unless the client has sent this header or
    /// `x-ms-request-id`.
    pub client: Option<Bytes>,
    /// `TraceId`, repeated as the client sent it.
    pub trace: Option<Bytes>,
    /// The client used the deprecated `x-ms-request-id`: a warning is due.
    pub deprecated: bool,
}

impl RequestIds {
    /// Reads the ids; `new_id` makes one where the client sent none.
    ///
    /// A too long id is an error, returned beside the ids that the error reply still carries.
    pub fn read(headers: &HeaderMap, new_id: impl FnOnce() -> Bytes) -> (Self, Option<RequestError>) {
        let trace = field(headers, &TRACE);
        let request = match field(headers, &REQUEST) {
            None => Some(new_id()),
            Some(id) if id.len() > MAX_LEN => {
                return (Self { trace, ..Self::default() }, Some(RequestError::RequestIdTooLong));
            }
            Some(id) => Some(id).filter(|id| !id.is_empty()),
        };
        let legacy = field(headers, &MS_REQUEST).filter(|id| !id.is_empty());
        let client = field(headers, &CLIENT_REQUEST).filter(|id| !id.is_empty());
        let too_long = |id: &Option<Bytes>| id.as_ref().is_some_and(|id| id.len() > MAX_LEN);
        if too_long(&legacy) || too_long(&client) {
            let ids = Self { request, trace, deprecated: legacy.is_some(), ..Self::default() };
            return (ids, Some(RequestError::ClientRequestIdTooLong));
        }
        let deprecated = legacy.is_some();
        let ms_request = legacy.clone().or_else(|| client.clone()).or_else(|| request.clone());
        let client = client.or(legacy);
        (Self { request, ms_request, client, trace, deprecated }, None)
    }

    /// What the record of the request needs of them.
    pub fn for_record(&self) -> Ids {
        Ids { request: self.request.clone(), client_request: self.client.clone(), uses_deprecated: self.deprecated }
    }
}

/// A new random id.
pub fn new_uuid() -> Bytes {
    let mut buffer = [0u8; uuid::fmt::Hyphenated::LENGTH];
    uuid::Uuid::new_v4().hyphenated().encode_lower(&mut buffer);
    Bytes::copy_from_slice(&buffer)
}

/// All values of a field, stripped and joined with a bare comma, as WSGI servers hand them over;
/// `None` if it was not sent.
pub(super) fn field(headers: &HeaderMap, name: &HeaderName) -> Option<Bytes> {
    let mut values = headers.get_all(name).map(|value| value.as_bytes().trim_ascii());
    let first = values.next()?;
    let Some(second) = values.next() else {
        return Some(Bytes::copy_from_slice(first));
    };
    let mut joined = [first, b",", second].concat();
    for value in values {
        joined.push(b',');
        joined.extend_from_slice(value);
    }
    Some(joined.into())
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{HeaderName, HeaderValue};

    use super::*;

    fn read(fields: &[(&'static str, &str)]) -> (RequestIds, Option<RequestError>) {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let value = HeaderValue::from_str(value).expect("valid");
            headers.append(HeaderName::from_static(name), value);
        }
        RequestIds::read(&headers, || Bytes::from_static(b"new"))
    }

    fn texts(ids: &RequestIds) -> [Option<&str>; 3] {
        [&ids.request, &ids.ms_request, &ids.client]
            .map(|id| id.as_deref().map(|id| std::str::from_utf8(id).expect("text")))
    }

    #[test]
    fn the_table_of_section_9() {
        const R: (&str, &str) = ("x-request-id", "r");
        const M: (&str, &str) = ("x-ms-request-id", "m");
        const C: (&str, &str) = ("x-ms-client-request-id", "c");
        const EMPTY_R: (&str, &str) = ("x-request-id", "");
        for (sent, expected) in [
            (&[][..], [Some("new"), Some("new"), None]),
            (&[R], [Some("r"), Some("r"), None]),
            (&[M], [Some("new"), Some("m"), Some("m")]),
            (&[C], [Some("new"), Some("c"), Some("c")]),
            (&[R, M], [Some("r"), Some("m"), Some("m")]),
            (&[R, C], [Some("r"), Some("c"), Some("c")]),
            (&[M, C], [Some("new"), Some("m"), Some("c")]),
            (&[EMPTY_R], [None, None, None]),
            (&[EMPTY_R, M], [None, Some("m"), Some("m")]),
            (&[("x-ms-request-id", "")], [Some("new"), Some("new"), None]),
            (&[R, ("x-request-id", "s")], [Some("r,s"), Some("r,s"), None]),
        ] {
            let (ids, error) = read(sent);
            assert_eq!(texts(&ids), expected, "{sent:?}");
            assert_eq!(error, None);
        }
    }

    #[test]
    fn a_hundred_characters_are_the_limit() {
        let (full, over) = ("x".repeat(100), "x".repeat(101));
        assert_eq!(read(&[("x-request-id", &full), ("x-ms-request-id", &full)]).1, None);
        let (ids, error) = read(&[("x-request-id", &over), ("traceid", "t")]);
        assert_eq!((texts(&ids), error), ([None; 3], Some(RequestError::RequestIdTooLong)));
        assert_eq!(ids.trace.as_deref(), Some(&b"t"[..]));
        for name in ["x-ms-request-id", "x-ms-client-request-id"] {
            let (ids, error) = read(&[("x-request-id", "r"), (name, &over)]);
            assert_eq!((texts(&ids), error), ([Some("r"), None, None], Some(RequestError::ClientRequestIdTooLong)));
        }
    }

    #[test]
    fn new_ids_are_version_4_uuids() {
        let id = new_uuid();
        let text = std::str::from_utf8(&id).expect("ASCII");
        assert_eq!(uuid::Uuid::parse_str(text).expect("a UUID").get_version_num(), 4);
        assert_ne!(id, new_uuid());
    }
}
