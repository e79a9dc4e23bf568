//! Gives the metrics to the exporters at regular times (`OTEL_METRIC_EXPORT_INTERVAL`), and once more at the end of the
//! server.
//!
//! Runs in the front's event loop, and costs as much as a scrape of `GET /metrics`.

use std::{
    cell::RefCell,
    rc::Rc,
    time::{Duration, SystemTime},
};

use tokio::time::{interval_at, Instant, MissedTickBehavior};

use super::{metrics, Front};
use crate::telemetry::{
    intake::Intake,
    item::Item,
    metrics::Metrics,
    otlp_metrics::{Collector, Series, Temporality},
};

/// Collects metrics for as long as the front runs.
pub struct MetricsReports {
    front: Rc<Front>,
    metrics: Metrics,
    first_process: u32,
    intake: Intake,
    series: RefCell<Series>,
}

impl MetricsReports {
    /// Nothing is sent yet. If another front has sent metrics before, with delta temporality the numbers begin at what is
    /// counted now: nobody knows what the other one has sent of the rest.
    pub fn new(front: Rc<Front>, metrics: Metrics, first_process: u32, intake: Intake) -> Rc<Self> {
        let temporality = front.settings.telemetry.temporality;
        let reports = Self { front, metrics, first_process, intake, series: RefCell::default() };
        let is_next = temporality == Temporality::Delta && metrics.times.have_been_sent();
        let before = if is_next { reports.collect() } else { Vec::new() };
        reports.series.replace(Series::new(temporality, before));
        Rc::new(reports)
    }

    /// Gives metrics to the exporters again and again.
    pub async fn repeat(self: Rc<Self>, interval: Duration) {
        let mut ticks = interval_at(Instant::now() + interval, interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.report();
        }
    }

    /// Gives the metrics to the exporters, as they are now.
    pub fn report(&self) {
        let item = self.series.borrow_mut().item(self.collect());
        self.intake.push(Item::Metrics(item.into()));
        self.metrics.times.note_sent();
    }

    fn collect(&self) -> Vec<opentelemetry_proto::tonic::metrics::v1::Metric> {
        let mut collector = Collector::new(self.metrics.times.started(), SystemTime::now());
        metrics::write(&self.front, self.metrics, self.first_process, &mut collector);
        collector.finish()
    }
}
