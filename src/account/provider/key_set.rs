//! A provider's public keys (RFC 7517). Each key is read by itself: one that is odd must not lose the others.

use data_encoding::BASE64URL_NOPAD as B64;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;

use super::algorithm;

/// Keys of one provider.
const KEYS_MAX: usize = 100;
/// Longest key id that is compared, bytes.
pub(crate) const KID_BYTES_MAX: usize = 1024;

/// Keys that can verify signatures.
#[derive(Debug, Default)]
pub(crate) struct KeySet(Vec<PublicKey>);

#[derive(Debug)]
struct PublicKey {
    kid: Option<String>,
    kty: &'static str,
    crv: Option<&'static str>,
    /// What the key itself is restricted to.
    algorithm: Option<Algorithm>,
    /// Microsoft's keys name the issuer that they are for.
    issuer: Option<String>,
    key: DecodingKey,
}

/// A key for a signature, or why there is none.
pub(crate) enum Candidate<'k> {
    One {
        key: &'k DecodingKey,
        /// The key's own `issuer`, if it has one.
        issuer: Option<&'k str>,
    },
    /// There is none: the set may be old.
    None,
    /// The token names no key, and several fit.
    Several,
}

impl KeySet {
    /// Reads a set; `None`: it is none, or has too many keys. Keys that cannot verify are left out.
    pub(crate) fn read(document: &Value) -> Option<Self> {
        let keys = document.get("keys")?.as_array()?;
        if keys.len() > KEYS_MAX {
            return None;
        }
        Some(Self(keys.iter().filter_map(read_key).collect()))
    }

    /// How many keys can verify signatures.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether at least one key is for this algorithm.
    pub(crate) fn has_key_for(&self, wanted: Algorithm) -> bool {
        !matches!(self.candidate(None, wanted), Candidate::None)
    }

    /// The one key that fits.
    pub(crate) fn candidate(&self, kid: Option<&str>, wanted: Algorithm) -> Candidate<'_> {
        let Some((kty, crv)) = algorithm::key_type(wanted) else { return Candidate::None };
        let fits = |key: &&PublicKey| {
            key.kty == kty
                && key.crv == crv
                && key.algorithm.is_none_or(|only| only == wanted)
                && kid.is_none_or(|kid| key.kid.as_deref() == Some(kid))
        };
        let mut fitting = self.0.iter().filter(fits);
        match (fitting.next(), fitting.next()) {
            (None, _) => Candidate::None,
            (Some(key), None) => Candidate::One { key: &key.key, issuer: key.issuer.as_deref() },
            _ => Candidate::Several,
        }
    }
}

fn read_key(key: &Value) -> Option<PublicKey> {
    let text = |name: &str| key.get(name).and_then(Value::as_str);
    let is_for_signatures = key.get("use").is_none_or(|usage| usage == "sig");
    let may_verify = key.get("key_ops").is_none_or(|operations| {
        operations.as_array().is_some_and(|operations| operations.iter().any(|operation| operation == "verify"))
    });
    if !is_for_signatures || !may_verify {
        return None;
    }
    let algorithm = match key.get("alg") {
        None => None,
        Some(name) => Some(algorithm::parse(name.as_str()?)?),
    };
    let bytes = |name: &str| B64.decode(text(name)?.trim_end_matches('=').as_bytes()).ok();
    let (kty, crv, decoding) = match (text("kty")?, text("crv")) {
        ("RSA", _) => {
            // a leading zero is a common fault of encoders, and ring refuses it
            let stripped = |bytes: Vec<u8>| bytes.into_iter().skip_while(|byte| *byte == 0).collect::<Vec<u8>>();
            let (n, e) = (stripped(bytes("n")?), stripped(bytes("e")?));
            ("RSA", None, DecodingKey::from_rsa_raw_components(&n, &e))
        }
        ("EC", Some("P-256")) => ("EC", Some("P-256"), point(&bytes("x")?, &bytes("y")?, 32)?),
        ("EC", Some("P-384")) => ("EC", Some("P-384"), point(&bytes("x")?, &bytes("y")?, 48)?),
        ("OKP", Some("Ed25519")) => {
            let x = bytes("x").filter(|x| x.len() == 32)?;
            ("OKP", Some("Ed25519"), DecodingKey::from_ed_der(&x))
        }
        _ => return None,
    };
    let kid = match key.get("kid") {
        None => None,
        Some(kid) => Some(kid.as_str().filter(|kid| kid.len() <= KID_BYTES_MAX)?.to_owned()),
    };
    Some(PublicKey { kid, kty, crv, algorithm, issuer: text("issuer").map(str::to_owned), key: decoding })
}

