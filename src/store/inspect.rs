//! Inspects a state folder as a start would, without starting.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::copy;
use super::error::StoreError;
use super::folder::{self, Folder};
use super::migrate::{self, Check};

/// What a start would find.
#[derive(Debug, Clone)]
pub enum Judged {
    /// No database: one would be created.
    Absent,
    /// An intact one of this program's version.
    Current,
    /// An intact one of an earlier version: it would be migrated, and kept in `copy`.
    #[allow(missing_docs)]
    Older { version: usize, known: usize, copy: PathBuf },
    /// Not accessible: why.
    Closed(String),
}

/// Checks the database of a state folder as a start does; creates and changes nothing.
///
/// # Errors
/// [`StoreError::Unusable`]: a start would reject it.
pub fn judge(state_dir: &Path) -> Result<Judged, StoreError> {
    match File::open(folder::database_of(state_dir)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Judged::Absent),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => return Ok(Judged::Closed(error.to_string())),
        _ => {}
    }
    let folder = Folder::open(state_dir)?;
    let found = migrate::inspect(&folder, Check::Whole)?;
    if let Some(looking) = found.looking {
        looking.join().unwrap_or_else(|_| Err(StoreError::Down("the database check failed".to_owned())))?;
    }
    Ok(match found.version {
        0 => Judged::Absent,
        version if version < migrate::KNOWN => {
            Judged::Older { version, known: migrate::KNOWN, copy: copy::kept_name(&folder, version) }
        }
        _ => Judged::Current,
    })
}
