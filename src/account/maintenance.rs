//! Periodic work on the store's thread: writes last-seen times, drops expired sessions and tokens from memory, and
//! purges expired rows. Also applies the store's changes to memory.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use arc_swap::ArcSwap;

use super::api_token::registry::ApiTokens;
use super::backend_token::issued::IssuedCookieTokens;
use super::backend_token::signing_key::SigningKeys;
use super::secrets_at_rest::SecretsAtRest;
use super::session::cookie_token::Keys;
use super::session::registry::SessionRegistry;
use super::session::session::Session;
use super::settings::Settings;
use crate::clock::{Clock, Jump, PlausibleTime, UnixSecs};
use crate::logging::Timestamp;
use crate::metrics;
use crate::store::{self, Change, Db, Hooks, StoreError};

/// How often last-seen times are written, seconds; more often if the idle limit is short.
const SEEN_EVERY_SECS: u64 = 30;
/// How often expired sessions are dropped from memory and the disk is probed, seconds.
const SWEEP_EVERY_SECS: u64 = 60;
/// How often revocations that a full disk prevented from being stored are retried, seconds.
const NOTED_EVERY_SECS: u64 = 10;
/// How often expired rows are purged from the store, seconds.
const PURGE_EVERY_SECS: u64 = 3600;
/// How often attempts and bans of a shared store are bounded, seconds.
const BOUND_EVERY_SECS: u64 = 60;
/// The store of several nodes learns of a use that is at least this much later than the last one it knows, seconds; less if
/// the idle limit is short.
const SEEN_BY_SECS: u64 = 300;

/// The periodic work on the store's thread.
pub(super) struct Maintenance {
    sessions: Arc<SessionRegistry>,
    api_tokens: Arc<ApiTokens>,
    issued_cookie_tokens: Arc<IssuedCookieTokens>,
    active_settings: Arc<ArcSwap<Settings>>,
    time: PlausibleTime,
    written: Periodic<usize>,
    swept: Periodic<usize>,
    noted: Periodic<usize>,
    purged: Periodic<String>,
    /// Only on a shared store.
    bounded: Periodic<()>,
    nearly_idle: NearlyIdle,
}

/// Sessions that other nodes end soon unless the shared store learns that they are used: a use is written at once.
struct NearlyIdle {
    sessions: Vec<Arc<Session>>,
    /// Found by the sweep that is under way.
    next: Vec<Arc<Session>>,
    written: Periodic<()>,
}

/// A periodic task that is done in steps, so that nothing waits for all of it.
struct Periodic<P> {
    every_secs: u64,
    /// When it was last due, by the monotonic clock; `None`: never.
    begun: Option<u64>,
    /// Where the next step starts; `None`: idle until the task is due again.
    next: Option<P>,
}

impl<P: Clone + Default> Periodic<P> {
    fn new(every_secs: u64, begun: Option<u64>) -> Self {
        Self { every_secs, begun, next: None }
    }

    /// Where to start a step, if one is due now. `now`: seconds of the monotonic clock.
    fn due(&mut self, now: u64) -> Option<P> {
        if self.next.is_none() && self.begun.is_none_or(|begun| now.saturating_sub(begun) >= self.every_secs) {
            (self.begun, self.next) = (Some(now), Some(P::default()));
        }
        self.next.clone()
    }
}

impl Maintenance {
    pub(super) fn new(
        active_settings: &Arc<ArcSwap<Settings>>,
        sessions: &Arc<SessionRegistry>,
        api_tokens: &Arc<ApiTokens>,
        issued_cookie_tokens: &Arc<IssuedCookieTokens>,
        clock: &Clock,
        newest: Option<UnixSecs>,
    ) -> Self {
        let (time, doubted) = PlausibleTime::new(clock, newest);
        if let Some(jump) = doubted {
            warn(jump, "system clock far from the newest record, check it: nothing is deleted because of it");
        }
        let began = Some(time.monotonic_secs());
        Self {
            sessions: Arc::clone(sessions),
            api_tokens: Arc::clone(api_tokens),
            issued_cookie_tokens: Arc::clone(issued_cookie_tokens),
            active_settings: Arc::clone(active_settings),
            written: Periodic::new(0, began),
            swept: Periodic::new(SWEEP_EVERY_SECS, began),
            noted: Periodic::new(NOTED_EVERY_SECS, None),
            purged: Periodic::new(PURGE_EVERY_SECS, None),
            bounded: Periodic::new(BOUND_EVERY_SECS, None),
            nearly_idle: NearlyIdle { sessions: Vec::new(), next: Vec::new(), written: Periodic::new(1, began) },
            time,
        }
    }

