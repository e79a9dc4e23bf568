//! One receiver: its address and format, what waits for it, and how a batch is sent to it.
//!
//! Used by the exporter's thread, and by the front's thread at the end.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use opentelemetry_proto::tonic::resource::v1::Resource;

use super::{
    answer::{self, Answer, Reason, Verdict},
    app_insights::{self, Origin},
    counts::{AllCounts, Counts, ExporterName},
    http_client::{Client, TlsFiles},
    item::{Item, LogRecord, ReplyStart, Request},
    lane::{Lane, Limits, Waits, Weighed},
    otlp::{self, AttributeLimits},
    otlp_metrics,
    pieces::Pieces,
};

/// How often the log tells of refused items.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// Path of Application Insights' endpoint.
const TRACK: &str = "/v2.1/track";

/// What a receiver understands.
#[derive(Debug, Clone)]
pub enum Format {
    /// JSON of Application Insights.
    AppInsights(Origin),
    /// Spans in OTLP.
    OtlpTraces(Resource, AttributeLimits),
    /// Log records in OTLP.
    OtlpLogs(Resource, AttributeLimits),
    /// Metrics in OTLP.
    OtlpMetrics(Resource),
}

/// Where items are sent.
#[derive(Debug, Clone)]
pub struct Target {
    /// What it understands.
    pub format: Format,
    /// Where it is. For Application Insights, without the path.
    pub url: String,
    /// Further header fields, which may be secrets.
    pub headers: Vec<(String, String)>,
    /// How long it may take to answer.
    pub timeout: Duration,
    /// Bodies are compressed.
    pub gzip: bool,
    /// Certificates.
    pub tls: TlsFiles,
    /// Most items of a request.
    pub batch_items: usize,
    /// Most items that wait; more are limited by memory alone.
    pub queue_items: usize,
}

/// An encoded item. Application Insights' items of requests share [`Pieces`].
pub type Encoded = Bytes;

impl Weighed for Encoded {
    fn size(&self) -> usize {
        size_of::<Self>() + self.len()
    }
}

impl Waits for Encoded {
    fn apart(self) -> Self {
        Self::copy_from_slice(&self)
    }
}

/// A receiver and everything that waits for it.
pub struct Receiver {
    target: Arc<Target>,
    client: Arc<Client>,
    /// Items in memory.
    pub lane: Lane<Encoded>,
    /// The batch that is being sent.
    pub in_flight: Option<Arc<Vec<Encoded>>>,
    counts: Counts,
    /// Where the item of a request is written first, because its length is not known before.
    scratch: Vec<u8>,
    /// Where the items of requests are then.
    pieces: Pieces,
    /// Items that were refused and that the log has not told of.
    untold: usize,
    told_at: Option<Instant>,
}

/// A batch on its way, apart from the receiver, whose lock must not be held while the receiver answers.
pub struct Sending {
    target: Arc<Target>,
    client: Arc<Client>,
    /// Its items.
    pub batch: Arc<Vec<Encoded>>,
}

impl Receiver {
    /// An idle receiver. The error names a file that cannot be used.
    pub fn new(target: Target, bytes: usize, counts: AllCounts) -> Result<Self, String> {
        let client = Arc::new(Client::new(&target.tls)?);
        let counts = counts.of(target.format.exporter());
        counts.note_on();
        let limits = Limits { bytes, items: target.queue_items, batch_items: target.batch_items };
        let lane = Lane::new(limits, counts);
        let target = Arc::new(target);
        Ok(Self {
            target,
            client,
            lane,
            in_flight: None,
            counts,
            scratch: Vec::new(),
            pieces: Pieces::default(),
            untold: 0,
            told_at: None,
        })
    }

    /// The exporter that sends to it.
    pub fn exporter(&self) -> ExporterName {
        self.target.format.exporter()
    }

