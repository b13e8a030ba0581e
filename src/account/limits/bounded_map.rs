//! A map by hash with bounds per session and in total. When it is full, the account with the most entries loses some;
//! nobody is rejected because others have filled it.

use std::collections::{HashMap, VecDeque};

use crate::account::session::session::Session;

pub(crate) type Hash = [u8; 32];

type Map<K, V> = HashMap<K, V, ahash::RandomState>;

/// Values by hash.
pub(crate) struct BoundedMap<V> {
    by_hash: Map<Hash, V>,
    /// Hashes by account and session, oldest first.
    of_account: Map<String, Map<String, VecDeque<Hash>>>,
    of_session_max: usize,
    all_max: usize,
}

impl<V> BoundedMap<V> {
    /// `of_session_max` entries per session, where a new one replaces the oldest; `all_max` in total.
    pub(crate) fn new(of_session_max: usize, all_max: usize) -> Self {
        Self { by_hash: HashMap::default(), of_account: HashMap::default(), of_session_max, all_max }
    }

    pub(crate) fn insert(&mut self, hash: Hash, session: &Session, value: V) {
        while self.by_hash.len() >= self.all_max && self.evict_from_largest() {}
        let account = self.of_account.entry(session.user.load().id.clone()).or_default();
        let own = account.entry(session.id.clone()).or_default();
        if own.len() >= self.of_session_max
            && let Some(oldest) = own.pop_front()
        {
            self.by_hash.remove(&oldest);
        }
        own.push_back(hash);
        self.by_hash.insert(hash, value);
    }

    /// Evicts the older half of the entries of the account with the most. `false`: the map is empty.
    fn evict_from_largest(&mut self) -> bool {
        let count = |sessions: &Map<String, VecDeque<Hash>>| sessions.values().map(VecDeque::len).sum::<usize>();
        let Some(most) = self.of_account.values_mut().max_by_key(|sessions| count(sessions)) else { return false };
        let mut taken = false;
        for own in most.values_mut() {
            for hash in own.drain(..own.len().div_ceil(2)) {
                taken |= self.by_hash.remove(&hash).is_some();
            }
        }
        most.retain(|_, own| !own.is_empty());
        taken
    }

    pub(crate) fn get(&self, hash: &Hash) -> Option<&V> {
        self.by_hash.get(hash)
    }

    /// Removes an entry; `session` gives its session.
    pub(crate) fn remove(&mut self, hash: &Hash, session: impl Fn(&V) -> &Session) -> Option<V> {
        let value = self.by_hash.remove(hash)?;
        let session = session(&value);
        let account = self.of_account.get_mut(&session.user.load().id);
        if let Some(own) = account.and_then(|sessions| sessions.get_mut(&session.id)) {
            own.retain(|other| other != hash);
        }
        Some(value)
    }

    /// Keeps the entries for which `keep` is true.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&V) -> bool) {
        let left = &mut self.by_hash;
        left.retain(|_, value| keep(value));
        self.of_account.retain(|_, sessions| {
            sessions.retain(|_, own| {
                own.retain(|hash| left.contains_key(hash));
                !own.is_empty()
            });
            !sessions.is_empty()
        });
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        let held: usize = self.of_account.values().flat_map(|sessions| sessions.values()).map(VecDeque::len).sum();
        assert_eq!(held, self.by_hash.len());
        held
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arc_swap::ArcSwap;

    use super::*;
    use crate::account::session::user::User;

    fn session(account: &str, id: usize) -> Session {
        let [email, name, picture] = [const { String::new() }; 3];
        let user = User::new(account.to_owned(), email, name, picture, vec![], false);
        Session::new(id.to_string(), Arc::new(ArcSwap::from_pointee(user)), 0, 1000, 0)
    }

    fn hash(number: usize) -> Hash {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&number.to_le_bytes());
        hash
    }

    /// CWE-770: a client that filled the map kept everybody else out.
    #[test]
    fn a_newcomer_to_a_full_map_evicts_from_the_account_with_the_most() {
        let mut held = BoundedMap::new(4, 100);
        (0..10).for_each(|n| held.insert(hash(n), &session(&format!("quiet {n}"), n), n));
        // few per session, of many sessions
        (10..100).for_each(|n| held.insert(hash(n), &session("greedy", n), n));
        assert_eq!(held.len(), 100);
        (100..140).for_each(|n| held.insert(hash(n), &session(&format!("quiet {n}"), n), n));
        assert!((0..10).chain(100..140).all(|n| held.get(&hash(n)) == Some(&n)));
        assert!(held.len() <= 100);
        // everybody has one
        let mut even = BoundedMap::new(4, 10);
        (0..20).for_each(|n| even.insert(hash(n), &session(&n.to_string(), n), n));
        assert_eq!((even.len(), even.get(&hash(19))), (10, Some(&19)));
    }

    #[test]
    fn a_session_evicts_only_its_own_entries_and_removal_leaves_no_trace() {
        let mut held = BoundedMap::new(4, 100);
        held.insert(hash(0), &session("ada", 1), 0);
        (1..50).for_each(|n| held.insert(hash(n), &session("ada", 2), n));
        assert_eq!(
            (held.len(), held.get(&hash(0)), held.get(&hash(45)), held.get(&hash(46))),
            (5, Some(&0), None, Some(&46))
        );
        let owner: &'static Session = Box::leak(Box::new(session("ada", 2)));
        let mut remove = |n| held.remove(&hash(n), |_| owner);
        assert_eq!((remove(46), remove(46), held.len()), (Some(46), None, 4));
        held.retain(|n| *n == 0);
        assert_eq!((held.len(), held.of_account.len()), (1, 1));
        held.retain(|_| false);
        assert!(held.of_account.is_empty());
    }
}
