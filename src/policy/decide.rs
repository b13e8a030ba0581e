//! One request -> one verdict. No await, no disk. Live requests, live connections after a reload, `check` and `explain`
//! all call [`decide`].

use std::ops::Deref;

use http::{HeaderName, Method, StatusCode};

use super::authenticate::Authentication;
use super::authorize::{self, Admission, Refusal};
use super::cors::{self, CorsAnswer};
use super::route::{self, Reading, Routed};
use super::websocket_credentials::{self, Handshake};
use super::{destination, loop_detection, normalize, second_method};
use crate::config::{Config, Paths};
use crate::pages::{Page, Site, guard};
use crate::secret::Secret;
use crate::web::incoming::Incoming;
use crate::web::origin::{Origin, Scheme};

/// What to do with a request.
#[derive(Debug)]
#[must_use]
pub(crate) enum Verdict {
    /// Forward it to the upstream.
    Forward(Approval),
    /// One of the gateway's own pages or endpoints responds.
    Page(Page),
    /// The route (by index) refuses it.
    Refuse(usize, Refusal),
    /// Only a status: no route, an unknown host, or a method override that is never served.
    Status(StatusCode),
    /// 400: the named part is malformed, or its readings lead to different places.
    Ambiguous(&'static str),
    /// A preflight from an allowed origin: 204.
    Preflight,
    /// `public_url` is https and the client used plain http: 308 to it.
    ToHttps,
    /// The request came back to a gateway that had forwarded it: 508.
    Loop,
}

/// An admission that holds for the whole request: every reading of its path, every method that it names, and its
/// `Destination`. The field is private, so only this file makes one.
#[derive(Debug)]
pub(crate) struct Approval(Admission);

impl Deref for Approval {
    type Target = Admission;

    fn deref(&self) -> &Admission {
        &self.0
    }
}

/// The configuration that requests are checked against.
#[derive(Clone, Copy)]
pub(crate) struct Rules<'c> {
    pub(crate) config: &'c Config,
    pub(crate) site: &'c Site,
    /// This gateway's own name in `X-Authgate-Via`.
    pub(crate) via: &'c str,
}

/// A verdict, with everything that it was based on.
#[derive(Debug)]
pub(crate) struct Decided<'r, 'c> {
    pub(crate) routed: Routed<'r, 'c>,
    /// The CORS fields of the response.
    pub(crate) cors: CorsAnswer,
    /// Credentials of a WebSocket handshake beyond the usual ones.
    pub(crate) handshake: Option<Handshake>,
    /// The protocol besides WebSocket that the client asks to switch to, if the route allows it.
    pub(crate) upgrade: Option<String>,
    pub(crate) authentication: Authentication,
    pub(crate) verdict: Verdict,
}

/// Routes, authenticates and decides. `can_switch`: whether the connection can switch to another protocol.
pub(crate) fn decide<'r, 'c>(
    rules: &Rules<'c>,
    incoming: &'r Incoming<'_>,
    can_switch: bool,
    authenticate: impl FnOnce(&[Secret]) -> Authentication,
) -> Decided<'r, 'c> {
    let routed = Routed::new(rules.config, rules.site, incoming);
    let (handshake, upgrade) = (None, None);
    if loop_detection::is_loop(incoming, rules.via) {
        let (cors, authentication) = (CorsAnswer::default(), Authentication::Anonymous);
        return Decided { routed, cors, handshake, upgrade, authentication, verdict: Verdict::Loop };
    }
    let cors = routed.cors(rules.config, incoming);
    let route = routed.first.found.map(|(_, route)| route);
    let handshake = route
        .filter(|_| incoming.is_websocket)
        .map(|route| websocket_credentials::read(&route.websocket_token, incoming));
    // a request with an ambiguous path is never a tunnel
    let upgrade = route
        .filter(|_| can_switch && routed.others.is_empty())
        .and_then(|route| websocket_credentials::asked_protocol(&route.upgrade, incoming));
    let authentication = authenticate(handshake.as_ref().map_or(&[][..], |handshake| &handshake.tokens));
    let verdict = verdict_of(rules.config, &routed, incoming, &authentication);
    Decided { routed, cors, handshake, upgrade, authentication, verdict }
}

/// The gateway's own origins for this request.
pub(crate) fn own_origins(config: &Config, incoming: &Incoming<'_>) -> [Origin; 2] {
    guard::own_origins(&config.server.public_url, config.session.domain.as_deref(), incoming)
}

