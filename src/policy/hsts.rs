//! Strict-Transport-Security (RFC 6797): whether responses carry it, and what it says.

use http::HeaderValue;

use crate::config::Config;
use crate::web::origin::Scheme;

/// Two years (RFC 6797, 6.1). Without `includeSubDomains`: subdomains may belong to another owner.
pub(crate) const HSTS: HeaderValue = HeaderValue::from_static("max-age=63072000");

/// Whether responses carry HSTS: those over TLS, if `public_url` is https.
pub(crate) fn sends_hsts(config: &Config, over_tls: bool) -> bool {
    over_tls && config.server.public_url.scheme() == Scheme::Https
}
