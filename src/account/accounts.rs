//! [`Accounts`], the handle that the rest of the gateway holds: open, close, and the in-memory checks of every
//! request. Operations on accounts are functions in the modules beside it.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;

use super::api_token::registry::ApiTokens;
use super::app_cookies::AppCookieKey;
use super::backend_token::issue::{Issuers, TokenIssueError};
use super::backend_token::issued::IssuedCookieTokens;
use super::backend_token::signing_key::{self, SigningKeys};
use super::backend_token::token::IssuedToken;
use super::caller::Caller;
use super::errors::{StartError, StoreDown, store_down};
use super::limits::fair_queue::{Bounds, Busy, FairQueue, Flow, Permit};
use super::maintenance::{Maintenance, hooks, write_seen};
use super::opening::{self, Opened, first_keys, group_map};
use super::password::hash_workers::HashPool;
use super::provider::providers::Providers;
use super::secrets_at_rest::{SecretsAtRest, Source};
use super::session::cookie_check::CookieRoundTripCheck;
use super::session::cookie_token::Keys;
use super::session::registry::SessionRegistry;
use super::session::session::{Identity, Session, SessionState};
use super::settings::Settings;
use super::websocket_ticket::Tickets;
use crate::clock::{Clock, UnixSecs};
use crate::config::Config;
use crate::sealing::SealingKey;
use crate::store::{self, Db, Store};

/// Minimum interval between log hints that a program should use an API token.
const HINT_EVERY_SECS: u64 = 86_400;
/// A clock that is further off the shared store's makes a node unready, seconds.
const CLOCK_OFF_SECS: u64 = 30;
/// Concurrent store jobs for account pages and one-time links; far fewer than the store's own queue holds.
const STORE_JOBS_MAX: usize = 32;
/// Queue bounds for these jobs.
const STORE_QUEUE_BOUNDS: Bounds = Bounds { flow: 256, subject: 64, all: 4096 };
/// Longest wait in that queue.
const STORE_WAIT_MAX: Duration = Duration::from_secs(10);

/// Accounts and sessions under one configuration. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct Accounts {
    pub(super) shared: Arc<Shared>,
}

/// State of one handle: the shared [`Core`] and the configuration that the handle was created for.
pub(super) struct Shared {
    core: Arc<Core>,
    pub(super) settings: Settings,
    pub(super) issuers: Issuers,
    /// `None`: none were ever configured.
    providers: Option<Arc<Providers>>,
}

/// State that exists once per process.
pub(super) struct Core {
    pub(super) store: Store,
    pub(super) hash_pool: HashPool,
    /// Limits store jobs of requests that do not go through the hash pool.
    store_quota: FairQueue,
    /// When the log last hinted that a program signs in repeatedly.
    last_hint: AtomicU64,
    /// Hashes subjects of the fair queues; random per process.
    hashes: ahash::RandomState,
    pub(super) clock: Clock,
    /// The newest settings, for background work.
    active_settings: Arc<ArcSwap<Settings>>,
    pub(super) sessions: Arc<SessionRegistry>,
    pub(super) keys: Arc<Keys>,
    pub(super) signing_keys: Arc<SigningKeys>,
    pub(super) issued_cookie_tokens: Arc<IssuedCookieTokens>,
    pub(super) tickets: Tickets,
    pub(super) cookie_check: CookieRoundTripCheck,
    pub(super) api_tokens: Arc<ApiTokens>,
    app_cookies: AppCookieKey,
    pub(super) secrets: Arc<SecretsAtRest>,
    /// distinguishes this instance's cached tokens from another's
    pub(super) id: u64,
}

impl Core {
    /// Monotonic seconds.
    pub(super) fn monotonic_secs(&self) -> u64 {
        self.clock.monotonic_millis() / 1000
    }
}

impl Deref for Shared {
    type Target = Core;

    fn deref(&self) -> &Core {
        &self.core
    }
}

