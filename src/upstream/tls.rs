//! Which certificate authorities verify `https://` servers: this machine's, those that `SSL_CERT_FILE` and
//! `SSL_CERT_DIR` name, or the upstream's own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pingora_core::connectors::TransportConnector;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorType, Result};
use rustls::ClientConfig;
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;
use tokio_rustls::TlsConnector;

use crate::config::{Config, Upstream, UpstreamProtocol, UpstreamServer, UpstreamTls};
use crate::wire::server_verifier::{MACHINE, ServerVerifier};
use crate::wire::stream::{self, Stream, Transport};

/// To reach a server, its TLS handshake included.
pub(super) const CONNECT: Duration = Duration::from_secs(3);

/// Opens connections over TLS.
#[derive(Clone)]
pub(crate) struct Connector(Option<Arc<TransportConnector>>);

impl Connector {
    pub(crate) fn new() -> Self {
        Self(MACHINE.is_ok().then(|| Arc::new(TransportConnector::new(None))))
    }

    /// A connection to a server that proves to have this name, within [`CONNECT`].
    pub(crate) async fn open(&self, address: SocketAddr, name: &str, offers_h2: bool) -> Result<Stream> {
        let Some(connector) = &self.0 else {
            let why = "no CA certificates on this machine";
            return Err(Error::explain(ErrorType::InvalidCert, why).into_up());
        };
        let mut peer = HttpPeer::new(address, true, name.to_owned());
        // reads and writes have deadlines of ours
        peer.options.total_connection_timeout = Some(CONNECT);
        peer.options.tcp_keepalive = Some(stream::keepalive());
        if offers_h2 {
            peer.options.set_http_version(2, 1);
        }
        connector.new_stream(&peer).await.map(Transport::TlsClient).map(Stream::new).map_err(Error::into_up)
    }
}

/// Logs an error if a configuration requires CA certificates that this machine does not have.
pub(crate) fn tell(config: &Config) {
    let over_tls =
        |server: &UpstreamServer| matches!(server, UpstreamServer::Tcp { protocol: UpstreamProtocol::Https, .. });
    let asking = |upstream: &&Upstream| upstream.tls.authorities.is_empty() && upstream.servers.iter().any(over_tls);
    let asking = config.upstreams.iter().find(asking);
    if let (Some(upstream), Err(error)) = (asking, &*MACHINE) {
        let upstream = upstream.name.as_str();
        tracing::error!(
            upstream,
            error,
            "no CA certificates found, https upstreams cannot be verified: install ca-certificates, or set SSL_CERT_FILE"
        );
    }
}

/// How the servers of an upstream with TLS settings of its own are verified.
pub(crate) struct Trust {
    http1: Arc<ClientConfig>,
    /// The same, offering HTTP/2.
    any: Arc<ClientConfig>,
    /// The name in the certificate, if it differs from the one that a server is reached by.
    name: Option<ServerName<'static>>,
}

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trust").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Trust {
    /// `None`: this machine's CA certificates, and the server's own name.
    pub(crate) fn new(tls: &UpstreamTls) -> Option<Self> {
        if tls.is_default() {
            return None;
        }
        let provider = Arc::new(ring::default_provider());
        let verifier = Arc::new(ServerVerifier::new(&tls.authorities, provider.clone()));
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().ok()?;
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        let mut config = match &tls.client {
            Some(own) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own.clone()))),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let http1 = Arc::new(config.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Some(Self { http1, any: Arc::new(config), name: tls.server_name.clone() })
    }

    /// A connection to a server that is reached by this name, or only by its address.
    pub(crate) async fn open(&self, address: SocketAddr, name: &str, offers_h2: bool) -> Result<Stream> {
        let name = match &self.name {
            Some(name) => name.clone(),
            None if name.is_empty() => ServerName::from(address.ip()),
            None => ServerName::try_from(name.to_owned()).unwrap_or(ServerName::from(address.ip())),
        };
        let Transport::Tcp(stream) = Stream::connect(address).await.map(Stream::into_transport).map_err(|e| {
            let refused = e.kind() == std::io::ErrorKind::ConnectionRefused;
            let kind = if refused { ErrorType::ConnectRefused } else { ErrorType::ConnectError };
            Error::because(kind, "connecting", e).into_up()
        })?
        else {
            return Err(Error::explain(ErrorType::ConnectError, "not a TCP connection").into_up());
        };
        let config = if offers_h2 { &self.any } else { &self.http1 };
        let stream = TlsConnector::from(config.clone()).connect(name, stream).await;
        stream
            .map(|stream| Stream::new(Transport::Verified(Box::new(stream))))
            .map_err(|e| Error::because(ErrorType::TLSHandshakeFailure, "TLS", e).into_up())
    }
}

/// The setting in `[[upstream]]` that helps against a TLS failure.
pub(crate) fn remedy(cause: &str) -> Option<&'static str> {
    const REMEDIES: [(&str, &str); 8] = [
        ("UnknownIssuer", "set the upstream's `ca` to the CA that signed it, or to its own certificate"),
        ("CaUsedAsEndEntity", "the certificate is self-signed: set the upstream's `ca` to it"),
        ("BadSignature", "another CA of the same name signed it: set the upstream's `ca` to the right one"),
        ("not valid for name", "set the upstream's `server_name` to a name in the certificate"),
        ("CertificateRequired", "the server requires one: set the upstream's `client_certificate`"),
        ("alert: UnknownCA", "the server does not trust the CA of the upstream's `client_certificate`"),
        ("alert: BadCertificate", "the server rejects the upstream's `client_certificate`"),
        ("alert: DecryptError", "the server rejects the upstream's `client_certificate`"),
    ];
    REMEDIES.iter().find(|(mark, _)| cause.contains(mark)).map(|(_, remedy)| *remedy)
}
