//! Sign-outs at a provider that a script begins: it gets the address of a page of ours, which leads to the provider. What
//! the page needs waits here, because the session that it belonged to has ended.

use std::collections::{HashMap, VecDeque};

use parking_lot::Mutex;
use url::Url;

use crate::secret::{Secret, random_token, token_hash};

/// How long one waits, seconds: the script opens the page at once.
const WAIT_SECS: u64 = 60;
/// How many wait; the oldest is dropped, and its person is signed out here alone.
const TICKETS_MAX: usize = 4096;

/// Addresses that wait. Times are monotonic seconds.
#[derive(Default)]
pub(crate) struct SignOutTickets(Mutex<Held>);

#[derive(Default)]
struct Held {
    by_hash: HashMap<[u8; 32], Url, ahash::RandomState>,
    order: VecDeque<(u64, [u8; 32])>,
}

impl SignOutTickets {
    /// A ticket for this address; `None`: there are no random numbers.
    pub(crate) fn issue(&self, url: Url, now: u64) -> Option<Secret> {
        let ticket = random_token().ok()?;
        let hash = token_hash(ticket.expose());
        let mut held = self.0.lock();
        held.forget_old(now);
        if held.order.len() >= TICKETS_MAX
            && let Some((_, oldest)) = held.order.pop_front()
        {
            held.by_hash.remove(&oldest);
        }
        held.by_hash.insert(hash, url);
        held.order.push_back((now, hash));
        Some(ticket)
    }

    /// The address of a ticket, once.
    pub(crate) fn redeem(&self, ticket: &str, now: u64) -> Option<Url> {
        let mut held = self.0.lock();
        held.forget_old(now);
        held.by_hash.remove(&token_hash(ticket))
    }
}

impl Held {
    fn forget_old(&mut self, now: u64) {
        while let Some(&(at, oldest)) = self.order.front()
            && at.saturating_add(WAIT_SECS) <= now
        {
            self.order.pop_front();
            self.by_hash.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_good_once_for_a_minute_and_the_table_is_bounded() {
        let tickets = SignOutTickets::default();
        let url = |n: usize| Url::parse(&format!("https://id.example.com/end?n={n}")).unwrap();
        let one = tickets.issue(url(1), 0).unwrap();
        assert_eq!(tickets.redeem("x", 0), None);
        assert_eq!((tickets.redeem(one.expose(), 59), tickets.redeem(one.expose(), 59)), (Some(url(1)), None));
        let late = tickets.issue(url(2), 0).unwrap();
        assert_eq!(tickets.redeem(late.expose(), 60), None);
        let first = tickets.issue(url(3), 100).unwrap();
        for n in 0..TICKETS_MAX {
            tickets.issue(url(n), 100).unwrap();
        }
        assert_eq!((tickets.redeem(first.expose(), 100), tickets.0.lock().by_hash.len()), (None, TICKETS_MAX));
    }
}
