//! Where families of metrics are written to: the text of `GET /metrics`, or what OTLP sends.

use super::family::{Family, Kind};

/// A label: name and value.
pub type Label<'a> = (&'a str, &'a str);

/// Takes one family after the other. What follows the beginning of a family belongs to it.
pub trait Output {
    /// Begins a family of the user's script, with its name in Prometheus' form.
    fn begin(&mut self, name: &str, kind: Kind, help: &str);

    /// Begins a family of the server.
    fn family(&mut self, family: &Family);

    /// Takes one number: a counter or a gauge.
    fn sample(&mut self, name: &str, labels: &[Label<'_>], value: f64);

    /// Takes a histogram: the upper bounds of its buckets, how many values are in each of them and above all of them, and
    /// the sum of all values.
    fn histogram(&mut self, name: &str, labels: &[Label<'_>], bounds: &[f64], counts: &[u64], sum: f64);

    /// Takes a family of the server that has one series without labels.
    fn single(&mut self, family: &Family, value: f64) {
        self.family(family);
        self.sample(family.name, &[], value);
    }
}
