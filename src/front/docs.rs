//! `/docs`: a page with which people try the script, and the last errors for it; and the page that a browser gets on `/`.
//!
//! Owns the pages and which headers keep them harmless. The pages are files beside this one, in `docs/`. They load nothing
//! else, and their policy lets no other code run, whatever a script puts into its description or its answers. Runs in the
//! front's event loop.

use std::{cell::RefCell, collections::VecDeque, rc::Rc, time::UNIX_EPOCH};

use actix_web::{
    http::{
        header::{
            HeaderMap, HeaderValue, ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY,
            VARY, X_CONTENT_TYPE_OPTIONS,
        },
        StatusCode,
    },
    HttpResponse,
};
use base64::{engine::general_purpose::STANDARD as BASE64, Engine as _};
use bytes::Bytes;
use serde::Serialize;

use super::reply::{ReplyContext, JSON, TEXT};
use crate::{
    settings::Settings,
    telemetry::{
        record::{Outcome, RequestRecord, Route},
        recorder::Reader,
    },
};

const PAGE: &str = include_str!("docs/page.html");
const HEALTHY: &str = include_str!("docs/healthy.html");
const STYLE: &str = include_str!("docs/page.css");
const SCRIPTS: [&str; 3] = [include_str!("docs/text.js"), include_str!("docs/schema.js"), include_str!("docs/page.js")];
/// How many errors the page shows.
const MOST_ERRORS: usize = 20;
/// Bytes of an error reply that are kept.
const MOST_OF_A_REPLY: usize = 64 << 10;

/// The pages, ready to be sent.
pub struct Docs {
    page: Page,
    healthy: Page,
    errors: Option<RecentErrors>,
}

struct Page {
    text: Bytes,
    policy: HeaderValue,
}

impl Docs {
    /// The pages for these settings; `None` with `--docs off`.
    pub fn new(settings: &Settings) -> Option<Self> {
        settings.docs.then(|| {
            let errors = settings.error_details.then(RecentErrors::default);
            let script = format!("\"use strict\";\n(() => {{\n{}}})();\n", SCRIPTS.join("\n"));
            let has_errors = if errors.is_some() { "on" } else { "off" };
            let page = Page::new(&PAGE.replace("{errors}", has_errors), Some(&script));
            Self { page, healthy: Page::new(HEALTHY, None), errors }
        })
    }

    /// The reader of requests that keeps the last errors, if the page shows them.
    pub fn reader(&self) -> Option<Box<dyn Reader>> {
        self.errors.clone().map(|errors| Box::new(errors) as Box<dyn Reader>)
    }

    /// The reply to `GET /docs`.
    pub fn page(&self, context: &ReplyContext, record: &mut RequestRecord) -> HttpResponse {
        reply(context, record, TEXT, Some(&self.page.policy), self.page.text.clone())
    }

    /// The reply to `GET /docs?errors`; `None` without `--error_details`.
    pub fn errors(&self, context: &ReplyContext, record: &mut RequestRecord) -> Option<HttpResponse> {
        Some(reply(context, record, JSON, None, self.errors.as_ref()?.to_json()))
    }

    /// The reply to a browser's `GET /` if the server is healthy.
    pub fn healthy(&self, context: &ReplyContext, record: &mut RequestRecord) -> HttpResponse {
        let mut response = reply(context, record, TEXT, Some(&self.healthy.policy), self.healthy.text.clone());
        response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
        response
    }
}

