//! Trailers on their way. Whoever gets them may merge them into the head (RFC 9110, 6.5.1), so nothing passes that
//! could not pass there, nor what frames, routes or authenticates.

use http::{HeaderMap, HeaderName, header};

use super::decide::DESTINATION;
use super::header_filter::HeaderFilter;
use super::second_method;
use crate::config::Upstream;
use crate::wire::hop_by_hop::is_hop_by_hop_name;

/// Fields that have no place behind a body, either way.
const UNFIT: [HeaderName; 15] = [
    header::AUTHORIZATION,
    header::CACHE_CONTROL,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::COOKIE,
    header::EXPECT,
    header::HOST,
    header::LOCATION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::RANGE,
    header::SET_COOKIE,
    header::WWW_AUTHENTICATE,
];

/// What a server gets of a request's trailers. What proxies say stands in heads: here nobody is trusted. Another method
/// or path was not judged.
pub(crate) fn to_server(trailers: HeaderMap, header_filter: &HeaderFilter, upstream: &Upstream) -> Option<HeaderMap> {
    let names_another = |name: &str| second_method::is_field(name) || name == DESTINATION;
    passing(trailers, |name| header_filter.passes(name, upstream, false) && !names_another(name))
}

/// What a client gets of an answer's.
pub(crate) fn to_client(trailers: HeaderMap) -> Option<HeaderMap> {
    passing(trailers, |name| !name.starts_with("access-control-"))
}

fn passing(mut trailers: HeaderMap, passes: impl Fn(&str) -> bool) -> Option<HeaderMap> {
    let is_fit = |name: &&HeaderName| !UNFIT.contains(name) && !is_hop_by_hop_name(name);
    let doomed: Vec<HeaderName> =
        trailers.keys().filter(|name| !is_fit(name) || !passes(name.as_str())).cloned().collect();
    for name in doomed {
        trailers.remove(name);
    }
    (!trailers.is_empty()).then_some(trailers)
}
