//! Verifies ID tokens (OpenID Connect Core 1.0, 3.1.3.7; RFC 8725; ASVS 10.5). Pure: bytes, keys and a time come in.

use data_encoding::BASE64URL_NOPAD as B64;
use jsonwebtoken::Algorithm;
use ring::digest::digest;
use serde_json::Value;

use super::algorithm;
use super::identity::SUBJECT_BYTES_MAX;
use super::key_set::{Candidate, KID_BYTES_MAX, KeySet};
use super::metadata::{Issuer, TENANT_PLACEHOLDER, is_tenant};
use crate::account::jws;
use crate::clock::UnixSecs;
use crate::secret::same_bytes;
use crate::web::strict_json;

/// Longest token, bytes.
const TOKEN_BYTES_MAX: usize = 16 << 10;
/// How far the clocks of the provider and of this machine may differ, seconds.
const SKEW_SECS: u64 = 30;
/// How long ago a token may have been issued, seconds: it comes straight from the token endpoint.
const AGE_SECS_MAX: u64 = 600;

/// A token that was taken apart; nothing of it is verified yet.
pub(crate) struct Parsed<'t> {
    algorithm: Algorithm,
    kid: Option<String>,
    /// Head and claims as they are signed.
    message: &'t str,
    signature: &'t str,
    claims: Value,
}

/// What a token must say.
pub(crate) struct Expected<'e> {
    pub(crate) issuer: &'e Issuer,
    pub(crate) client_id: &'e str,
    pub(crate) nonce: &'e str,
    pub(crate) access_token: &'e str,
    /// When the attempt began, if the provider was asked to authenticate the person again.
    pub(crate) fresh_since: Option<UnixSecs>,
    /// Microsoft's keys name the issuer that they are for.
    pub(crate) has_key_issuers: bool,
}

/// Why a token does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TokenError {
    /// No known key fits: the key set may be old.
    UnknownKey,
    /// It does not hold; one line for the log.
    Invalid(String),
}

fn invalid<T>(why: impl Into<String>) -> Result<T, TokenError> {
    Err(TokenError::Invalid(why.into()))
}

/// Takes a token apart. `accepted` are the algorithms of the provider.
pub(crate) fn parse<'t>(token: &'t str, accepted: &[Algorithm]) -> Result<Parsed<'t>, TokenError> {
    if token.len() > TOKEN_BYTES_MAX {
        return invalid("the ID token is longer than 16 KiB");
    }
    let Some((message, signature)) = token.rsplit_once('.') else { return invalid("the ID token is no JWS") };
    let Some((head, claims)) = message.split_once('.').filter(|(_, claims)| !claims.contains('.')) else {
        return invalid("the ID token is no JWS");
    };
    let (Some(head), Some(claims)) = (object(head), object(claims)) else {
        return invalid("the ID token's head or claims are no JSON object");
    };
    if head.get("crit").is_some() {
        return invalid("the ID token has critical extensions");
    }
    match head.get("typ") {
        None => {}
        Some(Value::String(typ)) => {
            let typ = typ.to_ascii_lowercase();
            if matches!(typ.strip_prefix("application/").unwrap_or(&typ), "logout+jwt" | "at+jwt") {
                return invalid("the token is a logout token or an access token, not an ID token");
            }
        }
        Some(_) => return invalid("the ID token's typ is no text"),
    }
    let algorithm = head.get("alg").and_then(Value::as_str).and_then(algorithm::parse);
    let Some(algorithm) = algorithm.filter(|algorithm| accepted.contains(algorithm)) else {
        return invalid("the ID token is signed with an algorithm that is not accepted");
    };
    let kid = match head.get("kid") {
        None => None,
        Some(Value::String(kid)) if kid.len() <= KID_BYTES_MAX => Some(kid.clone()),
        Some(_) => return invalid("the ID token's kid is no text or too long"),
    };
    Ok(Parsed { algorithm, kid, message, signature, claims })
}

fn object(part: &str) -> Option<Value> {
    strict_json::parse(&B64.decode(part.as_bytes()).ok()?).ok().filter(Value::is_object)
}

