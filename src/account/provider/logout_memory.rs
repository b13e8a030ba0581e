//! The little that is remembered of back-channel logouts, in memory alone: tokens that were used, and sessions whose end
//! came before their sign-in. Both are bounded for each provider, and only a provider's own tokens get into them.

use std::collections::{HashMap, HashSet, VecDeque};

use parking_lot::Mutex;

use crate::secret::token_hash;

/// How long tokens and sessions are remembered, seconds: a token is accepted for two minutes, and an attempt to sign in
/// lasts fifteen but has the provider's answer after seconds.
const REMEMBERED_SECS: u64 = 600;
/// Tokens, and sessions, of one provider that are remembered: none makes another's be forgotten.
const REMEMBERED_MAX: usize = 16_384;
type Hash = [u8; 32];

/// What is remembered. Times are monotonic seconds.
#[derive(Default)]
pub(crate) struct LogoutMemory(Mutex<HashMap<String, Held, ahash::RandomState>>);

#[derive(Default)]
struct Held {
    tokens: Recent,
    sessions: Recent,
}

/// Values of the last [`REMEMBERED_SECS`].
#[derive(Default)]
struct Recent {
    known: HashSet<Hash, ahash::RandomState>,
    order: VecDeque<(u64, Hash)>,
}

impl Recent {
    /// Adds a value. `false`: it is there already.
    fn add(&mut self, hash: Hash, now: u64) -> bool {
        self.forget_old(now);
        if !self.known.insert(hash) {
            return false;
        }
        if self.order.len() >= REMEMBERED_MAX
            && let Some((_, oldest)) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        self.order.push_back((now, hash));
        true
    }

    fn has(&mut self, hash: &Hash, now: u64) -> bool {
        self.forget_old(now);
        self.known.contains(hash)
    }

    fn forget(&mut self, hash: &Hash) {
        self.known.remove(hash);
        self.order.retain(|(_, other)| other != hash);
    }

    fn forget_old(&mut self, now: u64) {
        while let Some(&(at, oldest)) = self.order.front()
            && at.saturating_add(REMEMBERED_SECS) <= now
        {
            self.order.pop_front();
            self.known.remove(&oldest);
        }
    }
}

impl LogoutMemory {
    /// Uses a token. `false`: it was used before.
    pub(crate) fn use_token(&self, provider: &str, id: &str, now: u64) -> bool {
        self.of(provider, |held| held.tokens.add(token_hash(id), now))
    }

    /// What a token said could not be carried out: it may be sent again.
    pub(crate) fn forget_token(&self, provider: &str, id: &str) {
        self.of(provider, |held| held.tokens.forget(&token_hash(id)));
    }

    /// Remembers that a provider's session has ended.
    pub(crate) fn session_ended(&self, provider: &str, id: &str, now: u64) {
        self.of(provider, |held| held.sessions.add(token_hash(id), now));
    }

    /// Whether a provider's session has ended: no session may begin with it here.
    pub(crate) fn has_ended(&self, provider: &str, id: &str, now: u64) -> bool {
        self.of(provider, |held| held.sessions.has(&token_hash(id), now))
    }

    /// Providers are those of the configuration, so they need no bound.
    fn of<T>(&self, provider: &str, act: impl FnOnce(&mut Held) -> T) -> T {
        let mut held = self.0.lock();
        if let Some(own) = held.get_mut(provider) {
            return act(own);
        }
        act(held.entry(provider.to_owned()).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_used_once_in_ten_minutes_and_again_after_it_could_not_be_carried_out() {
        let memory = LogoutMemory::default();
        assert!(memory.use_token("corp", "1", 0));
        assert!(!memory.use_token("corp", "1", REMEMBERED_SECS - 1));
        assert!(memory.use_token("hub", "1", 0) && memory.use_token("corp", "2", 0), "ids are a provider's own");
        memory.forget_token("corp", "1");
        assert!(memory.use_token("corp", "1", 1));
        assert!(memory.use_token("corp", "2", REMEMBERED_SECS));
    }

    #[test]
    fn an_ended_session_is_remembered_for_ten_minutes() {
        let memory = LogoutMemory::default();
        memory.session_ended("corp", "sid", 5);
        assert!(memory.has_ended("corp", "sid", 5) && memory.has_ended("corp", "sid", REMEMBERED_SECS + 4));
        assert!(!memory.has_ended("corp", "sid", REMEMBERED_SECS + 5));
        assert!(!memory.has_ended("hub", "sid", 5) && !memory.has_ended("corp", "other", 5));
    }

    #[test]
    fn everything_that_is_remembered_is_bounded() {
        let memory = LogoutMemory::default();
        memory.session_ended("hub", "0", 0);
        for number in 0..=REMEMBERED_MAX {
            memory.session_ended("corp", &number.to_string(), 0);
        }
        assert_eq!(memory.0.lock()["corp"].sessions.known.len(), REMEMBERED_MAX);
        assert!(memory.has_ended("hub", "0", 0), "another provider's own");
        assert!(!memory.has_ended("corp", "0", 0) && memory.has_ended("corp", "1", 0));
    }
}
