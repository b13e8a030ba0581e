//! Warnings about valid settings that are rarely intended and involve more than one table.

use std::ops::Range;

use crate::config::file::Reading;
use crate::config::{Access, Listen, Provider, Route, Routes, Segment, Server, Upstream, UpstreamServer};
use crate::web::host::HostPattern;
use crate::web::origin::Scheme;

/// Positions that the checks across routes need.
#[derive(Default)]
pub(super) struct Places {
    pub(super) paths: Vec<Range<usize>>,
    /// Whether the route sets `cookies`.
    pub(super) cookies: Vec<bool>,
    pub(super) hosts: Vec<Range<usize>>,
}

/// Warns of a protected path that matches exactly while a less strict route matches everything below it: other proxies
/// treat `/admin` as a prefix. `numbers` and `spans` are the routes' numbers and positions in the file.
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

/// Warns of a public route to an app that another route protects: the app's own session cookie passes there and
/// outlives the gateway session.
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

/// Everything below a protected path, as a route; `None` where nothing is expected below it.
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

/// Whether `this` grants access to users that `that` rejects.
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

/// Warns of hosts that a sign-in through a provider does not lead back to: without a shared session, answers are passed on
/// to hosts that routes name in full.
pub(super) fn wildcard_hosts(
    providers: &[Provider],
    domain: Option<&str>,
    routes: &Routes,
    spans: &[Range<usize>],
    reading: &Reading<'_>,
) {
    if providers.is_empty() || domain.is_some() {
        return;
    }
    for (route, span) in routes.iter().zip(spans) {
        if let HostPattern::Below(domain) = &route.host {
            reading.warn(
                span.clone(),
                format!("each host of `{}` needs a redirect URI of its own at the providers", route.host),
                format!("set session.domain, for example to \"{domain}\", or list the hosts"),
            );
        }
    }
}

/// Warns of host names that browsers request over TLS and that no certificate covers. A proxy in front may present
/// others.
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
