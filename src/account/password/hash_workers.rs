//! The threads that hash passwords, apart from those that serve requests. There are few of them behind a fair queue:
//! hashing is expensive on purpose and must not become a way to exhaust memory or lock others out. Waiting needs no
//! argon2 memory, and workers return theirs when idle. Workers run at a lower scheduling priority, so that a flood of
//! wrong passwords does not slow down signed-in users.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::oneshot;

use crate::account::caller::Caller;
use crate::account::limits::fair_queue::{Bounds, Busy, FairQueue, Flow, Permit};
use crate::account::password::hasher::{Hasher, Memory, Verdict, no_memory};
use crate::clock::Stopwatch;
use crate::config;
use crate::critical;
use crate::metrics;
use crate::secret::{NoRandomness, Secret};
use crate::store::Throttled;

/// Queue bounds: per address, per account, and in total.
const BOUNDS: Bounds = Bounds { flow: 256, subject: 64, all: 4096 };
/// Longest wait in the queue.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// How often a throttled attempt rechecks whether it must still wait.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// How long unused memory is kept before it is returned to the system.
const SPARE_MEMORY_TTL: Duration = Duration::from_secs(10);
/// Nice increment of the workers (sched(7)): on a contended core a worker gets about a tenth.
const NICE_INCREMENT: i32 = 10;
/// Delay of rejections, milliseconds: immediate retries must not become a load of their own. Randomized, because
/// clients rejected at the same moment would otherwise return at the same moment, ahead of everybody else.
const REJECTION_DELAY_MILLIS: std::ops::Range<u64> = 15..35;

enum Job {
    Verify { password: Secret, hash: Option<Secret>, reply: oneshot::Sender<Verdict> },
    Hash { password: Secret, reply: oneshot::Sender<Result<Secret, NoRandomness>> },
}

/// State shared by the workers.
#[derive(Default)]
struct JobQueue {
    state: Mutex<JobQueueState>,
    changed: Condvar,
}

#[derive(Default)]
struct JobQueueState {
    jobs: VecDeque<Job>,
    /// Unused memory and since when; the most recent is reused first.
    spare: Vec<(Stopwatch, Memory)>,
    closed: bool,
}

/// The worker threads and the queue in front of them.
pub(crate) struct HashPool {
    jobs: Arc<JobQueue>,
    /// Parameters of new hashes.
    settings: Arc<Mutex<config::Argon2>>,
    queue: FairQueue,
    #[cfg(test)]
    runs: Arc<AtomicU64>,
}

/// A request for a slot, which waits at most [`WAIT_MAX`] in total.
pub(crate) struct SlotRequest<'h> {
    hash_pool: &'h HashPool,
    flow: Flow,
    since: Stopwatch,
}

/// A slot in the pool, held from before an attempt is counted until it is decided.
pub(crate) struct HashSlot {
    jobs: Arc<JobQueue>,
    _permit: Permit,
}

impl HashPool {
    /// Starts one worker fewer than there are cores, at least one.
    pub(crate) fn start(settings: config::Argon2) -> std::io::Result<Self> {
        Self::with_spare_ttl(settings, SPARE_MEMORY_TTL)
    }

    fn with_spare_ttl(settings: config::Argon2, spare_ttl: Duration) -> std::io::Result<Self> {
        let workers = std::thread::available_parallelism().map_or(1, |cores| cores.get().saturating_sub(1).max(1));
        let jobs = Arc::new(JobQueue::default());
        let runs = Arc::new(AtomicU64::new(0));
        let current = Arc::new(Mutex::new(settings));
        for _ in 0..workers {
            let (jobs, current) = (Arc::clone(&jobs), Arc::clone(&current));
            let hasher = Hasher::new(settings, Arc::clone(&runs));
            critical::spawn_thread("hash", move || run_worker(hasher, &current, &jobs, spare_ttl))?;
        }
        Ok(Self {
            jobs,
            settings: current,
            // twice as many as workers: while the store counts one attempt, another is hashed
            queue: FairQueue::new(2 * workers, BOUNDS),
            #[cfg(test)]
            runs,
        })
    }

    /// Sets the hash parameters for jobs that start from now on.
    pub(crate) fn set(&self, settings: config::Argon2) {
        *self.settings.lock() = settings;
    }

    /// Starts a slot request; its waiting time counts from now.
    pub(crate) fn request_slot(&self, caller: &Caller) -> SlotRequest<'_> {
        SlotRequest { hash_pool: self, flow: caller.flow(), since: Stopwatch::new() }
    }

    /// Number of waiters, and the longest wait so far.
    pub(crate) fn waiting(&self) -> (usize, Duration) {
        self.queue.waiting()
    }

    /// Number of argon2 runs.
    #[cfg(test)]
    pub(crate) fn runs(&self) -> u64 {
        self.runs.load(Ordering::SeqCst)
    }
}

impl Drop for HashPool {
    fn drop(&mut self) {
        self.jobs.state.lock().closed = true;
        self.jobs.changed.notify_all();
    }
}

