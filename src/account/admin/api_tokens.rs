//! API tokens, for commands: create, list, revoke.

use super::accounts::Admin;
use crate::account::api_token::user_tokens::{TokenDetails, new_token, too_many};
use crate::account::errors::{AdminError, printable};
use crate::secret::Secret;
use crate::store::{self, ApiTokenRow, AuditRow, Kept, UserRow};

/// Valid API tokens, newest first; of one account or all.
pub fn list(admin: &mut Admin, of: Option<&str>) -> Result<Vec<ApiTokenRow>, AdminError> {
    let (id, _) = accounts_of(admin, of)?;
    Ok(store::api_tokens::list(&mut admin.db, id.as_deref(), admin.clock.now())?)
}

/// Revokes an API token.
pub fn revoke(admin: &mut Admin, id: &str) -> Result<(), AdminError> {
    let event = AuditRow { detail: printable(id), ..admin.event("token_revoked", None) };
    if store::api_tokens::end_api_token(&mut admin.db, id, None, admin.clock.now(), &event)? {
        Ok(())
    } else {
        Err(AdminError(format!("no valid token `{}`", printable(id))))
    }
}

/// Revokes all API tokens of an account, or of all accounts; returns how many.
pub fn revoke_all(admin: &mut Admin, of: Option<&str>) -> Result<usize, AdminError> {
    let (id, user) = accounts_of(admin, of)?;
    let event = admin.event("tokens_revoked", user.as_ref());
    Ok(store::api_tokens::end_api_tokens(&mut admin.db, id.as_deref(), admin.clock.now(), &event)?)
}

fn accounts_of(admin: &mut Admin, of: Option<&str>) -> Result<(Option<String>, Option<UserRow>), AdminError> {
    let user = of.map(|typed| admin.user(typed)).transpose()?;
    Ok((user.as_ref().map(|user| user.id.clone()), user))
}

/// Creates a token; gives its id and the token itself, which is not stored.
pub fn create(admin: &mut Admin, typed: &str, details: &TokenDetails) -> Result<(String, Secret), AdminError> {
    let user = admin.user(typed)?;
    let (new, token) = new_token(&user.id, details, admin.now())?;
    let event = AuditRow { detail: new.id.clone(), ..admin.event("token_created", Some(&user)) };
    match store::api_tokens::add_api_token(&mut admin.db, &new, None, &event)? {
        Kept::Yes => Ok((new.id, token)),
        Kept::TooMany => Err(too_many().into()),
        Kept::Already => Err(AdminError("the token has already been created".to_owned())),
        Kept::No => Err(AdminError(format!("the account {} has since been removed", user.email))),
    }
}
