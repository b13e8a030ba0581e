//! Metrics of accounts and the store. One process serves one set of accounts, so these metrics are global: rooms below
//! the gateway count without holding a handle.

use std::time::Duration;

use parking_lot::Mutex;

use super::providers::PROVIDERS;
use super::series::{Counter, Histogram};
use super::text::Text;

/// Histogram bounds in microseconds.
const HASH: [u64; 7] = [5_000, 10_000, 25_000, 50_000, 100_000, 500_000, 2_000_000];
const WAIT: [u64; 8] = [1_000, 10_000, 50_000, 200_000, 500_000, 1_000_000, 2_000_000, 5_000_000];
const STORE: [u64; 8] = [50, 200, 1_000, 5_000, 20_000, 100_000, 500_000, 2_000_000];

/// Sign-in methods and results, by audit event.
const LOGINS: [(&str, &str, &str); 5] = [
    ("sign_in", "password", "ok"),
    ("sign_in_failed", "password", "wrong"),
    ("throttled", "password", "throttled"),
    ("invite_used", "invite", "ok"),
    ("password_reset", "reset", "ok"),
];

/// Throttle counters for sign-in and sign-up, by name prefix.
const LIMITS: [&str; 6] = ["account", "address", "device", "user", "sign_up", "profile"];

/// Kinds of store operations.
const OPS: [&str; 3] = ["read", "write", "poll"];

/// Causes of store errors.
const STORE_ERRORS: [&str; 7] = ["full", "read_only", "io", "busy", "corrupt", "replaced", "other"];

/// The process-wide instance.
pub static ACCOUNTS: AccountMetrics = AccountMetrics::new();

/// Metrics of accounts and the store.
#[derive(Debug)]
pub struct AccountMetrics {
    logins: [Counter; LOGINS.len()],
    limited: [Counter; LIMITS.len()],
    hash_refused: Counter,
    hash_seconds: Histogram,
    hash_wait_seconds: Histogram,
    store_seconds: [Histogram; OPS.len()],
    store_errors: [Counter; STORE_ERRORS.len()],
    /// Active signing keys and their creation times (seconds since 1970).
    keys: Mutex<Vec<(String, u64)>>,
}

impl AccountMetrics {
    const fn new() -> Self {
        Self {
            logins: [const { Counter::new() }; LOGINS.len()],
            limited: [const { Counter::new() }; LIMITS.len()],
            hash_refused: Counter::new(),
            hash_seconds: Histogram::new(&HASH),
            hash_wait_seconds: Histogram::new(&WAIT),
            store_seconds: [const { Histogram::new(&STORE) }; OPS.len()],
            store_errors: [const { Counter::new() }; STORE_ERRORS.len()],
            keys: Mutex::new(Vec::new()),
        }
    }

    /// Records an audit event; only sign-in events are counted.
    pub fn event(&self, name: &str) {
        if let Some(at) = LOGINS.iter().position(|(event, ..)| *event == name) {
            self.logins[at].add_one();
        }
    }

    /// Records an attempt rejected by a throttle counter; `name` is the counter's, as in `account:...`.
    pub fn limited(&self, name: &str) {
        if let Some(at) = LIMITS.iter().position(|scope| name.split(':').next() == Some(scope)) {
            self.limited[at].add_one();
        }
    }

    /// Records a hashing request rejected because the queue was full or the wait timed out.
    pub fn hash_refused(&self) {
        self.hash_refused.add_one();
    }

    /// Records the time a hashing request waited.
    pub fn hash_waited(&self, waited: Duration) {
        self.hash_wait_seconds.observe(waited);
    }

    /// Records the time to hash or verify one password.
    pub fn hashed(&self, took: Duration) {
        self.hash_seconds.observe(took);
    }

    /// Records the duration of a store operation; `op` is "read", "write" or "poll".
    pub fn stored(&self, op: &str, took: Duration) {
        if let Some(at) = OPS.iter().position(|known| *known == op) {
            self.store_seconds[at].observe(took);
        }
    }

    /// Records a store error; `kind` is one of `STORE_ERRORS`.
    pub fn store_failed(&self, kind: &str) {
        if let Some(at) = STORE_ERRORS.iter().position(|known| *known == kind) {
            self.store_errors[at].add_one();
        }
    }

    /// Sets the active signing keys.
    pub fn keys(&self, keys: impl Iterator<Item = (String, u64)>) {
        *self.keys.lock() = keys.collect();
    }

    pub(super) fn write(&self, text: &mut Text, now: u64) {
        text.counter("logins", "Sign-ins, by method and result");
        for ((_, method, result), count) in LOGINS.iter().zip(&self.logins) {
            text.total("logins", &[("method", method), ("result", result)], count.value());
        }
        PROVIDERS.write_logins(text);
        text.histogram("password_hash_seconds", "Time to hash or verify one password");
        text.times("password_hash_seconds", &[], &self.hash_seconds);
        text.histogram("password_hash_wait_seconds", "Time that passwords waited in the hash queue");
        text.times("password_hash_wait_seconds", &[], &self.hash_wait_seconds);
        text.histogram(
            "store_query_seconds",
            "Duration of one account store transaction; `poll` looks for changes by other processes",
        );
        for (op, histogram) in OPS.iter().zip(&self.store_seconds) {
            text.times("store_query_seconds", &[("op", op)], histogram);
        }
        text.counter("store_errors", "Account store errors, by kind");
        for (kind, count) in STORE_ERRORS.iter().zip(&self.store_errors) {
            text.total("store_errors", &[("kind", kind)], count.value());
        }
        text.gauge("signing_key_age_seconds", "Age of the active signing keys");
        for (kid, created) in &*self.keys.lock() {
            text.value("signing_key_age_seconds", &[("kid", kid)], now.saturating_sub(*created));
        }
    }

    /// Writes further samples of the rejections family.
    pub(super) fn write_limits(&self, text: &mut Text) {
        for (scope, count) in LIMITS.iter().zip(&self.limited) {
            text.total("ratelimited", &[("scope", scope)], count.value());
        }
        text.total("ratelimited", &[("scope", "hash_queue")], self.hash_refused.value());
    }
}
