//! The threads of a node on a shared database. Some do jobs, each on a connection of its own. One polls for what other
//! nodes changed, and applies it; only that one does, so that nothing old overtakes something new. A job's reply is sent
//! once its own change has been applied here.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::db::Db;
use super::error::StoreError;
use super::jobs::{Hooks, Message, Reply, perform};
use super::node_rows::NodeId;
use super::postgres::{Feed, Polled, nodes};
use super::sync::Reload;
use crate::clock::{Clock, Stopwatch, UnixSecs};
use crate::config::StoreUrl;
use crate::critical;

/// Threads that do jobs. With the one that polls, so many connections has a node.
const WORKERS: usize = 4;
/// How often the database is polled.
const POLL_EVERY: Duration = Duration::from_millis(200);
/// Requests with unknown credentials do not cause polls more often than this.
const CATCH_UP_EVERY: Duration = Duration::from_millis(20);
/// How often a node says that it is there.
const ANNOUNCE_EVERY: Duration = Duration::from_secs(1);
/// A clock that is further from the database's is said in the log, seconds.
const OFFSET_WARNED: i64 = 2;

/// Why the polling thread is woken.
enum Wake {
    /// A job has changed something.
    Applied(Reply),
    /// A request waits for what other nodes have committed.
    CatchUp(oneshot::Sender<Result<(), StoreError>>),
    Stop,
}

/// How far the polling thread is.
struct Progress {
    started: Stopwatch,
    /// Milliseconds from `started` to the beginning of the last poll that worked.
    polled: AtomicU64,
    /// Seconds from the database's clock to this node's.
    offset: AtomicI64,
    reconnects: AtomicU64,
}