    /// Its name in labels, log lines and names of files.
    pub fn name(&self) -> &'static str {
        self.exporter().name()
    }

    /// Its counters.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Encodes a request for it. `reply` is the beginning of the reply, if items have it.
    pub fn push_request(&mut self, request: &Request, reply: Option<&ReplyStart>) {
        match &self.target.format {
            Format::AppInsights(origin) => {
                self.scratch.clear();
                app_insights::request(&mut self.scratch, origin, request, reply);
                if !self.scratch.is_empty() {
                    self.lane.push(self.pieces.copy(&[&self.scratch]));
                }
            }
            Format::OtlpTraces(_, limits) => {
                otlp::spans(request, *limits).into_iter().for_each(|span| self.lane.push(span.into()));
            }
            Format::OtlpLogs(..) | Format::OtlpMetrics(_) => {}
        }
    }

    /// Encodes a log record for it.
    pub fn push_log(&mut self, record: &LogRecord) {
        match &self.target.format {
            Format::AppInsights(origin) if record.for_app_insights => {
                self.lane.push(app_insights::log_record(origin, record).into());
            }
            Format::OtlpLogs(_, limits) => self.lane.push(otlp::log_record(record, *limits).into()),
            Format::AppInsights(_) | Format::OtlpTraces(..) | Format::OtlpMetrics(_) => {}
        }
    }

    /// Takes metrics that are encoded.
    pub fn push_metrics(&mut self, metrics: &[u8]) {
        if matches!(self.target.format, Format::OtlpMetrics(_)) {
            self.lane.push(Bytes::copy_from_slice(metrics));
        }
    }

    /// Counts an item that was dropped before it was encoded, if it was for this receiver.
    pub fn note_dropped(&self, item: &Item, reason: Reason) {
        if self.exporter().takes(item) {
            self.counts.note_dropped(reason, 1);
        }
    }

    /// Notes that an item is encoded: its parts wait in its place.
    pub fn note_encoded(&self, item: &Item) {
        if self.exporter().takes(item) {
            self.counts.note_left(1);
        }
    }

    /// Counts log records that a worker could not pass to the front, if they were for this receiver.
    pub fn note_lost_by_worker(&self, records: usize) {
        if self.exporter().takes_logs() {
            self.counts.note_lost(Reason::Worker, records);
        }
    }

    /// Notes that items were refused. Returns how many the log must tell of now, since it tells at most once in a while.
    pub fn tell_refused(&mut self, items: usize, now: Instant) -> Option<usize> {
        self.untold += items;
        if self.told_at.is_some_and(|told_at| now < told_at + TELL_EVERY) {
            return None;
        }
        self.told_at = Some(now);
        Some(std::mem::take(&mut self.untold))
    }

    /// Takes the next batch from memory.
    pub fn begin(&mut self) -> Sending {
        let batch = Arc::new(self.lane.take_batch());
        self.in_flight = Some(batch.clone());
        self.sending(batch)
    }

    /// Drops items of a file that are damaged, since a receiver would refuse the whole batch. Counts them.
    pub fn keep_intact(&self, items: &mut Vec<Encoded>) {
        let before = items.len();
        items.retain(|item| self.target.format.is_item(item));
        self.counts.note_lost(Reason::Storage, before - items.len());
    }

    /// A batch that comes from somewhere else.
    pub fn sending(&self, batch: Arc<Vec<Encoded>>) -> Sending {
        Sending { target: self.target.clone(), client: self.client.clone(), batch }
    }

    /// Sends to another address from now on: `location` gives scheme, host and port. Refuses to leave https.
    pub fn go_to(&mut self, location: &str) -> bool {
        let Some(moved) = moved_to(&self.target.url, location) else { return false };
        Arc::make_mut(&mut self.target).url = moved;
        true
    }

    /// Whom log lines mean: the host alone, because a URL may have secrets.
    pub fn host(&self) -> String {
        host_of(&self.target.url)
    }
}

impl Format {
    /// The exporter that sends in this format.
    pub const fn exporter(&self) -> ExporterName {
        match self {
            Self::AppInsights(_) => ExporterName::AppInsights,
            Self::OtlpTraces(..) => ExporterName::OtlpTraces,
            Self::OtlpLogs(..) => ExporterName::OtlpLogs,
            Self::OtlpMetrics(_) => ExporterName::OtlpMetrics,
        }
    }

