//! Proof of a recent sign-in: what is linked to an account or removed from it outlives the session, so a stolen session
//! must not be enough (OWASP ASVS 5.0, 7.5.1).

use crate::account::accounts::Accounts;
use crate::account::caller::Caller;
use crate::account::errors::{ChangeError, unavailable};
use crate::account::password::reauthenticate::{Reauthenticated, reauthenticate};
use crate::account::session::session::Identity;
use crate::secret::Secret;
use crate::store;

/// How long a sign-in counts as recent, seconds.
pub const FRESH_SECS: u64 = 600;

/// The owner of this session has signed in, or typed the password, a moment ago. Only made here.
#[derive(Debug)]
pub struct Fresh(());

/// By when the person proved who they are. `None`: too long ago, not known, or an API token was presented.
pub fn by_age(accounts: &Accounts, who: &Identity) -> Option<Fresh> {
    let age = accounts.shared.clock.now().checked_sub(who.session.authenticated);
    let is_recent = age.is_some_and(|age| age <= FRESH_SECS);
    (is_recent && who.grant.is_none() && !who.session.is_api_token).then_some(Fresh(()))
}

/// By the current password; wrong ones are counted.
///
/// # Errors
/// It is wrong, or the account has none.
pub async fn by_password(
    accounts: &Accounts,
    caller: &Caller,
    who: &Identity,
    current: Secret,
) -> Result<Fresh, ChangeError> {
    let Reauthenticated { counted, .. } = reauthenticate(accounts, caller, who, current).await?;
    let now = accounts.shared.clock.now();
    let cleared = accounts.shared.store.run(move |db| store::throttle::attempt_right(db, &counted, now)).await;
    cleared.map_err(|error| unavailable(&error))?;
    Ok(Fresh(()))
}
