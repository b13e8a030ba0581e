//! Asks a provider again after the sign-in: new tokens for a refresh token (RFC 6749, 6; OpenID Connect Core 1.0, 12), and
//! who the person is today.

use std::sync::Arc;

use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;

use super::claims;
use super::errors::{Failure, Reason};
use super::finish::{described, profile_identity};
use super::id_token;
use super::identity::ProviderIdentity;
use super::metadata::Metadata;
use super::provider_state::{ProviderState, Refetch};
use super::providers::Providers;
use super::signed_token::{self, TokenType};
use super::token_request::{self, ClientProof};
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
    /// Claims of the ID token, if one came along, or why it does not hold.
    claims: Result<Option<Value>, Failure>,
}

/// What a session began with.
pub(crate) struct PersonOf<'p> {
    /// Name of the provider.
    pub(crate) provider: &'p str,
    pub(crate) subject: &'p str,
    /// The issuer that gave the tokens; they are sent to no other. `None`: not known.
    pub(crate) issuer: Option<&'p str>,
}

impl From<Failure> for NoAnswer {
    fn from(failure: Failure) -> Self {
        match failure.reason {
            Reason::TokenRefused => Self::Ended("token_refused"),
            Reason::NotAllowed => Self::Ended("tenant_not_allowed"),
            _ => Self::Unclear(failure),
        }
    }
}

/// All that an exchange needs. Nothing of the token has been sent.
pub(crate) struct Prepared {
    state: Arc<ProviderState>,
    metadata: Arc<Metadata>,
    proof: ClientProof,
    _place: OwnedSemaphorePermit,
}

/// Prepares the exchange of a refresh token of this person.
pub(crate) async fn prepare(providers: &Providers, of: &PersonOf<'_>) -> Result<Prepared, NoAnswer> {
    let place = providers.find(of.provider)?.refresh_place().await?;
    let (state, metadata) = asked(providers, of).await?;
    let proof = state.proof(&metadata)?;
    Ok(Prepared { state, metadata, proof, _place: place })
}

/// Exchanges a refresh token of this person.
pub(crate) async fn exchange(prepared: Prepared, of: &PersonOf<'_>, token: &Secret) -> Result<Refreshed, NoAnswer> {
    let Prepared { state, metadata, proof, .. } = &prepared;
    let form = token_request::refresh_form(token, proof);
    let response = state.post("refresh", &metadata.token, proof.authorization.clone(), form).await?;
    // GitHub has an error of its own
    if let Some("invalid_grant" | "bad_refresh_token") = response.json.get("error").and_then(Value::as_str) {
        return Err(NoAnswer::Ended("invalid_grant"));
    }
    let tokens = token_request::read(&response, state.wall())?;
    let claims = match &tokens.id {
        Some(id) if state.config.kind.is_openid() => {
            verified(state, metadata, id, &tokens.access.value).await.map(Some)
        }
        _ => Ok(None),
    };
    let held = claims.as_ref().ok().and_then(Option::as_ref);
    if held.is_some_and(|claims| subject_of(state, claims).as_deref() != Some(of.subject)) {
        return Err(NoAnswer::Ended("another_person"));
    }
    let id = tokens.id.zip(held).map(|(value, claims)| {
        let expires = signed_token::seconds(claims, "exp").ok().flatten();
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
        Ok(Some(claims)) => Ok(Some(described(&state, &metadata, claims, access).await?)),
        Ok(None) if state.config.kind.is_openid() => Ok(None),
        Ok(None) => Ok(Some(profile_identity(&state, &metadata, access).await?)),
        // a token that does not hold confirms nothing
        Err(failure) => Err(NoAnswer::Unclear(failure.clone())),
    }
}

/// The same with an access token alone, of a provider that gives no ID tokens.
pub(crate) async fn person_by_access(
    providers: &Providers,
    of: &PersonOf<'_>,
    access: &Secret,
) -> Result<ProviderIdentity, NoAnswer> {
    let (state, metadata) = asked(providers, of).await?;
    Ok(profile_identity(&state, &metadata, access).await?)
}

/// The provider that is asked, if it is the one that gave the tokens: the operator may have put another in its place.
async fn asked(providers: &Providers, of: &PersonOf<'_>) -> Result<(Arc<ProviderState>, Arc<Metadata>), NoAnswer> {
    let state = providers.find(of.provider)?;
    let metadata = state.metadata().await?;
    if of.issuer.is_some_and(|issuer| !metadata.issuer.is(issuer)) {
        return Err(NoAnswer::Ended("other_issuer"));
    }
    Ok((state, metadata))
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
