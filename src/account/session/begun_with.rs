//! The identity at a provider that a session began with, and what is known of it since.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use super::upstream_tokens::HeldTokens;
use crate::clock::UnixSecs;

/// The identity.
pub(crate) struct BegunWith {
    /// Name of the provider.
    pub(crate) provider: Box<str>,
    /// The person there.
    pub(crate) subject: Box<str>,
    /// When the provider last confirmed it; Unix seconds.
    checked: AtomicU64,
    /// When it last had an open connection, as far as that is known; Unix seconds.
    open: AtomicU64,
    /// The provider is not asked before then, monotonic seconds.
    wait_until: AtomicU64,
    /// One exchange of its refresh token at a time: providers accept each once.
    pub(crate) refreshing: tokio::sync::Mutex<()>,
    /// What apps get of its tokens.
    pub(crate) tokens: HeldTokens,
}

impl fmt::Debug for BegunWith {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BegunWith").field("provider", &self.provider).finish_non_exhaustive()
    }
}

impl BegunWith {
    pub(crate) fn new((provider, subject): (&str, &str), checked: UnixSecs) -> Self {
        Self {
            provider: provider.into(),
            subject: subject.into(),
            checked: checked.into(),
            open: AtomicU64::new(0),
            wait_until: AtomicU64::new(0),
            refreshing: tokio::sync::Mutex::default(),
            tokens: HeldTokens::default(),
        }
    }

    /// Whether the provider is to be asked again: it confirmed the session `every_secs` ago, which has been used since
    /// (`seen`). `now` is in Unix seconds, `monotonic` in monotonic ones.
    pub(crate) fn is_due(&self, every_secs: u64, seen: UnixSecs, now: UnixSecs, monotonic: u64) -> bool {
        let checked = self.checked.load(Ordering::Relaxed);
        // a clock that was set back must not keep it from being asked
        let is_old = now >= checked.saturating_add(every_secs) || now.saturating_add(every_secs) < checked;
        let used = seen.max(self.open.load(Ordering::Relaxed));
        is_old && used > checked && monotonic >= self.wait_until.load(Ordering::Relaxed)
    }

    /// A connection of the session is open: it is in use, without any request.
    pub(crate) fn has_open_connection(&self, now: UnixSecs) {
        self.open.store(now, Ordering::Relaxed);
    }

    /// The provider confirmed it.
    pub(crate) fn confirmed(&self, now: UnixSecs) {
        self.checked.store(now, Ordering::Relaxed);
        self.wait_until(0);
    }

    /// The provider is not asked before then.
    pub(crate) fn wait_until(&self, monotonic: u64) {
        self.wait_until.store(monotonic, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_is_asked_about_sessions_in_use_and_not_too_often() {
        let begun = BegunWith::new(("corp", "ada"), 1000);
        assert!(!begun.is_due(60, 1059, 1059, 0) && begun.is_due(60, 1060, 1060, 0));
        assert!(!begun.is_due(60, 1000, 5000, 0), "it has not been used");
        begun.has_open_connection(5000);
        assert!(begun.is_due(60, 1000, 5000, 0), "by a WebSocket alone");
        let begun = BegunWith::new(("corp", "ada"), 1000);
        begun.wait_until(30);
        assert!(!begun.is_due(60, 1060, 1060, 29) && begun.is_due(60, 1060, 1060, 30));
        begun.confirmed(1060);
        assert!(!begun.is_due(60, 1061, 1061, 30) && begun.is_due(60, 1120, 1120, 0), "an answer ends the wait");
    }
}
