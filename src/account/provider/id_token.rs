//! Verifies ID tokens (OpenID Connect Core 1.0, 3.1.3.7; ASVS 10.5). Pure: bytes, keys and a time come in.

use data_encoding::BASE64URL_NOPAD as B64;
use jsonwebtoken::Algorithm;
use ring::digest::digest;
use serde_json::Value;

use super::algorithm;
use super::identity::SUBJECT_BYTES_MAX;
use super::key_set::KeySet;
use super::signed_token::{self, Parsed, Parties, SKEW_SECS, TokenError, invalid, seconds};
use crate::clock::UnixSecs;
use crate::secret::same_bytes;

/// How long ago a token may have been issued, seconds: it comes straight from the token endpoint.
const AGE_SECS_MAX: u64 = 600;

/// What a token must say.
pub(super) struct Expected<'e> {
    pub(super) parties: Parties<'e>,
    pub(super) nonce: &'e str,
    pub(super) access_token: &'e str,
    /// When the attempt began, if the provider was asked to authenticate the person again.
    pub(super) fresh_since: Option<UnixSecs>,
}

/// Verifies the signature, and returns the claims if they are as expected.
pub(super) fn verify(
    parsed: &Parsed<'_>,
    keys: &KeySet,
    expected: &Expected<'_>,
    now: UnixSecs,
) -> Result<Value, TokenError> {
    signed_token::verify(parsed, keys, expected.parties)?;
    let claims = &parsed.claims;
    check_times(claims, expected.fresh_since, now)?;
    let nonce = claims.get("nonce").and_then(Value::as_str);
    if !nonce.is_some_and(|nonce| same_bytes(nonce.as_bytes(), expected.nonce.as_bytes())) {
        return invalid("the ID token's nonce is not the one of this attempt");
    }
    if !claims.get("sub").and_then(Value::as_str).is_some_and(is_subject) {
        return invalid("the ID token's sub is not 1 to 255 characters of ASCII");
    }
    check_access_token(claims, parsed.algorithm, expected.access_token)?;
    Ok(claims.clone())
}

/// The same for the ID token of a refresh (OpenID Connect Core 1.0, 12.2): it belongs to no attempt, so that there is no
/// nonce to compare. Whether it is about the same person is the caller's to check.
pub(super) fn verify_refreshed(
    parsed: &Parsed<'_>,
    keys: &KeySet,
    parties: Parties<'_>,
    access_token: &str,
    now: UnixSecs,
) -> Result<Value, TokenError> {
    signed_token::verify(parsed, keys, parties)?;
    check_times(&parsed.claims, None, now)?;
    check_access_token(&parsed.claims, parsed.algorithm, access_token)?;
    Ok(parsed.claims.clone())
}

/// Whether a text can be a person's key (OpenID Connect Core, 2).
pub(super) fn is_subject(text: &str) -> bool {
    (1..=SUBJECT_BYTES_MAX).contains(&text.len()) && text.bytes().all(|b| (0x20..0x7f).contains(&b))
}

fn check_times(claims: &Value, fresh_since: Option<UnixSecs>, now: UnixSecs) -> Result<(), TokenError> {
    signed_token::check_issued(claims, AGE_SECS_MAX, now)?;
    if signed_token::check_expiry(claims, now)?.is_none() {
        return invalid("the ID token has no exp");
    }
    if seconds(claims, "nbf")?.is_some_and(|from| from > now + SKEW_SECS) {
        return invalid("the ID token is not valid yet");
    }
    let authenticated = seconds(claims, "auth_time")?;
    match fresh_since {
        Some(began) if authenticated.is_none_or(|at| at + SKEW_SECS < began) => {
            invalid("the provider did not authenticate the person again")
        }
        _ => Ok(()),
    }
}

fn check_access_token(claims: &Value, algorithm: Algorithm, access_token: &str) -> Result<(), TokenError> {
    let Some(hash) = claims.get("at_hash") else { return Ok(()) };
    let computed = digest(algorithm::token_hash(algorithm), access_token.as_bytes());
    let expected = B64.encode(&computed.as_ref()[..computed.as_ref().len() / 2]);
    if hash.as_str().is_some_and(|hash| same_bytes(hash.as_bytes(), expected.as_bytes())) {
        return Ok(());
    }
    invalid("the ID token is for another access token")
}
