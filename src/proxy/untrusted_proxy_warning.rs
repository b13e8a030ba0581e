//! Warns of a proxy in front whose headers are ignored, because it is not trusted or `public_url` is not https. The
//! symptoms in a browser do not show the cause: endless redirects, cookies that are not Secure, one address for all
//! clients. The warning is logged once per configuration, and only for peers in private networks: any other client can
//! send such headers.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::policy::normalize::{self, Peer};
use crate::policy::reasons::Reason;
use crate::web::incoming::Incoming;
use crate::web::origin::{Origin, Scheme};

/// Why a request counts as one over plain http, where a proxy may be at fault.
pub(super) fn why_plain(incoming: &Incoming<'_>, peer: Peer) -> Option<Reason> {
    match (peer.trusted, says_https(incoming)) {
        (false, true) => Some(Reason::UntrustedForwardedProto),
        (true, false) => Some(Reason::MissingForwardedProto),
        _ => None,
    }
}

/// Called only on rare paths: for the gateway's own pages and for redirects to https. `warned` records that the warning
/// was logged.
pub(super) fn warn(public_url: &Origin, warned: &AtomicBool, incoming: &Incoming<'_>, peer: Peer) {
    if !says_https(incoming) || !peer.address.is_none_or(is_private_address) {
        return;
    }
    let remedy = match (peer.trusted, public_url.scheme()) {
        (true, Scheme::Https) => return,
        (true, Scheme::Http) => {
            "trusted proxy uses https, public_url does not: cookies are not Secure until public_url is https"
        }
        (false, _) => {
            "X-Forwarded-Proto from an untrusted proxy ignored: if the proxy is yours, add its address to trusted_proxies"
        }
    };
    if !warned.swap(true, Ordering::Relaxed) {
        let peer = peer.address.map_or_else(|| "unix".to_owned(), |address| address.to_string());
        tracing::warn!(peer, %public_url, "{remedy}");
    }
}

fn says_https(incoming: &Incoming<'_>) -> bool {
    normalize::says_https(incoming.headers)
}

/// Loopback, or an address that is routed nowhere else (RFC 1918, RFC 4193).
fn is_private_address(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local(),
    }
}
