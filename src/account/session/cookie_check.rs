//! Detects browsers that do not send the session cookie back after a sign-in and would see the login page forever.
//! Remembers recent sign-ins in a fixed number of places, where a new one overwrites an old one; a false positive
//! only causes a hint on the login page.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::session::Session;
use crate::account::caller::Caller;
use crate::clock::UnixSecs;

/// Number of places.
const PLACES: usize = 512;
/// How long a sign-in is remembered, seconds.
const SECS: u64 = 60;

/// The sign-ins of the last minute, as far as they fit.
pub(crate) struct CookieRoundTripCheck {
    /// Random per process, so that nobody can target another client's place.
    hasher: ahash::RandomState,
    places: Mutex<Vec<Option<Begun>>>,
}

#[derive(Clone)]
struct Begun {
    /// Hash of address, User-Agent and redirect target.
    key: u64,
    at: UnixSecs,
    session: Weak<Session>,
}

impl Default for CookieRoundTripCheck {
    fn default() -> Self {
        Self { hasher: ahash::RandomState::new(), places: Mutex::new(vec![None; PLACES]) }
    }
}

impl CookieRoundTripCheck {
    fn key(&self, caller: &Caller, place: &str) -> u64 {
        // browsers do not send the fragment
        let place = place.split('#').next().unwrap_or_default();
        self.hasher.hash_one((caller.address, &caller.user_agent, place))
    }

    /// Records that a browser was given a session cookie and redirected to `place`. Call it before the cookie can be
    /// presented.
    pub(crate) fn begin(&self, caller: &Caller, place: &str, session: &Arc<Session>, now: UnixSecs) {
        // so that a request in the same second changes `seen`
        session.seen.store(session.created.saturating_sub(1), Ordering::Relaxed);
        let key = self.key(caller, place);
        let entry = Begun { key, at: now, session: Arc::downgrade(session) };
        self.places.lock()[Self::place(key)] = Some(entry);
    }

    /// Whether this browser was redirected to `place` with a session cookie a moment ago and the cookie has not been
    /// presented since. A browser that opens the address in a new window has lost nothing: it must come from a page of
    /// this host, or from the provider that it signed in through, after which it counts as coming from elsewhere.
    pub(crate) fn is_missing(&self, caller: &Caller, place: &str, is_from_here: bool, now: UnixSecs) -> bool {
        let key = self.key(caller, place);
        let entry = self.places.lock()[Self::place(key)].clone();
        let Some(entry) = entry.filter(|entry| entry.key == key) else { return false };
        let recent = now.saturating_sub(entry.at) <= SECS;
        let unseen = |session: &Session| {
            !session.ended.load(Ordering::Relaxed) && session.seen.load(Ordering::Relaxed) < session.created
        };
        let is_back = |session: &Session| is_from_here || session.begun_with.is_some();
        recent && entry.session.upgrade().is_some_and(|session| is_back(&session) && unseen(&session))
    }

    fn place(key: u64) -> usize {
        usize::try_from(key % PLACES as u64).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::credentials;
    use crate::account::testing::World;

    fn caller(agent: &str) -> Caller {
        Caller { user_agent: agent.to_owned(), ..Caller::default() }
    }

    #[tokio::test]
    async fn a_missing_cookie_is_detected_for_a_minute_in_the_same_browser_at_the_same_place() {
        let world = World::new();
        world.user("ada@example.com");
        let begun = world.sign_in("ada@example.com").await;
        let accounts = &world.accounts;
        assert!(!accounts.is_cookie_missing(&caller("a"), "/x", true));
        accounts.expect_cookie(&caller("a"), "/x?y=1#part", &begun.session);
        assert!(accounts.is_cookie_missing(&caller("a"), "/x?y=1", true));
        assert!(!accounts.is_cookie_missing(&caller("b"), "/x?y=1", true));
        assert!(!accounts.is_cookie_missing(&caller("a"), "/x", true));
        world.clock.advance(60);
        assert!(accounts.is_cookie_missing(&caller("a"), "/x?y=1", true));
        world.clock.advance(1);
        assert!(!accounts.is_cookie_missing(&caller("a"), "/x?y=1", true));
    }

    #[tokio::test]
    async fn a_returned_or_signed_out_cookie_is_not_missing() {
        let world = World::new();
        world.user("ada@example.com");
        let begun = world.sign_in("ada@example.com").await;
        let accounts = &world.accounts;
        accounts.expect_cookie(&caller("a"), "/x", &begun.session);
        assert!(accounts.is_cookie_missing(&caller("a"), "/x", true));
        // in the same second in which it began
        credentials::session_token(accounts, begun.token.expose().as_bytes()).unwrap();
        assert!(!accounts.is_cookie_missing(&caller("a"), "/x", true));
        let begun = world.sign_in("ada@example.com").await;
        accounts.expect_cookie(&caller("a"), "/x", &begun.session);
        world.admin().revoke_sessions(Some("ada@example.com")).unwrap();
        accounts.ready().await;
        assert!(!accounts.is_cookie_missing(&caller("a"), "/x", true));
    }

    #[tokio::test]
    async fn remembered_sign_ins_are_bounded() {
        let world = World::new();
        world.user("ada@example.com");
        let begun = world.sign_in("ada@example.com").await;
        for n in 0..3 * PLACES {
            world.accounts.expect_cookie(&caller("a"), &format!("/{n}"), &begun.session);
        }
        let remembered =
            (0..3 * PLACES).filter(|n| world.accounts.is_cookie_missing(&caller("a"), &format!("/{n}"), true));
        let remembered = remembered.count();
        assert!(remembered > PLACES / 2 && remembered <= PLACES, "{remembered}");
    }
}
