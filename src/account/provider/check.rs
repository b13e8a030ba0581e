//! A live look at one provider, for the operator: what a sign-in would find out on its way, without a person and without
//! sending the client's secret.

use std::sync::Arc;

use jsonwebtoken::Algorithm;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use super::key_set::KeySet;
use super::metadata::{self, Endpoint, Metadata};
use super::provider_state::ProviderState;
use super::token_request;
use crate::client::{Client, DOCUMENT_BYTES_MAX, FetchError, LIST_BYTES_MAX, Response};
use crate::clock::Clock;
use crate::config::{ClientCredential, Provider, TokenAuth};

/// How far two clocks may differ: tokens are accepted with as much, seconds.
const SKEW_SECS: u64 = 30;

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// `discovery`, `issuer`, `endpoints`, `algorithms`, `keys`, `pkce`, `token_auth` or `clock`.
    pub(crate) what: &'static str,
    pub(crate) verdict: Verdict,
    /// One line for people. Text of the provider in it may have any characters.
    pub(crate) detail: String,
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// As it should be.
    Ok,
    /// Sign-in may fail, or is weaker than it could be.
    Warning,
    /// Sign-in fails.
    Failed,
}

impl Verdict {
    /// For output.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
        }
    }
}

/// Looks at a provider. Takes up to 20 seconds if it hangs.
pub(crate) async fn check(provider: &Provider, client: &Client, clock: &Clock) -> Vec<Finding> {
    let state = Arc::new(ProviderState::new(provider.clone(), client.clone(), clock.clone()));
    let mut findings = Findings(Vec::new());
    match metadata::location(provider) {
        Some(from) => document(&state, &from, &mut findings).await,
        None => without_document(&state, &mut findings).await,
    }
    findings.0
}

struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, what: &'static str, verdict: Verdict, detail: impl Into<String>) {
        self.0.push(Finding { what, verdict, detail: detail.into() });
    }
}

async fn document(state: &Arc<ProviderState>, from: &Endpoint, findings: &mut Findings) {
    let provider = &state.config;
    let response = match state.look("discovery", from, DOCUMENT_BYTES_MAX).await {
        Ok(response) if response.is_success() => response,
        Ok(response) => {
            return findings.add("discovery", Verdict::Failed, format!("{}: status {}", from.url, response.status));
        }
        Err(error) => return findings.add("discovery", Verdict::Failed, format!("{}: {error}", from.url)),
    };
    findings.add("discovery", Verdict::Ok, from.url.as_str());
    match metadata::issuer_of(provider, &response.json) {
        Ok(issuer) => findings.add("issuer", Verdict::Ok, issuer),
        Err(why) => {
            findings.add("issuer", Verdict::Failed, why);
            return clock(state, &response, findings);
        }
    }
    match metadata::read(provider, &response.json, response.place) {
        Ok(metadata) => {
            findings.add("endpoints", Verdict::Ok, format!("token at {}", metadata.token.url));
            if provider.kind.is_openid() {
                keys(state, &metadata, findings).await;
            }
            token_auth(state, &metadata, findings);
        }
        Err(why) => findings.add("endpoints", Verdict::Failed, why),
    }
    pkce(provider, &response.json, findings);
    clock(state, &response, findings);
}

/// A provider without metadata: whether its API answers at all. Without a token it refuses, which is an answer.
async fn without_document(state: &Arc<ProviderState>, findings: &mut Findings) {
    let endpoint = match metadata::without_document(&state.config) {
        Ok(Metadata { userinfo: Some(endpoint), .. }) => endpoint,
        Ok(_) => return,
        Err(why) => return findings.add("endpoints", Verdict::Failed, why),
    };
    let url = endpoint.url.as_str();
    match state.look("userinfo", &endpoint, LIST_BYTES_MAX).await {
        Ok(response) if response.status < 500 => {
            findings.add("endpoints", Verdict::Ok, format!("{url} answers"));
            clock(state, &response, findings);
        }
        Ok(response) => findings.add("endpoints", Verdict::Failed, format!("{url}: status {}", response.status)),
        Err(FetchError::NotJson { status, .. } | FetchError::BadJson { status, .. }) if status < 500 => {
            findings.add("endpoints", Verdict::Ok, format!("{url} answers"));
        }
        Err(error) => findings.add("endpoints", Verdict::Failed, format!("{url}: {error}")),
    }
}

