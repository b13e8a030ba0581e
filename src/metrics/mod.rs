//! Metrics, and the text of `/metrics`. Labels are names from the configuration and fixed words, never values that a
//! client chooses, so the number of series is bounded. Counting takes no lock and allocates nothing, except when a
//! series is first used.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;

mod accounts;
mod providers;
mod route;
mod series;
mod text;

pub use accounts::{ACCOUNTS, AccountMetrics};
pub use providers::{PROVIDERS, ProviderMetrics};
pub use route::{Authz, RouteMetrics, SocketEnd};
pub use series::{Counter, Histogram};
pub use text::Format;
use text::Text;

/// Gauges that are read on each scrape.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    /// Open connections.
    pub connections: usize,
    /// Connections refused so far: over the total limit, over the limit per address, and evicted.
    pub connections_refused: [u64; 3],
    /// Open WebSockets, event streams and gRPC calls.
    pub live: usize,
    /// Active sessions.
    pub sessions: usize,
    /// Passwords waiting to be hashed, and the wait of the oldest.
    pub hashing: (usize, Duration),
    /// Dropped log lines so far.
    pub log_dropped: u64,
    /// Panics so far.
    pub panics: u64,
    /// Upstream, server, and whether it receives requests.
    pub servers: Vec<(String, String, bool)>,
    /// Seconds since 1970.
    pub now: u64,
}

/// All metrics of the gateway; those of accounts and the store are in [`ACCOUNTS`], those of providers in [`PROVIDERS`].
#[derive(Debug)]
pub struct Metrics {
    routes: Mutex<HashMap<String, Arc<RouteMetrics>>>,
    elsewhere: Arc<RouteMetrics>,
    pages: Arc<RouteMetrics>,
    page_answers: Mutex<HashMap<(&'static str, u16), u64>>,
    sockets_closed: [Counter; SocketEnd::ALL.len()],
    /// WebSockets refused because one account has too many.
    pub sockets_refused: Counter,
    /// Changed certificates that could not be used.
    pub certificates_unfit: Counter,
    certificate_expiry: AtomicI64,
    reload_successful: AtomicI64,
    reload_success_time: AtomicU64,
}

/// The series of one configuration's routes, created on first use. Routes with the same name share them.
#[derive(Debug)]
pub struct Counted {
    metrics: Arc<Metrics>,
    routes: Vec<(Box<str>, OnceLock<Arc<RouteMetrics>>)>,
}

impl Counted {
    /// The series of a route; `None`: requests that match no route.
    pub fn route(&self, index: Option<usize>) -> &RouteMetrics {
        match index.and_then(|index| self.routes.get(index)) {
            Some((name, made)) => made.get_or_init(|| self.metrics.of_route(name)),
            None => &self.metrics.elsewhere,
        }
    }

    /// The series of the gateway's own pages.
    pub fn pages(&self) -> &RouteMetrics {
        &self.metrics.pages
    }

