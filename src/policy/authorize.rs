//! Route x authentication -> admission or refusal. The only maker of [`Admission`]: nothing is
//! forwarded without one, public routes included.

use http::Method;

use super::authenticate::Authentication;
use crate::account::Identity;
use crate::config::{Access, Config, Cors, Route};
use crate::pages::guard;
use crate::web::incoming::Incoming;
use crate::web::method::is_safe;
use crate::web::origin::Origin;

/// The right to forward one request. Its fields are private to this file: whoever holds one got it
/// from [`authorize`].
#[derive(Debug, Clone)]
pub(crate) struct Admission {
    route: usize,
    upstream: usize,
    identity: Option<Identity>,
    body_max: Option<u64>,
    /// Routes that other readings of the path lead to.
    others: Vec<usize>,
}

impl Admission {
    /// Index of the route.
    pub(crate) fn route(&self) -> usize {
        self.route
    }

    /// Index of the upstream.
    pub(crate) fn upstream(&self) -> usize {
        self.upstream
    }

    /// Every route that let the request pass, [`Self::route`] first.
    pub(crate) fn routes(&self) -> impl Iterator<Item = usize> {
        std::iter::once(self.route).chain(self.others.iter().copied())
    }

    /// What its body may take.
    pub(crate) fn body_max(&self) -> Option<u64> {
        self.body_max
    }

    /// The same request under another reading of its path was admitted, too: what holds for both. `None`: they do not
    /// lead to the same place.
    pub(crate) fn also(mut self, other: &Self, config: &Config, is_websocket: bool) -> Option<Self> {
        let (own, others) = (&config.routes[self.route], &config.routes[other.route]);
        let same = self.upstream == other.upstream
            && own.strip_prefix == others.strip_prefix
            && (!is_websocket || own.websocket_token == others.websocket_token);
        if !same {
            return None;
        }
        if !self.routes().any(|route| route == other.route) {
            self.others.push(other.route);
        }
        self.body_max = self.body_max.into_iter().chain(other.body_max).min();
        self.identity = self.identity.filter(|_| other.identity.is_some());
        Some(self)
    }

    /// Whom the backend is told about; nobody on routes that are open to all and have no session.
    pub(crate) fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }
}

/// Why a request is not forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum Refusal {
    /// No valid session where one is needed.
    SignedOut,
    /// Signed in, but not in any of the groups; or the route is closed to everybody.
    Forbidden,
    /// The API token has no scope for it.
    OutOfScope,
    /// From a page of another origin.
    CrossOrigin,
}

/// Judges one request on one route; `own` are the origins that are ours for it. `path` and `method` are what an app
/// may take it for.
pub(crate) fn authorize(
    (index, route): (usize, &Route),
    incoming: &Incoming<'_>,
    path: &[u8],
    method: &Method,
    authentication: &Authentication,
    own: impl FnOnce() -> [Origin; 2],
) -> Result<Admission, Refusal> {
    let upstream = match (route.access, route.upstream) {
        (Access::Deny, _) | (_, None) => return Err(Refusal::Forbidden),
        (_, Some(upstream)) => upstream,
    };
    let crosses = !route.danger_cross_origin && crosses_origins(route, incoming, method, authentication, own);
    if crosses && (route.access != Access::Public || incoming.is_websocket) {
        return Err(Refusal::CrossOrigin);
    }
    // open to all, but there another site's page speaks for nobody
    let identity = if crosses { None } else { authentication.identity().cloned() };
    if let Some(grant) = identity.as_ref().and_then(|identity| identity.grant.as_ref())
        && !grant.allows(method, path)
    {
        return Err(Refusal::OutOfScope);
    }
    if route.access == Access::SignedIn {
        let Some(identity) = &identity else { return Err(Refusal::SignedOut) };
        if !in_groups(route, &identity.user.groups) {
            return Err(Refusal::Forbidden);
        }
    }
    Ok(Admission { route: index, upstream, identity, body_max: route.body_max, others: Vec::new() })
}

/// A preflight on a route whose app answers for other origins: it carries no credentials (WHATWG Fetch,
/// 4.8), so it is forwarded for nobody.
pub(crate) fn preflight((index, route): (usize, &Route)) -> Result<Admission, Refusal> {
    match (route.access, route.upstream) {
        (Access::Deny, _) | (_, None) => Err(Refusal::Forbidden),
        (_, Some(upstream)) => {
            Ok(Admission { route: index, upstream, identity: None, body_max: route.body_max, others: Vec::new() })
        }
    }
}

/// Whether a session may go on using a route: asked again of open sockets.
pub(crate) fn still_allowed(route: &Route, groups: &[String]) -> bool {
    route.access != Access::SignedIn || in_groups(route, groups)
}

fn in_groups(route: &Route, groups: &[String]) -> bool {
    route.groups.is_empty() || route.groups.iter().any(|group| groups.contains(group))
}

/// Contract, section 5: handshakes by `Origin`, unsafe methods where something speaks for the
/// caller that a browser sends by itself.
fn crosses_origins(
    route: &Route,
    incoming: &Incoming<'_>,
    method: &Method,
    authentication: &Authentication,
    own: impl FnOnce() -> [Origin; 2],
) -> bool {
    if incoming.is_websocket {
        return !websocket_origin_is_ours(route, incoming, &own());
    }
    let ambient_credential = matches!(authentication, Authentication::Known { ambient_credential: true, .. });
    ambient_credential && !is_safe(method) && guard::is_cross_origin(incoming, &own(), shared_with(route))
}

/// The origins that the route's answers are shared with.
fn shared_with(route: &Route) -> &[Origin] {
    match &route.cors {
        Cors::Origins(origins) => origins,
        Cors::App => &[],
    }
}

/// Without an Origin it is no browser, unless fetch metadata says that another site's page asks; an empty, repeated or
/// foreign Origin is refused (CWE-1385).
fn websocket_origin_is_ours(route: &Route, incoming: &Incoming<'_>, own: &[Origin]) -> bool {
    if !incoming.headers.contains_key(http::header::ORIGIN) {
        return !guard::comes_from_another_site(incoming);
    }
    incoming.single("origin").and_then(Origin::parse).is_some_and(|origin| {
        [own, &route.websocket_origins, shared_with(route)].iter().any(|origins| origins.contains(&origin))
    })
}
