//! The only reader of time. Everything else is handed a [`Clock`], so that tests can turn it.
//!
//! Wall-clock seconds decide about sessions and tokens, because those outlive the process. They may jump: a machine without a
//! battery starts in 1970, one that was set wrong is set right. So they decide who is let in, which a clock that is right again
//! takes back, and never alone what is erased: that is [`BorneOut`]'s. Timers of connections use tokio's monotonic clock and
//! are not read from here.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// Seconds since 1970-01-01T00:00:00Z (RFC 7519 `NumericDate`, whole seconds).
pub type UnixSecs = u64;

/// Where the time comes from: the system, or hands that a test turns.
#[derive(Clone, Debug, Default)]
pub struct Clock(Option<Arc<Hands>>);

/// How long the wall clock of one look is carried on by the monotonic one.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

thread_local! {
    /// When this thread last looked at the system's wall clock, and what it showed.
    static LOOKED: Cell<Option<(Instant, u64)>> = const { Cell::new(None) };
}

#[derive(Debug)]
struct Hands {
    wall_millis: AtomicU64,
    monotonic_millis: AtomicU64,
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self(None)
    }

    /// A clock that stands still until [`Clock::advance`] is called.
    pub fn stopped_at(unix_secs: UnixSecs) -> Self {
        let millis = unix_secs * 1000;
        Self(Some(Arc::new(Hands { wall_millis: millis.into(), monotonic_millis: millis.into() })))
    }

    /// Milliseconds since the epoch; 0 if the system's clock stands before it.
    pub fn now_millis(&self) -> u64 {
        match &self.0 {
            Some(hands) => hands.wall_millis.load(Ordering::Relaxed),
            None => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
        }
    }

    /// Milliseconds since the epoch at an instant that was looked up just now. Costs hardly anything, and is a tenth of a
    /// second late to hear that the clock was set.
    pub fn millis_at(&self, now: Instant) -> u64 {
        if self.0.is_some() {
            return self.now_millis();
        }
        if let Some((looked, millis)) = LOOKED.get() {
            let since = now.saturating_duration_since(looked);
            if since < LOOK_AGAIN {
                return millis + u64::try_from(since.as_millis()).unwrap_or(0);
            }
        }
        let millis = self.now_millis();
        LOOKED.set(Some((now, millis)));
        millis
    }

    /// Whole seconds since the epoch.
    pub fn now(&self) -> UnixSecs {
        self.now_millis() / 1000
    }

    /// Milliseconds of a clock that nobody sets and that goes on while the machine sleeps (`CLOCK_BOOTTIME`).
    pub fn monotonic_millis(&self) -> u64 {
        if let Some(hands) = &self.0 {
            return hands.monotonic_millis.load(Ordering::Relaxed);
        }
        let now = clock_gettime(ClockId::Boottime);
        let secs = u64::try_from(now.tv_sec).unwrap_or(0);
        secs.saturating_mul(1000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000)
    }

    /// Turns a stopped clock forward; does nothing to the system's.
    pub fn advance(&self, secs: u64) {
        if let Some(hands) = &self.0 {
            hands.wall_millis.fetch_add(secs * 1000, Ordering::Relaxed);
            hands.monotonic_millis.fetch_add(secs * 1000, Ordering::Relaxed);
        }
    }

    /// Sets the wall clock of a stopped one.
    pub fn set(&self, unix_secs: UnixSecs) {
        if let Some(hands) = &self.0 {
            hands.wall_millis.store(unix_secs * 1000, Ordering::Relaxed);
        }
    }
}

/// Microseconds of a monotonic clock that is some milliseconds behind and costs next to nothing, for what every request
/// asks (`CLOCK_MONOTONIC_COARSE`); never 0.
pub fn coarse_micros() -> u64 {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    u64::try_from(now.tv_sec * 1_000_000 + now.tv_nsec / 1000).unwrap_or(0).max(1)
}

/// How far the wall clock may stand beyond the newest record at a start and still be believed, seconds. A gateway that was
/// off for longer erases later than it might.
const OFF_SECS: u64 = 31 * 86_400;
/// What a clock that is slewed gains or loses from one look to the next stays far below this, milliseconds.
const JUMP_MILLIS: u64 = 5000;

/// The wall clock's time as far as the monotonic clock and the newest record bear it out: by it is judged what is so long
/// past that it is erased. It never runs ahead, whatever the wall clock is set to.
#[derive(Debug)]
pub struct BorneOut {
    clock: Clock,
    /// Wall time of the start, and the monotonic clock's then.
    start_millis: u64,
    began_millis: u64,
    /// Both clocks at the last look.
    looked: (u64, u64),
}

/// Where the wall clock was looked for, and where it is; Unix milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Jump {
    pub expected: u64,
    pub found: u64,
}

