//! Reads another program's database: one table of a `SQLite` file, read-only.

use std::path::Path;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};

use super::convert::uint;
use super::error::StoreError;

/// A table's columns and rows as text; `None` is NULL.
#[derive(Debug, Clone, Default)]
pub struct ForeignTable {
    /// Names of the columns.
    pub columns: Vec<String>,
    /// Rows, in file order.
    pub rows: Vec<Vec<Option<String>>>,
    /// The highest number that AUTOINCREMENT has assigned in this table.
    pub sequence: u64,
}

/// Whether the file has a table of this name.
///
/// # Errors
/// [`StoreError::Unusable`]: no such file, or no database.
pub fn has_table(file: &Path, table: &str) -> Result<bool, StoreError> {
    let unusable = |error: rusqlite::Error| StoreError::Unusable(format!("{}: {error}", file.display()));
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags).map_err(unusable)?;
    let sql = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type IN ('table', 'view') AND name = ?1)";
    connection.query_row(sql, [table], |row| row.get(0)).map_err(unusable)
}

/// Reads a whole table.
///
/// # Errors
/// [`StoreError::Unusable`]: no such file, no database, no such table.
pub fn read_table(file: &Path, table: &str) -> Result<ForeignTable, StoreError> {
    let unusable = |error: rusqlite::Error| StoreError::Unusable(format!("{}: {error}", file.display()));
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags).map_err(unusable)?;
    let known: Vec<String> = connection
        .prepare("SELECT name FROM sqlite_schema WHERE type IN ('table', 'view') ORDER BY name")
        .and_then(|mut query| query.query_map([], |row| row.get(0))?.collect())
        .map_err(unusable)?;
    if !known.iter().any(|name| name == table) {
        let what = format!("{} has no table `{table}`; its tables are {}", file.display(), known.join(", "));
        return Err(StoreError::Unusable(what));
    }
    let quoted = table.replace('"', "\"\"");
    let mut query = connection.prepare(&format!("SELECT * FROM \"{quoted}\"")).map_err(unusable)?;
    let columns: Vec<String> = query.column_names().map(str::to_owned).collect();
    let count = columns.len();
    let read = |row: &rusqlite::Row<'_>| (0..count).map(|at| row.get_ref(at).map(text)).collect();
    let rows = query.query_map([], read).and_then(Iterator::collect).map_err(unusable)?;
    let sequence = if known.iter().any(|name| name == "sqlite_sequence") {
        let sql = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = ?1";
        connection.query_row(sql, [table], |row| row.get::<_, i64>(0)).map_err(unusable)?
    } else {
        0
    };
    Ok(ForeignTable { columns, rows, sequence: uint(sequence) })
}

fn text(value: ValueRef<'_>) -> Option<String> {
    match value {
        ValueRef::Null => None,
        ValueRef::Integer(number) => Some(number.to_string()),
        ValueRef::Real(number) => Some(number.to_string()),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
    }
}
