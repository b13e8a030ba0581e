//! What an app says of its service workers' reach. A browser asks a service worker before it asks us, for all pages of
//! its scope and for as long as it is kept: one of an app's must not stand before another app's pages, nor before the
//! page where people sign in. The app that has the root has them all: docs/security.md.

use http::{HeaderName, HeaderValue, Method};

use super::response_headers::ResponseHeaderPolicy;
use crate::config::{Config, PathPattern, Route, Segment};
use crate::web::host::Host;
use crate::wire::response_view::ResponseHeadView;

static ALLOWED: HeaderName = HeaderName::from_static("service-worker-allowed");

/// Narrows `Service-Worker-Allowed` to paths that lead to the same upstream: to the folder of the route, where there is
/// one (W3C Service Workers, 5.3). `place` is the host and the target of the request.
pub(crate) fn limit(
    changes: &mut ResponseHeaderPolicy<'_>,
    answer: &impl ResponseHeadView,
    config: &Config,
    route: usize,
    place: (&Host, &[u8]),
) {
    let own = &config.routes[route];
    if own.path.segments.is_empty() {
        return;
    }
    if answer.values(&ALLOWED).next().is_some() {
        narrow(changes, answer, config, own, place);
    }
}

#[inline(never)]
fn narrow(
    changes: &mut ResponseHeaderPolicy<'_>,
    answer: &impl ResponseHeadView,
    config: &Config,
    own: &Route,
    place: (&Host, &[u8]),
) {
    let mut values = answer.values(&ALLOWED);
    let Some(value) = values.next() else { return };
    let leads_here = |scope: &str| {
        let folder = &scope[..=scope.rfind('/').unwrap_or(0)];
        let there = config.routes.find(place.0, folder.as_bytes(), &Method::GET);
        there.is_some_and(|at| config.routes[at].upstream == own.upstream)
    };
    if values.next().is_none() && resolved(value, place.1).is_some_and(|scope| leads_here(&scope)) {
        return;
    }
    changes.replace(ALLOWED.clone(), folder(&own.path).and_then(|folder| HeaderValue::try_from(folder).ok()));
}

/// The folder that a pattern takes whole.
fn folder(path: &PathPattern) -> Option<&str> {
    let fixed = path.segments.iter().all(|segment| matches!(segment, Segment::Fixed(_)));
    path.text.strip_suffix("**").filter(|_| fixed)
}

/// The path that a scope means, seen from the script's own; `None`: it is no plain one.
fn resolved(scope: &[u8], target: &[u8]) -> Option<String> {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"/-._~".contains(b);
    let scope = std::str::from_utf8(scope).ok().filter(|scope| scope.bytes().all(|b| plain(&b)))?;
    if scope.is_empty() || scope.contains("//") {
        return None;
    }
    let script = target.split(|&b| b == b'?').next()?;
    let script = std::str::from_utf8(script).ok().filter(|script| script.bytes().all(|b| plain(&b)))?;
    let base = if scope.starts_with('/') { "" } else { &script[1..=script.rfind('/')?] };
    let mut segments: Vec<&str> = base.split('/').filter(|segment| !segment.is_empty()).collect();
    let mut words = scope.trim_start_matches('/').split('/').peekable();
    while let Some(word) = words.next() {
        match word {
            "." | ".." => {
                if word == ".." {
                    segments.pop();
                }
                if words.peek().is_none() {
                    segments.push("");
                }
            }
            word => segments.push(word),
        }
    }
    Some(format!("/{}", segments.join("/")))
}