impl SlotRequest<'_> {
    fn remaining(&self) -> Duration {
        WAIT_MAX.saturating_sub(self.since.elapsed())
    }

    /// Waits before the next attempt, if the remaining time allows it. In steps, because the limit may clear sooner.
    pub(crate) async fn pause(&self, throttled: &Throttled) -> bool {
        let wait = Duration::from_millis(throttled.wait_millis);
        let may = !throttled.banned && wait <= self.remaining();
        if may {
            tokio::time::sleep(wait.min(RETRY_INTERVAL)).await;
        }
        may
    }

    /// Waits for a slot. `subject`: attempts on the same subject (an account) run one at a time.
    pub(crate) async fn acquire(&self, subject: Option<u64>) -> Result<HashSlot, Busy> {
        let began = Stopwatch::new();
        let permit = self.hash_pool.queue.permit(self.flow, subject, self.remaining()).await;
        let Ok(permit) = permit else {
            metrics::ACCOUNTS.hash_refused();
            delay_rejection().await;
            return Err(Busy);
        };
        metrics::ACCOUNTS.hash_waited(began.elapsed());
        Ok(HashSlot { jobs: Arc::clone(&self.hash_pool.jobs), _permit: permit })
    }
}

/// Waits before a rejection is sent.
pub(crate) async fn delay_rejection() {
    static TURN: AtomicU64 = AtomicU64::new(0);
    // spread consecutive rejections
    let spread = TURN.fetch_add(7, Ordering::Relaxed) % (REJECTION_DELAY_MILLIS.end - REJECTION_DELAY_MILLIS.start);
    tokio::time::sleep(Duration::from_millis(REJECTION_DELAY_MILLIS.start + spread)).await;
}

impl HashSlot {
    fn send(&self, job: Job) {
        self.jobs.state.lock().jobs.push_back(job);
        self.jobs.changed.notify_one();
    }

    /// Verifies a password. `None` or an invalid hash takes as long as a real one and is wrong.
    pub(crate) async fn verify(&self, password: Secret, hash: Option<Secret>) -> Result<Verdict, Busy> {
        let (reply, answer) = oneshot::channel();
        self.send(Job::Verify { password, hash, reply });
        answer.await.map_err(|_| Busy)
    }

    /// Hashes a new password into a PHC string.
    pub(crate) async fn hash(&self, password: Secret) -> Result<Secret, Busy> {
        let (reply, answer) = oneshot::channel();
        self.send(Job::Hash { password, reply });
        answer.await.map_err(|_| Busy)?.map_err(|_| Busy)
    }
}

impl JobQueue {
    /// Waits for a job; gives it with memory to run it in. `None`: the pool is closed.
    fn next(&self, spare_ttl: Duration) -> Option<(Job, Memory)> {
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                return Some((job, state.spare.pop().map_or_else(no_memory, |(_, memory)| memory)));
            }
            if state.closed {
                return None;
            }
            if state.spare.is_empty() {
                self.changed.wait(&mut state);
                continue;
            }
            self.changed.wait_for(&mut state, spare_ttl);
            let fresh = state.spare.iter().position(|(since, _)| since.elapsed() < spare_ttl);
            let fresh = fresh.unwrap_or(state.spare.len());
            let stale: Vec<_> = state.spare.drain(..fresh).collect();
            MutexGuard::unlocked(&mut state, || drop(stale));
        }
    }

    fn put_back(&self, memory: Memory) {
        if !memory.is_empty() {
            self.state.lock().spare.push((Stopwatch::new(), memory));
        }
    }
}

fn run_worker(mut hasher: Hasher, settings: &Mutex<config::Argon2>, jobs: &JobQueue, spare_ttl: Duration) {
    // affects this thread only; hashing also works without it
    if let Err(error) = rustix::process::nice(NICE_INCREMENT) {
        tracing::warn!(%error, "could not lower hashing thread priority");
    }
    while let Some((job, memory)) = jobs.next(spare_ttl) {
        hasher.memory = memory;
        hasher.settings = *settings.lock();
        let began = Stopwatch::new();
        // a panic in one request must not end another: the reply is dropped, the worker continues
        let done = catch_unwind(AssertUnwindSafe(|| run_job(&mut hasher, job)));
        metrics::ACCOUNTS.hashed(began.elapsed());
        jobs.put_back(std::mem::replace(&mut hasher.memory, no_memory()));
        if done.is_err() {
            tracing::error!("hashing job panicked");
        }
    }
}

