//! Replaces the database with a backup and keeps the previous one beside it. Without a running gateway the file is
//! replaced; with one, the backup's pages are written into the database in one transaction, which the gateway notices
//! like any change by another process, so that the file it holds open stays the one that commands write to.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use tempfile::NamedTempFile;

use super::applied::Applied;
use super::audit::AuditRow;
use super::convert::uint;
use super::error::StoreError;
use super::folder::{self, Folder};
use super::keys::{self, Seal};
use super::migrate::{self, Check};
use super::sql::Tx;
use super::sqlite::Sqlite;
use super::sqlite_statements::OnSqlite;
use super::{audit, backup, backup_key, copy, sealed_tokens, secret_key};

/// How far the change number is advanced: changes that the gateway writes until the backup is in place have lower
/// numbers.
const AHEAD: i64 = 1_000_000;
/// How often a busy database is retried, and for how long in total.
const PAUSE: Duration = Duration::from_millis(20);
const TRIES: usize = 500;

/// Result of a restore.
#[derive(Debug)]
pub struct Restored {
    /// Where the previous database was kept.
    pub kept: Option<PathBuf>,
    /// Whether the running gateway has applied it; `None`: none is running.
    pub in_force: Option<bool>,
    /// The backup's own sealing key was put in place.
    pub key: Option<RestoredKey>,
}

/// A sealing key that was put in place.
#[derive(Debug)]
pub struct RestoredKey {
    /// Its file.
    pub file: PathBuf,
    /// Where the previous key was kept, which the previous database needs; `None`: there was none.
    pub kept: Option<PathBuf>,
}

fn failed(path: &Path, error: impl std::fmt::Display) -> StoreError {
    StoreError::Down(format!("{}: {error}", path.display()))
}

/// Where a backup's sealing key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyIn {
    /// On this machine.
    Place,
    /// In the backup: it has to be put into this file.
    Backup(PathBuf),
}

/// Finds the key with an id, or says why it is nowhere; the second argument is the key in the backup.
type FindKey<'a> = dyn Fn(&str, Option<&[u8]>) -> Result<KeyIn, String> + 'a;

/// What this machine's sealing key makes of a backup.
pub struct KeyCheck<'a> {
    /// Finds the key that opens the backup.
    pub find: &'a FindKey<'a>,
    /// Seals signing keys of a backup from an earlier version.
    pub seal: &'a Seal<'a>,
}

/// Replaces the state folder's database with the backup `from`. `stamp` names the kept copy; `event` is recorded.
///
/// # Errors
/// [`StoreError`]: not a backup of this or an earlier version, its sealing key is not here, or it cannot be put in
/// place. The database is unchanged.
pub fn restore(
    state_dir: &Path,
    from: &Path,
    stamp: &str,
    event: &AuditRow,
    key: &KeyCheck<'_>,
) -> Result<Restored, StoreError> {
    let folder = Folder::open(state_dir)?;
    let copy = copied(&folder, from)?;
    let carried = backup_key::take(copy.path())?;
    copy.as_file().sync_all().map_err(|error| failed(copy.path(), error))?;
    let place = match backup::sealed_by(copy.path())? {
        None => KeyIn::Place,
        Some(id) => (key.find)(&id, carried.as_ref().map(|text| text.as_bytes())).map_err(StoreError::Unusable)?,
    };
    let (KeyIn::Backup(file), Some(text)) = (place, carried) else {
        return put_in_place(&folder, copy, stamp, event, key.seal);
    };
    // a start after any of these steps finds the key, in its file or beside it
    let kept = secret_key::keep(&file, stamp)?;
    secret_key::write_next(Some(&folder), &file, &text)?;
    match put_in_place(&folder, copy, stamp, event, key.seal) {
        Ok(done) => {
            secret_key::replace_with_next(&file)?;
            Ok(Restored { key: Some(RestoredKey { file, kept }), ..done })
        }
        Err(error) => {
            secret_key::remove_next(&file);
            if let Some(kept) = kept {
                let _ = std::fs::remove_file(kept);
            }
            Err(error)
        }
    }
}

fn put_in_place(
    folder: &Folder,
    copy: NamedTempFile,
    stamp: &str,
    event: &AuditRow,
    seal: &Seal<'_>,
) -> Result<Restored, StoreError> {
    let claim = folder.claim()?;
    if claim.take().map_err(|error| folder.unlockable(&error))? {
        let kept = swap(folder, copy, stamp)?;
        return Ok(Restored { kept, in_force: None, key: None });
    }
    // closed before the database is opened: closing it later would release the database's locks
    drop(claim);
    pour(folder, copy.path(), stamp, event, seal)
}

