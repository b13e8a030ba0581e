//! A user's own sessions: list them, end one, end all.

use std::sync::atomic::Ordering;

use super::session::{Identity, SessionState};
use crate::account::accounts::Accounts;
use crate::account::audit;
use crate::account::caller::Caller;
use crate::account::errors::{StoreDown, store_down};
use crate::clock::UnixSecs;
use crate::store::{self, AuditRow, SessionSelector};

/// One line of the account page's session list.
#[derive(Debug, Clone, serde::Serialize)]
pub struct SessionInfo {
    /// Public id of the session.
    pub id: String,
    /// When it began.
    pub created: UnixSecs,
    /// When it was last used, to within a minute.
    pub seen: UnixSecs,
    /// When it expires.
    pub expires: UnixSecs,
    /// Address at sign-in.
    pub address: String,
    /// User-Agent at sign-in.
    pub user_agent: String,
}

/// The user's active sessions, newest first.
pub async fn list(accounts: &Accounts, who: &Identity) -> Result<Vec<SessionInfo>, StoreDown> {
    let shared = &*accounts.shared;
    let _permit = shared.store_permit_for(who).await.map_err(|_| StoreDown)?;
    let (id, now) = (who.user.id.clone(), shared.clock.now());
    let rows = shared
        .store
        .run(move |db| store::sessions::list(db, Some(&id), now))
        .await
        .map_err(|error| store_down(&error))?;
    let active = rows.into_iter().filter_map(|row| {
        let session = shared.session(&row.id)?;
        (accounts.session_state(&session) == SessionState::Active).then(|| SessionInfo {
            id: row.id,
            created: row.created,
            seen: session.seen.load(Ordering::Relaxed),
            expires: session.expires(),
            address: row.address,
            user_agent: row.user_agent,
        })
    });
    Ok(active.collect())
}

/// Ends one of the user's sessions. `false`: the user has no such session.
pub async fn end(accounts: &Accounts, caller: &Caller, who: &Identity, session_id: &str) -> Result<bool, StoreDown> {
    let id = session_id.to_owned();
    let event = AuditRow {
        // session ids have 22 characters; log no more
        detail: session_id.chars().take(22).filter(|c| !c.is_control()).collect(),
        ..audit::by("session_ended", caller, accounts.shared.clock.now(), who)
    };
    Ok(end_matching(accounts, who, Some(id), None, event).await? > 0)
}

/// Ends all of the user's sessions, or all but the current one.
pub async fn end_all(
    accounts: &Accounts,
    caller: &Caller,
    who: &Identity,
    keep_current: bool,
) -> Result<(), StoreDown> {
    let kept = keep_current.then(|| who.session.id.clone());
    let event = audit::by("sessions_ended", caller, accounts.shared.clock.now(), who);
    end_matching(accounts, who, None, kept, event).await.map(|_| ())
}

async fn end_matching(
    accounts: &Accounts,
    who: &Identity,
    one: Option<String>,
    kept: Option<String>,
    event: AuditRow,
) -> Result<usize, StoreDown> {
    let _permit = accounts.shared.store_permit_for(who).await.map_err(|_| StoreDown)?;
    let (user, written) = (who.user.id.clone(), event.clone());
    let ended = accounts
        .shared
        .store
        .run(move |db| {
            let selector = match (&one, &kept) {
                (Some(id), _) => SessionSelector::SessionOf(id, &user),
                (None, Some(kept)) => SessionSelector::UserBut(&user, kept),
                (None, None) => SessionSelector::User(&user),
            };
            store::sessions::end_sessions(db, selector, written.at, &written)
        })
        .await
        .map_err(|error| store_down(&error))?;
    if ended > 0 {
        audit::log(&event);
    }
    Ok(ended)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::credentials;
    use crate::account::profile;
    use crate::account::testing::{GOOD, START, World, at};
    use crate::account::user_tokens;

    async fn identity(world: &World) -> Identity {
        let done = world.sign_in("ada@example.com").await;
        credentials::session_token(&world.accounts, done.token.expose().as_bytes()).unwrap()
    }

    #[tokio::test]
    async fn many_concurrent_requests_of_one_user_wait_and_are_not_rejected() {
        let world = World::new();
        world.user("ada@example.com");
        let who = identity(&world).await;
        let caller = Caller::default();
        let asked = futures_util::future::join_all((0..100).map(|_| list(&world.accounts, &who))).await;
        assert!(asked.iter().all(Result::is_ok));
        // requests for unknown ids write nothing
        let before = store::sync::newest_change(&mut world.db()).unwrap();
        assert_eq!(end(&world.accounts, &caller, &who, "x").await, Ok(false));
        assert_eq!(user_tokens::revoke(&world.accounts, &caller, &who, "x").await, Ok(false));
        assert_eq!(store::sync::newest_change(&mut world.db()).unwrap(), before);
        assert_eq!(profile::change(&world.accounts, &caller, &who, Some("x"), None).await, Ok(()));
        assert_eq!(store::sync::newest_change(&mut world.db()).unwrap(), before + 1);
    }

    #[tokio::test]
    async fn users_see_and_end_only_their_own_sessions() {
        let world = World::new();
        world.user("ada@example.com");
        world.user("bob@example.com");
        let bob = world.sign_in("bob@example.com").await;
        let from = Caller { user_agent: "Phone\r\n/1".to_owned(), ..at("192.0.2.1") };
        let phone = world.try_sign_in(&from, "ada@example.com", GOOD).await.unwrap();
        world.clock.advance(5);
        let who = identity(&world).await;
        let caller = Caller::default();
        let list = list(&world.accounts, &who).await.unwrap();
        let shown: Vec<_> = list
            .iter()
            .map(|info| (info.id.as_str(), info.created, info.address.as_str(), info.user_agent.as_str()))
            .collect();
        assert_eq!(
            shown,
            [(who.session.id.as_str(), START + 5, "", ""), (phone.session.id.as_str(), START, "192.0.2.1", "Phone/1")]
        );
        assert_eq!(end(&world.accounts, &caller, &who, &bob.session.id).await, Ok(false));
        assert_eq!(end(&world.accounts, &caller, &who, "nonsense").await, Ok(false));
        assert!(credentials::session_token(&world.accounts, bob.token.expose().as_bytes()).is_ok());
        assert_eq!(end(&world.accounts, &caller, &who, &phone.session.id).await, Ok(true));
        assert_eq!(end(&world.accounts, &caller, &who, &phone.session.id).await, Ok(false));
        let again = world.sign_in("ada@example.com").await;
        end_all(&world.accounts, &caller, &who, true).await.unwrap();
        assert_eq!(world.accounts.session_state(&again.session), SessionState::Ended);
        assert_eq!(world.accounts.session_state(&who.session), SessionState::Active);
        end_all(&world.accounts, &caller, &who, false).await.unwrap();
        assert_eq!(world.accounts.session_state(&who.session), SessionState::Ended);
        assert_eq!(world.accounts.sessions_active(), 1);
    }
}
