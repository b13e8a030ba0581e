//! Hashing passwords (argon2id), off the threads that serve. The number of workers and the queue
//! before them are bounded: hashing is dear on purpose, and must not be a way to exhaust memory. Workers
//! stand behind all other threads, so that people who are signed in do not feel a flood of wrong passwords.
//! Nothing else speaks to the argon2 crate.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use zeroize::Zeroizing;

use super::Caller;
use super::blocklist::normal;
use super::foreign::Foreign;
use super::share::{Share, Shares};
use crate::clock::Stopwatch;
use crate::config;
use crate::metrics;
use crate::secret::{NoRandomness, Secret, random_bytes, same_bytes};
use crate::vital;

/// Jobs that may wait beyond those being worked at.
const QUEUE: usize = 32;
/// A stored hash that asks for more than this is not looked at (and not more than is configured).
const MEMORY_KIB_MAX: u32 = 256 * 1024;
const ITERATIONS_MAX: u32 = 16;
const LANES_MAX: u32 = 16;
const HASH_BYTES: usize = 32;
/// A worker that has rested this long gives its memory back.
const REST: Duration = Duration::from_secs(1);
const SALT_BYTES: usize = 16;
/// How much nicer than other threads the workers are (sched(7)): where a core is wanted by both, a worker gets
/// about a tenth of it.
const NICER: i32 = 10;
/// Whoever finds the queue full hears of it after so many milliseconds: asking again at once must not be a load of its
/// own. Not all after the same time: those who came together would come together again, before everybody else.
const TURNED_AWAY: std::ops::Range<u64> = 15..35;

/// The queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Busy;

/// What a comparison found.
#[derive(Debug, Clone)]
#[must_use]
pub(super) enum Verdict {
    /// The password is right. With a new hash if the stored one has other parameters than are configured.
    Right(Option<Secret>),
    /// It is wrong, or there was nothing to compare with.
    Wrong,
}

enum Work {
    Verify { password: Secret, hash: Option<Secret>, reply: oneshot::Sender<Verdict> },
    Hash { password: Secret, reply: oneshot::Sender<Result<Secret, NoRandomness>> },
}

struct Job {
    work: Work,
    /// given back when the job is done or dropped
    _place: Arc<Seat>,
}

/// The workers and the queue before them.
pub(super) struct Hasher {
    jobs: Sender<Job>,
    /// Those of new hashes.
    settings: Arc<Mutex<config::Argon2>>,
    places: Arc<Semaphore>,
    shares: Shares,
    #[cfg(test)]
    runs: Arc<AtomicU64>,
}

/// One place of all, and one of the caller's share.
struct Seat {
    _permit: OwnedSemaphorePermit,
    _share: Share,
}

/// A place in the queue, held from before the attempt is counted: whoever is turned away because
/// of load has not used up a try.
pub(super) struct Place {
    jobs: Sender<Job>,
    place: Arc<Seat>,
}

impl Hasher {
    /// Starts one worker less than there are cores, at least one.
    pub(super) fn start(settings: config::Argon2) -> std::io::Result<Self> {
        let workers = std::thread::available_parallelism().map_or(1, |cores| cores.get().saturating_sub(1).max(1));
        let (jobs, inbox) = channel();
        let inbox = Arc::new(Mutex::new(inbox));
        let runs = Arc::new(AtomicU64::new(0));
        let in_force = Arc::new(Mutex::new(settings));
        for _ in 0..workers {
            let (inbox, in_force) = (Arc::clone(&inbox), Arc::clone(&in_force));
            let engine = Engine::new(settings, Arc::clone(&runs));
            vital::thread("hash", move || work(engine, &in_force, &inbox))?;
        }
        let places = Arc::new(Semaphore::new(workers + QUEUE));
        Ok(Self {
            jobs,
            settings: in_force,
            places,
            shares: Shares::of(workers + QUEUE),
            #[cfg(test)]
            runs,
        })
    }

    /// Other settings, for the jobs that begin from now on.
    pub(super) fn set(&self, settings: config::Argon2) {
        *self.settings.lock() = settings;
    }

    /// Takes a place in the queue, or says, a little later, that it is full, or that the caller's address has its
    /// share of it.
    pub(super) async fn place(&self, caller: &Caller) -> Result<Place, Busy> {
        let seat = self.shares.take(caller).and_then(|share| {
            let permit = Arc::clone(&self.places).try_acquire_owned().ok()?;
            Some(Seat { _permit: permit, _share: share })
        });
        let Some(seat) = seat else {
            metrics::ACCOUNTS.hash_refused();
            turned_away().await;
            return Err(Busy);
        };
        Ok(Place { jobs: self.jobs.clone(), place: Arc::new(seat) })
    }

