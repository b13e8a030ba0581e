//! Checks the credentials of a request, in memory only: no await, no disk.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::accounts::{Accounts, Shared};
use super::api_token::user_tokens;
use super::errors::{StoreDown, store_down};
use super::session::cookie_token;
use super::session::session::{Identity, Rejected, Session, SessionState};
use super::settings::BLIND_MIN;
use super::shared_ticket::{self, SharedTicket};
use super::websocket_ticket;
use crate::clock::UnixSecs;
use crate::secret::Secret;
use crate::store;
use crate::web::host::Host;

/// Authenticates a session token. Marks the session as seen.
///
/// # Errors
/// [`Rejected`]: deny. The variant is for the log only.
pub fn session_token(accounts: &Accounts, token: &[u8]) -> Result<Identity, Rejected> {
    let shared = &*accounts.shared;
    let now = shared.clock.now();
    let (session, issued) = match cookie_token::recall(shared.id, token, now) {
        Some(found) => found?,
        None => verify(shared, token, now)?,
    };
    match shared.sessions.state(&session, now) {
        SessionState::Active => {}
        SessionState::Expired => {
            cookie_token::forget(token);
            return Err(Rejected::Expired);
        }
        SessionState::Ended => {
            cookie_token::forget(token);
            return Err(Rejected::Ended);
        }
    }
    if session.seen.load(Ordering::Relaxed) < now {
        session.seen.fetch_max(now, Ordering::Relaxed);
    }
    let user = session.user.load_full();
    Ok(Identity { session, user, issued, grant: None })
}

fn verify(shared: &Shared, token: &[u8], now: UnixSecs) -> Result<(Arc<Session>, UnixSecs), Rejected> {
    let (verified, key) = shared.keys.verify(token, now).map_err(|why| here(shared, why))?;
    let session = shared.sessions.find(&verified.session_id).ok_or_else(|| here(shared, Rejected::UnknownSession))?;
    if session.user.load().id != verified.user_id || !key.is_valid_for(&session) {
        return Err(Rejected::Invalid);
    }
    cookie_token::remember(shared.id, token, cookie_token::Remembered::new(session.clone(), &verified, key));
    Ok((session, verified.issued))
}

/// The same, where there are no other nodes that may know more.
fn here(shared: &Shared, why: Rejected) -> Rejected {
    if shared.store.is_shared() { why } else { why.known_nowhere() }
}

/// Authenticates an API token. Marks it as seen.
///
/// # Errors
/// [`Rejected`]: deny.
pub fn api_token(accounts: &Accounts, token: &[u8]) -> Result<Identity, Rejected> {
    let unknown = || {
        let why = if user_tokens::is_one(token) { Rejected::Unknown } else { Rejected::Invalid };
        here(&accounts.shared, why)
    };
    let (session, grant) = accounts.shared.api_tokens.find(token).ok_or_else(unknown)?;
    let now = accounts.shared.clock.now();
    let user = session.user.load_full();
    if session.ended.load(Ordering::Acquire) || user.disabled {
        return Err(Rejected::Ended);
    }
    if now >= session.expires() {
        return Err(Rejected::Expired);
    }
    session.seen.fetch_max(now, Ordering::Relaxed);
    Ok(Identity { session, user, issued: now, grant: Some(grant) })
}

/// A new session token if the presented one is older than `session.renew_after`.
pub fn renewed_token(accounts: &Accounts, who: &Identity) -> Option<Secret> {
    // `seen` was set by this request, so the clock need not be read again
    let seen = who.session.seen.load(Ordering::Relaxed);
    if seen.saturating_sub(who.issued) < accounts.shared.settings.renew_after_secs {
        return None;
    }
    accounts.shared.keys.sign(&who.session, &who.user.id, accounts.shared.clock.now())
}

/// Whether another node has used a session that is idle here: the shared store is asked once. It ends here if not.
pub async fn is_used_elsewhere(accounts: &Accounts, session: &Arc<Session>) -> bool {
    let shared = &*accounts.shared;
    if !shared.store.is_shared() || session.ended.load(Ordering::Acquire) {
        return false;
    }
    let id = session.id.clone();
    let Ok(seen) = shared.store.run(move |db| store::sessions::seen(db, &[&id])).await else { return false };
    shared.sessions.mark_seen(&seen);
    let state = shared.sessions.state(session, shared.clock.now());
    if state == SessionState::Expired {
        session.ended.store(true, Ordering::Release);
    }
    state == SessionState::Active
}

/// Applies what other nodes committed before this call. Calls at the same time share one poll.
///
/// # Errors
/// [`StoreDown`]: the database does not answer.
pub async fn catch_up(accounts: &Accounts) -> Result<(), StoreDown> {
    // logged where it is polled
    accounts.shared.store.catch_up().await.map_err(|_| StoreDown)
}

/// Issues a ticket for one WebSocket handshake at `host` in this session's name. `None`: there are no random numbers, or
/// the shared database that would count its use is away.
pub fn issue_ticket(accounts: &Accounts, who: &Identity, host: &Host) -> Option<Secret> {
    let (shared, now) = (&*accounts.shared, accounts.now());
    if !accounts.is_shared() {
        return shared.tickets.issue(who, host, now).ok();
    }
    if shared.store.blind() > BLIND_MIN {
        return None;
    }
    shared_ticket::issue(&shared.keys, who, host, now)
}

/// Authenticates the token of a WebSocket handshake to `host`: a ticket, which this consumes, or any token that
/// `Authorization` accepts.
///
/// # Errors
/// [`Rejected`]: deny.
pub fn handshake_token(accounts: &Accounts, token: &Secret, host: &Host) -> Result<Identity, Rejected> {
    if token.expose().starts_with(user_tokens::PREFIX) {
        return api_token(accounts, token.expose().as_bytes());
    }
    if !websocket_ticket::is_ticket(token) {
        return session_token(accounts, token.expose().as_bytes());
    }
    let now = accounts.shared.clock.now();
    if accounts.is_shared() {
        return Err(shared_ticket::verify(&accounts.shared, token, host, now).err().unwrap_or(Rejected::UnknownUse));
    }
    let session = accounts.shared.tickets.redeem(token, host, now)?;
    of_ticket(accounts, &session)
}

/// Uses the first of these handshake tokens that is a valid ticket, where nodes share a database: it decides which
/// handshake was the first. `None`: there is no such ticket, or it was used before.
///
/// # Errors
/// [`StoreDown`]: the database does not answer. The ticket may have been used up.
pub async fn use_ticket(accounts: &Accounts, tokens: &[Secret], host: &Host) -> Result<Option<Identity>, StoreDown> {
    let shared = &*accounts.shared;
    let mut tickets = tokens.iter().filter(|token| shared.store.is_shared() && websocket_ticket::is_ticket(token));
    let now = shared.clock.now();
    let verified = tickets.find_map(|token| shared_ticket::verify(shared, token, host, now).ok());
    let Some(SharedTicket { session, id, kept_until }) = verified else { return Ok(None) };
    let spent = shared.store.run(move |db| store::nodes::spend(db, &id, kept_until)).await;
    if !spent.map_err(|error| store_down(&error))? {
        return Ok(None);
    }
    Ok(of_ticket(accounts, &session).ok())
}

fn of_ticket(accounts: &Accounts, session: &Arc<Session>) -> Result<Identity, Rejected> {
    match accounts.session_state(session) {
        SessionState::Active => Ok(accounts.identity_of(session)),
        SessionState::Expired => Err(Rejected::Expired),
        SessionState::Ended => Err(Rejected::Ended),
    }
}
