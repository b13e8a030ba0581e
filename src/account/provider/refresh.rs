//! Asks a provider again after the sign-in: new tokens for a refresh token (RFC 6749, 6; OpenID Connect Core 1.0, 12), and
//! who the person is today.

use serde_json::Value;

use super::claims;
use super::errors::{Failure, Reason};
use super::finish::{described, profile_identity};
use super::id_token;
use super::identity::ProviderIdentity;
use super::metadata::Metadata;
use super::provider_state::{ProviderState, Refetch};
use super::providers::Providers;
use super::signed_token::{self, TokenType};
use super::token_request;
use super::tokens::{ProviderTokens, TimedToken};
use super::verification::{failure, parties, with_keys};
use crate::secret::Secret;

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum NoAnswer {
    /// The provider refuses the token: what it was given for has ended there.
    Ended(&'static str),
    /// It cannot be reached, or its answer says nothing about the person.
    Unclear(Failure),
}

/// New tokens. A refresh token among them replaces the one that was used: store it before anything else.
pub(crate) struct Refreshed {
    pub(crate) tokens: ProviderTokens,
    /// Claims of the ID token, if one came along and holds.
    claims: Option<Value>,
}

impl From<Failure> for NoAnswer {
    fn from(failure: Failure) -> Self {
        match failure.reason {
            Reason::TokenRefused => Self::Ended("token_refused"),
            _ => Self::Unclear(failure),
        }
    }
}

/// Exchanges a refresh token of this person.
pub(crate) async fn refresh(
    providers: &Providers,
    provider: &str,
    subject: &str,
    token: &Secret,
) -> Result<Refreshed, NoAnswer> {
    let state = providers.find(provider)?;
    let metadata = state.metadata().await?;
    let proof = state.proof(&metadata)?;
    let form = token_request::refresh_form(token, &proof);
    let response = state.post("refresh", &metadata.token, proof.authorization, form).await?;
    // GitHub has an error of its own
    if let Some("invalid_grant" | "bad_refresh_token") = response.json.get("error").and_then(Value::as_str) {
        return Err(NoAnswer::Ended("invalid_grant"));
    }
    let tokens = token_request::read(&response, state.wall())?;
    let claims = match &tokens.id {
        Some(id) if state.config.kind.is_openid() => {
            let claims = verified(&state, &metadata, id, &tokens.access.value).await;
            claims
                .inspect_err(|failure| {
                    let detail = failure.detail.as_str();
                    tracing::warn!(provider, detail, "the ID token of a refresh does not hold");
                })
                .ok()
        }
        _ => None,
    };
    if claims.as_ref().is_some_and(|claims| subject_of(&state, claims).as_deref() != Some(subject)) {
        return Err(NoAnswer::Ended("another_person"));
    }
    let id = tokens.id.filter(|_| claims.is_some()).map(|value| {
        let expires = claims.as_ref().and_then(|claims| signed_token::seconds(claims, "exp").ok().flatten());
        TimedToken { value, expires }
    });
    Ok(Refreshed { tokens: ProviderTokens { access: tokens.access, id, refresh: tokens.refresh }, claims })
}

/// Who the person is today; `None`: the answer does not say, only that the grant is still there.
pub(crate) async fn person(
    providers: &Providers,
    provider: &str,
    refreshed: &Refreshed,
) -> Result<Option<ProviderIdentity>, NoAnswer> {
    let state = providers.find(provider)?;
    let metadata = state.metadata().await?;
    let access = &refreshed.tokens.access.value;
    match &refreshed.claims {
        Some(claims) => Ok(Some(described(&state, &metadata, claims, access).await?)),
        None if state.config.kind.is_openid() => Ok(None),
        None => Ok(Some(profile_identity(&state, &metadata, access).await?)),
    }
}

/// The same with an access token alone, of a provider that gives no ID tokens.
pub(crate) async fn person_by_access(
    providers: &Providers,
    provider: &str,
    access: &Secret,
) -> Result<ProviderIdentity, NoAnswer> {
    let state = providers.find(provider)?;
    let metadata = state.metadata().await?;
    Ok(profile_identity(&state, &metadata, access).await?)
}

async fn verified(
    state: &ProviderState,
    metadata: &Metadata,
    token: &Secret,
    access: &Secret,
) -> Result<Value, Failure> {
    let parsed = signed_token::parse(token.expose(), TokenType::Id, &metadata.algorithms).map_err(failure)?;
    let parties = parties(state, metadata);
    let verify = |keys: &_| id_token::verify_refreshed(&parsed, keys, parties, access.expose(), state.wall());
    with_keys(state, metadata, Refetch::SignIn, verify).await
}

fn subject_of(state: &ProviderState, of: &Value) -> Option<String> {
    claims::text(of, state.config.claims.id.as_deref().unwrap_or("sub"))
}
