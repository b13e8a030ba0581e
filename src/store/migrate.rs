//! The database schema: scripts applied in order and never edited. A foreign, newer or damaged database is rejected
//! before anything is written to it.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::copy;
use super::error::StoreError;
use super::folder::{self, Folder};

/// How much of the database is checked before it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// Application and version: for commands.
    Version,
    /// Also that it has this program's version: for commands that change nothing.
    Current,
    /// Also the structure of every page: for a start.
    Whole,
}

/// Marks a `SQLite` file as ours ("agte").
const APPLICATION_ID: i32 = 0x6167_7465;

/// Script n migrates `user_version` from n to n + 1.
const SCRIPTS: [&str; 10] = [
    include_str!("schema/sqlite/0001_people.sql"),
    include_str!("schema/sqlite/0002_tokens.sql"),
    include_str!("schema/sqlite/0003_standing.sql"),
    include_str!("schema/sqlite/0004_replaced.sql"),
    include_str!("schema/sqlite/0005_crowds.sql"),
    include_str!("schema/sqlite/0006_sealed.sql"),
    include_str!("schema/sqlite/0007_identities.sql"),
    include_str!("schema/sqlite/0008_sealed_tokens.sql"),
    include_str!("schema/sqlite/0009_last_used.sql"),
    include_str!("schema/sqlite/0010_nodes.sql"),
];

const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// The file header up to the two bytes that tell whether it has a write-ahead log (file format, 1.3).
const HEAD_BYTES: u64 = 20;
/// From this size on, a database is checked in the background: a start would otherwise take seconds.
const LARGE_BYTES: u64 = 32 << 20;

/// An integrity check in progress.
pub(super) type Looking = JoinHandle<Result<(), StoreError>>;

/// The result of inspecting a database.
pub(super) struct Inspected {
    /// 0: new.
    pub(super) version: usize,
    /// An integrity check in progress.
    pub(super) looking: Option<Looking>,
}

/// The version from which on signing keys are sealed.
pub(super) const SEALED_SINCE: usize = 6;
/// This program's schema version.
pub(super) const KNOWN: usize = SCRIPTS.len();

/// A database was migrated.
#[derive(Debug, Clone)]
pub struct Migrated {
    /// The version before.
    pub from: usize,
    /// The version now.
    pub to: usize,
    /// Where the previous database was kept, or why it was not.
    pub copy: Result<PathBuf, String>,
}

impl std::fmt::Display for Migrated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { from, to, copy } = self;
        write!(f, "database migrated from version {from} to {to}, ")?;
        match copy {
            Ok(copy) => write!(f, "copy kept at {}", copy.display()),
            Err(why) => write!(f, "no copy kept: {why}"),
        }
    }
}

fn unusable(database: &Path, what: &str) -> StoreError {
    StoreError::Unusable(format!("{}: {what}; it was left untouched", database.display()))
}

const RESTORE: &str = "; restore a backup with authgate restore FILE";

fn unread(database: &Path, error: &rusqlite::Error) -> StoreError {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase, SystemIoFailure};
    let next = match error.sqlite_error_code() {
        // a reader needs disk space too, for shared memory (-shm)
        Some(SystemIoFailure) => " (is the disk full?)",
        Some(DatabaseCorrupt | NotADatabase) => RESTORE,
        _ => "",
    };
    unusable(database, &format!("cannot read the database: {error}{next}"))
}

