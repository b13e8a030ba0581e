//! One request -> one verdict. No await, no disk: live requests, open sockets after a reload, `check` and `explain` all
//! call [`decide`].

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

/// What is to be done with a request.
#[derive(Debug)]
#[must_use]
pub(crate) enum Verdict {
    /// Hand it to the upstream.
    Forward(Admission),
    /// One of our own pages or endpoints answers.
    Page(Page),
    /// The route (by index) refuses it.
    Refuse(usize, Refusal),
    /// A status alone: no route, or no such host.
    Status(StatusCode),
    /// 400: what is named can be read in several ways that do not lead to the same place, or not at all.
    Ambiguous(&'static str),
    /// A preflight of an origin that may: 204.
    Preflight,
    /// `public_url` is https and the client came over plain http: 308 to it.
    ToHttps,
    /// The request came back to the gateway that had forwarded it: 508.
    Loop,
}

/// The configuration that requests are judged by.
#[derive(Clone, Copy)]
pub(crate) struct Rules<'c> {
    pub(crate) config: &'c Config,
    pub(crate) site: &'c Site,
    /// What this gateway names itself in `X-Authgate-Via`.
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

/// Routes, authenticates and decides. `can_switch`: the connection could be switched to another protocol.
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
    // an ambiguous path is one request, never a tunnel
    let upgrade = route
        .filter(|_| can_switch && routed.others.is_empty())
        .and_then(|route| websocket_credentials::asked_protocol(&route.upgrade, incoming));
    let authentication = authenticate(handshake.as_ref().map_or(&[][..], |handshake| &handshake.tokens));
    let verdict = verdict_of(rules.config, &routed, incoming, &authentication);
    Decided { routed, cors, handshake, upgrade, authentication, verdict }
}

/// The origins that are ours for this request.
pub(crate) fn own_origins(config: &Config, incoming: &Incoming<'_>) -> [Origin; 2] {
    guard::own_origins(&config.server.public_url, config.session.domain.as_deref(), incoming)
}

/// Judges a request, whose path leads as `routed` says. It is forwarded only if it is under every reading of its path, else
/// refused as the strictest reading refuses it.
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
    let verdict = under_all(config, routed, incoming, authentication);
    if let Verdict::Forward(admission) = &verdict
        && let Some(refused) = refused_at_destination(config, admission, incoming, authentication)
    {
        return refused;
    }
    verdict
}

fn under_all(
    config: &Config,
    routed: &Routed<'_, '_>,
    incoming: &Incoming<'_>,
    authentication: &Authentication,
) -> Verdict {
    let mut verdict = under(config, &routed.first, incoming, authentication);
    let mut apart = false;
    for reading in &routed.others {
        verdict = match (verdict, under(config, reading, incoming, authentication)) {
            (Verdict::Forward(admission), Verdict::Forward(other)) => {
                let both = admission.clone().also(&other, config, incoming.is_websocket);
                apart |= both.is_none();
                Verdict::Forward(both.unwrap_or(admission))
            }
            (verdict, other) => verdict.or_stricter(other),
        };
    }
    // a refusal says more than that they differ
    if apart && matches!(verdict, Verdict::Forward(_)) { Verdict::Ambiguous("path") } else { verdict }
}

/// Judges a request under one reading of its path.
pub(crate) fn under(
    config: &Config,
    reading: &Reading<'_, '_>,
    incoming: &Incoming<'_>,
    authentication: &Authentication,
) -> Verdict {
    let Some((index, route)) = reading.found else {
        return Verdict::Status(StatusCode::NOT_FOUND);
    };
    // what is asked for must be this route's to answer, not another's that stands before it
    let asked = cors::preflight(incoming).and_then(|method| route::find(config, incoming, &reading.path, &method));
    let is_preflight = asked.is_some_and(|(at, _)| at == index);
    let judged = match CorsAnswer::of_route(&route.cors, incoming) {
        CorsAnswer::Allowed(_) if is_preflight => return Verdict::Preflight,
        CorsAnswer::App if is_preflight => authorize::preflight((index, route)),
        _ => {
            let own = || own_origins(config, incoming);
            authorize::authorize((index, route), incoming, &reading.path, incoming.method, authentication, own)
        }
    };
    match judged {
        Ok(admission) => {
            refused_by_override(config, incoming, &reading.path, authentication).unwrap_or(Verdict::Forward(admission))
        }
        Err(refusal) => Verdict::Refuse(index, refusal),
    }
}

impl Verdict {
    /// The one of the two that lets fewer people through.
    fn or_stricter(self, other: Self) -> Self {
        if other.strictness() > self.strictness() { other } else { self }
    }

    fn strictness(&self) -> u8 {
        match self {
            Self::Forward(_) => 0,
            Self::ToHttps | Self::Page(_) | Self::Preflight => 1,
            Self::Refuse(_, Refusal::SignedOut) => 2,
            Self::Refuse(_, Refusal::CrossOrigin) => 3,
            Self::Refuse(_, Refusal::OutOfScope) => 4,
            Self::Refuse(_, Refusal::Forbidden) => 5,
            Self::Status(_) | Self::Loop => 6,
            Self::Ambiguous(_) => 7,
        }
    }
}

/// Methods that one request may name besides its own: each is looked up.
const OVERRIDES_MAX: usize = 8;

/// A request that names another method, too, must be let in under both: else an app that obeys it does what the rules
/// for that method refuse.
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
        // what is no method is nobody's
        let method = method?;
        if normalize::is_never_served(&method) {
            return Some(Verdict::Status(StatusCode::NOT_FOUND));
        }
        refused_as(config, incoming, path, &method, authentication)
    })
}

/// How a request is refused that is taken for one with this path and method.
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

/// Where COPY and MOVE put what they are asked for (RFC 4918, 10.3).
pub(crate) static DESTINATION: HeaderName = HeaderName::from_static("destination");

/// A request that names a second path must be let in there, too, under every reading: else an app that obeys the field
/// writes where the rules for that path refuse it. The host that it names with it is not believed. Behind a prefix that
/// is cut off, the app may read it as one of its own paths: then it must be let in there as well. Under the common
/// methods the field is an app's own.
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

/// A method that moves and copies nothing.
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
