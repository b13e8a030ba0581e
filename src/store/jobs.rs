//! Jobs for the threads that hold a database.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::db::Db;
use super::error::StoreError;
use super::sync::Change;

/// Maximum queued jobs.
pub(super) const QUEUE: usize = 1024;

/// Receives whether everything on disk has been applied.
pub(super) type Reply = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// Does its work, unless the database is unusable, and returns the reply to send.
pub(super) type Job = Box<dyn FnOnce(Result<&mut Db, StoreError>) -> Reply + Send>;

/// What a thread receives.
pub(super) enum Message {
    Job(Job),
    Stop,
}

/// Callbacks of the store's threads.
pub struct Hooks {
    /// Applies changes to memory.
    pub apply: Box<dyn FnMut(Change<'_>) + Send>,
    /// Called at least five times a second, for maintenance.
    pub tick: Box<dyn FnMut(&mut Db) + Send>,
}

/// Does a job; gives the reply to send. A panic in one request must not end another; an open transaction rolls back.
pub(super) fn perform(job: Job, db: Result<&mut Db, StoreError>) -> Option<Reply> {
    let reply = catch_unwind(AssertUnwindSafe(|| job(db)));
    if reply.is_err() {
        tracing::error!("account store job panicked");
    }
    reply.ok()
}