impl Accounts {
    /// Opens the store, creates the first signing keys, loads keys and sessions, and starts the store's threads and the
    /// hashing threads. The store is the database that `[store] url` names, or a file in `server.state_dir` (created if
    /// missing), which is locked.
    ///
    /// # Errors
    /// One plain line: the database, folder or file is unusable, or another gateway has it locked.
    pub fn open(config: &Config, clock: Clock) -> Result<Self, StartError> {
        static INSTANCES: AtomicU64 = AtomicU64::new(1);
        let settings = Settings::new(config);
        let Opened { mut db, start } = opening::open(config, &clock)?;
        let source = Source::of(&db, config).map_err(StartError)?;
        let secrets = Arc::new(SecretsAtRest::open(source, &mut db).map_err(StartError)?);
        store::identities::map_groups(&mut db, &group_map(config))?;
        store::sealed_tokens::forget_claimed(&mut db)?;
        let app_cookies = first_keys(config, &mut db, &secrets, clock.now())?;
        let sessions = Arc::new(SessionRegistry::new(settings.idle_secs, settings.max_age_secs));
        let (keys, signing_keys) = (Arc::new(Keys::new(db.is_shared())), Arc::new(SigningKeys::default()));
        let (api_tokens, issued_cookie_tokens) =
            (Arc::new(ApiTokens::default()), Arc::new(IssuedCookieTokens::default()));
        let active_settings = Arc::new(ArcSwap::from_pointee(settings.clone()));
        let newest = db.newest_record()?;
        let maintenance =
            Maintenance::new(&active_settings, &sessions, &api_tokens, &issued_cookie_tokens, &clock, newest);
        let hooks = hooks(&active_settings, &sessions, &keys, &signing_keys, &api_tokens, &secrets, maintenance);
        let store = start(db, hooks)?;
        let hash_pool = HashPool::start(settings.password.argon2)
            .map_err(|error| StartError(format!("could not start a hashing thread: {error}")))?;
        let id = INSTANCES.fetch_add(1, Ordering::Relaxed);
        let (tickets, cookie_check) = (Tickets::default(), CookieRoundTripCheck::default());
        let store_quota = FairQueue::new(STORE_JOBS_MAX, STORE_QUEUE_BOUNDS);
        let providers = Providers::prepare(&config.providers, None, &secrets.key(), &clock)?;
        let core = Core {
            store,
            hash_pool,
            store_quota,
            last_hint: AtomicU64::new(0),
            hashes: ahash::RandomState::new(),
            clock,
            active_settings,
            sessions,
            keys,
            signing_keys,
            issued_cookie_tokens,
            tickets,
            cookie_check,
            api_tokens,
            app_cookies,
            secrets,
            id,
        };
        let issuers = Issuers::new(config, None);
        Ok(Self { shared: Arc::new(Shared { core: Arc::new(core), settings, issuers, providers }) })
    }

    /// Why the shared database cannot be reached at the moment, if so: a start waits until it can.
    pub fn store_away(config: &Config) -> Option<String> {
        opening::away(config)
    }

    /// The same accounts under a new configuration, for requests that start from now on. Holders of the old handle
    /// keep the old configuration. `state_dir` is ignored.
    ///
    /// # Errors
    /// [`StoreDown`]: a signing key that the new configuration needs could not be created; nothing changed.
    pub async fn reconfigured(&self, config: &Config) -> Result<Self, StoreDown> {
        let now = self.shared.clock.now();
        for algorithm in signing_key::algorithms(config) {
            let key = signing_key::new_key(algorithm).and_then(|key| self.shared.secrets.seal(&key));
            let key = key.map_err(|_| StoreDown)?;
            let made = self.shared.store.run(move |db| store::keys::first_key(db, &key, now)).await;
            made.map_err(|error| store_down(&error))?;
        }
        let settings = Settings::new(config);
        let issuers = Issuers::new(config, Some(&self.shared.issuers));
        let (before, key) = (self.shared.providers.as_ref(), self.sealing_key());
        let providers =
            Providers::prepare(&config.providers, before, &key, &self.shared.clock).map_err(|_| StoreDown)?;
        Ok(Self { shared: Arc::new(Shared { core: Arc::clone(&self.shared.core), settings, issuers, providers }) })
    }

    /// Applies this handle's settings to background work and to session limits; shorter limits also apply to existing
    /// sessions. Blocking: iterates over all sessions.
    pub fn apply_settings(&self) {
        self.shared.sessions.set_limits(self.shared.settings.idle_secs, self.shared.settings.max_age_secs);
        self.shared.hash_pool.set(self.shared.settings.password.argon2);
        self.shared.active_settings.store(Arc::new(self.shared.settings.clone()));
    }

    /// Maps the groups of providers again: their rules may have changed since people signed in.
    ///
    /// # Errors
    /// [`StoreDown`]: groups are as before.
    pub async fn apply_group_rules(&self, config: &Config) -> Result<(), StoreDown> {
        let map = group_map(config);
        let changed = self.shared.store.run(move |db| store::identities::map_groups(db, &map)).await;
        changed.map(drop).map_err(|error| store_down(&error))
    }

