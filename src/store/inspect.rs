//! What a start would find, without starting.

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
    /// No database: one would be made.
    Absent,
    /// A sound one of this program's version.
    Current,
    /// A sound one of an earlier version: it would be brought up, and kept as it is in `copy`.
    #[allow(missing_docs)]
    Older { version: usize, known: usize, copy: PathBuf },
    /// Somebody else's to look at: why.
    Closed(String),
}

/// Looks through the database of a state folder as a start does; makes and changes nothing.
///
/// # Errors
/// [`StoreError::Unusable`]: a start would refuse it.
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
