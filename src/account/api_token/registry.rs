//! All valid API tokens, in memory. A token acts as its account within its scopes until it expires, is revoked, or
//! the account is disabled or removed.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::RwLock;

use super::grant::{Grant, Scope};
use crate::account::session::registry::SessionRegistry;
use crate::account::session::session::Session;
use crate::clock::UnixSecs;
use crate::secret::token_hash;
use crate::store::ApiTokenRow;

/// Longest token accepted, bytes; ours have 47.
const TOKEN_BYTES_MAX: usize = 64;

struct Entry {
    /// Represents the token where a session is expected: its id is the token's.
    session: Arc<Session>,
    grant: Arc<Grant>,
}

/// All valid tokens, by hash.
#[derive(Default)]
pub(crate) struct ApiTokens(RwLock<HashMap<[u8; 32], Entry, ahash::RandomState>>);

impl ApiTokens {
    /// Applies a change from the store.
    pub(crate) fn apply(&self, row: ApiTokenRow, sessions: &SessionRegistry) {
        let Ok(hash) = <[u8; 32]>::try_from(row.hash.as_slice()) else { return };
        let scopes: Result<Vec<_>, _> = row.scopes.iter().map(|scope| Scope::kept(scope)).collect();
        let mut held = self.0.write();
        // an unreadable scope must not become a wider one: the token is invalid
        match (row.user, scopes) {
            (Some(user), Ok(scopes)) if !row.ended => {
                held.entry(hash).or_insert_with(|| {
                    let session = Session::new(row.id, sessions.account(&user.id), row.created, row.expires, row.seen);
                    let session = Session { is_api_token: true, ..session };
                    Entry { session: Arc::new(session), grant: Arc::new(Grant::new(scopes)) }
                });
            }
            _ => {
                if let Some(token) = held.remove(&hash) {
                    token.session.ended.store(true, Ordering::Release);
                }
            }
        }
    }

    /// Ends all tokens whose ids are not in this set.
    pub(crate) fn end_others(&self, active: &HashSet<String>) {
        self.0.write().retain(|_, token| {
            let stands = active.contains(&*token.session.id);
            if !stands {
                token.session.ended.store(true, Ordering::Release);
            }
            stands
        });
    }

    pub(crate) fn find(&self, token: &[u8]) -> Option<(Arc<Session>, Arc<Grant>)> {
        let token = std::str::from_utf8(token).ok().filter(|token| token.len() <= TOKEN_BYTES_MAX)?;
        let held = self.0.read();
        held.get(&token_hash(token)).map(|found| (Arc::clone(&found.session), Arc::clone(&found.grant)))
    }

    /// Tokens used since their last-seen time was last written, and when.
    pub(crate) fn unwritten(&self) -> Vec<(Arc<Session>, UnixSecs)> {
        let held = self.0.read();
        let used = held.values().filter_map(|token| {
            let seen = token.session.seen.load(Ordering::Relaxed);
            (seen > token.session.written.load(Ordering::Relaxed)).then(|| (Arc::clone(&token.session), seen))
        });
        used.collect()
    }

    /// Drops expired tokens.
    pub(crate) fn sweep(&self, now: UnixSecs) {
        self.0.write().retain(|_, token| now < token.session.expires());
    }
}

#[cfg(test)]
mod tests {
    use crate::account::SessionState;
    use crate::account::admin::api_tokens;
    use crate::account::api_token::user_tokens::TokenDetails;
    use crate::account::credentials;
    use crate::account::testing::{START, World};
    use crate::store;

    /// `session.idle` is for browser sessions: a program's socket used to be closed as expired after it.
    #[tokio::test]
    async fn connections_of_a_token_outlive_the_idle_limit_of_sessions_and_end_with_the_token() {
        let world = World::new();
        world.user("ada@example.com");
        let details = TokenDetails { name: "job".to_owned(), scopes: vec![], lasts_secs: 30 * 86_400, form_id: None };
        let (_, token) = api_tokens::create(&mut world.admin(), "ada@example.com", &details).unwrap();
        assert!(world.accounts.ready().await);
        let who = credentials::api_token(&world.accounts, token.expose().as_bytes()).unwrap();
        world.clock.advance(29 * 86_400);
        assert_eq!(world.accounts.session_state(&who.session), SessionState::Active);
        world.clock.advance(86_400);
        assert_eq!(world.accounts.session_state(&who.session), SessionState::Expired);
    }

    #[tokio::test]
    async fn last_use_of_a_token_is_written_once_the_store_is_writable_again() {
        let world = World::new();
        world.user("ada@example.com");
        let details = TokenDetails { name: "job".to_owned(), scopes: vec![], lasts_secs: 86_400, form_id: None };
        let (_, token) = api_tokens::create(&mut world.admin(), "ada@example.com", &details).unwrap();
        assert!(world.accounts.ready().await);
        let _ = credentials::api_token(&world.accounts, token.expose().as_bytes()).unwrap();
        let seen = || store::api_tokens::list(&mut world.db(), None, 1).unwrap()[0].seen;
        world.sqlite("CREATE TRIGGER broken BEFORE UPDATE ON api_token BEGIN SELECT RAISE(ABORT, 'broken'); END");
        world.clock.advance(60);
        world.maintenance().await;
        assert_eq!(seen(), 0);
        world.sqlite("DROP TRIGGER broken");
        world.clock.advance(60);
        world.maintenance().await;
        assert_eq!(seen(), START);
    }
}