fn reply(
    context: &ReplyContext,
    record: &mut RequestRecord,
    content_type: HeaderValue,
    policy: Option<&HeaderValue>,
    body: Bytes,
) -> HttpResponse {
    record.outcome = Outcome::Answered;
    let mut response = context.builder(StatusCode::OK);
    response.insert_header((CONTENT_TYPE, content_type));
    if let Some(policy) = policy {
        response.insert_header((CONTENT_SECURITY_POLICY, policy.clone()));
    }
    response.insert_header((X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")));
    response.insert_header((REFERRER_POLICY, HeaderValue::from_static("no-referrer")));
    response.insert_header((CACHE_CONTROL, HeaderValue::from_static("no-store")));
    context.identify(&mut response, &context.server_version, false);
    response.body(body)
}

/// True if the client is a browser, or asks for what a browser asks for.
pub fn wants_page(headers: &HeaderMap) -> bool {
    headers.get_all(ACCEPT).any(|value| {
        let value = value.as_bytes().to_ascii_lowercase();
        value.windows(b"text/html".len()).any(|part| part == b"text/html")
    })
}

impl Page {
    /// A page from its parts. Its policy allows this style and this script, and nothing that is not on the page.
    fn new(html: &str, script: Option<&str>) -> Self {
        // A browser reads each end of line as one character, and hashes that.
        let plain = |text: &str| text.replace("\r\n", "\n");
        let (style, script) = (plain(STYLE), script.map(plain));
        let mut policy = format!("default-src 'none'; style-src {}", hash(&style));
        if let Some(script) = &script {
            policy += &format!(
                "; script-src {}; connect-src 'self'; img-src data: blob:; require-trusted-types-for 'script'; \
                 trusted-types 'none'",
                hash(script)
            );
        }
        policy += "; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
        let text = html.replace("{style}", &style).replace("{script}", script.as_deref().unwrap_or_default());
        Self {
            text: text.into(),
            policy: HeaderValue::from_str(&policy).unwrap_or_else(|_| HeaderValue::from_static("default-src 'none'")),
        }
    }
}

/// The source expression of an inline style or script (Content Security Policy level 3, section 2.3.1).
fn hash(text: &str) -> String {
    format!("'sha256-{}'", BASE64.encode(ring::digest::digest(&ring::digest::SHA256, text.as_bytes())))
}

/// The last error replies of `/score`.
#[derive(Clone, Default)]
struct RecentErrors(Rc<RefCell<VecDeque<ErrorReply>>>);

#[derive(Serialize)]
struct ErrorReply {
    /// Milliseconds since 1970.
    time: u64,
    method: String,
    target: String,
    status: u16,
    request_id: String,
    location: String,
    /// The beginning of the body.
    reply: String,
}

impl RecentErrors {
    /// The errors as JSON, newest first.
    fn to_json(&self) -> Bytes {
        let errors = self.0.borrow();
        let newest_first: Vec<_> = errors.iter().rev().collect();
        serde_json::to_vec(&newest_first).unwrap_or_default().into()
    }
}

impl Reader for RecentErrors {
    fn answered(&self, record: &RequestRecord) {
        let (Some(head), Some(status @ 400..)) = (&record.head, record.status) else { return };
        if !record.route.is_some_and(Route::is_for_script) {
            return;
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let reply = match (&record.reply_body, &record.error) {
            (Some(body), _) => text(&body[..body.len().min(MOST_OF_A_REPLY)]),
            (None, Some(message)) => text(&record.error_body(message)),
            (None, None) => String::new(),
        };
        let time = record.began_at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let mut errors = self.0.borrow_mut();
        if errors.len() == MOST_ERRORS {
            errors.pop_front();
        }
        errors.push_back(ErrorReply {
            time: u64::try_from(time).unwrap_or(u64::MAX),
            method: head.method.as_str().to_owned(),
            target: record.target().into_owned(),
            status,
            request_id: record.ids.request.as_deref().map(text).unwrap_or_default(),
            location: text(&record.error_location),
            reply,
        });
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::telemetry::record::Head;

    fn shown(page: &Page) -> (&str, &str) {
        (std::str::from_utf8(&page.text).expect("text"), page.policy.to_str().expect("text"))
    }

    #[test]
    fn the_policy_allows_the_inline_parts_of_the_page_and_nothing_else() {
        let script = "let a = 1;\r\nlet b = 2;";
        let page = Page::new("<style>{style}</style><script>{script}</script>", Some(script));
        let (text, policy) = shown(&page);
        let inline = |name: &str| {
            let rest = text.split(&format!("<{name}>")).nth(1).expect("a part");
            hash(rest.split(&format!("</{name}>")).next().expect("an end"))
        };
        assert!(text.ends_with("let a = 1;\nlet b = 2;</script>"));
        assert!(policy.contains(&format!("style-src {};", inline("style"))), "{policy}");
        assert!(policy.contains(&format!("script-src {};", inline("script"))), "{policy}");
        assert!(policy.starts_with("default-src 'none';") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(hash(""), "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='");
        let page = Page::new(HEALTHY, None);
        let (_, policy) = shown(&page);
        assert!(!policy.contains("script-src"), "{policy}");
    }

    #[test]
    fn the_files_can_stand_inside_the_page() {
        let script = SCRIPTS.join("\n");
        assert!(!script.contains("</script") && !script.contains("<!--") && !STYLE.contains("</style"));
        // `page.js` builds elements and sets their text. These would read markup.
        for sink in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"] {
            assert!(!script.contains(sink), "{sink}");
        }
        for html in [PAGE, HEALTHY] {
            assert!(!html.contains("http:") && !html.contains("https:"), "a page loads nothing from elsewhere");
            let is_inline = |word: &str| word.starts_with("style=") || (word.starts_with("on") && word.contains('='));
            assert!(!html.split_whitespace().any(is_inline), "the policy refuses inline attributes");
        }
    }

    #[test]
    fn browsers_ask_for_a_page() {
        let headers = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            values.iter().for_each(|value| headers.append(ACCEPT, HeaderValue::from_static(value)));
            headers
        };
        for values in [&["text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"][..], &["Text/HTML"], &["*/*", "text/html"]]
        {
            assert!(wants_page(&headers(values)), "{values:?}");
        }
        for values in [&["*/*"][..], &[], &["application/json"], &["text/plain"]] {
            assert!(!wants_page(&headers(values)), "{values:?}");
        }
    }

    #[test]
    fn the_last_errors_of_score_are_kept() {
        let errors = RecentErrors::default();
        let record = |route, status, body: &'static str| {
            let head = Head::without_fields(Method::POST, "/score?a=1");
            let mut record = RequestRecord::begin(Some(head), None);
            (record.route, record.status) = (Some(route), Some(status));
            record.reply_body = Some(Bytes::from_static(body.as_bytes()));
            record
        };
        errors.answered(&record(Route::Score, 200, "fine"));
        errors.answered(&record(Route::Swagger, 404, "no"));
        assert_eq!(&errors.to_json()[..], b"[]");
        (0..MOST_ERRORS).for_each(|_| errors.answered(&record(Route::Score, 500, "old")));
        errors.answered(&record(Route::Score, 400, "new"));
        let mut refused = record(Route::Score, 413, "");
        (refused.reply_body, refused.error) = (None, Some("too large".to_owned()));
        errors.answered(&refused);
        let told: serde_json::Value = serde_json::from_slice(&errors.to_json()).expect("JSON");
        let told = told.as_array().expect("a list");
        assert_eq!(told.len(), MOST_ERRORS);
        assert_eq!(told[0]["reply"], "{\"message\": \"too large\"}");
        assert_eq!(told[1]["reply"], "new");
        assert_eq!(told[1]["target"], "/score?a=1");
        assert_eq!(told[2]["reply"], "old");
        let long: &'static str = Box::leak("x".repeat(MOST_OF_A_REPLY + 1).into_boxed_str());
        errors.answered(&record(Route::Score, 500, long));
        assert_eq!(errors.0.borrow().back().map(|error| error.reply.len()), Some(MOST_OF_A_REPLY));
    }
}
