//! TLS to the server.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::StoreTls;
use crate::store::error::StoreError;
use crate::wire::server_verifier::MACHINE;

/// What makes TLS connections; `None`: there are to be none.
///
/// # Errors
/// [`StoreError::Unusable`]: this machine has no certificate authorities.
pub(super) fn connector(tls: &StoreTls) -> Result<Option<MakeRustlsConnect>, StoreError> {
    let config = match tls {
        StoreTls::Off => return Ok(None),
        StoreTls::Require => unverified(),
        StoreTls::VerifyFull { roots } => {
            let mut trusted = RootCertStore::empty();
            match MACHINE.as_ref() {
                Ok(machine) => trusted.roots.extend(machine.roots.iter().cloned()),
                Err(why) if roots.is_empty() => {
                    let what = format!("the store's server cannot be verified: this machine's CAs: {why}");
                    return Err(StoreError::Unusable(what));
                }
                Err(_) => {}
            }
            trusted.add_parsable_certificates(roots.iter().map(|root| root.certificate.clone()));
            client_config(|config| config.with_root_certificates(trusted).with_no_client_auth())
        }
    };
    let config = config.map_err(|error| StoreError::Unusable(format!("TLS to the store: {error}")))?;
    Ok(Some(MakeRustlsConnect::new(config)))
}

/// Whether a connection failed because of TLS, which no time mends.
pub(super) fn is_tls_fault(error: &tokio_postgres::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref)
            .is_some_and(<dyn std::error::Error + Send + Sync>::is::<rustls::Error>)
            || error.is::<rustls::Error>()
            // the driver has no type for it
            || error.to_string() == "server does not support TLS"
        {
            return true;
        }
        cause = error.source();
    }
    false
}

type Finish = rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>;

fn client_config(finish: impl FnOnce(Finish) -> ClientConfig) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(finish(ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?))
}

/// TLS with any certificate: protects from listeners, not from impostors.
fn unverified() -> Result<ClientConfig, rustls::Error> {
    let verifier = AnyServer(Arc::new(rustls::crypto::ring::default_provider()));
    client_config(|config| {
        config.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth()
    })
}

#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
