//! What may stand in a file and is seldom meant: warnings that need more than one table to be seen.

use std::ops::Range;

use crate::config::file::Reading;
use crate::config::{Access, Listen, Route, Routes, Segment, Server, Upstream, UpstreamServer};
use crate::web::host::HostPattern;
use crate::web::origin::Scheme;

/// Where things stand that are judged together.
#[derive(Default)]
pub(super) struct Places {
    pub(super) paths: Vec<Range<usize>>,
    /// Whether the file says what becomes of cookies.
    pub(super) cookies: Vec<bool>,
    pub(super) hosts: Vec<Range<usize>>,
}

/// A path that is guarded by itself alone, while all below it goes to a route that asks for less: other proxies take
/// `/admin` for a prefix. `numbers` and `spans` are the routes' places in the file.
pub(super) fn open_below(routes: &Routes, numbers: &[usize], spans: &[Range<usize>], reading: &Reading<'_>) {
    for (at, route) in routes.iter().enumerate() {
        let Some(below) = below(route) else { continue };
        let Some(next) = routes.covering(&below).filter(|&next| next != at && asks_less(&routes[next], route)) else {
            continue;
        };
        let folder = route.path.text.trim_end_matches('/');
        reading.warn(
            spans[at].clone(),
            format!(
                "`{}` matches only this path: paths below it match route {}, which is less strict",
                route.path.text, numbers[next]
            ),
            format!("use \"{folder}/**\" to match {folder}, {folder}/ and everything below"),
        );
    }
}

/// A public part of an app that is guarded elsewhere: a session of the app's own, in its cookie, goes on there whatever
/// becomes of the gateway's.
pub(super) fn public_part(
    routes: &Routes,
    upstreams: &[Upstream],
    numbers: &[usize],
    places: &Places,
    reading: &Reading<'_>,
) {
    let has_sessions = |upstream: usize| upstreams[upstream].servers != [UpstreamServer::Whoami];
    for (at, route) in routes.iter().enumerate() {
        if route.access != Access::Public || places.cookies[at] || !route.upstream.is_some_and(has_sessions) {
            continue;
        }
        let guards = |other: &Route| other.access == Access::SignedIn && other.upstream == route.upstream;
        let Some(guarded) = routes.iter().position(guards) else { continue };
        reading.warn(
            places.paths[at].clone(),
            format!(
                "`{}` is public, and route {} protects the same app: the app's own session cookies pass here without a \
                 gateway session",
                route.path.text, numbers[guarded]
            ),
            "set cookies = \"drop\" in this route if the app has its own sessions, otherwise cookies = \"app\"",
        );
    }
}

/// All that lies below a guarded path, as a route; `None` where nobody would look for anything below it.
fn below(route: &Route) -> Option<Route> {
    let guarded = route.access == Access::Deny || !route.groups.is_empty();
    let mut below = route.clone();
    if matches!(below.path.segments.last(), Some(Segment::Fixed(name)) if name.is_empty()) {
        below.path.segments.pop();
    }
    let is_folder = matches!(below.path.segments.last(), Some(Segment::Fixed(name)) if !name.contains('.'));
    if !guarded || route.path.open_end || !is_folder {
        return None;
    }
    below.path.open_end = true;
    Some(below)
}

/// Whether somebody may use `this` who may not use `that`.
fn asks_less(this: &Route, that: &Route) -> bool {
    match this.access {
        Access::Deny => false,
        Access::Public | Access::Optional => true,
        Access::SignedIn => {
            let open = this.groups.is_empty() || this.groups.iter().any(|group| !that.groups.contains(group));
            that.access == Access::Deny || open
        }
    }
}

/// Hosts that browsers ask for over TLS and that no certificate speaks for. A proxy in front may show others.
pub(super) fn uncovered(
    server: &Server,
    public: Range<usize>,
    routes: &Routes,
    spans: &[Range<usize>],
    reading: &Reading<'_>,
) {
    let alone = server.listen.iter().any(|one| matches!(one, Listen::Tls(_))) && server.trusted_proxies.is_empty();
    let certificates = &server.tls.certificates;
    if !alone || certificates.is_empty() {
        return;
    }
    let covered = |name: &str| certificates.iter().any(|(_, certificate)| certificate.covers(name));
    let is_number = |name: &str| name.starts_with('[') || name.parse::<std::net::IpAddr>().is_ok();
    let warn = |span: Range<usize>, name: &str| {
        reading.warn(
            span,
            format!("no certificate is valid for {name}: browsers will refuse it"),
            "add one in [server.tls] that lists it as a subject alternative name",
        );
    };
    let own = server.public_url.host();
    if server.public_url.scheme() == Scheme::Https && !is_number(own) && !covered(own) {
        warn(public, own);
    }
    for (route, span) in routes.iter().zip(spans) {
        if let HostPattern::Exact(host) = &route.host
            && host.name() != own
            && !is_number(host.name())
            && !covered(host.name())
        {
            warn(span.clone(), host.name());
        }
    }
}