/// The polling thread, as others see it. When it is dropped, the thread ends.
pub(super) struct FeedState {
    progress: Arc<Progress>,
    wake: Mutex<Sender<Wake>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl FeedState {
    /// Time since the last poll that worked began.
    pub(super) fn blind(&self) -> Duration {
        let polled = Duration::from_millis(self.progress.polled.load(Ordering::Acquire));
        self.progress.started.elapsed().saturating_sub(polled)
    }

    /// Whether the thread runs.
    pub(super) fn is_running(&self) -> bool {
        self.thread.lock().as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Seconds from the database's clock to this node's.
    pub(super) fn clock_offset(&self) -> i64 {
        self.progress.offset.load(Ordering::Relaxed)
    }

    /// How often connections were made again.
    pub(super) fn reconnects(&self) -> u64 {
        self.progress.reconnects.load(Ordering::Relaxed)
    }

    /// Waits for a poll that begins later than this call.
    pub(super) async fn catch_up(&self) -> Result<(), StoreError> {
        let (sender, answer) = oneshot::channel();
        let gone = || StoreError::Down("the account store has stopped".to_owned());
        self.wake.lock().send(Wake::CatchUp(sender)).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Ends the thread, once nothing else sends it replies. Blocks until done.
    pub(super) fn stop(&self) {
        if let Some(thread) = self.thread.lock().take() {
            let _ = self.wake.lock().send(Wake::Stop);
            let _ = thread.join();
        }
    }
}

/// Starts the threads, after passing everything to `hooks.apply` once. `db` becomes the polling thread's. Gives those
/// that do jobs.
pub(super) fn start(
    db: Db,
    (url, node): (&StoreUrl, &NodeId),
    clock: &Clock,
    hooks: Hooks,
    inbox: Receiver<Message>,
) -> Result<(Vec<JoinHandle<()>>, FeedState), StoreError> {
    let (wake, woken) = channel();
    let started = Stopwatch::new();
    let [polled, reconnects] = [(); 2].map(|()| AtomicU64::new(0));
    let progress = Arc::new(Progress { started, polled, offset: AtomicI64::new(0), reconnects });
    let mut poller = Poller {
        db,
        hooks,
        feed: Feed::default(),
        progress: Arc::clone(&progress),
        node: node.clone(),
        clock: clock.clone(),
        since: clock.now(),
        announced: None,
        is_failing: false,
        is_clock_wrong: false,
    };
    poller.poll()?;
    poller.announce();
    let inbox = Arc::new(Mutex::new(inbox));
    let failed = |error| StoreError::Down(format!("could not start a thread: {error}"));
    let mut threads = Vec::new();
    for _ in 0..WORKERS {
        let (db, inbox, wake) = (Db::connect_later(url, &node.name)?, Arc::clone(&inbox), wake.clone());
        let work = move || work(db, &inbox, &wake);
        threads.push(critical::spawn_thread("store", work).map_err(failed)?);
    }
    let thread = critical::spawn_thread("store-poll", move || poller.serve(&woken)).map_err(failed)?;
    Ok((threads, FeedState { progress, wake: Mutex::new(wake), thread: Mutex::new(Some(thread)) }))
}

/// Does jobs until it is stopped.
fn work(mut db: Db, inbox: &Mutex<Receiver<Message>>, wake: &Sender<Wake>) {
    loop {
        // one waits for a job, the others for their turn
        let received = inbox.lock().recv();
        let Ok(Message::Job(job)) = received else { break };
        let before = db.last_change();
        let Some(reply) = perform(job, Ok(&mut db)) else { continue };
        if db.last_change() == before {
            reply(Ok(()));
        } else if let Err(unsent) = wake.send(Wake::Applied(reply))
            && let Wake::Applied(reply) = unsent.0
        {
            reply(Err(StoreError::Down("the account store has stopped".to_owned())));
        }
    }
}

/// The polling thread's state.
struct Poller {
    db: Db,
    hooks: Hooks,
    feed: Feed,
    progress: Arc<Progress>,
    node: NodeId,
    clock: Clock,
    /// When this node started.
    since: UnixSecs,
    announced: Option<Stopwatch>,
    is_failing: bool,
    is_clock_wrong: bool,
}

impl Poller {
    fn serve(mut self, woken: &Receiver<Wake>) {
        let mut last = Stopwatch::new();
        loop {
            let (mut replies, mut requests, mut stops) = (Vec::new(), Vec::new(), false);
            let mut next = woken.recv_timeout(POLL_EVERY.saturating_sub(last.elapsed()));
            while let Ok(wake) = next {
                match wake {
                    Wake::Applied(reply) => replies.push(reply),
                    Wake::CatchUp(sender) => requests.push(sender),
                    Wake::Stop => stops = true,
                }
                // requests alone are collected for a moment
                let is_urgent = stops || !replies.is_empty();
                let pause = if is_urgent { Duration::ZERO } else { CATCH_UP_EVERY.saturating_sub(last.elapsed()) };
                next = if pause.is_zero() {
                    woken.try_recv().map_err(|_| RecvTimeoutError::Timeout)
                } else {
                    woken.recv_timeout(pause)
                };
            }
            if stops || matches!(next, Err(RecvTimeoutError::Disconnected)) {
                self.leave(replies);
                return;
            }
            last = Stopwatch::new();
            let polled = self.sync();
            for reply in replies {
                reply(polled.clone().map(|_| ()));
            }
            for request in requests {
                let _ = request.send(polled.clone().map(|_| ()));
            }
            let has_changed = polled.is_ok_and(|polled| polled != Polled::Same);
            let is_due = self.announced.is_none_or(|at| at.elapsed() >= ANNOUNCE_EVERY);
            if !self.is_failing && (has_changed || is_due) {
                self.announce();
            }
            (self.hooks.tick)(&mut self.db);
        }
    }

    /// Applies what the last jobs changed, and takes this node off the list.
    fn leave(&mut self, replies: Vec<Reply>) {
        let polled = self.sync().map(|_| ());
        for reply in replies {
            reply(polled.clone());
        }
        if let Some(postgres) = self.db.postgres()
            && let Err(error) = nodes::leave(postgres, &self.node)
        {
            tracing::debug!(%error, "could not take this node off the list");
        }
    }

    /// Applies what changed.
    fn poll(&mut self) -> Result<Polled, StoreError> {
        let began = self.progress.started.elapsed();
        let Some(postgres) = self.db.postgres() else { return Ok(Polled::Same) };
        let polled = self.feed.poll(postgres, self.clock.now(), &mut *self.hooks.apply)?;
        let millis = u64::try_from(began.as_millis()).unwrap_or(u64::MAX);
        self.progress.polled.store(millis, Ordering::Release);
        self.progress.reconnects.store(postgres.reconnects(), Ordering::Relaxed);
        match polled {
            Polled::Loaded(Some(Reload::Failover)) => {
                tracing::warn!("the database is another server now, everything was read again");
            }
            Polled::Loaded(Some(_)) => tracing::info!("the account store was away for long, everything was read again"),
            _ => {}
        }
        Ok(polled)
    }

    /// The same. A failure is logged once until the next success.
    fn sync(&mut self) -> Result<Polled, StoreError> {
        let polled = self.poll();
        match (&polled, self.is_failing) {
            (Err(error), false) => tracing::error!(%error, "account store sync failed"),
            (Ok(_), true) => tracing::info!("account store sync recovered"),
            _ => {}
        }
        self.is_failing = polled.is_err();
        polled
    }

    /// Says that this node is there, and compares the clocks.
    fn announce(&mut self) {
        self.announced = Some(Stopwatch::new());
        let (Some(postgres), Some(snapshot)) = (self.db.postgres(), self.feed.snapshot()) else { return };
        let done = nodes::announce(postgres, &self.node, self.since, snapshot);
        match done {
            Ok(theirs) => {
                let own = i64::try_from(self.clock.now()).unwrap_or(i64::MAX);
                let offset = own.saturating_sub_unsigned(theirs);
                self.progress.offset.store(offset, Ordering::Relaxed);
                let is_wrong = offset.abs() > OFFSET_WARNED;
                if is_wrong && !self.is_clock_wrong {
                    tracing::warn!(seconds = offset, "this machine's clock differs from the database's: check NTP");
                }
                self.is_clock_wrong = is_wrong;
            }
            Err(error) => tracing::debug!(%error, "could not announce this node"),
        }
    }
}
