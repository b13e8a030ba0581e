//! Host and path in normal form -> the route that takes them. First match wins; no match is 404.

use http::Method;

use crate::config::{Config, Route};
use crate::web::incoming::Incoming;

/// The first route that takes this request with this method, and its place in the configuration.
pub(crate) fn find<'c>(config: &'c Config, incoming: &Incoming<'_>, method: &Method) -> Option<(usize, &'c Route)> {
    let index = config.routes.find(incoming.host, &incoming.path.decoded(), method)?;
    Some((index, &config.routes[index]))
}

/// What a route is called in metrics: the methods, host and path that it takes.
pub(crate) fn name(route: &Route) -> String {
    let methods: Vec<&str> = route.methods.iter().map(Method::as_str).collect();
    let space = if methods.is_empty() { "" } else { " " };
    format!("{}{space}{}{}", methods.join(","), route.host, route.path.text)
}
