//! One request -> one verdict. No await, no disk, no pingora: `check` asks the same function.

use http::StatusCode;

use super::authenticate::Authentication;
use super::authorize::{self, Admission, Refusal};
use super::route;
use crate::config::Config;
use crate::pages::Page;
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
    /// `public_url` is https and the client came over plain http: 308 to it.
    ToHttps,
}

/// The origins that are ours for this request: the one it came to, and `public_url`.
pub(crate) fn own_origins(config: &Config, incoming: &Incoming<'_>) -> [Origin; 2] {
    [incoming.origin(), config.server.public_url.clone()]
}

/// Judges a request in normal form; `page` is the page of ours that its path names, if it names one.
pub(crate) fn decide(
    config: &Config,
    page: Option<Page>,
    incoming: &Incoming<'_>,
    authentication: &Authentication,
) -> Verdict {
    if config.server.public_url.scheme() == Scheme::Https && incoming.scheme == Scheme::Http {
        return Verdict::ToHttps;
    }
    if let Some(page) = page {
        return if route::knows_host(config, incoming.host) || is_public_host(config, incoming) {
            Verdict::Page(page)
        } else {
            Verdict::Status(StatusCode::NOT_FOUND)
        };
    }
    let Some((index, route)) = route::find(config, incoming) else {
        return Verdict::Status(StatusCode::NOT_FOUND);
    };
    let own = own_origins(config, incoming);
    match authorize::authorize((index, route), incoming, authentication, &own) {
        Ok(admission) => Verdict::Forward(admission),
        Err(refusal) => Verdict::Refuse(index, refusal),
    }
}

/// With `session.domain`, login lives at `public_url`, whether or not a route names that host.
fn is_public_host(config: &Config, incoming: &Incoming<'_>) -> bool {
    incoming.host.name() == config.server.public_url.host()
}
