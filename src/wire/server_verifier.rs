//! Verifies the certificates of https servers that the gateway connects to: by the certificate authorities of this
//! machine, those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name, or certificates of the operator's own.

use std::sync::{Arc, LazyLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::config::Authority;

/// The authorities of this machine; or why no server can be verified here. The library would exit over it.
pub(crate) static MACHINE: LazyLock<Result<Arc<RootCertStore>, String>> = LazyLock::new(|| {
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

/// Trusts the given authorities, and servers whose own certificate is among them: some tools treat a self-signed
/// certificate as an authority and others do not, and it may contain no name.
#[derive(Debug)]
pub(crate) struct ServerVerifier {
    own: Vec<Authority>,
    /// `None`: there is no authority.
    authorities: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerVerifier {
    /// `own` replaces this machine's authorities; empty: these.
    pub(crate) fn new(own: &[Authority], provider: Arc<CryptoProvider>) -> Self {
        let roots = if own.is_empty() {
            MACHINE.as_ref().ok().cloned()
        } else {
            let mut roots = RootCertStore::empty();
            // a certificate that is no authority's belongs to one server
            roots.add_parsable_certificates(own.iter().map(|one| one.certificate.clone()));
            Some(Arc::new(roots))
        };
        let authorities =
            roots.and_then(|roots| WebPkiServerVerifier::builder_with_provider(roots, provider.clone()).build().ok());
        Self { own: own.to_vec(), authorities, provider }
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
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
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
