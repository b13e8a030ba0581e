//! What the TLS handshake of a client's connection showed: the name in its SNI and the certificate that it got.

use std::sync::Arc;

use crate::config::Certificate;

/// What is known of a connection from its TLS handshake.
#[derive(Debug)]
pub(crate) struct TlsInfo {
    /// The name that the client asked for, in lower case.
    pub(crate) name: Option<String>,
    /// What it was shown.
    pub(crate) certificate: Arc<Certificate>,
}

impl TlsInfo {
    /// Whether a request for this host belongs on the connection (RFC 9110, 7.4): the name that the handshake
    /// was for, or one that the same certificate covers. A client that sent no name may request all.
    pub(crate) fn covers(&self, host: &str) -> bool {
        self.name.as_deref().is_none_or(|name| name == host) || self.certificate.covers(host)
    }
}
