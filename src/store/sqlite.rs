//! The connection and its transactions. Blocking: only the store's thread and the commands hold
//! a [`Sqlite`].

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::applied::Applied;
use super::convert::uint;
use super::error::StoreError;
use super::folder::{BUSY, Claim, Folder};
use super::migrate::{self, Check, Migrated};
use super::sql::Tx;
use super::sqlite_statements::OnSqlite;
use crate::clock::Stopwatch;
use crate::metrics;

/// The database. Every public function over it is one transaction: it happens as a whole or not at all.
#[derive(Debug)]
pub(super) struct Sqlite {
    pub(super) connection: Connection,
    pub(super) folder: Folder,
    /// Device and inode number of its file.
    file: (u64, u64),
    pub(super) rev: u64,
    looking: Looking,
    /// The last write failed because of the disk.
    is_unwritable: bool,
    /// Something was written since [`Self::try_disk`] asked last.
    has_written: bool,
    /// Ended sessions were noted, and their rows are still to be written.
    has_noted_ends: bool,
    migrated: Option<Migrated>,
    /// For commands; declared after the connection, which must be closed first.
    claim: Option<Claim>,
}

/// State of the integrity check of a large database.
#[derive(Debug)]
enum Looking {
    On(migrate::Looking),
    Found(Result<(), StoreError>),
}

