//! Ends an attempt: judges the provider's answer in a fixed order, and exchanges the code for an identity.

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::Value;

use super::attempt::{Attempt, AttemptId, Browser};
use super::claims::{self, Documents, needs_groups};
use super::errors::{Failure, Reason};
use super::groups;
use super::id_token::{self, Expected};
use super::identity::{EXTRA_OBJECT_ID, EXTRA_TENANT, Intent, ProviderIdentity};
use super::memory::Use;
use super::metadata::{Issuer, Metadata};
use super::provider_state::{ProviderState, Refetch};
use super::providers::Providers;
use super::signed_token::{self, TokenType};
use super::start::redirect_uri;
use super::token_request::{self, Tokens};
use super::tokens::{ProviderTokens, TimedToken};
use super::verification::{failure, parties, with_keys};
use crate::client::LIST_BYTES_MAX;
use crate::config::ProviderKind;
use crate::logging::is_deceptive;
use crate::secret::Secret;

/// Longest `error_description` in the log, bytes.
const DESCRIPTION_BYTES_MAX: usize = 200;
/// Longest session id of a provider that is kept, bytes.
const SESSION_ID_BYTES_MAX: usize = 255;

/// A callback as it came.
pub(crate) struct Callback<'c> {
    /// The provider whose callback path this is.
    pub(crate) provider: &'c str,
    /// The path that was requested.
    pub(crate) path: &'c str,
    /// The origin of the redirect URI.
    pub(crate) origin: &'c str,
    /// All parameters of the query, decoded.
    pub(crate) query: &'c [(String, String)],
    /// The address that failures are counted by; `None`: many people share it, and they are not counted.
    pub(crate) address: Option<IpAddr>,
    /// The browser, if it presented exactly one cookie that is one of ours.
    pub(crate) browser: Option<Browser>,
}

/// An attempt that ended well.
pub(crate) struct Finished {
    pub(crate) identity: ProviderIdentity,
    pub(crate) intent: Intent,
    /// Where the person goes; `None`: the default.
    pub(crate) return_to: Option<String>,
    /// For [`Providers::began`].
    pub(crate) attempt: AttemptId,
    pub(crate) tokens: ProviderTokens,
}

/// An attempt that ended otherwise.
#[derive(Debug)]
pub(crate) struct Unfinished {
    pub(crate) failure: Failure,
    /// What is known of the attempt, if its `state` opened.
    pub(crate) known: Option<Known>,
}

/// What `state` said.
#[derive(Debug)]
pub(crate) struct Known {
    /// Where the person goes; `None`: the default.
    pub(crate) return_to: Option<String>,
    pub(crate) intent: Intent,
    /// The session that this same callback began before.
    pub(crate) began_session: Option<String>,
}

/// Ends an attempt. Nothing is asked of the provider before `state` opened for this browser, provider and path.
pub(crate) async fn finish(providers: &Providers, callback: &Callback<'_>) -> Result<Finished, Unfinished> {
    let unknown = |reason: Reason, detail: &str| Unfinished { failure: Failure::new(reason, detail), known: None };
    for name in ["code", "state", "iss", "error"] {
        if callback.query.iter().filter(|(own, _)| own == name).count() > 1 {
            return Err(unknown(Reason::RepeatedParameter, name));
        }
    }
    let state = providers.find(callback.provider).map_err(|failure| Unfinished { failure, known: None })?;
    let Some(sealed) = callback.param("state") else { return Err(unknown(Reason::NoState, "no state")) };
    let Some(browser) = &callback.browser else { return Err(unknown(Reason::NoCookie, "no cookie")) };
    let opened = (callback.path == state.config.callback)
        .then(|| providers.keys.open(sealed, browser, &state.config.name, callback.path, state.wall()));
    let Some(attempt) = opened.flatten() else {
        return Err(unknown(Reason::BadState, "state is of another browser, provider or path, or too old"));
    };
    let mut known = Known {
        return_to: providers.memory.place(&attempt.return_to),
        intent: attempt.intent.clone(),
        began_session: None,
    };
    let (name, address) = (state.config.name.as_str(), callback.address);
    let waits = |from| providers.failed_callbacks.retry_after_secs(name, from, state.monotonic());
    if let Some(secs) = address.and_then(waits) {
        let failure = Failure::throttled("too many sign-ins from this network failed", secs);
        return Err(Unfinished { failure, known: Some(known) });
    }
    match identity(providers, &state, callback, browser, &attempt).await {
        Ok((identity, tokens)) => {
            Ok(Finished { identity, intent: known.intent, return_to: known.return_to, attempt: attempt.id, tokens })
        }
        Err(Ended::Failed(failure)) => {
            if let Some(address) = address.filter(|_| failure.cost_a_request()) {
                providers.failed_callbacks.count(name, address, state.monotonic());
            }
            Err(Unfinished { failure, known: Some(known) })
        }
        Err(Ended::Before(session)) => {
            known.began_session = session;
            let failure = Failure::new(Reason::AlreadyUsed, "this callback was answered before");
            Err(Unfinished { failure, known: Some(known) })
        }
    }
}

