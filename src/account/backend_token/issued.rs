//! Backend tokens that were sent as cookies, by hash, until they expire: server-side `getSession({ req })` in a
//! Next.js app calls the gateway with the cookies it received. They only answer apps and are not credentials here.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::account::limits::bounded_map::BoundedMap;
use crate::account::session::session::Session;
use crate::clock::UnixSecs;
use crate::secret::token_hash;

/// Tokens kept in total.
const TOKENS_MAX: usize = 1 << 18;
/// Tokens kept per session. Every profile change issues a new one.
const TOKENS_PER_SESSION_MAX: usize = 64;

/// The tokens, each with its session and expiry.
pub(crate) struct IssuedCookieTokens(Mutex<BoundedMap<(Weak<Session>, UnixSecs)>>);

impl Default for IssuedCookieTokens {
    fn default() -> Self {
        Self(Mutex::new(BoundedMap::new(TOKENS_PER_SESSION_MAX, TOKENS_MAX)))
    }
}

impl IssuedCookieTokens {
    pub(crate) fn keep(&self, token: &str, session: &Arc<Session>, expires: UnixSecs) {
        self.0.lock().insert(token_hash(token), session, (Arc::downgrade(session), expires));
    }

    /// The session of an unexpired token.
    pub(crate) fn find(&self, token: &str, now: UnixSecs) -> Option<Arc<Session>> {
        let (session, expires) = self.0.lock().get(&token_hash(token)).cloned()?;
        session.upgrade().filter(|_| now < expires)
    }

    /// Drops expired tokens.
    pub(crate) fn sweep(&self, now: UnixSecs) {
        self.0.lock().retain(|(session, expires)| now < *expires && session.strong_count() > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::testing::World;

    /// CWE-770: one user could fill the memory for all, and apps considered everybody else signed out.
    #[tokio::test]
    async fn one_session_evicts_only_its_own_tokens_and_expired_ones_are_dropped() {
        let world = World::new();
        world.user("ada@example.com");
        let (one, other) =
            (world.sign_in("ada@example.com").await.session, world.sign_in("ada@example.com").await.session);
        let tokens = IssuedCookieTokens::default();
        tokens.keep("other", &other, 100);
        (0..1000).for_each(|n| tokens.keep(&format!("token {n}"), &one, 200));
        let owner = |token: &str, now| tokens.find(token, now).map(|session| session.id.clone());
        assert_eq!(tokens.0.lock().len(), TOKENS_PER_SESSION_MAX + 1);
        assert_eq!((owner("token 935", 0), owner("token 936", 0)), (None, Some(one.id.clone())));
        assert_eq!((owner("token 999", 199), owner("token 999", 200)), (Some(one.id.clone()), None));
        assert_eq!(owner("other", 99), Some(other.id.clone()));
        tokens.sweep(100);
        assert_eq!((owner("other", 0), owner("token 999", 0)), (None, Some(one.id.clone())));
        tokens.sweep(200);
        assert_eq!(tokens.0.lock().len(), 0);
    }
}