/// Whether there is a key for an algorithm that is accepted here.
async fn keys(state: &ProviderState, metadata: &Metadata, findings: &mut Findings) {
    let names = |algorithms: &[Algorithm]| {
        algorithms.iter().map(|algorithm| format!("{algorithm:?}")).collect::<Vec<_>>().join(", ")
    };
    findings.add("algorithms", Verdict::Ok, names(&metadata.algorithms));
    let Some(from) = &metadata.jwks else { return };
    let found = match state.look("keys", from, LIST_BYTES_MAX).await {
        Ok(response) if response.is_success() => KeySet::read(&response.json).ok_or_else(|| "no key set".to_owned()),
        Ok(response) => Err(format!("status {}", response.status)),
        Err(error) => Err(error.to_string()),
    };
    let set = match found {
        Ok(set) => set,
        Err(why) => return findings.add("keys", Verdict::Failed, format!("{}: {why}", from.url)),
    };
    let usable: Vec<Algorithm> = metadata.algorithms.iter().copied().filter(|own| set.has_key_for(*own)).collect();
    if usable.is_empty() {
        let detail = format!("{}: none of {} keys fits {}", from.url, set.len(), names(&metadata.algorithms));
        return findings.add("keys", Verdict::Failed, detail);
    }
    findings.add("keys", Verdict::Ok, format!("{} for {}", set.len(), names(&usable)));
}

/// The challenge is sent whatever the metadata says: a server must ignore what it does not know (RFC 6749, 3.1).
fn pkce(provider: &Provider, document: &Value, findings: &mut Findings) {
    let listed = document.get("code_challenge_methods_supported").and_then(Value::as_array);
    let has_s256 = listed.is_some_and(|methods| methods.iter().any(|method| method == "S256"));
    let (verdict, detail) = match (provider.danger_no_pkce, has_s256) {
        (false, true) => (Verdict::Ok, "S256"),
        (false, false) if listed.is_none() => (Verdict::Ok, "S256 is sent; the metadata does not mention it"),
        (false, false) => (Verdict::Warning, "S256 is sent, but the metadata lists other methods alone"),
        (true, true) => (Verdict::Warning, "danger_no_pkce is set although the provider supports S256: remove it"),
        (true, false) => (Verdict::Warning, "off by danger_no_pkce"),
    };
    findings.add("pkce", verdict, detail);
}

/// Whether the provider lists the way in which this client proves itself.
fn token_auth(state: &ProviderState, metadata: &Metadata, findings: &mut Findings) {
    let provider = &state.config;
    if let Err(failure) = state.proof(metadata) {
        return findings.add("token_auth", Verdict::Failed, failure.detail);
    }
    let listed = metadata.auth_methods.as_deref();
    let name = match token_request::method(provider, listed) {
        TokenAuth::Basic | TokenAuth::Auto => "client_secret_basic",
        TokenAuth::Post => "client_secret_post",
        TokenAuth::PrivateKey => "private_key_jwt",
        TokenAuth::None => "none",
    };
    // the list is optional; its default is basic alone (RFC 8414, 2), which public clients do not use
    let is_listed = listed.is_none_or(|listed| listed.iter().any(|own| own == name));
    if is_listed || provider.credential == ClientCredential::None {
        findings.add("token_auth", Verdict::Ok, name);
    } else {
        findings.add("token_auth", Verdict::Warning, format!("{name}, which the metadata does not list"));
    }
}

/// Compares the clocks by the `Date` field of a response, whose resolution is a second.
fn clock(state: &ProviderState, response: &Response, findings: &mut Findings) {
    let theirs = response.date.as_deref().and_then(|date| OffsetDateTime::parse(date, &Rfc2822).ok());
    let Some(theirs) = theirs.and_then(|date| u64::try_from(date.unix_timestamp()).ok()) else {
        return findings.add("clock", Verdict::Warning, "the provider sends no date to compare with");
    };
    let ours = state.wall();
    let (off, word) = if ours < theirs { (theirs - ours, "behind") } else { (ours - theirs, "ahead") };
    if off <= SKEW_SECS {
        findings.add("clock", Verdict::Ok, format!("{off} s apart"));
    } else {
        findings.add("clock", Verdict::Failed, format!("this machine's clock is {off} s {word}"));
    }
}
