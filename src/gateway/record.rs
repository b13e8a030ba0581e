//! The end of the line: one access line per request, and the counters. A line tells method, host,
//! path, who and how it went; never the query, a cookie, a token or a body.

use std::io::Write;
use std::net::IpAddr;
use std::time::Duration;

use serde::Serialize;

use super::{Gateway, RequestState};
use crate::logging::{printable, timestamp};

/// One access line, in the order in which it is written.
#[derive(Serialize)]
struct AccessLine<'a> {
    time: &'a str,
    level: &'static str,
    target: &'static str,
    message: &'static str,
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<IpAddr>,
    method: &'a str,
    host: &'a str,
    path: &'a str,
    status: u16,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'static str>,
    bytes_in: usize,
    bytes_out: usize,
    duration_ms: f64,
}

/// What the connection counted.
pub(crate) struct Counts {
    pub(crate) status: u16,
    pub(crate) bytes_in: usize,
    pub(crate) bytes_out: usize,
}

/// Writes the access line and counts the request.
pub(crate) fn record(
    gateway: &Gateway,
    head: &http::request::Parts,
    raw_path: &[u8],
    state: &RequestState,
    counts: &Counts,
) {
    let elapsed = state.began.elapsed();
    gateway.series(state).answered(head.method.as_str(), counts.status, elapsed);
    if let Some(page) = state.page {
        gateway.metrics.page(page, counts.status);
    }
    let known = state.known.as_ref();
    let path = raw_path.split(|&b| b == b'?').next().unwrap_or_default();
    let path = String::from_utf8_lossy(path);
    let line = AccessLine {
        time: &timestamp(gateway.clock.now_millis()),
        level: "info",
        target: "access",
        message: "request",
        request_id: &state.request_id,
        client: known.and_then(|known| known.client).or(state.peer.address),
        method: head.method.as_str(),
        host: known.map_or("", |known| known.host.as_str()),
        path: redact(gateway, &path),
        status: counts.status,
        outcome: state.outcome,
        route: state.route,
        upstream: state
            .admission
            .as_ref()
            .map(|admission| gateway.config.upstreams[admission.upstream()].name.as_str()),
        user: state.identity.as_ref().map(|identity| identity.user.id.as_str()),
        why: state.why,
        bytes_in: counts.bytes_in,
        bytes_out: counts.bytes_out,
        duration_ms: (elapsed.as_secs_f64() * 100_000.0).round() / 100.0,
    };
    write(gateway, &line);
}

/// The parser refused a head that no filter ever saw: its line has no method, host or path.
pub(crate) fn unread(
    gateway: &Gateway,
    client: Option<IpAddr>,
    status: u16,
    request_id: &str,
    why: Option<&'static str>,
) {
    gateway.counted.route(None).answered("", status, Duration::ZERO);
    let line = AccessLine {
        time: &timestamp(gateway.clock.now_millis()),
        level: "info",
        target: "access",
        message: "request",
        request_id,
        client,
        method: "",
        host: "",
        path: "",
        status,
        outcome: "bad_request",
        route: None,
        upstream: None,
        user: None,
        why,
        bytes_in: 0,
        bytes_out: 0,
        duration_ms: 0.0,
    };
    write(gateway, &line);
}

fn write(gateway: &Gateway, line: &AccessLine<'_>) {
    gateway.log.line(|out| {
        if gateway.log.is_human() {
            human(out, line);
        } else {
            let _ = serde_json::to_writer(out, line);
        }
    });
}

/// One-time links carry their token in the path: it is cut out.
fn redact<'p>(gateway: &Gateway, path: &'p str) -> &'p str {
    let Some(rest) = path.strip_prefix(gateway.config.server.prefix.as_str()) else { return path };
    for kind in ["/invite/", "/reset/"] {
        if rest.starts_with(kind) {
            return &path[..gateway.config.server.prefix.len() + kind.len()];
        }
    }
    path
}

fn human(out: &mut Vec<u8>, line: &AccessLine<'_>) {
    let client = line.client.map_or_else(|| "unix".to_owned(), |client| client.to_string());
    let _ = write!(
        out,
        "{} {:<5} {} {} {}{} {} {:.1}ms {}",
        line.time,
        "INFO",
        client,
        line.method,
        printable(line.host),
        printable(line.path),
        line.status,
        line.duration_ms,
        line.outcome
    );
    if let Some(user) = line.user {
        let _ = write!(out, " user={}", printable(user));
    }
    if let Some(why) = line.why {
        let _ = write!(out, " why={why}");
    }
    let _ = write!(out, " id={}", line.request_id);
}
