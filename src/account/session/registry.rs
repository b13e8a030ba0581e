//! All active sessions and their accounts, in memory: every request is checked against it without disk access. It is
//! sharded, each shard behind its own briefly held lock, and full scans are done in steps, so that requests do not
//! wait however many sessions there are.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ahash::RandomState;
use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};

use super::account_entry::AccountEntry;
use super::begun_with::BegunWith;
use super::session::{Session, SessionState};
use super::user::User;
use crate::clock::UnixSecs;
use crate::store::{Account, ActiveSession, IdentityGroups};

const SHARDS: usize = 256;
/// Sessions scanned per step.
const STEP: usize = 50_000;
/// Cost of writing one session, in scanned sessions.
const WRITING: usize = 25;
/// How long tokens of a provider stay in memory without a request of their session, seconds. The store has them.
const TOKENS_IDLE_SECS: u64 = 900;

/// Modified only by the store's thread.
pub(crate) struct SessionRegistry {
    shards: Box<[Shard]>,
    hashes: RandomState,
    idle_secs: AtomicU64,
    max_age_secs: AtomicU64,
}

struct Shard {
    sessions: RwLock<HashSet<ById, RandomState>>,
    /// Accounts that have sessions or tokens, which share them.
    accounts: Mutex<HashMap<Box<str>, AccountEntry, RandomState>>,
}

/// A session, hashed by its id.
struct ById(Arc<Session>);

impl Borrow<str> for ById {
    fn borrow(&self) -> &str {
        &self.0.id
    }
}

impl Hash for ById {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.id.hash(state);
    }
}

impl PartialEq for ById {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for ById {}

impl SessionRegistry {
    pub(crate) fn new(idle_secs: u64, max_age_secs: u64) -> Self {
        let hashes = RandomState::new();
        let shard = || Shard {
            sessions: RwLock::new(HashSet::with_hasher(hashes.clone())),
            accounts: Mutex::new(HashMap::with_hasher(hashes.clone())),
        };
        Self {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            hashes: hashes.clone(),
            idle_secs: idle_secs.into(),
            max_age_secs: max_age_secs.into(),
        }
    }

    /// Sets the limits of all sessions. A longer maximum age only applies to new sessions. Scans all sessions.
    pub(crate) fn set_limits(&self, idle_secs: u64, max_age_secs: u64) {
        self.idle_secs.store(idle_secs, Ordering::Relaxed);
        // before taking the locks, so that sessions that begin meanwhile get it too
        self.max_age_secs.store(max_age_secs, Ordering::Relaxed);
        for shard in &self.shards {
            shard.sessions.read().iter().for_each(|entry| entry.0.shorten(max_age_secs));
        }
    }

    /// The shard of an id; uses hash bits that the tables do not use first.
    fn shard(&self, id: &str) -> &Shard {
        let bits = self.hashes.hash_one(id) >> 32;
        &self.shards[usize::try_from(bits).unwrap_or(0) % SHARDS]
    }

    pub(crate) fn find(&self, id: &str) -> Option<Arc<Session>> {
        self.shard(id).sessions.read().get(id).map(|entry| Arc::clone(&entry.0))
    }

    /// The state of a session.
    pub(crate) fn state(&self, session: &Session, now: UnixSecs) -> SessionState {
        let unused_secs = now.saturating_sub(session.seen.load(Ordering::Relaxed));
        let is_idle = unused_secs > self.idle_secs.load(Ordering::Relaxed) && !session.is_api_token;
        // checked before `ended`, which a sweep may have set for the same reason
        if now >= session.expires() || is_idle {
            SessionState::Expired
        } else if session.ended.load(Ordering::Acquire) || session.user.load().disabled {
            SessionState::Ended
        } else {
            SessionState::Active
        }
    }

    /// Adds a session, unless it is already present.
    pub(crate) fn begin(&self, row: &ActiveSession<'_>) {
        let shard = self.shard(row.id);
        if shard.sessions.read().contains(row.id) {
            return;
        }
        let session =
            Session::new(row.id.to_owned(), self.shared(row.user_id, row.identity), row.created, row.expires, row.seen);
        let begun_with =
            row.identity.map(|identity| Box::new(BegunWith::new(identity, row.checked.unwrap_or(row.created))));
        let session = Session {
            remember: row.remember,
            begun: row.begun,
            authenticated: row.authenticated,
            begun_with,
            ..session
        };
        let mut sessions = shard.sessions.write();
        session.shorten(self.max_age_secs.load(Ordering::Relaxed));
        sessions.insert(ById(Arc::new(session)));
    }

    /// Ends a session.
    pub(crate) fn end(&self, id: &str) {
        if let Some(ById(session)) = self.shard(id).sessions.write().take(id) {
            session.ended.store(true, Ordering::Release);
            forget_tokens(&session);
        }
    }

