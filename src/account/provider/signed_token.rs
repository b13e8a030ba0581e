//! What ID tokens and logout tokens have in common: a JWS in three parts (RFC 7515), signed with one of the provider's
//! keys, from its issuer, for this client (RFC 8725). Pure: bytes, keys and a time come in.

use data_encoding::BASE64URL_NOPAD as B64;
use jsonwebtoken::Algorithm;
use serde_json::Value;

use super::algorithm;
use super::key_set::{Candidate, KID_BYTES_MAX, KeySet};
use super::metadata::{Issuer, TENANT_PLACEHOLDER, is_tenant};
use crate::account::jws;
use crate::clock::UnixSecs;
use crate::web::strict_json;

/// Longest token, bytes.
const TOKEN_BYTES_MAX: usize = 16 << 10;
/// How far the clocks of the provider and of this machine may differ, seconds.
pub(super) const SKEW_SECS: u64 = 30;

/// What a token is: one is never accepted as the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenType {
    /// Its `typ` says nothing, or anything but that it is another kind.
    Id,
    /// Its `typ` says so, or nothing (OpenID Connect Back-Channel Logout 1.0, 2.4).
    Logout,
}

/// A token that was taken apart; nothing of it is verified yet.
pub(super) struct Parsed<'t> {
    pub(super) algorithm: Algorithm,
    kid: Option<String>,
    /// Head and claims as they are signed.
    message: &'t str,
    signature: &'t str,
    pub(super) claims: Value,
}

/// Who must have made a token, and for whom.
#[derive(Clone, Copy)]
pub(super) struct Parties<'p> {
    pub(super) issuer: &'p Issuer,
    pub(super) client_id: &'p str,
    /// Microsoft's keys name the issuer that they are for.
    pub(super) has_key_issuers: bool,
}

/// Why a token does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TokenError {
    /// No known key fits: the key set may be old.
    UnknownKey,
    /// It does not hold; one line for the log.
    Invalid(String),
}

pub(super) fn invalid<T>(why: impl Into<String>) -> Result<T, TokenError> {
    Err(TokenError::Invalid(why.into()))
}

impl TokenType {
    fn fits(self, typ: &str) -> bool {
        let typ = typ.to_ascii_lowercase();
        let typ = typ.strip_prefix("application/").unwrap_or(&typ);
        match self {
            Self::Id => !matches!(typ, "logout+jwt" | "at+jwt"),
            Self::Logout => matches!(typ, "logout+jwt" | "jwt"),
        }
    }

    fn mismatch(self) -> &'static str {
        match self {
            Self::Id => "the token is a logout token or an access token, not an ID token",
            Self::Logout => "the token's typ is not that of a logout token",
        }
    }
}

/// Takes a token apart. `accepted` are the algorithms of the provider.
pub(super) fn parse<'t>(
    token: &'t str,
    token_type: TokenType,
    accepted: &[Algorithm],
) -> Result<Parsed<'t>, TokenError> {
    if token.len() > TOKEN_BYTES_MAX {
        return invalid("the token is longer than 16 KiB");
    }
    let Some((message, signature)) = token.rsplit_once('.') else { return invalid("the token is no JWS") };
    let Some((head, claims)) = message.split_once('.').filter(|(_, claims)| !claims.contains('.')) else {
        return invalid("the token is no JWS");
    };
    let (Some(head), Some(claims)) = (object(head), object(claims)) else {
        return invalid("the token's head or claims are no JSON object");
    };
    if head.get("crit").is_some() {
        return invalid("the token has critical extensions");
    }
    match head.get("typ") {
        None => {}
        Some(Value::String(typ)) if token_type.fits(typ) => {}
        Some(Value::String(_)) => return invalid(token_type.mismatch()),
        Some(_) => return invalid("the token's typ is no text"),
    }
    let algorithm = head.get("alg").and_then(Value::as_str).and_then(algorithm::parse);
    let Some(algorithm) = algorithm.filter(|algorithm| accepted.contains(algorithm)) else {
        return invalid("the token is signed with an algorithm that is not accepted");
    };
    let kid = match head.get("kid") {
        None => None,
        Some(Value::String(kid)) if kid.len() <= KID_BYTES_MAX => Some(kid.clone()),
        Some(_) => return invalid("the token's kid is no text or too long"),
    };
    Ok(Parsed { algorithm, kid, message, signature, claims })
}