    /// The environment variables that name files for TLS, for people.
    pub const fn variables_of_files(&self) -> &'static str {
        match self {
            Self::AppInsights(_) => "REQUESTS_CA_BUNDLE",
            Self::OtlpTraces(..) | Self::OtlpLogs(..) | Self::OtlpMetrics(_) => {
                "OTEL_EXPORTER_OTLP_CERTIFICATE, _CLIENT_CERTIFICATE or _CLIENT_KEY (or that of the signal)"
            }
        }
    }

    /// What no log line may show.
    fn key(&self) -> &str {
        match self {
            Self::AppInsights(origin) => origin.key(),
            Self::OtlpTraces(..) | Self::OtlpLogs(..) | Self::OtlpMetrics(_) => "",
        }
    }

    /// The body of a request with these items, and its content type.
    fn body(&self, batch: &[Encoded]) -> (Vec<u8>, &'static str) {
        match self {
            Self::AppInsights(_) => {
                let length = batch.iter().map(|item| item.len() + 1).sum::<usize>();
                let mut body = Vec::with_capacity(length + 2);
                body.push(b'[');
                for (index, item) in batch.iter().enumerate() {
                    if index > 0 {
                        body.push(b',');
                    }
                    body.extend_from_slice(item);
                }
                body.push(b']');
                (body, "application/json")
            }
            Self::OtlpTraces(resource, _) | Self::OtlpLogs(resource, _) => {
                (otlp::body(resource, batch), "application/x-protobuf")
            }
            Self::OtlpMetrics(resource) => (otlp_metrics::body(resource, batch), "application/x-protobuf"),
        }
    }

    /// True if these bytes are an item. A file on the disk may be damaged.
    pub fn is_item(&self, bytes: &[u8]) -> bool {
        match self {
            Self::AppInsights(_) => serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok(),
            Self::OtlpTraces(..) => otlp::is_span(bytes),
            Self::OtlpLogs(..) => otlp::is_log_record(bytes),
            Self::OtlpMetrics(_) => otlp_metrics::is_item(bytes),
        }
    }

    fn verdict(&self, answer: &Answer, sent: usize) -> Verdict {
        match self {
            Self::AppInsights(_) => answer::of_app_insights(answer, sent),
            Self::OtlpTraces(..) | Self::OtlpLogs(..) | Self::OtlpMetrics(_) => answer::of_otlp(answer, sent),
        }
    }
}

impl Sending {
    /// Sends the batch and waits for the answer, for at most `limit`.
    pub fn post(&self, limit: Duration) -> Verdict {
        let Target { format, url, headers, timeout, gzip, .. } = &*self.target;
        let (mut body, content_type) = format.body(&self.batch);
        let mut headers = headers.clone();
        headers.push(("content-type".to_owned(), content_type.to_owned()));
        headers.push(("accept".to_owned(), content_type.to_owned()));
        if *gzip {
            body = otlp::gzip(&body);
            headers.push(("content-encoding".to_owned(), "gzip".to_owned()));
        }
        let url = match format {
            Format::AppInsights(_) => format!("{}{TRACK}", url.trim_end_matches('/')),
            Format::OtlpTraces(..) | Format::OtlpLogs(..) | Format::OtlpMetrics(_) => url.clone(),
        };
        match self.client.post(&url, &headers, &body, (*timeout).min(limit)) {
            Ok(answer) => format.verdict(&answer, self.batch.len()).without(format.key()),
            Err(why) => answer::of_failure(why),
        }
    }
}

/// The URL with the scheme, host and port of `location`. `None` if that is no URL, or if it would leave https.
fn moved_to(url: &str, location: &str) -> Option<String> {
    let location: http::Uri = location.parse().ok()?;
    let (scheme, authority) = (location.scheme_str()?, location.authority()?);
    if !matches!(scheme, "http" | "https") || (url.starts_with("https:") && scheme != "https") {
        return None;
    }
    let old: http::Uri = url.parse().ok()?;
    let path = old.path_and_query().map_or("", |path| path.as_str());
    Some(format!("{scheme}://{authority}{}", path.trim_end_matches('/')))
}

/// The host of a URL; empty if there is none.
pub fn host_of(url: &str) -> String {
    let uri: Option<http::Uri> = url.parse().ok();
    uri.and_then(|uri| uri.host().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_changes_the_host_and_keeps_the_path() {
        for (url, location, expected) in [
            ("https://a/", "https://b:44/v9/track", Some("https://b:44")),
            ("http://a/v1/traces", "http://b/", Some("http://b/v1/traces")),
            ("https://a", "http://b", None),
            ("http://a", "/elsewhere", None),
            ("http://a", "ftp://b", None),
        ] {
            assert_eq!(moved_to(url, location).as_deref(), expected, "{url} {location}");
        }
    }

    #[test]
    fn log_lines_show_the_host_only() {
        assert_eq!(host_of("https://user:secret@example.com:44/path?key=secret"), "example.com");
    }

    #[test]
    fn items_of_app_insights_are_one_array() {
        let format = Format::AppInsights(Origin::default());
        let batch = [Bytes::from_static(b"{\"a\":1}"), Bytes::from_static(b"{}")];
        assert_eq!(format.body(&batch), (b"[{\"a\":1},{}]".to_vec(), "application/json"));
    }
}