    /// The series of a route, as a shared handle.
    pub fn shared(&self, index: Option<usize>) -> Arc<RouteMetrics> {
        self.route(index);
        let made = index.and_then(|index| self.routes.get(index)).and_then(|(_, made)| made.get());
        Arc::clone(made.unwrap_or(&self.metrics.elsewhere))
    }
}

impl Metrics {
    /// Creates empty metrics.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self {
            routes: Mutex::default(),
            elsewhere: Arc::default(),
            pages: Arc::default(),
            page_answers: Mutex::default(),
            sockets_closed: Default::default(),
            sockets_refused: Counter::default(),
            certificates_unfit: Counter::default(),
            certificate_expiry: AtomicI64::new(0),
            reload_successful: AtomicI64::new(1),
            reload_success_time: AtomicU64::new(0),
        }
    }

    /// The series of a configuration's routes, by name.
    pub fn of_routes(self: &Arc<Self>, names: impl Iterator<Item = String>) -> Counted {
        let routes = names.map(|name| (name.into_boxed_str(), OnceLock::new())).collect();
        Counted { metrics: Arc::clone(self), routes }
    }

    fn of_route(&self, name: &str) -> Arc<RouteMetrics> {
        Arc::clone(self.routes.lock().entry(name.to_owned()).or_default())
    }

    /// Drops the series of routes that are not in the new configuration, so that their number stays bounded.
    pub fn forget(&self, new: &Counted) {
        let names: HashSet<&str> = new.routes.iter().map(|(name, _)| &**name).collect();
        self.routes.lock().retain(|name, _| names.contains(name.as_str()));
    }

    /// Records a response from one of the gateway's own pages.
    pub fn page(&self, name: &'static str, status: u16) {
        *self.page_answers.lock().entry((name, status)).or_insert(0) += 1;
    }

    /// Records the end of a WebSocket.
    pub fn socket_closed(&self, end: SocketEnd) {
        self.sockets_closed[end as usize].add_one();
    }

    /// Records a configuration load. `now`: seconds since 1970.
    pub fn reloaded(&self, successful: bool, now: u64) {
        self.reload_successful.store(i64::from(successful), Ordering::Relaxed);
        if successful {
            self.reload_success_time.store(now, Ordering::Relaxed);
        }
    }

    /// Sets the earliest certificate expiry, in seconds since 1970.
    pub fn certificate_ends(&self, at: i64) {
        self.certificate_expiry.store(at, Ordering::Relaxed);
    }

    /// The text of `/metrics`.
    pub fn text(&self, format: Format, reading: &Reading) -> String {
        let mut text = Text::new(format);
        self.write_routes(&mut text);
        self.write_gateway(&mut text, reading);
        ACCOUNTS.write(&mut text, reading.now);
        PROVIDERS.write(&mut text);
        text.finish()
    }

    fn write_routes(&self, text: &mut Text) {
        let named = self.routes.lock();
        let mut routes: Vec<(&str, &RouteMetrics)> =
            named.iter().map(|(name, route)| (name.as_str(), &**route)).collect();
        // a path begins with a slash, so these two names never collide with a route
        routes.extend([("none", &*self.elsewhere), ("pages", &*self.pages)]);
        routes.sort_unstable_by_key(|(name, _)| *name);
        route::write(text, &routes);
        text.counter("page_requests", "Requests to the gateway's own pages");
        let mut pages: Vec<((&str, u16), u64)> =
            self.page_answers.lock().iter().map(|(key, count)| (*key, *count)).collect();
        pages.sort_unstable();
        for ((page, code), count) in pages {
            text.total("page_requests", &[("page", page), ("code", &code.to_string())], count);
        }
    }

    fn write_gateway(&self, text: &mut Text, reading: &Reading) {
        text.counter("websockets_closed", "WebSockets closed, by reason");
        for (end, count) in SocketEnd::ALL.iter().zip(&self.sockets_closed) {
            text.total("websockets_closed", &[("reason", end.word())], count.value());
        }
        text.counter("ratelimited", "Requests and connections refused or closed by a limit, by scope");
        for (scope, count) in [
            ("connections", reading.connections_refused[0]),
            ("connections_per_address", reading.connections_refused[1]),
            ("connections_evicted", reading.connections_refused[2]),
            ("sockets_per_user", self.sockets_refused.value()),
        ] {
            text.total("ratelimited", &[("scope", scope)], count);
        }
        ACCOUNTS.write_limits(text);
        text.counter("log_lines_dropped", "Log lines dropped because the log was not read fast enough");
        text.total("log_lines_dropped", &[], reading.log_dropped);
        text.counter("panics", "Panics in requests and background tasks");
        text.total("panics", &[], reading.panics);
        text.counter("tls_certificates_unfit", "Failed certificate reloads; the previous certificate stays in use");
        text.total("tls_certificates_unfit", &[], self.certificates_unfit.value());
        text.gauge("tls_certificate_expiry_timestamp_seconds", "Expiry time of the certificate that expires first");
        match self.certificate_expiry.load(Ordering::Relaxed) {
            0 => {} // no TLS
            at => text.value("tls_certificate_expiry_timestamp_seconds", &[], u64::try_from(at).unwrap_or(0)),
        }
        let gauges = [
            ("connections", "Open connections", reading.connections as u64),
            ("live_connections", "Open WebSockets, event streams and gRPC calls", reading.live as u64),
            ("sessions_active", "Active sessions", reading.sessions as u64),
            ("password_hash_queue", "Passwords waiting to be hashed", reading.hashing.0 as u64),
            (
                "config_last_reload_successful",
                "Whether the last configuration reload succeeded",
                u64::from(self.reload_successful.load(Ordering::Relaxed) != 0),
            ),
            (
                "config_last_reload_success_timestamp_seconds",
                "Time of the last successful configuration load",
                self.reload_success_time.load(Ordering::Relaxed),
            ),
        ];
        for (name, help, value) in gauges {
            text.gauge(name, help);
            text.value(name, &[], value);
        }
        text.gauge("password_hash_longest_wait_seconds", "Longest current wait in the password hash queue");
        text.seconds("password_hash_longest_wait_seconds", reading.hashing.1);
        text.gauge("upstream_up", "Whether a server is in rotation (upstreams with several servers or health checks)");
        for (upstream, server, up) in &reading.servers {
            text.value("upstream_up", &[("upstream", upstream), ("server", server)], u64::from(*up));
        }
        text.gauge("build_info", "Version of this authgate");
        text.value("build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_reload_continues_counting_and_lets_go_of_routes_that_are_gone() {
        let metrics = Arc::new(Metrics::new());
        let old = metrics.of_routes(named(&["/a/**", "/b/**", "/b/**"]).into_iter());
        let took = Duration::from_millis(3);
        for index in [Some(0), Some(1), Some(2), None, Some(9)] {
            old.route(index).answered("GET", 200, took);
        }
        let new = metrics.of_routes(named(&["/b/**", "/c/**"]).into_iter());
        metrics.forget(&new);
        new.route(Some(0)).answered("GET", 200, took);
        old.route(Some(0)).answered("GET", 200, took);
        let text = metrics.text(Format::Classic, &Reading::default());
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("authgate_http_requests_total")).collect();
        assert_eq!(
            lines,
            [
                "authgate_http_requests_total{route=\"/b/**\",method=\"GET\",code=\"200\"} 3",
                "authgate_http_requests_total{route=\"none\",method=\"GET\",code=\"200\"} 2",
            ]
        );
    }

    #[test]
    fn a_route_that_nothing_took_has_no_series() {
        let metrics = Arc::new(Metrics::new());
        let counted = metrics.of_routes((0..10_000).map(|number| format!("/{number}/**")));
        counted.route(Some(7)).answered("GET", 200, Duration::ZERO);
        assert_eq!(metrics.routes.lock().len(), 1);
        let text = metrics.text(Format::OpenMetrics, &Reading::default());
        // series of providers are of the whole process, and other tests add some
        let mut of_routes = text.lines().filter(|line| line.contains("route=\"/")).peekable();
        assert!(of_routes.peek().is_some());
        assert!(of_routes.all(|line| line.contains("route=\"/7/**\"")), "{text}");
    }
}
