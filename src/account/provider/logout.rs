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

/// Where what a token is verified with comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sources {
    /// The provider is asked for what is missing or old.
    All,
    /// Only what is known: whoever sends the token has sent too many that did not hold.
    AtHand,
}

/// Verifies a logout token of this provider.
pub(crate) async fn verify(
    providers: &Providers,
    name: &str,
    token: &Secret,
    sources: Sources,
) -> Result<Logout, Failure> {
    let state = providers.find(name)?;
    let metadata = match sources {
        Sources::All => state.metadata().await?,
        Sources::AtHand => state.metadata_at_hand()?,
    };
    let parsed = signed_token::parse(token.expose(), TokenType::Logout, &metadata.algorithms).map_err(failure)?;
    let parties = parties(&state, &metadata);
    let verify = |keys: &_| logout_token::verify(&parsed, keys, parties, state.wall());
    let LogoutClaims { id, session_id, mut subject } = match sources {
        Sources::All => with_keys(&state, &metadata, Refetch::Logout, verify).await?,
        Sources::AtHand => verify(&*state.keys_at_hand()?).map_err(failure)?,
    };
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
