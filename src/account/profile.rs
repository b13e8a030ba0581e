//! What people do to their own account: profile, password, sessions.

use std::sync::atomic::Ordering;

use super::accounts::Accounts;
use super::audit;
use super::caller::Caller;
use super::errors::{ChangeError, StoreDown, down, unavailable, wrong_password};
use super::fields;
use super::limits::login_throttle;
use super::limits::login_throttle::presented_device;
use super::password::hash_workers::Place;
use super::password::hasher::Verdict;
use super::password::policy;
use super::session::session::{Identity, Standing};
use crate::clock::UnixSecs;
use crate::secret::Secret;
use crate::store::{AuditRow, Counted, Ends, Keeps, Password, UserChange, UserRow, Whose, Written};

/// One line of the account page's session list.
#[derive(Debug, Clone, serde::Serialize)]
pub struct SessionInfo {
    /// Public id of the session.
    pub id: String,
    /// When it began.
    pub created: UnixSecs,
    /// When it was last used, to within a minute.
    pub seen: UnixSecs,
    /// When it ends at the latest.
    pub expires: UnixSecs,
    /// Address at sign-in.
    pub address: String,
    /// User-Agent at sign-in.
    pub user_agent: String,
}

/// The current password was right.
pub(super) struct Proved {
    pub(super) place: Place,
    /// The try, to be forgiven with what comes of it.
    pub(super) counted: Counted,
    /// The hash that it was compared with.
    pub(super) old: Option<Secret>,
}

impl Accounts {
    /// Changes the password after checking the current one; ends all other sessions, the tokens that were made under the
    /// current one unless they are kept, and forgets other browsers. Wrong ones are counted and throttled like sign-ins.
    pub async fn change_password(
        &self,
        caller: &Caller,
        who: &Identity,
        current: Secret,
        new: Secret,
        keep_tokens: bool,
    ) -> Result<(), ChangeError> {
        let shared = &*self.shared;
        policy::judge(&shared.settings.password, &shared.settings.title, &who.user.email, &new)?;
        let Proved { place, counted, old } = self.prove(caller, who, current).await?;
        let now = shared.clock.now();
        let hash = place.hash(new).await.map_err(|_| ChangeError::Busy)?;
        let event = audit::by("password_changed", caller, now, who);
        let (id, kept, written) = (who.user.id.clone(), who.session.id.clone(), event.clone());
        let keeps = Keeps { tokens: keep_tokens, device: presented_device(caller) };
        let password = Some(Password { new: hash, only_over: old, keeps });
        let what = UserChange { password, proved: counted, ..UserChange::default() };
        let done = shared
            .store
            .run(move |db| db.change_user(&id, &what, Ends::AllBut(&kept), now, &written))
            .await
            .map_err(|error| unavailable(&error))?;
        match done {
            Written::Done(_) => {
                audit::log(&event);
                Ok(())
            }
            // changed elsewhere in this very moment
            _ => Err(wrong_password()),
        }
    }

    /// Checks the current password; wrong ones are counted.
    pub(super) async fn prove(&self, caller: &Caller, who: &Identity, current: Secret) -> Result<Proved, ChangeError> {
        let shared = &*self.shared;
        let subject = shared.subject(("session", &who.session.id));
        let place = shared.hasher.arrive(caller).place(Some(subject)).await.map_err(|_| ChangeError::Busy)?;
        let (counted, user) = self.count_for(who).await?;
        let old = user.and_then(|user| user.password);
        let verdict = place.verify(current, old.clone()).await.map_err(|_| ChangeError::Busy)?;
        let Verdict::Right(_) = verdict else {
            let now = shared.clock.now();
            self.count_failure(counted, audit::by("current_password_wrong", caller, now, who), now).await?;
            return Err(wrong_password());
        };
        Ok(Proved { place, counted, old })
    }

    async fn count_for(&self, who: &Identity) -> Result<(Counted, Option<UserRow>), ChangeError> {
        let shared = &*self.shared;
        let limits = login_throttle::of_session(shared.settings.throttle, &who.user.id, &who.session.id);
        let (now, id, email) = (shared.clock.now(), who.user.id.clone(), who.user.email.clone());
        let (counted, user) = shared
            .store
            .run(move |db| Ok((db.count_attempt(&limits, &email, now)?, db.user_by_id(&id)?)))
            .await
            .map_err(|error| unavailable(&error))?;
        let counted =
            counted.map_err(|held| ChangeError::Throttled { retry_after_secs: login_throttle::refused(&held) })?;
        Ok((counted, user))
    }

