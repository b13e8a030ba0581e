//! Which trailers pass. A recipient may merge them into the head (RFC 9110, 6.5.1), so a trailer passes only if it
//! could pass there, and if it does not frame, route or authenticate.

use http::{HeaderMap, HeaderName, header};

use super::decide::DESTINATION;
use super::header_filter::HeaderFilter;
use super::second_method;
use crate::config::Upstream;
use crate::wire::hop_by_hop::is_hop_by_hop_name;

/// Fields that do not belong in trailers, in either direction.
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

/// The trailers of a request that the server receives. Proxies write their fields in the head, so no peer is trusted
/// here. A second method or path in a trailer was not checked, so it is dropped.
pub(crate) fn to_server(trailers: HeaderMap, header_filter: &HeaderFilter, upstream: &Upstream) -> Option<HeaderMap> {
    let names_another = |name: &str| second_method::is_field(name) || name == DESTINATION;
    passing(trailers, |name| header_filter.passes(name, upstream, false) && !names_another(name))
}

/// The trailers of a response that the client receives.
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
