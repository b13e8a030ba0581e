//! People and their sessions: signing in and up, passwords, invites, throttling. Knows nothing of
//! HTTP beyond the values of [`crate::web`].

use std::net::IpAddr;
use std::sync::Arc;

use crate::clock::{Clock, UnixSecs};
use crate::config::Config;
use crate::secret::Secret;

pub mod session;

/// `iss` of our session tokens.
pub const ISSUER: &str = "authgate";

pub use session::{Identity, Rejected, Session, Standing, User};

/// Where a request comes from, for throttling, the session list and the audit trail.
#[derive(Debug, Clone, Default)]
pub struct Caller {
    /// The client's address; `None` on a Unix socket.
    pub address: Option<IpAddr>,
    /// User-Agent as sent, cut to 256 bytes by whoever builds this.
    pub user_agent: String,
    /// Request id, for the audit trail.
    pub request_id: String,
    /// Value of the device cookie, if one was presented.
    pub device: Option<String>,
    /// Id of the session that the browser presented and that was valid: signing in ends it.
    pub session: Option<String>,
}

/// A session has begun: what the browser must be given.
#[derive(Debug)]
pub struct SignedIn {
    /// The session, already live.
    pub session: Arc<Session>,
    /// The session JWT for the cookie.
    pub token: Secret,
    /// Value for the device cookie, which lives 400 days.
    pub device: Secret,
}

/// Why signing in did not work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignInError {
    /// Wrong, unknown, disabled or without a password: nobody may tell these apart.
    Credentials,
    /// Too many tries; another one may be made after so many seconds.
    Throttled { retry_after_secs: u64 },
    /// The hash queue is full.
    Busy,
    /// The store did not answer or could not write.
    Unavailable,
}

/// Which field of a form was wrong, and why, in words for the person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// `email`, `password`, `name`, `picture` or `current_password`
    pub field: &'static str,
    /// A stable word for programs: `invalid`, `too_short`, `too_long`, `common`, `wrong`, ...
    pub code: &'static str,
    /// One plain sentence.
    pub message: String,
}

/// Why a change to an account was not made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeError {
    /// A field was wrong.
    Field(FieldError),
    /// Sign-up is closed, or the link is unknown, used or expired.
    Closed,
    /// Too many wrong passwords; see [`SignInError::Throttled`].
    Throttled { retry_after_secs: u64 },
    /// The hash queue is full.
    Busy,
    /// The store did not answer or could not write.
    Unavailable,
}

/// What a one-time link is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkKind {
    /// Create an account; the e-mail may be fixed by the invite.
    Invite { email: Option<String> },
    /// Set the first or a new password of an existing account.
    Reset { email: String },
}

/// One line of the account page's session list.
#[derive(Debug, Clone, serde::Serialize)]
pub struct SessionInfo {
    /// Public id of the session.
    pub id: String,
    /// When it began.
    pub created: UnixSecs,
    /// When it was last used, to within a minute.
    pub seen: UnixSecs,
    /// When it ends at the latest.
    pub expires: UnixSecs,
    /// Address at sign-in.
    pub address: String,
    /// User-Agent at sign-in.
    pub user_agent: String,
}

/// Why the accounts could not be opened: one plain line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartError(pub String);

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}

/// The store did not answer or could not write: 503.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreDown;

impl std::fmt::Display for StoreDown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the account store cannot be reached or written")
    }
}

impl std::error::Error for StoreDown {}

/// People and their sessions. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct Accounts {
    _shared: Arc<()>,
}

#[allow(missing_docs, unused_variables, clippy::unused_async, clippy::unused_self)]
impl Accounts {
    pub fn open(config: &Config, clock: Clock) -> Result<Self, StartError> {
        Ok(Self { _shared: Arc::new(()) })
    }
    pub async fn first_link(&self) -> Result<Option<Secret>, StoreDown> {
        Err(StoreDown)
    }
    pub async fn sign_in(&self, caller: &Caller, email: &str, password: Secret, remember: bool) -> Result<SignedIn, SignInError> {
        Err(SignInError::Unavailable)
    }
    pub async fn sign_up(&self, caller: &Caller, email: &str, name: &str, password: Secret) -> Result<(), ChangeError> {
        Err(ChangeError::Unavailable)
    }
    pub async fn link(&self, token: &str) -> Result<Option<LinkKind>, ChangeError> {
        Err(ChangeError::Unavailable)
    }
    pub async fn accept_invite(&self, caller: &Caller, token: &str, email: &str, name: &str, password: Secret) -> Result<SignedIn, ChangeError> {
        Err(ChangeError::Unavailable)
    }
    pub async fn reset_password(&self, caller: &Caller, token: &str, password: Secret) -> Result<SignedIn, ChangeError> {
        Err(ChangeError::Unavailable)
    }
    pub async fn sign_out(&self, caller: &Caller, session: &Session) -> Result<(), StoreDown> {
        Err(StoreDown)
    }
    pub async fn change_password(&self, caller: &Caller, who: &Identity, current: Secret, new: Secret) -> Result<(), ChangeError> {
        Err(ChangeError::Unavailable)
    }
    pub async fn change_profile(&self, caller: &Caller, who: &Identity, name: &str, picture: &str) -> Result<(), ChangeError> {
        Err(ChangeError::Unavailable)
    }
    pub async fn sessions_of(&self, who: &Identity) -> Result<Vec<SessionInfo>, StoreDown> {
        Err(StoreDown)
    }
    pub async fn end_session(&self, caller: &Caller, who: &Identity, session_id: &str) -> Result<bool, StoreDown> {
        Err(StoreDown)
    }
    pub async fn end_sessions(&self, caller: &Caller, who: &Identity, keep_current: bool) -> Result<(), StoreDown> {
        Err(StoreDown)
    }
    pub fn authenticate(&self, token: &[u8]) -> Result<Identity, Rejected> {
        Err(Rejected::Invalid)
    }
    pub fn standing(&self, session: &Session) -> Standing {
        Standing::Ended
    }
    pub fn renewed_token(&self, who: &Identity) -> Option<Secret> {
        None
    }
    pub fn cookie_max_age(&self, session: &Session) -> Option<u64> {
        None
    }
    pub fn sessions_active(&self) -> usize {
        0
    }
    pub async fn ready(&self) -> bool {
        false
    }
    pub async fn close(&self) {}
}