    /// Ends all sessions whose ids are not in this set.
    pub(crate) fn end_others(&self, active: &HashSet<String>) {
        for shard in &self.shards {
            let ids: Vec<String> = shard.sessions.read().iter().map(|entry| entry.0.id.clone()).collect();
            ids.iter().filter(|id| !active.contains(*id)).for_each(|id| self.end(id));
        }
    }

    /// The account data that API tokens share with all sessions that did not begin with an identity. Until the store
    /// has supplied it, the account counts as disabled.
    pub(crate) fn account(&self, id: &str) -> Arc<ArcSwap<User>> {
        self.shared(id, None)
    }

    fn shared(&self, id: &str, identity: Option<(&str, &str)>) -> Arc<ArcSwap<User>> {
        let mut accounts = self.shard(id).accounts.lock();
        if let Some(known) = accounts.get_mut(id) {
            return known.shared(identity);
        }
        let mut entry = AccountEntry::unknown(id);
        let shared = entry.shared(identity);
        accounts.insert(id.into(), entry);
        shared
    }

    /// Applies an account change; ignored if the account has no sessions or tokens.
    pub(crate) fn change(&self, row: &Account<'_>) {
        if let Some(entry) = self.shard(row.id).accounts.lock().get_mut(row.id) {
            entry.change(row);
        }
    }

    /// Applies the groups of an identity; ignored if it has no sessions.
    pub(crate) fn change_identity(&self, row: &IdentityGroups<'_>) {
        if let Some(entry) = self.shard(row.user_id).accounts.lock().get_mut(row.user_id) {
            entry.change_identity(row);
        }
    }

    /// Visits shards from `from` until one step's work is done; `each` returns the work of its shard. Gives where to
    /// continue.
    fn step(&self, from: usize, mut each: impl FnMut(&Shard) -> usize) -> Option<usize> {
        let mut done = 0;
        for (at, shard) in self.shards.iter().enumerate().skip(from) {
            done += each(shard);
            if done >= STEP {
                return Some(at + 1);
            }
        }
        None
    }

    /// Sessions used at least `by_secs` after the use that the store knows of, of some shards: id and time. And where to
    /// continue.
    pub(crate) fn unwritten(&self, from: usize, by_secs: u64) -> (Vec<(String, UnixSecs)>, Option<usize>) {
        let mut used = Vec::new();
        let next = self.step(from, |shard| {
            let (sessions, before) = (shard.sessions.read(), used.len());
            used.extend(sessions.iter().filter_map(|ById(session)| {
                let seen = session.seen.load(Ordering::Relaxed);
                let is_later = seen >= session.written.load(Ordering::Relaxed).saturating_add(by_secs.max(1));
                is_later.then(|| (session.id.clone(), seen))
            }));
            sessions.len() + (used.len() - before) * WRITING
        });
        (used, next)
    }

    /// Sessions of some shards that began with an identity and for which `wanted` holds; it gets when each was used
    /// last. And where to continue.
    pub(crate) fn begun_with(
        &self,
        from: usize,
        wanted: impl Fn(&BegunWith, UnixSecs) -> bool,
    ) -> (Vec<Arc<Session>>, Option<usize>) {
        let mut found = Vec::new();
        let next = self.step(from, |shard| {
            let sessions = shard.sessions.read();
            let is_wanted = |session: &Session| {
                let begun = session.begun_with.as_deref();
                begun.is_some_and(|begun| wanted(begun, session.seen.load(Ordering::Relaxed)))
            };
            found.extend(sessions.iter().filter(|entry| is_wanted(&entry.0)).map(|entry| Arc::clone(&entry.0)));
            sessions.len()
        });
        (found, next)
    }

    /// Whether the last use of a session that the store knows of is so long ago that it is idle in `within_secs`.
    pub(crate) fn is_nearly_idle(&self, session: &Session, now: UnixSecs, within_secs: u64) -> bool {
        let written = session.written.load(Ordering::Relaxed);
        now.saturating_add(within_secs) > written.saturating_add(self.idle_secs.load(Ordering::Relaxed))
    }

    /// All such sessions of the shards that [`Self::sweep`] visits from `from`.
    pub(crate) fn nearly_idle(&self, from: usize, now: UnixSecs, within_secs: u64) -> Vec<Arc<Session>> {
        let mut found = Vec::new();
        self.step(from, |shard| {
            let sessions = shard.sessions.read();
            let nearly = sessions.iter().filter(|entry| self.is_nearly_idle(&entry.0, now, within_secs));
            found.extend(nearly.map(|entry| Arc::clone(&entry.0)));
            sessions.len()
        });
        found
    }

