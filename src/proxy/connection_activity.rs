//! What a connection is doing, which decides whether it can be evicted to make room: idle since a time, stalled since a
//! time because its client does not read, or busy.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use futures_util::task::AtomicWaker;

use crate::clock::coarse_micros;

/// How long a write must have stalled before its connection can be evicted; short stalls are normal.
const STALLED: Duration = Duration::from_secs(1);

/// Marks an evicted connection, in place of a time. The lowest bit is kept.
const EVICTED: u64 = u64::MAX - 1;

/// One for each connection.
#[derive(Debug)]
pub(crate) struct ConnectionActivity {
    /// Its index among those of its address.
    index: AtomicUsize,
    /// 0 if busy. Otherwise the microsecond since which it is idle or stalled, shifted left by one, with the lowest bit
    /// set if stalled. Eviction is final: an evicted connection begins no request, and a busy one is never evicted.
    since: AtomicU64,
    waker: AtomicWaker,
}

impl ConnectionActivity {
    /// A new connection, idle from now on.
    pub(crate) fn new() -> Self {
        Self {
            index: AtomicUsize::new(usize::MAX),
            since: AtomicU64::new(coarse_micros() << 1),
            waker: AtomicWaker::new(),
        }
    }

    /// Marks it idle: it waits for a request.
    pub(crate) fn idle(&self) {
        self.set(coarse_micros() << 1);
    }

    /// Marks it busy. `false`: it has been evicted.
    pub(crate) fn busy(&self) -> bool {
        self.set(0)
    }

    /// Marks it stalled: its client does not read.
    pub(crate) fn stalled(&self) {
        self.set(coarse_micros() << 1 | 1);
    }

    /// Drops this task's waker, so that its memory is freed: another task continues the connection, which stays busy.
    pub(crate) fn leave_task(&self) {
        drop(self.waker.take());
    }

    fn set(&self, since: u64) -> bool {
        let unless_evicted = |before| (before < EVICTED).then_some(since);
        self.since.fetch_update(Ordering::Relaxed, Ordering::Relaxed, unless_evicted).is_ok()
    }

    /// Runs a write to the client, and marks the connection stalled while the write waits. `None`: it has been evicted.
    pub(crate) async fn writing<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let (mut work, mut waits) = (pin!(work), false);
        poll_fn(|cx| {
            if self.is_evicted() {
                return Poll::Ready(None);
            }
            let done = work.as_mut().poll(cx);
            if done.is_pending() && !waits {
                waits = true;
                self.stalled();
            } else if done.is_ready() && waits {
                self.busy();
            }
            done.map(Some)
        })
        .await
    }

    pub(super) fn set_index(&self, index: usize) {
        self.index.store(index, Ordering::Relaxed);
    }

    /// Its index, if it has one.
    pub(super) fn index(&self) -> Option<usize> {
        Some(self.index.load(Ordering::Relaxed)).filter(|index| *index != usize::MAX)
    }

    /// Evicts it. `false`: its state has changed since `since` was read.
    fn evict(&self, since: u64) -> bool {
        let evicted = self.since.compare_exchange(since, EVICTED | since & 1, Ordering::Relaxed, Ordering::Relaxed);
        if evicted.is_ok() {
            self.waker.wake();
        }
        evicted.is_ok()
    }

    pub(crate) fn is_evicted(&self) -> bool {
        self.since.load(Ordering::Relaxed) >= EVICTED
    }

    /// Serves a connection until it ends or is evicted. `work` is boxed, because an async function stores its arguments
    /// twice.
    pub(crate) async fn serve(self: Arc<Self>, mut work: Pin<Box<impl Future<Output = ()>>>) {
        let mut registered = false;
        poll_fn(|cx| {
            if !registered {
                // a task has one waker all its life
                self.waker.register(cx.waker());
                registered = true;
            }
            if !self.is_evicted() {
                return work.as_mut().poll(cx);
            }
            if self.since.load(Ordering::Relaxed) & 1 == 1 {
                // the stalled write returns `None`, and the request writes its access line
                let _ = work.as_mut().poll(cx);
            }
            Poll::Ready(())
        })
        .await;
    }
}

/// Evicts the connection that has been idle longest; if none is idle, the one that has been stalled longest, for at
/// least a second. Returns its index.
pub(super) fn evict_first(activities: &[Arc<ConnectionActivity>]) -> Option<usize> {
    loop {
        let (at, since) = first_to_go(activities)?;
        if activities[at].evict(since) {
            return Some(at);
        }
    }
}

fn first_to_go(activities: &[Arc<ConnectionActivity>]) -> Option<(usize, u64)> {
    let now = coarse_micros();
    let mut first: Option<(u64, (usize, u64))> = None;
    for (at, activity) in activities.iter().enumerate() {
        let since = activity.since.load(Ordering::Relaxed);
        let (waits, micros) = (since & 1, since >> 1);
        let is_young = u128::from(now.saturating_sub(micros)) < STALLED.as_micros();
        if since == 0 || (waits == 1 && is_young) {
            continue;
        }
        // idle ones before those whose answers wait
        let rank = waits << 63 | micros;
        if first.is_none_or(|(best, _)| rank < best) {
            first = Some((rank, (at, since)));
        }
    }
    first.map(|(_, found)| found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_ones_go_before_those_whose_answers_wait_and_busy_ones_never() {
        let [busy, waiting, idle, later] = [(); 4].map(|()| Arc::new(ConnectionActivity::new()));
        let first = |activities: &[Arc<ConnectionActivity>]| first_to_go(activities).map(|(at, _)| at);
        busy.busy();
        waiting.since.store(1 << 1 | 1, Ordering::Relaxed);
        later.idle();
        let all = [busy, waiting, later, idle];
        let later_is_idle_for_longest = all[2].since.load(Ordering::Relaxed) <= all[3].since.load(Ordering::Relaxed);
        assert_eq!(first(&all), Some(if later_is_idle_for_longest { 2 } else { 3 }));
        assert_eq!(first(&all[..2]), Some(1));
        all[1].stalled();
        assert_eq!(first(&all[..2]), None, "it has only begun to wait");
        assert_eq!(first(&all[..1]), None);
    }

    /// Otherwise its client would retry a request that an app may already have processed.
    #[test]
    fn one_that_has_begun_a_request_keeps_its_place_and_one_that_lost_it_begins_none() {
        let activity = Arc::new(ConnectionActivity::new());
        let (_, since) = first_to_go(std::slice::from_ref(&activity)).unwrap();
        assert!(activity.busy() && !activity.evict(since), "it was quicker");
        assert_eq!(evict_first(std::slice::from_ref(&activity)), None);
        activity.idle();
        assert_eq!(evict_first(std::slice::from_ref(&activity)), Some(0));
        assert!(activity.is_evicted());
        assert!(!activity.busy());
        activity.idle();
        activity.stalled();
        assert!(activity.is_evicted());
    }
}
