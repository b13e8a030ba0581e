//! People and their sessions: signing in and up, passwords, invites, throttling. Knows nothing of
//! HTTP beyond the values of [`crate::web`].

use std::net::IpAddr;
use std::sync::Arc;

use crate::clock::UnixSecs;
use crate::secret::Secret;

mod accounts;
mod admin;
mod api_token;
mod app_cookies;
mod audit;
mod backend_token;
mod fields;
mod limits;
mod maintenance;
mod password;
mod profile;
mod session;
mod settings;
mod sign_in;
mod sign_up;
#[cfg(test)]
mod testing;
mod websocket_ticket;

use limits::fair_queue::Flow;
use limits::login_throttle;

pub use accounts::Accounts;
pub use admin::accounts::{Admin, Details, Refused, restore};
pub use admin::bans::Ban;
pub use admin::import::{Finding, ForeignUser, ImportRules, Imported};
pub use admin::signing_keys::OldKeys;
pub use api_token::manage::{Grant, PREFIX as API_TOKEN_PREFIX, Scope, TokenDetails, TokenInfo};
pub use app_cookies::{AccountTag, AppCookieKey, AppCookies, Owner};
pub use backend_token::issue::{Minted, MintedTokens, NotMinted};
pub use session::cookie_token::{ISSUER, SESSION_TOKEN_START};
pub use session::session::{Identity, IdentityValues, Rejected, Session, Standing, User};
pub use websocket_ticket::TICKET_SECS;

/// Where a request comes from, for throttling, the session list and the audit trail.
#[derive(Debug, Clone, Default)]
pub struct Caller {
    /// The client's address; `None` on a Unix socket.
    pub address: Option<IpAddr>,
    /// The address is a trusted proxy's, which did not say whose client it is: many people have it.
    pub is_proxy: bool,
    /// Tells the connection from others, for as long as it is open.
    pub connection: usize,
    /// User-Agent as sent, cut to 256 bytes by whoever builds this.
    pub user_agent: String,
    /// Request id, for the audit trail.
    pub request_id: String,
    /// Value of the device cookie, if one was presented.
    pub device: Option<String>,
    /// Id of the session that the browser presented and that was valid: signing in ends it.
    pub session: Option<String>,
}

impl Caller {
    /// The address that limits count; `None`: nobody knows where the client is.
    fn counted(&self) -> Option<IpAddr> {
        self.address.filter(|_| !self.is_proxy)
    }

    /// Behind whom the caller waits.
    fn flow(&self) -> Flow {
        self.counted()
            .map_or(Flow::Connection(self.connection), |address| Flow::Network(login_throttle::prefix(address)))
    }
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
    /// Whether this account was the last to sign in at this browser before.
    pub is_same_person: bool,
}

/// Why signing in did not work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignInError {
    /// Wrong, unknown, disabled or without a password: nobody may tell these apart.
    Credentials,
    /// Too many tries; another one may be made after so many seconds.
    Throttled {
        /// Seconds.
        retry_after_secs: u64,
    },
    /// The hash queue is full.
    Busy,
    /// The store did not answer or could not write.
    Unavailable,
}

/// Which field of a form was wrong, and why, in words for the person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// `email`, `password`, `name`, `picture`, `current_password`, `token_name` or `scopes`
    pub field: &'static str,
    /// A stable word for programs: `invalid`, `too_short`, `too_long`, `common`, `guessable`,
    /// `wrong` (the current password), `taken` (only told to the holder of an invite)
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
    Throttled {
        /// Seconds.
        retry_after_secs: u64,
    },
    /// The hash queue is full.
    Busy,
    /// The store did not answer or could not write.
    Unavailable,
}

/// What a one-time link is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkKind {
    /// Create an account; the e-mail may be fixed by the invite.
    Invite {
        /// Fixed by the invite: it cannot be changed.
        email: Option<String>,
    },
    /// Set the first or a new password of an existing account.
    Reset {
        /// Of that account.
        email: String,
        /// The account has API tokens, which may go on under the new password.
        has_tokens: bool,
    },
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
