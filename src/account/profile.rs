//! Changes that users make to their own account: name and picture, password.

use super::accounts::Accounts;
use super::audit;
use super::caller::Caller;
use super::errors::{ChangeError, StoreDown, store_down, unavailable, wrong_password};
use super::fields;
use super::limits::login_throttle::{self, presented_device};
use super::password::policy;
use super::password::reauthenticate::{Reauthenticated, reauthenticate};
use super::session::session::Identity;
use crate::secret::Secret;
use crate::store::{self, Keeps, Password, SessionEnd, UserChange, Written};

/// Changes the password after checking the current one. Ends all other sessions and, unless kept, the API tokens;
/// forgets other known browsers. Wrong current passwords are throttled like sign-ins.
pub async fn change_password(
    accounts: &Accounts,
    caller: &Caller,
    who: &Identity,
    current: Secret,
    new: Secret,
    keep_tokens: bool,
) -> Result<(), ChangeError> {
    let shared = &*accounts.shared;
    shared.settings.require_passwords()?;
    policy::check(&shared.settings.password, &shared.settings.title, &who.user.email, &new)?;
    let Reauthenticated { slot, counted, old } = reauthenticate(accounts, caller, who, current).await?;
    let now = shared.clock.now();
    let hash = slot.hash(new).await.map_err(|_| ChangeError::Busy)?;
    let event = audit::by("password_changed", caller, now, who);
    let (id, kept, written) = (who.user.id.clone(), who.session.id.clone(), event.clone());
    let keeps = Keeps { tokens: keep_tokens, device: presented_device(caller) };
    let password = Some(Password { new: hash, only_over: old, keeps });
    let what = UserChange { password, proved: counted, ..UserChange::default() };
    let done = shared
        .store
        .run(move |db| store::users::change_user(db, &id, &what, SessionEnd::AllBut(&kept), now, &written))
        .await
        .map_err(|error| unavailable(&error))?;
    match done {
        Written::Done(_) => {
            audit::log(&event);
            Ok(())
        }
        // changed concurrently
        _ => Err(wrong_password()),
    }
}

/// Whether a password signs in to this account.
pub async fn has_password(accounts: &Accounts, who: &Identity) -> Result<bool, StoreDown> {
    let shared = &*accounts.shared;
    if !shared.settings.password.enabled {
        return Ok(false);
    }
    let _permit = shared.store_permit_for(who).await.map_err(|_| StoreDown)?;
    let id = who.user.id.clone();
    let user = shared.store.run(move |db| store::users::user_by_id(db, &id)).await;
    Ok(user.map_err(|error| store_down(&error))?.is_some_and(|user| user.password.is_some()))
}

