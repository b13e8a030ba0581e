//! Route x authentication -> admission or refusal. Only this file makes an [`Admission`], and nothing is forwarded
//! without one, public routes included.

use http::Method;

use super::authenticate::Authentication;
use crate::account::Identity;
use crate::config::{Access, Config, Cors, Route};
use crate::pages::guard;
use crate::web::incoming::Incoming;
use crate::web::method::is_safe;
use crate::web::origin::Origin;

/// The right to forward one request. Its fields are private to this file, so every value comes from a decision made
/// here.
#[derive(Debug, Clone)]
pub(crate) struct Admission {
    route: usize,
    upstream: usize,
    identity: Option<Identity>,
    body_max: Option<u64>,
    /// Routes that other readings of the path match.
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

    /// Every route that admitted the request, [`Self::route`] first.
    pub(crate) fn routes(&self) -> impl Iterator<Item = usize> {
        std::iter::once(self.route).chain(self.others.iter().copied())
    }

    /// Limit on the request body, in bytes.
    pub(crate) fn body_max(&self) -> Option<u64> {
        self.body_max
    }

    /// Combines two admissions of one request under different readings of its path; the stricter terms apply. `None`:
    /// the readings lead to different places.
    pub(crate) fn also(mut self, other: &Self, config: &Config, is_websocket: bool) -> Option<Self> {
        let agree = self.upstream == other.upstream
            && same_request(&config.routes[self.route], &config.routes[other.route], is_websocket);
        if !agree {
            return None;
        }
        if !self.routes().any(|route| route == other.route) {
            self.others.push(other.route);
        }
        self.body_max = self.body_max.into_iter().chain(other.body_max).min();
        self.identity = self.identity.filter(|_| other.identity.is_some());
        Some(self)
    }

    /// The identity that the backend receives; `None` for an anonymous request on an open route.
    pub(crate) fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }
}

/// Whether the app receives the same request by both routes. Every setting is listed, so that a new one is not forgotten.
fn same_request(one: &Route, other: &Route, is_websocket: bool) -> bool {
    let Route {
        strip_prefix,
        websocket_token,
        // which requests match
        line: _,
        host: _,
        path: _,
        methods: _,
        paths: _,
        // checked for each reading by itself
        access: _,
        groups: _,
        refuse: _,
        danger_cross_origin: _,
        websocket_origins: _,
        // the admissions hold these: the upstreams are the same, and the smaller limit applies
        upstream: _,
        body_max: _,
        // a request with several readings never switches to these
        upgrade: _,
        // decided over all readings, before and after
        cors: _,
        drops_cookies: _,
        cache: _,
        // the first route's applies: it bounds the wait for a response, and gives no access
        timeout: _,
    } = one;
    *strip_prefix == other.strip_prefix && (!is_websocket || *websocket_token == other.websocket_token)
}

/// Why a request is not forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum Refusal {
    /// No valid session where one is required.
    SignedOut,
    /// Signed in, but in none of the groups; or the route denies all requests.
    Forbidden,
    /// The API token has no scope for the request.
    OutOfScope,
    /// Sent by a page of another origin.
    CrossOrigin,
    /// Whether its credentials are valid cannot be known now.
    Unavailable,
}

/// Authorizes one request on one route. `own` are the gateway's own origins for it. `path` and `method` are what an app
/// may read in the request.
pub(super) fn authorize(
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
    if matches!(authentication, Authentication::Unavailable) && route.access != Access::Public {
        return Err(Refusal::Unavailable);
    }
    // an open route treats a request from another site's page as anonymous
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

/// Admits a preflight on a route that leaves CORS to its app. A preflight carries no credentials (WHATWG Fetch, 4.8),
/// so it is forwarded as anonymous.
pub(super) fn preflight((index, route): (usize, &Route)) -> Result<Admission, Refusal> {
    match (route.access, route.upstream) {
        (Access::Deny, _) | (_, None) => Err(Refusal::Forbidden),
        (_, Some(upstream)) => {
            Ok(Admission { route: index, upstream, identity: None, body_max: route.body_max, others: Vec::new() })
        }
    }
}

/// Whether a session may keep using a route; rechecked for live connections.
pub(crate) fn still_allowed(route: &Route, groups: &[String]) -> bool {
    route.access != Access::SignedIn || in_groups(route, groups)
}

fn in_groups(route: &Route, groups: &[String]) -> bool {
    route.groups.is_empty() || route.groups.iter().any(|group| groups.contains(group))
}

/// WebSocket handshakes are checked by `Origin`; unsafe methods are checked only if the credential is one that browsers
/// send automatically.
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

/// The origins that the route shares its responses with.
fn shared_with(route: &Route) -> &[Origin] {
    match &route.cors {
        Cors::Origins(origins) => origins,
        Cors::App => &[],
    }
}

/// A handshake without `Origin` does not come from a browser, unless fetch metadata says that it comes from another
/// site's page. An empty, repeated or foreign `Origin` is refused (CWE-1385).
fn websocket_origin_is_ours(route: &Route, incoming: &Incoming<'_>, own: &[Origin]) -> bool {
    if !incoming.headers.contains_key(http::header::ORIGIN) {
        return !guard::comes_from_another_site(incoming);
    }
    incoming.single("origin").and_then(Origin::parse).is_some_and(|origin| {
        [own, &route.websocket_origins, shared_with(route)].iter().any(|origins| origins.contains(&origin))
    })
}
