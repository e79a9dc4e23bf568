//! What has become of the items of each exporter: how many wait, were sent, stored or dropped.
//!
//! The numbers are in memory that outlives the front (`metrics/mod.rs`), so `GET /metrics` never goes back, and the next
//! front knows how many items the last one had not sent when it died. The exporter's thread counts, and whoever gives items to
//! the intake; each number is changed by one atomic addition.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{
    answer::Reason,
    app_insights,
    item::Item,
    metrics::{family, output::Output},
};

/// Who sends, by the name in labels, log lines and names of stored files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExporterName {
    /// Application Insights.
    AppInsights,
    /// Spans by OTLP.
    OtlpTraces,
    /// Log records by OTLP.
    OtlpLogs,
    /// Metrics by OTLP. An item is all metrics at one time.
    OtlpMetrics,
}

impl ExporterName {
    /// All exporters, in the order of their numbers in memory.
    pub const ALL: [Self; 4] = [Self::AppInsights, Self::OtlpTraces, Self::OtlpLogs, Self::OtlpMetrics];

    /// The name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AppInsights => "app_insights",
            Self::OtlpTraces => "otlp_traces",
            Self::OtlpLogs => "otlp_logs",
            Self::OtlpMetrics => "otlp_metrics",
        }
    }

    /// True if this exporter sends something about the item. Of log records this is not known before they are decoded, so all
    /// of them count.
    pub fn takes(self, item: &Item) -> bool {
        match (self, item) {
            (Self::AppInsights, Item::Request(request, _)) => app_insights::reports(request),
            (Self::OtlpTraces, Item::Request(request, _)) => request.is_sampled(),
            (Self::OtlpLogs | Self::OtlpMetrics, Item::Request(..)) => false,
            (_, Item::Log(_)) => self.takes_logs(),
            (_, Item::Metrics(_)) => self == Self::OtlpMetrics,
        }
    }

    /// True if this exporter sends log records.
    pub const fn takes_logs(self) -> bool {
        match self {
            Self::AppInsights | Self::OtlpLogs => true,
            Self::OtlpTraces | Self::OtlpMetrics => false,
        }
    }
}

// Where the numbers of an exporter are.
const IS_ON: usize = 0;
const WAITING: usize = 1;
const SENT: usize = 2;
const STORED: usize = 3;
const FAILED: usize = 4;
const DROPPED: usize = 5;
const WORDS: usize = DROPPED + Reason::ALL.len();
/// How many words [`AllCounts::at`] needs.
pub const LENGTH: usize = WORDS * ExporterName::ALL.len();

/// The numbers of all exporters; copies share them.
#[derive(Debug, Clone, Copy)]
pub struct AllCounts {
    words: &'static [AtomicU64],
}

impl AllCounts {
    /// The numbers in these words, of which there must be [`LENGTH`].
    pub const fn at(words: &'static [AtomicU64]) -> Self {
        Self { words }
    }

    /// Numbers that nobody shows, for a server with `--metrics off`.
    pub fn local() -> Self {
        Self::at(Vec::leak((0..LENGTH).map(|_| AtomicU64::new(0)).collect()))
    }

    /// The numbers of one exporter.
    pub fn of(self, exporter: ExporterName) -> Counts {
        let at = exporter as usize * WORDS;
        Counts { words: &self.words[at..at + WORDS] }
    }

    /// Counts what the last front had not sent as dropped. Returns how many items that were. A new front calls this before
    /// it counts anything.
    pub fn take_over(self) -> u64 {
        let all = ExporterName::ALL.map(|exporter| self.of(exporter));
        let left = all.map(|counts| counts.words[WAITING].swap(0, Relaxed));
        for (counts, left) in all.iter().zip(left) {
            counts.add(DROPPED + Reason::Front as usize, left);
        }
        left.iter().sum()
    }

    /// Writes the families about telemetry. An exporter has series if it was on once.
    pub fn write(self, text: &mut dyn Output) {
        let all = ExporterName::ALL.map(|exporter| (exporter.name(), self.of(exporter)));
        let shown: Vec<_> = all.iter().filter(|(_, counts)| counts.get(IS_ON) > 0).collect();
        for (family, at) in [
            (&family::TELEMETRY_WAITING, WAITING),
            (&family::TELEMETRY_SENT, SENT),
            (&family::TELEMETRY_STORED, STORED),
            (&family::TELEMETRY_FAILED, FAILED),
        ] {
            text.family(family);
            for (name, counts) in &shown {
                text.sample(family.name, &[("exporter", name)], counts.get(at) as f64);
            }
        }
        text.family(&family::TELEMETRY_DROPPED);
        for (name, counts) in shown {
            for reason in Reason::ALL {
                let labels = [("exporter", *name), ("reason", reason.name())];
                text.sample(family::TELEMETRY_DROPPED.name, &labels, counts.dropped(reason) as f64);
            }
        }
    }
}

