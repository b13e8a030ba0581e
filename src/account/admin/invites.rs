//! Invites, for commands: create, list, revoke.

use super::accounts::{Admin, canonical_new, taken};
use crate::account::errors::{AdminError, printable};
use crate::account::fields;
use crate::account::one_time_link;
use crate::config::SignUp;
use crate::secret::Secret;
use crate::store::{self, AuditRow, InviteRow};

/// Creates a one-time link for a new account; `email` fixes its address.
pub fn create(
    admin: &mut Admin,
    email: Option<&str>,
    groups: &[String],
    lasts_secs: u64,
) -> Result<Secret, AdminError> {
    if admin.settings.sign_up == SignUp::Closed {
        return Err(AdminError("sign_up.mode is closed; use `authgate user add`".to_owned()));
    }
    let groups = fields::groups(groups)?;
    let email = email.map(canonical_new).transpose()?;
    if let Some(email) = &email
        && store::users::user_by_email(&mut admin.db, email)?.is_some()
    {
        return Err(taken(email));
    }
    let event = AuditRow { email: email.clone().unwrap_or_default(), ..admin.event("invite_made", None) };
    let (link, token) = one_time_link::invite(admin.clock.now(), lasts_secs, groups, email, None)?;
    store::links::add_link(&mut admin.db, &link, &event)?;
    Ok(admin.url("invite", &token))
}

/// Valid invites, newest first.
pub fn list(admin: &mut Admin) -> Result<Vec<InviteRow>, AdminError> {
    let closed = admin.settings.sign_up == SignUp::Closed;
    let mut invites = store::links::invites(&mut admin.db, admin.clock.now())?;
    // invites that would create an account are void
    invites.retain(|invite| !closed || invite.for_account || invite.kind == "first");
    Ok(invites)
}

/// Revokes an invite.
pub fn revoke(admin: &mut Admin, id: &str) -> Result<(), AdminError> {
    let event = AuditRow { detail: printable(id), ..admin.event("invite_revoked", None) };
    if store::links::end_invite(&mut admin.db, id, &event)? {
        Ok(())
    } else {
        Err(AdminError(format!("no valid invite `{}`", printable(id))))
    }
}
