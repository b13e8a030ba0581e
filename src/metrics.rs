//! Counters and gauges in Prometheus' text format. Labels are route numbers, page names and status
//! classes: nothing that a client can choose, so the number of series is bounded.

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabel, EncodeLabelSet, LabelSetEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// One label and its value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Label(pub &'static str, pub String);

impl EncodeLabelSet for Label {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), std::fmt::Error> {
        EncodeLabel::encode(&(self.0, self.1.as_str()), encoder.encode_label())
    }
}

/// Two labels.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Labels(pub Label, pub Label);

impl EncodeLabelSet for Labels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.0.encode(encoder)?;
        self.1.encode(encoder)
    }
}

/// What one route counts, ready to be added to.
#[derive(Debug, Clone)]
pub struct RouteMetrics {
    by_class: [Counter; 6],
    seconds: Histogram,
}

impl RouteMetrics {
    /// One request is over.
    pub fn observe(&self, status: u16, seconds: f64) {
        let class = usize::from(status / 100).min(5);
        self.by_class[class].inc();
        self.seconds.observe(seconds);
    }
}

/// All that is counted.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    routes: Vec<RouteMetrics>,
    elsewhere: RouteMetrics,
    pages: Family<Labels, Counter>,
    upstream_errors: Family<Label, Counter>,
    /// Connections that are open.
    pub connections: Gauge,
    /// Connections refused at a cap.
    pub connections_refused: Gauge,
    /// WebSockets and event streams that are open.
    pub live: Gauge,
    /// Sessions that stand.
    pub sessions: Gauge,
    /// Log lines dropped.
    pub log_dropped: Gauge,
    /// When the first certificate ends, in seconds since 1970.
    pub certificate_expiry: Gauge,
    /// Changed certificates that could not be used.
    pub certificates_unfit: Counter,
}

impl Metrics {
    /// Makes the series of so many routes.
    pub fn new(routes: usize) -> Self {
        let mut registry = Registry::with_prefix("authgate");
        let requests = Family::<Labels, Counter>::default();
        let seconds = Family::<Label, Histogram>::new_with_constructor(|| {
            Histogram::new([0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0])
        });
        registry.register("http_requests", "Requests by route and status class", requests.clone());
        registry.register_with_unit(
            "http_request_duration",
            "Time from the head of a request to the end of its answer",
            Unit::Seconds,
            seconds.clone(),
        );
        let make = |name: &str| route_metrics(name, &requests, &seconds);
        let made = (0..routes).map(|index| make(&index.to_string())).collect();
        let elsewhere = make("none");
        let pages = Family::default();
        registry.register("page_requests", "Requests to the gateway's own pages", pages.clone());
        let upstream_errors = Family::default();
        registry.register("upstream_errors", "Requests that an upstream failed", upstream_errors.clone());
        let gauge = |registry: &mut Registry, name: &str, help: &str| {
            let gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        let connections = gauge(&mut registry, "connections", "Open connections");
        let connections_refused = gauge(&mut registry, "connections_refused", "Connections refused at a cap");
        let live = gauge(&mut registry, "live_connections", "Open WebSockets and event streams");
        let sessions = gauge(&mut registry, "sessions_active", "Sessions that stand");
        let log_dropped = gauge(&mut registry, "log_lines_dropped", "Log lines that nobody read in time");
        let certificate_expiry =
            gauge(&mut registry, "tls_certificate_expiry_timestamp_seconds", "When the first certificate ends");
        let certificates_unfit = Counter::default();
        registry.register(
            "tls_certificates_unfit",
            "Changed certificates that could not be used, so that the ones before them are kept",
            certificates_unfit.clone(),
        );
        Self {
            registry,
            routes: made,
            elsewhere,
            pages,
            upstream_errors,
            connections,
            connections_refused,
            live,
            sessions,
            log_dropped,
            certificate_expiry,
            certificates_unfit,
        }
    }

    /// The series of a route; `None` is what no route took.
    pub fn route(&self, index: Option<usize>) -> &RouteMetrics {
        index.and_then(|index| self.routes.get(index)).unwrap_or(&self.elsewhere)
    }

    /// One of our own pages answered.
    pub fn page(&self, name: &'static str, status: u16) {
        let labels = Labels(Label("page", name.to_owned()), Label("code", status.to_string()));
        self.pages.get_or_create(&labels).inc();
    }

    /// An upstream could not be reached, was too slow, or broke off.
    pub fn upstream_error(&self, kind: &'static str) {
        self.upstream_errors.get_or_create(&Label("kind", kind.to_owned())).inc();
    }

    /// The text of `/metrics` (OpenMetrics 1.0).
    pub fn text(&self) -> String {
        let mut text = String::new();
        // writing to a string cannot fail
        let _ = encode(&mut text, &self.registry);
        text
    }
}

fn route_metrics(name: &str, requests: &Family<Labels, Counter>, seconds: &Family<Label, Histogram>) -> RouteMetrics {
    let classes = ["other", "1xx", "2xx", "3xx", "4xx", "5xx"];
    let by_class = classes.map(|class| {
        let labels = Labels(Label("route", name.to_owned()), Label("code", class.to_owned()));
        requests.get_or_create_owned(&labels)
    });
    RouteMetrics { by_class, seconds: seconds.get_or_create_owned(&Label("route", name.to_owned())) }
}
