//! A session before it begins, and what the browser gets once it has.

use std::sync::Arc;

use super::session::Session;
use crate::account::accounts::Accounts;
use crate::account::audit;
use crate::account::caller::Caller;
use crate::account::errors::StoreDown;
use crate::account::ids::new_session_id;
use crate::clock::UnixSecs;
use crate::secret::{Secret, random_token, token_hash};
use crate::store::{LastHere, NewSession};

/// A session that has begun, and what the browser must get.
#[derive(Debug)]
pub struct SignedIn {
    /// The session, already active.
    pub session: Arc<Session>,
    /// The session JWT for the cookie.
    pub token: Secret,
    /// Value of the device cookie, which lasts 400 days.
    pub device: Secret,
    /// Whether the previous sign-in in this browser was to the same account.
    pub is_same_account: bool,
}

/// A session to be stored, and its device cookie.
pub(crate) struct NewSessionDraft {
    pub(crate) row: NewSession,
    pub(crate) device: Secret,
    /// The account that last signed in in this browser.
    pub(crate) before: LastHere,
}

impl NewSessionDraft {
    /// Prepares a session for the caller.
    pub(crate) fn new(
        accounts: &Accounts,
        caller: &Caller,
        remember: bool,
        before: LastHere,
        now: UnixSecs,
    ) -> Result<Self, StoreDown> {
        // a value that no account knows may be forged
        let device = match &caller.device {
            Some(device) if before != LastHere::Nobody => Secret::new(device.clone()),
            _ => random_token().map_err(|_| StoreDown)?,
        };
        let row = NewSession {
            id: new_session_id().map_err(|_| StoreDown)?,
            expires: now.saturating_add(accounts.shared.settings.max_age_secs),
            remember,
            address: audit::address(caller),
            user_agent: user_agent(caller),
            replaces: caller.session.clone(),
            device: token_hash(device.expose()),
            identity: None,
            authenticated: now,
        };
        Ok(Self { row, device, before })
    }

    /// What the browser gets, once the session has been stored.
    pub(crate) fn signed_in(self, accounts: &Accounts, user_id: &str) -> Result<SignedIn, StoreDown> {
        let shared = &*accounts.shared;
        let Self { row, device, before } = self;
        let session = shared.sessions.find(&row.id).ok_or(StoreDown)?;
        let token = shared.keys.sign(&session, user_id, shared.clock.now()).ok_or(StoreDown)?;
        let is_same_account = matches!(before, LastHere::One(last) if last == user_id);
        Ok(SignedIn { session, token, device, is_same_account })
    }
}

/// User-Agent, safe to display: no control characters, 256 bytes at most.
fn user_agent(caller: &Caller) -> String {
    let mut text: String = caller.user_agent.chars().filter(|c| !c.is_control()).collect();
    let end = (0..=text.len().min(256)).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    text.truncate(end);
    text
}