/// The numbers of one exporter; copies share them.
///
/// An item waits from when the intake has it until it was sent, stored or dropped, so these numbers together are those of all
/// items: nothing is lost that is not counted.
#[derive(Debug, Clone, Copy)]
pub struct Counts {
    words: &'static [AtomicU64],
}

impl Counts {
    fn get(self, at: usize) -> u64 {
        self.words[at].load(Relaxed)
    }

    fn add(self, at: usize, amount: u64) {
        self.words[at].fetch_add(amount, Relaxed);
    }

    /// Notes that the exporter is in use.
    pub fn note_on(self) {
        self.words[IS_ON].store(1, Relaxed);
    }

    /// Notes items that wait from now on.
    pub fn note_waiting(self, items: usize) {
        self.add(WAITING, items as u64);
    }

    /// Notes that items wait no more. Called after what has become of them is counted: a front that dies between the two
    /// counts an item twice, and never not at all.
    pub fn note_left(self, items: usize) {
        self.words[WAITING].fetch_sub(items as u64, Relaxed);
    }

    /// Notes that a receiver has accepted items that waited.
    pub fn note_sent(self, items: usize) {
        self.note_sent_from_disk(items);
        self.note_left(items);
    }

    /// Notes that a receiver has accepted items that were stored.
    pub fn note_sent_from_disk(self, items: usize) {
        self.add(SENT, items as u64);
    }

    /// Notes that items that waited are on the disk.
    pub fn note_stored(self, items: usize) {
        self.add(STORED, items as u64);
        self.note_left(items);
    }

    /// Notes that items that waited were dropped.
    pub fn note_dropped(self, reason: Reason, items: usize) {
        self.note_lost(reason, items);
        self.note_left(items);
    }

    /// Notes that items were dropped that did not wait here: in a worker, or on the disk.
    pub fn note_lost(self, reason: Reason, items: usize) {
        self.add(DROPPED + reason as usize, items as u64);
    }

    /// Notes a request to the receiver that was not accepted.
    pub fn note_failed(self) {
        self.add(FAILED, 1);
    }

    /// Items that wait.
    pub fn waiting(self) -> u64 {
        self.get(WAITING)
    }

    /// Items that a receiver has accepted.
    pub fn sent(self) -> u64 {
        self.get(SENT)
    }

    /// Items that were written to the disk.
    pub fn stored(self) -> u64 {
        self.get(STORED)
    }

    /// Requests that were not accepted.
    pub fn failed(self) -> u64 {
        self.get(FAILED)
    }

    /// Items that were dropped for this reason.
    pub fn dropped(self, reason: Reason) -> u64 {
        self.get(DROPPED + reason as usize)
    }

    /// Items that were dropped for any reason.
    pub fn all_dropped(self) -> u64 {
        Reason::ALL.iter().map(|reason| self.dropped(*reason)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::text::Text;

    #[test]
    fn what_a_front_left_is_dropped_by_the_next_one_and_nothing_is_counted_twice() {
        let all = AllCounts::local();
        let (spans, logs) = (all.of(ExporterName::OtlpTraces), all.of(ExporterName::OtlpLogs));
        spans.note_waiting(5);
        spans.note_sent(2);
        spans.note_dropped(Reason::Full, 1);
        logs.note_waiting(3);
        logs.note_stored(3);
        assert_eq!((spans.waiting(), logs.waiting()), (2, 0));
        assert_eq!((all.take_over(), all.take_over()), (2, 0));
        assert_eq!((spans.sent(), spans.dropped(Reason::Full), spans.dropped(Reason::Front)), (2, 1, 2));
        assert_eq!((logs.stored(), logs.all_dropped()), (3, 0));
    }

    #[test]
    fn only_exporters_that_are_in_use_are_shown() {
        let all = AllCounts::local();
        let spans = all.of(ExporterName::OtlpTraces);
        spans.note_on();
        spans.note_waiting(3);
        spans.note_sent(1);
        spans.note_dropped(Reason::Refused, 1);
        spans.note_lost(Reason::Worker, 7);
        spans.note_failed();
        let mut text = Text::default();
        all.write(&mut text);
        let text = text.finish();
        for line in [
            "items_waiting{exporter=\"otlp_traces\"} 1",
            "items_sent_total{exporter=\"otlp_traces\"} 1",
            "items_stored_total{exporter=\"otlp_traces\"} 0",
            "requests_failed_total{exporter=\"otlp_traces\"} 1",
            "items_dropped_total{exporter=\"otlp_traces\",reason=\"refused\"} 1",
            "items_dropped_total{exporter=\"otlp_traces\",reason=\"worker\"} 7",
            "items_dropped_total{exporter=\"otlp_traces\",reason=\"front\"} 0",
        ] {
            assert!(text.contains(&format!("azmlinfsrv_telemetry_{line}\n")), "{line}\n{text}");
        }
        assert!(!text.contains("app_insights") && !text.contains("otlp_logs"), "{text}");
    }
}