    pub(super) fn run(&mut self, db: &mut Db) {
        if let Some(jump) = self.time.jumped() {
            warn(jump, "system clock jumped: nothing is deleted because of it");
            let done = store::throttle::follow_clock(db, jump.expected / 1000, jump.found / 1000).map(|()| None::<()>);
            logged("could not adjust sign-in attempts and bans to the clock", done);
        }
        // the wall clock decides what is rejected; only time that is borne out erases anything
        let (past, now) = (self.time.now(), self.time.monotonic_secs());
        let settings = self.active_settings.load_full();
        self.written.every_secs = SEEN_EVERY_SECS.min(settings.idle_secs / 10).max(1);
        if let Some(from) = self.written.due(now) {
            let by_secs = if db.is_shared() { SEEN_BY_SECS.min(settings.idle_secs / 100) } else { 0 };
            let done = write_seen(&self.sessions, &self.api_tokens, db, from, by_secs);
            self.written.next = logged("could not save last-used times of sessions", done);
        }
        self.sweep(&settings, db, past);
        if self.noted.due(now).is_some() {
            let done = store::noted::write_noted_ends(db, past).map(|()| None);
            self.noted.next = logged("could not yet save what ended while the disk was full", done);
        }
        if let Some(after) = self.purged.due(now) {
            let done = Self::purge(&settings, db, &after, past);
            self.purged.next = logged("could not delete expired records", done);
        }
        // alone, it is done with each attempt
        if db.is_shared() && self.bounded.due(now).is_some() {
            let done = claim(db, "bound", BOUND_EVERY_SECS)
                .and_then(|claimed| if claimed { store::throttle::bound(db, past).map(|()| None) } else { Ok(None) });
            self.bounded.next = logged("could not drop past sign-in attempts", done);
        }
    }

    /// Drops what has expired from memory, one step. Sessions that are idle here may have been used on other nodes of a
    /// shared store: it is asked before they end. A use of a session that is about to end there is written at once.
    fn sweep(&mut self, settings: &Settings, db: &mut Db, past: UnixSecs) {
        let (now, is_shared) = (self.time.monotonic_secs(), db.is_shared());
        if is_shared {
            self.swept.every_secs = SWEEP_EVERY_SECS.min(settings.idle_secs / 10).max(1);
        }
        let within_secs = 2 * self.swept.every_secs;
        if is_shared && self.nearly_idle.written.due(now).is_some() {
            let done = self.write_nearly_idle(db, past, within_secs);
            self.nearly_idle.written.next = logged("could not save last-used times of sessions", done.map(|()| None));
        }
        let Some(from) = self.swept.due(now) else { return };
        if from == 0 {
            self.api_tokens.sweep(past);
            self.issued_cookie_tokens.sweep(past);
            logged("account store not writable", db.try_disk().map(|()| None::<usize>));
        }
        let asked = if is_shared { self.ask_nearly_idle(db, from, past, within_secs) } else { Ok(()) };
        let done = asked.map(|()| self.sessions.sweep(from, past));
        self.swept.next = logged("could not ask which sessions other nodes have used", done);
        if self.swept.next.is_none() {
            self.nearly_idle.sessions = std::mem::take(&mut self.nearly_idle.next);
        }
    }

    /// Asks when sessions of one step that are nearly idle here were used elsewhere.
    fn ask_nearly_idle(
        &mut self,
        db: &mut Db,
        from: usize,
        past: UnixSecs,
        within_secs: u64,
    ) -> Result<(), StoreError> {
        let nearly = self.sessions.nearly_idle(from, past, within_secs);
        let ids: Vec<&str> = nearly.iter().map(|session| session.id.as_str()).collect();
        if !ids.is_empty() {
            self.sessions.mark_seen(&store::sessions::seen(db, &ids)?);
        }
        self.nearly_idle.next.extend(nearly);
        Ok(())
    }

    fn write_nearly_idle(&self, db: &mut Db, past: UnixSecs, within_secs: u64) -> Result<(), StoreError> {
        let used = self.nearly_idle.sessions.iter().filter_map(|session| {
            let seen = session.seen.load(Ordering::Relaxed);
            let is_later = seen > session.written.load(Ordering::Relaxed) && !session.ended.load(Ordering::Relaxed);
            let is_wanted = is_later && self.sessions.is_nearly_idle(session, past, within_secs);
            is_wanted.then(|| (session.id.clone(), seen))
        });
        let used: Vec<_> = used.collect();
        if !used.is_empty() {
            store::sessions::write_seen(db, &used)?;
            self.sessions.mark_written(&used);
        }
        Ok(())
    }

