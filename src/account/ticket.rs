//! One-time tickets for WebSocket handshakes that can carry no cookie: asked for with a session, good
//! for one handshake within half a minute. In memory alone: after a restart a new one is asked for.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::accounts::Accounts;
use super::session::{Identity, Rejected, Session, Standing};
use crate::clock::UnixSecs;
use crate::secret::{NoRandomness, Secret, random_token, token_hash};

/// How long a ticket is good, seconds.
pub const TICKET_SECS: u64 = 30;
/// Tickets that are kept; when there are more, none is given.
const TICKETS_MAX: usize = 65_536;
/// Tells a ticket from other tokens.
const PREFIX: &str = "agw_";

struct Ticket {
    session: Arc<Session>,
    issued: UnixSecs,
}

/// Tickets that were given and not used, by hash.
#[derive(Default)]
pub(super) struct Tickets(Mutex<HashMap<[u8; 32], Ticket, ahash::RandomState>>);

impl Accounts {
    /// A ticket for the session's person; `None`: too many are out.
    pub fn ticket(&self, who: &Identity) -> Result<Option<Secret>, NoRandomness> {
        let now = self.shared.clock.now();
        let token = Secret::new(format!("{PREFIX}{}", random_token()?.expose()));
        let mut tickets = self.shared.tickets.0.lock();
        if tickets.len() >= TICKETS_MAX {
            tickets.retain(|_, ticket| now.saturating_sub(ticket.issued) <= TICKET_SECS);
        }
        if tickets.len() >= TICKETS_MAX {
            return Ok(None);
        }
        tickets.insert(token_hash(token.expose()), Ticket { session: Arc::clone(&who.session), issued: now });
        Ok(Some(token))
    }

    /// Who the token of a handshake stands for: a ticket, which is used up by this, or what
    /// `Authorization` would take.
    ///
    /// # Errors
    /// [`Rejected`]: deny.
    pub fn authenticate_handshake(&self, token: &Secret) -> Result<Identity, Rejected> {
        if token.expose().starts_with(super::API_TOKEN_PREFIX) {
            return self.authenticate_api_token(token.expose().as_bytes());
        }
        if !token.expose().starts_with(PREFIX) {
            return self.authenticate(token.expose().as_bytes());
        }
        let ticket = self.shared.tickets.0.lock().remove(&token_hash(token.expose())).ok_or(Rejected::Invalid)?;
        let now = self.shared.clock.now();
        if now.saturating_sub(ticket.issued) > TICKET_SECS {
            return Err(Rejected::Expired);
        }
        match self.standing(&ticket.session) {
            Standing::Active => {
                let user = ticket.session.user.load_full();
                Ok(Identity { session: ticket.session, user, issued: now, grant: None })
            }
            Standing::Expired => Err(Rejected::Expired),
            Standing::Ended => Err(Rejected::Ended),
        }
    }
}
