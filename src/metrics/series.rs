//! Counters and histograms that threads update without waiting for each other.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A monotonic counter.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Zero.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Adds one.
    pub fn add_one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Adds `count`.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// The current value.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Maximum number of upper bounds in a histogram.
const BUCKETS: usize = 10;

/// A histogram of durations.
#[derive(Debug)]
pub struct Histogram {
    /// Upper bounds in microseconds, ascending.
    bounds: &'static [u64],
    counts: [AtomicU64; BUCKETS],
    count: AtomicU64,
    sum_nanos: AtomicU64,
}

impl Histogram {
    /// `bounds`: microseconds, ascending; those after the tenth are ignored.
    pub const fn new(bounds: &'static [u64]) -> Self {
        Self {
            bounds,
            counts: [const { AtomicU64::new(0) }; BUCKETS],
            count: AtomicU64::new(0),
            sum_nanos: AtomicU64::new(0),
        }
    }

    /// Records one duration.
    pub fn observe(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        if let Some(at) = self.bounds.iter().take(BUCKETS).position(|bound| nanos <= bound * 1000) {
            self.counts[at].fetch_add(1, Ordering::Relaxed);
        }
        self.sum_nanos.fetch_add(nanos, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// Each bound in seconds with its cumulative count; the last is "+Inf", with the total.
    pub(super) fn buckets(&self) -> Vec<(String, u64)> {
        let all = self.count();
        let mut below = 0;
        let ranges = self.bounds.iter().zip(&self.counts).map(|(bound, count)| {
            below += count.load(Ordering::Relaxed);
            // recorded during the read: a bucket never exceeds the total
            (seconds(bound * 1000), below.min(all))
        });
        let mut buckets: Vec<_> = ranges.collect();
        buckets.push(("+Inf".to_owned(), all));
        buckets
    }

    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    pub(super) fn sum(&self) -> String {
        seconds(self.sum_nanos.load(Ordering::Relaxed))
    }
}

/// Nanoseconds as decimal seconds, exactly: `1.5`, `60.0`.
fn seconds(nanos: u64) -> String {
    let text = format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000);
    let short = text.trim_end_matches('0');
    if short.ends_with('.') { format!("{short}0") } else { short.to_owned() }
}

/// Methods with their own label; all others share the last.
const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "other"];

/// Requests by method and status. A route sees few of the many combinations: each gets an entry when it first occurs,
/// and entries are never removed.
#[derive(Debug, Default)]
pub(super) struct Answers(OnceLock<Box<Place>>);

#[derive(Debug)]
struct Place {
    method: usize,
    code: u16,
    count: AtomicU64,
    next: Answers,
}

impl Answers {
    pub(super) fn add_one(&self, method: &str, code: u16) {
        let method = METHODS.iter().position(|known| *known == method).unwrap_or(METHODS.len() - 1);
        // unregistered statuses are invented by the upstream: they share one entry
        let code =
            if http::StatusCode::from_u16(code).is_ok_and(|code| code.canonical_reason().is_some()) { code } else { 0 };
        let mut at = self;
        loop {
            let place =
                at.0.get_or_init(|| Box::new(Place { method, code, count: AtomicU64::new(0), next: Self::default() }));
            if (place.method, place.code) == (method, code) {
                place.count.fetch_add(1, Ordering::Relaxed);
                return;
            }
            at = &place.next;
        }
    }

    /// Whether any WebSocket was ever accepted here.
    pub(super) fn has_sockets(&self) -> bool {
        std::iter::successors(self.0.get(), |place| place.next.0.get()).any(|place| place.code == 101)
    }

    /// Method, status ("other" for unregistered ones) and count.
    pub(super) fn all(&self) -> Vec<(&'static str, String, u64)> {
        let places = std::iter::successors(self.0.get(), |place| place.next.0.get());
        let word = |code: u16| if code == 0 { "other".to_owned() } else { code.to_string() };
        let mut all: Vec<_> = places
            .map(|place| (METHODS[place.method], word(place.code), place.count.load(Ordering::Relaxed)))
            .collect();
        all.sort_unstable();
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_and_statuses_that_a_client_or_an_upstream_invents_share_a_place() {
        let answers = Answers::default();
        for number in 0..1000 {
            answers.add_one(&format!("METHOD{number}"), 200);
            answers.add_one("GET", 600 + number);
        }
        answers.add_one("GET", 404);
        let text = |code: &str| code.to_owned();
        assert_eq!(
            answers.all(),
            [("GET", text("404"), 1), ("GET", text("other"), 1000), ("other", text("200"), 1000)]
        );
    }

    #[test]
    fn threads_that_add_at_once_lose_nothing() {
        let (answers, histogram) = (Answers::default(), Histogram::new(&[1000, 2_000_000]));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for number in 0..1000_u16 {
                        answers.add_one("GET", 200 + number % 5);
                        histogram.observe(Duration::from_micros(u64::from(number) + 1));
                    }
                });
            }
        });
        assert_eq!(answers.all().len(), 5);
        assert!(answers.all().iter().all(|(_, _, count)| *count == 800));
        assert_eq!(
            histogram.buckets(),
            [("0.001".to_owned(), 4000), ("2.0".to_owned(), 4000), ("+Inf".to_owned(), 4000)]
        );
    }

    #[test]
    fn a_histogram_counts_up_to_its_bounds_and_sums_exactly() {
        let histogram = Histogram::new(&[1000, 60_000_000]);
        for micros in [1, 1000, 1001, 60_000_001] {
            histogram.observe(Duration::from_micros(micros));
        }
        assert_eq!(histogram.buckets(), [("0.001".to_owned(), 2), ("60.0".to_owned(), 3), ("+Inf".to_owned(), 4)]);
        assert_eq!((histogram.sum().as_str(), histogram.count()), ("60.002003", 4));
    }
}