    /// One step, of one node.
    fn purge(settings: &Settings, db: &mut Db, after: &str, now: UnixSecs) -> Result<Option<String>, StoreError> {
        if after.is_empty() {
            if !claim(db, "purge", PURGE_EVERY_SECS)? {
                return Ok(None);
            }
            store::purge::expired_rows(db, now, settings.keys_secs())?;
            store::nodes::purge(db)?;
            if let Some(folder) = db.folder() {
                folder.keep_reserve();
            }
        }
        store::sessions::purge_sessions(db, after, now, settings.idle_secs, settings.max_age_secs)
    }
}

/// Whether this node is the one to do periodic work now. The next turn is a little before it is due again: nodes whose
/// clocks go differently must not miss it.
fn claim(db: &mut Db, name: &str, every_secs: u64) -> Result<bool, StoreError> {
    db.claim_chore(name, every_secs - every_secs / 12)
}

fn warn(Jump { expected, found }: Jump, what: &str) {
    let [expected, found] = [expected, found].map(Timestamp::new);
    tracing::warn!(clock = found.as_str(), expected = expected.as_str(), "{what}");
}

/// Logs a failed step. Gives where to continue; a failed task starts over when it is due again.
fn logged<P>(what: &str, done: Result<Option<P>, StoreError>) -> Option<P> {
    done.unwrap_or_else(|error| {
        tracing::warn!(%error, "{what}");
        None
    })
}

/// Writes last-seen times that are at least `by_secs` later than those written, one step; gives where to continue.
pub(super) fn write_seen(
    sessions: &SessionRegistry,
    api_tokens: &ApiTokens,
    db: &mut Db,
    from: usize,
    by_secs: u64,
) -> Result<Option<usize>, StoreError> {
    let mut used = api_tokens.unwritten();
    used.retain(|(token, at)| *at >= token.written.load(Ordering::Relaxed).saturating_add(by_secs));
    if !used.is_empty() {
        store::api_tokens::write_tokens_seen(
            db,
            &used.iter().map(|(token, at)| (token.id.clone(), *at)).collect::<Vec<_>>(),
        )?;
        for (token, at) in &used {
            token.written.fetch_max(*at, Ordering::Relaxed);
        }
    }
    let (seen, next) = sessions.unwritten(from, by_secs);
    if !seen.is_empty() {
        store::sessions::write_seen(db, &seen)?;
        sessions.mark_written(&seen);
    }
    Ok(next)
}

