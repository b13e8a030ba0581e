//! One-time tickets for WebSocket handshakes that cannot carry a cookie: requested with a session, valid for one
//! handshake within 30 seconds. Kept in memory only: after a restart a client requests a new one. Where nodes share a
//! database, [`super::shared_ticket`] has them.

use std::sync::Arc;

use parking_lot::Mutex;

use super::limits::bounded_map::BoundedMap;
use super::session::session::{Identity, Rejected, Session};
use crate::clock::UnixSecs;
use crate::secret::{NoRandomness, Secret, random_token, token_hash};
use crate::web::host::Host;

/// Lifetime of a ticket, seconds.
pub const TICKET_SECS: u64 = 30;
/// Tickets kept in total.
const TICKETS_MAX: usize = 65_536;
/// Tickets kept per session.
const TICKETS_OF_ONE: usize = 32;
/// Distinguishes tickets from other tokens.
pub(super) const PREFIX: &str = "agw_";

struct Ticket {
    session: Arc<Session>,
    /// The host it was requested at and is valid for.
    host: Box<str>,
    issued: UnixSecs,
}

/// Issued, unused tickets.
pub(super) struct Tickets(Mutex<State>);

struct State {
    held: BoundedMap<Ticket>,
    swept: UnixSecs,
}

impl Default for Tickets {
    fn default() -> Self {
        Self(Mutex::new(State { held: BoundedMap::new(TICKETS_OF_ONE, TICKETS_MAX), swept: 0 }))
    }
}

impl Tickets {
    /// Issues a ticket for a session, valid at `host`.
    pub(super) fn issue(&self, who: &Identity, host: &Host, now: UnixSecs) -> Result<Secret, NoRandomness> {
        let token = Secret::new(format!("{PREFIX}{}", random_token()?.expose()));
        let ticket = Ticket { session: Arc::clone(&who.session), host: host.name().into(), issued: now };
        self.keep(token.expose(), ticket);
        Ok(token)
    }

    /// Consumes a ticket in a handshake to `host`; gives the session it was issued for.
    pub(super) fn redeem(&self, token: &Secret, host: &Host, now: UnixSecs) -> Result<Arc<Session>, Rejected> {
        let hash = token_hash(token.expose());
        let ticket = self.0.lock().held.remove(&hash, |ticket| &ticket.session).ok_or(Rejected::Invalid)?;
        if *ticket.host != *host.name() {
            return Err(Rejected::Invalid);
        }
        // a ticket from the future was issued before the clock was set back
        if now.saturating_sub(ticket.issued) > TICKET_SECS || ticket.issued > now + TICKET_SECS {
            return Err(Rejected::Expired);
        }
        Ok(ticket.session)
    }

    fn keep(&self, token: &str, ticket: Ticket) {
        let State { held, swept } = &mut *self.0.lock();
        // at most once per ticket lifetime
        if ticket.issued.saturating_sub(*swept) > TICKET_SECS {
            *swept = ticket.issued;
            held.retain(|old| ticket.issued.saturating_sub(old.issued) <= TICKET_SECS);
        }
        held.insert(token_hash(token), &Arc::clone(&ticket.session), ticket);
    }
}

/// Whether a token is a ticket.
pub(super) fn is_ticket(token: &Secret) -> bool {
    token.expose().starts_with(PREFIX)
}

#[cfg(test)]
mod tests {
    use super::super::testing::World;
    use super::*;
    use crate::account::credentials;

    #[tokio::test]
    async fn one_session_evicts_no_tickets_of_others_and_expired_ones_are_dropped() {
        let world = World::new();
        world.user("ada@example.com");
        let [greedy, other] = [world.sign_in("ada@example.com").await, world.sign_in("ada@example.com").await];
        let who = |token: &Secret| credentials::session_token(&world.accounts, token.expose().as_bytes()).unwrap();
        let (greedy, other, host) = (who(&greedy.token), who(&other.token), Host::parse("a.test").unwrap());
        let first = credentials::issue_ticket(&world.accounts, &other, &host).unwrap();
        let tickets: Vec<_> = (0..TICKETS_OF_ONE * 2)
            .map(|_| credentials::issue_ticket(&world.accounts, &greedy, &host).unwrap())
            .collect();
        let count = || world.accounts.shared.tickets.0.lock().held.len();
        assert_eq!(count(), TICKETS_OF_ONE + 1);
        let use_up = |ticket: &Secret| {
            credentials::handshake_token(&world.accounts, ticket, &host).map(|who| who.session.id.clone())
        };
        assert_eq!(use_up(&tickets[0]), Err(Rejected::Invalid));
        assert_eq!(use_up(&tickets[TICKETS_OF_ONE]), Ok(greedy.session.id.clone()));
        assert_eq!((use_up(&first), use_up(&first)), (Ok(other.session.id.clone()), Err(Rejected::Invalid)));
        world.clock.advance(TICKET_SECS + 1);
        let _ = credentials::issue_ticket(&world.accounts, &greedy, &host).unwrap();
        assert_eq!((count(), use_up(&tickets[TICKETS_OF_ONE + 1])), (1, Err(Rejected::Invalid)));
    }
}