/// Inspects the file without writing to it. An empty file is a new database. For a large one only application and
/// version are known immediately.
pub(super) fn inspect(folder: &Folder, check: Check) -> Result<Inspected, StoreError> {
    const NEW: Inspected = Inspected { version: 0, looking: None };
    let mut head = Vec::new();
    let database = folder.database();
    let unreadable = |error: std::io::Error| unusable(&database, &format!("cannot read the database: {error}"));
    let file = folder.database_file()?;
    let bytes = file.metadata().map_err(unreadable)?.len();
    file.take(HEAD_BYTES).read_to_end(&mut head).map_err(unreadable)?;
    if head.is_empty() {
        return if folder.leftover("-wal") {
            Err(unusable(&database, "the database is empty, but its write-ahead log (-wal) is not"))
        } else if folder.applied() > 0 {
            let what = "the database is missing or empty, but a gateway has used it before: restore a backup with authgate restore FILE, or remove `applied` next to it to start over";
            Err(unusable(&database, what))
        } else {
            Ok(NEW)
        };
    }
    if !head.starts_with(MAGIC) {
        return Err(unusable(&database, "this is not an authgate database, or it is damaged"));
    }
    if head.ends_with(&[1, 1]) && folder.leftover("-wal") {
        // SQLite would write that log's pages into it
        let what = "this is a backup next to the write-ahead log (-wal) of an earlier database; remove that log, or restore the backup with authgate restore FILE";
        return Err(unusable(&database, what));
    }
    if folder.leftover("-journal") {
        // a first start was interrupted: only a writer can roll it back
        return Ok(NEW);
    }
    let damaged = |error: rusqlite::Error| unread(&database, &error);
    let connection = folder.connect(OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(damaged)?;
    connection.busy_timeout(folder::BUSY).map_err(damaged)?;
    let version = judge(&connection, &database)?;
    if check == Check::Current && version != KNOWN {
        let what =
            format!("the database has the older schema version {version}: restart the gateway first to migrate it");
        return Err(unusable(&database, &what));
    }
    if check != Check::Whole {
        return Ok(Inspected { version, looking: None });
    }
    // with a write-ahead log readers and writers do not wait for each other
    let beside = bytes >= LARGE_BYTES && version == KNOWN && head.ends_with(&[2, 2]);
    if !beside {
        look_through(&connection, &database)?;
        return Ok(Inspected { version, looking: None });
    }
    let looking = std::thread::Builder::new().name("check".to_owned());
    let looking = looking.spawn(move || look_through(&connection, &database));
    let looking = looking.map_err(|error| StoreError::Down(format!("could not start a thread: {error}")))?;
    Ok(Inspected { version, looking: Some(looking) })
}

/// Checks application and version.
pub(super) fn judge(connection: &Connection, database: &Path) -> Result<usize, StoreError> {
    let damaged = |error: rusqlite::Error| unread(database, &error);
    let number = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(damaged);
    let (owner, version) = (number("application_id")?, number("user_version")?);
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(damaged)?;
    if owner != i64::from(APPLICATION_ID) && (owner != 0 || version != 0 || tables != 0) {
        return Err(unusable(database, "this is another program's database"));
    }
    let at = usize::try_from(version).unwrap_or(usize::MAX);
    if at > SCRIPTS.len() {
        return Err(unusable(
            database,
            &format!(
                "the database has schema version {version}, this authgate supports up to {}; use a newer authgate",
                SCRIPTS.len()
            ),
        ));
    }
    Ok(at)
}

/// Reads every page.
fn look_through(connection: &Connection, database: &Path) -> Result<(), StoreError> {
    let damaged = |error: rusqlite::Error| unread(database, &error);
    let found: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(damaged)?;
    if found == "ok" {
        return Ok(());
    }
    Err(unusable(database, &format!("the database is damaged ({}){RESTORE}", found.replace('\n', " "))))
}

fn version(connection: &Connection) -> Result<usize, rusqlite::Error> {
    let version = connection.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))?;
    Ok(usize::try_from(version).unwrap_or(usize::MAX))
}

/// Migrates the database to this program's version, in one transaction, and keeps a copy of the previous one.
pub(super) fn apply(connection: &mut Connection, folder: &Folder) -> Result<Option<Migrated>, StoreError> {
    let from = version(connection)?;
    if from == KNOWN {
        return Ok(None);
    }
    let copy = if from == 0 { Err("it was new".to_owned()) } else { copy::keep(connection, folder, from)? };
    bring_up(connection, &folder.database())?;
    Ok((from > 0).then_some(Migrated { from, to: KNOWN, copy }))
}