impl BorneOut {
    /// From now on. `newest`: when the newest record was made, if there is one. Gives also what the clock should have
    /// shown at least, or at most, where it cannot be right.
    pub fn new(clock: &Clock, newest: Option<UnixSecs>) -> (Self, Option<Jump>) {
        let (wall, began_millis) = (clock.now_millis(), clock.monotonic_millis());
        let newest = newest.unwrap_or(wall / 1000).saturating_mul(1000);
        let is_behind = wall.saturating_add(JUMP_MILLIS) < newest;
        let is_far_ahead = wall > newest.saturating_add(OFF_SECS * 1000);
        let doubted = (is_behind || is_far_ahead).then_some(Jump { expected: newest, found: wall });
        let start_millis = if doubted.is_some() { newest } else { wall };
        (Self { clock: clock.clone(), start_millis, began_millis, looked: (wall, began_millis) }, doubted)
    }

    /// Unix seconds, never later than the wall clock.
    pub fn now(&self) -> UnixSecs {
        let elapsed = self.clock.monotonic_millis().saturating_sub(self.began_millis);
        self.start_millis.saturating_add(elapsed).min(self.clock.now_millis()) / 1000
    }

    /// Seconds of the monotonic clock.
    pub fn monotonic_secs(&self) -> u64 {
        self.clock.monotonic_millis() / 1000
    }

    /// Whether the wall clock was set since the last look.
    pub fn jumped(&mut self) -> Option<Jump> {
        let (found, monotonic) = (self.clock.now_millis(), self.clock.monotonic_millis());
        let (wall, since) = std::mem::replace(&mut self.looked, (found, monotonic));
        let expected = wall.saturating_add(monotonic.saturating_sub(since));
        (expected.abs_diff(found) > JUMP_MILLIS).then_some(Jump { expected, found })
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

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_800_000_000;
    const DAY: u64 = 86_400;

    #[test]
    fn a_wall_clock_that_jumps_ahead_is_not_borne_out_and_one_that_goes_on_is() {
        let clock = Clock::stopped_at(START);
        let (mut time, doubted) = BorneOut::new(&clock, Some(START - DAY));
        assert_eq!((doubted, time.now(), time.jumped()), (None, START, None));
        clock.advance(3 * DAY);
        assert_eq!((time.now(), time.jumped()), (START + 3 * DAY, None));
        clock.set(START + 63 * DAY);
        let [expected, found] = [3, 63].map(|days| (START + days * DAY) * 1000);
        assert_eq!((time.now(), time.jumped()), (START + 3 * DAY, Some(Jump { expected, found })));
        assert_eq!(time.jumped(), None, "told once");
        clock.advance(10);
        assert_eq!(time.now(), START + 3 * DAY + 10);
        clock.set(START);
        assert_eq!((time.now(), time.jumped().is_some()), (START, true), "nor is anything erased early");
    }

    #[test]
    fn the_time_of_an_instant_is_what_the_wall_clock_shows_then() {
        let (began, clock) = (Instant::now(), Clock::system());
        let first = clock.millis_at(began);
        for later in [0, 1, 99, 100, 250, 1000] {
            let shown = clock.millis_at(began + Duration::from_millis(later));
            // behind the tenth of a second the clock is looked at again, which shows when this test runs
            let expected = if later < 100 { first + later } else { clock.now_millis() };
            assert!(shown.abs_diff(expected) < 1000, "{later}: {shown}, not {expected}");
            assert!(later >= 100 || shown == expected, "{later}");
        }
        let stopped = Clock::stopped_at(START);
        assert_eq!(stopped.millis_at(began), START * 1000);
        stopped.set(START + DAY);
        assert_eq!(stopped.millis_at(began), (START + DAY) * 1000, "nothing of it is remembered");
    }

    #[test]
    fn a_start_is_judged_by_the_newest_record() {
        for (newest, wall, doubts, borne_out) in [
            (None, START, false, START),
            (Some(START), START + 30 * DAY, false, START + 30 * DAY),
            (Some(START), START + 400 * DAY, true, START),
            // a machine without a battery: nothing is past in 1970
            (Some(START), 0, true, 0),
            (Some(START), START - 4, false, START - 4),
        ] {
            let clock = Clock::stopped_at(wall);
            let (time, doubted) = BorneOut::new(&clock, newest);
            assert_eq!((doubted.is_some(), time.now()), (doubts, borne_out), "{newest:?} {wall}");
        }
        let clock = Clock::stopped_at(0);
        let (time, _) = BorneOut::new(&clock, Some(START));
        clock.advance(DAY);
        clock.set(START + 90 * DAY);
        assert_eq!(time.now(), START + DAY, "set right later: by the newest record and what has passed since");
    }

    #[test]
    fn the_systems_monotonic_clock_goes_on() {
        let clock = Clock::system();
        let before = clock.monotonic_millis();
        assert!(before > 0 && clock.monotonic_millis() >= before);
    }
}
