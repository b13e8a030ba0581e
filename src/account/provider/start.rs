//! Begins an attempt: the address at the provider that the browser is sent to (OpenID Connect Core 1.0, 3.1.2.1).

use std::net::IpAddr;

use url::Url;

use super::attempt::{self, Attempt, Browser};
use super::errors::{Failure, Reason};
use super::identity::Intent;
use super::metadata::Metadata;
use super::provider_state::ProviderState;
use super::providers::Providers;
use super::token_request;
use crate::config::{Provider, ProviderKind};
use crate::secret::random_bytes;

/// Parameters that a client may add to the authorization request; whatever else it sends is left out, so that none of
/// the protocol's own can be replaced.
pub(crate) const CLIENT_PARAMS: [&str; 10] = [
    "prompt",
    "login_hint",
    "hd",
    "domain_hint",
    "ui_locales",
    "screen_hint",
    "acr_values",
    "connection",
    "organization",
    "kc_idp_hint",
];
/// Longest value of one of them, bytes.
const CLIENT_PARAM_BYTES_MAX: usize = 256;

/// What an attempt starts with.
pub(crate) struct Start<'s> {
    /// The provider's name.
    pub(crate) provider: &'s str,
    /// The browser, if it presented the cookie.
    pub(crate) browser: Option<Browser>,
    /// The origin of the redirect URI.
    pub(crate) origin: &'s str,
    /// Appended to `state`, for the host that the redirect URI is on; empty where the attempt began there.
    pub(crate) address: &'s str,
    /// Where the person goes afterwards, already judged by the return rules.
    pub(crate) return_to: Option<String>,
    /// What it is for.
    pub(crate) intent: Intent,
    /// The provider must authenticate the person again, as far as its kind can prove it.
    pub(crate) is_fresh: bool,
    /// Parameters from the client.
    pub(crate) params: &'s [(String, String)],
    /// The address that starts are counted by; `None`: many people share it, and they are not counted.
    pub(crate) caller: Option<IpAddr>,
}

/// An attempt that began.
pub(crate) struct Started {
    /// Where the browser goes.
    pub(crate) url: Url,
    /// Whose cookie has to be set, or renewed.
    pub(crate) browser: Browser,
}

/// Begins an attempt.
pub(crate) async fn start(providers: &Providers, start: Start<'_>) -> Result<Started, Failure> {
    let state = providers.find(start.provider)?;
    let metadata = state.metadata().await?;
    let internal = |_| Failure::new(Reason::Internal, "the system's random number generator failed");
    let browser = match start.browser {
        Some(browser) => browser,
        None => Browser::new().map_err(internal)?,
    };
    let provider = &state.config;
    let is_fresh = start.is_fresh && proves_fresh(provider.kind);
    let attempt = Attempt {
        id: random_bytes::<16>().map_err(internal)?,
        began: state.wall(),
        return_to: providers.memory.keep_place(start.return_to),
        intent: start.intent,
        is_fresh,
    };
    let sealed = providers.keys.seal(&attempt, &browser, &provider.name, &provider.callback).map_err(internal)?;
    let state_param = sealed + start.address;
    let mut params = own_params(provider, &redirect_uri(start.origin, provider), state_param);
    if !provider.danger_no_pkce {
        let verifier = providers.keys.verifier(&attempt.id, &browser);
        params.push(("code_challenge", attempt::challenge(&verifier)));
        params.push(("code_challenge_method", "S256".to_owned()));
    }
    if provider.kind.is_openid() {
        params.push(("nonce", providers.keys.nonce(&attempt.id, &browser)));
    }
    if is_fresh {
        params.push(("max_age", "0".to_owned()));
    }
    let further = further_params(provider, start.params);
    let url = if metadata.pushed_requests.is_some() {
        let _place = state.push_place(start.caller).await?;
        pushed(&state, &metadata, &params, &further).await?
    } else {
        with_params(&metadata.authorize, &params, &further)
    };
    Ok(Started { url, browser })
}

/// The redirect URI at an origin.
pub(super) fn redirect_uri(origin: &str, provider: &Provider) -> String {
    format!("{origin}{}", provider.callback)
}

/// Whether a kind answers `max_age` with `auth_time`. Google and GitLab do not, Entra only where an operator adds the
/// claim.
fn proves_fresh(kind: ProviderKind) -> bool {
    kind == ProviderKind::Oidc
}

fn own_params(provider: &Provider, redirect_uri: &str, state: String) -> Vec<(&'static str, String)> {
    vec![
        ("response_type", "code".to_owned()),
        ("client_id", provider.client_id.clone()),
        ("redirect_uri", redirect_uri.to_owned()),
        ("scope", provider.scopes.join(" ")),
        ("state", state),
    ]
}

/// The operator's parameters, and those of the client that the operator did not set.
fn further_params(provider: &Provider, client: &[(String, String)]) -> Vec<(String, String)> {
    let mut params = provider.params.clone();
    for (name, value) in client {
        let is_known = CLIENT_PARAMS.contains(&name.as_str()) && value.len() <= CLIENT_PARAM_BYTES_MAX;
        if is_known && !params.iter().any(|(own, _)| own == name) {
            params.push((name.clone(), value.clone()));
        }
    }
    params
}

fn with_params(endpoint: &Url, own: &[(&'static str, String)], further: &[(String, String)]) -> Url {
    let mut url = endpoint.clone();
    url.query_pairs_mut().extend_pairs(own).extend_pairs(further);
    url
}

/// Pushes the request first, where the provider demands it (RFC 9126).
async fn pushed(
    state: &ProviderState,
    metadata: &Metadata,
    own: &[(&'static str, String)],
    further: &[(String, String)],
) -> Result<Url, Failure> {
    let Some(endpoint) = &metadata.pushed_requests else { return Ok(metadata.authorize.clone()) };
    let proof = state.proof(metadata)?;
    let client = proof.fields.iter().filter(|(name, _)| *name != "client_id");
    let form = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(own)
        .extend_pairs(further)
        .extend_pairs(client)
        .finish();
    let response = state.post("push", endpoint, proof.authorization, form).await?;
    let reference = response.json.get("request_uri").and_then(serde_json::Value::as_str);
    let Some(reference) = reference.filter(|_| response.is_success()) else {
        let error = response.json.get("error").and_then(serde_json::Value::as_str).unwrap_or_default();
        let detail = format!("pushed request: status {} {}", response.status, token_request::plain_code(error));
        return Err(Failure::new(Reason::Unavailable, detail));
    };
    let mut url = metadata.authorize.clone();
    url.query_pairs_mut().append_pair("client_id", &state.config.client_id).append_pair("request_uri", reference);
    Ok(url)
}
