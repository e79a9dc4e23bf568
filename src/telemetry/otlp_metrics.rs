//! Metrics in OpenTelemetry's own protocol, from the same counters as `GET /metrics`.
//!
//! [`Collector`] takes the families and makes the official types of them, [`Series`] turns what was collected into an item
//! for the exporter, and [`body`] makes the body of a request from items. Names and attributes of HTTP metrics are those of
//! OpenTelemetry's semantic conventions. Pure; the front's event loop collects, the exporter's thread makes bodies.

use std::time::SystemTime;

use bytes::Bytes;
use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::KeyValue,
    metrics::v1::{
        metric::Data, number_data_point::Value, AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric,
        NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum,
    },
    resource::v1::Resource,
};
use prost::Message as _;

use super::{
    metrics::{
        family::{Family, Kind},
        output::{Label, Output},
    },
    otlp,
};

/// Whether numbers count from the start of the server, or from the last time that they were sent
/// (`OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Temporality {
    /// From the start of the server.
    #[default]
    Cumulative,
    /// Counters and histograms count from the last time.
    Delta,
}

/// Takes families and makes metrics of them, which count from the start of the server.
pub struct Collector {
    started: u64,
    now: u64,
    metrics: Vec<Metric>,
}

impl Collector {
    /// Nothing yet. `started` is when the server began to count.
    pub fn new(started: SystemTime, now: SystemTime) -> Self {
        Self { started: otlp::nanos(started), now: otlp::nanos(now), metrics: Vec::new() }
    }

    /// The metrics that have numbers.
    pub fn finish(mut self) -> Vec<Metric> {
        self.metrics.retain(|metric| match &metric.data {
            Some(Data::Gauge(gauge)) => !gauge.data_points.is_empty(),
            Some(Data::Sum(sum)) => !sum.data_points.is_empty(),
            Some(Data::Histogram(histogram)) => !histogram.data_points.is_empty(),
            _ => false,
        });
        self.metrics
    }

    fn push(&mut self, name: &str, unit: &str, kind: Kind, help: &str) {
        let aggregation_temporality = AggregationTemporality::Cumulative.into();
        let sum = |is_monotonic| Data::Sum(Sum { data_points: Vec::new(), aggregation_temporality, is_monotonic });
        let data = match kind {
            Kind::Counter => sum(true),
            Kind::UpDown => sum(false),
            Kind::Gauge => Data::Gauge(Gauge::default()),
            Kind::Histogram => Data::Histogram(Histogram { data_points: Vec::new(), aggregation_temporality }),
        };
        self.metrics.push(Metric {
            name: name.to_owned(),
            description: help.to_owned(),
            unit: unit.to_owned(),
            data: Some(data),
            ..Metric::default()
        });
    }
}

impl Output for Collector {
    fn begin(&mut self, name: &str, kind: Kind, help: &str) {
        let name = if kind == Kind::Counter { name.strip_suffix("_total").unwrap_or(name) } else { name };
        self.push(name, "", kind, help);
    }

    fn family(&mut self, family: &Family) {
        self.push(family.otel, family.unit, family.kind, family.help);
        if family.otel.is_empty() {
            // Nothing is sent of it: its numbers are left out with it.
            self.metrics.last_mut().into_iter().for_each(|metric| metric.data = None);
        }
    }

