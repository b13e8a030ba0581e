//! Verifies signatures of identity providers with ring: RSA keys of 2048 to 8192 bits, P-256, P-384 and Ed25519. No
//! shared secret: a token signed with one proves nothing about who made it (RFC 8725, 3.1).

use jsonwebtoken::crypto::JwtVerifier;
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512,
    RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};

/// The verifier for a key. The algorithm must fit the key's family: a key never verifies by another.
pub(super) fn verifier(algorithm: Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    let invalid = || Error::from(ErrorKind::InvalidAlgorithm);
    match (key.family(), key.kind()) {
        (AlgorithmFamily::Rsa, DecodingKeyKind::RsaModulusExponent { n, e }) => {
            let parameters = rsa_parameters(algorithm).ok_or_else(invalid)?;
            Ok(Box::new(Rsa { algorithm, parameters, modulus: n.clone(), exponent: e.clone() }))
        }
        (family, DecodingKeyKind::SecretOrDer(bytes)) => {
            let verification: &'static dyn VerificationAlgorithm = match (family, algorithm) {
                (AlgorithmFamily::Ec, Algorithm::ES256) => &ECDSA_P256_SHA256_FIXED,
                (AlgorithmFamily::Ec, Algorithm::ES384) => &ECDSA_P384_SHA384_FIXED,
                (AlgorithmFamily::Ed, Algorithm::EdDSA) => &ED25519,
                _ => return Err(invalid()),
            };
            Ok(Box::new(Curve { algorithm, key: UnparsedPublicKey::new(verification, bytes.clone()) }))
        }
        _ => Err(invalid()),
    }
}

fn rsa_parameters(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        Algorithm::RS256 => &RSA_PKCS1_2048_8192_SHA256,
        Algorithm::RS384 => &RSA_PKCS1_2048_8192_SHA384,
        Algorithm::RS512 => &RSA_PKCS1_2048_8192_SHA512,
        Algorithm::PS256 => &RSA_PSS_2048_8192_SHA256,
        Algorithm::PS384 => &RSA_PSS_2048_8192_SHA384,
        Algorithm::PS512 => &RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}

struct Rsa {
    algorithm: Algorithm,
    parameters: &'static RsaParameters,
    modulus: Vec<u8>,
    exponent: Vec<u8>,
}

impl signature::Verifier<Vec<u8>> for Rsa {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        let key = RsaPublicKeyComponents { n: &self.modulus, e: &self.exponent };
        key.verify(self.parameters, message, signature).map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for Rsa {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

struct Curve {
    algorithm: Algorithm,
    key: UnparsedPublicKey<Vec<u8>>,
}

impl signature::Verifier<Vec<u8>> for Curve {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        self.key.verify(message, signature).map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for Curve {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}
