//! Keys that sign backend tokens: created, published as JWKs, rotated.

use std::sync::Arc;

use data_encoding::BASE64URL_NOPAD as B64;
use jsonwebtoken::{Algorithm, EncodingKey};
use parking_lot::RwLock;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::account::ids::new_kid;
use crate::account::jws;
use crate::account::secrets_at_rest::{OpenKey, PlainKey};
use crate::clock::UnixSecs;
use crate::config::{Config, TokenKey};
use crate::secret::NoRandomness;

/// How long a retired key stays published, seconds: at least as long as the last token it signed (`token.lifetime`).
pub(crate) const PUBLISHED_SECS: u64 = 86_400 + KNOWN_SECS;
/// How long a new key is published before it signs, seconds: backends cache jwks.json for a minute (`Cache-Control`),
/// and their libraries refetch for an unknown key no more often than that.
const KNOWN_SECS: u64 = 120;
/// A key that signs backend tokens.
pub(crate) struct SigningKey {
    pub(crate) kid: String,
    pub(crate) algorithm: Algorithm,
    pub(crate) sign: EncodingKey,
    public: Value,
    created: UnixSecs,
    retired: Option<UnixSecs>,
}

/// All signing keys, newest first.
#[derive(Default)]
pub(crate) struct SigningKeys(RwLock<Vec<Arc<SigningKey>>>);

impl SigningKeys {
    /// Applies the keys of the store.
    pub(crate) fn apply(&self, rows: &[OpenKey]) {
        jws::install_provider();
        let mut keys: Vec<_> = rows.iter().filter_map(read_key).map(Arc::new).collect();
        keys.sort_by_key(|key| (key.retired.is_some(), u64::MAX - key.created));
        let mut held = self.0.write();
        for key in &mut keys {
            // keep the identity of unchanged keys: tokens that they signed stay valid
            if let Some(old) = held.iter().find(|old| old.kid == key.kid && old.retired == key.retired) {
                *key = Arc::clone(old);
            }
        }
        *held = keys;
    }

    /// The newest key that backends can know by now. The very first key signs immediately.
    pub(crate) fn signing(&self, algorithm: Algorithm, now: UnixSecs) -> Option<Arc<SigningKey>> {
        let keys = self.0.read();
        let own = || keys.iter().filter(|key| key.algorithm == algorithm && key.is_published(now));
        let known = own().find(|key| now >= key.created.saturating_add(KNOWN_SECS));
        known.or_else(|| own().find(|key| key.retired.is_none())).cloned()
    }

    pub(crate) fn published(&self, now: UnixSecs) -> Value {
        let keys = self.0.read();
        json!({ "keys": keys.iter().filter(|key| key.is_published(now)).map(|key| &key.public).collect::<Vec<_>>() })
    }
}

impl SigningKey {
    fn is_published(&self, now: UnixSecs) -> bool {
        self.retired.is_none_or(|at| now < at.saturating_add(PUBLISHED_SECS))
    }
}

/// Reads a stored key, with its public half as a JWK (RFC 7518, 6.2; RFC 8037, 2).
fn read_key(row: &OpenKey) -> Option<SigningKey> {
    let (algorithm, sign, mut public) = match row.algorithm.as_str() {
        "EdDSA" => {
            let pair = jws::ed25519(&row.secret).ok()?;
            let x = B64.encode(pair.public_key().as_ref());
            (Algorithm::EdDSA, EncodingKey::from_ed_der(&row.secret), json!({ "kty": "OKP", "crv": "Ed25519", "x": x }))
        }
        "ES256" => {
            let pair = jws::p256(&row.secret).ok()?;
            // uncompressed point: 4, x, y
            let (x, y) = pair.public_key().as_ref().get(1..65)?.split_at(32);
            let public = json!({ "kty": "EC", "crv": "P-256", "x": B64.encode(x), "y": B64.encode(y) });
            (Algorithm::ES256, EncodingKey::from_ec_der(&row.secret), public)
        }
        _ => return None,
    };
    public["kid"] = row.kid.clone().into();
    public["alg"] = row.algorithm.clone().into();
    public["use"] = "sig".into();
    Some(SigningKey { kid: row.kid.clone(), algorithm, sign, public, created: row.created, retired: row.retired })
}

/// A new key of this algorithm.
pub(crate) fn new_key(algorithm: &str) -> Result<PlainKey, NoRandomness> {
    let random = SystemRandom::new();
    let (algorithm, document) = match algorithm {
        "ES256" => ("ES256", EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random)),
        _ => ("EdDSA", Ed25519KeyPair::generate_pkcs8(&random)),
    };
    let secret = Zeroizing::new(document.map_err(|_| NoRandomness)?.as_ref().to_vec());
    Ok(PlainKey { algorithm, kid: new_kid()?, secret })
}

/// The algorithms for which a configuration needs keys.
pub(crate) fn algorithms(config: &Config) -> Vec<&'static str> {
    let wanted = |key: &TokenKey| match key {
        TokenKey::Shared(_) => None,
        TokenKey::Ed25519 => Some("EdDSA"),
        TokenKey::P256 => Some("ES256"),
    };
    let mut names: Vec<_> =
        config.upstreams.iter().filter_map(|upstream| wanted(&upstream.token.as_ref()?.key)).collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key that was created at `created` and replaced at `retired`.
    fn row(kid: &str, created: UnixSecs, retired: Option<UnixSecs>) -> OpenKey {
        let secret = new_key("EdDSA").unwrap().secret;
        OpenKey {
            kid: kid.to_owned(),
            secret,
            created,
            retired,
            algorithm: "EdDSA".to_owned(),
            changed: 1,
            signs_from: 0,
        }
    }

    /// "A new key is published for two minutes before it signs" (docs/http.md): a backend that has just read
    /// jwks.json can verify every token until it reads it again.
    #[test]
    fn a_rotated_key_is_published_before_it_signs_and_the_first_one_signs_at_once() {
        let keys = SigningKeys::default();
        let signs = |now| keys.signing(Algorithm::EdDSA, now).map(|key| key.kid.clone());
        let published = |now| keys.published(now)["keys"].as_array().unwrap().len();
        keys.apply(&[row("first", 1000, None)]);
        assert_eq!(signs(1000).as_deref(), Some("first"));
        keys.apply(&[row("first", 1000, Some(5000)), row("second", 5000, None)]);
        assert_eq!((signs(5000).as_deref(), published(5000)), (Some("first"), 2));
        assert_eq!(signs(5119).as_deref(), Some("first"));
        assert_eq!(signs(5120).as_deref(), Some("second"));
        // twice in a row
        keys.apply(&[row("first", 1000, Some(5000)), row("second", 5000, Some(5060)), row("third", 5060, None)]);
        assert_eq!((signs(5100).as_deref(), published(5100)), (Some("first"), 3));
        assert_eq!(signs(5121).as_deref(), Some("second"));
        assert_eq!(signs(5180).as_deref(), Some("third"));
        // an unpublished key does not sign, whatever the clock says
        assert_eq!((signs(5060 + PUBLISHED_SECS).as_deref(), published(5060 + PUBLISHED_SECS)), (Some("third"), 1));
        keys.apply(&[row("first", 1000, Some(5000)), row("second", 900_000, None)]);
        assert_eq!(signs(5000 + PUBLISHED_SECS).as_deref(), Some("second"));
    }
}