/// Decides about a routed request. It is forwarded only if every reading of its path allows that; otherwise the
/// strictest reading decides how it is refused.
fn verdict_of(
    config: &Config,
    routed: &Routed<'_, '_>,
    incoming: &Incoming<'_>,
    authentication: &Authentication,
) -> Verdict {
    if config.server.public_url.scheme() == Scheme::Https && incoming.scheme == Scheme::Http {
        return Verdict::ToHttps;
    }
    if routed.ambiguous {
        return Verdict::Ambiguous("path");
    }
    if let Some(page) = routed.page {
        if !config.routes.know_host(incoming.host) && !is_public_host(config, incoming) {
            return Verdict::Status(StatusCode::NOT_FOUND);
        }
        let asks = cors::preflight(incoming).is_some();
        let allowed = asks && matches!(CorsAnswer::of(&config.cors_origins, incoming), CorsAnswer::Allowed(_));
        return if allowed { Verdict::Preflight } else { Verdict::Page(page) };
    }
    let is_untaken = routed.others.is_empty() && routed.first.found.is_none();
    if let Some(page) = Page::without_route(&routed.first.path).filter(|_| is_untaken)
        && (config.routes.know_host(incoming.host) || is_public_host(config, incoming))
    {
        return Verdict::Page(page);
    }
    match under_all(config, routed, incoming, authentication) {
        Ok(admission) => refused_at_destination(config, &admission, incoming, authentication)
            .unwrap_or(Verdict::Forward(Approval(admission))),
        Err(verdict) => verdict,
    }
}

/// The admission under all readings of the path, or why the request is not forwarded.
fn under_all(
    config: &Config,
    routed: &Routed<'_, '_>,
    incoming: &Incoming<'_>,
    authentication: &Authentication,
) -> Result<Admission, Verdict> {
    let mut result = under(config, &routed.first, incoming, authentication);
    let mut apart = false;
    for reading in &routed.others {
        result = match (result, under(config, reading, incoming, authentication)) {
            (Ok(admission), Ok(other)) => {
                let both = admission.clone().also(&other, config, incoming.is_websocket);
                apart |= both.is_none();
                Ok(both.unwrap_or(admission))
            }
            (Ok(_), Err(verdict)) | (Err(verdict), Ok(_)) => Err(verdict),
            (Err(verdict), Err(other)) => Err(verdict.or_stricter(other)),
        };
    }
    // a refusal takes precedence over the 400 for readings that lead to different places
    if apart && result.is_ok() { Err(Verdict::Ambiguous("path")) } else { result }
}

/// The admission under one reading of the path, or why the request is not forwarded. It does not permit forwarding by
/// itself: see [`Approval`].
pub(super) fn under(
    config: &Config,
    reading: &Reading<'_, '_>,
    incoming: &Incoming<'_>,
    authentication: &Authentication,
) -> Result<Admission, Verdict> {
    let Some((index, route)) = reading.found else {
        return Err(Verdict::Status(StatusCode::NOT_FOUND));
    };
    // the request that a preflight announces must match this route, not an earlier one
    let asked = cors::preflight(incoming).and_then(|method| route::find(config, incoming, &reading.path, &method));
    let is_preflight = asked.is_some_and(|(at, _)| at == index);
    let authorized = match CorsAnswer::of_route(&route.cors, incoming) {
        CorsAnswer::Allowed(_) if is_preflight => return Err(Verdict::Preflight),
        CorsAnswer::App if is_preflight => authorize::preflight((index, route)),
        _ => {
            let own = || own_origins(config, incoming);
            authorize::authorize((index, route), incoming, &reading.path, incoming.method, authentication, own)
        }
    };
    let admission = authorized.map_err(|refusal| Verdict::Refuse(index, refusal))?;
    refused_by_override(config, incoming, &reading.path, authentication).map_or(Ok(admission), Err)
}

impl Verdict {
    /// The stricter of two verdicts; the first if they are equally strict.
    fn or_stricter(self, other: Self) -> Self {
        if other.strictness() > self.strictness() { other } else { self }
    }

    /// Whether it may be another for a caller with another identity.
    pub(crate) fn depends_on_identity(&self) -> bool {
        match self {
            Self::Forward(_) | Self::Refuse(..) => true,
            Self::Page(page) => page.depends_on_identity(),
            Self::Status(_) | Self::Ambiguous(_) | Self::Preflight | Self::ToHttps | Self::Loop => false,
        }
    }

