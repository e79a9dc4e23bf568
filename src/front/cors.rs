//! Cross-origin headers (contract section 12): which origins are allowed, what a preflight is told.
//!
//! Pure decisions over header values; runs in the front's event loop. Unlike the published server
//! an entry must match the whole origin: matching only its start let `http://a.com.evil.com` pass a
//! pattern for `a.com`.

use actix_web::http::{
    header::{
        HeaderMap, HeaderName, HeaderValue, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
        ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
    },
    Method,
};
use regex_lite::{Regex, RegexBuilder};

use super::request_ids::field;

const REQUEST_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-request-private-network");
const ALLOW_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-allow-private-network");
const ALLOWED_METHODS: HeaderValue = HeaderValue::from_static("GET, POST");
/// Characters that make an entry a pattern; a plain origin has none of them.
const PATTERN_CHARACTERS: &str = "*\\]?$^[()";

/// A header field to add.
pub type Addition = (HeaderName, HeaderValue);

/// An entry of the list that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("AML_CORS_ORIGINS: {entry:?} is neither an origin, nor *, nor a regular expression: {reason}")]
pub struct BadEntry {
    entry: String,
    reason: String,
}

#[derive(Debug)]
enum Entry {
    Plain(String),
    Pattern(Regex),
}

impl Entry {
    fn matches(&self, origin: &str) -> bool {
        match self {
            Self::Plain(entry) => entry.eq_ignore_ascii_case(origin),
            Self::Pattern(pattern) => pattern.is_match(origin),
        }
    }
}

/// The configured origins.
#[derive(Debug)]
pub struct Cors {
    entries: Vec<Entry>,
    any: bool,
}

impl Cors {
    /// Reads the comma-separated list; `None` if it is empty.
    pub fn parse(list: &str) -> Result<Option<Self>, BadEntry> {
        let texts: Vec<&str> = list.split(',').map(str::trim).filter(|text| !text.is_empty()).collect();
        if texts.is_empty() {
            return Ok(None);
        }
        let any = texts.contains(&"*");
        let entries = texts.into_iter().filter(|text| *text != "*").map(entry).collect::<Result<_, _>>()?;
        Ok(Some(Self { entries, any }))
    }

    /// The header fields to add to the reply to a request with these headers.
    pub fn additions(&self, method: &Method, headers: &HeaderMap) -> Vec<Addition> {
        let origin = joined(headers, &ORIGIN).filter(|origin| !origin.is_empty());
        let mut additions = Vec::new();
        let allowed = match origin {
            None => self.without_origin(&mut additions),
            Some(origin) => self.with_origin(&origin, &mut additions),
        };
        if allowed && *method == Method::OPTIONS {
            preflight(headers, &mut additions);
        }
        additions
    }