/// Verifies the signature, and returns the claims if they are as expected.
pub(crate) fn verify(
    parsed: &Parsed<'_>,
    keys: &KeySet,
    expected: &Expected<'_>,
    now: UnixSecs,
) -> Result<Value, TokenError> {
    jws::install_provider();
    let (key, key_issuer) = match keys.candidate(parsed.kid.as_deref(), parsed.algorithm) {
        Candidate::One { key, issuer } => (key, issuer),
        Candidate::None => return Err(TokenError::UnknownKey),
        Candidate::Several => return invalid("the ID token names no key, and the provider has several"),
    };
    let verified = jsonwebtoken::crypto::verify(parsed.signature, parsed.message.as_bytes(), key, parsed.algorithm);
    if verified.ok() != Some(true) {
        return invalid("the ID token's signature does not verify");
    }
    let claims = &parsed.claims;
    check_issuer(claims, expected, key_issuer)?;
    check_audience(claims, expected.client_id)?;
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

/// Whether a text can be a person's key (OpenID Connect Core, 2).
pub(crate) fn is_subject(text: &str) -> bool {
    (1..=SUBJECT_BYTES_MAX).contains(&text.len()) && text.bytes().all(|b| (0x20..0x7f).contains(&b))
}

fn check_issuer(claims: &Value, expected: &Expected<'_>, key_issuer: Option<&str>) -> Result<(), TokenError> {
    let found = claims.get("iss").and_then(Value::as_str).unwrap_or_default();
    let tenant = claims.get("tid").and_then(Value::as_str).filter(|tenant| is_tenant(tenant));
    let is_expected = match expected.issuer {
        Issuer::Exact(issuer) => found == issuer,
        Issuer::PerTenant { authority } => tenant.is_some_and(|tenant| found == format!("{authority}/{tenant}/v2.0")),
        Issuer::Unknown => false,
    };
    if !is_expected {
        return invalid("the ID token is of another issuer");
    }
    let Some(of_key) = key_issuer.filter(|_| expected.has_key_issuers) else { return Ok(()) };
    if of_key == found || tenant.is_some_and(|tenant| of_key.replace(TENANT_PLACEHOLDER, tenant) == found) {
        return Ok(());
    }
    invalid("the ID token's key is one of another issuer")
}

fn check_audience(claims: &Value, client_id: &str) -> Result<(), TokenError> {
    let (is_for_us, is_for_others) = match claims.get("aud") {
        Some(Value::String(audience)) => (audience == client_id, false),
        Some(Value::Array(list)) => (
            list.iter().any(|audience| audience == client_id),
            list.len() > 1 || list.iter().any(|audience| !audience.is_string()),
        ),
        _ => (false, false),
    };
    if !is_for_us {
        return invalid("the ID token is for another client");
    }
    match claims.get("azp") {
        Some(party) if party == client_id => Ok(()),
        Some(_) => invalid("the ID token was issued to another client"),
        None if is_for_others => invalid("the ID token is for several clients and does not say which asked for it"),
        None => Ok(()),
    }
}

fn check_times(claims: &Value, fresh_since: Option<UnixSecs>, now: UnixSecs) -> Result<(), TokenError> {
    let issued = seconds(claims, "iat")?.ok_or(TokenError::Invalid("the ID token has no iat".to_owned()))?;
    if issued > now + SKEW_SECS {
        let ahead = issued - now;
        return invalid(format!("the ID token was issued in the future: this machine's clock is {ahead} s behind"));
    }
    if issued + AGE_SECS_MAX < now {
        let behind = now - issued;
        return invalid(format!("the ID token was issued {behind} s ago: it is old, or this machine's clock is ahead"));
    }
    let expires = seconds(claims, "exp")?.ok_or(TokenError::Invalid("the ID token has no exp".to_owned()))?;
    if expires + SKEW_SECS <= now {
        let since = now - expires;
        return invalid(format!("the ID token expired {since} s ago, or this machine's clock is ahead"));
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

/// A NumericDate (RFC 7519, 2), whole seconds; an error if it is there and none.
pub(crate) fn seconds(claims: &Value, name: &str) -> Result<Option<UnixSecs>, TokenError> {
    /// The year 9999; past it, sums could overflow.
    const LAST: f64 = 253_402_300_799.0;
    let Some(value) = claims.get(name) else { return Ok(None) };
    let seconds = value.as_f64().filter(|seconds| (0.0..=LAST).contains(seconds));
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is within these bounds")]
    let seconds = seconds.map(|seconds| seconds as u64);
    seconds.map(Some).ok_or_else(|| TokenError::Invalid(format!("the ID token's {name} is no time")))
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