/// The store thread's callbacks: apply a change to memory, and do periodic work between jobs.
pub(super) fn hooks(
    active_settings: &Arc<ArcSwap<Settings>>,
    sessions: &Arc<SessionRegistry>,
    keys: &Arc<Keys>,
    signing_keys: &Arc<SigningKeys>,
    api_tokens: &Arc<ApiTokens>,
    secrets: &Arc<SecretsAtRest>,
    mut maintenance: Maintenance,
) -> Hooks {
    let active_settings = Arc::clone(active_settings);
    let (apply_sessions, apply_tokens) = (Arc::clone(sessions), Arc::clone(api_tokens));
    let (keys, signing_keys, secrets) = (Arc::clone(keys), Arc::clone(signing_keys), Arc::clone(secrets));
    Hooks {
        apply: Box::new(move |change| match change {
            Change::Keys(rows) => {
                let rows = secrets.open_all(&rows);
                keys.apply(&rows, active_settings.load().max_age_secs);
                signing_keys.apply(&rows);
                let signing = rows.iter().filter(|row| row.retired.is_none());
                metrics::ACCOUNTS.keys(signing.map(|row| (row.kid.clone(), row.created)));
            }
            Change::Session(row) => apply_sessions.begin(&row),
            Change::SessionEnded(id) => apply_sessions.end(id),
            Change::ApiToken(row) => apply_tokens.apply(row, &apply_sessions),
            Change::Identity(row) => apply_sessions.change_identity(&row),
            Change::Account(row) => apply_sessions.change(&row),
            Change::Reloaded(active, _) => {
                apply_sessions.end_others(&active.sessions);
                apply_tokens.end_others(&active.api_tokens);
                tracing::warn!("backup restored, sessions and tokens that are not in it have ended");
            }
        }),
        tick: Box::new(move |db| maintenance.run(db)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::SignedIn;
    use crate::account::credentials::{self, session_token};
    use crate::account::session::session::SessionState;
    use crate::account::testing::{Pair, World};

    const IDLE_SECS: u64 = 7 * 86_400;

    fn uses(node: &World, done: &SignedIn) -> bool {
        session_token(&node.accounts, done.token.expose().as_bytes()).is_ok()
    }

    fn session(node: &World, done: &SignedIn) -> Option<Arc<Session>> {
        node.accounts.shared.session(&done.session.id)
    }

    /// Neither is a person signed out on one node who works on another, nor does a session outlive its limit.
    #[tokio::test]
    async fn a_session_is_idle_only_if_no_node_has_used_it() {
        let Some(pair) = Pair::new() else { return };
        let [a, b] = &pair.nodes;
        a.user("ada@example.com");
        let [used, idle, asked, unasked] = [(); 4].map(|()| a.sign_in("ada@example.com"));
        let (used, idle, asked, unasked) = (used.await, idle.await, asked.await, unasked.await);
        let began = a.accounts.now();
        a.clock.advance(IDLE_SECS - 50);
        a.maintenance().await;
        b.maintenance().await;
        a.clock.advance(10);
        assert!(uses(a, &used) && uses(a, &asked), "on the other node, just in time");
        a.clock.advance(1);
        a.maintenance().await;
        a.clock.advance(41);
        // it has not swept since: it asks when it is used
        let there = session(b, &asked).unwrap();
        assert_eq!(b.accounts.session_state(&there), SessionState::Expired);
        assert!(!uses(b, &asked) && credentials::is_used_elsewhere(&b.accounts, &there).await && uses(b, &asked));
        let there = session(b, &unasked).unwrap();
        assert!(!credentials::is_used_elsewhere(&b.accounts, &there).await && !uses(b, &unasked));
        a.clock.advance(60);
        for node in [a, b] {
            node.maintenance().await;
            let found = [&used, &idle].map(|done| session(node, done).is_some());
            assert_eq!(found, [true, false]);
        }
        assert!(uses(b, &used) && !uses(b, &idle));
        let seen = pair.sql(&format!("SELECT seen - {began} FROM session WHERE id = '{}'", idle.session.id));
        assert_eq!(seen.trim(), "0");
    }

    /// Two hours of a node's time, of which the database knows nothing: what it does not call past stays.
    #[tokio::test]
    async fn one_node_at_a_time_purges_and_only_what_the_database_calls_past() {
        let Some(pair) = Pair::new() else { return };
        let [a, b] = &pair.nodes;
        a.maintenance().await;
        b.maintenance().await;
        let now = a.accounts.now();
        let add = format!(
            "INSERT INTO link (hash, kind, created, expires) VALUES ('past', 'invite', 1, 2), ('later', 'invite', 1, {});
             INSERT INTO spent (id, expires) VALUES ('past', 2), ('later', {0});
             INSERT INTO attempt (name, at, until) VALUES ('past', 1, 2), ('later', 1, {0})",
            now + 3600
        );
        pair.sql(&add);
        let left = || {
            let count = |table| pair.sql(&format!("SELECT count(*) FROM {table}")).trim().to_owned();
            ["link", "spent", "attempt"].map(count)
        };
        a.clock.advance(7200);
        a.maintenance().await;
        b.maintenance().await;
        assert_eq!(left(), ["2", "2", "2"], "another node has done it less than an hour ago");
        pair.sql("UPDATE chore SET due = 0");
        a.clock.advance(7200);
        a.maintenance().await;
        b.maintenance().await;
        assert_eq!(left(), ["1", "1", "1"]);
        let due = pair.sql(&format!("SELECT name, due - {now} BETWEEN 0 AND 3600 FROM chore ORDER BY name"));
        assert_eq!(due.trim(), "bound|t\npurge|t");
    }

    #[tokio::test]
    async fn several_nodes_write_a_last_use_only_when_it_is_minutes_later() {
        let Some(pair) = Pair::new() else { return };
        let [a, b] = &pair.nodes;
        a.user("ada@example.com");
        let done = a.sign_in("ada@example.com").await;
        let began = a.accounts.now();
        b.catch_up().await;
        for (later, written) in [(100, "0"), (199, "0"), (1, "300"), (299, "300"), (1, "600")] {
            a.clock.advance(later);
            assert!(uses(b, &done));
            b.clock.advance(30);
            b.maintenance().await;
            // the clock that the use was at
            b.clock.set(b.accounts.now() - 30);
            assert_eq!(pair.sql(&format!("SELECT seen - {began} FROM session")).trim(), written);
        }
        a.clock.advance(100);
        assert!(uses(b, &done));
        b.accounts.close().await;
        assert_eq!(
            pair.sql(&format!("SELECT seen - {began} FROM session")).trim(),
            "700",
            "at the end, whatever it is"
        );
    }
}
