//! Metrics per route.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::series::{Answers, Counter, Histogram};
use super::text::Text;

/// Request histogram bounds in microseconds: from a page served from memory to the longest time that clients wait.
const REQUEST: [u64; 9] = [1_000, 5_000, 20_000, 50_000, 100_000, 500_000, 2_000_000, 10_000_000, 60_000_000];
/// Bounds for the gateway's own share, which rarely exceeds 100 microseconds.
const GATE: [u64; 7] = [10, 25, 50, 100, 500, 2_500, 25_000];

/// Result of authorization.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Authz {
    Allowed,
    SignedOut,
    Forbidden,
    CrossOrigin,
    Unavailable,
}

impl Authz {
    const ALL: [(Self, &'static str); 5] = [
        (Self::Allowed, "allowed"),
        (Self::SignedOut, "signed_out"),
        (Self::Forbidden, "forbidden"),
        (Self::CrossOrigin, "cross_origin"),
        (Self::Unavailable, "unavailable"),
    ];
}

/// Why a WebSocket ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketEnd {
    /// Closed by the client or the backend.
    Peer,
    /// Idle timeout.
    Idle,
    /// The session expired.
    Expired,
    /// The session was revoked, or is no longer allowed on the route.
    Revoked,
    /// Shutdown of the gateway.
    Draining,
    /// The shared database was away for too long.
    Unavailable,
}

impl SocketEnd {
    /// All reasons, in the order of their counters.
    pub const ALL: [Self; 6] =
        [Self::Peer, Self::Idle, Self::Expired, Self::Revoked, Self::Draining, Self::Unavailable];

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Idle => "idle",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Draining => "draining",
            Self::Unavailable => "unavailable",
        }
    }
}

/// How an upstream failed.
const UPSTREAM_ERRORS: [&str; 4] = ["connect", "timeout", "broken", "internal"];

/// Counters and histograms of one route.
#[derive(Debug)]
pub struct RouteMetrics {
    answers: Answers,
    seconds: Histogram,
    gate_seconds: Histogram,
    authz: [Counter; Authz::ALL.len()],
    upstream_errors: [Counter; UPSTREAM_ERRORS.len()],
    sockets: AtomicU64,
}

impl Default for RouteMetrics {
    fn default() -> Self {
        Self {
            answers: Answers::default(),
            seconds: Histogram::new(&REQUEST),
            gate_seconds: Histogram::new(&GATE),
            authz: Default::default(),
            upstream_errors: Default::default(),
            sockets: AtomicU64::new(0),
        }
    }
}

impl RouteMetrics {
    /// Records a completed request. A WebSocket's lifetime does not count as a request duration.
    pub fn answered(&self, method: &str, status: u16, took: Duration) {
        self.answers.add_one(method, status);
        if status != 101 {
            self.seconds.observe(took);
        }
    }

    /// Records the time until the gateway has decided how to handle a request.
    pub fn decided(&self, took: Duration) {
        self.gate_seconds.observe(took);
    }

    /// Records the result of authorization.
    pub fn judged(&self, result: Authz) {
        self.authz[result as usize].add_one();
    }

    /// Records an upstream failure; `kind` is one of "connect", "timeout", "broken", "internal".
    pub fn upstream_failed(&self, kind: &str) {
        let at = UPSTREAM_ERRORS.iter().position(|known| *known == kind).unwrap_or(UPSTREAM_ERRORS.len() - 1);
        self.upstream_errors[at].add_one();
    }

    /// Records an opened WebSocket.
    pub fn socket_opened(&self) {
        self.sockets.fetch_add(1, Ordering::Relaxed);
    }

    /// Records a closed WebSocket.
    pub fn socket_closed(&self) {
        self.sockets.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Writes the families of all routes. Series that never occurred are omitted.
pub(super) fn write(text: &mut Text, routes: &[(&str, &RouteMetrics)]) {
    text.counter("http_requests", "Completed requests");
    for (name, route) in routes {
        for (method, code, count) in route.answers.all() {
            text.total("http_requests", &[("route", name), ("method", method), ("code", &code)], count);
        }
    }
    let request = "Time from the request head to the end of the response, without WebSockets";
    write_times(text, routes, "http_request_duration_seconds", request, |route| &route.seconds);
    let gate = "Time from the request head to the decision whether to forward it";
    write_times(text, routes, "gate_duration_seconds", gate, |route| &route.gate_seconds);
    text.counter("authz", "Access decisions on requests that matched a route");
    for (name, route) in routes {
        for ((_, word), count) in Authz::ALL.iter().zip(&route.authz) {
            if count.value() > 0 {
                text.total("authz", &[("route", name), ("result", word)], count.value());
            }
        }
    }
    text.counter("upstream_errors", "Requests that failed at the upstream");
    for (name, route) in routes {
        for (kind, count) in UPSTREAM_ERRORS.iter().zip(&route.upstream_errors) {
            if count.value() > 0 {
                text.total("upstream_errors", &[("route", name), ("kind", kind)], count.value());
            }
        }
    }
    text.gauge("websockets_active", "Open WebSockets");
    for (name, route) in routes {
        let sockets = route.sockets.load(Ordering::Relaxed);
        if sockets > 0 || route.answers.has_sockets() {
            text.value("websockets_active", &[("route", name)], sockets);
        }
    }
}

fn write_times(
    text: &mut Text,
    routes: &[(&str, &RouteMetrics)],
    name: &'static str,
    help: &str,
    of: fn(&RouteMetrics) -> &Histogram,
) {
    text.histogram(name, help);
    for (route, metrics) in routes {
        if of(metrics).count() > 0 {
            text.times(name, &[("route", route)], of(metrics));
        }
    }
}
