//! Writes metrics as Prometheus reads them: text format 0.0.4.
//!
//! The format: <https://prometheus.io/docs/instrumenting/exposition_formats/>. A family is written as one block, so the
//! caller finishes one family before it begins the next one.

use std::fmt::{self, Write as _};

use super::{
    family::{Family, Kind},
    output::{Label, Output},
};

/// The content type of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The text as far as it is written.
#[derive(Debug, Default)]
pub struct Text {
    text: String,
}

impl Output for Text {
    fn begin(&mut self, name: &str, kind: Kind, help: &str) {
        self.text.push_str("# HELP ");
        self.text.push_str(name);
        self.text.push(' ');
        self.escape(help, false);
        self.text.push_str("\n# TYPE ");
        self.text.push_str(name);
        self.text.push(' ');
        self.text.push_str(kind.name());
        self.text.push('\n');
    }

    fn family(&mut self, family: &Family) {
        self.begin(family.name, family.kind, family.help);
    }

    fn sample(&mut self, name: &str, labels: &[Label<'_>], value: f64) {
        self.line(name, "", labels, None, value);
    }

    fn histogram(&mut self, name: &str, labels: &[Label<'_>], bounds: &[f64], counts: &[u64], sum: f64) {
        let mut total = 0;
        for (bound, count) in bounds.iter().copied().chain([f64::INFINITY]).zip(counts) {
            total += count;
            self.line(name, "_bucket", labels, Some(bound), total as f64);
        }
        self.line(name, "_sum", labels, None, sum);
        self.line(name, "_count", labels, None, total as f64);
    }
}

impl Text {
    /// The whole text.
    pub fn finish(self) -> String {
        self.text
    }

    fn line(&mut self, name: &str, suffix: &str, labels: &[Label<'_>], bound: Option<f64>, value: f64) {
        self.text.push_str(name);
        self.text.push_str(suffix);
        let mut separator = '{';
        for (label, value) in labels {
            self.text.push(separator);
            self.text.push_str(label);
            self.text.push_str("=\"");
            self.escape(value, true);
            self.text.push('"');
            separator = ',';
        }
        if let Some(bound) = bound {
            // Writing to a String never fails.
            let _ = write!(self.text, "{separator}le=\"{}\"", Number(bound));
            separator = ',';
        }
        if separator == ',' {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {}", Number(value));
    }

    fn escape(&mut self, text: &str, quotes: bool) {
        for character in text.chars() {
            match character {
                '\\' => self.text.push_str("\\\\"),
                '\n' => self.text.push_str("\\n"),
                '"' if quotes => self.text.push_str("\\\""),
                character => self.text.push(character),
            }
        }
    }
}

/// A number as the format writes it.
struct Number(f64);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            f64::INFINITY => f.write_str("+Inf"),
            f64::NEG_INFINITY => f.write_str("-Inf"),
            number if number.is_nan() => f.write_str("NaN"),
            number => write!(f, "{number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_what_prometheus_documents() {
        let mut text = Text::default();
        text.begin("calls_total", Kind::Counter, "Says \"hello\"\nor \\ not.");
        text.sample("calls_total", &[("path", "a\\b\"c\nd"), ("code", "200")], 3.0);
        text.sample("calls_total", &[], f64::NAN);
        text.begin("time_seconds", Kind::Histogram, "Time.");
        text.histogram("time_seconds", &[("of", "é")], &[0.005, 1.0, 10.0], &[1, 0, 2, 4], 1.25);
        let expected = [
            "# HELP calls_total Says \"hello\"\\nor \\\\ not.",
            "# TYPE calls_total counter",
            "calls_total{path=\"a\\\\b\\\"c\\nd\",code=\"200\"} 3",
            "calls_total NaN",
            "# HELP time_seconds Time.",
            "# TYPE time_seconds histogram",
            "time_seconds_bucket{of=\"é\",le=\"0.005\"} 1",
            "time_seconds_bucket{of=\"é\",le=\"1\"} 1",
            "time_seconds_bucket{of=\"é\",le=\"10\"} 3",
            "time_seconds_bucket{of=\"é\",le=\"+Inf\"} 7",
            "time_seconds_sum{of=\"é\"} 1.25",
            "time_seconds_count{of=\"é\"} 7",
            "",
        ];
        assert_eq!(text.finish(), expected.join("\n"));
    }
}
