//! Whom servers with `https://` are believed by: the certificate authorities of this machine, those that `SSL_CERT_FILE`
//! and `SSL_CERT_DIR` name, or their upstream's own.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};

use pingora_core::connectors::TransportConnector;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorType, Result};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::SingleCertAndKey;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_rustls::TlsConnector;

use crate::config::{Authority, Config, Upstream, UpstreamProtocol, UpstreamServer, UpstreamTls};
use crate::wire::stream::{Stream, Transport};

/// The authorities of this machine; or why nobody can be believed here. The library would end the process over it.
static MACHINE: LazyLock<std::result::Result<Arc<RootCertStore>, String>> = LazyLock::new(|| {
    let found = match rustls_native_certs::load_native_certs() {
        Ok(found) if found.is_empty() => return Err("none found".to_owned()),
        Ok(found) => found,
        Err(e) => return Err(e.to_string()),
    };
    let mut store = RootCertStore::empty();
    for certificate in found {
        store.add(certificate).map_err(|e| e.to_string())?;
    }
    Ok(Arc::new(store))
});

/// Opens connections over TLS.
#[derive(Clone)]
pub(crate) struct Connector(Option<Arc<TransportConnector>>);

impl Connector {
    pub(crate) fn new() -> Self {
        Self(MACHINE.is_ok().then(|| Arc::new(TransportConnector::new(None))))
    }

    /// A connection whose other end is who it should be.
    pub(crate) async fn open(&self, peer: &HttpPeer) -> Result<Stream> {
        let Some(connector) = &self.0 else {
            let why = "no CA certificates on this machine";
            return Err(Error::explain(ErrorType::InvalidCert, why).into_up());
        };
        connector.new_stream(peer).await.map(Transport::TlsClient).map(Stream::new).map_err(Error::into_up)
    }
}

/// Says in the log when a configuration asks for what cannot be verified here.
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

/// How the servers of one upstream are verified that has keys of its own for it.
pub(crate) struct Trust {
    http1: Arc<ClientConfig>,
    /// The same, which offers HTTP/2.
    any: Arc<ClientConfig>,
    /// The name in the certificate, where it is not the one that a server is reached by.
    name: Option<ServerName<'static>>,
}

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trust").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Trust {
    /// `None`: this machine's authorities, and a server's own name.
    pub(crate) fn new(tls: &UpstreamTls) -> Option<Self> {
        if tls.is_default() {
            return None;
        }
        let provider = Arc::new(ring::default_provider());
        let verifier = Arc::new(Verifier::new(&tls.authorities, provider.clone()));
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

    /// A connection to a server that is reached by this name, or by its address alone.
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

/// Believes the authorities of an upstream, and servers whose own certificate stands among them: one that signed itself
/// is an authority to some tools and none to others, and may name nobody.
#[derive(Debug)]
struct Verifier {
    own: Vec<Authority>,
    /// `None`: nobody signs for anybody.
    authorities: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn new(own: &[Authority], provider: Arc<CryptoProvider>) -> Self {
        let roots = if own.is_empty() {
            MACHINE.as_ref().ok().cloned()
        } else {
            let mut roots = RootCertStore::empty();
            // what is no authority is one server's own
            roots.add_parsable_certificates(own.iter().map(|one| one.certificate.clone()));
            Some(Arc::new(roots))
        };
        let authorities =
            roots.and_then(|roots| WebPkiServerVerifier::builder_with_provider(roots, provider.clone()).build().ok());
        Self { own: own.to_vec(), authorities, provider }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        if let Some(own) = self.own.iter().find(|own| own.certificate == *end_entity) {
            let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
            return match own.holds {
                (from, _) if now < from => Err(CertificateError::NotValidYet.into()),
                (_, to) if now > to => Err(CertificateError::Expired.into()),
                _ => Ok(ServerCertVerified::assertion()),
            };
        }
        match &self.authorities {
            Some(authorities) => authorities.verify_server_cert(end_entity, intermediates, server_name, ocsp, now),
            None => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The key of `[[upstream]]` that helps against a failure of TLS.
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