/// Runs the missing scripts.
pub(super) fn bring_up(connection: &mut Connection, database: &Path) -> Result<(), StoreError> {
    let tx = connection.transaction_with_behavior(TransactionBehavior::Exclusive)?;
    let at = version(&tx)?;
    if at > KNOWN {
        return Err(unusable(database, "a newer authgate has just migrated the database; use that one"));
    }
    for script in SCRIPTS.iter().skip(at) {
        tx.execute_batch(script)?;
    }
    tx.pragma_update(None, "application_id", APPLICATION_ID)?;
    tx.pragma_update(None, "user_version", i64::try_from(KNOWN).unwrap_or(i64::MAX))?;
    tx.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Db;
    use super::*;
    use crate::store::api_tokens;
    use crate::store::keys;
    use crate::store::purge;
    use crate::store::users;

    /// Opens and must fail; returns the line without the folder, having seen the file unchanged.
    fn refusal(dir: &Path) -> String {
        let path = dir.join("authgate.db");
        let before = std::fs::read(&path).unwrap();
        let line = Db::open(dir, Check::Whole).unwrap_err().to_string();
        assert!(std::fs::read(&path).unwrap() == before, "the file was changed");
        assert_eq!(line.lines().count(), 1);
        line.replace(&path.display().to_string(), "DB")
    }

    fn sqlite(dir: &Path, sql: &str) {
        Connection::open(dir.join("authgate.db")).unwrap().execute_batch(sql).unwrap();
    }

    #[test]
    fn what_is_no_database_is_refused_and_untouched() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("authgate.db"), b"hello, this is some text file").unwrap();
        assert_eq!(
            refusal(dir.path()),
            "DB: this is not an authgate database, or it is damaged; it was left untouched"
        );
        std::fs::write(dir.path().join("authgate.db"), b"x").unwrap();
        assert_eq!(
            refusal(dir.path()),
            "DB: this is not an authgate database, or it is damaged; it was left untouched"
        );
    }

    #[test]
    fn a_newer_version_is_refused_and_untouched() {
        let dir = tempfile::tempdir().unwrap();
        drop(Db::open(dir.path(), Check::Whole).unwrap());
        sqlite(dir.path(), "PRAGMA user_version = 99");
        assert_eq!(
            refusal(dir.path()),
            "DB: the database has schema version 99, this authgate supports up to 10; use a newer authgate; it was left untouched"
        );
    }

    #[test]
    fn another_programs_database_is_refused_and_untouched() {
        let dir = tempfile::tempdir().unwrap();
        sqlite(dir.path(), "CREATE TABLE diary (entry TEXT)");
        assert_eq!(refusal(dir.path()), "DB: this is another program's database; it was left untouched");
    }

    #[test]
    fn a_damaged_database_is_refused_and_untouched_and_a_sound_one_opens_again() {
        let dir = tempfile::tempdir().unwrap();
        drop(Db::open(dir.path(), Check::Whole).unwrap());
        drop(Db::open(dir.path(), Check::Whole).unwrap());
        let path = dir.path().join("authgate.db");
        let sound = std::fs::read(&path).unwrap();
        let mut torn = sound.clone();
        for byte in &mut torn[4096..8192] {
            *byte = 0xA5;
        }
        std::fs::write(&path, &torn).unwrap();
        assert!(refusal(dir.path()).contains("the database"));
        std::fs::write(&path, &sound[..sound.len() / 2]).unwrap();
        assert!(refusal(dir.path()).contains("the database"));
        std::fs::write(&path, &sound).unwrap();
        assert!(Db::open(dir.path(), Check::Whole).is_ok());
    }

    #[test]
    fn a_large_database_is_read_beside_the_look_through_it_and_damage_still_refuses_every_write_and_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let mut db = Db::open(dir.path(), Check::Whole).unwrap();
        let fill = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40000)
            INSERT INTO user (id, email, name, picture, groups, created, rev)
            SELECT i, i || '@example.com', hex(zeroblob(500)), '', '', 1, i FROM n";
        db.connection().execute_batch(fill).unwrap();
        keys::first_key(
            &mut db,
            &crate::store::NewKey {
                algorithm: "HS256",
                kid: "k".to_owned(),
                secret: crate::sealing::Sealed { bytes: vec![7; 32], by: "k".to_owned() },
            },
            1,
        )
        .unwrap();
        drop(db);
        let path = dir.path().join("authgate.db");
        let sound = std::fs::read(&path).unwrap();
        assert!(sound.len() as u64 > LARGE_BYTES);
        let mut db = Db::open(dir.path(), Check::Whole).unwrap();
        assert!(users::list(&mut db).unwrap().len() == 40_000);
        assert!(db.await_integrity_check() == Ok(()));
        assert!(purge::expired_rows(&mut db, 1, 1) == Ok(()));
        drop(db);
        // a page in the middle of a table that a start need not read
        let mut torn = sound.clone();
        let page = 4096 * (sound.len() / 4096 / 2);
        torn[page..page + 4096].fill(0xA5);
        std::fs::write(&path, &torn).unwrap();
        let mut db = Db::open(dir.path(), Check::Whole).unwrap();
        assert_eq!(keys::list(&mut db).unwrap().len(), 1);
        let refused = purge::expired_rows(&mut db, 1, 1).unwrap_err().to_string();
        assert!(refused.contains("the database"), "{refused}");
        assert_eq!(db.await_integrity_check().unwrap_err().to_string(), refused);
        let lock = db.folder().unwrap().lock().unwrap();
        let hooks = crate::store::Hooks { apply: Box::new(|_| {}), tick: Box::new(|_| {}) };
        assert!(crate::store::Store::start(db, lock, hooks).is_err());
        assert!(std::fs::read(&path).unwrap() == torn, "the file was changed");
    }

    #[test]
    fn an_empty_file_beside_a_full_log_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("authgate.db"), b"").unwrap();
        std::fs::write(dir.path().join("authgate.db-wal"), b"something").unwrap();
        assert_eq!(
            refusal(dir.path()),
            "DB: the database is empty, but its write-ahead log (-wal) is not; it was left untouched"
        );
    }

    /// An administrator's link for whoever reads the log would be printed, and every account be gone.
    #[test]
    fn an_empty_file_where_a_gateway_has_served_is_refused_and_a_new_folder_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(dir.path(), Check::Whole).unwrap();
        db.folder().unwrap().lock().unwrap().tell_applied(1).unwrap();
        drop(db);
        std::fs::write(dir.path().join("authgate.db"), "").unwrap();
        for suffix in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(dir.path().join(format!("authgate.db{suffix}")));
        }
        assert!(
            refusal(dir.path()).starts_with("DB: the database is missing or empty, but a gateway has used it before")
        );
        std::fs::remove_file(dir.path().join("applied")).unwrap();
        assert!(Db::open(dir.path(), Check::Whole).is_ok());
    }

    #[test]
    fn a_backup_beside_the_log_of_another_database_is_refused_and_opens_without_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("authgate.db");
        drop(Db::open(dir.path(), Check::Whole).unwrap());
        let backup = dir.path().join("backup");
        super::super::back_up(dir.path(), &backup, None).unwrap();
        std::fs::copy(&backup, &path).unwrap();
        std::fs::write(dir.path().join("authgate.db-wal"), b"something").unwrap();
        assert_eq!(
            refusal(dir.path()),
            "DB: this is a backup next to the write-ahead log (-wal) of an earlier database; remove that log, or restore the backup with authgate restore FILE; it was left untouched"
        );
        std::fs::remove_file(dir.path().join("authgate.db-wal")).unwrap();
        assert!(Db::open(dir.path(), Check::Whole).is_ok());
    }

    #[test]
    fn a_database_of_the_first_version_is_brought_up_with_what_it_holds() {
        let dir = tempfile::tempdir().unwrap();
        drop(Db::open(dir.path(), Check::Whole).unwrap());
        std::fs::remove_file(dir.path().join("authgate.db")).unwrap();
        for leftover in ["authgate.db-wal", "authgate.db-shm"] {
            let _ = std::fs::remove_file(dir.path().join(leftover));
        }
        let first = format!(
            "{}PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 1;
             INSERT INTO signing_key (kid, secret, created, rev) VALUES ('k', x'00', 1, 1);
             INSERT INTO audit (at, event, user_id, email, address, request_id, detail) VALUES
                 (1, 'sign_in', '7', '', '192.0.2.1', 'r', ''), (1, 'sign_in_failed', '7', '', '192.0.2.1', 'r', ''),
                 (1, 'profile_changed', '7', '', '', 'r', ''), (1, 'user_disabled', '7', '', '', '', '');",
            SCRIPTS[0]
        );
        sqlite(dir.path(), &first);
        let before = std::fs::read(dir.path().join("authgate.db")).unwrap();
        let refused = Db::look(dir.path()).unwrap_err().to_string();
        assert!(refused.contains("has the older schema version 1: restart the gateway first"), "{refused}");
        assert!(std::fs::read(dir.path().join("authgate.db")).unwrap() == before, "only looked at");
        let mut db = Db::open(dir.path(), Check::Whole).unwrap();
        let keys = keys::list(&mut db).unwrap();
        assert_eq!((keys.len(), keys[0].algorithm.as_str()), (1, "HS256"));
        assert_eq!(keys::list(&mut Db::look(dir.path()).unwrap()).unwrap().len(), 1);
        assert!(api_tokens::list(&mut db, None, 1).unwrap().is_empty());
        // what happened before is kept as what happens now
        let told = "SELECT group_concat(event || ' ' || owner || ' ' || keep, ', ') FROM audit";
        let told: String = db.connection().query_row(told, [], |row| row.get(0)).unwrap();
        assert_eq!(told, "sign_in 7 1, sign_in_failed 192.0.2.1 0, profile_changed 7 0, user_disabled 7 2");
    }

    #[test]
    fn two_that_open_a_new_database_at_once_both_succeed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_path_buf();
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let path = path.clone();
                std::thread::spawn(move || Db::open(&path, Check::Whole).map(|_| ()))
            })
            .collect();
        for thread in threads {
            assert_eq!(thread.join().unwrap(), Ok(()));
        }
    }
}
