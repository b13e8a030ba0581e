//! Host and path in normal form -> the route that takes them. First match wins; no match is 404.

use http::Method;

use crate::config::{Config, Route};
use crate::web::host::Host;
use crate::web::incoming::Incoming;

/// The first route that takes this request with this method, and its place in the configuration.
pub(crate) fn find<'c>(config: &'c Config, incoming: &Incoming<'_>, method: &Method) -> Option<(usize, &'c Route)> {
    let path = incoming.path.decoded();
    config.routes.iter().enumerate().find(|(_, route)| {
        takes_method(route, method) && route.host.matches(incoming.host) && route.path.matches(&path)
    })
}

/// Whether any route names this host: only there do the gateway's own pages stand.
pub(crate) fn knows_host(config: &Config, host: &Host) -> bool {
    config.routes.iter().any(|route| route.host.matches(host))
}

/// HEAD goes where GET goes (RFC 9110, 9.3.2).
fn takes_method(route: &Route, method: &Method) -> bool {
    route.methods.is_empty()
        || route.methods.contains(method)
        || (method == Method::HEAD && route.methods.contains(&Method::GET))
}