    /// The session's state now. Memory only; does not mark it as seen.
    pub fn session_state(&self, session: &Session) -> SessionState {
        self.shared.sessions.state(session, self.shared.clock.now())
    }

    /// Whether other nodes use the same database.
    pub fn is_shared(&self) -> bool {
        self.shared.store.is_shared()
    }

    /// Whether changes by other nodes, such as revocations, may have been missed for longer than `store.blind_max`. Memory
    /// only; never with a database of this node's own.
    pub fn is_blind(&self) -> bool {
        self.shared.settings.blind_max.is_some_and(|max| self.shared.store.blind() > max)
    }

    /// Remaining seconds of the session, for the cookie's Max-Age; `None` for a browser-session cookie.
    pub fn cookie_max_age(&self, session: &Session) -> Option<u64> {
        session.remember.then(|| session.expires().saturating_sub(self.shared.clock.now()))
    }

    /// An authentication tag for a text, in base64url: only this gateway can create it, so a value that a browser
    /// sends back can be verified. `None`: there is no key.
    pub fn tag(&self, text: &str) -> Option<String> {
        self.shared.keys.tag(text, self.shared.clock.now())
    }

    /// Records that a browser was given a session cookie and redirected to `place`. Call it before the cookie can be
    /// presented.
    pub fn expect_cookie(&self, caller: &Caller, place: &str, session: &Arc<Session>) {
        self.shared.cookie_check.begin(caller, place, session, self.shared.clock.now());
    }

    /// Whether this browser was redirected to `place` with a session cookie a moment ago and the cookie has not been
    /// presented since. `is_from_here`: it comes from a page of this host.
    pub fn is_cookie_missing(&self, caller: &Caller, place: &str, is_from_here: bool) -> bool {
        self.shared.cookie_check.is_missing(caller, place, is_from_here, self.shared.clock.now())
    }

    /// The token for an upstream (by index) in this session; `None` if the upstream gets none. Memory only.
    ///
    /// # Errors
    /// [`TokenIssueError`]: the upstream requires a token and it cannot be issued.
    pub fn backend_token(&self, upstream: usize, who: &Identity) -> Result<Option<Arc<IssuedToken>>, TokenIssueError> {
        let shared = &*self.shared;
        shared.issuers.token(upstream, who, &shared.signing_keys, &shared.issued_cookie_tokens, shared.clock.now())
    }

    /// The identity behind a token that was sent to an upstream as a cookie, until it expires. Only for answering an
    /// app's question who the user is: it is not a credential here.
    pub fn identity_of_cookie_token(&self, token: &str) -> Option<Identity> {
        let session = self.shared.issued_cookie_tokens.find(token, self.shared.clock.now())?;
        let user = session.user.load_full();
        let stands = self.session_state(&session) == SessionState::Active;
        stands.then(|| Identity { session, user, issued: self.shared.clock.now(), grant: None })
    }

    /// The public keys of backends' tokens (RFC 7517, 5).
    pub fn public_keys(&self) -> serde_json::Value {
        self.shared.signing_keys.published(self.shared.clock.now())
    }

    /// The key that authenticates records of app cookies.
    pub fn app_cookie_key(&self) -> &AppCookieKey {
        &self.shared.app_cookies
    }

    /// The sealing key, for values of the gateway's own that are kept elsewhere.
    pub fn sealing_key(&self) -> Arc<SealingKey> {
        self.shared.secrets.key()
    }

    /// The providers that people can sign in through; `None`: none were ever configured.
    pub(crate) fn providers(&self) -> Option<&Providers> {
        self.shared.providers.as_deref()
    }

    /// The identity of a session that has just begun.
    pub(crate) fn identity_of(&self, session: &Arc<Session>) -> Identity {
        let (session, user) = (Arc::clone(session), session.user.load_full());
        Identity { session, user, issued: self.now(), grant: None }
    }

    /// Wall-clock seconds.
    pub(crate) fn now(&self) -> UnixSecs {
        self.shared.clock.now()
    }

    /// Number of active sessions.
    pub fn sessions_active(&self) -> usize {
        self.shared.sessions.count(self.shared.clock.now())
    }

