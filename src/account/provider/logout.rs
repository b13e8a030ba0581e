//! Back-channel logout: a provider says that it has ended a session, or all sessions of a person.

use super::claims;
use super::errors::{Failure, Reason};
use super::finish::check_tenant;
use super::logout_token::{self, LogoutClaims};
use super::provider_state::Refetch;
use super::providers::Providers;
use super::signed_token::{self, TokenType};
use super::verification::{failure, parties, with_keys};
use crate::secret::Secret;

/// A provider's word that a session has ended, after all checks but that of a replay.
#[derive(Debug)]
pub(crate) struct Logout {
    /// `name` of the `[[provider]]`.
    pub(crate) provider: String,
    /// Id of the token.
    pub(crate) token_id: String,
    /// The provider's session.
    pub(crate) session_id: Option<String>,
    /// The person; `None`: whoever has that session.
    pub(crate) subject: Option<String>,
}

/// Verifies a logout token of this provider.
pub(crate) async fn verify(providers: &Providers, name: &str, token: &Secret) -> Result<Logout, Failure> {
    let state = providers.find(name)?;
    let metadata = state.metadata().await?;
    let parsed = signed_token::parse(token.expose(), TokenType::Logout, &metadata.algorithms).map_err(failure)?;
    let parties = parties(&state, &metadata);
    let verify = |keys: &_| logout_token::verify(&parsed, keys, parties, state.wall());
    let LogoutClaims { id, session_id, mut subject } = with_keys(&state, &metadata, Refetch::Logout, verify).await?;
    check_tenant(&state, &metadata, &parsed.claims)?;
    if let Some(path) = &state.config.claims.id {
        // identities are known by another claim than `sub`
        subject = claims::text(&parsed.claims, path);
        if session_id.is_none() && subject.is_none() {
            let what = "the logout token has neither sid nor the claim of `claims.id`";
            return Err(Failure::new(Reason::BadIdentity, what));
        }
    }
    Ok(Logout { provider: state.config.name.clone(), token_id: id, session_id, subject })
}
