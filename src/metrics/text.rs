//! The two Prometheus exposition formats: the text format (version 0.0.4) and OpenMetrics 1.0. They differ in the
//! metadata name of counters, in `# UNIT`, and in the last line.

use std::fmt::{Display, Write};
use std::time::Duration;

use super::Histogram;

/// Prefix of every name.
const PREFIX: &str = "authgate_";

/// The exposition format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text format.
    Classic,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// Content negotiation: OpenMetrics if `Accept` lists it, as Prometheus does.
    pub fn of_accept(accept: Option<&str>) -> Self {
        let named = accept.is_some_and(|accept| accept.to_ascii_lowercase().contains("application/openmetrics-text"));
        if named { Self::OpenMetrics } else { Self::Classic }
    }

    /// `Content-Type`
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

pub(super) struct Text {
    out: String,
    format: Format,
}

/// Labels of a sample: names and values.
pub(super) type Labels<'l> = &'l [(&'static str, &'l str)];

impl Text {
    pub(super) fn new(format: Format) -> Self {
        Self { out: String::with_capacity(16 << 10), format }
    }

    /// Starts a counter; its samples end in `total`.
    pub(super) fn counter(&mut self, name: &str, help: &str) {
        let suffix = if self.format == Format::Classic { "_total" } else { "" };
        self.head(&format!("{name}{suffix}"), "counter", help);
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str) {
        self.head(name, "gauge", help);
    }

    /// Starts a histogram in seconds.
    pub(super) fn histogram(&mut self, name: &str, help: &str) {
        self.head(name, "histogram", help);
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // writing to a string cannot fail
        let _ = writeln!(self.out, "# HELP {PREFIX}{name} {help}");
        let _ = writeln!(self.out, "# TYPE {PREFIX}{name} {kind}");
        if self.format == Format::OpenMetrics && name.ends_with("_seconds") {
            let _ = writeln!(self.out, "# UNIT {PREFIX}{name} seconds");
        }
    }

    pub(super) fn total(&mut self, name: &str, labels: Labels<'_>, value: u64) {
        self.sample(name, "_total", labels, value);
    }

    pub(super) fn value(&mut self, name: &str, labels: Labels<'_>, value: u64) {
        self.sample(name, "", labels, value);
    }

    pub(super) fn seconds(&mut self, name: &str, value: Duration) {
        self.sample(name, "", &[], format_args!("{:.3}", value.as_secs_f64()));
    }

    pub(super) fn times(&mut self, name: &str, labels: Labels<'_>, histogram: &Histogram) {
        for (bound, count) in histogram.buckets() {
            let labels = [labels, &[("le", bound.as_str())]].concat();
            self.sample(name, "_bucket", &labels, count);
        }
        self.sample(name, "_sum", labels, histogram.sum());
        self.sample(name, "_count", labels, histogram.count());
    }

    fn sample(&mut self, name: &str, suffix: &str, labels: Labels<'_>, value: impl Display) {
        let _ = write!(self.out, "{PREFIX}{name}{suffix}");
        for (at, (label, text)) in labels.iter().enumerate() {
            let _ = write!(self.out, "{}{label}=\"", if at == 0 { '{' } else { ',' });
            for c in text.chars() {
                match c {
                    '\\' => self.out.push_str("\\\\"),
                    '"' => self.out.push_str("\\\""),
                    '\n' => self.out.push_str("\\n"),
                    c => self.out.push(c),
                }
            }
            self.out.push('"');
        }
        let _ = writeln!(self.out, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    pub(super) fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.out.push_str("# EOF\n");
        }
        self.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static WAIT: Histogram = Histogram::new(&[500]);

    fn written(format: Format) -> String {
        let mut text = Text::new(format);
        text.counter("things", "Things");
        text.total("things", &[("route", "/a\"\\\n**"), ("code", "200")], 3);
        text.histogram("wait_seconds", "Waiting");
        if format == Format::Classic {
            WAIT.observe(Duration::from_micros(2));
        }
        text.times("wait_seconds", &[], &WAIT);
        text.gauge("open", "Open");
        text.value("open", &[], 1);
        text.finish()
    }

    #[test]
    fn both_formats_say_the_same() {
        let samples = "authgate_wait_seconds_bucket{le=\"0.0005\"} 1\nauthgate_wait_seconds_bucket{le=\"+Inf\"} 1\nauthgate_wait_seconds_sum 0.000002\nauthgate_wait_seconds_count 1\n# HELP authgate_open Open\n# TYPE authgate_open gauge\nauthgate_open 1\n";
        let things = "authgate_things_total{route=\"/a\\\"\\\\\\n**\",code=\"200\"} 3\n# HELP authgate_wait_seconds Waiting\n# TYPE authgate_wait_seconds histogram\n";
        assert_eq!(
            written(Format::Classic),
            format!("# HELP authgate_things_total Things\n# TYPE authgate_things_total counter\n{things}{samples}")
        );
        assert_eq!(
            written(Format::OpenMetrics),
            format!(
                "# HELP authgate_things Things\n# TYPE authgate_things counter\n{things}# UNIT authgate_wait_seconds seconds\n{samples}# EOF\n"
            )
        );
    }

    #[test]
    fn the_format_is_what_accept_names() {
        let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(Format::of_accept(Some(prometheus)), Format::OpenMetrics);
        for accept in [None, Some("*/*"), Some("text/plain;version=0.0.4")] {
            assert_eq!(Format::of_accept(accept), Format::Classic, "{accept:?}");
        }
    }
}