    /// How many times argon2 ran.
    #[cfg(test)]
    pub(super) fn runs(&self) -> u64 {
        self.runs.load(Ordering::SeqCst)
    }

    /// How many places are free.
    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.places.available_permits()
    }
}

/// Waits before somebody is turned away.
pub(super) async fn turned_away() {
    static TURN: AtomicU64 = AtomicU64::new(0);
    // neighbours stand far apart
    let spread = TURN.fetch_add(7, Ordering::Relaxed) % (TURNED_AWAY.end - TURNED_AWAY.start);
    tokio::time::sleep(Duration::from_millis(TURNED_AWAY.start + spread)).await;
}

impl Place {
    fn send(&self, work: Work) {
        metrics::ACCOUNTS.hash_waits();
        // a failure drops the reply's sender, which whoever waits takes for a refusal
        let _ = self.jobs.send(Job { work, _place: Arc::clone(&self.place) });
    }

    /// Compares. `None`, or a hash that is no good, takes as long as the real thing and is wrong.
    pub(super) async fn verify(&self, password: Secret, hash: Option<Secret>) -> Result<Verdict, Busy> {
        let (reply, answer) = oneshot::channel();
        self.send(Work::Verify { password, hash, reply });
        answer.await.map_err(|_| Busy)
    }

    /// Hashes a new password into a PHC string.
    pub(super) async fn hash(&self, password: Secret) -> Result<Secret, Busy> {
        let (reply, answer) = oneshot::channel();
        self.send(Work::Hash { password, reply });
        answer.await.map_err(|_| Busy)?.map_err(|_| Busy)
    }
}

/// Hashes a new password here and now; for commands.
pub(super) fn hash_now(settings: config::Argon2, password: &Secret) -> Result<Secret, NoRandomness> {
    Engine::new(settings, Arc::default()).hash(password)
}

/// Whether a stored hash can be compared with: ours, or one that another program made.
pub(super) fn is_usable(settings: config::Argon2, hash: &Secret) -> bool {
    Foreign::parse(hash.expose()).is_some() || Engine::new(settings, Arc::default()).parse(hash).is_some()
}