/// Changes name, picture or both; either may be empty. Rate-limited, because each change is propagated to apps.
pub async fn change(
    accounts: &Accounts,
    caller: &Caller,
    who: &Identity,
    name: Option<&str>,
    picture: Option<&str>,
) -> Result<(), ChangeError> {
    let shared = &*accounts.shared;
    let what = UserChange {
        name: name.map(fields::name).transpose()?,
        picture: picture.map(fields::picture).transpose()?,
        ..UserChange::default()
    };
    let _permit = shared.store_permit_for(who).await.map_err(|_| ChangeError::Busy)?;
    let now = shared.clock.now();
    let event = audit::by("profile_changed", caller, now, who);
    let (id, written) = (who.user.id.clone(), event.clone());
    let limits = login_throttle::of_profile(shared.settings.throttle, &who.user.id);
    let done = shared
        .store
        .run(move |db| store::users::change_user_counted(db, &id, &what, &limits, &written))
        .await
        .map_err(|error| unavailable(&error))?
        .map_err(|throttled| ChangeError::Throttled {
            retry_after_secs: login_throttle::record_rejection(&throttled),
        })?;
    if !matches!(done, Written::Done(_)) {
        return Err(ChangeError::Unavailable);
    }
    audit::log(&event);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{GOOD, OTHER, World, secret};
    use super::super::{Rejected, SessionState};
    use super::*;
    use crate::account::admin::bans;
    use crate::account::credentials;

    async fn identity(world: &World) -> Identity {
        let done = world.sign_in("ada@example.com").await;
        credentials::session_token(&world.accounts, done.token.expose().as_bytes()).unwrap()
    }

    fn outcome(result: Result<(), ChangeError>) -> String {
        match result {
            Ok(()) => "done".to_owned(),
            Err(ChangeError::Field(wrong)) => format!("{}: {}", wrong.field, wrong.code),
            Err(error) => format!("{error:?}"),
        }
    }

    #[tokio::test]
    async fn a_changed_password_ends_all_other_sessions() {
        let world = World::new();
        world.user("ada@example.com");
        let other = world.sign_in("ada@example.com").await;
        let who = identity(&world).await;
        let caller = Caller::default();
        let change = async |current: &str, new: &str| {
            outcome(change_password(&world.accounts, &caller, &who, secret(current), secret(new), false).await)
        };
        assert_eq!(change(OTHER, OTHER).await, "current_password: wrong");
        assert_eq!(change(GOOD, "short").await, "password: too_short");
        assert!(credentials::session_token(&world.accounts, other.token.expose().as_bytes()).is_ok());
        assert_eq!(change(GOOD, OTHER).await, "done");
        assert_eq!(
            credentials::session_token(&world.accounts, other.token.expose().as_bytes()).err(),
            Some(Rejected::Ended)
        );
        assert_eq!(world.accounts.session_state(&who.session), SessionState::Active);
        assert!(world.try_sign_in(&caller, "ada@example.com", GOOD).await.is_err());
        assert!(world.try_sign_in(&caller, "ada@example.com", OTHER).await.is_ok());
    }

    #[tokio::test]
    async fn wrong_current_passwords_are_throttled_per_session_and_do_not_affect_sign_in() {
        let world = World::new();
        world.user("ada@example.com");
        let who = identity(&world).await;
        let caller = Caller::default();
        for _ in 0..5 {
            let done = change_password(&world.accounts, &caller, &who, secret(OTHER), secret(OTHER), false).await;
            assert_eq!(outcome(done), "current_password: wrong");
        }
        let done = change_password(&world.accounts, &caller, &who, secret(GOOD), secret(OTHER), false).await;
        assert_eq!(done, Err(ChangeError::Throttled { retry_after_secs: 300 }));
        world.sign_in("ada@example.com").await;
        let bans = bans::list(&mut world.admin()).unwrap();
        assert_eq!((bans[0].kind, bans[0].what.as_str()), ("user", "ada@example.com"));
        bans::lift(&mut world.admin(), "ada@example.com").unwrap();
        let done = change_password(&world.accounts, &caller, &who, secret(GOOD), secret(OTHER), false).await;
        assert_eq!(outcome(done), "done");
    }

    #[tokio::test]
    async fn a_password_is_changed_together_with_its_effects_or_not_at_all() {
        let world = World::new();
        world.user("ada@example.com");
        let who = identity(&world).await;
        let caller = Caller::default();
        world.break_forgiving();
        let done = change_password(&world.accounts, &caller, &who, secret(GOOD), secret(OTHER), false).await;
        assert_eq!(outcome(done), "Unavailable");
        world.mend_forgiving();
        let done = change_password(&world.accounts, &caller, &who, secret(GOOD), secret(OTHER), false).await;
        assert_eq!(outcome(done), "done");
    }

    #[tokio::test]
    async fn a_changed_profile_applies_immediately() {
        let world = World::new();
        world.user("ada@example.com");
        let who = identity(&world).await;
        let caller = Caller::default();
        let change = async |name: &str, picture: &str| {
            outcome(change(&world.accounts, &caller, &who, Some(name), Some(picture)).await)
        };
        assert_eq!(change("Ada \u{e4}", "https://example.com/a.png").await, "done");
        let user = who.session.user.load_full();
        assert_eq!((user.name.as_str(), user.picture.as_str()), ("Ada \u{e4}", "https://example.com/a.png"));
        assert_eq!(user.values().name, "Ada %C3%A4");
        assert_eq!(change("a\0b", "").await, "name: invalid");
        assert_eq!(change("", "javascript:alert(1)").await, "picture: invalid");
        assert_eq!(who.session.user.load().name, "Ada \u{e4}");
        assert_eq!(change("", "").await, "done");
    }
}
