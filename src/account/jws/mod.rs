//! Signatures of JWTs: ring as jsonwebtoken's crypto provider. Claims and times are checked by those who read the token,
//! never by jsonwebtoken, which reads the system clock.

use std::sync::Once;

use jsonwebtoken::crypto::{CryptoProvider, KeyUtils};

mod sign;
mod verify;

pub(crate) use sign::{ed25519, p256, rsa};

/// Installs ring as the provider of this process; idempotent.
pub(crate) fn install_provider() {
    static ONCE: Once = Once::new();
    static ON_RING: CryptoProvider = CryptoProvider {
        signer_factory: |algorithm, key| sign::signer(*algorithm, key),
        verifier_factory: |algorithm, key| verify::verifier(*algorithm, key),
        key_utils: KeyUtils::new_unimplemented(),
    };
    ONCE.call_once(|| {
        let _ = ON_RING.install_default();
    });
}
