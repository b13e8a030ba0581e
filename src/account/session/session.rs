//! Sessions and identities as requests see them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;

use super::user::User;
use crate::account::api_token::grant::Grant;
use crate::account::backend_token::token::IssuedTokens;
use crate::clock::UnixSecs;

/// A session that has begun. Shared by all requests and sockets that belong to it.
#[derive(Debug)]
pub struct Session {
    /// Public id (not a credential): 128 random bits, base64url.
    pub id: String,
    /// Its account, as of now; all sessions of an account share this.
    pub user: Arc<ArcSwap<User>>,
    /// When it began.
    pub created: UnixSecs,
    /// The number of the change in the store with which it began: which of two things came first is told by that.
    pub(crate) begun: u64,
    /// It stands for an API token: `session.idle` is for people.
    pub(crate) is_api_token: bool,
    /// When it ends at the latest; only ever sooner.
    pub(crate) expires: AtomicU64,
    /// Whether the cookie outlives the browser.
    pub remember: bool,
    /// Last request.
    pub seen: AtomicU64,
    /// Last request, as far as the store knows.
    pub(crate) written: AtomicU64,
    /// Revoked, signed out, or its account is gone.
    pub ended: AtomicBool,
    /// Backends' tokens that were made for it.
    pub backend_tokens: IssuedTokens,
}

impl Session {
    /// One that has not ended; also what stands for an API token where a session is asked for.
    pub fn new(id: String, user: Arc<ArcSwap<User>>, created: UnixSecs, expires: UnixSecs, seen: UnixSecs) -> Self {
        Self {
            id,
            user,
            created,
            begun: 0,
            is_api_token: false,
            expires: AtomicU64::new(expires),
            remember: false,
            seen: AtomicU64::new(seen),
            written: AtomicU64::new(seen),
            ended: AtomicBool::new(false),
            backend_tokens: IssuedTokens::default(),
        }
    }

    /// When it ends at the latest.
    pub fn expires(&self) -> UnixSecs {
        self.expires.load(Ordering::Relaxed)
    }

    /// It lasts no longer than this from when it began.
    pub(crate) fn shorten(&self, max_age_secs: u64) {
        self.expires.fetch_min(self.created.saturating_add(max_age_secs), Ordering::Relaxed);
    }
}

/// Whether a session still stands for somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum SessionState {
    /// It does.
    Active,
    /// Past its absolute or idle limit.
    Expired,
    /// Signed out, revoked, disabled or removed.
    Ended,
}

/// Who a valid credential stands for.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The session.
    pub session: Arc<Session>,
    /// Its account at the moment of the check.
    pub user: Arc<User>,
    /// When the presented token was issued; it is renewed after `session.renew_after`.
    pub issued: UnixSecs,
    /// Of an API token: what it may do.
    pub grant: Option<Arc<Grant>>,
}

/// Why a credential was not accepted; for the log alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejected {
    /// No JWT of ours, a bad signature, an unknown key, claims missing or wrong.
    Invalid,
    /// Past a limit.
    Expired,
    /// The session has ended.
    Ended,
}
