//! What people do to their own account: profile, password, sessions.

use std::sync::atomic::Ordering;

use super::accounts::{Accounts, down};
use super::enroll::unavailable;
use super::password::Verdict;
use super::session::{Identity, Standing};
use super::{Caller, ChangeError, FieldError, SessionInfo, StoreDown, audit, blocklist, email, throttle};
use crate::secret::Secret;
use crate::store::{AuditRow, Counted, Ends, Password, UserChange, UserRow, Whose, Written};

fn wrong_password() -> ChangeError {
    ChangeError::Field(FieldError {
        field: "current_password",
        code: "wrong",
        message: "This is not your current password.".to_owned(),
    })
}

impl Accounts {
    /// Changes the password after checking the current one; ends all other sessions. Wrong ones
    /// are counted and throttled like sign-ins.
    pub async fn change_password(
        &self,
        caller: &Caller,
        who: &Identity,
        current: Secret,
        new: Secret,
    ) -> Result<(), ChangeError> {
        let shared = &*self.shared;
        blocklist::judge(&shared.settings.password, &shared.settings.title, &who.user.email, &new)?;
        let place = shared.hasher.place().map_err(|_| ChangeError::Busy)?;
        let (counted, user) = self.count_for(who).await?;
        let old = user.and_then(|user| user.password);
        let verdict = place.verify(current, old.clone()).await.map_err(|_| ChangeError::Busy)?;
        let now = shared.clock.now();
        let Verdict::Right(_) = verdict else {
            self.count_failure(counted, audit::by("password_change_failed", caller, now, who), now).await?;
            return Err(wrong_password());
        };
        let hash = place.hash(new).await.map_err(|_| ChangeError::Busy)?;
        let event = audit::by("password_changed", caller, now, who);
        let (id, kept, written) = (who.user.id.clone(), who.session.id.clone(), event.clone());
        let done = shared
            .store
            .run(move |db| {
                let password = Some(Password { new: hash, only_over: old });
                let what = UserChange { password, ..UserChange::default() };
                let done = db.change_user(&id, &what, Ends::AllBut(&kept), now, &written)?;
                db.attempt_right(&counted)?;
                Ok(done)
            })
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

    async fn count_for(&self, who: &Identity) -> Result<(Counted, Option<UserRow>), ChangeError> {
        let shared = &*self.shared;
        let limits = throttle::of_user(shared.settings.throttle, &who.user.id);
        let (find, now, id) = (shared.settings.throttle.find_time.as_secs(), shared.clock.now(), who.user.id.clone());
        let (counted, user) = shared
            .store
            .run(move |db| Ok((db.count_attempt(&limits, now, find)?, db.user_by_id(&id)?)))
            .await
            .map_err(|error| unavailable(&error))?;
        let counted = counted.map_err(|retry_after_secs| ChangeError::Throttled { retry_after_secs })?;
        Ok((counted, user))
    }

    /// Changes name and picture; either may be empty.
    pub async fn change_profile(
        &self,
        caller: &Caller,
        who: &Identity,
        name: &str,
        picture: &str,
    ) -> Result<(), ChangeError> {
        let shared = &*self.shared;
        let what = UserChange {
            name: Some(email::name(name)?),
            picture: Some(email::picture(picture)?),
            ..UserChange::default()
        };
        let now = shared.clock.now();
        let event = audit::by("profile_changed", caller, now, who);
        let (id, written) = (who.user.id.clone(), event.clone());
        let done = shared
            .store
            .run(move |db| db.change_user(&id, &what, Ends::None, now, &written))
            .await
            .map_err(|error| unavailable(&error))?;
        if !matches!(done, Written::Done(_)) {
            return Err(ChangeError::Unavailable);
        }
        audit::log(&event);
        Ok(())
    }

    /// The person's sessions that stand, newest first.
    pub async fn sessions_of(&self, who: &Identity) -> Result<Vec<SessionInfo>, StoreDown> {
        let shared = &*self.shared;
        let (id, now) = (who.user.id.clone(), shared.clock.now());
        let rows = shared.store.run(move |db| db.sessions(Some(&id), now)).await.map_err(|error| down(&error))?;
        let standing = rows.into_iter().filter_map(|row| {
            let session = shared.session(&row.id)?;
            (self.standing(&session) == Standing::Active).then(|| SessionInfo {
                id: row.id,
                created: row.created,
                seen: session.seen.load(Ordering::Relaxed),
                expires: row.expires,
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
