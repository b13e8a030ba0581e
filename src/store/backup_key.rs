//! The sealing key inside a backup that was made with it. It is a table of its own, which no database in use keeps.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};
use zeroize::Zeroizing;

use super::db::Db;
use super::error::StoreError;

const EXISTS: &str = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'sealing_key')";

/// A copy, to be changed.
pub(super) fn opened(copy: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags(copy, flags)?;
    // no second file beside the copy
    connection.pragma_update(None, "journal_mode", "MEMORY")?;
    Ok(connection)
}

/// Puts the text of a key file into a copy.
pub(super) fn put(copy: &Path, text: &str) -> Result<(), StoreError> {
    let copy = opened(copy)?;
    copy.execute_batch("CREATE TABLE sealing_key (text TEXT NOT NULL) STRICT")?;
    copy.execute("INSERT INTO sealing_key (text) VALUES (?1)", [text])?;
    Ok(())
}

/// Takes it out of a copy; `None`: it holds none. No page of the copy holds it any more.
pub(super) fn take(copy: &Path) -> Result<Option<Zeroizing<String>>, StoreError> {
    let copy = opened(copy)?;
    if !copy.query_row(EXISTS, [], |row| row.get::<_, bool>(0))? {
        return Ok(None);
    }
    let text = copy.query_row("SELECT text FROM sealing_key", [], |row| row.get(0).map(Zeroizing::new))?;
    remove_from(&copy)?;
    Ok(Some(text))
}

/// Removes it from a database in use, which has it if such a backup was copied there by hand.
///
/// # Errors
/// [`StoreError`]: the database cannot be written.
pub fn remove(db: &mut Db) -> Result<(), StoreError> {
    let Some(sqlite) = db.sqlite() else { return Ok(()) };
    if !sqlite.connection.query_row(EXISTS, [], |row| row.get::<_, bool>(0))? {
        return Ok(());
    }
    sqlite.await_integrity_check()?;
    remove_from(&sqlite.connection)?;
    db.empty_log();
    Ok(())
}

/// Freed pages are overwritten.
fn remove_from(connection: &Connection) -> Result<(), StoreError> {
    connection.pragma_update(None, "secure_delete", "ON")?;
    connection.execute_batch("DROP TABLE sealing_key")?;
    Ok(())
}