fn work(mut engine: Engine, in_force: &Mutex<config::Argon2>, inbox: &Mutex<Receiver<Job>>) {
    // of this thread alone; where it is not possible hashing goes on all the same
    if let Err(error) = rustix::process::nice(NICER) {
        tracing::warn!(%error, "a hashing thread cannot be made to stand behind others");
    }
    loop {
        let next = inbox.lock().recv_timeout(REST);
        let Job { work, _place } = match next {
            Ok(job) => job,
            Err(RecvTimeoutError::Timeout) => {
                engine.memory = Vec::new();
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        engine.settings = *in_force.lock();
        metrics::ACCOUNTS.hash_begins();
        let began = Stopwatch::new();
        // a fault in one request never ends another: the reply is dropped, the worker goes on
        let done = catch_unwind(AssertUnwindSafe(|| engine.carry_out(work)));
        metrics::ACCOUNTS.hashed(began.elapsed());
        if done.is_err() {
            tracing::error!("a hashing job panicked");
        }
    }
}

/// One worker's argon2, with memory that is used again and again.
struct Engine {
    settings: config::Argon2,
    memory: Vec<Block>,
    runs: Arc<AtomicU64>,
}

struct Stored {
    algorithm: Algorithm,
    version: Version,
    params: Params,
    salt: Vec<u8>,
    output: Vec<u8>,
}

impl Engine {
    fn new(settings: config::Argon2, runs: Arc<AtomicU64>) -> Self {
        Self { settings, memory: Vec::new(), runs }
    }

    fn carry_out(&mut self, work: Work) {
        match work {
            Work::Verify { password, hash, reply } if !reply.is_closed() => {
                let _ = reply.send(self.verify(&password, hash.as_ref()));
            }
            Work::Hash { password, reply } if !reply.is_closed() => {
                let _ = reply.send(self.hash(&password));
            }
            _ => {} // whoever asked has given up
        }
    }

    fn params(&self) -> Result<Params, argon2::Error> {
        let config::Argon2 { memory_kib, iterations, parallelism } = self.settings;
        Params::new(memory_kib, iterations, parallelism, Some(HASH_BYTES))
    }

    /// Fills `output`; the length is part of what is hashed.
    fn run(&mut self, password: &str, stored: &Stored, output: &mut [u8]) -> Result<(), argon2::Error> {
        self.runs.fetch_add(1, Ordering::SeqCst);
        let blocks = stored.params.block_count();
        let usual = self.params()?.block_count();
        if self.memory.len() < blocks {
            self.memory.resize(blocks, Block::default());
        }
        let argon2 = Argon2::new(stored.algorithm, stored.version, stored.params.clone());
        let done = argon2.hash_password_into_with_memory(password.as_bytes(), &stored.salt, output, &mut self.memory);
        if blocks > usual {
            self.memory.truncate(usual);
            self.memory.shrink_to_fit();
        }
        done
    }

    fn parse(&self, hash: &Secret) -> Option<Stored> {
        let parsed = PasswordHash::new(hash.expose()).ok()?;
        let params = Params::try_from(&parsed).ok()?;
        let fits = params.m_cost() <= MEMORY_KIB_MAX.max(self.settings.memory_kib)
            && params.t_cost() <= ITERATIONS_MAX.max(self.settings.iterations)
            && params.p_cost() <= LANES_MAX.max(self.settings.parallelism);
        if !fits {
            return None;
        }
        Some(Stored {
            algorithm: Algorithm::try_from(parsed.algorithm.as_str()).ok()?,
            version: parsed.version.map_or(Ok(Version::V0x13), Version::try_from).ok()?,
            salt: parsed.salt?.to_vec(),
            output: parsed.hash?.as_bytes().to_vec(),
            params,
        })
    }

    fn is_current(&self, stored: &Stored) -> bool {
        let config::Argon2 { memory_kib, iterations, parallelism } = self.settings;
        stored.algorithm == Algorithm::Argon2id
            && stored.version == Version::V0x13
            && stored.output.len() == HASH_BYTES
            && (stored.params.m_cost(), stored.params.t_cost(), stored.params.p_cost())
                == (memory_kib, iterations, parallelism)
    }

    fn verify(&mut self, password: &Secret, hash: Option<&Secret>) -> Verdict {
        if let Some(foreign) = hash.and_then(|hash| Foreign::parse(hash.expose())) {
            // as it was typed when the other program made the hash, in whatever spelling that was
            let (typed, normal) = (password.expose(), normal(password));
            let right = foreign.matches(typed) || (*normal != *typed && foreign.matches(&normal));
            return if right { Verdict::Right(self.hash(password).ok()) } else { Verdict::Wrong };
        }
        let Some(stored) = hash.and_then(|hash| self.parse(hash)) else {
            self.pretend(password);
            return Verdict::Wrong;
        };
        let mut output = Zeroizing::new(vec![0u8; stored.output.len()]);
        if self.run(&normal(password), &stored, &mut output).is_err() || !same_bytes(&output, &stored.output) {
            return Verdict::Wrong;
        }
        if self.is_current(&stored) {
            return Verdict::Right(None);
        }
        Verdict::Right(self.hash(password).ok())
    }

    /// Costs what a comparison costs, for accounts that do not exist.
    fn pretend(&mut self, password: &Secret) {
        if let Ok(params) = self.params() {
            let stored = Stored {
                algorithm: Algorithm::Argon2id,
                version: Version::V0x13,
                params,
                salt: vec![0; SALT_BYTES],
                output: Vec::new(),
            };
            let mut output = Zeroizing::new([0u8; HASH_BYTES]);
            let _ = self.run(&normal(password), &stored, output.as_mut_slice());
        }
    }

    fn hash(&mut self, password: &Secret) -> Result<Secret, NoRandomness> {
        let salt = random_bytes::<SALT_BYTES>()?;
        // the parameters were judged with the configuration; if they are no good nothing is hashed
        let params = self.params().map_err(|_| NoRandomness)?;
        let text = ParamsString::try_from(&params).map_err(|_| NoRandomness)?;
        let stored = Stored {
            algorithm: Algorithm::Argon2id,
            version: Version::V0x13,
            params,
            salt: salt.to_vec(),
            output: Vec::new(),
        };
        let mut output = Zeroizing::new([0u8; HASH_BYTES]);
        self.run(&normal(password), &stored, output.as_mut_slice()).map_err(|_| NoRandomness)?;
        let hash = PasswordHash {
            algorithm: Algorithm::Argon2id.ident(),
            version: Some(Version::V0x13.into()),
            params: text,
            salt: Some(Salt::new(&salt).map_err(|_| NoRandomness)?),
            hash: Some(Output::new(output.as_slice()).map_err(|_| NoRandomness)?),
        };
        Ok(Secret::new(hash.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: config::Argon2 = config::Argon2 { memory_kib: 64, iterations: 1, parallelism: 1 };

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    #[tokio::test]
    async fn a_password_is_right_against_its_own_hash_alone() {
        let hasher = Hasher::start(CHEAP).unwrap();
        let place = hasher.place(&Caller::default()).await.unwrap();
        let hash = place.hash(secret("one and two")).await.unwrap();
        assert!(hash.expose().starts_with("$argon2id$v=19$m=64,t=1,p=1$"));
        assert!(matches!(place.verify(secret("one and two"), Some(hash.clone())).await, Ok(Verdict::Right(None))));
        assert!(matches!(place.verify(secret("one and two "), Some(hash.clone())).await, Ok(Verdict::Wrong)));
        assert!(matches!(place.verify(secret(""), Some(hash)).await, Ok(Verdict::Wrong)));
    }

    #[tokio::test]
    async fn composed_and_decomposed_spellings_are_one_password() {
        let hasher = Hasher::start(CHEAP).unwrap();
        let place = hasher.place(&Caller::default()).await.unwrap();
        let hash = place.hash(secret("caf\u{e9}")).await.unwrap();
        assert!(matches!(place.verify(secret("cafe\u{301}"), Some(hash)).await, Ok(Verdict::Right(None))));
    }

    #[test]
    fn known_hash_of_the_reference_implementation_is_understood() {
        // phc-winner-argon2, test.c: argon2id, m=65536 t=2 p=1, "password" / "somesalt"
        let hash = secret("$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc");
        let mut engine = Engine::new(CHEAP, Arc::default());
        assert!(matches!(engine.verify(&secret("password"), Some(&hash)), Verdict::Right(Some(_))));
        assert!(matches!(engine.verify(&secret("differentpassword"), Some(&hash)), Verdict::Wrong));
        assert_eq!(engine.memory.len(), 64);
    }

    #[test]
    fn hashes_that_ask_for_too_much_are_not_looked_at() {
        let mut engine = Engine::new(CHEAP, Arc::default());
        for greedy in ["m=4194304,t=1,p=1", "m=64,t=4000000,p=1", "m=8388608,t=1,p=1000000"] {
            let hash =
                secret(&format!("$argon2id$v=19${greedy}$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"));
            assert!(matches!(engine.verify(&secret("password"), Some(&hash)), Verdict::Wrong));
        }
        assert!(engine.memory.len() <= 64);
    }

    #[tokio::test]
    async fn no_account_costs_as_many_runs_as_an_account() {
        let hasher = Hasher::start(CHEAP).unwrap();
        let place = hasher.place(&Caller::default()).await.unwrap();
        let hash = place.hash(secret("one")).await.unwrap();
        for hash in [Some(hash), None, Some(secret("not a hash"))] {
            let before = hasher.runs();
            let _ = place.verify(secret("two"), hash).await;
            assert_eq!(hasher.runs() - before, 1);
        }
    }

    #[tokio::test]
    async fn workers_stand_behind_other_threads() {
        let hasher = Hasher::start(CHEAP).unwrap();
        let place = hasher.place(&Caller::default()).await.unwrap();
        let _ = place.hash(secret("a job has been done, so the worker is where it works")).await.unwrap();
        let nice = |task: &std::path::Path| {
            let stat = std::fs::read_to_string(task.join("stat")).ok()?;
            let (name, rest) = (stat.split_once('(')?.1.split_once(')')?.0.to_owned(), stat.rsplit_once(')')?.1);
            Some((name, rest.split(' ').nth(17)?.parse::<i32>().ok()?)) // proc(5): field 19
        };
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let nices: Vec<_> = tasks.filter_map(|task| nice(&task.unwrap().path())).collect();
        let own = nice(std::path::Path::new("/proc/thread-self")).unwrap().1;
        assert!(nices.iter().any(|(name, nice)| name == "hash" && *nice == (own + NICER).min(19)), "{nices:?}");
    }

    #[tokio::test]
    async fn the_queue_is_bounded_and_places_come_back() {
        let hasher = Hasher::start(CHEAP).unwrap();
        let all = hasher.free();
        let mut places = Vec::new();
        for _ in 0..all {
            places.push(hasher.place(&Caller::default()).await.unwrap());
        }
        assert!(matches!(hasher.place(&Caller::default()).await, Err(Busy)));
        drop(places);
        assert_eq!(hasher.free(), all);
        assert!(hasher.place(&Caller::default()).await.is_ok());
    }
}
