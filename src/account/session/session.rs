//! Sessions and identities as requests see them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;

use super::begun_with::BegunWith;
use super::user::User;
use crate::account::api_token::grant::Grant;
use crate::account::backend_token::token::IssuedTokens;
use crate::clock::UnixSecs;

/// A session. Shared by all its requests and sockets.
#[derive(Debug)]
pub struct Session {
    /// Public id (not a credential): 128 random bits, base64url.
    pub id: String,
    /// Its account, current; shared by all sessions of the account.
    pub user: Arc<ArcSwap<User>>,
    /// When it began.
    pub created: UnixSecs,
    /// When the person proved who they are; 0: not known.
    pub authenticated: UnixSecs,
    /// The store's change number at which it began; orders it against other changes.
    pub(crate) begun: u64,
    /// It represents an API token; `session.idle` does not apply.
    pub(crate) is_api_token: bool,
    /// When it expires; may only become earlier.
    pub(crate) expires: AtomicU64,
    /// Whether the cookie is persistent.
    pub remember: bool,
    /// Last request.
    pub seen: AtomicU64,
    /// Last request that the store knows of.
    pub(crate) written: AtomicU64,
    /// Revoked, signed out, or its account was removed.
    pub ended: AtomicBool,
    /// The identity that it began with.
    pub(crate) begun_with: Option<Box<BegunWith>>,
    /// Backend tokens issued for it.
    pub backend_tokens: IssuedTokens,
}

impl Session {
    /// A session that has not ended; also represents an API token where a session is expected.
    pub fn new(id: String, user: Arc<ArcSwap<User>>, created: UnixSecs, expires: UnixSecs, seen: UnixSecs) -> Self {
        Self {
            id,
            user,
            created,
            authenticated: 0,
            begun: 0,
            is_api_token: false,
            expires: AtomicU64::new(expires),
            remember: false,
            seen: AtomicU64::new(seen),
            written: AtomicU64::new(seen),
            ended: AtomicBool::new(false),
            begun_with: None,
            backend_tokens: IssuedTokens::default(),
        }
    }

    /// When it expires.
    pub fn expires(&self) -> UnixSecs {
        self.expires.load(Ordering::Relaxed)
    }

    /// A connection of the session is open: whether it may go on is asked as for one that makes requests.
    pub(crate) fn has_open_connection(&self, now: UnixSecs) {
        if let Some(begun) = &self.begun_with {
            begun.has_open_connection(now);
        }
    }

    /// Limits its lifetime, counted from when it began.
    pub(crate) fn shorten(&self, max_age_secs: u64) {
        self.expires.fetch_min(self.created.saturating_add(max_age_secs), Ordering::Relaxed);
    }
}

/// The state of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum SessionState {
    /// Valid.
    Active,
    /// Past its absolute or idle limit.
    Expired,
    /// Signed out, revoked, disabled or removed.
    Ended,
}

/// The user behind a valid credential.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The session.
    pub session: Arc<Session>,
    /// Its account at the moment of the check.
    pub user: Arc<User>,
    /// When the presented token was issued; it is renewed after `session.renew_after`.
    pub issued: UnixSecs,
    /// Of an API token: what it allows.
    pub grant: Option<Arc<Grant>>,
}

/// Why a credential was rejected; for the log only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejected {
    /// Not our JWT, a bad signature, an unknown key, or missing or wrong claims.
    Invalid,
    /// Past a limit.
    Expired,
    /// The session has ended.
    Ended,
    /// A key or an API token that this node does not know. Another node may.
    Unknown,
    /// Rightly signed, but this node does not know the session. Another node may.
    UnknownSession,
    /// A WebSocket ticket that is rightly signed: the shared database knows whether it was used.
    UnknownUse,
}

impl Rejected {
    /// Whether the credential may be valid, by what the shared database knows.
    pub fn may_be_known_elsewhere(self) -> bool {
        matches!(self, Self::Unknown | Self::UnknownSession | Self::UnknownUse)
    }

    /// What it is if no other node knows it, either.
    #[must_use]
    pub fn known_nowhere(self) -> Self {
        match self {
            Self::Unknown | Self::UnknownUse => Self::Invalid,
            Self::UnknownSession => Self::Ended,
            Self::Invalid | Self::Expired | Self::Ended => self,
        }
    }
}
