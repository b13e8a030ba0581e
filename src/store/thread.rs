//! [`Store`], the handle to the threads that hold the database: everything else sends them jobs.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::db::Db;
use super::error::StoreError;
use super::folder::Lock;
use super::jobs::{Hooks, Message, QUEUE, Reply};
use super::node_rows::NodeId;
use super::shared_threads::{self, FeedState};
use super::sqlite_thread::Worker;
use crate::clock::Clock;
use crate::config::StoreUrl;
use crate::critical;
use crate::metrics;

/// How long a request waits for other nodes' changes.
const CATCH_UP_TIMEOUT: Duration = Duration::from_millis(500);
/// How long a caller waits before its job is dropped.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// A handle to the store's threads. When it is dropped, they finish queued jobs and end.
pub struct Store {
    jobs: SyncSender<Message>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// How far this node has followed the others; `None`: there are no others.
    feed: Option<FeedState>,
}

impl Store {
    /// Starts the thread of an `SQLite` database, after passing everything to `hooks.apply` once.
    pub fn start(db: Db, lock: Lock, hooks: Hooks) -> Result<Self, StoreError> {
        let worker = Worker::new(db, lock, hooks)?;
        let (jobs, inbox) = sync_channel(QUEUE);
        let thread = critical::spawn_thread("store", move || worker.serve(&inbox))
            .map_err(|error| StoreError::Down(format!("could not start a thread: {error}")))?;
        Ok(Self { jobs, threads: Mutex::new(vec![thread]), feed: None })
    }

    /// Starts the threads of a database that several nodes share, after passing everything to `hooks.apply` once.
    pub fn start_shared(
        db: Db,
        url: &StoreUrl,
        node: &NodeId,
        clock: &Clock,
        hooks: Hooks,
    ) -> Result<Self, StoreError> {
        let (jobs, inbox) = sync_channel(QUEUE);
        let (threads, feed) = shared_threads::start(db, (url, node), clock, hooks, inbox)?;
        Ok(Self { jobs, threads: Mutex::new(threads), feed: Some(feed) })
    }

    /// Whether other nodes use the same database.
    pub fn is_shared(&self) -> bool {
        self.feed.is_some()
    }

    /// Whether its threads run, whatever the database does.
    pub fn is_running(&self) -> bool {
        let threads = self.threads.lock();
        let polls = self.feed.as_ref().is_none_or(FeedState::is_running);
        polls && !threads.is_empty() && !threads.iter().any(JoinHandle::is_finished)
    }

    /// For how long other nodes' changes may have been missed.
    pub fn blind(&self) -> Duration {
        self.feed.as_ref().map_or(Duration::ZERO, FeedState::blind)
    }

    /// Seconds from the shared database's clock to this machine's; 0 without one.
    pub fn clock_offset(&self) -> i64 {
        self.feed.as_ref().map_or(0, FeedState::clock_offset)
    }

    /// How often the connection to a shared database was made again.
    pub fn reconnects(&self) -> u64 {
        self.feed.as_ref().map_or(0, FeedState::reconnects)
    }

    /// Applies what other nodes have committed before this call. Calls at the same time share one poll.
    ///
    /// # Errors
    /// [`StoreError::Down`]: the database does not answer.
    pub async fn catch_up(&self) -> Result<(), StoreError> {
        let Some(feed) = &self.feed else { return Ok(()) };
        match tokio::time::timeout(CATCH_UP_TIMEOUT, feed.catch_up()).await {
            Ok(done) => done,
            Err(_) => Err(StoreError::Down("the account store did not respond within 500 ms".to_owned())),
        }
    }

