//! The only place that reads the time. Everything else takes a [`Clock`], which tests can set.
//!
//! Sessions and tokens expire by the wall clock, because they outlive the process. The wall clock may jump: a machine
//! without a clock battery starts in 1970, and a wrong clock is corrected. A wrong decision to let someone in or not is
//! undone once the clock is right, but deletion is final, so the wall clock alone never decides it: see
//! [`PlausibleTime`]. Timers of connections use tokio's monotonic clock directly.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// Seconds since 1970-01-01T00:00:00Z (RFC 7519 `NumericDate`, whole seconds).
pub type UnixSecs = u64;

/// The source of time: the system, or a clock that tests control.
#[derive(Clone, Debug, Default)]
pub struct Clock(Option<Arc<TestTime>>);

/// How long a reading of the wall clock is extrapolated by the monotonic clock.
const READING_TTL: Duration = Duration::from_millis(100);

thread_local! {
    /// This thread's last reading of the wall clock, and when it was taken.
    static LAST_READING: Cell<Option<(Instant, u64)>> = const { Cell::new(None) };
}

#[derive(Debug)]
struct TestTime {
    wall_millis: AtomicU64,
    monotonic_millis: AtomicU64,
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self(None)
    }

    /// A clock that stands still until [`Clock::advance`] or [`Clock::set`] is called.
    pub fn stopped_at(unix_secs: UnixSecs) -> Self {
        let millis = unix_secs * 1000;
        Self(Some(Arc::new(TestTime { wall_millis: millis.into(), monotonic_millis: millis.into() })))
    }

    /// Milliseconds since the epoch; 0 if the system clock is before it.
    pub fn now_millis(&self) -> u64 {
        match &self.0 {
            Some(hands) => hands.wall_millis.load(Ordering::Relaxed),
            None => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
        }
    }

    /// Milliseconds since the epoch at `now`, which the caller has just read. Much cheaper than [`Clock::now_millis`],
    /// but notices only after a tenth of a second that the clock was set.
    pub fn millis_at(&self, now: Instant) -> u64 {
        if self.0.is_some() {
            return self.now_millis();
        }
        if let Some((read_at, millis)) = LAST_READING.get() {
            let since = now.saturating_duration_since(read_at);
            if since < READING_TTL {
                return millis + u64::try_from(since.as_millis()).unwrap_or(0);
            }
        }
        let millis = self.now_millis();
        LAST_READING.set(Some((now, millis)));
        millis
    }

    /// Whole seconds since the epoch.
    pub fn now(&self) -> UnixSecs {
        self.now_millis() / 1000
    }

    /// Milliseconds of a monotonic clock that includes time spent in suspend (`CLOCK_BOOTTIME`).
    pub fn monotonic_millis(&self) -> u64 {
        if let Some(hands) = &self.0 {
            return hands.monotonic_millis.load(Ordering::Relaxed);
        }
        let now = clock_gettime(ClockId::Boottime);
        let secs = u64::try_from(now.tv_sec).unwrap_or(0);
        secs.saturating_mul(1000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000)
    }

    /// Advances a stopped clock; does nothing to the system clock.
    pub fn advance(&self, secs: u64) {
        if let Some(hands) = &self.0 {
            hands.wall_millis.fetch_add(secs * 1000, Ordering::Relaxed);
            hands.monotonic_millis.fetch_add(secs * 1000, Ordering::Relaxed);
        }
    }

    /// Sets the wall clock of a stopped clock.
    pub fn set(&self, unix_secs: UnixSecs) {
        if let Some(hands) = &self.0 {
            hands.wall_millis.store(unix_secs * 1000, Ordering::Relaxed);
        }
    }
}

/// Microseconds of a cheap monotonic clock that may be some milliseconds behind (`CLOCK_MONOTONIC_COARSE`), for use in
/// every request; never 0.
pub fn coarse_micros() -> u64 {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    u64::try_from(now.tv_sec * 1_000_000 + now.tv_nsec / 1000).unwrap_or(0).max(1)
}

/// How far the wall clock may be ahead of the newest record at startup and still be trusted, seconds. A gateway that
/// was off for longer deletes later than necessary.
const OFF_SECS: u64 = 31 * 86_400;
/// A larger deviation between two checks is a jump, milliseconds. Slewing a clock causes far less.
const JUMP_MILLIS: u64 = 5000;

/// The wall-clock time as far as the monotonic clock and the newest record confirm it; decides which records are old
/// enough to delete. It never runs ahead, whatever the wall clock is set to.
#[derive(Debug)]
pub struct PlausibleTime {
    clock: Clock,
    /// Wall time at startup, and the monotonic clock's time then.
    start_millis: u64,
    began_millis: u64,
    /// Both clocks at the last check.
    last_check: (u64, u64),
}