    /// Takes over when sessions were used, as the store knows it: other nodes may have used them later.
    pub(crate) fn mark_seen(&self, seen: &[(String, UnixSecs)]) {
        for (id, at) in seen {
            if let Some(session) = self.find(id) {
                session.seen.fetch_max(*at, Ordering::Relaxed);
                session.written.fetch_max(*at, Ordering::Relaxed);
            }
        }
    }

    /// Marks sessions as written.
    pub(crate) fn mark_written(&self, seen: &[(String, UnixSecs)]) {
        for (id, at) in seen {
            if let Some(session) = self.find(id) {
                session.written.fetch_max(*at, Ordering::Relaxed);
            }
        }
    }

    /// Drops expired sessions and unused accounts, of some shards. Gives where to continue.
    pub(crate) fn sweep(&self, from: usize, now: UnixSecs) -> Option<usize> {
        let is_over = |session: &Session| self.state(session, now) == SessionState::Expired;
        self.step(from, |shard| {
            let sessions = shard.sessions.read();
            let is_unused =
                |session: &Session| now.saturating_sub(session.seen.load(Ordering::Relaxed)) > TOKENS_IDLE_SECS;
            sessions.iter().filter(|entry| is_unused(&entry.0)).for_each(|entry| forget_tokens(&entry.0));
            let (looked_at, over) = (sessions.len(), sessions.iter().filter(|entry| is_over(&entry.0)));
            let over: Vec<_> = over.map(|entry| entry.0.id.clone()).collect();
            drop(sessions);
            for id in over {
                let mut sessions = shard.sessions.write();
                if sessions.get(id.as_str()).is_some_and(|entry| is_over(&entry.0)) {
                    // permanently: holders must not find it active again after a limit is raised
                    if let Some(entry) = sessions.take(id.as_str()) {
                        entry.0.ended.store(true, Ordering::Release);
                        forget_tokens(&entry.0);
                    }
                }
            }
            shard.accounts.lock().retain(|_, entry| entry.sweep());
            looked_at
        })
    }

    /// Number of active sessions.
    pub(crate) fn count(&self, now: UnixSecs) -> usize {
        let active = |entry: &&ById| self.state(&entry.0, now) == SessionState::Active;
        self.shards.iter().map(|shard| shard.sessions.read().iter().filter(active).count()).sum()
    }
}

fn forget_tokens(session: &Session) {
    if let Some(begun) = &session.begun_with {
        begun.tokens.forget();
    }
}

#[cfg(test)]
mod tests {
    use super::super::upstream_tokens::UpstreamTokens;
    use super::*;

    fn row<'r>(id: &'r str, user_id: &'r str) -> ActiveSession<'r> {
        ActiveSession {
            id,
            user_id,
            created: 1,
            authenticated: 1,
            expires: 1000,
            seen: 1,
            remember: true,
            begun: 1,
            identity: None,
            checked: None,
        }
    }

    fn account<'r>(id: &'r str, groups: &'r str) -> Account<'r> {
        Account { id, email: "ada@example.com", name: "", picture: "", groups, disabled: false }
    }

    #[test]
    fn a_session_is_invalid_before_its_account_is_known_and_an_account_change_applies_to_all() {
        let registry = SessionRegistry::new(100, 5000);
        registry.begin(&row("one", "7"));
        let one = registry.find("one").unwrap();
        assert_eq!(registry.state(&one, 1), SessionState::Ended);
        registry.change(&account("7", "ops,staff"));
        registry.begin(&row("two", "7"));
        let two = registry.find("two").unwrap();
        assert_eq!([&one, &two].map(|session| registry.state(session, 1)), [SessionState::Active; 2]);
        assert_eq!(two.user.load().groups, ["ops", "staff"]);
        let before = one.user.load_full();
        registry.change(&account("7", "ops,staff"));
        assert!(Arc::ptr_eq(&before, &two.user.load_full())); // nothing changed
        registry.change(&Account { disabled: true, ..account("7", "ops,staff") });
        assert_eq!([&one, &two].map(|session| registry.state(session, 1)), [SessionState::Ended; 2]);
        registry.end("one");
        assert!(registry.find("one").is_none());
        assert!(one.ended.load(Ordering::Relaxed));
        assert!(!two.ended.load(Ordering::Relaxed));
    }

