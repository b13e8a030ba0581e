//! API tokens on a user's account page: create, list, revoke.

use super::grant::Scope;
use crate::account::accounts::Accounts;
use crate::account::audit;
use crate::account::caller::Caller;
use crate::account::errors::{ChangeError, FieldError, StoreDown, printable, store_down, unavailable, wrong_password};
use crate::account::fields;
use crate::account::identity::fresh;
use crate::account::ids::new_session_id;
use crate::account::password::reauthenticate::{Reauthenticated, reauthenticate};
use crate::account::session::session::Identity;
use crate::clock::UnixSecs;
use crate::secret::{Secret, random_token, token_hash};
use crate::store::{self, ApiTokenRow, AuditRow, CountedAttempt, Kept, NewApiToken, TokenProof};

/// Distinguishes API tokens from other credentials.
pub const PREFIX: &str = "agt_";
/// Length of a token: the prefix, and 256 random bits in base64url.
const TOKEN_BYTES: usize = PREFIX.len() + 43;

/// Whether it has the form of an API token.
pub(crate) fn is_one(token: &[u8]) -> bool {
    token.len() == TOKEN_BYTES && token.starts_with(PREFIX.as_bytes())
}
const NAME_CHARS_MAX: usize = 100;
const SCOPES_MAX: usize = 32;

/// Input of `token create`.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct TokenDetails {
    pub name: String,
    pub scopes: Vec<String>,
    pub lasts_secs: u64,
    /// A value unique to the submitted form, to detect a resubmission.
    pub form_id: Option<String>,
}

/// One line of the account page's token list.
#[derive(Debug, Clone, serde::Serialize)]
#[allow(missing_docs)]
pub struct TokenInfo {
    pub id: String,
    pub name: String,
    pub scopes: Vec<String>,
    pub created: UnixSecs,
    pub expires: UnixSecs,
    /// Last request; 0 if none.
    pub seen: UnixSecs,
}

/// Checks the details and creates a token: the row to store, and the token itself.
pub(crate) fn new_token(
    user_id: &str,
    details: &TokenDetails,
    now: UnixSecs,
) -> Result<(NewApiToken, Secret), FieldError> {
    let wrong = |field, code, message: String| FieldError { field, code, message };
    let name = details.name.trim();
    if name.is_empty() || name.chars().count() > NAME_CHARS_MAX || name.contains(fields::is_forbidden) {
        let message = "A token name has 1 to 100 printable characters.";
        return Err(wrong("token_name", "invalid", message.to_owned()));
    }
    if details.scopes.len() > SCOPES_MAX {
        return Err(wrong("scopes", "too_many", format!("A token can have at most {SCOPES_MAX} scopes.")));
    }
    for scope in &details.scopes {
        Scope::parse(scope).map_err(|message| wrong("scopes", "invalid", message))?;
    }
    let no_randomness =
        |_| wrong("token_name", "unavailable", "The system's random number generator failed.".to_owned());
    let token = Secret::new(format!("{PREFIX}{}", random_token().map_err(no_randomness)?.expose()));
    let new = NewApiToken {
        id: new_session_id().map_err(no_randomness)?,
        hash: token_hash(token.expose()),
        user_id: user_id.to_owned(),
        name: name.to_owned(),
        scopes: details.scopes.iter().map(|scope| scope.trim().to_owned()).collect(),
        created: now,
        expires: now.saturating_add(details.lasts_secs),
    };
    Ok((new, token))
}

pub(crate) fn too_many() -> FieldError {
    let message = "This account has reached its limit of tokens: revoke one first.".to_owned();
    FieldError { field: "token_name", code: "too_many", message }
}

/// The user's valid tokens, newest first.
pub async fn list(accounts: &Accounts, who: &Identity) -> Result<Vec<TokenInfo>, StoreDown> {
    let _permit = accounts.shared.store_permit_for(who).await.map_err(|_| StoreDown)?;
    let (id, now) = (who.user.id.clone(), accounts.shared.clock.now());
    let rows = accounts
        .shared
        .store
        .run(move |db| store::api_tokens::list(db, Some(&id), now))
        .await
        .map_err(|error| store_down(&error))?;
    let info = |row: ApiTokenRow| TokenInfo {
        id: row.id,
        name: row.name,
        scopes: row.scopes,
        created: row.created,
        expires: row.expires,
        seen: row.seen,
    };
    Ok(rows.into_iter().map(info).collect())
}

/// Creates a token after checking the current password, or, where no password signs in to the account, a recent sign-in:
/// otherwise a compromised app page could create itself a token that outlives the session. `None`: this form was already
/// submitted.
pub async fn create(
    accounts: &Accounts,
    caller: &Caller,
    who: &Identity,
    current: Secret,
    details: &TokenDetails,
) -> Result<Option<(String, Secret)>, ChangeError> {
    let now = accounts.shared.clock.now();
    let (mut new, token) = new_token(&who.user.id, details, now)?;
    if let Some(form_id) = &details.form_id {
        let of_form = token_hash(&format!("{}\n{form_id}", who.session.id));
        new.id = data_encoding::BASE64URL_NOPAD.encode(&of_form[..16]);
        if new.id.starts_with('-') {
            // the command line would take it for an option
            new.id.replace_range(..1, "A");
        }
    }
    let proof = prove(accounts, caller, who, current).await?;
    let event = AuditRow { detail: new.id.clone(), ..audit::by("token_created", caller, now, who) };
    let (id, written) = (new.id.clone(), event.clone());
    let kept = accounts.shared.store.run(move |db| store::api_tokens::add_api_token(db, &new, Some(&proof), &written));
    match kept.await.map_err(|error| unavailable(&error))? {
        Kept::Yes => {
            audit::log(&event);
            Ok(Some((id, token)))
        }
        Kept::Already => Ok(None),
        Kept::TooMany => Err(too_many().into()),
        // the password was changed concurrently
        Kept::No => Err(wrong_password()),
    }
}

/// The owner's proof. An empty password only counts for an account that has none, which the store checks.
async fn prove(
    accounts: &Accounts,
    caller: &Caller,
    who: &Identity,
    current: Secret,
) -> Result<TokenProof, ChangeError> {
    if fresh::by_age(accounts, who).is_some() {
        if !accounts.shared.settings.password.enabled {
            return Ok(TokenProof::RecentSignIn);
        }
        if current.expose().is_empty() {
            return Ok(TokenProof::Password { checked: None, counted: CountedAttempt::default() });
        }
    }
    let Reauthenticated { old, counted, .. } = reauthenticate(accounts, caller, who, current).await?;
    Ok(TokenProof::Password { checked: old, counted })
}

/// Revokes one of the user's tokens. `false`: there is none with this id.
pub async fn revoke(accounts: &Accounts, caller: &Caller, who: &Identity, id: &str) -> Result<bool, StoreDown> {
    let _permit = accounts.shared.store_permit_for(who).await.map_err(|_| StoreDown)?;
    let now = accounts.shared.clock.now();
    let event = AuditRow { detail: printable(id), ..audit::by("token_revoked", caller, now, who) };
    let (id, user, written) = (id.to_owned(), who.user.id.clone(), event.clone());
    let ended =
        accounts.shared.store.run(move |db| store::api_tokens::end_api_token(db, &id, Some(&user), now, &written));
    let ended = ended.await.map_err(|error| store_down(&error))?;
    if ended {
        audit::log(&event);
    }
    Ok(ended)
}
