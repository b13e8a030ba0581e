//! Logs that limits were reached: at most once a minute for each limit and each address or account, with the counts.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How often the log has a line.
const EVERY: Duration = Duration::from_secs(60);
/// Addresses and accounts that are remembered; others have no line until there is room again.
const REMEMBERED_MAX: usize = 1000;

#[derive(Debug, Default)]
pub(crate) struct LimitLog(Mutex<HashMap<(&'static str, String), Reached, ahash::RandomState>>);

#[derive(Debug)]
struct Reached {
    logged: Instant,
    /// Since then.
    refused: u64,
    evicted: u64,
}

impl LimitLog {
    /// Somebody was refused: `who` is an address or an account.
    pub(crate) fn refused(&self, key: &'static str, who: impl FnOnce() -> String) {
        self.add(key, who(), [1, 0]);
    }

    /// A connection was closed for another one.
    pub(crate) fn evicted(&self, key: &'static str, who: impl FnOnce() -> String) {
        self.add(key, who(), [0, 1]);
    }

    fn add(&self, key: &'static str, who: String, [refused, evicted]: [u64; 2]) {
        let mut all = self.0.lock();
        if all.len() >= REMEMBERED_MAX {
            all.retain(|_, reached| reached.logged.elapsed() < EVERY);
        }
        let name = (key, who);
        let Some(reached) = all.get_mut(&name) else {
            if all.len() < REMEMBERED_MAX {
                write(&name, refused, evicted);
                all.insert(name, Reached { logged: Instant::now(), refused: 0, evicted: 0 });
            }
            return;
        };
        reached.refused += refused;
        reached.evicted += evicted;
        if reached.logged.elapsed() >= EVERY {
            write(&name, reached.refused, reached.evicted);
            *reached = Reached { logged: Instant::now(), refused: 0, evicted: 0 };
        }
    }
}

fn write((limit, who): &(&'static str, String), refused: u64, evicted: u64) {
    tracing::warn!(limit, who, refused, closed = evicted, "limit reached");
}