    /// Changes name and picture, or one of them; either may be empty. So often alone: apps are told of each.
    pub async fn change_profile(
        &self,
        caller: &Caller,
        who: &Identity,
        name: Option<&str>,
        picture: Option<&str>,
    ) -> Result<(), ChangeError> {
        let shared = &*self.shared;
        let what = UserChange {
            name: name.map(fields::name).transpose()?,
            picture: picture.map(fields::picture).transpose()?,
            ..UserChange::default()
        };
        let _turn = shared.turn_of(who).await.map_err(|_| ChangeError::Busy)?;
        let now = shared.clock.now();
        let event = audit::by("profile_changed", caller, now, who);
        let (id, written) = (who.user.id.clone(), event.clone());
        let limits = login_throttle::of_profile(shared.settings.throttle, &who.user.id);
        let done = shared
            .store
            .run(move |db| db.change_user_counted(&id, &what, &limits, &written))
            .await
            .map_err(|error| unavailable(&error))?
            .map_err(|held| ChangeError::Throttled { retry_after_secs: login_throttle::refused(&held) })?;
        if !matches!(done, Written::Done(_)) {
            return Err(ChangeError::Unavailable);
        }
        audit::log(&event);
        Ok(())
    }

    /// The person's sessions that stand, newest first.
    pub async fn sessions_of(&self, who: &Identity) -> Result<Vec<SessionInfo>, StoreDown> {
        let shared = &*self.shared;
        let _turn = shared.turn_of(who).await.map_err(|_| StoreDown)?;
        let (id, now) = (who.user.id.clone(), shared.clock.now());
        let rows = shared.store.run(move |db| db.sessions(Some(&id), now)).await.map_err(|error| down(&error))?;
        let standing = rows.into_iter().filter_map(|row| {
            let session = shared.session(&row.id)?;
            (self.standing(&session) == Standing::Active).then(|| SessionInfo {
                id: row.id,
                created: row.created,
                seen: session.seen.load(Ordering::Relaxed),
                expires: session.expires(),
                address: row.address,
                user_agent: row.user_agent,
            })
        });
        Ok(standing.collect())
    }

    /// Ends one of the person's sessions. `false`: there is no such session of theirs.
    pub async fn end_session(&self, caller: &Caller, who: &Identity, session_id: &str) -> Result<bool, StoreDown> {
        let id = session_id.to_owned();
        let event = AuditRow {
            // an id of ours has 22 characters; anything longer is no session
            detail: session_id.chars().take(22).filter(|c| !c.is_control()).collect(),
            ..audit::by("session_ended", caller, self.shared.clock.now(), who)
        };
        Ok(self.end(who, Some(id), None, event).await? > 0)
    }

    /// Ends all of the person's sessions, or all but this one.
    pub async fn end_sessions(&self, caller: &Caller, who: &Identity, keep_current: bool) -> Result<(), StoreDown> {
        let kept = keep_current.then(|| who.session.id.clone());
        let event = audit::by("sessions_ended", caller, self.shared.clock.now(), who);
        self.end(who, None, kept, event).await.map(|_| ())
    }

    async fn end(
        &self,
        who: &Identity,
        one: Option<String>,
        kept: Option<String>,
        event: AuditRow,
    ) -> Result<usize, StoreDown> {
        let _turn = self.shared.turn_of(who).await.map_err(|_| StoreDown)?;
        let (user, written) = (who.user.id.clone(), event.clone());
        let ended = self
            .shared
            .store
            .run(move |db| {
                let whose = match (&one, &kept) {
                    (Some(id), _) => Whose::SessionOf(id, &user),
                    (None, Some(kept)) => Whose::UserBut(&user, kept),
                    (None, None) => Whose::User(&user),
                };
                db.end_sessions(whose, written.at, &written)
            })
            .await
            .map_err(|error| down(&error))?;
        if ended > 0 {
            audit::log(&event);
        }
        Ok(ended)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Rejected;
    use super::super::testing::{GOOD, OTHER, START, World, at, secret};
    use super::*;

    async fn identity(world: &World) -> Identity {
        let done = world.sign_in("ada@example.com").await;
        world.accounts.authenticate(done.token.expose().as_bytes()).unwrap()
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
            outcome(world.accounts.change_password(&caller, &who, secret(current), secret(new), false).await)
        };
        assert_eq!(change(OTHER, OTHER).await, "current_password: wrong");
        assert_eq!(change(GOOD, "short").await, "password: too_short");
        assert!(world.accounts.authenticate(other.token.expose().as_bytes()).is_ok());
        assert_eq!(change(GOOD, OTHER).await, "done");
        assert_eq!(world.accounts.authenticate(other.token.expose().as_bytes()).err(), Some(Rejected::Ended));
        assert_eq!(world.accounts.standing(&who.session), Standing::Active);
        assert!(world.try_sign_in(&caller, "ada@example.com", GOOD).await.is_err());
        assert!(world.try_sign_in(&caller, "ada@example.com", OTHER).await.is_ok());
    }

