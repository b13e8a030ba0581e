//! WebSocket tickets where several nodes share a database: signed, so that any node verifies them, and marked there when
//! they are used. Requested with a session, valid for one handshake at one host within 30 seconds.

use std::sync::Arc;

use super::accounts::Shared;
use super::ids::new_session_id;
use super::session::cookie_token::{Keys, LEEWAY_SECS};
use super::session::session::{Identity, Rejected, Session, SessionState};
use super::websocket_ticket::{PREFIX, TICKET_SECS};
use crate::clock::UnixSecs;
use crate::secret::Secret;
use crate::web::host::Host;

/// How long the database keeps that a ticket was used, after it has expired: its clock may be ahead of a node's.
const KEPT_SECS: u64 = 600;
/// Longest ticket accepted, bytes.
const BYTES_MAX: usize = 1024;

/// A ticket with a valid signature and valid times.
pub(super) struct SharedTicket {
    pub(super) session: Arc<Session>,
    /// What is marked when it is used.
    pub(super) id: Vec<u8>,
    /// How long that mark is needed.
    pub(super) kept_until: UnixSecs,
}

/// `agw_KID.EXPIRES.ID.SESSION.SIGNATURE`. The signature covers the host, too. `None`: there are no random numbers.
pub(super) fn issue(keys: &Keys, who: &Identity, host: &Host, now: UnixSecs) -> Option<Secret> {
    let text = format!("{}.{}.{}", now + TICKET_SECS, new_session_id().ok()?, who.session.id);
    let (kid, tag) = keys.sign_ticket(&signed(&text, host), now)?;
    Some(Secret::new(format!("{PREFIX}{kid}.{text}.{tag}")))
}

/// Verifies a ticket for a handshake to `host`, except whether it was used.
pub(super) fn verify(shared: &Shared, token: &Secret, host: &Host, now: UnixSecs) -> Result<SharedTicket, Rejected> {
    let token = token.expose();
    if token.len() > BYTES_MAX {
        return Err(Rejected::Invalid);
    }
    let rest = token.strip_prefix(PREFIX).ok_or(Rejected::Invalid)?;
    let (kid, rest) = rest.split_once('.').ok_or(Rejected::Invalid)?;
    let (text, tag) = rest.rsplit_once('.').ok_or(Rejected::Invalid)?;
    let [expires, id, session] =
        <[&str; 3]>::try_from(text.split('.').collect::<Vec<_>>()).map_err(|_| Rejected::Invalid)?;
    let expires: UnixSecs = expires.parse().map_err(|_| Rejected::Invalid)?;
    let times = (expires.saturating_sub(TICKET_SECS), now);
    let key = shared.keys.verify_ticket(kid, &signed(text, host), tag, times)?;
    // clocks of nodes differ a little
    if now > expires.saturating_add(LEEWAY_SECS) {
        return Err(Rejected::Expired);
    }
    if expires > now.saturating_add(TICKET_SECS + LEEWAY_SECS) {
        return Err(Rejected::Invalid);
    }
    let session = shared.session(session).ok_or(Rejected::UnknownSession)?;
    if !key.is_valid_for(&session) {
        return Err(Rejected::Invalid);
    }
    match shared.sessions.state(&session, now) {
        SessionState::Active => {}
        SessionState::Expired => return Err(Rejected::Expired),
        SessionState::Ended => return Err(Rejected::Ended),
    }
    let id = format!("ticket {id}").into_bytes();
    Ok(SharedTicket { session, id, kept_until: expires.saturating_add(KEPT_SECS) })
}

/// The text that is signed. A host has no blank.
fn signed(text: &str, host: &Host) -> String {
    format!("{} {text}", host.name())
}
