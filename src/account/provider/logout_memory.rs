//! The little that is remembered of back-channel logouts, in memory alone: tokens that were used, sessions whose end
//! came before their sign-in, and who sent what does not hold. All of it is bounded; only a provider's own tokens get
//! into the first two.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::IpAddr;

use parking_lot::Mutex;

use crate::secret::token_hash;
use crate::web::network::network_prefix;

/// How long tokens and sessions are remembered, seconds: a token is accepted for two minutes, and an attempt to sign in
/// lasts fifteen but has the provider's answer after seconds.
const REMEMBERED_SECS: u64 = 600;
/// Tokens, and sessions, that are remembered.
const REMEMBERED_MAX: usize = 65_536;
/// Failed calls in a window, of one network to one provider, after which further ones are refused.
const FAILURES_MAX: u32 = 60;
/// The window, seconds.
const WINDOW_SECS: u64 = 60;
/// Networks that are counted. A further one is not: what its calls cost is bounded by other limits.
const NETWORKS_MAX: usize = 4096;

type Hash = [u8; 32];

/// What is remembered. Times are monotonic seconds.
#[derive(Default)]
pub(crate) struct LogoutMemory(Mutex<Held>);

#[derive(Default)]
struct Held {
    tokens: Recent,
    sessions: Recent,
    failures: HashMap<(String, Option<IpAddr>), Window, ahash::RandomState>,
}

struct Window {
    began: u64,
    failures: u32,
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

/// Names of providers have no NUL.
fn hash(provider: &str, value: &str) -> Hash {
    token_hash(&format!("{provider}\0{value}"))
}

impl LogoutMemory {
    /// Uses a token. `false`: it was used before.
    pub(crate) fn use_token(&self, provider: &str, id: &str, now: u64) -> bool {
        self.0.lock().tokens.add(hash(provider, id), now)
    }

    /// What a token said could not be carried out: it may be sent again.
    pub(crate) fn forget_token(&self, provider: &str, id: &str) {
        self.0.lock().tokens.forget(&hash(provider, id));
    }

    /// Remembers that a provider's session has ended.
    pub(crate) fn session_ended(&self, provider: &str, id: &str, now: u64) {
        self.0.lock().sessions.add(hash(provider, id), now);
    }

    /// Whether a provider's session has ended: no session may begin with it here.
    pub(crate) fn has_ended(&self, provider: &str, id: &str, now: u64) -> bool {
        self.0.lock().sessions.has(&hash(provider, id), now)
    }

    /// Seconds until a network may call again; `None`: it may now.
    pub(crate) fn retry_after_secs(&self, provider: &str, caller: Option<IpAddr>, now: u64) -> Option<u64> {
        let held = self.0.lock();
        let window = held.failures.get(&(provider.to_owned(), caller.map(network_prefix)))?;
        let ends = window.began.saturating_add(WINDOW_SECS);
        (window.failures >= FAILURES_MAX && now < ends).then(|| ends - now)
    }

    /// Counts a call whose token does not hold.
    pub(crate) fn failed(&self, provider: &str, caller: Option<IpAddr>, now: u64) {
        let mut held = self.0.lock();
        let is_current = |window: &Window| now < window.began.saturating_add(WINDOW_SECS);
        let key = (provider.to_owned(), caller.map(network_prefix));
        if held.failures.len() >= NETWORKS_MAX && !held.failures.contains_key(&key) {
            held.failures.retain(|_, window| is_current(window));
            if held.failures.len() >= NETWORKS_MAX {
                return;
            }
        }
        let window = held.failures.entry(key).or_insert(Window { began: now, failures: 0 });
        if !is_current(window) {
            *window = Window { began: now, failures: 0 };
        }
        window.failures += 1;
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

    // case 74: a stranger who floods the endpoint waits, and the provider does not
    #[test]
    fn the_network_whose_calls_fail_waits_and_no_other() {
        let memory = LogoutMemory::default();
        let [evil, neighbour, provider] = ["2001:db8::1", "2001:db8::2", "192.0.2.1"].map(|a| a.parse::<IpAddr>().ok());
        for _ in 0..FAILURES_MAX {
            assert_eq!(memory.retry_after_secs("corp", evil, 10), None);
            memory.failed("corp", evil, 10);
        }
        assert_eq!(memory.retry_after_secs("corp", evil, 30), Some(40));
        assert_eq!(memory.retry_after_secs("corp", neighbour, 30), Some(40), "the same /64");
        assert_eq!(memory.retry_after_secs("corp", provider, 30), None);
        assert_eq!(memory.retry_after_secs("hub", evil, 30), None);
        assert_eq!(memory.retry_after_secs("corp", evil, 70), None);
        memory.failed("corp", evil, 70);
        assert_eq!(memory.retry_after_secs("corp", evil, 70), None, "a new window");
    }

    #[test]
    fn everything_that_is_remembered_is_bounded() {
        let memory = LogoutMemory::default();
        for number in 0..=REMEMBERED_MAX {
            memory.session_ended("corp", &number.to_string(), 0);
        }
        assert_eq!(memory.0.lock().sessions.known.len(), REMEMBERED_MAX);
        assert!(!memory.has_ended("corp", "0", 0) && memory.has_ended("corp", "1", 0));
        for number in 0..NETWORKS_MAX + 10 {
            let address = std::net::Ipv4Addr::from(u32::try_from(number).unwrap());
            memory.failed("corp", Some(address.into()), 0);
        }
        assert_eq!(memory.0.lock().failures.len(), NETWORKS_MAX);
        memory.failed("corp", None, WINDOW_SECS);
        assert_eq!(memory.0.lock().failures.len(), 1, "windows that have passed are dropped first");
    }
}
