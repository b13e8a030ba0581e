//! Whom servers with `https://` are believed by: the certificate authorities of this machine, or those that
//! `SSL_CERT_FILE` and `SSL_CERT_DIR` name.

use std::sync::{Arc, LazyLock};

use pingora_core::connectors::TransportConnector;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorType, Result};
use rustls::RootCertStore;

use super::front::wire::Wire;
use crate::config::{Config, UpstreamProtocol, UpstreamServer};

/// Why nobody can be believed here, if so. The library would end the process over it.
static NOBODY: LazyLock<Option<String>> = LazyLock::new(|| {
    let found = match rustls_native_certs::load_native_certs() {
        Ok(found) if found.is_empty() => return Some("there are none".to_owned()),
        Ok(found) => found,
        Err(e) => return Some(e.to_string()),
    };
    let mut store = RootCertStore::empty();
    found.into_iter().find_map(|certificate| store.add(certificate).err()).map(|e| e.to_string())
});

/// Opens connections over TLS.
#[derive(Clone)]
pub(crate) struct Connector(Option<Arc<TransportConnector>>);

impl Connector {
    pub(crate) fn new() -> Self {
        Self(NOBODY.is_none().then(|| Arc::new(TransportConnector::new(None))))
    }

    /// A connection whose other end is who it should be.
    pub(crate) async fn open(&self, peer: &HttpPeer) -> Result<Wire> {
        let Some(connector) = &self.0 else {
            let why = "no certificate authorities on this machine";
            return Err(Error::explain(ErrorType::InvalidCert, why).into_up());
        };
        connector.new_stream(peer).await.map(Wire::Tls).map_err(Error::into_up)
    }
}

/// Says in the log when a configuration asks for what cannot be verified here.
pub(super) fn tell(config: &Config) {
    let over_tls =
        |server: &UpstreamServer| matches!(server, UpstreamServer::Tcp { protocol: UpstreamProtocol::Https, .. });
    let asking = config.upstreams.iter().find(|upstream| upstream.servers.iter().any(over_tls));
    if let (Some(upstream), Some(error)) = (asking, &*NOBODY) {
        let upstream = upstream.name.as_str();
        tracing::error!(
            upstream,
            error,
            "no https server can be verified: install the certificate authorities (ca-certificates), or name a file of them in SSL_CERT_FILE"
        );
    }
}
