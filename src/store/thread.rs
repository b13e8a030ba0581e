//! One thread owns the connection; everybody else sends it jobs. After each job, and five times a
//! second while idle, it hands on what changed, so that a reply is sent only once the change that
//! it speaks of is in force in memory.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::StoreError;
use super::db::Db;
use super::folder::Lock;
use super::sync::Changes;

/// Jobs that may wait.
const QUEUE: usize = 1024;
/// How long a caller waits before its job is dropped undone.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often the database is looked at for changes made by others.
const IDLE: Duration = Duration::from_millis(200);

type Reply = Box<dyn FnOnce() + Send>;

enum Message {
    /// Does its work and gives back the reply to send.
    Job(Box<dyn FnOnce(&mut Db) -> Reply + Send>),
    Stop,
}

/// What the store's thread calls.
pub struct Hooks {
    /// Puts changes in force in memory.
    pub apply: Box<dyn FnMut(Changes) + Send>,
    /// Called at least five times a second, for chores.
    pub tick: Box<dyn FnMut(&mut Db) + Send>,
}

/// A handle to the store's thread. When it is dropped the thread finishes what waits and ends.
pub struct Store {
    jobs: SyncSender<Message>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Worker {
    db: Db,
    lock: Lock,
    hooks: Hooks,
    rev: u64,
    failing: bool,
}

impl Worker {
    /// Hands on what changed. A failure is logged once until it goes well again.
    fn sync(&mut self) -> Result<(), StoreError> {
        let outcome = match self.db.changes_after(self.rev) {
            Ok(None) => Ok(()),
            Ok(Some(changes)) => {
                let rev = changes.rev;
                (self.hooks.apply)(changes);
                self.rev = rev;
                self.lock
                    .tell_applied(rev)
                    .map_err(|error| StoreError::Down(format!("the state folder cannot be written: {error}")))
            }
            Err(error) => Err(error),
        };
        match (&outcome, self.failing) {
            (Err(error), false) => tracing::error!(%error, "changes to accounts could not be read"),
            (Ok(()), true) => tracing::info!("changes to accounts can be read again"),
            _ => {}
        }
        self.failing = outcome.is_err();
        outcome
    }

    fn serve(mut self, jobs: &Receiver<Message>) {
        loop {
            match jobs.recv_timeout(IDLE) {
                Ok(Message::Job(job)) => {
                    // a fault in one request never ends another; an open transaction rolls back
                    let reply = catch_unwind(AssertUnwindSafe(|| job(&mut self.db)));
                    let _ = self.sync();
                    if let Ok(reply) = reply { reply() } else { tracing::error!("a job of the store panicked") }
                }
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    let _ = self.sync();
                }
            }
            (self.hooks.tick)(&mut self.db);
        }
    }
}

impl Store {
    /// Starts the thread, with everything already handed to `hooks.apply` once.
    pub fn start(db: Db, lock: Lock, hooks: Hooks) -> Result<Self, StoreError> {
        let mut worker = Worker { db, lock, hooks, rev: 0, failing: false };
        worker.sync()?;
        let (jobs, inbox) = sync_channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || worker.serve(&inbox))
            .map_err(|error| StoreError::Down(format!("a thread cannot be started: {error}")))?;
        Ok(Self { jobs, thread: Mutex::new(Some(thread)) })
    }

    /// Runs `work` on the store's thread. When this returns `Ok`, what was written is on disk and
    /// in force.
    ///
    /// # Errors
    /// [`StoreError::Down`] when the queue is full, the wait exceeds 5 s, or `work` failed.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Db) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (sender, answer) = oneshot::channel();
        let job = move |db: &mut Db| -> Reply {
            if sender.is_closed() {
                return Box::new(|| {}); // whoever asked has given up
            }
            let done = work(db);
            Box::new(move || drop(sender.send(done)))
        };
        if self.jobs.try_send(Message::Job(Box::new(job))).is_err() {
            return Err(StoreError::Down("too many jobs wait for the store".to_owned()));
        }
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(done)) => done,
            Ok(Err(_)) => Err(StoreError::Down("the store's thread gave no answer".to_owned())),
            Err(_) => Err(StoreError::Down("the store did not answer within 5 s".to_owned())),
        }
    }

    /// Finishes the jobs that wait and ends the thread. Blocks until it is done.
    pub fn stop(&self) {
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            let _ = self.jobs.send(Message::Stop);
            let _ = thread.join();
        }
    }
}
