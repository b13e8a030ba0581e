//! Facts on disk: one `SQLite` database in the state folder. Every public method of [`Db`] is one
//! transaction; nothing outside this room speaks SQL. Knows nothing of tokens, hashing or HTTP,
//! and never decides who may do what.

use crate::clock::UnixSecs;
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
mod sessions;
mod sync;
mod thread;
mod throttle;
mod users;

pub use api_tokens::{ApiTokenRow, Kept, NewApiToken, Shown};
pub use audit::{AuditEvent, AuditRow};
pub use backup::back_up;
pub use db::{Check, Db};
pub use folder::{Folder, Lock};
pub use foreign::{ForeignTable, read_table};
pub use keys::NewKey;
pub use links::{LinkRow, LinkUse, NewLink};
pub use sessions::{Begun, Ends, NewSession, SignIn, Whose};
pub use sync::{Account, Applied, Change, StandingSession};
pub use thread::{Hooks, Store};
pub use throttle::{Counted, Limit};
pub use users::{NewId, NewUser, Password, UserChange, Written};

/// Why the store did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreError {
    /// The database cannot be used at all: one plain line that names the file. It was left untouched.
    Unusable(String),
    /// This time it did not work (disk full, busy, an I/O error, too many jobs); nothing that was asked
    /// for is in force. The text is for the log.
    Down(String),
}

impl std::fmt::Display for StoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unusable(line) | Self::Down(line) => f.write_str(line),
        }
    }
}

impl std::error::Error for StoreError {}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Down(format!("the database answered: {error}"))
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
}

/// `SQLite`'s integers are signed; times and counts here never reach the sign bit.
fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The way back; a negative number in the file reads as 0.
fn uint(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
