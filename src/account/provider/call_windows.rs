//! Calls that cost a request to a provider, or a signature, and that anybody can make up: callbacks and logout tokens that
//! do not hold, sign-ins that begin by a pushed request. After so many in a minute a network waits. In memory alone.

use std::collections::HashMap;
use std::net::IpAddr;

use parking_lot::Mutex;

use crate::web::network::network_prefix;

/// Calls that did not hold in a window, of one network at one provider, after which further ones are refused.
pub(super) const FAILURES_MAX: u32 = 60;
/// The same of pushed requests, which honest people make too: many of them may have one address.
pub(super) const PUSHES_MAX: u32 = 240;
/// The window, seconds.
const WINDOW_SECS: u64 = 60;
/// Networks that are counted. A further one is not: what its calls cost is bounded by other limits.
const NETWORKS_MAX: usize = 4096;

/// Calls by provider and network (an IPv4 address, or a /64). Times are monotonic seconds.
pub(crate) struct CallWindows {
    calls_max: u32,
    windows: Mutex<HashMap<(String, IpAddr), Window, ahash::RandomState>>,
}

struct Window {
    began: u64,
    calls: u32,
}

impl CallWindows {
    /// So many calls in a window.
    pub(super) fn new(calls_max: u32) -> Self {
        Self { calls_max, windows: Mutex::default() }
    }

    /// Seconds until a network may call again; `None`: it may now.
    pub(crate) fn retry_after_secs(&self, provider: &str, caller: IpAddr, now: u64) -> Option<u64> {
        let held = self.windows.lock();
        let window = held.get(&(provider.to_owned(), network_prefix(caller)))?;
        let ends = window.began.saturating_add(WINDOW_SECS);
        (window.calls >= self.calls_max && now < ends).then(|| ends - now)
    }

    /// Counts a call.
    pub(crate) fn count(&self, provider: &str, caller: IpAddr, now: u64) {
        let mut held = self.windows.lock();
        let is_current = |window: &Window| now < window.began.saturating_add(WINDOW_SECS);
        let key = (provider.to_owned(), network_prefix(caller));
        if held.len() >= NETWORKS_MAX && !held.contains_key(&key) {
            held.retain(|_, window| is_current(window));
            if held.len() >= NETWORKS_MAX {
                return;
            }
        }
        let window = held.entry(key).or_insert(Window { began: now, calls: 0 });
        if !is_current(window) {
            *window = Window { began: now, calls: 0 };
        }
        window.calls += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_network_whose_calls_fail_waits_and_no_other() {
        let windows = CallWindows::new(FAILURES_MAX);
        let [evil, neighbour, provider] =
            ["2001:db8::1", "2001:db8::2", "192.0.2.1"].map(|a| a.parse::<IpAddr>().unwrap());
        for _ in 0..FAILURES_MAX {
            assert_eq!(windows.retry_after_secs("corp", evil, 10), None);
            windows.count("corp", evil, 10);
        }
        assert_eq!(windows.retry_after_secs("corp", evil, 30), Some(40));
        assert_eq!(windows.retry_after_secs("corp", neighbour, 30), Some(40), "the same /64");
        assert_eq!(windows.retry_after_secs("corp", provider, 30), None);
        assert_eq!(windows.retry_after_secs("hub", evil, 30), None);
        assert_eq!(windows.retry_after_secs("corp", evil, 70), None);
        windows.count("corp", evil, 70);
        assert_eq!(windows.retry_after_secs("corp", evil, 70), None, "a new window");
    }

    #[test]
    fn so_many_networks_are_counted_at_most() {
        let windows = CallWindows::new(FAILURES_MAX);
        for number in 0..NETWORKS_MAX + 10 {
            let address = std::net::Ipv4Addr::from(u32::try_from(number).unwrap());
            windows.count("corp", address.into(), 0);
        }
        assert_eq!(windows.windows.lock().len(), NETWORKS_MAX);
        windows.count("corp", IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), WINDOW_SECS);
        assert_eq!(windows.windows.lock().len(), 1, "windows that have passed are dropped first");
    }
}
