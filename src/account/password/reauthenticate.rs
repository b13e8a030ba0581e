//! Reauthentication: the current password is required before changes that outlive the session. Wrong ones are counted
//! per session.

use super::hash_workers::HashSlot;
use super::hasher::Verdict;
use crate::account::accounts::Accounts;
use crate::account::audit;
use crate::account::caller::Caller;
use crate::account::errors::{ChangeError, unavailable, wrong_password};
use crate::account::limits::login_throttle::{self, attempt_failed};
use crate::account::session::session::Identity;
use crate::secret::Secret;
use crate::store::{self, CountedAttempt, UserRow};

/// The current password was verified.
pub(crate) struct Reauthenticated {
    pub(crate) slot: HashSlot,
    /// The counted attempt, cleared in the transaction of the change.
    pub(crate) counted: CountedAttempt,
    /// The hash that it was verified against.
    pub(crate) old: Option<Secret>,
}

/// Checks the current password; wrong ones are counted.
pub(crate) async fn reauthenticate(
    accounts: &Accounts,
    caller: &Caller,
    who: &Identity,
    current: Secret,
) -> Result<Reauthenticated, ChangeError> {
    let shared = &*accounts.shared;
    shared.settings.require_passwords()?;
    let subject = shared.subject(("session", &who.session.id));
    let slot = shared.hash_pool.request_slot(caller).acquire(Some(subject)).await.map_err(|_| ChangeError::Busy)?;
    let (counted, user) = count_for(accounts, who).await?;
    let old = user.and_then(|user| user.password);
    let verdict = slot.verify(current, old.clone()).await.map_err(|_| ChangeError::Busy)?;
    let Verdict::Right(_) = verdict else {
        let now = shared.clock.now();
        attempt_failed(accounts, counted, audit::by("current_password_wrong", caller, now, who), now).await?;
        return Err(wrong_password());
    };
    Ok(Reauthenticated { slot, counted, old })
}

async fn count_for(accounts: &Accounts, who: &Identity) -> Result<(CountedAttempt, Option<UserRow>), ChangeError> {
    let shared = &*accounts.shared;
    let limits = login_throttle::of_session(shared.settings.throttle, &who.user.id, &who.session.id);
    let (now, id, email) = (shared.clock.now(), who.user.id.clone(), who.user.email.clone());
    let (counted, user) = shared
        .store
        .run(move |db| {
            Ok((store::throttle::count_attempt(db, &limits, &email, now)?, store::users::user_by_id(db, &id)?))
        })
        .await
        .map_err(|error| unavailable(&error))?;
    let counted = counted.map_err(|throttled| ChangeError::Throttled {
        retry_after_secs: login_throttle::record_rejection(&throttled),
    })?;
    Ok((counted, user))
}