impl Sqlite {
    /// Opens the database in the state folder, creating both if missing.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] for a folder that others can write to; for a foreign, newer or damaged file, which is
    /// left untouched; for an older one that a gateway is using ([`Check::Version`]).
    pub(super) fn open(state_dir: &Path, check: Check) -> Result<Self, StoreError> {
        let folder = Folder::open(state_dir)?;
        let found = migrate::inspect(&folder, check)?;
        let looking = found.looking.map_or(Looking::Found(Ok(())), Looking::On);
        let at = folder.database();
        // a gateway has already claimed the folder
        let claim = if check == Check::Whole { None } else { Some(folder.claim()?) };
        let brings_up = found.version > 0 && found.version < migrate::KNOWN;
        if let Some(claim) = claim.as_ref().filter(|_| brings_up)
            && !claim.take().map_err(|error| folder.unlockable(&error))?
        {
            let what = "an older authgate is using this database: restart the gateway first to migrate it";
            return Err(StoreError::Unusable(format!("{}: {what}", at.display())));
        }
        let wrong = |error: rusqlite::Error| {
            StoreError::Unusable(format!("{}: the database cannot be opened: {error}", at.display()))
        };
        let mut connection = folder.connect(OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(wrong)?;
        prepare_patiently(&connection).map_err(wrong)?;
        let migrated = migrate::apply(&mut connection, &folder).map_err(|error| match error {
            StoreError::Down(line) | StoreError::Unwritable(line) => {
                StoreError::Unusable(format!("{}: {line}", at.display()))
            }
            unusable @ StoreError::Unusable(_) => unusable,
        })?;
        if let Some(claim) = claim.as_ref().filter(|_| brings_up) {
            claim.release().map_err(|error| folder.unlockable(&error))?;
        }
        let file = folder.database_id()?;
        Ok(Self::with(connection, folder, file, looking, migrated, claim))
    }

    /// The migration that [`Self::open`] performed, if any.
    pub(super) fn migrated(&self) -> Option<&Migrated> {
        self.migrated.as_ref()
    }

    /// Whether to leave the write-ahead log as it is on close: if the database file was replaced.
    pub(super) fn leave_log(&self, leave: bool) {
        let config = rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
        if let Err(error) = self.connection.set_db_config(config, leave) {
            tracing::error!(%error, "could not set the write-ahead log policy of a replaced database");
        }
    }

    /// Whether a gateway is using this database's folder.
    pub(super) fn is_served(&self) -> Result<bool, StoreError> {
        match &self.claim {
            Some(claim) => self.folder.is_claimed(claim),
            None => self.folder.is_served(),
        }
    }

    /// Opens an existing database read-only. Creates and changes nothing: an older version may be in use by the
    /// program that created it.
    ///
    /// # Errors
    /// [`StoreError::Unusable`]: there is none, it has another version, or as for [`Self::open`].
    pub(super) fn look(state_dir: &Path) -> Result<Self, StoreError> {
        let folder = Folder::existing(state_dir)?;
        migrate::inspect(&folder, Check::Current)?;
        let connection = folder.connect(OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.busy_timeout(BUSY)?;
        let file = folder.database_id()?;
        Ok(Self::with(connection, folder, file, Looking::Found(Ok(())), None, None))
    }

    fn with(
        connection: Connection,
        folder: Folder,
        file: (u64, u64),
        looking: Looking,
        migrated: Option<Migrated>,
        claim: Option<Claim>,
    ) -> Self {
        Self {
            connection,
            folder,
            file,
            rev: 0,
            looking,
            is_unwritable: false,
            has_written: false,
            has_noted_ends: false,
            migrated,
            claim,
        }
    }

    /// Waits for the integrity check of a large database, which [`Self::open`] started.
    ///
    /// # Errors
    /// [`StoreError::Unusable`]: it is damaged.
    pub(super) fn await_integrity_check(&mut self) -> Result<(), StoreError> {
        let found = match std::mem::replace(&mut self.looking, Looking::Found(Ok(()))) {
            Looking::Found(found) => found,
            Looking::On(thread) => {
                thread.join().unwrap_or_else(|_| Err(StoreError::Down("the database check failed".to_owned())))
            }
        };
        self.looking = Looking::Found(found.clone());
        found
    }

    /// Whether the file is still the one that was opened. If it was replaced, commands write to the new one, and what
    /// they revoke would stay valid here.
    pub(super) fn is_in_place(&self) -> Result<(), StoreError> {
        if self.folder.database_id()? == self.file {
            return Ok(());
        }
        let at = self.folder.database();
        Err(StoreError::Down(format!(
            "{}: the file was replaced while in use: restart the gateway (authgate restore FILE needs no restart)",
            at.display()
        )))
    }

    /// The folder it lives in.
    pub(super) fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Runs `work` in one transaction that holds the write lock from its start, so that what it read is still true
    /// when it writes. Nothing is written before the integrity check has passed.
    pub(super) fn write<T>(&mut self, work: impl FnOnce(&Tx<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.write_with(false, work)
    }

    fn write_with<T>(
        &mut self,
        notes_ends: bool,
        work: impl FnOnce(&Tx<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.await_integrity_check()?;
        let database = self.folder.database();
        let written = self.written(notes_ends, work).map_err(|error| error.at(&database));
        // a transaction that changed nothing says nothing about the disk
        match &written {
            Err(StoreError::Unwritable(_)) => self.is_unwritable = true,
            Ok((_, true)) => (self.is_unwritable, self.has_written) = (false, true),
            _ => {}
        }
        written.map(|(done, _)| done)
    }

    /// The same for revocations. On a full disk the reserve is released for it, once: what was revoked must not stay
    /// valid because the disk is full.
    pub(super) fn write_end<T>(
        &mut self,
        mut work: impl FnMut(&Tx<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        match self.write(&mut work) {
            Err(StoreError::Unwritable(_)) if self.folder.free_reserve() => self.write(&mut work),
            done => done,
        }
    }

    /// The same; if even the reserve is too small for the rows of all ended sessions, the account is noted.
    pub(super) fn write_end_of_sessions<T>(
        &mut self,
        mut work: impl FnMut(&Tx<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let done = self.write_end(&mut work);
        if !matches!(done, Err(StoreError::Unwritable(_))) {
            return done;
        }
        let noted = self.write_with(true, work);
        self.has_noted_ends |= noted.is_ok();
        noted
    }

    /// Whether sessions have ended whose rows can only be written once there is space.
    pub(super) fn has_noted_ends(&self) -> bool {
        self.has_noted_ends
    }

    /// Whether the disk is writable; probed if the last write failed.
    pub(super) fn is_writable(&mut self) -> Result<(), StoreError> {
        if self.is_unwritable { self.write_nothing() } else { Ok(()) }
    }

    /// The same; probed if nothing was written since the last call.
    pub(super) fn try_disk(&mut self) -> Result<(), StoreError> {
        let done = if self.has_written { Ok(()) } else { self.write_nothing() };
        self.has_written = false;
        done
    }

    /// A transaction that must be written to disk and changes nothing.
    fn write_nothing(&mut self) -> Result<(), StoreError> {
        self.write(|tx| {
            // SQLite would not write a single update to the same value
            tx.execute("UPDATE counter SET value = value + 1 WHERE name = 'rev'", &[])?;
            tx.execute("UPDATE counter SET value = value - 1 WHERE name = 'rev'", &[])?;
            Ok(())
        })
    }

    /// Also gives whether anything was changed.
    fn written<T>(
        &mut self,
        notes_ends: bool,
        work: impl FnOnce(&Tx<'_>) -> Result<T, StoreError>,
    ) -> Result<(T, bool), StoreError> {
        let began = Stopwatch::new();
        let inner = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let before = inner.total_changes();
        let on = OnSqlite(&inner);
        let tx = Tx::new(&on, notes_ends);
        let done = work(&tx)?;
        // repeated requests for unknown ids must not cause disk writes
        let changed = inner.total_changes() > before;
        let rev = if changed { tx.rev_used() } else { 0 };
        if rev > 0 {
            inner.prepare_cached("UPDATE counter SET value = ?1 WHERE name = 'rev'")?.execute([rev])?;
        }
        inner.commit()?;
        metrics::ACCOUNTS.stored("write", began.elapsed());
        self.rev = self.rev.max(uint(rev));
        Ok((done, changed))
    }

    /// Runs `work` on one consistent snapshot of the database.
    pub(super) fn read<T>(&mut self, work: impl FnOnce(&Tx<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.view("read", work)
    }

    /// The same, counted as a poll for other processes' changes.
    pub(super) fn poll<T>(&mut self, work: impl FnOnce(&Tx<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.view("poll", work)
    }

    fn view<T>(&mut self, op: &str, work: impl FnOnce(&Tx<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let began = Stopwatch::new();
        let viewed = self.connection.transaction_with_behavior(TransactionBehavior::Deferred).map_err(StoreError::from);
        let done = viewed.and_then(|inner| work(&Tx::new(&OnSqlite(&inner), false)));
        metrics::ACCOUNTS.stored(op, began.elapsed());
        done.map_err(|error| error.at(&self.folder.database()))
    }

    /// Waits until the gateway that uses this folder has applied this connection's last change, at most 2 seconds.
    pub(super) fn wait_until_applied(&self) -> Result<Applied, StoreError> {
        for _ in 0..100 {
            let is_served = self.is_served()?;
            if self.folder.applied() >= self.last_change() && is_served {
                return Ok(Applied::Yes);
            }
            if !is_served {
                return Ok(Applied::NotServed);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Applied::NotYet)
    }

    /// Number of the last change that this connection made; 0 for none.
    pub(super) fn last_change(&self) -> u64 {
        self.rev
    }

    /// When the newest record was created, of those that are quick to find: Unix seconds.
    pub(super) fn newest_record(&mut self) -> Result<Option<u64>, StoreError> {
        const SQL: &str = "SELECT max(at) FROM (SELECT max(at) AS at FROM audit
            UNION ALL SELECT seen FROM (SELECT seen FROM session ORDER BY rowid DESC LIMIT 1))";
        self.read(|tx| Ok(tx.query_row(SQL, &[], |row| row.get::<Option<i64>>(0))?.map(uint)))
    }

    /// Empties the write-ahead log, which still holds earlier contents of pages. Left to the next time if another
    /// process is reading.
    pub(super) fn empty_log(&self) {
        if let Err(error) = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())) {
            tracing::warn!(%error, "could not empty the write-ahead log");
        }
    }

    /// Whether the database responds.
    pub(super) fn answers(&mut self) -> Result<(), StoreError> {
        self.read(|tx| Ok(tx.query_row("SELECT value FROM counter WHERE name = 'rev'", &[], |_| Ok(()))?))
    }
}

/// Switching a new database to write-ahead logging needs exclusive access, which `SQLite` does not wait for by
/// itself: this waits for another process that is opening it, as long as for a write.
fn prepare_patiently(connection: &Connection) -> Result<(), rusqlite::Error> {
    const STEP: Duration = Duration::from_millis(20);
    for _ in 0..BUSY.as_millis() / STEP.as_millis() {
        match prepare(connection) {
            Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) => {
                std::thread::sleep(STEP);
            }
            done => return done,
        }
    }
    prepare(connection)
}

fn prepare(connection: &Connection) -> Result<(), rusqlite::Error> {
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(128);
    connection.execute_batch(
        "PRAGMA trusted_schema = OFF; PRAGMA foreign_keys = ON; PRAGMA secure_delete = ON;
         PRAGMA synchronous = FULL; PRAGMA temp_store = MEMORY; PRAGMA journal_size_limit = 67108864;",
    )?;
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode.eq_ignore_ascii_case("wal") { Ok(()) } else { Err(rusqlite::Error::InvalidQuery) }
}