/// A copy of the backup in the state folder: verified, complete, flushed.
fn copied(folder: &Folder, from: &Path) -> Result<NamedTempFile, StoreError> {
    let about = std::fs::metadata(from).map_err(|error| failed(from, error))?;
    if !about.is_file() {
        return Err(failed(from, "is not a file"));
    }
    if folder.database_id().is_ok_and(|own| own == (about.dev(), about.ino())) {
        return Err(failed(from, "this is the database itself"));
    }
    let path = from.canonicalize().map_err(|error| failed(from, error))?;
    let unread = |error: rusqlite::Error| failed(from, format!("is not a readable backup: {error}"));
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let backup = Connection::open_with_flags(&path, flags).map_err(unread)?;
    backup.busy_timeout(folder::BUSY).map_err(unread)?;
    if migrate::judge(&backup, from)? == 0 {
        return Err(failed(from, "is an empty database"));
    }
    let beside = copy::parent(&folder.database())?;
    let copy = copy::new_file(&beside).map_err(|error| failed(&beside, error))?;
    let place = copy.path().to_str().ok_or_else(|| failed(&beside, "the path is not UTF-8"))?;
    backup.execute("VACUUM INTO ?1", [place]).map_err(unread)?;
    sealed_tokens::forget_renewed(copy.path())?;
    backup::is_sound(copy.path())?;
    folder.hand_over(copy.as_file()).map_err(|error| failed(copy.path(), error))?;
    copy.as_file().sync_all().map_err(|error| failed(copy.path(), error))?;
    Ok(copy)
}

/// Without a running gateway. Between the steps there is no database, which a start rejects, rather than one with
/// another's log.
fn swap(folder: &Folder, copy: NamedTempFile, stamp: &str) -> Result<Option<PathBuf>, StoreError> {
    let database = folder.database();
    if migrate::inspect(folder, Check::Whole).is_ok_and(|found| found.version > 0) {
        fold(folder)?;
    }
    let kept = free_name(&database, stamp);
    let beside = |path: &Path, suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let was_there = std::fs::metadata(&database).is_ok_and(|about| about.len() > 0);
    for suffix in ["", "-wal", "-journal"] {
        let (from, to) = (beside(&database, suffix), beside(&kept, suffix));
        match std::fs::rename(&from, to) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(&from, error)),
            _ => {}
        }
    }
    let _ = std::fs::remove_file(beside(&database, "-shm"));
    if !was_there {
        let _ = std::fs::remove_file(&kept);
    }
    copy.persist(&database).map_err(|error| failed(&database, error.error))?;
    let folder = copy::parent(&database)?;
    File::open(&folder).and_then(|folder| folder.sync_all()).map_err(|error| failed(&folder, error))?;
    Ok(was_there.then_some(kept))
}

/// Checkpoints the log into the database, which is then one plain file. Fails while another process has it open.
fn fold(folder: &Folder) -> Result<(), StoreError> {
    let connection = folder.connect(OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.busy_timeout(folder::BUSY)?;
    let mode: Result<String, _> = connection.query_row("PRAGMA journal_mode = DELETE", [], |row| row.get(0));
    match mode {
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) => {
            Err(failed(&folder.database(), "another command is using the database; try again"))
        }
        _ => Ok(()),
    }
}

/// With a running gateway: the backup is migrated to its version, numbered above all its changes, and written into
/// the database.
fn pour(folder: &Folder, copy: &Path, stamp: &str, event: &AuditRow, seal: &Seal<'_>) -> Result<Restored, StoreError> {
    migrate::inspect(folder, Check::Current)?;
    let kept = free_name(&folder.database(), stamp);
    backup::back_up(folder.path(), &kept, None)?;
    let mut db = Sqlite::open(folder.path(), Check::Version)?;
    let mut backup = Connection::open(copy)?;
    migrate::bring_up(&mut backup, copy)?;
    let rev = "SELECT value FROM counter WHERE name = 'rev'";
    let theirs: i64 = db.connection.query_row(rev, [], |row| row.get(0))?;
    let own: Option<i64> = backup.query_row(rev, [], |row| row.get(0)).optional()?;
    let rev = theirs.max(own.unwrap_or(0)) + AHEAD;
    let tx = backup.transaction()?;
    tx.execute("INSERT OR REPLACE INTO counter (name, value) VALUES ('rev', ?1), ('restored', ?1)", params![rev])?;
    {
        let on = OnSqlite(&tx);
        let tx = Tx::new(&on, false);
        keys::seal_plain_rows(&tx, seal)?;
        audit::write(&tx, event)?;
    }
    tx.commit()?;
    write_into(&backup, &mut db)?;
    db.rev = uint(rev);
    // applying a large one takes longer than a single change
    let mut applied = db.wait_until_applied()?;
    for _ in 0..10 {
        if applied != Applied::NotYet {
            break;
        }
        applied = db.wait_until_applied()?;
    }
    Ok(Restored { kept: Some(kept), in_force: Some(applied == Applied::Yes), key: None })
}

fn write_into(backup: &Connection, db: &mut Sqlite) -> Result<(), StoreError> {
    let writing = Backup::new(backup, &mut db.connection)?;
    for _ in 0..TRIES {
        if writing.step(-1)? == StepResult::Done {
            return Ok(());
        }
        std::thread::sleep(PAUSE);
    }
    Err(StoreError::Down("the database is busy; try again".to_owned()))
}

/// Where the previous database is kept.
fn free_name(database: &Path, stamp: &str) -> PathBuf {
    let name = |number: usize| {
        let mut name = database.as_os_str().to_owned();
        let number = if number == 0 { String::new() } else { format!("-{number}") };
        name.push(format!(".replaced-{stamp}{number}"));
        PathBuf::from(name)
    };
    (0..1000).map(name).find(|name| std::fs::symlink_metadata(name).is_err()).unwrap_or_else(|| name(0))
}
