//! Copies of the database beside it: files that appear complete or not at all.

use std::fs::{File, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use tempfile::NamedTempFile;

use super::error::StoreError;
use super::folder::Folder;

/// Keeps a copy of the database before it is migrated from `version`, complete or not at all. The inner error: why
/// there is none for lack of space.
pub(super) fn keep(
    database: &Connection,
    folder: &Folder,
    version: usize,
) -> Result<Result<PathBuf, String>, StoreError> {
    let to = kept_name(folder, version);
    let kept = kept_at(database, folder, &to);
    match kept {
        Ok(()) => Ok(Ok(to)),
        Err(Fault::NoRoom(why)) => Ok(Err(why)),
        Err(Fault::Other(why)) => Err(StoreError::Down(format!("{}: {why}", to.display()))),
    }
}

/// Where a database of this version is kept when it is migrated.
pub(super) fn kept_name(folder: &Folder, version: usize) -> PathBuf {
    let mut name = folder.database().into_os_string();
    name.push(format!(".v{version}"));
    name.into()
}

enum Fault {
    NoRoom(String),
    Other(String),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{DiskFull, SystemIoFailure};
        match error.sqlite_error_code() {
            Some(DiskFull | SystemIoFailure) => Self::NoRoom(error.to_string()),
            _ => Self::Other(error.to_string()),
        }
    }
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::NoRoom(error.to_string()),
            _ => Self::Other(error.to_string()),
        }
    }
}

fn kept_at(database: &Connection, folder: &Folder, to: &Path) -> Result<(), Fault> {
    let beside = folder.database().parent().unwrap_or(Path::new(".")).canonicalize()?;
    let copy = new_file(&beside)?;
    let path = copy.path().to_str().ok_or_else(|| Fault::Other("the path is not UTF-8".to_owned()))?;
    database.execute("VACUUM INTO ?1", [path])?;
    folder.hand_over(copy.as_file())?;
    copy.as_file().sync_all()?;
    copy.persist(to).map_err(|error| error.error)?;
    Ok(File::open(&beside)?.sync_all()?)
}

/// An empty temporary file, deleted unless it is persisted.
pub(super) fn new_file(folder: &Path) -> std::io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".authgate-backup-").permissions(Permissions::from_mode(0o600)).tempfile_in(folder)
}

/// The folder of a file to create, as an absolute path: `SQLite` must not interpret it as a URI.
pub(super) fn parent(to: &Path) -> Result<PathBuf, StoreError> {
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    parent.canonicalize().map_err(|error| StoreError::Down(format!("{}: {error}", parent.display())))
}