    /// Runs `work` on one of the store's threads. When this returns `Ok`, what was written is on disk and has been applied.
    ///
    /// # Errors
    /// [`StoreError::Down`] if the queue is full, the wait exceeds 5 s, `work` failed, or what it wrote could not be
    /// applied: it will be as soon as possible.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Db) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (sender, answer) = oneshot::channel();
        let job = move |db: Result<&mut Db, StoreError>| -> Reply {
            if sender.is_closed() {
                return Box::new(|_| {}); // the caller has given up
            }
            let done = db.and_then(work);
            Box::new(move |in_force| drop(sender.send(done.and_then(|done| in_force.map(|()| done)))))
        };
        if self.jobs.try_send(Message::Job(Box::new(job))).is_err() {
            metrics::ACCOUNTS.store_failed("busy");
            return Err(StoreError::Down("too many jobs are waiting for the account store".to_owned()));
        }
        match tokio::time::timeout(CALL_TIMEOUT, answer).await {
            Ok(Ok(done)) => done,
            Ok(Err(_)) => Err(StoreError::Down("no response from the account store thread".to_owned())),
            Err(_) => {
                metrics::ACCOUNTS.store_failed("busy");
                Err(StoreError::Down("the account store did not respond within 5 s".to_owned()))
            }
        }
    }

    /// Finishes queued jobs and ends the threads. Blocks until done.
    pub fn stop(&self) {
        let threads = std::mem::take(&mut *self.threads.lock());
        for _ in &threads {
            let _ = self.jobs.send(Message::Stop);
        }
        for thread in threads {
            let _ = thread.join();
        }
        if let Some(feed) = &self.feed {
            feed.stop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Change;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::super::{AuditRow, Check, NewId, NewUser, Written};
    use super::*;
    use crate::critical::testing::{play, role};
    use crate::store::users;

    fn user(email: &str) -> NewUser {
        let [name, picture] = [String::new(), String::new()];
        NewUser {
            id: NewId::Next,
            email: email.to_owned(),
            name,
            picture,
            groups: vec![],
            password: None,
            email_proved: false,
        }
    }

    fn start(dir: &std::path::Path) -> (Store, Arc<AtomicU64>) {
        let db = Db::open(dir, Check::Whole).unwrap();
        let lock = db.folder().unwrap().lock().unwrap();
        let seen = Arc::new(AtomicU64::new(0));
        let told = Arc::clone(&seen);
        let apply = move |change: Change<'_>| {
            if let Change::Account(account) = change {
                told.fetch_max(account.id.parse().unwrap(), Ordering::SeqCst);
            }
        };
        let hooks = Hooks { apply: Box::new(apply), tick: Box::new(|_| {}) };
        (Store::start(db, lock, hooks).unwrap(), seen)
    }

    #[tokio::test]
    async fn a_reply_comes_after_its_change_is_in_effect() {
        let dir = tempfile::tempdir().unwrap();
        let (store, seen) = start(dir.path());
        for n in 1..=20 {
            let new = user(&format!("u{n}@example.com"));
            let rev = store
                .run(move |db| {
                    let _ = users::add_user(db, &new, 1, &AuditRow::default())?;
                    Ok(db.last_change())
                })
                .await
                .unwrap();
            assert_eq!((rev, seen.load(Ordering::SeqCst)), (n, n));
        }
    }

    /// Whoever revokes a session and is told that it is done does not look again.
    #[tokio::test]
    async fn what_is_on_disk_but_not_in_effect_is_not_acknowledged_and_comes_in_effect_later() {
        let dir = tempfile::tempdir().unwrap();
        let (store, seen) = start(dir.path());
        let rename = |from: &'static str, to: &'static str| {
            move |db: &mut Db| {
                db.write(|tx| {
                    tx.execute(&format!("ALTER TABLE {from} RENAME TO {to}"), &[])?;
                    Ok(())
                })
            }
        };
        let add = |email: &'static str| {
            move |db: &mut Db| match users::add_user(db, &user(email), 1, &AuditRow::default())? {
                Written::Done(_) => Ok(()),
                other => panic!("{other:?}"),
            }
        };
        store.run(add("a@example.com")).await.unwrap();
        // changes are told from this table, too
        store.run(rename("api_token", "elsewhere")).await.unwrap();
        let refused = store.run(add("b@example.com")).await;
        assert!(matches!(&refused, Err(StoreError::Down(why)) if why.contains("api_token")), "{refused:?}");
        assert_eq!(seen.load(Ordering::SeqCst), 1);
        store.run(rename("elsewhere", "api_token")).await.unwrap();
        assert_eq!(seen.load(Ordering::SeqCst), 2);
        store.run(add("c@example.com")).await.unwrap();
        assert_eq!(seen.load(Ordering::SeqCst), 3);
    }

    /// Commands would write into the new file: whoever is told that a session has ended does not look again.
    #[tokio::test]
    async fn beside_a_file_that_took_the_databases_place_nothing_is_acknowledged() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = start(dir.path());
        let [database, own, other] = ["authgate.db", "own", "other"].map(|name| dir.path().join(name));
        store.run(Db::answers).await.unwrap();
        std::fs::copy(&database, &other).unwrap();
        std::fs::rename(&database, &own).unwrap();
        let gone = store.run(Db::answers).await;
        assert!(
            matches!(&gone, Err(StoreError::Down(why)) if why.contains("the database file is missing")),
            "{gone:?}"
        );
        std::fs::rename(&other, &database).unwrap();
        let replaced = store.run(Db::answers).await;
        assert!(matches!(&replaced, Err(StoreError::Down(why)) if why.contains("restart the gateway")), "{replaced:?}");
        std::fs::rename(&own, &database).unwrap();
        store.run(Db::answers).await.unwrap();
    }

    #[tokio::test]
    async fn a_job_that_panics_ends_nothing_but_itself() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = start(dir.path());
        let panicking = store.run(|db| -> Result<(), StoreError> {
            db.write(|tx| {
                tx.execute("DELETE FROM counter", &[])?;
                panic!("on purpose")
            })
        });
        assert!(panicking.await.is_err());
        store.run(Db::answers).await.unwrap();
        let done = store.run(|db| users::add_user(db, &user("a@example.com"), 1, &AuditRow::default())).await.unwrap();
        assert!(matches!(done, Written::Done(_)));
    }

    /// What is not in force in memory cannot be told to be: without this thread nobody is signed out any more.
    #[tokio::test]
    async fn a_thread_that_panics_between_jobs_ends_the_process() {
        let Some(role) = role() else {
            for (role, code) in [("tick", 1), ("apply", 1), ("job", 0)] {
                let test = "store::thread::tests::a_thread_that_panics_between_jobs_ends_the_process";
                let (ended, said) = play(test, role);
                assert_eq!(ended, Some(code), "{role}: {said}");
            }
            return;
        };
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(dir.path(), Check::Whole).unwrap();
        let lock = db.folder().unwrap().lock().unwrap();
        let breaks = |when: &'static str| {
            let wanted = role == when;
            move || assert!(!wanted, "on purpose")
        };
        let (tick, apply) = (breaks("tick"), breaks("apply"));
        let apply = Box::new(move |change: Change<'_>| {
            if matches!(change, Change::Account(_)) {
                apply();
            }
        });
        let store = Store::start(db, lock, Hooks { apply, tick: Box::new(move |_| tick()) }).unwrap();
        if role == "job" {
            assert!(store.run(|_| -> Result<(), StoreError> { panic!("on purpose") }).await.is_err());
        }
        let done = store.run(|db| users::add_user(db, &user("a@example.com"), 1, &AuditRow::default())).await;
        // a reply may still come before the process is gone, but nobody is answered after that
        if role == "job" {
            assert!(matches!(done, Ok(Written::Done(_))));
        } else {
            let _ = store.run(Db::answers).await;
            std::future::pending::<()>().await;
        }
    }

    #[tokio::test]
    async fn a_full_queue_refuses_and_jobs_of_those_who_gave_up_are_not_done() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = start(dir.path());
        let store = Arc::new(store);
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let (began, begun) = oneshot::channel();
        let blocking = tokio::spawn({
            let store = Arc::clone(&store);
            async move {
                store
                    .run(move |_| {
                        let _ = began.send(());
                        let _ = wait.recv();
                        Ok(())
                    })
                    .await
            }
        });
        begun.await.unwrap();
        let done = Arc::new(AtomicU64::new(0));
        let mut waiting = Vec::new();
        for _ in 0..QUEUE {
            let done = Arc::clone(&done);
            let mut job = Box::pin(store.run(move |_| {
                done.fetch_add(1, Ordering::SeqCst);
                Ok(())
            }));
            assert!(futures_util::poll!(&mut job).is_pending());
            waiting.push(job);
        }
        let refused = store.run(|_| Ok(())).await;
        assert_eq!(refused, Err(StoreError::Down("too many jobs are waiting for the account store".to_owned())));
        waiting.truncate(10);
        go.send(()).unwrap();
        for job in waiting {
            job.await.unwrap();
        }
        blocking.await.unwrap().unwrap();
        store.run(|_| Ok(())).await.unwrap();
        assert_eq!(done.load(Ordering::SeqCst), 10);
    }

    #[tokio::test]
    async fn what_was_acknowledged_is_there_after_a_crash_at_any_moment() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = start(dir.path());
        for n in 0..30 {
            let new = user(&format!("u{n}@example.com"));
            let done = store.run(move |db| users::add_user(db, &new, 1, &AuditRow::default())).await.unwrap();
            assert!(matches!(done, Written::Done(_)));
            // what a killed process leaves: its files as they are, no closing, no checkpoint
            let left = tempfile::tempdir().unwrap();
            for name in ["authgate.db", "authgate.db-wal"] {
                std::fs::copy(dir.path().join(name), left.path().join(name)).unwrap();
            }
            let mut db = Db::open(left.path(), Check::Whole).unwrap();
            assert_eq!(users::list(&mut db).unwrap().len(), n + 1);
        }
    }

    #[tokio::test]
    async fn a_log_that_was_cut_off_mid_write_loses_no_more_than_what_was_cut() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = start(dir.path());
        let mut lengths = Vec::new();
        for n in 0..10 {
            let new = user(&format!("u{n}@example.com"));
            let _ = store.run(move |db| users::add_user(db, &new, 1, &AuditRow::default())).await.unwrap();
            lengths.push(std::fs::metadata(dir.path().join("authgate.db-wal")).unwrap().len());
        }
        let log = std::fs::read(dir.path().join("authgate.db-wal")).unwrap();
        for (n, length) in lengths.iter().enumerate() {
            for cut in [*length, length + 1, length + 2000] {
                let left = tempfile::tempdir().unwrap();
                std::fs::copy(dir.path().join("authgate.db"), left.path().join("authgate.db")).unwrap();
                let kept = &log[..usize::try_from(cut).unwrap().min(log.len())];
                std::fs::write(left.path().join("authgate.db-wal"), kept).unwrap();
                let mut db = Db::open(left.path(), Check::Whole).unwrap();
                let users = users::list(&mut db).unwrap();
                assert_eq!((users.len(), db.last_change()), (n + 1, 0));
                assert!(matches!(
                    users::add_user(&mut db, &user("z@example.com"), 1, &AuditRow::default()),
                    Ok(Written::Done(_))
                ));
            }
        }
    }
}
