//! The little that is remembered of attempts, in memory alone: which ones were answered, and what is too long for
//! `state`: return addresses and sealed identities. All are bounded; losing them costs a second try, never safety (a code is used up at the
//! provider anyway).

use std::collections::{HashMap, VecDeque};

use parking_lot::Mutex;

use super::attempt::{ATTEMPT_SECS, AttemptId, ReturnPlace};
use crate::clock::UnixSecs;

/// Attempts that are remembered as answered.
const USED_MAX: usize = 65_536;
/// Return addresses that are kept.
const PLACES_MAX: usize = 4096;
/// Longest return address in `state`, bytes.
const SEALED_PLACE_BYTES_MAX: usize = 512;

/// Sealed identities that are kept, each at most 6 KiB.
const PENDING_MAX: usize = 1024;
/// How long one is kept, seconds; it opens no longer than that.
const PENDING_SECS: u64 = 600;

/// SHA-256 of a sealed identity.
pub(crate) type PendingHash = [u8; 32];

/// What is remembered.
#[derive(Default)]
pub(crate) struct Memory(Mutex<Held>);

#[derive(Default)]
struct Held {
    /// Answered attempts, with the session that began with each.
    used: HashMap<AttemptId, Option<String>, ahash::RandomState>,
    used_order: VecDeque<(UnixSecs, AttemptId)>,
    places: HashMap<u64, String, ahash::RandomState>,
    places_order: VecDeque<u64>,
    next_place: u64,
    pending: HashMap<PendingHash, String, ahash::RandomState>,
    pending_order: VecDeque<(UnixSecs, PendingHash)>,
}

/// Whether an attempt was answered before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Use {
    /// It was not, and now is.
    First,
    /// It was; a session of this id began with it, if one did.
    Again(Option<String>),
}

impl Memory {
    /// Marks an attempt as answered. `now` is a monotonic time in seconds.
    pub(crate) fn use_up(&self, id: AttemptId, now: u64) -> Use {
        let mut held = self.0.lock();
        if let Some(session) = held.used.get(&id) {
            return Use::Again(session.clone());
        }
        while let Some(&(at, oldest)) = held.used_order.front()
            && (held.used.len() >= USED_MAX || at.saturating_add(ATTEMPT_SECS) < now)
        {
            held.used_order.pop_front();
            held.used.remove(&oldest);
        }
        held.used.insert(id, None);
        held.used_order.push_back((now, id));
        Use::First
    }

    /// Remembers the session that an answered attempt began.
    pub(crate) fn began(&self, id: &AttemptId, session: &str) {
        if let Some(known) = self.0.lock().used.get_mut(id) {
            *known = Some(session.to_owned());
        }
    }

    /// How a return address goes into `state`.
    pub(crate) fn keep_place(&self, place: Option<String>) -> ReturnPlace {
        let Some(place) = place else { return ReturnPlace::Here(None) };
        if place.len() <= SEALED_PLACE_BYTES_MAX {
            return ReturnPlace::Here(Some(place));
        }
        let mut held = self.0.lock();
        if held.places_order.len() >= PLACES_MAX
            && let Some(oldest) = held.places_order.pop_front()
        {
            held.places.remove(&oldest);
        }
        let number = held.next_place;
        held.next_place += 1;
        held.places.insert(number, place);
        held.places_order.push_back(number);
        ReturnPlace::Kept(number)
    }

    /// The return address of an attempt; `None`: the default, or it is forgotten.
    pub(crate) fn place(&self, place: &ReturnPlace) -> Option<String> {
        match place {
            ReturnPlace::Here(place) => place.clone(),
            ReturnPlace::Kept(number) => self.0.lock().places.get(number).cloned(),
        }
    }

    /// Keeps a sealed identity, once however often it comes. `now` is a monotonic time in seconds.
    pub(crate) fn keep_pending(&self, hash: PendingHash, sealed: &str, now: u64) {
        let mut held = self.0.lock();
        while let Some(&(at, oldest)) = held.pending_order.front()
            && (held.pending.len() >= PENDING_MAX || at.saturating_add(PENDING_SECS) < now)
        {
            held.pending_order.pop_front();
            held.pending.remove(&oldest);
        }
        if held.pending.insert(hash, sealed.to_owned()).is_none() {
            held.pending_order.push_back((now, hash));
        }
    }

    /// The sealed identity; `None`: it is forgotten.
    pub(crate) fn pending(&self, hash: &PendingHash) -> Option<String> {
        self.0.lock().pending.get(hash).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> AttemptId {
        (number as u128).to_be_bytes()
    }

    #[test]
    fn an_attempt_is_answered_once() {
        let memory = Memory::default();
        assert_eq!(memory.use_up(id(1), 0), Use::First);
        assert_eq!(memory.use_up(id(1), 1), Use::Again(None));
        memory.began(&id(1), "session");
        assert_eq!(memory.use_up(id(1), ATTEMPT_SECS), Use::Again(Some("session".to_owned())));
        assert_eq!(memory.use_up(id(2), 0), Use::First);
    }

    #[test]
    fn both_tables_are_bounded_and_the_oldest_entry_goes() {
        let memory = Memory::default();
        for number in 0..=USED_MAX {
            assert_eq!(memory.use_up(id(number), 0), Use::First);
        }
        assert_eq!(memory.0.lock().used.len(), USED_MAX);
        assert_eq!(memory.use_up(id(1), 0), Use::Again(None));
        // after their time all go
        assert_eq!(memory.use_up(id(USED_MAX + 1), ATTEMPT_SECS + 1), Use::First);
        assert_eq!(memory.0.lock().used.len(), 1);
        let long = |number: usize| format!("/{number:0>600}");
        let kept: Vec<_> = (0..=PLACES_MAX).map(|number| memory.keep_place(Some(long(number)))).collect();
        assert_eq!(memory.0.lock().places.len(), PLACES_MAX);
        assert_eq!((memory.place(&kept[0]), memory.place(&kept[1])), (None, Some(long(1))));
    }

    #[test]
    fn sealed_identities_are_kept_once_each_for_ten_minutes_and_the_oldest_goes() {
        let memory = Memory::default();
        let kept = || {
            let held = memory.0.lock();
            [held.pending.len(), held.pending_order.len()]
        };
        let hash = |number: usize| {
            let mut hash = PendingHash::default();
            hash[..8].copy_from_slice(&number.to_be_bytes());
            hash
        };
        for _ in 0..10 {
            memory.keep_pending(hash(0), "zero", 0);
        }
        assert_eq!(kept(), [1, 1]);
        for number in 1..=PENDING_MAX {
            memory.keep_pending(hash(number), "x", 1);
        }
        assert_eq!((kept(), memory.pending(&hash(0))), ([PENDING_MAX, PENDING_MAX], None));
        assert_eq!(memory.pending(&hash(1)).as_deref(), Some("x"));
        memory.keep_pending(hash(0), "later", PENDING_SECS + 2);
        assert_eq!((kept(), memory.pending(&hash(1))), ([1, 1], None));
        assert_eq!(memory.pending(&hash(0)).as_deref(), Some("later"));
    }

    #[test]
    fn a_short_return_address_needs_no_memory() {
        let memory = Memory::default();
        let place = format!("/{}", "x".repeat(511));
        assert_eq!(memory.keep_place(Some(place.clone())), ReturnPlace::Here(Some(place)));
        assert_eq!(memory.keep_place(None), ReturnPlace::Here(None));
        assert!(memory.0.lock().places.is_empty());
    }
}
