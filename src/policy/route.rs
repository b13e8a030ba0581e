//! Host and path -> the route that matches, under every reading of the path. First match wins; no match is 404.

use std::borrow::Cow;

use http::Method;

use super::cors::{self, CorsAnswer};
use crate::config::{Config, Paths, Route};
use crate::pages::{Page, Site};
use crate::web::incoming::Incoming;

/// A route and its index in the configuration.
pub(crate) type Found<'c> = Option<(usize, &'c Route)>;

/// One reading of the path, and the route that it matches.
#[derive(Debug)]
pub(crate) struct Reading<'a, 'c> {
    pub(crate) path: Cow<'a, [u8]>,
    pub(crate) found: Found<'c>,
}

/// Where a request leads.
#[derive(Debug)]
pub(crate) struct Routed<'a, 'c> {
    /// The gateway's own page that the path names.
    pub(crate) page: Option<Page>,
    /// The path as received.
    pub(crate) first: Reading<'a, 'c>,
    /// Other readings that a backend may use. Empty for a path in normal form.
    pub(crate) others: Vec<Reading<'a, 'c>>,
    /// Refused whatever the routes say: another spelling of one of the gateway's pages, more readings than are checked,
    /// or several where `paths` allows one.
    pub(crate) ambiguous: bool,
}

impl<'a, 'c> Routed<'a, 'c> {
    pub(crate) fn new(config: &'c Config, site: &Site, incoming: &'a Incoming<'_>) -> Self {
        let page = site.find(incoming.path.as_str());
        let read = |path: Cow<'a, [u8]>| {
            let found = if page.is_some() { None } else { find_asked(config, incoming, &path) };
            Reading { path, found }
        };
        let first = read(incoming.path.first());
        if incoming.path.is_plain() {
            return Self { page, first, others: Vec::new(), ambiguous: false };
        }
        let below = first.found.map_or(Ok(Vec::new()), |(_, route)| incoming.path.below(&route.strip_prefix));
        let others = incoming.path.others().iter().map(|path| read(Cow::Borrowed(path)));
        let too_many = below.is_err();
        let others = others.chain(below.unwrap_or_default().into_iter().map(|path| read(Cow::Owned(path)))).collect();
        let mut routed = Self { page, first, others, ambiguous: false };
        routed.ambiguous = too_many
            || page.is_some()
            || routed.readings().any(|reading| site.is_own(&reading.path) || reading.paths(config) == Paths::Plain);
        routed
    }

    /// Every reading, starting with the path as received.
    pub(crate) fn readings(&self) -> impl Iterator<Item = &Reading<'a, 'c>> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// What the response allows other origins: what all of the routes agree on.
    pub(crate) fn cors(&self, config: &Config, incoming: &Incoming<'_>) -> CorsAnswer {
        let of = |found: &Found<'_>| match found {
            Some((_, route)) => CorsAnswer::of_route(&route.cors, incoming),
            None => CorsAnswer::of(&config.cors_origins, incoming),
        };
        let first = of(&self.first.found);
        if self.others.iter().all(|other| of(&other.found) == first) { first } else { CorsAnswer::Others }
    }
}

impl Reading<'_, '_> {
    /// Which paths are allowed here.
    pub(crate) fn paths(&self, config: &Config) -> Paths {
        self.found.map_or(config.server.paths, |(_, route)| route.paths)
    }
}

/// The first route that matches this request with this path and method.
pub(crate) fn find<'c>(config: &'c Config, incoming: &Incoming<'_>, path: &[u8], method: &Method) -> Found<'c> {
    let index = config.routes.find(incoming.host, path, method)?;
    Some((index, &config.routes[index]))
}

/// The route that a request matches. For a preflight, the route of the request that it announces, if that route allows
/// the origin or leaves CORS to its app.
fn find_asked<'c>(config: &'c Config, incoming: &Incoming<'_>, path: &[u8]) -> Found<'c> {
    if let Some(method) = cors::preflight(incoming)
        && let Some(found) = find(config, incoming, path, &method)
        && matches!(CorsAnswer::of_route(&found.1.cors, incoming), CorsAnswer::App | CorsAnswer::Allowed(_))
    {
        return Some(found);
    }
    find(config, incoming, path, incoming.method)
}

/// A route's name in metrics: its methods, host and path.
pub(crate) fn name(route: &Route) -> String {
    let methods: Vec<&str> = route.methods.iter().map(Method::as_str).collect();
    let space = if methods.is_empty() { "" } else { " " };
    format!("{}{space}{}{}", methods.join(","), route.host, route.path.text)
}