fn run_job(hasher: &mut Hasher, job: Job) {
    match job {
        Job::Verify { password, hash, reply } if !reply.is_closed() => {
            let _ = reply.send(hasher.verify(&password, hash.as_ref()));
        }
        Job::Hash { password, reply } if !reply.is_closed() => {
            let _ = reply.send(hasher.hash(&password));
        }
        _ => {} // whoever asked has given up
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::critical::testing::{play, role};

    const CHEAP: config::Argon2 = config::Argon2 { memory_kib: 64, iterations: 1, parallelism: 1 };
    const LARGE: config::Argon2 = config::Argon2 { memory_kib: 19_456, iterations: 1, parallelism: 1 };

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    /// Resident memory of this process, in KiB.
    fn resident_kib() -> usize {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    #[tokio::test]
    async fn workers_run_at_a_lower_priority() {
        let hash_pool = HashPool::start(CHEAP).unwrap();
        let slot = hash_pool.request_slot(&Caller::default()).acquire(None).await.unwrap();
        let _ = slot.hash(secret("a job has been done, so the worker is where it works")).await.unwrap();
        let nice = |task: &std::path::Path| {
            let stat = std::fs::read_to_string(task.join("stat")).ok()?;
            let (name, rest) = (stat.split_once('(')?.1.split_once(')')?.0.to_owned(), stat.rsplit_once(')')?.1);
            Some((name, rest.split(' ').nth(17)?.parse::<i32>().ok()?)) // proc(5): field 19
        };
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let nices: Vec<_> = tasks.filter_map(|task| nice(&task.unwrap().path())).collect();
        let own = nice(std::path::Path::new("/proc/thread-self")).unwrap().1;
        assert!(
            nices.iter().any(|(name, nice)| name == "hash" && *nice == (own + NICE_INCREMENT).min(19)),
            "{nices:?}"
        );
    }

    /// Runs in its own process, apart from other tests' memory. More than once, because allocators adapt to what is
    /// freed.
    #[tokio::test]
    async fn hashing_memory_is_returned_to_the_system_when_idle() {
        if role().is_none() {
            let test = "account::hash_workers::tests::hashing_memory_is_returned_to_the_system_when_idle";
            let (ended, said) = play(test, "alone");
            assert_eq!(ended, Some(0), "{said}");
            return;
        }
        let hash_pool = HashPool::with_spare_ttl(LARGE, Duration::from_millis(1)).unwrap();
        let before = resident_kib();
        for _ in 0..3 {
            let hash =
                hash_pool.request_slot(&Caller::default()).acquire(None).await.unwrap().hash(secret("one")).await;
            assert!(hash.is_ok());
            let began = Stopwatch::new();
            while !hash_pool.jobs.state.lock().spare.is_empty() || resident_kib() > before + 10_240 {
                assert!(began.elapsed() < WAIT_MAX, "{} KiB before, {} now", before, resident_kib());
                tokio::task::yield_now().await;
            }
        }
    }

    #[tokio::test]
    async fn recently_used_memory_is_reused() {
        let hash_pool = HashPool::start(CHEAP).unwrap();
        for _ in 0..8 {
            let slot = hash_pool.request_slot(&Caller::default()).acquire(None).await.unwrap();
            assert!(slot.hash(secret("one")).await.is_ok());
            let began = Stopwatch::new();
            while hash_pool.jobs.state.lock().spare.len() != 1 {
                assert!(began.elapsed() < WAIT_MAX);
                tokio::task::yield_now().await;
            }
        }
    }

    #[tokio::test]
    async fn a_password_only_matches_its_own_hash() {
        let hash_pool = HashPool::start(CHEAP).unwrap();
        let slot = hash_pool.request_slot(&Caller::default()).acquire(None).await.unwrap();
        let hash = slot.hash(secret("one and two")).await.unwrap();
        assert!(hash.expose().starts_with("$argon2id$v=19$m=64,t=1,p=1$"));
        assert!(matches!(slot.verify(secret("one and two"), Some(hash.clone())).await, Ok(Verdict::Right(None))));
        assert!(matches!(slot.verify(secret("one and two "), Some(hash.clone())).await, Ok(Verdict::Wrong)));
        assert!(matches!(slot.verify(secret(""), Some(hash)).await, Ok(Verdict::Wrong)));
    }

    #[tokio::test]
    async fn composed_and_decomposed_spellings_are_one_password() {
        let hash_pool = HashPool::start(CHEAP).unwrap();
        let slot = hash_pool.request_slot(&Caller::default()).acquire(None).await.unwrap();
        let hash = slot.hash(secret("caf\u{e9}")).await.unwrap();
        assert!(matches!(slot.verify(secret("cafe\u{301}"), Some(hash)).await, Ok(Verdict::Right(None))));
    }

    #[tokio::test]
    async fn a_missing_account_costs_as_many_argon2_runs_as_an_existing_one() {
        let hash_pool = HashPool::start(CHEAP).unwrap();
        let slot = hash_pool.request_slot(&Caller::default()).acquire(None).await.unwrap();
        let hash = slot.hash(secret("one")).await.unwrap();
        for hash in [Some(hash), None, Some(secret("not a hash"))] {
            let before = hash_pool.runs();
            let _ = slot.verify(secret("two"), hash).await;
            assert_eq!(hash_pool.runs() - before, 1);
        }
    }
}
