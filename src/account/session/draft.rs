//! A session before it begins, and what the browser is given once it has.

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
    pub is_same_account: bool,
}

/// A session in the making and the device cookie that goes with it.
pub(crate) struct NewSessionDraft {
    pub(crate) row: NewSession,
    pub(crate) device: Secret,
    /// Who had one before at this browser.
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
        // one that no account knows may be anybody's invention
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
        };
        Ok(Self { row, device, before })
    }

    /// What the browser gets for a session that has just begun.
    pub(crate) fn signed_in(self, accounts: &Accounts, user_id: &str) -> Result<SignedIn, StoreDown> {
        let shared = &*accounts.shared;
        let Self { row, device, before } = self;
        let session = shared.sessions.find(&row.id).ok_or(StoreDown)?;
        let token = shared.keys.sign(&session, user_id, shared.clock.now()).ok_or(StoreDown)?;
        let is_same_account = matches!(before, LastHere::One(last) if last == user_id);
        Ok(SignedIn { session, token, device, is_same_account })
    }
}

/// User-Agent as it may be shown: no control characters, 256 bytes at most.
fn user_agent(caller: &Caller) -> String {
    let mut text: String = caller.user_agent.chars().filter(|c| !c.is_control()).collect();
    let end = (0..=text.len().min(256)).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    text.truncate(end);
    text
}
