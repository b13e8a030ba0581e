//! Verifies logout tokens (OpenID Connect Back-Channel Logout 1.0, 2.4 and 2.6; ASVS 10.5.5). Pure: bytes, keys and a
//! time come in.

use serde_json::Value;

use super::id_token::is_subject;
use super::key_set::KeySet;
use super::signed_token::{self, Parsed, Parties, TokenError, invalid};
use crate::clock::UnixSecs;

/// Member of `events` that makes a token a logout token.
const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";
/// How long ago a token may have been issued, seconds: providers send it at once.
const AGE_SECS_MAX: u64 = 120;
/// Longest token id or session id, bytes.
const ID_BYTES_MAX: usize = 255;

/// What a logout token says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LogoutClaims {
    /// The token's own id, for replays.
    pub(super) id: String,
    /// The provider's session that ended.
    pub(super) session_id: Option<String>,
    /// The person who was signed out.
    pub(super) subject: Option<String>,
}

/// Verifies a token. One of session and subject is there, or both.
pub(super) fn verify(
    parsed: &Parsed<'_>,
    keys: &KeySet,
    parties: Parties<'_>,
    now: UnixSecs,
) -> Result<LogoutClaims, TokenError> {
    signed_token::verify(parsed, keys, parties)?;
    let claims = &parsed.claims;
    signed_token::check_issued(claims, AGE_SECS_MAX, now)?;
    signed_token::check_expiry(claims, now)?;
    // an ID token has one; without this check it could be sent here
    if claims.get("nonce").is_some() {
        return invalid("the logout token has a nonce");
    }
    if !claims.get("events").and_then(|events| events.get(EVENT)).is_some_and(Value::is_object) {
        return invalid("the logout token has no logout event");
    }
    let Some(id) = text(claims, "jti")? else { return invalid("the logout token has no jti") };
    let (session_id, subject) = (text(claims, "sid")?, text(claims, "sub")?);
    if session_id.is_none() && subject.is_none() {
        return invalid("the logout token has neither sub nor sid");
    }
    if !subject.as_deref().is_none_or(is_subject) {
        return invalid("the logout token's sub is not 1 to 255 characters of ASCII");
    }
    Ok(LogoutClaims { id, session_id, subject })
}

fn text(claims: &Value, name: &str) -> Result<Option<String>, TokenError> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::String(text)) if (1..=ID_BYTES_MAX).contains(&text.len()) => Ok(Some(text.clone())),
        Some(_) => invalid(format!("the logout token's {name} is no text of 1 to 255 bytes")),
    }
}
