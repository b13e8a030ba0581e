//! A provider's token against the provider's keys, which are read again if it names an unknown one.

use std::sync::Arc;

use super::errors::{Failure, Reason};
use super::key_set::KeySet;
use super::metadata::Metadata;
use super::provider_state::{ProviderState, Refetch};
use super::signed_token::{Parties, TokenError};
use crate::config::ProviderKind;

/// Who must have made a token of this provider, and for whom.
pub(super) fn parties<'p>(state: &'p ProviderState, metadata: &'p Metadata) -> Parties<'p> {
    Parties {
        issuer: &metadata.issuer,
        client_id: &state.config.client_id,
        has_key_issuers: state.config.kind == ProviderKind::Microsoft,
    }
}

/// Runs `verify` with the keys; once more with newer ones, if there are any, after [`TokenError::UnknownKey`].
pub(super) async fn with_keys<T>(
    state: &ProviderState,
    metadata: &Metadata,
    refetch: Refetch,
    verify: impl Fn(&KeySet) -> Result<T, TokenError>,
) -> Result<T, Failure> {
    let from = metadata.jwks.as_ref();
    let from = from.ok_or_else(|| Failure::new(Reason::Unavailable, "the provider has no keys"))?;
    let keys: Arc<KeySet> = state.keys(from).await?;
    match verify(&keys) {
        Err(TokenError::UnknownKey) => {}
        result => return result.map_err(failure),
    }
    match state.newer_keys(from, &keys, refetch).await {
        Some(newer) => verify(&newer).map_err(failure),
        None => Err(failure(TokenError::UnknownKey)),
    }
}

/// What a token that does not hold is to the rest.
pub(super) fn failure(error: TokenError) -> Failure {
    let detail = match error {
        TokenError::UnknownKey => "the token's key is not among the provider's".to_owned(),
        TokenError::Invalid(why) => why,
    };
    Failure::new(Reason::BadIdentity, detail)
}