    /// Effective groups are the account's and those of the identity that the session began with.
    #[test]
    fn groups_of_a_provider_belong_to_the_sessions_of_that_identity_alone() {
        let registry = SessionRegistry::new(100, 5000);
        registry.begin(&row("password", "7"));
        registry.begin(&ActiveSession { identity: Some(("corp", "a")), ..row("corp", "7") });
        registry.begin(&ActiveSession { identity: Some(("hub", "a")), ..row("hub", "7") });
        let identity = |provider, groups| IdentityGroups { user_id: "7", provider, subject: "a", groups };
        registry.change_identity(&identity("corp", "admin,ops"));
        registry.change(&account("7", "ops,staff"));
        let groups = |id: &str| registry.find(id).unwrap().user.load().groups.join(",");
        assert_eq!(["password", "corp", "hub"].map(groups), ["ops,staff", "admin,ops,staff", "ops,staff"]);
        assert_eq!(registry.account("7").load().groups.join(","), "ops,staff", "API tokens");
        registry.change_identity(&identity("corp", ""));
        registry.change_identity(&identity("hub", "dev"));
        registry.change_identity(&IdentityGroups { subject: "A", ..identity("corp", "root") });
        assert_eq!(["password", "corp", "hub"].map(groups), ["ops,staff", "ops,staff", "dev,ops,staff"]);
        registry.change(&account("7", "staff"));
        assert_eq!(["password", "corp", "hub"].map(groups), ["staff", "staff", "dev,staff"]);
        registry.begin(&ActiveSession { identity: Some(("hub", "a")), ..row("later", "7") });
        assert_eq!(groups("later"), "dev,staff");
        registry.change(&Account { disabled: true, ..account("7", "staff") });
        let ended = |id: &str| registry.state(&registry.find(id).unwrap(), 1) == SessionState::Ended;
        assert_eq!(["password", "corp", "hub", "later"].map(ended), [true; 4]);
    }

    /// Threads cache the sessions of their tokens: a dropped session must not become active again there.
    #[test]
    fn a_dropped_session_stays_ended_when_the_idle_limit_is_raised() {
        let registry = SessionRegistry::new(100, 5000);
        registry.begin(&row("one", "7"));
        registry.begin(&row("two", "7"));
        registry.change(&account("7", ""));
        let (one, two) = (registry.find("one").unwrap(), registry.find("two").unwrap());
        two.seen.store(90, Ordering::Relaxed);
        assert_eq!(registry.state(&one, 150), SessionState::Expired);
        let mut next = Some(0);
        while let Some(from) = next {
            next = registry.sweep(from, 150);
        }
        registry.set_limits(900, 5000);
        assert_eq!((registry.state(&one, 150), registry.state(&two, 150)), (SessionState::Ended, SessionState::Active));
    }

    #[test]
    fn tokens_of_a_provider_leave_memory_with_their_session_and_while_it_is_unused() {
        let registry = SessionRegistry::new(5000, 5000);
        for id in ["ended", "unused", "used"] {
            registry.begin(&ActiveSession { identity: Some(("corp", "a")), expires: 9000, ..row(id, "7") });
        }
        registry.change(&account("7", ""));
        let sessions = ["ended", "unused", "used"].map(|id| registry.find(id).unwrap());
        for session in &sessions {
            session.begun_with.as_ref().unwrap().tokens.store(UpstreamTokens::default());
        }
        let held = || sessions.each_ref().map(|session| session.begun_with.as_ref().unwrap().tokens.load().is_some());
        registry.end("ended");
        sessions[2].seen.store(2, Ordering::Relaxed);
        assert_eq!(held(), [false, true, true]);
        registry.sweep(0, 2 + TOKENS_IDLE_SECS);
        assert_eq!(held(), [false, false, true]);
        assert_eq!(registry.count(2 + TOKENS_IDLE_SECS), 2, "they are signed in all the same");
    }

    #[test]
    fn full_scans_are_done_in_steps_and_miss_no_session() {
        let registry = SessionRegistry::new(100, 5000);
        let ids: Vec<String> = (0..60_000).map(|n| format!("session-{n}")).collect();
        for id in &ids {
            registry.begin(&row(id, "7"));
            registry.find(id).unwrap().seen.store(50, Ordering::Relaxed);
        }
        registry.change(&account("7", ""));
        assert_eq!(registry.count(50), ids.len());
        let (mut written, mut next, mut steps) = (Vec::new(), Some(0), 0);
        while let Some(from) = next {
            let (seen, further) = registry.unwritten(from, 0);
            registry.mark_written(&seen);
            written.extend(seen.into_iter().map(|(id, _)| id));
            (next, steps) = (further, steps + 1);
        }
        written.sort();
        let mut sorted = ids.clone();
        sorted.sort();
        assert!(written == sorted && steps > 10, "{} {steps}", written.len());
        assert!(registry.unwritten(0, 0).0.is_empty());
        let kept = registry.find("session-1").unwrap();
        kept.seen.store(150, Ordering::Relaxed);
        let mut next = registry.sweep(0, 151);
        assert!(next.is_some());
        while let Some(from) = next {
            next = registry.sweep(from, 151);
        }
        assert!(registry.count(151) == 1);
        assert!(registry.find("session-1").is_some());
        assert!(registry.find("session-2").is_none());
        registry.end("session-1");
        drop(kept);
        assert_eq!(registry.sweep(0, 151), None);
        assert!(registry.shards.iter().all(|shard| shard.accounts.lock().is_empty()));
    }
}
