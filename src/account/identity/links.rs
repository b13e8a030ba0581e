//! A user's own identities: list them, remove one.

use super::fresh::Fresh;
use crate::account::accounts::Accounts;
use crate::account::audit;
use crate::account::caller::Caller;
use crate::account::errors::{StoreDown, store_down};
use crate::account::session::session::Identity;
use crate::store::{self, AuditRow, IdentityRow, Unlinked, WaysIn};

/// The user's identities, oldest first.
pub async fn list(accounts: &Accounts, who: &Identity) -> Result<Vec<IdentityRow>, StoreDown> {
    let _permit = accounts.shared.store_permit_for(who).await.map_err(|_| StoreDown)?;
    let id = who.user.id.clone();
    accounts.shared.store.run(move |db| store::identities::list(db, &id)).await.map_err(|error| store_down(&error))
}

/// Removes an identity, and ends the sessions that began with it; the last way in stays. `providers`: names of those that
/// are configured.
pub async fn unlink(
    accounts: &Accounts,
    caller: &Caller,
    who: &Identity,
    _fresh: &Fresh,
    (provider, subject): (&str, &str),
    providers: Vec<String>,
) -> Result<Unlinked, StoreDown> {
    let shared = &*accounts.shared;
    let ways = WaysIn { passwords: shared.settings.password.enabled, providers };
    let _permit = shared.store_permit_for(who).await.map_err(|_| StoreDown)?;
    let detail = provider.chars().take(64).filter(|c| !c.is_control()).collect();
    let event = AuditRow { detail, ..audit::by("identity_unlinked", caller, shared.clock.now(), who) };
    let (id, key, written) = (who.user.id.clone(), (provider.to_owned(), subject.to_owned()), event.clone());
    let unlinked = shared
        .store
        .run(move |db| store::identities::unlink(db, &id, (&key.0, &key.1), &ways, false, &written))
        .await
        .map_err(|error| store_down(&error))?;
    if matches!(unlinked, Unlinked::Yes(_)) {
        audit::log(&event);
    }
    Ok(unlinked)
}
