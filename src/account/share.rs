//! What one address, or one account, may have at once of something scarce that all wait for: however many connections
//! and streams it opens, the rest is left to others.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::throttle::network;
use super::{Caller, Identity};

/// One address gets this part of the whole.
const PART: usize = 4;

type Held = Mutex<HashMap<String, usize, ahash::RandomState>>;

/// How many pieces each address (IPv6 by /64) or account holds.
pub(super) struct Shares {
    held: Arc<Held>,
    max: usize,
}

/// One piece, given back when dropped. `None`: of nobody's share.
pub(super) struct Share(Option<(Arc<Held>, String)>);

impl Shares {
    pub(super) fn of(whole: usize) -> Self {
        Self { held: Arc::default(), max: (whole / PART).max(1) }
    }

    /// A piece for the caller; `None`: its address has its share. Nobody knows who comes over a Unix socket: they are
    /// many people.
    pub(super) fn take(&self, caller: &Caller) -> Option<Share> {
        caller.address.map_or(Some(Share(None)), |address| self.take_as(network(address)))
    }

    /// A piece for an account.
    pub(super) fn take_for(&self, who: &Identity) -> Option<Share> {
        self.take_as(format!("user:{}", who.user.id))
    }

    fn take_as(&self, name: String) -> Option<Share> {
        let mut held = self.held.lock();
        let count = held.entry(name.clone()).or_insert(0);
        if *count >= self.max {
            return None;
        }
        *count += 1;
        Some(Share(Some((Arc::clone(&self.held), name))))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let Some((held, name)) = &self.0 else { return };
        let mut held = held.lock();
        if let Some(count) = held.get_mut(name) {
            *count -= 1;
            if *count == 0 {
                held.remove(name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::at;
    use super::*;

    #[test]
    fn an_address_gets_its_part_and_gives_it_back() {
        let shares = Shares::of(33);
        let take = |from: &str| shares.take(&at(from));
        let mut own: Vec<_> = (0..8).map(|n| take(&format!("2001:db8::{n}")).unwrap()).collect();
        assert!(take("2001:db8::ffff").is_none());
        let other = take("2001:db8:0:1::1");
        assert!(other.is_some());
        own.pop();
        assert!(take("2001:db8::ffff").is_some());
        drop((own, other));
        assert!(shares.held.lock().is_empty());
        let over_a_unix_socket: Vec<_> = (0..40).map(|_| shares.take(&Caller::default())).collect();
        assert!(over_a_unix_socket.iter().all(Option::is_some));
    }
}