    #[tokio::test]
    async fn wrong_current_passwords_are_throttled_by_session_and_touch_no_sign_in() {
        let world = World::new();
        world.user("ada@example.com");
        let who = identity(&world).await;
        let caller = Caller::default();
        for _ in 0..5 {
            let done = world.accounts.change_password(&caller, &who, secret(OTHER), secret(OTHER), false).await;
            assert_eq!(outcome(done), "current_password: wrong");
        }
        let done = world.accounts.change_password(&caller, &who, secret(GOOD), secret(OTHER), false).await;
        assert_eq!(done, Err(ChangeError::Throttled { retry_after_secs: 300 }));
        world.sign_in("ada@example.com").await;
        let bans = world.admin().bans().unwrap();
        assert_eq!((bans[0].kind, bans[0].what.as_str()), ("user", "ada@example.com"));
        world.admin().lift_ban("ada@example.com").unwrap();
        let done = world.accounts.change_password(&caller, &who, secret(GOOD), secret(OTHER), false).await;
        assert_eq!(outcome(done), "done");
    }

    #[tokio::test]
    async fn a_password_is_changed_with_all_that_comes_of_it_or_not_at_all() {
        let world = World::new();
        world.user("ada@example.com");
        let who = identity(&world).await;
        let caller = Caller::default();
        world.break_forgiving();
        let done = world.accounts.change_password(&caller, &who, secret(GOOD), secret(OTHER), false).await;
        assert_eq!(outcome(done), "Unavailable");
        world.mend_forgiving();
        let done = world.accounts.change_password(&caller, &who, secret(GOOD), secret(OTHER), false).await;
        assert_eq!(outcome(done), "done");
    }

    #[tokio::test]
    async fn a_changed_profile_is_in_force_at_once() {
        let world = World::new();
        world.user("ada@example.com");
        let who = identity(&world).await;
        let caller = Caller::default();
        let change = async |name: &str, picture: &str| {
            outcome(world.accounts.change_profile(&caller, &who, Some(name), Some(picture)).await)
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

    #[tokio::test]
    async fn somebody_who_asks_for_much_at_once_waits_and_is_not_turned_away() {
        let world = World::new();
        world.user("ada@example.com");
        let who = identity(&world).await;
        let caller = Caller::default();
        let change = async |who: &Identity| outcome(world.accounts.change_profile(&caller, who, Some("x"), None).await);
        let asked = futures_util::future::join_all((0..100).map(|_| world.accounts.sessions_of(&who))).await;
        assert!(asked.iter().all(Result::is_ok));
        // what is not there is written down nowhere
        let before = world.db().newest_change().unwrap();
        assert_eq!(world.accounts.end_session(&caller, &who, "x").await, Ok(false));
        assert_eq!(world.accounts.revoke_token(&caller, &who, "x").await, Ok(false));
        assert_eq!(world.db().newest_change().unwrap(), before);
        assert_eq!(change(&who).await, "done");
        assert_eq!(world.db().newest_change().unwrap(), before + 1);
    }

    #[tokio::test]
    async fn people_see_and_end_their_own_sessions_alone() {
        let world = World::new();
        world.user("ada@example.com");
        world.user("bob@example.com");
        let bob = world.sign_in("bob@example.com").await;
        let from = Caller { user_agent: "Phone\r\n/1".to_owned(), ..at("192.0.2.1") };
        let phone = world.try_sign_in(&from, "ada@example.com", GOOD).await.unwrap();
        world.clock.advance(5);
        let who = identity(&world).await;
        let caller = Caller::default();
        let list = world.accounts.sessions_of(&who).await.unwrap();
        let shown: Vec<_> = list
            .iter()
            .map(|info| (info.id.as_str(), info.created, info.address.as_str(), info.user_agent.as_str()))
            .collect();
        assert_eq!(
            shown,
            [(who.session.id.as_str(), START + 5, "", ""), (phone.session.id.as_str(), START, "192.0.2.1", "Phone/1")]
        );
        assert_eq!(world.accounts.end_session(&caller, &who, &bob.session.id).await, Ok(false));
        assert_eq!(world.accounts.end_session(&caller, &who, "nonsense").await, Ok(false));
        assert!(world.accounts.authenticate(bob.token.expose().as_bytes()).is_ok());
        assert_eq!(world.accounts.end_session(&caller, &who, &phone.session.id).await, Ok(true));
        assert_eq!(world.accounts.end_session(&caller, &who, &phone.session.id).await, Ok(false));
        let again = world.sign_in("ada@example.com").await;
        world.accounts.end_sessions(&caller, &who, true).await.unwrap();
        assert_eq!(world.accounts.standing(&again.session), Standing::Ended);
        assert_eq!(world.accounts.standing(&who.session), Standing::Active);
        world.accounts.end_sessions(&caller, &who, false).await.unwrap();
        assert_eq!(world.accounts.standing(&who.session), Standing::Ended);
        assert_eq!(world.accounts.sessions_active(), 1);
    }
}