impl Callback<'_> {
    fn param(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }
}

enum Ended {
    Failed(Failure),
    Before(Option<String>),
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

async fn identity(
    providers: &Providers,
    state: &Arc<ProviderState>,
    callback: &Callback<'_>,
    browser: &Browser,
    attempt: &Attempt,
) -> Result<(ProviderIdentity, ProviderTokens), Ended> {
    let metadata = state.metadata().await?;
    let answered_by = check_issuer(&metadata, callback.param("iss"))?;
    if let Some(error) = callback.param("error") {
        return Err(provider_error(error, callback.param("error_description")).into());
    }
    let code = callback.param("code").filter(|code| !code.is_empty());
    let code = code.ok_or_else(|| Failure::new(Reason::NoCode, "neither code nor error"))?;
    // before the attempt is used up: one that finds no place may be finished later
    let _place = state.place(callback.address).await?;
    if let Use::Again(session) = providers.memory.use_up(attempt.id, state.monotonic()) {
        return Err(Ended::Before(session));
    }
    let verifier = (!state.config.danger_no_pkce).then(|| providers.keys.verifier(&attempt.id, browser));
    let tokens = exchange(state, &metadata, callback, code, verifier.as_deref()).await?;
    if !state.config.kind.is_openid() {
        let identity = profile_identity(state, &metadata, &tokens.access.value).await?;
        return Ok((identity, ProviderTokens { access: tokens.access, id: None, refresh: tokens.refresh }));
    }
    let nonce = providers.keys.nonce(&attempt.id, browser);
    let (mut identity, tokens) =
        openid_identity(state, &metadata, tokens, &nonce, attempt, answered_by.as_deref()).await?;
    if state.config.kind == ProviderKind::Apple && identity.name.is_none() {
        identity.name = callback.param("user").and_then(claims::apple_name);
    }
    Ok((identity, tokens))
}

/// The answer must come from the issuer that was asked, error answers too (RFC 9207, 2.4).
fn check_issuer(metadata: &Metadata, found: Option<&str>) -> Result<Option<String>, Failure> {
    let Some(found) = found else {
        if metadata.promises_issuer {
            return Err(Failure::new(Reason::WrongIssuer, "the provider promises iss, and the answer has none"));
        }
        return Ok(None);
    };
    if metadata.issuer == Issuer::Unknown {
        return Ok(None);
    }
    // of several tenants, which one is known only by the ID token; they are compared then
    if metadata.issuer.is(found) {
        return Ok(Some(found.to_owned()));
    }
    Err(Failure::new(Reason::WrongIssuer, "the answer's iss is not the issuer that was asked"))
}

fn provider_error(error: &str, description: Option<&str>) -> Failure {
    let reason = if error == "access_denied" { Reason::Denied } else { Reason::ProviderError };
    let description = description.unwrap_or_default();
    let mut end = description.len().min(DESCRIPTION_BYTES_MAX);
    while !description.is_char_boundary(end) {
        end -= 1;
    }
    let shown: String =
        description[..end].chars().map(|c| if c.is_control() || is_deceptive(c) { ' ' } else { c }).collect();
    Failure::new(reason, format!("{} ({shown})", token_request::plain_code(error)))
}

async fn exchange(
    state: &ProviderState,
    metadata: &Metadata,
    callback: &Callback<'_>,
    code: &str,
    verifier: Option<&str>,
) -> Result<Tokens, Failure> {
    let proof = state.proof(metadata)?;
    let form = token_request::form(code, &redirect_uri(callback.origin, &state.config), verifier, &proof);
    token_request::read(&state.post("token", &metadata.token, proof.authorization, form).await?, state.wall())
}

async fn openid_identity(
    state: &ProviderState,
    metadata: &Metadata,
    tokens: Tokens,
    nonce: &str,
    attempt: &Attempt,
    answered_by: Option<&str>,
) -> Result<(ProviderIdentity, ProviderTokens), Failure> {
    let bad = |why: &str| Failure::new(Reason::BadIdentity, why);
    let token = tokens.id.ok_or_else(|| bad("token endpoint: no ID token"))?;
    let expected = Expected {
        parties: parties(state, metadata),
        nonce,
        access_token: tokens.access.value.expose(),
        fresh_since: attempt.is_fresh.then_some(attempt.began),
    };
    let parsed = signed_token::parse(token.expose(), TokenType::Id, &metadata.algorithms).map_err(failure)?;
    let verify = |keys: &_| id_token::verify(&parsed, keys, &expected, state.wall());
    let claims = with_keys(state, metadata, Refetch::SignIn, verify).await?;
    let issuer = claims::text(&claims, "iss");
    if answered_by.is_some() && issuer.as_deref() != answered_by {
        return Err(Failure::new(Reason::WrongIssuer, "iss of the answer and of the ID token differ"));
    }
    let identity = described(state, metadata, &claims, &tokens.access.value).await?;
    let id = TimedToken { value: token, expires: signed_token::seconds(&claims, "exp").ok().flatten() };
    Ok((identity, ProviderTokens { access: tokens.access, id: Some(id), refresh: tokens.refresh }))
}

/// The identity that verified claims describe, with userinfo where they leave something out.
pub(super) async fn described(
    state: &ProviderState,
    metadata: &Metadata,
    claims: &Value,
    access: &Secret,
) -> Result<ProviderIdentity, Failure> {
    let bad = |why: &str| Failure::new(Reason::BadIdentity, why);
    check_tenant(state, metadata, claims)?;
    let issuer = claims::text(claims, "iss");
    let subject = claims::text(claims, "sub").ok_or_else(|| bad("no subject"))?;
    let userinfo = userinfo(state, metadata, claims, access, &subject).await?;
    let documents = Documents { provider: &state.config, first: claims, userinfo: userinfo.as_ref() };
    let groups = if documents.leaves_groups_out() && needs_groups(&state.config) {
        groups::microsoft_groups(state, access).await?
    } else {
        documents.groups().unwrap_or_default()
    };
    let subject = match &state.config.claims.id {
        None => subject,
        Some(path) => claims::text(claims, path)
            .filter(|subject| id_token::is_subject(subject))
            .ok_or_else(|| bad("the claim of `claims.id` is missing or no text"))?,
    };
    let text = |name: &str| claims::text(claims, name);
    let extra = [(EXTRA_OBJECT_ID, "oid"), (EXTRA_TENANT, "tid")];
    let is_microsoft = state.config.kind == ProviderKind::Microsoft;
    Ok(ProviderIdentity {
        provider: state.config.name.clone(),
        subject,
        issuer,
        email: documents.email(),
        name: documents.name(),
        picture: documents.picture(),
        login: documents.login(),
        groups,
        session_id: text("sid").filter(|sid| sid.len() <= SESSION_ID_BYTES_MAX),
        hosted_domain: text("hd").filter(|_| state.config.kind == ProviderKind::Google),
        auth_time: signed_token::seconds(claims, "auth_time").ok().flatten(),
        extra: extra.into_iter().filter(|_| is_microsoft).filter_map(|(key, name)| Some((key, text(name)?))).collect(),
    })
}

/// Of a provider for several tenants, only those that are allowed may make statements.
pub(super) fn check_tenant(state: &ProviderState, metadata: &Metadata, claims: &Value) -> Result<(), Failure> {
    if !matches!(metadata.issuer, Issuer::PerTenant { .. }) {
        return Ok(());
    }
    let tenant = claims::text(claims, "tid").unwrap_or_default();
    if state.config.allow.tenants.contains(&tenant) {
        return Ok(());
    }
    Err(Failure::new(Reason::NotAllowed, "the tenant is not in allow.tenants"))
}

/// Userinfo, if something is missing in the ID token. It must be about the same person (OpenID Connect Core, 5.3.2).
async fn userinfo(
    state: &ProviderState,
    metadata: &Metadata,
    id_token: &Value,
    access: &Secret,
    subject: &str,
) -> Result<Option<Value>, Failure> {
    let documents = Documents { provider: &state.config, first: id_token, userinfo: None };
    let is_complete = documents.email().is_some()
        && documents.name().is_some()
        && (!needs_groups(&state.config) || documents.has_all_groups());
    let Some(endpoint) = metadata.userinfo.as_ref().filter(|_| !is_complete) else { return Ok(None) };
    let document = state.json("userinfo", endpoint, Some(access), LIST_BYTES_MAX).await?;
    if claims::text(&document, "sub").as_deref() != Some(subject) {
        return Err(Failure::new(Reason::BadIdentity, "userinfo is about another person than the ID token"));
    }
    Ok(Some(document))
}

/// The identity of a provider that gives no ID tokens.
pub(super) async fn profile_identity(
    state: &ProviderState,
    metadata: &Metadata,
    access: &Secret,
) -> Result<ProviderIdentity, Failure> {
    let bad = |why: &str| Failure::new(Reason::BadIdentity, why);
    let endpoint = metadata.userinfo.as_ref().ok_or_else(|| bad("no userinfo endpoint"))?;
    let profile = state.json("userinfo", endpoint, Some(access), LIST_BYTES_MAX).await?;
    let is_github = state.config.kind == ProviderKind::GitHub;
    let own = state.config.claims.id.as_deref();
    let id = own.map_or_else(
        || claims::lookup(&profile, "id").or_else(|| claims::lookup(&profile, "sub").filter(|_| !is_github)),
        |path| claims::lookup(&profile, path),
    );
    let subject = id.and_then(claims::id_or_number).filter(|id| id_token::is_subject(id));
    let subject = subject.ok_or_else(|| bad("the profile has no usable id"))?;
    let documents = Documents { provider: &state.config, first: &profile, userinfo: None };
    let email = if is_github { groups::github_email(state, endpoint, access).await? } else { documents.email() };
    let their_groups = match (needs_groups(&state.config), is_github) {
        (true, true) => groups::github_groups(state, endpoint, access).await?,
        _ => documents.groups().unwrap_or_default(),
    };
    let issuer = match &metadata.issuer {
        Issuer::Exact(issuer) => Some(issuer.clone()),
        _ => None,
    };
    let picture = documents.picture().or_else(|| claims::text(&profile, "avatar_url").filter(|_| is_github));
    Ok(ProviderIdentity {
        provider: state.config.name.clone(),
        subject,
        issuer,
        email,
        name: documents.name(),
        picture,
        login: claims::text(&profile, "login").or_else(|| documents.login()),
        groups: their_groups,
        session_id: None,
        hosted_domain: None,
        auth_time: None,
        extra: std::collections::BTreeMap::new(),
    })
}
