//! Checks the credentials of a request, in memory only: no await, no disk.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::accounts::{Accounts, Shared};
use super::api_token::user_tokens;
use super::session::cookie_token;
use super::session::session::{Identity, Rejected, Session, SessionState};
use super::websocket_ticket;
use crate::clock::UnixSecs;
use crate::secret::Secret;
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
    let session = accounts.shared.tickets.redeem(token, host, now)?;
    match accounts.session_state(&session) {
        SessionState::Active => {
            let user = session.user.load_full();
            Ok(Identity { session, user, issued: now, grant: None })
        }
        SessionState::Expired => Err(Rejected::Expired),
        SessionState::Ended => Err(Rejected::Ended),
    }
}