    /// Length of the hash queue, and how long its oldest entry has waited.
    pub fn hash_queue(&self) -> (usize, Duration) {
        self.shared.hash_pool.waiting()
    }

    /// Whether the store responds. Of a shared one, whether this node's threads run: a database that is away is no reason
    /// to end the process.
    pub async fn ready(&self) -> bool {
        if self.is_shared() {
            return self.shared.store.is_running();
        }
        self.shared.store.run(Db::answers).await.is_ok()
    }

    /// Whether this machine's clock is too far from the shared store's for sessions and tokens of other nodes to be checked
    /// by it.
    pub fn clock_is_off(&self) -> bool {
        self.shared.store.clock_offset().unsigned_abs() > CLOCK_OFF_SECS
    }

    /// Why the gateway is not ready, if it is not: without a writable store nobody can sign in, but existing sessions
    /// keep working. Without a shared one all nodes would be unready at once, so this waits until sessions no longer work.
    pub async fn unready(&self) -> Option<&'static str> {
        if !self.ready().await {
            return Some("account store not responding\n");
        }
        if self.clock_is_off() {
            return Some("this machine's clock is more than 30 s off the account store's: check NTP\n");
        }
        if self.is_shared() {
            return self.is_blind().then_some("account store away for longer than store.blind_max\n");
        }
        self.unwritable().await
    }

    /// Why nobody can sign in now, if so: the store is away or not writable.
    pub async fn unwritable(&self) -> Option<&'static str> {
        let writable = self.shared.store.run(Db::is_writable).await;
        writable.is_err().then_some("account store not writable: see the log\n")
    }

    /// Flushes pending writes and stops the threads. Every later change fails.
    pub async fn close(&self) {
        let (sessions, api_tokens) = (Arc::clone(&self.shared.sessions), Arc::clone(&self.shared.api_tokens));
        let write = move |db: &mut Db| {
            let mut next = Some(0);
            while let Some(from) = next {
                next = write_seen(&sessions, &api_tokens, db, from, 0)?;
            }
            Ok(())
        };
        if let Err(error) = self.shared.store.run(write).await {
            store_down(&error);
        }
        let shared = Arc::clone(&self.shared);
        let _ = tokio::task::spawn_blocking(move || shared.core.store.stop()).await;
    }
}

