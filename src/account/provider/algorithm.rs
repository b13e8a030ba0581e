//! Which signatures of an ID token are accepted, and which key fits which.

use jsonwebtoken::Algorithm;
use ring::digest;

/// The algorithm of a name (RFC 7518, 3.1; RFC 8037, 3.1; RFC 9864, 2.2). `None`: it is not accepted. `none` and shared
/// secrets never are.
pub(crate) fn parse(name: &str) -> Option<Algorithm> {
    Some(match name {
        "RS256" => Algorithm::RS256,
        "RS384" => Algorithm::RS384,
        "RS512" => Algorithm::RS512,
        "PS256" => Algorithm::PS256,
        "PS384" => Algorithm::PS384,
        "PS512" => Algorithm::PS512,
        "ES256" => Algorithm::ES256,
        "ES384" => Algorithm::ES384,
        "EdDSA" | "Ed25519" => Algorithm::EdDSA,
        _ => return None,
    })
}

/// `kty` of its keys, and `crv` where they have one.
pub(crate) fn key_type(algorithm: Algorithm) -> Option<(&'static str, Option<&'static str>)> {
    Some(match algorithm {
        Algorithm::RS256
        | Algorithm::RS384
        | Algorithm::RS512
        | Algorithm::PS256
        | Algorithm::PS384
        | Algorithm::PS512 => ("RSA", None),
        Algorithm::ES256 => ("EC", Some("P-256")),
        Algorithm::ES384 => ("EC", Some("P-384")),
        Algorithm::EdDSA => ("OKP", Some("Ed25519")),
        _ => return None,
    })
}

/// The hash of `at_hash` (OpenID Connect Core, 3.1.3.6); Ed25519 hashes with SHA-512 (RFC 8032, 5.1).
pub(crate) fn token_hash(algorithm: Algorithm) -> &'static digest::Algorithm {
    match algorithm {
        Algorithm::RS384 | Algorithm::PS384 | Algorithm::ES384 => &digest::SHA384,
        Algorithm::RS512 | Algorithm::PS512 | Algorithm::EdDSA => &digest::SHA512,
        _ => &digest::SHA256,
    }
}
