//! Live sessions in memory: what every request is checked against, without touching the disk.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use http::HeaderValue;
use parking_lot::RwLock;

use super::{Grant, MintedTokens};
use crate::clock::UnixSecs;
use crate::store::{SessionRow, UserRow};

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
    /// The above as header values: bytes outside 0x20-0x7E, and `%`, percent-encoded UTF-8.
    #[serde(skip)]
    pub values: IdentityValues,
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
    /// Makes the header values once, so that requests need not.
    pub fn new(id: String, email: String, name: String, picture: String, groups: Vec<String>, disabled: bool) -> Self {
        let values = IdentityValues {
            id: header_value(&id),
            email: header_value(&email),
            name: header_value(&name),
            picture: header_value(&picture),
            groups: header_value(&groups.join(",")),
        };
        Self { id, email, name, picture, groups, disabled, values }
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
    /// Its account, as of now.
    pub user: ArcSwap<User>,
    /// When it began.
    pub created: UnixSecs,
    /// When it ends at the latest.
    pub expires: UnixSecs,
    /// Whether the cookie outlives the browser.
    pub remember: bool,
    /// Last request.
    pub seen: AtomicU64,
    /// Revoked, signed out, or its account is gone.
    pub ended: AtomicBool,
    /// Backends' tokens that were made for it.
    pub minted: MintedTokens,
}

impl Session {
    /// One that has not ended; also what stands for an API token where a session is asked for.
    pub(super) fn new(id: String, user: Arc<User>, created: UnixSecs, expires: UnixSecs, seen: UnixSecs) -> Self {
        Self {
            id,
            user: ArcSwap::new(user),
            created,
            expires,
            remember: false,
            seen: AtomicU64::new(seen),
            ended: AtomicBool::new(false),
            minted: MintedTokens::default(),
        }
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

impl From<UserRow> for User {
    fn from(row: UserRow) -> Self {
        Self::new(row.id, row.email, row.name, row.picture, row.groups, row.disabled)
    }
}

struct Entry {
    session: Arc<Session>,
    /// last request, as far as the store knows
    written: AtomicU64,
}

/// All sessions that stand, by id. The store's thread alone adds, changes and removes.
pub(super) struct Live {
    entries: RwLock<HashMap<String, Entry, ahash::RandomState>>,
    idle_secs: u64,
}

impl Live {
    pub(super) fn new(idle_secs: u64) -> Self {
        Self { entries: RwLock::default(), idle_secs }
    }

    pub(super) fn find(&self, id: &str) -> Option<Arc<Session>> {
        self.entries.read().get(id).map(|entry| Arc::clone(&entry.session))
    }

    /// Whether the session still stands for somebody.
    pub(super) fn standing(&self, session: &Session, now: UnixSecs) -> Standing {
        if session.ended.load(Ordering::Acquire) || session.user.load().disabled {
            Standing::Ended
        } else if now >= session.expires || now.saturating_sub(session.seen.load(Ordering::Relaxed)) > self.idle_secs {
            Standing::Expired
        } else {
            Standing::Active
        }
    }

    /// Puts changes in force.
    pub(super) fn apply(&self, users: &HashMap<String, Arc<User>>, sessions: Vec<SessionRow>) {
        let mut entries = self.entries.write();
        if !users.is_empty() {
            for entry in entries.values() {
                if let Some(user) = users.get(&entry.session.user.load().id) {
                    entry.session.user.store(Arc::clone(user));
                }
            }
        }
        let mut shared = users.clone();
        for row in sessions {
            match row.user {
                Some(user) if !row.ended => {
                    let user = Arc::clone(shared.entry(user.id.clone()).or_insert_with(|| Arc::new(User::from(user))));
                    if !entries.contains_key(&row.id) {
                        entries.insert(
                            row.id.clone(),
                            Entry::new(row.id, user, row.created, row.expires, row.seen, row.remember),
                        );
                    }
                }
                _ => {
                    if let Some(entry) = entries.remove(&row.id) {
                        entry.session.ended.store(true, Ordering::Release);
                    }
                }
            }
        }
    }

    /// Sessions used since they were last written: id and when.
    pub(super) fn unwritten(&self) -> Vec<(String, UnixSecs)> {
        let entries = self.entries.read();
        let used = entries.values().filter_map(|entry| {
            let seen = entry.session.seen.load(Ordering::Relaxed);
            (seen > entry.written.load(Ordering::Relaxed)).then(|| (entry.session.id.clone(), seen))
        });
        used.collect()
    }

    /// They have been written.
    pub(super) fn mark_written(&self, seen: &[(String, UnixSecs)]) {
        let entries = self.entries.read();
        for (id, at) in seen {
            if let Some(entry) = entries.get(id) {
                entry.written.fetch_max(*at, Ordering::Relaxed);
            }
        }
    }

    /// Lets go of sessions past their limits.
    pub(super) fn sweep(&self, now: UnixSecs) {
        self.entries.write().retain(|_, entry| self.standing(&entry.session, now) != Standing::Expired);
    }

    /// How many stand.
    pub(super) fn count(&self, now: UnixSecs) -> usize {
        self.entries.read().values().filter(|entry| self.standing(&entry.session, now) == Standing::Active).count()
    }
}

impl Entry {
    fn new(id: String, user: Arc<User>, created: UnixSecs, expires: UnixSecs, seen: UnixSecs, remember: bool) -> Self {
        let session = Session { remember, ..Session::new(id, user, created, expires, seen) };
        Self { session: Arc::new(session), written: AtomicU64::new(seen) }
    }
}
