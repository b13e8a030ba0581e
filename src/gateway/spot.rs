//! What a connection does, as far as that says whether another one may have its place: nothing, since when; an answer that
//! its client does not take, since when; or something else.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;

/// How long an answer must have waited for its client before its connection may go: any writer waits now and then.
const STALLED: Duration = Duration::from_secs(1);

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// One for each connection.
#[derive(Debug)]
pub(crate) struct Spot {
    /// Its index among those of its address.
    at: AtomicUsize,
    /// 0, or twice the microsecond from which on nothing happens; one more if an answer waits.
    since: AtomicU64,
    evicted: AtomicBool,
    waker: AtomicWaker,
}

fn micros() -> u64 {
    u64::try_from(START.elapsed().as_micros()).unwrap_or(u64::MAX >> 1).saturating_add(1)
}

impl Spot {
    /// One that has just begun and asks for nothing yet.
    pub(crate) fn new() -> Self {
        Self {
            at: AtomicUsize::new(usize::MAX),
            since: AtomicU64::new(micros() << 1),
            evicted: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        }
    }

    /// It waits for a request.
    pub(crate) fn idle(&self) {
        self.since.store(micros() << 1, Ordering::Relaxed);
    }

    /// It has one.
    pub(crate) fn busy(&self) {
        self.since.store(0, Ordering::Relaxed);
    }

    /// Its client does not take what is written.
    pub(crate) fn stalled(&self) {
        self.since.store(micros() << 1 | 1, Ordering::Relaxed);
    }

    /// Writes to the client; whoever waits for it so long is to be seen. `None`: another one needs its place.
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

    pub(super) fn put(&self, at: usize) {
        self.at.store(at, Ordering::Relaxed);
    }

    /// Where it was put.
    pub(super) fn place(&self) -> Option<usize> {
        Some(self.at.load(Ordering::Relaxed)).filter(|at| *at != usize::MAX)
    }

    /// Another one needs its place.
    pub(super) fn evict(&self) {
        self.evicted.store(true, Ordering::Relaxed);
        self.waker.wake();
    }

    pub(super) fn is_evicted(&self) -> bool {
        self.evicted.load(Ordering::Relaxed)
    }

    /// Serves a connection until it ends or another one needs its place.
    pub(crate) async fn serve(self: Arc<Self>, work: impl Future<Output = ()>) {
        let mut work = pin!(work);
        let mut registered = false;
        poll_fn(|cx| {
            if !registered {
                // a task has one waker all its life
                self.waker.register(cx.waker());
                registered = true;
            }
            let done = work.as_mut().poll(cx);
            // what wrote an answer has ended by that, and has its access line
            if self.is_evicted() { Poll::Ready(()) } else { done }
        })
        .await;
    }
}

/// The one that is idle for longest; if none is, the one whose client has taken nothing for longest, and at least for a
/// second.
pub(super) fn first_to_go(spots: &[Arc<Spot>]) -> Option<usize> {
    let now = micros();
    let mut first: Option<(u64, usize)> = None;
    for (at, spot) in spots.iter().enumerate() {
        let since = spot.since.load(Ordering::Relaxed);
        let (waits, micros) = (since & 1, since >> 1);
        let is_young = u128::from(now.saturating_sub(micros)) < STALLED.as_micros();
        if since == 0 || (waits == 1 && is_young) {
            continue;
        }
        // idle ones before those whose answers wait
        let rank = waits << 63 | micros;
        if first.is_none_or(|(best, _)| rank < best) {
            first = Some((rank, at));
        }
    }
    first.map(|(_, at)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_ones_go_before_those_whose_answers_wait_and_busy_ones_never() {
        let [busy, waiting, idle, later] = [(); 4].map(|()| Arc::new(Spot::new()));
        busy.busy();
        waiting.since.store(1 << 1 | 1, Ordering::Relaxed);
        later.idle();
        let all = [busy, waiting, later, idle];
        let later_is_idle_for_longest = all[2].since.load(Ordering::Relaxed) <= all[3].since.load(Ordering::Relaxed);
        assert_eq!(first_to_go(&all), Some(if later_is_idle_for_longest { 2 } else { 3 }));
        LazyLock::force(&START);
        while micros() < 2_000_000 {
            std::hint::spin_loop();
        }
        assert_eq!(first_to_go(&all[..2]), Some(1));
        all[1].stalled();
        assert_eq!(first_to_go(&all[..2]), None, "it has only begun to wait");
        assert_eq!(first_to_go(&all[..1]), None);
    }
}
