//! Sign-out at the provider (OpenID Connect RP-Initiated Logout 1.0, 2): the address that ends a person's session there.

use data_encoding::BASE64URL_NOPAD as B64;
use url::Url;

use super::providers::Providers;
use crate::config::SignOut;
use crate::secret::{Secret, random_bytes};

/// Longest address, bytes; some servers take no more than 8 KiB of a whole head.
const URL_BYTES_MAX: usize = 4096;

/// What is to end.
pub(crate) struct EndSession<'e> {
    /// Name of the provider.
    pub(crate) provider: &'e str,
    /// The issuer that the session began with: no other gets its ID token. `None`: not known.
    pub(crate) issuer: Option<&'e str>,
    /// Where people come back to; registered with the provider.
    pub(crate) return_uri: &'e str,
    /// What the session began with; it may have expired (2, `id_token_hint`).
    pub(crate) id_token: Option<&'e Secret>,
}

/// The address. `None`: it is not wanted, the provider has none, or cannot be asked for it now.
pub(crate) async fn address(providers: &Providers, wanted: &EndSession<'_>) -> Option<Url> {
    let state = providers.find(wanted.provider).ok().filter(|state| state.config.sign_out == SignOut::Provider)?;
    let metadata = match state.metadata().await {
        Ok(metadata) => metadata,
        Err(failure) => {
            let (provider, detail) = (wanted.provider, failure.detail.as_str());
            tracing::warn!(provider, detail, "signed out here alone, the provider cannot be reached");
            return None;
        }
    };
    if wanted.issuer.is_some_and(|issuer| !metadata.issuer.is(issuer)) {
        return None;
    }
    let mut url = metadata.end_session.clone()?;
    url.query_pairs_mut()
        .append_pair("client_id", &state.config.client_id)
        .append_pair("post_logout_redirect_uri", wanted.return_uri)
        .append_pair("state", &B64.encode(&random_bytes::<16>().ok()?));
    let Some(id_token) = wanted.id_token else { return Some(url) };
    let mut with_hint = url.clone();
    with_hint.query_pairs_mut().append_pair("id_token_hint", id_token.expose());
    Some(if with_hint.as_str().len() <= URL_BYTES_MAX { with_hint } else { url })
}
