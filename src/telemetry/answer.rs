//! What the answer of a receiver means for the items that were sent to it.
//!
//! Pure functions from status, headers and body to a [`Verdict`]. `lane.rs` acts by the verdict. The
//! rules of Application Insights are those of its own exporters; those of OTLP are in the OTLP
//! specification, section "OTLP/HTTP Response".

use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message as _;

/// A receiver cannot make the exporter wait longer than this.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3600);
/// Longest text of a receiver that a log line quotes, in characters.
const MAX_QUOTE: usize = 200;

/// What a receiver answered to one batch.
#[derive(Debug, Default)]
pub struct Answer {
    /// HTTP status code.
    pub status: u16,
    /// The `Retry-After` field.
    pub retry_after: Option<String>,
    /// The `Location` field.
    pub location: Option<String>,
    /// The body; `None` if it broke off, or did not come in time.
    pub body: Option<Vec<u8>>,
}

/// Why items were dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// More items waited than the memory for them holds. The oldest are dropped.
    Full,
    /// The receiver refused them for good.
    Refused,
    /// The receiver's quota is used up.
    Quota,
    /// The server stopped before they were sent.
    Stopped,
    /// `--telemetry_storage` was full, or could not be written.
    Storage,
    /// A worker could not pass them to the front.
    Worker,
    /// The exporter's thread panicked with them in hand.
    Panic,
    /// The front died while they waited in it.
    Front,
}

impl Reason {
    /// All reasons, in the order of [`Reason::name`]'s match.
    pub const ALL: [Self; 8] =
        [Self::Full, Self::Refused, Self::Quota, Self::Stopped, Self::Storage, Self::Worker, Self::Panic, Self::Front];

    /// The name of the reason, one word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Refused => "refused",
            Self::Quota => "quota",
            Self::Stopped => "stopped",
            Self::Storage => "storage",
            Self::Worker => "worker",
            Self::Panic => "panic",
            Self::Front => "front",
        }
    }
}

/// What becomes of a batch.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The receiver has all items.
    Accepted,
    /// The receiver has all items except these.
    Partly {
        /// Positions in the batch of items that are sent again.
        again: Vec<usize>,
        /// Positions of items that are dropped.
        refused: Vec<usize>,
        /// What the receiver said about one of them.
        why: String,
    },
    /// The same batch may succeed later.
    Later {
        /// What happened, for the log.
        why: String,
        /// How long the receiver asks to wait.
        after: Option<Duration>,
    },
    /// Another address takes the items from now on.
    Moved(String),
    /// The batch is dropped.
    Dropped(Reason, String),
}

impl Verdict {
    /// True if the receiver has taken nothing of the batch.
    pub const fn is_failure(&self) -> bool {
        matches!(self, Self::Later { .. } | Self::Dropped(..))
    }

    /// The same without a secret in its text.
    pub fn without(mut self, secret: &str) -> Self {
        if let Self::Partly { why, .. } | Self::Later { why, .. } | Self::Dropped(_, why) = &mut self {
            if !secret.is_empty() && why.contains(secret) {
                *why = why.replace(secret, "***");
            }
        }
        self
    }
}

/// The rules of Application Insights.
pub fn of_app_insights(answer: &Answer, sent: usize) -> Verdict {
    match answer.status {
        200 => Verdict::Accepted,
        206 => partly(answer, sent),
        307 | 308 => moved(answer),
        402 | 439 => Verdict::Dropped(Reason::Quota, format!("status {}: its quota is used up", answer.status)),
        status if may_pass(status) => later(answer),
        _ => refused(answer),
    }
}

/// True if Application Insights may accept the same items later, all of a batch or a single one.
const fn may_pass(status: u16) -> bool {
    matches!(status, 401 | 403 | 408 | 429 | 500 | 502 | 503 | 504)
}

/// The rules of OTLP.
pub fn of_otlp(answer: &Answer, sent: usize) -> Verdict {
    match answer.status {
        200..=299 => otlp_partly(answer, sent),
        307 | 308 => moved(answer),
        429 | 502 | 503 | 504 => later(answer),
        _ => refused(answer),
    }
}

