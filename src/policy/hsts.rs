//! Strict-Transport-Security (RFC 6797): whether responses carry it, and what it says.

use http::HeaderValue;

use crate::config::Config;
use crate::web::origin::Scheme;

/// Two years (RFC 6797, 6.1). Hosts below this one may be somebody else's: they are not spoken for.
pub(crate) const HSTS: HeaderValue = HeaderValue::from_static("max-age=63072000");

/// Whether answers tell browsers never to come over plain http again: those over TLS do, once browsers use
/// nothing else.
pub(crate) fn sends_hsts(config: &Config, over_tls: bool) -> bool {
    over_tls && config.server.public_url.scheme() == Scheme::Https
}
