//! Facts on disk: one `SQLite` database in the state folder. Every public method of [`Db`] is one
//! transaction; nothing outside this room speaks SQL. Knows nothing of tokens, hashing or HTTP,
//! and never decides who may do what.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::clock::UnixSecs;
use crate::metrics;
use crate::secret::Secret;
use zeroize::Zeroizing;

mod api_tokens;
mod audit;
mod backup;
mod db;
mod devices;
mod folder;
mod foreign;
mod keys;
mod links;
mod migrate;
mod noted;
mod restore;
mod sessions;
mod sync;
mod thread;
mod throttle;
mod users;

pub use api_tokens::{ApiTokenRow, Kept, NewApiToken, PasswordProof};
pub use audit::{AuditEvent, AuditRow};
pub use backup::back_up;
pub use db::{Check, Db};
pub use devices::LastHere;
pub use folder::{Folder, Lock, has_database};
pub use foreign::{ForeignTable, read_table};
pub use keys::{APP_COOKIES, NewKey};
pub use links::{InviteRow, LinkRow, LinkUse, NewLink};
pub use migrate::Migrated;
pub use restore::{Restored, restore};
pub use sessions::{Begun, NewSession, SessionEnd, SessionSelector, SignIn};
pub use sync::{Account, ActiveIds, ActiveSession, Applied, Change};
pub use thread::{Hooks, Store};
pub use throttle::{CountedAttempt, Limit, Rule, Throttled};
pub use users::{ADMIN_GROUP, Keeps, NewId, NewUser, Password, UserChange, Written};

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
            Judged::Older { version, known: migrate::KNOWN, copy: backup::kept_name(&folder, version) }
        }
        _ => Judged::Current,
    })
}

/// Why the store did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreError {
    /// The database cannot be used at all: one plain line that names the file. It was left untouched.
    Unusable(String),
    /// This time it did not work (disk full, busy, an I/O error, too many jobs); nothing that was asked
    /// for is in force. The text is for the log.
    Down(String),
    /// The same, because the disk is full, read-only or failing: nothing can be written.
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
    /// With the file that it is about.
    fn at(self, database: &Path) -> Self {
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

/// An account.
#[derive(Debug, Clone)]
pub struct UserRow {
    /// Opaque, unique for ever.
    pub id: String,
    /// Canonical e-mail, unique without case.
    pub email: String,
    /// May be empty.
    pub name: String,
    /// May be empty.
    pub picture: String,
    /// Sorted, no duplicates, no commas.
    pub groups: Vec<String>,
    /// PHC string of the password.
    pub password: Option<Secret>,
    /// Nobody can sign in.
    pub disabled: bool,
    /// When it was made.
    pub created: UnixSecs,
}

/// A session with its account.
#[derive(Debug, Clone)]
pub struct SessionRow {
    /// Public id.
    pub id: String,
    /// `None`: the account was removed.
    pub user: Option<UserRow>,
    /// When it began.
    pub created: UnixSecs,
    /// When it ends at the latest.
    pub expires: UnixSecs,
    /// Last request, as far as written.
    pub seen: UnixSecs,
    /// Whether the cookie outlives the browser.
    pub remember: bool,
    /// Address at sign-in; empty on a Unix socket.
    pub address: String,
    /// User-Agent at sign-in.
    pub user_agent: String,
    /// Signed out, revoked, or its account is gone.
    pub ended: bool,
}

/// A signing key.
#[derive(Clone)]
pub struct KeyRow {
    /// Its name in token headers.
    pub kid: String,
    /// `HS256` signs sessions, `EdDSA` and `ES256` sign backends' tokens.
    pub algorithm: String,
    /// 32 random bytes, or a PKCS#8 document.
    pub secret: Zeroizing<Vec<u8>>,
    /// When it was made.
    pub created: UnixSecs,
    /// Since when it signs nothing any more.
    pub retired: Option<UnixSecs>,
    /// Number of the change that made or retired it.
    pub changed: u64,
}

/// `SQLite`'s integers are signed; times and counts here never reach the sign bit.
fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The way back; a negative number in the file reads as 0.
fn uint(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
