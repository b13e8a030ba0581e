//! Accounts on a real database in their own folder, with a clock that tests control.

use std::time::Duration;

use super::{Accounts, Admin, Caller, Details, SignInError, SignedIn};
use crate::account::secrets_at_rest::{SecretsAtRest, Source};
use crate::account::sign_in;
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::sealing::SealingKey;
use crate::secret::Secret;
use crate::store::fixtures::Cluster;
use crate::store::{self, Check, Db};

/// The time at which tests start.
pub(super) const START: u64 = 1_800_000_000;
/// A password that the policy accepts.
pub(super) const GOOD: &str = "correct horse battery";
/// Another one.
pub(super) const OTHER: &str = "staple of a new kind";

pub(super) struct World {
    pub(super) accounts: Accounts,
    pub(super) clock: Clock,
    pub(super) config: Config,
    pub(super) dir: tempfile::TempDir,
}

pub(super) fn secret(text: &str) -> Secret {
    Secret::new(text.to_owned())
}

/// A caller at this address.
pub(super) fn at(address: &str) -> Caller {
    Caller { address: Some(address.parse().unwrap()), user_agent: "Test/1".to_owned(), ..Caller::default() }
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(super) fn with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let mut config = config::one_app("builtin:whoami", None, Some(&state)).map_err(|_| "faults").unwrap();
        config.password.argon2 = config::Argon2 { memory_kib: 64, iterations: 1, parallelism: 1 };
        config.pages.title = "Club".to_owned();
        change(&mut config);
        let clock = Clock::stopped_at(START);
        let accounts = Accounts::open(&config, clock.clone()).unwrap();
        Self { accounts, clock, config, dir }
    }

    /// Stops and starts again, on the same folder.
    pub(super) async fn restart(self) -> Self {
        self.accounts.close().await;
        let Self { accounts, clock, config, dir } = self;
        drop(accounts);
        let accounts = Accounts::open(&config, clock.clone()).unwrap();
        Self { accounts, clock, config, dir }
    }

    /// The accounts as a command in another process uses them.
    pub(super) fn admin(&self) -> Admin {
        Admin::open(&self.config, self.clock.clone()).unwrap()
    }

    /// The database as another process sees it.
    pub(super) fn db(&self) -> Db {
        Db::open(&self.config.server.state_dir, Check::Version).unwrap()
    }

    /// The secret that signs session tokens.
    pub(super) fn signing_key(&self) -> zeroize::Zeroizing<Vec<u8>> {
        let rows = store::keys::list(&mut self.db()).unwrap();
        let source = Source::of(&self.db(), &self.config).unwrap();
        SecretsAtRest::open(source, &mut self.db()).unwrap().open_one(&rows[0]).unwrap().secret
    }

    /// Creates an account with the password [`GOOD`].
    pub(super) fn user(&self, email: &str) -> String {
        let details = Details { password: Some(secret(GOOD)), ..Details::default() };
        self.admin().add_user(email, details).unwrap().0.id
    }

    pub(super) async fn try_sign_in(
        &self,
        caller: &Caller,
        email: &str,
        password: &str,
    ) -> Result<SignedIn, SignInError> {
        sign_in::with_password(&self.accounts, caller, email, secret(password), true).await
    }

    pub(super) async fn sign_in(&self, email: &str) -> SignedIn {
        self.try_sign_in(&Caller::default(), email, GOOD).await.unwrap()
    }

    /// Lets the store's due maintenance run: it comes after each job, or after each poll of a shared store.
    pub(super) async fn maintenance(&self) {
        assert!(self.accounts.ready().await);
        assert!(self.accounts.ready().await);
        for _ in 0..3 {
            self.catch_up().await;
        }
    }

    /// Applies what other nodes have done.
    pub(super) async fn catch_up(&self) {
        for _ in 0..20 {
            if self.accounts.shared.store.catch_up().await.is_ok() {
                return;
            }
        }
        panic!("the database does not answer");
    }

    /// Runs SQL on the database, as another program would.
    pub(super) fn sqlite(&self, sql: &str) {
        let file = self.config.server.state_dir.join("authgate.db");
        rusqlite::Connection::open(file).unwrap().execute_batch(sql).unwrap();
    }

    /// From now on failed attempts cannot be cleared.
    pub(super) fn break_forgiving(&self) {
        self.sqlite("CREATE TRIGGER broken BEFORE DELETE ON attempt BEGIN SELECT RAISE(ABORT, 'broken'); END");
    }

    pub(super) fn mend_forgiving(&self) {
        self.sqlite("DROP TRIGGER broken");
    }

    /// Events of the audit trail, newest first.
    pub(super) fn events(&self, count: u32) -> Vec<String> {
        store::audit::trail(&mut self.db(), count).unwrap().into_iter().map(|(event, _)| event).collect()
    }
}

/// Longest wait in any test.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(20);

/// Two nodes on one `PostgreSQL` database, with one clock.
pub(super) struct Pair {
    pub(super) nodes: [World; 2],
    database: String,
    cluster: &'static Cluster,
}

impl Pair {
    /// `None`: this machine has no `PostgreSQL`, and says so.
    pub(super) fn new() -> Option<Self> {
        Self::with(|_| {})
    }

    pub(super) fn with(change: impl Fn(&mut Config) + Sync) -> Option<Self> {
        let cluster = Cluster::shared()?;
        let database = cluster.create_database("pair");
        let clock = Clock::stopped_at(Clock::system().now());
        let key = SealingKey::random().unwrap();
        // both at once, on an empty database
        let nodes = std::thread::scope(|scope| {
            let starts = [(); 2].map(|()| scope.spawn(|| World::on(cluster, &database, &key, &clock, &change)));
            starts.map(|start| start.join().unwrap())
        });
        Some(Self { nodes, database, cluster })
    }

    /// Runs a statement on the database; gives its rows, columns parted by `|`.
    pub(super) fn sql(&self, statement: &str) -> String {
        self.cluster.sql_in(&self.database, statement)
    }
}

impl World {
    fn on(cluster: &Cluster, database: &str, key: &SealingKey, clock: &Clock, change: impl Fn(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config::one_app("builtin:whoami", None, Some(dir.path())).map_err(|_| "faults").unwrap();
        config.password.argon2 = config::Argon2 { memory_kib: 64, iterations: 1, parallelism: 1 };
        let place = dir.path().join("sealing-key");
        std::fs::write(&place, &*key.to_file()).unwrap();
        config.sealing_key = Some(config::SealingKeyPlace::File(place));
        let url = config::parse_store_url(&format!("{}?sslmode=disable", cluster.url(database)), &[], false).unwrap();
        config.store = Some(config::StoreConfig { url, blind_max: Duration::from_secs(300), unreadable: None });
        change(&mut config);
        let accounts = Accounts::open(&config, clock.clone()).unwrap();
        Self { accounts, clock: clock.clone(), config, dir }
    }
}
