//! Whom https servers are believed by.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::crypto::ring;

use crate::config::Authority;
use crate::wire::server_verifier::ServerVerifier;

/// Verifies by these certificates, or by this machine's authorities if there are none. Without any authority every
/// connection fails.
pub(super) fn config(authorities: &[Authority]) -> Option<Arc<ClientConfig>> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(ServerVerifier::new(authorities, Arc::clone(&provider)));
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().ok()?;
    let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Some(Arc::new(config))
}
