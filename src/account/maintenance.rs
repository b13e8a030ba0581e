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
            let done = write_seen(&self.sessions, &self.api_tokens, db, from);
            self.written.next = logged("could not save last-used times of sessions", done);
        }
        if let Some(from) = self.swept.due(now) {
            if from == 0 {
                self.api_tokens.sweep(past);
                self.issued_cookie_tokens.sweep(past);
                logged("account store not writable", db.try_disk().map(|()| None::<usize>));
            }
            self.swept.next = self.sessions.sweep(from, past);
        }
        if self.noted.due(now).is_some() {
            let done = store::noted::write_noted_ends(db, past).map(|()| None);
            self.noted.next = logged("could not yet save what ended while the disk was full", done);
        }
        if let Some(after) = self.purged.due(now) {
            let done = Self::purge(&settings, db, &after, past);
            self.purged.next = logged("could not delete expired records", done);
        }
    }

    fn purge(settings: &Settings, db: &mut Db, after: &str, now: UnixSecs) -> Result<Option<String>, StoreError> {
        if after.is_empty() {
            store::purge::expired_rows(db, now, settings.keys_secs())?;
            if let Some(folder) = db.folder() {
                folder.keep_reserve();
            }
        }
        store::sessions::purge_sessions(db, after, now, settings.idle_secs, settings.max_age_secs)
    }
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

/// Writes last-seen times, one step; gives where to continue.
pub(super) fn write_seen(
    sessions: &SessionRegistry,
    api_tokens: &ApiTokens,
    db: &mut Db,
    from: usize,
) -> Result<Option<usize>, StoreError> {
    let used = api_tokens.unwritten();
    if !used.is_empty() {
        store::api_tokens::write_tokens_seen(
            db,
            &used.iter().map(|(token, at)| (token.id.clone(), *at)).collect::<Vec<_>>(),
        )?;
        for (token, at) in &used {
            token.written.fetch_max(*at, Ordering::Relaxed);
        }
    }
    let (seen, next) = sessions.unwritten(from);
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