    fn strictness(&self) -> u8 {
        match self {
            Self::Forward(_) => 0,
            Self::ToHttps | Self::Page(_) | Self::Preflight => 1,
            Self::Refuse(_, Refusal::SignedOut | Refusal::Unavailable) => 2,
            Self::Refuse(_, Refusal::CrossOrigin) => 3,
            Self::Refuse(_, Refusal::OutOfScope) => 4,
            Self::Refuse(_, Refusal::Forbidden) => 5,
            Self::Status(_) | Self::Loop => 6,
            Self::Ambiguous(_) => 7,
        }
    }
}

/// Limit on the further methods that one request may name: each is looked up.
const OVERRIDES_MAX: usize = 8;

/// A request that also names another method must be allowed under both. Otherwise an app that follows the override does
/// what the rules refuse for that method.
fn refused_by_override(
    config: &Config,
    incoming: &Incoming<'_>,
    path: &[u8],
    authentication: &Authentication,
) -> Option<Verdict> {
    if !second_method::may_be_named(incoming) {
        return None;
    }
    second_method::named(incoming).enumerate().find_map(|(at, method)| {
        if at == OVERRIDES_MAX {
            return Some(Verdict::Status(StatusCode::NOT_FOUND));
        }
        // no app follows an invalid method
        let method = method?;
        if normalize::is_never_served(&method) {
            return Some(Verdict::Status(StatusCode::NOT_FOUND));
        }
        refused_as(config, incoming, path, &method, authentication)
    })
}

/// How a request with this path and method would be refused, if at all.
fn refused_as(
    config: &Config,
    incoming: &Incoming<'_>,
    path: &[u8],
    method: &Method,
    authentication: &Authentication,
) -> Option<Verdict> {
    let Some(found) = route::find(config, incoming, path, method) else {
        return Some(Verdict::Status(StatusCode::NOT_FOUND));
    };
    let own = || own_origins(config, incoming);
    let refusal = authorize::authorize(found, incoming, path, method, authentication, own).err()?;
    Some(Verdict::Refuse(found.0, refusal))
}

/// Where COPY and MOVE write to (RFC 4918, 10.3).
pub(crate) static DESTINATION: HeaderName = HeaderName::from_static("destination");

/// A request that names a second path must be allowed there, too, under every reading. Otherwise an app that follows
/// the field writes where the rules refuse it. The host in the field is not trusted. Behind a stripped prefix, the app
/// may read the path as one of its own, so it must be allowed there as well. Under the common methods the field belongs
/// to the app.
fn refused_at_destination(
    config: &Config,
    admission: &Admission,
    incoming: &Incoming<'_>,
    authentication: &Authentication,
) -> Option<Verdict> {
    if !incoming.names.may_have(DESTINATION.as_str().as_bytes()) {
        return None;
    }
    let mut fields = incoming.headers.get_all(&DESTINATION).iter();
    let told = fields.next()?;
    if is_common(incoming.method) && second_method::named(incoming).flatten().all(|method| is_common(&method)) {
        return None;
    }
    let unreadable = Some(Verdict::Ambiguous("destination"));
    let Some(path) = destination::path_of(told.as_bytes()).filter(|_| fields.next().is_none()) else {
        return unreadable;
    };
    let route = &config.routes[admission.route()];
    let Ok(readings) = destination::readings(&path, &route.strip_prefix) else { return unreadable };
    let plain_alone = |path: &[u8]| {
        let there = route::find(config, incoming, path, incoming.method);
        there.map_or(config.server.paths, |(_, route)| route.paths) == Paths::Plain
    };
    if readings.several && (route.paths == Paths::Plain || readings.paths.iter().any(|path| plain_alone(path))) {
        return unreadable;
    }
    let refused = readings.paths.iter().filter_map(|path| {
        refused_as(config, incoming, path, incoming.method, authentication)
            .or_else(|| refused_by_override(config, incoming, path, authentication))
    });
    refused.reduce(Verdict::or_stricter)
}

/// A method that neither moves nor copies.
fn is_common(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::POST | Method::PUT | Method::PATCH | Method::DELETE | Method::OPTIONS
    )
}

/// With `session.domain`, login lives at `public_url`, whether or not a route names that host.
fn is_public_host(config: &Config, incoming: &Incoming<'_>) -> bool {
    incoming.host.name() == config.server.public_url.host()
}
