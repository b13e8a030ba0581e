//! Sessions, accounts and identities as requests see them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use http::HeaderValue;

use crate::account::{Grant, MintedTokens};
use crate::clock::UnixSecs;

/// An account as sessions see it. Replaced as a whole when it changes.
#[derive(Debug, Clone, serde::Serialize)]
pub struct User {
    /// Opaque to everybody but the store.
    pub id: String,
    /// Canonical e-mail.
    pub email: String,
    /// Display name; may be empty.
    pub name: String,
    /// Picture URL; may be empty.
    pub picture: String,
    /// Groups, sorted, each without comma.
    pub groups: Vec<String>,
    /// Disabled accounts have no standing.
    #[serde(skip)]
    pub disabled: bool,
    #[serde(skip)]
    values: OnceLock<Box<IdentityValues>>,
}

/// Ready header values of an account.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct IdentityValues {
    pub id: HeaderValue,
    pub email: HeaderValue,
    pub name: HeaderValue,
    pub picture: HeaderValue,
    /// Joined by commas.
    pub groups: HeaderValue,
}

impl User {
    /// An account as it is now.
    pub fn new(id: String, email: String, name: String, picture: String, groups: Vec<String>, disabled: bool) -> Self {
        Self { id, email, name, picture, groups, disabled, values: OnceLock::new() }
    }

    /// It as header values: bytes outside 0x20-0x7E, and `%`, percent-encoded UTF-8. Made when they are first asked
    /// for: of many accounts few make requests.
    pub fn values(&self) -> &IdentityValues {
        self.values.get_or_init(|| {
            Box::new(IdentityValues {
                id: header_value(&self.id),
                email: header_value(&self.email),
                name: header_value(&self.name),
                picture: header_value(&self.picture),
                groups: header_value(&self.groups.join(",")),
            })
        })
    }
}

/// Bytes outside 0x20-0x7E, and `%`, percent-encoded UTF-8: no value can begin another header.
fn header_value(text: &str) -> HeaderValue {
    const ESCAPED: &percent_encoding::AsciiSet = &percent_encoding::CONTROLS.add(b'%');
    let encoded = percent_encoding::utf8_percent_encode(text, ESCAPED).to_string();
    HeaderValue::try_from(encoded).unwrap_or(HeaderValue::from_static(""))
}

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
    pub(crate) of_program: bool,
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
    pub minted: MintedTokens,
}

impl Session {
    /// One that has not ended; also what stands for an API token where a session is asked for.
    pub fn new(id: String, user: Arc<ArcSwap<User>>, created: UnixSecs, expires: UnixSecs, seen: UnixSecs) -> Self {
        Self {
            id,
            user,
            created,
            begun: 0,
            of_program: false,
            expires: AtomicU64::new(expires),
            remember: false,
            seen: AtomicU64::new(seen),
            written: AtomicU64::new(seen),
            ended: AtomicBool::new(false),
            minted: MintedTokens::default(),
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
pub enum Standing {
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