    /// A request without an Origin header gets the alphabetically first plain origin, as in 1.5.1.
    fn without_origin(&self, additions: &mut Vec<Addition>) -> bool {
        if self.any {
            additions.push((ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*")));
            return true;
        }
        let plain = self.entries.iter().filter_map(|entry| match entry {
            Entry::Plain(origin) => Some(origin.as_str()),
            Entry::Pattern(_) => None,
        });
        if let Some(value) = plain.min().and_then(|first| HeaderValue::from_str(first).ok()) {
            additions.push((ACCESS_CONTROL_ALLOW_ORIGIN, value));
            if self.entries.len() > 1 {
                additions.push((VARY, HeaderValue::from_static("Origin")));
            }
        }
        true
    }

    fn with_origin(&self, origin: &HeaderValue, additions: &mut Vec<Addition>) -> bool {
        let matching = origin.to_str().ok().and_then(|text| self.entries.iter().find(|entry| entry.matches(text)));
        if matching.is_none() && !self.any {
            return false;
        }
        additions.push((ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone()));
        let only_one = matches!(&self.entries[..], [Entry::Plain(_)]) && !self.any;
        if !only_one {
            additions.push((VARY, HeaderValue::from_static("Origin")));
        }
        true
    }
}

/// All values of a field joined into one, as the published server sees them. A browser sends each
/// field of contract section 12 once.
fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<HeaderValue> {
    field(headers, name).and_then(|value| HeaderValue::from_maybe_shared(value).ok())
}

fn entry(text: &str) -> Result<Entry, BadEntry> {
    if !text.contains(|character| PATTERN_CHARACTERS.contains(character)) {
        return Ok(Entry::Plain(text.to_owned()));
    }
    let whole = format!("^(?:{text})$");
    let pattern = RegexBuilder::new(&whole).case_insensitive(true).build();
    pattern.map(Entry::Pattern).map_err(|error| BadEntry { entry: text.to_owned(), reason: error.to_string() })
}

fn preflight(headers: &HeaderMap, additions: &mut Vec<Addition>) {
    if joined(headers, &REQUEST_PRIVATE_NETWORK).is_some_and(|value| value.as_bytes() == b"true") {
        additions.push((ALLOW_PRIVATE_NETWORK, HeaderValue::from_static("false")));
    }
    let method = joined(headers, &ACCESS_CONTROL_REQUEST_METHOD);
    let method = method.as_ref().map(HeaderValue::as_bytes);
    if !method.is_some_and(|name| name.eq_ignore_ascii_case(b"GET") || name.eq_ignore_ascii_case(b"POST")) {
        return;
    }
    let asked = joined(headers, &ACCESS_CONTROL_REQUEST_HEADERS);
    let asked = asked.as_ref().and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut names: Vec<&str> = asked.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    names.sort_unstable();
    if let Some(value) = Some(names.join(", ")).filter(|list| !list.is_empty()) {
        if let Ok(value) = HeaderValue::from_str(&value) {
            additions.push((ACCESS_CONTROL_ALLOW_HEADERS, value));
        }
    }
    additions.push((ACCESS_CONTROL_ALLOW_METHODS, ALLOWED_METHODS));
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "http://A.com";
    const TWO: &str = " http://a.com , http://b.com";

    fn added(list: &str, method: &Method, fields: &[(&'static str, &str)]) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).expect("valid"));
        }
        let cors = Cors::parse(list).expect("usable").expect("not empty");
        let text = |(name, value): &Addition| format!("{name}: {}", value.to_str().expect("text"));
        cors.additions(method, &headers).iter().map(text).collect()
    }

    #[test]
    fn origins_of_contract_section_12() {
        const ALLOW: &str = "access-control-allow-origin: ";
        for (list, origin, allowed, varies) in [
            (ONE, None, Some("http://A.com"), false),
            (ONE, Some(""), Some("http://A.com"), false),
            (ONE, Some("HTTP://a.COM"), Some("HTTP://a.COM"), false),
            (ONE, Some("http://a.com/"), None, false),
            (ONE, Some("http://a.com:80"), None, false),
            (TWO, None, Some("http://a.com"), true),
            ("http://b.*\\.com", None, None, false),
            (TWO, Some("http://B.com"), Some("http://B.com"), true),
            (TWO, Some("http://c.com"), None, false),
            ("*", None, Some("*"), false),
            ("*, http://a.com", Some("null"), Some("null"), true),
            ("http://*.a.com", Some("http://a.com"), Some("http://a.com"), true),
            ("http://*.a.com", Some("http://x.a.com"), None, false),
            (r"http://.*\.f\.com", Some("http://x.f.com"), Some("http://x.f.com"), true),
            (r"http://.*\.f\.com", Some("http://x.f.com.evil.com"), None, false),
        ] {
            let fields: Vec<_> = origin.map(|origin| ("origin", origin)).into_iter().collect();
            let mut expected: Vec<String> = allowed.map(|value| format!("{ALLOW}{value}")).into_iter().collect();
            expected.extend(varies.then(|| "vary: Origin".to_owned()));
            assert_eq!(added(list, &Method::GET, &fields), expected, "{list} {origin:?}");
        }
    }

    #[test]
    fn preflights_are_told_methods_and_sorted_headers() {
        let asked = [
            ("origin", "http://a.com"),
            ("access-control-request-method", "post"),
            ("access-control-request-headers", "X-B, ,x-a,Content-Type"),
            ("access-control-request-private-network", "true"),
        ];
        let expected = [
            "access-control-allow-origin: http://a.com",
            "access-control-allow-private-network: false",
            "access-control-allow-headers: Content-Type, X-B, x-a",
            "access-control-allow-methods: GET, POST",
        ];
        assert_eq!(added(ONE, &Method::OPTIONS, &asked), expected);
        assert_eq!(added(ONE, &Method::GET, &asked), expected[..1]);
        assert_eq!(added("http://c.com", &Method::OPTIONS, &asked), [""; 0]);
        let put = [("origin", "http://a.com"), ("access-control-request-method", "PUT")];
        assert_eq!(added(ONE, &Method::OPTIONS, &put), expected[..1]);
    }

    #[test]
    fn repeated_fields_count_as_one() {
        let twice = [("origin", "http://a.com"), ("origin", " http://b.com")];
        assert_eq!(added("http://a.com, http://b.com", &Method::GET, &twice), [""; 0]);
        let allowed = ["access-control-allow-origin: http://a.com,http://b.com", "vary: Origin"];
        assert_eq!(added("*", &Method::GET, &twice), allowed);
        let first = [("origin", ""), ("origin", "http://a.com")];
        assert_eq!(added(ONE, &Method::GET, &first), [""; 0], "it is no request without an origin");
        let asked = [
            ("origin", "http://a.com"),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "x-b"),
            ("access-control-request-headers", "x-a,x-c"),
            ("access-control-request-private-network", "true"),
            ("access-control-request-private-network", "true"),
        ];
        let expected = [
            "access-control-allow-origin: http://a.com",
            "access-control-allow-headers: x-a, x-b, x-c",
            "access-control-allow-methods: GET, POST",
        ];
        assert_eq!(added(ONE, &Method::OPTIONS, &asked), expected);
        let two_methods = [("access-control-request-method", "POST"), ("access-control-request-method", "GET")];
        assert_eq!(added("*", &Method::OPTIONS, &two_methods), ["access-control-allow-origin: *"]);
    }

    #[test]
    fn lists_that_cannot_be_used_are_refused_by_name() {
        assert!(Cors::parse(" , ").expect("empty").is_none());
        let error = Cors::parse("http://a.com, http://(").expect_err("an open group").to_string();
        assert!(error.contains("AML_CORS_ORIGINS") && error.contains("http://("), "{error}");
    }
}
