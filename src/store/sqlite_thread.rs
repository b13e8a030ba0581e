//! One thread owns the `SQLite` connection. After each job, and five times a second while idle, it applies changes to
//! memory, so that a reply is only sent once its change has been applied.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use super::db::Db;
use super::error::StoreError;
use super::folder::Lock;
use super::jobs::{Hooks, Message, perform};
use super::sync;
use crate::metrics;

/// How often the database is polled for changes by other processes.
const IDLE: Duration = Duration::from_millis(200);

/// The thread's state.
pub(super) struct Worker {
    db: Db,
    lock: Lock,
    hooks: Hooks,
    /// The change applied, and the one announced to commands.
    rev: u64,
    told: u64,
    failing: bool,
    /// The database file was replaced.
    lost: bool,
}

impl Worker {
    /// Passes everything to `hooks.apply` once.
    pub(super) fn new(db: Db, lock: Lock, hooks: Hooks) -> Result<Self, StoreError> {
        let mut worker = Self { db, lock, hooks, rev: 0, told: 0, failing: false, lost: false };
        worker.apply()?;
        worker.tell()?;
        worker.db.await_integrity_check()?;
        Ok(worker)
    }

    /// Whether the file is the one that was opened. If not, nothing is written to it, because the log belongs to
    /// another database.
    fn is_own(&mut self) -> Result<(), StoreError> {
        let own = self.db.is_in_place().and_then(|()| self.lock.is_whole());
        if self.lost != own.is_err() {
            if own.is_err() {
                metrics::ACCOUNTS.store_failed("replaced");
            }
            self.lost = own.is_err();
            self.db.leave_log(self.lost);
        }
        own
    }

    /// Applies what changed.
    fn apply(&mut self) -> Result<(), StoreError> {
        self.is_own()?;
        let newest = sync::changes_after(&mut self.db, self.rev, &mut *self.hooks.apply)?;
        self.rev = newest.unwrap_or(self.rev);
        Ok(())
    }

    /// Announces it to waiting commands.
    fn tell(&mut self) -> Result<(), StoreError> {
        if self.told != self.rev {
            let unwritten = |error| StoreError::Down(format!("cannot write to the state directory: {error}"));
            self.lock.tell_applied(self.rev).map_err(unwritten)?;
            self.told = self.rev;
        }
        Ok(())
    }

    /// Both. Gives whether everything has been applied. A failure is logged once until the next success.
    fn sync(&mut self) -> Result<(), StoreError> {
        let applied = self.apply();
        let outcome = applied.clone().and_then(|()| self.tell());
        match (&outcome, self.failing) {
            (Err(error), false) => tracing::error!(%error, "account store sync failed"),
            (Ok(()), true) => tracing::info!("account store sync recovered"),
            _ => {}
        }
        self.failing = outcome.is_err();
        applied
    }

    /// Serves until it is stopped.
    pub(super) fn serve(mut self, jobs: &Receiver<Message>) {
        loop {
            match jobs.recv_timeout(IDLE) {
                Ok(Message::Job(job)) => {
                    let own = self.is_own();
                    let reply = perform(job, own.map(|()| &mut self.db));
                    let in_force = self.sync();
                    if let Some(reply) = reply {
                        reply(in_force);
                    }
                }
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    let _ = self.sync();
                }
            }
            if !self.lost {
                (self.hooks.tick)(&mut self.db);
            }
        }
        let _ = self.is_own();
    }
}