    fn sample(&mut self, _: &str, labels: &[Label<'_>], value: f64) {
        let (start_time_unix_nano, time_unix_nano) = (self.started, self.now);
        let point = |start_time_unix_nano| NumberDataPoint {
            attributes: attributes(labels),
            start_time_unix_nano,
            time_unix_nano,
            value: Some(Value::AsDouble(value)),
            ..NumberDataPoint::default()
        };
        match self.metrics.last_mut().and_then(|metric| metric.data.as_mut()) {
            Some(Data::Gauge(gauge)) => gauge.data_points.push(point(0)),
            Some(Data::Sum(sum)) => sum.data_points.push(point(start_time_unix_nano)),
            _ => {}
        }
    }

    fn histogram(&mut self, _: &str, labels: &[Label<'_>], bounds: &[f64], counts: &[u64], sum: f64) {
        let point = HistogramDataPoint {
            attributes: attributes(labels),
            start_time_unix_nano: self.started,
            time_unix_nano: self.now,
            count: counts.iter().sum(),
            sum: Some(sum),
            bucket_counts: counts.to_vec(),
            explicit_bounds: bounds.to_vec(),
            ..HistogramDataPoint::default()
        };
        if let Some(Data::Histogram(histogram)) = self.metrics.last_mut().and_then(|metric| metric.data.as_mut()) {
            histogram.data_points.push(point);
        }
    }
}

/// Labels as attributes. An empty label is an attribute that is not there.
fn attributes(labels: &[Label<'_>]) -> Vec<KeyValue> {
    let mut attributes = Vec::new();
    for (name, value) in labels.iter().filter(|(_, value)| !value.is_empty()) {
        match *name {
            "http_request_method" => attributes.push(otlp::text("http.request.method", value)),
            "http_route" => attributes.push(otlp::text("http.route", value)),
            "url_scheme" => attributes.push(otlp::text("url.scheme", value)),
            "http_response_status_code" => {
                let status = value.parse().unwrap_or_default();
                attributes.push(otlp::number("http.response.status_code", status));
                if status >= 500 {
                    attributes.push(otlp::text("error.type", value));
                }
            }
            name => attributes.push(otlp::text(name, value)),
        }
    }
    attributes
}

/// What is sent one time after the other.
#[derive(Debug, Default)]
pub struct Series {
    temporality: Temporality,
    /// What was collected the last time, if that counts.
    before: Vec<Metric>,
}

impl Series {
    /// Nothing was sent yet. `before` is what another front may have sent already.
    pub const fn new(temporality: Temporality, before: Vec<Metric>) -> Self {
        Self { temporality, before }
    }

    /// The item with these metrics.
    pub fn item(&mut self, metrics: Vec<Metric>) -> Vec<u8> {
        let sent = match self.temporality {
            Temporality::Cumulative => metrics,
            Temporality::Delta => {
                let sent = metrics.iter().map(|metric| since(metric, &self.before)).collect();
                self.before = metrics;
                sent
            }
        };
        ScopeMetrics { scope: Some(otlp::scope()), metrics: sent, ..ScopeMetrics::default() }.encode_to_vec()
    }
}

/// What a counter or a histogram has counted since the last time; any other metric as it is.
fn since(metric: &Metric, before: &[Metric]) -> Metric {
    let before = before.iter().find(|before| before.name == metric.name).and_then(|before| before.data.as_ref());
    let mut metric = metric.clone();
    match (&mut metric.data, before) {
        (Some(Data::Sum(sum)), before) if sum.is_monotonic => {
            sum.aggregation_temporality = AggregationTemporality::Delta.into();
            if let Some(Data::Sum(before)) = before {
                for point in &mut sum.data_points {
                    let before = before.data_points.iter().find(|before| before.attributes == point.attributes);
                    if let Some(before) = before {
                        point.start_time_unix_nano = before.time_unix_nano;
                        point.value = Some(Value::AsDouble(number(point) - number(before)));
                    }
                }
            }
        }
        (Some(Data::Histogram(histogram)), before) => {
            histogram.aggregation_temporality = AggregationTemporality::Delta.into();
            if let Some(Data::Histogram(before)) = before {
                for point in &mut histogram.data_points {
                    let before = before.data_points.iter().find(|before| before.attributes == point.attributes);
                    if let Some(before) = before {
                        subtract(point, before);
                    }
                }
            }
        }
        _ => {}
    }
    metric
}

fn number(point: &NumberDataPoint) -> f64 {
    match point.value {
        Some(Value::AsDouble(value)) => value,
        Some(Value::AsInt(value)) => value as f64,
        None => 0.0,
    }
}

fn subtract(point: &mut HistogramDataPoint, before: &HistogramDataPoint) {
    point.start_time_unix_nano = before.time_unix_nano;
    point.count = point.count.saturating_sub(before.count);
    point.sum = point.sum.zip(before.sum).map(|(sum, before)| sum - before);
    for (count, before) in point.bucket_counts.iter_mut().zip(&before.bucket_counts) {
        *count = count.saturating_sub(*before);
    }
}

/// True if these bytes are an item. A file on the disk may be damaged.
pub fn is_item(bytes: &[u8]) -> bool {
    ScopeMetrics::decode(bytes).is_ok()
}

/// The body of a request with items. `Receiver::keep_intact` has left out those that are damaged.
pub fn body(resource: &Resource, items: &[Bytes]) -> Vec<u8> {
    let scope_metrics = items.iter().filter_map(|item| ScopeMetrics::decode(item.as_ref()).ok()).collect();
    let resource_metrics =
        vec![ResourceMetrics { resource: Some(resource.clone()), scope_metrics, ..ResourceMetrics::default() }];
    ExportMetricsServiceRequest { resource_metrics }.encode_to_vec()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use opentelemetry_proto::tonic::common::v1::any_value;

    use super::*;
    use crate::telemetry::metrics::family;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// Some requests and calls of the script, as they are at this second.
    fn collected(second: u64, requests: &[u64], calls: f64) -> Vec<Metric> {
        let mut collector = Collector::new(at(1), at(second));
        collector.family(&family::REQUEST_DURATION);
        let labels = [("http_request_method", "POST"), ("http_route", ""), ("http_response_status_code", "503")];
        collector.histogram("", &labels, &[0.5, 1.0], requests, calls / 2.0);
        collector.family(&family::BUILD_INFO);
        collector.sample("", &[("version", "2")], 1.0);
        collector.family(&family::ACTIVE_REQUESTS);
        collector.sample("", &[], 3.0);
        collector.family(&family::REJECTED);
        collector.begin("calls_total", Kind::Counter, "Calls.");
        collector.sample("", &[("model", "a")], calls);
        collector.begin("entries", Kind::Gauge, "");
        collector.sample("", &[], 7.0);
        collector.finish()
    }

    fn decoded(series: &mut Series, metrics: Vec<Metric>) -> Vec<Metric> {
        let items = [series.item(metrics).into(), Bytes::from_static(b"damaged")];
        let body = body(&otlp::resource(&[("service.name".to_owned(), "x".to_owned())]), &items);
        let body = ExportMetricsServiceRequest::decode(body.as_slice()).expect("a request");
        let resource = &body.resource_metrics[0];
        assert_eq!(resource.resource.as_ref().map(|resource| resource.attributes.len()), Some(1));
        assert_eq!(resource.scope_metrics.len(), 1);
        resource.scope_metrics[0].metrics.clone()
    }

    fn sum(metric: &Metric) -> (f64, u64, bool, i32) {
        let Some(Data::Sum(sum)) = &metric.data else { panic!("{metric:?}") };
        let point = &sum.data_points[0];
        (number(point), point.start_time_unix_nano / 1_000_000_000, sum.is_monotonic, sum.aggregation_temporality)
    }

    #[test]
    fn families_have_the_names_units_and_attributes_of_the_conventions() {
        let found = decoded(&mut Series::default(), collected(5, &[1, 2, 3], 4.0));
        let names: Vec<_> = found.iter().map(|metric| (metric.name.as_str(), metric.unit.as_str())).collect();
        let expected = [
            ("http.server.request.duration", "s"),
            ("http.server.active_requests", "{request}"),
            ("calls", ""),
            ("entries", ""),
        ];
        assert_eq!(names, expected);
        let Some(Data::Histogram(histogram)) = &found[0].data else { panic!("{found:?}") };
        let point = &histogram.data_points[0];
        assert_eq!((point.count, &point.bucket_counts[..], point.sum), (6, &[1, 2, 3][..], Some(2.0)));
        assert_eq!(point.explicit_bounds, [0.5, 1.0]);
        let expected = [
            otlp::text("http.request.method", "POST"),
            otlp::number("http.response.status_code", 503),
            otlp::text("error.type", "503"),
        ];
        assert_eq!(point.attributes, expected, "a request without a route has no such attribute");
        let value = point.attributes[1].value.as_ref().and_then(|value| value.value.as_ref());
        assert!(matches!(value, Some(any_value::Value::IntValue(503))));
        let cumulative = AggregationTemporality::Cumulative as i32;
        assert_eq!(sum(&found[1]), (3.0, 1, false, cumulative));
        assert_eq!(sum(&found[2]), (4.0, 1, true, cumulative));
        assert!(matches!(&found[3].data, Some(Data::Gauge(gauge)) if number(&gauge.data_points[0]) == 7.0));
    }

    #[test]
    fn with_delta_each_item_has_what_was_counted_since_the_last_one() {
        let mut series = Series::new(Temporality::Delta, Vec::new());
        let delta = AggregationTemporality::Delta as i32;
        let found = decoded(&mut series, collected(5, &[1, 0, 0], 4.0));
        assert_eq!(sum(&found[2]), (4.0, 1, true, delta));
        let found = decoded(&mut series, collected(8, &[1, 0, 2], 10.0));
        assert_eq!(sum(&found[2]), (6.0, 5, true, delta));
        assert_eq!(sum(&found[1]), (3.0, 1, false, AggregationTemporality::Cumulative as i32));
        let Some(Data::Histogram(histogram)) = &found[0].data else { panic!("{found:?}") };
        let point = &histogram.data_points[0];
        assert_eq!((point.count, &point.bucket_counts[..], point.sum), (2, &[0, 0, 2][..], Some(3.0)));
        assert_eq!(histogram.aggregation_temporality, delta);
        let mut next_front = Series::new(Temporality::Delta, collected(9, &[1, 0, 2], 11.0));
        assert_eq!(sum(&decoded(&mut next_front, collected(12, &[1, 0, 2], 13.0))[2]), (2.0, 9, true, delta));
    }
}