fn object(part: &str) -> Option<Value> {
    strict_json::parse(&B64.decode(part.as_bytes()).ok()?).ok().filter(Value::is_object)
}

/// Verifies the signature, the issuer and the audience. The other claims are the caller's to check.
pub(super) fn verify(parsed: &Parsed<'_>, keys: &KeySet, parties: Parties<'_>) -> Result<(), TokenError> {
    jws::install_provider();
    let (key, key_issuer) = match keys.candidate(parsed.kid.as_deref(), parsed.algorithm) {
        Candidate::One { key, issuer } => (key, issuer),
        Candidate::None => return Err(TokenError::UnknownKey),
        Candidate::Several => return invalid("the token names no key, and the provider has several"),
    };
    let verified = jsonwebtoken::crypto::verify(parsed.signature, parsed.message.as_bytes(), key, parsed.algorithm);
    if verified.ok() != Some(true) {
        return invalid("the token's signature does not verify");
    }
    check_issuer(&parsed.claims, parties, key_issuer)?;
    check_audience(&parsed.claims, parties.client_id)
}

fn check_issuer(claims: &Value, parties: Parties<'_>, key_issuer: Option<&str>) -> Result<(), TokenError> {
    let found = claims.get("iss").and_then(Value::as_str).unwrap_or_default();
    let tenant = claims.get("tid").and_then(Value::as_str).filter(|tenant| is_tenant(tenant));
    let is_expected = match parties.issuer {
        Issuer::Exact(issuer) => found == issuer,
        Issuer::PerTenant { authority } => tenant.is_some_and(|tenant| found == format!("{authority}/{tenant}/v2.0")),
        Issuer::Unknown => false,
    };
    if !is_expected {
        return invalid("the token is of another issuer");
    }
    let Some(of_key) = key_issuer.filter(|_| parties.has_key_issuers) else { return Ok(()) };
    if of_key == found || tenant.is_some_and(|tenant| of_key.replace(TENANT_PLACEHOLDER, tenant) == found) {
        return Ok(());
    }
    invalid("the token's key is one of another issuer")
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
        return invalid("the token is for another client");
    }
    match claims.get("azp") {
        Some(party) if party == client_id => Ok(()),
        Some(_) => invalid("the token was issued to another client"),
        None if is_for_others => invalid("the token is for several clients and does not say which asked for it"),
        None => Ok(()),
    }
}

/// When a token was issued; an error if that is missing, in the future, or longer ago than this.
pub(super) fn check_issued(claims: &Value, age_secs_max: u64, now: UnixSecs) -> Result<UnixSecs, TokenError> {
    let issued = seconds(claims, "iat")?.ok_or(TokenError::Invalid("the token has no iat".to_owned()))?;
    if issued > now + SKEW_SECS {
        let ahead = issued - now;
        return invalid(format!("the token was issued in the future: this machine's clock is {ahead} s behind"));
    }
    if issued + age_secs_max < now {
        let behind = now - issued;
        return invalid(format!("the token was issued {behind} s ago: it is old, or this machine's clock is ahead"));
    }
    Ok(issued)
}

/// Whether a token may still be used; `None`: it does not say.
pub(super) fn check_expiry(claims: &Value, now: UnixSecs) -> Result<Option<UnixSecs>, TokenError> {
    let expires = seconds(claims, "exp")?;
    match expires {
        Some(expires) if expires + SKEW_SECS <= now => {
            let since = now - expires;
            invalid(format!("the token expired {since} s ago, or this machine's clock is ahead"))
        }
        expires => Ok(expires),
    }
}

/// A NumericDate (RFC 7519, 2), whole seconds; an error if it is there and none.
pub(super) fn seconds(claims: &Value, name: &str) -> Result<Option<UnixSecs>, TokenError> {
    /// The year 9999; past it, sums could overflow.
    const LAST: f64 = 253_402_300_799.0;
    let Some(value) = claims.get(name) else { return Ok(None) };
    let seconds = value.as_f64().filter(|seconds| (0.0..=LAST).contains(seconds));
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is within these bounds")]
    let seconds = seconds.map(|seconds| seconds as u64);
    seconds.map(Some).ok_or_else(|| TokenError::Invalid(format!("the token's {name} is no time")))
}