/// An uncompressed point (SEC 1, 2.3.3); each coordinate has the size of the field (RFC 7518, 6.2.1.2).
fn point(x: &[u8], y: &[u8], field_bytes: usize) -> Option<DecodingKey> {
    let fits = x.len() == field_bytes && y.len() == field_bytes;
    fits.then(|| DecodingKey::from_ec_der(&[&[4], x, y].concat()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ed(kid: Option<&str>) -> Value {
        let mut key = json!({ "kty": "OKP", "crv": "Ed25519", "x": B64.encode(&[1; 32]) });
        if let Some(kid) = kid {
            key["kid"] = kid.into();
        }
        key
    }

    fn with(mut key: Value, name: &str, value: Value) -> Value {
        key[name] = value;
        key
    }

    fn found(keys: &[Value], kid: Option<&str>, algorithm: Algorithm) -> &'static str {
        match KeySet::read(&json!({ "keys": keys })).unwrap().candidate(kid, algorithm) {
            Candidate::One { .. } => "one",
            Candidate::None => "none",
            Candidate::Several => "several",
        }
    }

    #[test]
    fn the_key_that_is_named_is_used_and_only_by_its_own_algorithm() {
        let keys = [ed(Some("a")), ed(Some("b"))];
        assert_eq!(found(&keys, Some("a"), Algorithm::EdDSA), "one");
        assert_eq!(found(&keys, Some("A"), Algorithm::EdDSA), "none");
        assert_eq!(found(&keys, Some("c"), Algorithm::EdDSA), "none");
        assert_eq!(found(&keys, Some("a"), Algorithm::RS256), "none");
        assert_eq!(found(&keys, None, Algorithm::EdDSA), "several");
        assert_eq!(found(&keys[..1], None, Algorithm::EdDSA), "one");
        // a shared secret is no key of a provider
        let secret = json!({ "kty": "oct", "k": "AAAA", "kid": "a" });
        assert_eq!(found(&[secret], Some("a"), Algorithm::HS256), "none");
    }

    // a key for encryption, a broken one, and the good one among them
    #[test]
    fn keys_that_cannot_verify_are_left_out_and_do_not_lose_the_others() {
        let odd = [
            with(ed(Some("x")), "use", json!("enc")),
            with(ed(Some("x")), "use", json!(1)),
            with(ed(Some("x")), "key_ops", json!(["encrypt"])),
            with(ed(Some("x")), "alg", json!("RSA-OAEP")),
            with(ed(Some("x")), "alg", json!("none")),
            with(ed(Some("x")), "x", json!("AAAA")),
            with(ed(Some("x")), "x", json!("!!")),
            with(ed(Some("x")), "kid", json!(7)),
            with(ed(Some("x")), "kid", json!("x".repeat(KID_BYTES_MAX + 1))),
            with(ed(Some("x")), "crv", json!("Ed448")),
            json!({ "kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA", "kid": "x" }),
            json!({ "kty": "RSA", "kid": "x" }),
            json!(null),
            json!("x"),
        ];
        for key in &odd {
            assert_eq!(found(std::slice::from_ref(key), Some("x"), Algorithm::EdDSA), "none", "{key}");
        }
        let mut keys = odd.to_vec();
        let good = with(with(ed(Some("x")), "use", json!("sig")), "key_ops", json!(["verify"]));
        keys.push(with(good, "alg", json!("EdDSA")));
        assert_eq!(found(&keys, Some("x"), Algorithm::EdDSA), "one");
    }

    #[test]
    fn a_document_with_too_many_keys_or_without_any_list_is_refused() {
        let keys = |count: usize| json!({ "keys": vec![ed(Some("a")); count] });
        assert!(KeySet::read(&keys(100)).is_some() && KeySet::read(&keys(101)).is_none());
        assert!(KeySet::read(&keys(10_000)).is_none());
        for document in [json!({}), json!({ "keys": {} }), json!([]), json!(null)] {
            assert!(KeySet::read(&document).is_none(), "{document}");
        }
    }
}
