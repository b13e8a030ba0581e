//! Limits the scope that an app claims for its service workers. A browser asks a service worker before the gateway, for
//! every page in its scope and for as long as it is installed. An app's service worker must not control another app's
//! pages or the login page. The app at the root controls all of them: docs/security.md.

use http::{HeaderName, HeaderValue, Method};

use super::response_headers::ResponseHeaderPolicy;
use crate::config::{Config, PathPattern, Route, Segment};
use crate::web::host::Host;
use crate::wire::response_view::ResponseHeadView;

static ALLOWED: HeaderName = HeaderName::from_static("service-worker-allowed");

/// Narrows `Service-Worker-Allowed` to paths of the same upstream: to the folder of the route, if it has one (W3C
/// Service Workers, 5.3). `place` is the host and the target of the request.
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

/// The folder that a pattern matches as a whole.
fn folder(path: &PathPattern) -> Option<&str> {
    let fixed = path.segments.iter().all(|segment| matches!(segment, Segment::Fixed(_)));
    path.text.strip_suffix("**").filter(|_| fixed)
}

/// The path of a scope, resolved against the script's own path; `None`: it is not a plain path.
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
