//! The only reader of time. Everything else is handed a [`Clock`], so that tests can turn it.
//!
//! Wall-clock seconds decide about sessions and tokens, because those outlive the process. Timers
//! of connections use tokio's monotonic clock and are not read from here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970-01-01T00:00:00Z (RFC 7519 `NumericDate`, whole seconds).
pub type UnixSecs = u64;

/// Where the time comes from: the system, or a hand that a test turns.
#[derive(Clone, Debug, Default)]
pub struct Clock(Option<Arc<AtomicU64>>);

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self(None)
    }

    /// A clock that stands still until [`Clock::advance`] is called.
    pub fn stopped_at(unix_secs: UnixSecs) -> Self {
        Self(Some(Arc::new(AtomicU64::new(unix_secs * 1000))))
    }

    /// Milliseconds since the epoch; 0 if the system's clock stands before it.
    pub fn now_millis(&self) -> u64 {
        match &self.0 {
            Some(hand) => hand.load(Ordering::Relaxed),
            None => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
        }
    }

    /// Whole seconds since the epoch.
    pub fn now(&self) -> UnixSecs {
        self.now_millis() / 1000
    }

    /// Turns a stopped clock forward; does nothing to the system's.
    pub fn advance(&self, secs: u64) {
        if let Some(hand) = &self.0 {
            hand.fetch_add(secs * 1000, Ordering::Relaxed);
        }
    }
}
/// Measures how long something takes. Nothing is decided by it.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(std::time::Instant);

impl Stopwatch {
    /// From now on.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self(std::time::Instant::now())
    }

    /// Until now.
    pub fn elapsed(self) -> std::time::Duration {
        self.0.elapsed()
    }
}
