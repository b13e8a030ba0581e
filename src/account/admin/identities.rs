//! Identities, for commands: link, unlink, list; and the issuer that a provider's identities are pinned to.

use std::collections::HashSet;

use super::accounts::Admin;
use crate::account::errors::{AdminError, printable};
use crate::account::provider::identity::SUBJECT_BYTES_MAX;
use crate::config::Config;
use crate::store::identities::IDENTITIES_MAX;
use crate::store::{self, AuditRow, IdentityRow, Linked, NewIdentity, ProviderSummary, Unlinked, UserRow, WaysIn};

/// An account's identities, oldest first.
pub fn list(admin: &mut Admin, user: &UserRow) -> Result<Vec<IdentityRow>, AdminError> {
    Ok(store::identities::list(&mut admin.db, &user.id)?)
}

/// Links an identity to an account. Its issuer is pinned at its first sign-in.
pub fn link(admin: &mut Admin, typed: &str, provider: &str, subject: &str) -> Result<UserRow, AdminError> {
    let user = admin.user(typed)?;
    let is_subject =
        (1..=SUBJECT_BYTES_MAX).contains(&subject.len()) && subject.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    if !is_subject {
        let shown = printable(subject);
        return Err(AdminError(format!(
            "`{shown}` cannot be a person's id: 1 to {SUBJECT_BYTES_MAX} ASCII characters"
        )));
    }
    let new = NewIdentity { provider: provider.to_owned(), subject: subject.to_owned(), ..NewIdentity::default() };
    let event = AuditRow { detail: provider.to_owned(), ..admin.event("identity_linked", Some(&user)) };
    let linked = store::identities::link(&mut admin.db, &new, &user.id, admin.clock.now(), &event)?;
    let refused = match linked {
        Linked::Yes => return Ok(user),
        Linked::Already => format!("{} is linked to it already", user.email),
        Linked::OfAnother => format!("this person of {provider} is linked to another account: unlink it there first"),
        Linked::TooMany => format!("{} has {IDENTITIES_MAX} identities already", user.email),
        Linked::NoAccount => format!("the account {} is disabled; enable it first", user.email),
    };
    Err(AdminError(refused))
}

/// Removes an identity from an account, and ends the sessions that began with it; gives how many. `subject` may be left
/// out where the account has one identity of the provider.
pub fn unlink(
    admin: &mut Admin,
    typed: &str,
    provider: &str,
    subject: Option<&str>,
    ways: &WaysIn,
    force: bool,
) -> Result<(UserRow, usize), AdminError> {
    let user = admin.user(typed)?;
    let all = store::identities::list(&mut admin.db, &user.id)?;
    let own: Vec<&str> = all.iter().filter(|row| row.provider == provider).map(|row| row.subject.as_str()).collect();
    let missing = || AdminError(format!("{} is not linked to that person of {}", user.email, printable(provider)));
    let subject = match (subject, own.as_slice()) {
        (Some(subject), _) => subject,
        (None, [only]) => only,
        (None, []) => return Err(missing()),
        (None, several) => {
            let list = several.join(", ");
            return Err(AdminError(format!("{} has several identities of {provider}: name one of {list}", user.email)));
        }
    };
    let event = AuditRow { detail: provider.to_owned(), ..admin.event("identity_unlinked", Some(&user)) };
    match store::identities::unlink(&mut admin.db, &user.id, (provider, subject), ways, force, &event)? {
        Unlinked::Yes(ended) => Ok((user, ended)),
        Unlinked::Missing => Err(missing()),
        Unlinked::LastCredential => Err(AdminError(format!(
            "{} has no {}other identity of a configured provider, so no one could sign in to it; use --force if that is intended",
            user.email,
            if ways.passwords { "password and no " } else { "" }
        ))),
    }
}

/// Providers that have identities, by name.
pub fn summary(admin: &mut Admin) -> Result<Vec<ProviderSummary>, AdminError> {
    Ok(store::identities::summary(&mut admin.db)?)
}

/// Ids of the accounts that have an identity.
pub fn holders(admin: &mut Admin) -> Result<HashSet<String>, AdminError> {
    Ok(store::identities::holders(&mut admin.db)?)
}

/// Number of accounts that no one can sign in to, by the provider that they have an identity of; `None`: they have a
/// password alone, and passwords are off.
pub fn stranded(admin: &mut Admin, ways: &WaysIn) -> Result<Vec<(Option<String>, u64)>, AdminError> {
    Ok(store::identities::stranded(&mut admin.db, ways)?)
}

/// The ways in of a configuration.
pub fn ways_in(config: &Config) -> WaysIn {
    let providers = config.providers.iter().map(|provider| provider.name.clone()).collect();
    WaysIn { passwords: config.password.enabled, providers }
}

/// Pins a provider's identities to another issuer; `None`: to the one that each of them names next. Gives how many
/// changed.
pub fn adopt(admin: &mut Admin, provider: &str, issuer: Option<&str>) -> Result<usize, AdminError> {
    let detail = format!("{provider} {}", issuer.unwrap_or("next"));
    let event = AuditRow { detail, ..admin.event("provider_adopted", None) };
    Ok(store::identities::adopt(&mut admin.db, provider, issuer, &event)?)
}
