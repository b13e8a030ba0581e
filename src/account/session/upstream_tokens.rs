//! Tokens of a provider as apps get them, in memory while their session is in use. Requests read them without a lock; one
//! task at a time reads or exchanges them for a session, and the requests that need it wait for that task.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use tokio::sync::Notify;

use crate::config::ProviderTokenKind;
use crate::secret::Secret;

/// Longest token that is sent, bytes. The OpenID kinds accept no longer one.
pub(crate) const TOKEN_BYTES_MAX: usize = 16 << 10;
/// Requests wait for a new token once the old one is about to expire, seconds: it must still be valid when the app
/// uses it.
const LEAD_SECS: u64 = 5;
const BEARER: &str = "Bearer ";

/// A token. Times are monotonic seconds, so that a wall clock that is set does not change them.
pub(crate) struct UpstreamToken {
    /// With the scheme of `Authorization` before it.
    bearer: Secret,
    times: Option<Times>,
}

struct Times {
    /// From here on a new one is asked for.
    refresh: u64,
    /// From here on requests wait for it.
    wait: u64,
    expires: u64,
}

/// What a request may do with a token now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Age {
    /// Send it.
    Fresh,
    /// Send it, and ask for a new one.
    Old,
    /// Ask for a new one first; send it if there is none.
    Expiring,
    Expired,
}

impl UpstreamToken {
    /// A token that expires in so many seconds; `None`: the provider does not say. It is asked for again after 80 % of
    /// that time, if there `is_renewable`.
    ///
    /// # Errors
    /// Why no header can hold it.
    pub(crate) fn new(
        value: &Secret,
        lifetime_secs: Option<u64>,
        is_renewable: bool,
        now: u64,
    ) -> Result<Self, &'static str> {
        let text = value.expose();
        if text.len() > TOKEN_BYTES_MAX {
            return Err("longer than 16 KiB");
        }
        // RFC 6750, 2.1 and RFC 7515, 3.1 allow less
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err("has bytes that no header can hold");
        }
        let times = lifetime_secs.map(|lifetime| {
            let expires = now.saturating_add(lifetime);
            let refresh = if is_renewable { expires - lifetime / 5 } else { expires };
            let wait = refresh.max(expires.saturating_sub(LEAD_SECS));
            Times { refresh, wait, expires }
        });
        let mut bearer = String::with_capacity(BEARER.len() + text.len());
        bearer.push_str(BEARER);
        bearer.push_str(text);
        Ok(Self { bearer: Secret::new(bearer), times })
    }

    /// Value of the header; `with_scheme`: as `Authorization` has it.
    pub(crate) fn value(&self, with_scheme: bool) -> &str {
        let text = self.bearer.expose();
        if with_scheme { text } else { text.strip_prefix(BEARER).unwrap_or_default() }
    }

    pub(crate) fn age(&self, now: u64) -> Age {
        match &self.times {
            Some(times) if now >= times.expires => Age::Expired,
            Some(times) if now >= times.wait => Age::Expiring,
            Some(times) if now >= times.refresh => Age::Old,
            _ => Age::Fresh,
        }
    }
}

/// The tokens of a session, as far as the configuration asks for them.
#[derive(Default)]
pub(crate) struct UpstreamTokens {
    pub(crate) access: Option<Arc<UpstreamToken>>,
    pub(crate) id: Option<Arc<UpstreamToken>>,
}

impl UpstreamTokens {
    pub(crate) fn of(&self, kind: ProviderTokenKind) -> Option<&Arc<UpstreamToken>> {
        match kind {
            ProviderTokenKind::Access => self.access.as_ref(),
            ProviderTokenKind::Id => self.id.as_ref(),
        }
    }
}

/// What a session has of them.
#[derive(Default)]
pub(crate) struct HeldTokens {
    /// `None`: no app has needed one since the start, or for a while.
    tokens: ArcSwapOption<UpstreamTokens>,
    /// A task is reading or exchanging them.
    is_busy: AtomicBool,
    /// After a failure no task begins before then, monotonic seconds.
    retry_at: AtomicU64,
    settled: Notify,
}