/// A success may name items that the receiver will never take. Spans, log records and metrics have the same message for that,
/// with other names of its fields. A body that is no such message is a plain success.
fn otlp_partly(answer: &Answer, sent: usize) -> Verdict {
    let Some(body) = &answer.body else { return broken_off(answer) };
    let partial = ExportTraceServiceResponse::decode(body.as_slice()).ok().and_then(|body| body.partial_success);
    match partial {
        Some(partial) if partial.rejected_spans > 0 => {
            let refused = usize::try_from(partial.rejected_spans).unwrap_or(usize::MAX).min(sent);
            let why = format!("status {}: {}", answer.status, quoted(&partial.error_message));
            Verdict::Partly { again: Vec::new(), refused: (0..refused).collect(), why }
        }
        _ => Verdict::Accepted,
    }
}

/// What a broken connection means: the receiver may have the items, so they may arrive twice.
pub fn of_failure(why: String) -> Verdict {
    Verdict::Later { why, after: None }
}

/// Without the body of this answer nobody knows which items the receiver has.
fn broken_off(answer: &Answer) -> Verdict {
    of_failure(format!("its answer with status {} broke off", answer.status))
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct TrackAnswer {
    errors: Vec<TrackError>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct TrackError {
    index: usize,
    status_code: u16,
    #[serde(default)]
    message: String,
}

fn partly(answer: &Answer, sent: usize) -> Verdict {
    let Some(body) = &answer.body else { return broken_off(answer) };
    let Ok(TrackAnswer { errors }) = serde_json::from_slice(body) else {
        return Verdict::Dropped(Reason::Refused, "status 206 with a body that is no list of errors".to_owned());
    };
    let (mut again, mut refused, mut why) = (Vec::new(), Vec::new(), String::new());
    for error in errors.into_iter().filter(|error| error.index < sent) {
        if may_pass(error.status_code) {
            again.push(error.index);
        } else {
            why = format!("status {}: {}", error.status_code, quoted(&error.message));
            refused.push(error.index);
        }
    }
    again.sort_unstable();
    again.dedup();
    refused.sort_unstable();
    refused.dedup();
    refused.retain(|index| !again.contains(index));
    Verdict::Partly { again, refused, why }
}

fn moved(answer: &Answer) -> Verdict {
    match answer.location.as_deref() {
        Some(location) if !location.is_empty() => Verdict::Moved(location.to_owned()),
        _ => refused(answer),
    }
}

fn later(answer: &Answer) -> Verdict {
    let seconds = answer.retry_after.as_deref().and_then(|text| text.trim().parse::<u64>().ok());
    let after = seconds.map(|seconds| Duration::from_secs(seconds).min(LONGEST_RETRY_AFTER));
    Verdict::Later { why: format!("status {}", answer.status), after }
}

fn refused(answer: &Answer) -> Verdict {
    let body = answer.body.as_deref().unwrap_or_default();
    let said = serde_json::from_slice::<TrackAnswer>(body).ok().and_then(|answer| answer.errors.into_iter().next());
    let said = said.map(|error| format!(": {}", quoted(&error.message))).unwrap_or_default();
    Verdict::Dropped(Reason::Refused, format!("status {}{said}", answer.status))
}

/// The beginning of a receiver's explanation. Nothing else of an answer is quoted, because a receiver may send back what it
/// got.
fn quoted(text: &str) -> String {
    text.chars().take(MAX_QUOTE).collect()
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;

    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status, body: Some(body.as_bytes().to_vec()), ..Answer::default() }
    }

    #[test]
    fn app_insights_statuses() {
        let kind = |status| match of_app_insights(&answer(status, ""), 1) {
            Verdict::Accepted => "accepted",
            Verdict::Partly { .. } => "partly",
            Verdict::Later { .. } => "later",
            Verdict::Moved(_) => "moved",
            Verdict::Dropped(reason, _) => reason.name(),
        };
        for (expected, statuses) in [
            ("accepted", &[200][..]),
            ("later", &[401, 403, 408, 429, 500, 502, 503, 504]),
            ("quota", &[402, 439]),
            ("refused", &[204, 206, 301, 307, 400, 404, 405, 413, 501]),
        ] {
            for status in statuses {
                assert_eq!(kind(*status), expected, "{status}");
            }
        }
    }

    #[test]
    fn otlp_retries_four_statuses_only() {
        for status in [429, 502, 503, 504] {
            assert!(matches!(of_otlp(&answer(status, ""), 1), Verdict::Later { .. }), "{status}");
        }
        for status in [400, 401, 403, 404, 408, 500, 501] {
            assert!(matches!(of_otlp(&answer(status, ""), 1), Verdict::Dropped(Reason::Refused, _)), "{status}");
        }
        let broken_off = Answer { status: 200, ..Answer::default() };
        assert!(matches!(of_otlp(&broken_off, 1), Verdict::Later { after: None, .. }), "some items may be refused");
        assert_eq!(of_app_insights(&broken_off, 1), Verdict::Accepted, "the status says all");
        for body in ["", "{}", "nonsense"] {
            assert_eq!(of_otlp(&answer(200, body), 1), Verdict::Accepted, "{body}");
        }
    }

    #[test]
    fn what_otlp_rejects_in_a_success_is_lost() {
        let rejected = |rejected_spans, sent| {
            let partial_success = ExportTracePartialSuccess { rejected_spans, error_message: "too old".to_owned() };
            let body = ExportTraceServiceResponse { partial_success: Some(partial_success) }.encode_to_vec();
            of_otlp(&Answer { status: 200, body: Some(body), ..Answer::default() }, sent)
        };
        let refused = |refused: usize| Verdict::Partly {
            again: Vec::new(),
            refused: (0..refused).collect(),
            why: "status 200: too old".to_owned(),
        };
        assert_eq!(rejected(0, 5), Verdict::Accepted, "a warning");
        assert_eq!((rejected(2, 5), rejected(9, 5), rejected(-1, 5)), (refused(2), refused(5), Verdict::Accepted));
    }

    #[test]
    fn status_206_decides_item_by_item() {
        let body = r#"{"itemsReceived": 5, "itemsAccepted": 1, "errors": [
            {"index": 3, "statusCode": 503, "message": "busy"},
            {"index": 1, "statusCode": 400, "message": "no time"},
            {"index": 0, "statusCode": 429},
            {"index": 3, "statusCode": 400, "message": "twice"},
            {"index": 99, "statusCode": 500, "message": "there is no such item"}]}"#;
        let expected = Verdict::Partly { again: vec![0, 3], refused: vec![1], why: "status 400: twice".to_owned() };
        assert_eq!(of_app_insights(&answer(206, body), 5), expected);
        for nonsense in ["", "{}", "[]", "{\"errors\": 1}", "{\"errors\": [{\"index\": -1}]}"] {
            assert!(matches!(of_app_insights(&answer(206, nonsense), 5), Verdict::Dropped(Reason::Refused, _)));
        }
    }

    #[test]
    fn the_receiver_may_say_how_long_to_wait_and_where_to_go() {
        let asked = |text: &str| {
            let answer = Answer { status: 429, retry_after: Some(text.to_owned()), ..Answer::default() };
            match of_app_insights(&answer, 1) {
                Verdict::Later { after, .. } => after,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(asked(" 7 "), Some(Duration::from_secs(7)));
        assert_eq!(asked("999999999"), Some(LONGEST_RETRY_AFTER));
        assert_eq!(asked("Wed, 21 Oct 2026 07:28:00 GMT"), None);
        let answer = Answer { status: 308, location: Some("https://other/".to_owned()), ..Answer::default() };
        assert_eq!(of_app_insights(&answer, 1), Verdict::Moved("https://other/".to_owned()));
    }

    #[test]
    fn only_the_beginning_of_an_explanation_is_quoted() {
        let why = |body: &str| match of_app_insights(&answer(400, body), 1) {
            Verdict::Dropped(_, why) => why,
            other => panic!("{other:?}"),
        };
        assert_eq!(why("[{\"iKey\": \"secret\"}]"), "status 400");
        let body =
            format!("{{\"errors\": [{{\"index\": 0, \"statusCode\": 400, \"message\": \"{}\"}}]}}", "x".repeat(999));
        assert_eq!(why(&body), format!("status 400: {}", "x".repeat(MAX_QUOTE)));
    }
}