/// Where the wall clock should be, and where it is; Unix milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Jump {
    pub expected: u64,
    pub found: u64,
}

impl PlausibleTime {
    /// Starts now. `newest` is the creation time of the newest record, if there is one. Also returns a [`Jump`] if the
    /// wall clock cannot be right: it is behind the newest record, or too far ahead of it.
    pub fn new(clock: &Clock, newest: Option<UnixSecs>) -> (Self, Option<Jump>) {
        let (wall, began_millis) = (clock.now_millis(), clock.monotonic_millis());
        let newest = newest.unwrap_or(wall / 1000).saturating_mul(1000);
        let is_behind = wall.saturating_add(JUMP_MILLIS) < newest;
        let is_far_ahead = wall > newest.saturating_add(OFF_SECS * 1000);
        let doubted = (is_behind || is_far_ahead).then_some(Jump { expected: newest, found: wall });
        let start_millis = if doubted.is_some() { newest } else { wall };
        (Self { clock: clock.clone(), start_millis, began_millis, last_check: (wall, began_millis) }, doubted)
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

    /// Whether the wall clock was set since the last check.
    pub fn jumped(&mut self) -> Option<Jump> {
        let (found, monotonic) = (self.clock.now_millis(), self.clock.monotonic_millis());
        let (wall, since) = std::mem::replace(&mut self.last_check, (found, monotonic));
        let expected = wall.saturating_add(monotonic.saturating_sub(since));
        (expected.abs_diff(found) > JUMP_MILLIS).then_some(Jump { expected, found })
    }
}

/// Measures a duration. No decision depends on it.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(std::time::Instant);

impl Stopwatch {
    /// Starts now.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self(std::time::Instant::now())
    }

    /// Time since the start.
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
    fn a_jump_ahead_of_the_wall_clock_is_not_trusted() {
        let clock = Clock::stopped_at(START);
        let (mut time, doubted) = PlausibleTime::new(&clock, Some(START - DAY));
        assert_eq!((doubted, time.now(), time.jumped()), (None, START, None));
        clock.advance(3 * DAY);
        assert_eq!((time.now(), time.jumped()), (START + 3 * DAY, None));
        clock.set(START + 63 * DAY);
        let [expected, found] = [3, 63].map(|days| (START + days * DAY) * 1000);
        assert_eq!((time.now(), time.jumped()), (START + 3 * DAY, Some(Jump { expected, found })));
        assert_eq!(time.jumped(), None, "reported once");
        clock.advance(10);
        assert_eq!(time.now(), START + 3 * DAY + 10);
        clock.set(START);
        assert_eq!((time.now(), time.jumped().is_some()), (START, true), "nothing is deleted early");
    }

    #[test]
    fn millis_at_follows_the_wall_clock() {
        let (began, clock) = (Instant::now(), Clock::system());
        let first = clock.millis_at(began);
        for later in [0, 1, 99, 100, 250, 1000] {
            let shown = clock.millis_at(began + Duration::from_millis(later));
            // after a tenth of a second the clock is read again and shows the present time
            let expected = if later < 100 { first + later } else { clock.now_millis() };
            assert!(shown.abs_diff(expected) < 1000, "{later}: {shown}, not {expected}");
            assert!(later >= 100 || shown == expected, "{later}");
        }
        let stopped = Clock::stopped_at(START);
        assert_eq!(stopped.millis_at(began), START * 1000);
        stopped.set(START + DAY);
        assert_eq!(stopped.millis_at(began), (START + DAY) * 1000, "a test clock is never cached");
    }

    #[test]
    fn the_wall_clock_at_startup_is_checked_against_the_newest_record() {
        for (newest, wall, is_doubted, plausible) in [
            (None, START, false, START),
            (Some(START), START + 30 * DAY, false, START + 30 * DAY),
            (Some(START), START + 400 * DAY, true, START),
            // a machine without a clock battery: in 1970 nothing has expired
            (Some(START), 0, true, 0),
            (Some(START), START - 4, false, START - 4),
        ] {
            let clock = Clock::stopped_at(wall);
            let (time, doubted) = PlausibleTime::new(&clock, newest);
            assert_eq!((doubted.is_some(), time.now()), (is_doubted, plausible), "{newest:?} {wall}");
        }
        let clock = Clock::stopped_at(0);
        let (time, _) = PlausibleTime::new(&clock, Some(START));
        clock.advance(DAY);
        clock.set(START + 90 * DAY);
        assert_eq!(time.now(), START + DAY, "corrected later: the newest record plus the time since");
    }

    #[test]
    fn the_monotonic_clock_does_not_go_back() {
        let clock = Clock::system();
        let before = clock.monotonic_millis();
        assert!(before > 0);
        assert!(clock.monotonic_millis() >= before);
    }
}