impl HeldTokens {
    pub(crate) fn load(&self) -> Option<Arc<UpstreamTokens>> {
        self.tokens.load_full()
    }

    pub(crate) fn store(&self, tokens: UpstreamTokens) {
        self.tokens.store(Some(Arc::new(tokens)));
        self.retry_at.store(0, Ordering::Relaxed);
    }

    /// Wipes them, once the last request that sends one is done.
    pub(crate) fn forget(&self) {
        if self.tokens.load().is_some() {
            self.tokens.store(None);
        }
    }

    /// Whether a task may begin: none is at work, and none has failed a moment ago. The caller must [`Self::settle`].
    pub(crate) fn begin(&self, now: u64) -> bool {
        !self.is_failed(now) && !self.is_busy.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn is_failed(&self, now: u64) -> bool {
        now < self.retry_at.load(Ordering::Relaxed)
    }

    /// The task failed; there is none before `retry_at`.
    pub(crate) fn fail(&self, retry_at: u64) {
        self.retry_at.store(retry_at, Ordering::Relaxed);
    }

    /// The task is done: wakes all who wait.
    pub(crate) fn settle(&self) {
        self.is_busy.store(false, Ordering::Release);
        self.wake();
    }

    /// There are other tokens: all who wait look at them.
    pub(crate) fn wake(&self) {
        self.settled.notify_waiters();
    }

    /// Resolves when there is something to look at. Enable it before looking at the tokens.
    pub(crate) fn settled(&self) -> tokio::sync::futures::Notified<'_> {
        self.settled.notified()
    }
}

#[cfg(test)]
mod tests {
    use super::Age::{Expired, Expiring, Fresh, Old};
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    #[test]
    fn a_token_is_asked_for_again_after_four_fifths_of_its_time_and_awaited_just_before_its_end() {
        let token = UpstreamToken::new(&secret("abc"), Some(100), true, 1000).unwrap();
        let ages = [1000, 1079, 1080, 1094, 1095, 1099, 1100].map(|now| token.age(now));
        assert_eq!(ages, [Fresh, Fresh, Old, Old, Expiring, Expiring, Expired]);
        let brief = UpstreamToken::new(&secret("abc"), Some(10), true, 1000).unwrap();
        assert_eq!([1007, 1008, 1010].map(|now| brief.age(now)), [Fresh, Expiring, Expired]);
        let last = UpstreamToken::new(&secret("abc"), Some(100), false, 1000).unwrap();
        assert_eq!([1099, 1100].map(|now| last.age(now)), [Fresh, Expired], "there is none after it");
        let endless = UpstreamToken::new(&secret("abc"), None, true, 1000).unwrap();
        assert_eq!(endless.age(u64::MAX), Fresh);
        assert_eq!(UpstreamToken::new(&secret("abc"), Some(0), true, 1000).unwrap().age(1000), Expired);
    }

    #[test]
    fn a_token_is_sent_by_itself_or_with_the_scheme_and_only_if_a_header_can_hold_it() {
        let token = UpstreamToken::new(&secret("a.b-c~d+/="), None, true, 0).unwrap();
        assert_eq!((token.value(false), token.value(true)), ("a.b-c~d+/=", "Bearer a.b-c~d+/="));
        for bad in ["", "a b", "a\r\nX-Admin: 1", "a\0", "ä", "a\t"] {
            assert!(UpstreamToken::new(&secret(bad), None, true, 0).is_err(), "{bad:?}");
        }
        assert!(UpstreamToken::new(&secret(&"x".repeat(TOKEN_BYTES_MAX)), None, true, 0).is_ok());
        assert!(UpstreamToken::new(&secret(&"x".repeat(TOKEN_BYTES_MAX + 1)), None, true, 0).is_err());
    }

    #[test]
    fn one_task_at_a_time_and_none_right_after_a_failure() {
        let held = HeldTokens::default();
        assert!(held.begin(10) && !held.begin(10));
        held.fail(20);
        held.settle();
        assert!(!held.begin(19) && held.is_failed(19) && held.begin(20));
        held.store(UpstreamTokens::default());
        held.settle();
        assert!(held.load().is_some() && held.begin(20));
        held.forget();
        assert!(held.load().is_none());
    }
}
