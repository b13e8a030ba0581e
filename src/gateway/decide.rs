//! One request -> one verdict. No await, no disk, no pingora: `check` asks the same function.

use http::{HeaderName, Method, StatusCode};

use super::authenticate::Authentication;
use super::authorize::{self, Admission, Refusal};
use super::cors::{self, CorsAnswer};
use super::{head, route, second_method};
use crate::config::{Config, Route};
use crate::pages::{Page, guard};
use crate::web::incoming::Incoming;
use crate::web::origin::{Origin, Scheme};
use crate::web::path::NormalPath;

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
    /// A preflight of an origin that may: 204.
    Preflight,
    /// `public_url` is https and the client came over plain http: 308 to it.
    ToHttps,
}

/// The origins that are ours for this request.
pub(crate) fn own_origins(config: &Config, incoming: &Incoming<'_>) -> [Origin; 2] {
    guard::own_origins(&config.server.public_url, config.session.domain.as_deref(), incoming)
}

/// The route that takes a request; of a preflight, the one that takes what it asks for, if answers for
/// other origins are told of there.
pub(crate) fn find_route<'c>(config: &'c Config, incoming: &Incoming<'_>) -> Option<(usize, &'c Route)> {
    if let Some(method) = cors::preflight(incoming)
        && let Some(found) = route::find(config, incoming, &method)
        && matches!(CorsAnswer::of_route(&found.1.cors, incoming), CorsAnswer::App | CorsAnswer::Allowed(_))
    {
        return Some(found);
    }
    route::find(config, incoming, incoming.method)
}

/// Judges a request in normal form; `page` is the page of ours that its path names, if it names one,
/// `found` the route that takes it.
pub(crate) fn decide(
    config: &Config,
    page: Option<Page>,
    found: Option<(usize, &Route)>,
    incoming: &Incoming<'_>,
    authentication: &Authentication,
) -> Verdict {
    if config.server.public_url.scheme() == Scheme::Https && incoming.scheme == Scheme::Http {
        return Verdict::ToHttps;
    }
    if let Some(page) = page {
        if !config.routes.know_host(incoming.host) && !is_public_host(config, incoming) {
            return Verdict::Status(StatusCode::NOT_FOUND);
        }
        let asks = cors::preflight(incoming).is_some();
        let allowed = asks && matches!(CorsAnswer::of(&config.cors_origins, incoming), CorsAnswer::Allowed(_));
        return if allowed { Verdict::Preflight } else { Verdict::Page(page) };
    }
    let Some((index, route)) = found else {
        return Verdict::Status(StatusCode::NOT_FOUND);
    };
    // what is asked for must be this route's to answer, not another's that stands before it
    let asked = cors::preflight(incoming).and_then(|method| route::find(config, incoming, &method));
    let is_preflight = asked.is_some_and(|(at, _)| at == index);
    let judged = match CorsAnswer::of_route(&route.cors, incoming) {
        CorsAnswer::Allowed(_) if is_preflight => return Verdict::Preflight,
        CorsAnswer::App if is_preflight => authorize::preflight((index, route)),
        _ => {
            let own = || own_origins(config, incoming);
            authorize::authorize((index, route), incoming, incoming.method, authentication, own)
        }
    };
    match judged {
        Ok(admission) => refused_by_override(config, incoming, authentication)
            .or_else(|| refused_at_destination(config, route, incoming, authentication))
            .unwrap_or(Verdict::Forward(admission)),
        Err(refusal) => Verdict::Refuse(index, refusal),
    }
}

/// Methods that one request may name besides its own: each is looked up.
const OVERRIDES_MAX: usize = 8;

/// A request that names another method, too, must be let in under both: else an app that obeys it does what the rules
/// for that method refuse.
fn refused_by_override(config: &Config, incoming: &Incoming<'_>, authentication: &Authentication) -> Option<Verdict> {
    second_method::named(incoming).enumerate().find_map(|(at, method)| {
        if at == OVERRIDES_MAX {
            return Some(Verdict::Status(StatusCode::NOT_FOUND));
        }
        // what is no method is nobody's
        let method = method?;
        if head::is_never_served(&method) {
            return Some(Verdict::Status(StatusCode::NOT_FOUND));
        }
        let Some(found) = route::find(config, incoming, &method) else {
            return Some(Verdict::Status(StatusCode::NOT_FOUND));
        };
        let own = || own_origins(config, incoming);
        let refusal = authorize::authorize(found, incoming, &method, authentication, own).err()?;
        Some(Verdict::Refuse(found.0, refusal))
    })
}

/// Where COPY and MOVE put what they are asked for (RFC 4918, 10.3).
pub(super) static DESTINATION: HeaderName = HeaderName::from_static("destination");

/// A request that names a second path must be let in there, too: else an app that obeys the field writes where the
/// rules for that path refuse it. The host that it names with it is not believed. Behind a prefix that is cut off, the
/// app may read it as one of its own paths: then it must be let in there as well. Under the common methods the field is
/// an app's own.
fn refused_at_destination(
    config: &Config,
    route: &Route,
    incoming: &Incoming<'_>,
    authentication: &Authentication,
) -> Option<Verdict> {
    let mut fields = incoming.headers.get_all(&DESTINATION).iter();
    let told = fields.next()?;
    if is_common(incoming.method) && second_method::named(incoming).flatten().all(|method| is_common(&method)) {
        return None;
    }
    let unread = Some(Verdict::Status(StatusCode::NOT_FOUND));
    let Some(path) = path_of(told.as_bytes()).filter(|_| fields.next().is_none()) else { return unread };
    let prefix = route.strip_prefix.as_bytes();
    let inside = (!prefix.is_empty()).then(|| [prefix, path].concat());
    std::iter::once(path).chain(inside.as_deref()).find_map(|path| {
        let Ok(path) = NormalPath::parse(path) else { return Some(Verdict::Status(StatusCode::NOT_FOUND)) };
        let there = Incoming { path, query: None, ..incoming.clone() };
        let Some(found) = route::find(config, &there, there.method) else {
            return Some(Verdict::Status(StatusCode::NOT_FOUND));
        };
        let own = || own_origins(config, incoming);
        let refusal = authorize::authorize(found, &there, there.method, authentication, own).err();
        let refused = refusal.map(|refusal| Verdict::Refuse(found.0, refusal));
        refused.or_else(|| refused_by_override(config, &there, authentication))
    })
}

/// A method that moves and copies nothing.
fn is_common(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::POST | Method::PUT | Method::PATCH | Method::DELETE | Method::OPTIONS
    )
}

/// The path of a path or an absolute address.
fn path_of(address: &[u8]) -> Option<&[u8]> {
    let end = memchr::memchr2(b'?', b'#', address).unwrap_or(address.len());
    let address = &address[..end];
    if address.first() == Some(&b'/') {
        return Some(address);
    }
    let authority = memchr::memmem::find(address, b"://")? + 3;
    memchr::memchr(b'/', &address[authority..]).map(|at| &address[authority + at..])
}

/// With `session.domain`, login lives at `public_url`, whether or not a route names that host.
fn is_public_host(config: &Config, incoming: &Incoming<'_>) -> bool {
    incoming.host.name() == config.server.public_url.host()
}