impl Shared {
    /// Whether a day has passed since the last hint.
    pub(super) fn is_hint_due(&self, now: UnixSecs) -> bool {
        let last = self.last_hint.load(Ordering::Relaxed);
        let due = now.abs_diff(last) >= HINT_EVERY_SECS;
        due && self.last_hint.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// A hash that identifies a subject or an account in the fair queues.
    pub(super) fn subject(&self, what: impl std::hash::Hash) -> u64 {
        self.hashes.hash_one(what)
    }

    /// A permit for a store job, queued by the caller's address.
    pub(super) async fn store_permit(&self, caller: &Caller) -> Result<Permit, Busy> {
        self.store_quota.permit(caller.flow(), None, STORE_WAIT_MAX).await
    }

    /// A permit for a store job, queued by account.
    pub(super) async fn store_permit_for(&self, who: &Identity) -> Result<Permit, Busy> {
        self.store_quota.permit(Flow::Account(self.subject(&who.user.id)), None, STORE_WAIT_MAX).await
    }

    #[cfg(test)]
    pub(super) fn keys(&self) -> &Keys {
        &self.keys
    }

    pub(super) fn session(&self, id: &str) -> Option<Arc<Session>> {
        self.sessions.find(id)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{GOOD, OTHER, START, World, secret};
    use super::super::{Details, Rejected, SignedIn};
    use super::*;
    use crate::account::credentials;
    use crate::account::identity::sign_out::sign_out;
    use crate::account::one_time_link;
    use crate::account::profile;
    use crate::account::sign_in;

    fn judged(world: &World, done: &SignedIn) -> Option<Rejected> {
        credentials::session_token(&world.accounts, done.token.expose().as_bytes()).err()
    }

    #[tokio::test]
    async fn a_session_expires_at_its_idle_limit_unless_it_is_used() {
        let world = World::new();
        world.user("ada@example.com");
        let (used, idle) = (world.sign_in("ada@example.com").await, world.sign_in("ada@example.com").await);
        world.clock.advance(7 * 86_400);
        assert_eq!(judged(&world, &used), None);
        world.clock.advance(1);
        assert_eq!((judged(&world, &used), judged(&world, &idle)), (None, Some(Rejected::Expired)));
        assert_eq!(world.accounts.session_state(&idle.session), SessionState::Expired);
        assert_eq!(world.accounts.sessions_active(), 1);
        world.maintenance().await;
        assert_eq!(judged(&world, &idle), Some(Rejected::Ended)); // dropped by the sweep
    }

    #[tokio::test]
    async fn a_session_expires_at_its_absolute_limit_however_much_it_is_used() {
        let world = World::new();
        world.user("ada@example.com");
        let done = world.sign_in("ada@example.com").await;
        for _ in 0..19 {
            world.clock.advance(86_400);
            assert_eq!(judged(&world, &done), None);
        }
        world.clock.advance(86_399);
        assert_eq!(judged(&world, &done), None);
        world.clock.advance(1);
        assert_eq!(judged(&world, &done), Some(Rejected::Expired));
    }

    #[tokio::test]
    async fn the_user_chooses_whether_the_cookie_is_persistent() {
        let world = World::new();
        world.user("ada@example.com");
        let caller = Caller::default();
        let brief =
            sign_in::with_password(&world.accounts, &caller, "ada@example.com", secret(GOOD), false).await.unwrap();
        assert_eq!(world.accounts.cookie_max_age(&brief.session), None);
        let long = world.sign_in("ada@example.com").await;
        assert_eq!(world.accounts.cookie_max_age(&long.session), Some(20 * 86_400));
    }

    #[tokio::test]
    async fn sessions_keys_and_last_use_survive_a_restart() {
        let world = World::new();
        world.user("ada@example.com");
        let done = world.sign_in("ada@example.com").await;
        world.clock.advance(6 * 86_400);
        assert_eq!(judged(&world, &done), None);
        let world = world.restart().await;
        world.clock.advance(6 * 86_400);
        assert_eq!(judged(&world, &done), None);
        assert_eq!(world.accounts.sessions_active(), 1);
    }

    #[tokio::test]
    async fn last_seen_times_are_written_periodically_so_that_a_crash_loses_little() {
        let world = World::new();
        world.user("ada@example.com");
        let done = world.sign_in("ada@example.com").await;
        world.clock.advance(29);
        assert_eq!(judged(&world, &done), None);
        world.maintenance().await;
        assert_eq!(store::sessions::list(&mut world.db(), None, START).unwrap()[0].seen, START);
        world.clock.advance(1);
        world.maintenance().await;
        assert_eq!(store::sessions::list(&mut world.db(), None, START).unwrap()[0].seen, START + 29);
    }

    #[tokio::test]
    async fn changes_by_another_process_are_applied_once_its_command_returns() {
        let world = World::new();
        world.user("ada@example.com");
        let done = world.sign_in("ada@example.com").await;
        let mut admin = world.admin();
        let groups = Some(vec!["staff".to_owned(), "ops".to_owned()]);
        admin
            .set_user("ada@example.com", Details { groups, name: Some("Ada".to_owned()), ..Details::default() })
            .unwrap();
        assert_eq!(admin.wait_until_applied(), None);
        let who = credentials::session_token(&world.accounts, done.token.expose().as_bytes()).unwrap();
        assert_eq!((who.user.groups.join(" "), who.user.name.as_str()), ("ops staff".to_owned(), "Ada"));
        assert_eq!(who.user.values().groups, "ops,staff");
        admin.set_disabled("ada@example.com", true).unwrap();
        assert_eq!(admin.wait_until_applied(), None);
        assert_eq!(judged(&world, &done), Some(Rejected::Ended));
        assert_eq!(world.accounts.session_state(&done.session), SessionState::Ended);
        // enabling restores the account, not its sessions
        admin.set_disabled("ada@example.com", false).unwrap();
        assert_eq!(admin.wait_until_applied(), None);
        assert_eq!(judged(&world, &done), Some(Rejected::Ended));
        world.sign_in("ada@example.com").await;
    }

    #[tokio::test]
    async fn revoking_removing_and_resetting_end_sessions_from_another_process() {
        let world = World::new();
        world.user("ada@example.com");
        world.user("bob@example.com");
        let mut admin = world.admin();
        let bob = world.sign_in("bob@example.com").await;
        let (one, two) = (world.sign_in("ada@example.com").await, world.sign_in("ada@example.com").await);
        admin.revoke_session(&one.session.id).unwrap();
        assert!(admin.revoke_session(&one.session.id).is_err());
        assert_eq!(admin.wait_until_applied(), None);
        assert_eq!((judged(&world, &one), judged(&world, &two)), (Some(Rejected::Ended), None));
        assert_eq!(admin.revoke_sessions(Some("ada@example.com")).unwrap(), 1);
        assert_eq!(admin.wait_until_applied(), None);
        assert_eq!((judged(&world, &two), judged(&world, &bob)), (Some(Rejected::Ended), None));
        let three = world.sign_in("ada@example.com").await;
        admin.set_user("ada@example.com", Details { password: Some(secret(OTHER)), ..Details::default() }).unwrap();
        assert_eq!(admin.wait_until_applied(), None);
        assert_eq!(judged(&world, &three), Some(Rejected::Ended));
        admin.remove_user("bob@example.com").unwrap();
        assert_eq!(admin.wait_until_applied(), None);
        assert_eq!(judged(&world, &bob), Some(Rejected::Ended));
        assert!(bob.session.ended.load(Ordering::Relaxed));
    }

    #[tokio::test]
    async fn a_second_gateway_on_the_same_folder_does_not_start() {
        let world = World::new();
        let error = Accounts::open(&world.config, world.clock.clone()).map(|_| ()).unwrap_err();
        let folder = world.config.server.state_dir.display().to_string();
        assert_eq!(
            error.to_string(),
            format!(
                "{folder}: another authgate (process {}) is using this state directory; stop it first",
                std::process::id()
            )
        );
        let _ = world.restart().await;
    }

    #[tokio::test]
    async fn after_closing_changes_fail_and_sessions_stay_valid() {
        let world = World::new();
        world.user("ada@example.com");
        let done = world.sign_in("ada@example.com").await;
        world.accounts.close().await;
        assert!(!world.accounts.ready().await);
        assert_eq!(judged(&world, &done), None);
        assert_eq!(sign_out(&world.accounts, &Caller::default(), &done.session, "").await, Err(StoreDown));
    }

    #[tokio::test]
    async fn an_unwritable_store_keeps_sessions_and_rejects_changes() {
        let world = World::new();
        world.user("ada@example.com");
        let done = world.sign_in("ada@example.com").await;
        let who = credentials::session_token(&world.accounts, done.token.expose().as_bytes()).unwrap();
        let refuse = async |refuse: bool| {
            let set = move |db: &mut Db| {
                db.refuse_writes(refuse);
                Ok(())
            };
            world.accounts.shared.store.run(set).await.unwrap();
        };
        assert_eq!(world.accounts.unready().await, None);
        refuse(true).await;
        world.clock.advance(3600); // maintenance is due, and fails
        world.maintenance().await;
        let caller = Caller::default();
        let error =
            sign_in::with_password(&world.accounts, &caller, "ada@example.com", secret(GOOD), true).await.map(|_| ());
        assert_eq!(error, Err(super::super::SignInError::Unavailable));
        assert_eq!(sign_out(&world.accounts, &caller, &done.session, "").await, Err(StoreDown));
        let error = profile::change(&world.accounts, &caller, &who, Some("Ada"), None).await;
        assert_eq!(error, Err(super::super::ChangeError::Unavailable));
        assert!(one_time_link::create_first(&world.accounts).await.unwrap().is_none());
        assert_eq!(judged(&world, &done), None);
        // alive for the service manager, but not ready for traffic
        assert!(world.accounts.ready().await);
        assert!(world.accounts.unready().await.is_some());
        refuse(false).await;
        assert_eq!(world.accounts.unready().await, None);
        world.sign_in("ada@example.com").await;
    }

    /// A load balancer must learn of it before the first sign-in fails.
    #[tokio::test]
    async fn an_idle_disk_is_probed_once_a_minute() {
        let world = World::new();
        let refuse = async |refuse: bool| {
            let set = move |db: &mut Db| {
                db.refuse_writes(refuse);
                Ok(())
            };
            world.accounts.shared.store.run(set).await.unwrap();
        };
        for _ in 0..2 {
            world.clock.advance(60);
            world.maintenance().await;
            assert_eq!(world.accounts.unready().await, None);
        }
        refuse(true).await;
        assert_eq!(world.accounts.unready().await, None, "nothing was tried yet");
        world.clock.advance(60);
        world.maintenance().await;
        assert!(world.accounts.unready().await.is_some());
        refuse(false).await;
        assert_eq!(world.accounts.unready().await, None);
    }
}
