//! The open WebSockets and event streams, each with the session it belongs to. When that session
//! ends, or may not use the route any more, the connection is closed; others are untouched.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::authorize;
use super::frames::Closing;
use super::guard::Guard;
use crate::account::{Accounts, Identity, Session, Standing};
use crate::config::Config;

/// The registry. Bounded by `limits.connections`: each entry is an open connection.
#[derive(Debug, Default)]
pub(crate) struct Live {
    entries: Mutex<Entries>,
    next: AtomicU64,
}

#[derive(Debug, Default)]
struct Entries {
    open: HashMap<u64, Entry, ahash::RandomState>,
    sockets_of: HashMap<String, usize, ahash::RandomState>,
    draining: bool,
}

#[derive(Debug)]
struct Entry {
    guard: Arc<Guard>,
    session: Option<Arc<Session>>,
    /// The account whose socket is counted.
    counted_for: Option<String>,
    route: usize,
}

/// One registered connection; takes itself out when dropped.
#[derive(Debug)]
pub(crate) struct LiveHandle {
    live: Arc<Live>,
    key: u64,
}

/// The account has as many sockets open as it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooMany;

impl Live {
    /// Registers a WebSocket; counted against its account.
    pub(crate) fn socket(
        self: &Arc<Self>,
        guard: &Arc<Guard>,
        identity: Option<&Identity>,
        route: usize,
        max: usize,
    ) -> Result<LiveHandle, TooMany> {
        let mut entries = self.entries.lock();
        let counted_for = identity.map(|identity| identity.user.id.clone());
        if let Some(user) = &counted_for {
            let count = entries.sockets_of.entry(user.clone()).or_insert(0);
            if *count >= max {
                return Err(TooMany);
            }
            *count += 1;
        }
        let session = identity.map(|identity| identity.session.clone());
        Ok(self.insert(&mut entries, Entry { guard: guard.clone(), session, counted_for, route }))
    }

    /// Registers an event stream.
    pub(crate) fn stream(self: &Arc<Self>, guard: &Arc<Guard>, session: Arc<Session>, route: usize) -> LiveHandle {
        let entry = Entry { guard: guard.clone(), session: Some(session), counted_for: None, route };
        self.insert(&mut self.entries.lock(), entry)
    }

    fn insert(self: &Arc<Self>, entries: &mut Entries, entry: Entry) -> LiveHandle {
        if entries.draining {
            entry.guard.close(Closing::GoingAway);
        }
        let key = self.next.fetch_add(1, Ordering::Relaxed);
        entries.open.insert(key, entry);
        LiveHandle { live: self.clone(), key }
    }

    /// WebSockets and event streams open now.
    pub(crate) fn open(&self) -> usize {
        self.entries.lock().open.len()
    }

    /// Asks every connection's session again whether it still stands; called several times a second.
    pub(crate) fn sweep(&self, accounts: &Accounts, config: &Config) {
        for entry in self.entries.lock().open.values() {
            let Some(session) = &entry.session else { continue };
            match accounts.standing(session) {
                Standing::Expired => entry.guard.close(Closing::Expired),
                Standing::Ended => entry.guard.close(Closing::Revoked),
                Standing::Active => {
                    let user = session.user.load();
                    let route = config.routes.get(entry.route);
                    if !route.is_some_and(|route| authorize::still_allowed(route, &user.groups)) {
                        entry.guard.close(Closing::Revoked);
                    }
                }
            }
        }
    }

    /// The gateway stops: all are told so, and those that come later too.
    pub(crate) fn drain(&self) {
        let mut entries = self.entries.lock();
        entries.draining = true;
        for entry in entries.open.values() {
            entry.guard.close(Closing::GoingAway);
        }
    }
}

impl Drop for LiveHandle {
    fn drop(&mut self) {
        let mut entries = self.live.entries.lock();
        let Some(user) = entries.open.remove(&self.key).and_then(|entry| entry.counted_for) else { return };
        if let Some(count) = entries.sockets_of.get_mut(&user) {
            *count -= 1;
            if *count == 0 {
                entries.sockets_of.remove(&user);
            }
        }
    }
}
