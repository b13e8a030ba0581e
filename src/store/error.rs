//! Store errors.

use std::path::Path;

use crate::metrics;

/// Why the store did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreError {
    /// The database is unusable: one plain line that names the file, which was left untouched.
    Unusable(String),
    /// A temporary failure (busy, an I/O error, too many jobs); nothing was changed. The text is for the log.
    Down(String),
    /// The same, because the disk is full, read-only or failing.
    Unwritable(String),
}

impl std::fmt::Display for StoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unusable(line) | Self::Down(line) | Self::Unwritable(line) => f.write_str(line),
        }
    }
}

impl std::error::Error for StoreError {}

impl StoreError {
    /// Adds the file's path.
    pub(super) fn at(self, database: &Path) -> Self {
        let shown = |line: String| format!("{}: {line}", database.display());
        match self {
            Self::Down(line) => Self::Down(shown(line)),
            Self::Unwritable(line) => Self::Unwritable(shown(line)),
            unusable @ Self::Unusable(_) => unusable,
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{
            CannotOpen, DatabaseBusy, DatabaseCorrupt, DatabaseLocked, DiskFull, NotADatabase, ReadOnly,
            SystemIoFailure,
        };
        let (kind, is_unwritable) = match error.sqlite_error_code() {
            Some(DiskFull) => ("full", true),
            Some(ReadOnly) => ("read_only", true),
            Some(SystemIoFailure | CannotOpen) => ("io", true),
            Some(DatabaseBusy | DatabaseLocked) => ("busy", false),
            Some(DatabaseCorrupt | NotADatabase) => ("corrupt", false),
            _ => ("other", false),
        };
        metrics::ACCOUNTS.store_failed(kind);
        let line = format!("database error: {error}");
        if is_unwritable { Self::Unwritable(line) } else { Self::Down(line) }
    }
}
