//! One-time tickets for WebSocket handshakes that can carry no cookie: asked for with a session, good
//! for one handshake within half a minute. In memory alone: after a restart a new one is asked for.

use std::sync::Arc;

use parking_lot::Mutex;

use super::accounts::Accounts;
use super::limits::bounded_map::Holders;
use super::session::session::{Identity, Rejected, Session, Standing};
use crate::clock::UnixSecs;
use crate::secret::{NoRandomness, Secret, random_token, token_hash};
use crate::web::host::Host;

/// How long a ticket is good, seconds.
pub const TICKET_SECS: u64 = 30;
/// Tickets that are kept in all.
const TICKETS_MAX: usize = 65_536;
/// Tickets of one session that are kept.
const TICKETS_OF_ONE: usize = 32;
/// Tells a ticket from other tokens.
const PREFIX: &str = "agw_";

struct Ticket {
    session: Arc<Session>,
    /// Where it was asked for, and is good.
    host: Box<str>,
    issued: UnixSecs,
}

/// Tickets that were given and not used.
pub(super) struct Tickets(Mutex<Given>);

struct Given {
    held: Holders<Ticket>,
    swept: UnixSecs,
}

impl Default for Tickets {
    fn default() -> Self {
        Self(Mutex::new(Given { held: Holders::new(TICKETS_OF_ONE, TICKETS_MAX), swept: 0 }))
    }
}

impl Tickets {
    fn keep(&self, token: &str, ticket: Ticket) {
        let Given { held, swept } = &mut *self.0.lock();
        // at most once in the life of a ticket
        if ticket.issued.saturating_sub(*swept) > TICKET_SECS {
            *swept = ticket.issued;
            held.retain(|old| ticket.issued.saturating_sub(old.issued) <= TICKET_SECS);
        }
        held.insert(token_hash(token), &Arc::clone(&ticket.session), ticket);
    }
}

impl Accounts {
    /// A ticket for the session's person, good at `host`.
    pub fn ticket(&self, who: &Identity, host: &Host) -> Result<Secret, NoRandomness> {
        let now = self.shared.clock.now();
        let token = Secret::new(format!("{PREFIX}{}", random_token()?.expose()));
        let ticket = Ticket { session: Arc::clone(&who.session), host: host.name().into(), issued: now };
        self.shared.tickets.keep(token.expose(), ticket);
        Ok(token)
    }

    /// Who the token of a handshake to `host` stands for: a ticket, which is used up by this, or what
    /// `Authorization` would take.
    ///
    /// # Errors
    /// [`Rejected`]: deny.
    pub fn authenticate_handshake(&self, token: &Secret, host: &Host) -> Result<Identity, Rejected> {
        if token.expose().starts_with(super::api_token::manage::PREFIX) {
            return self.authenticate_api_token(token.expose().as_bytes());
        }
        if !token.expose().starts_with(PREFIX) {
            return self.authenticate(token.expose().as_bytes());
        }
        let hash = token_hash(token.expose());
        let ticket =
            self.shared.tickets.0.lock().held.remove(&hash, |ticket| &ticket.session).ok_or(Rejected::Invalid)?;
        if *ticket.host != *host.name() {
            return Err(Rejected::Invalid);
        }
        let now = self.shared.clock.now();
        // one from the future was given before the clock was set back
        if now.saturating_sub(ticket.issued) > TICKET_SECS || ticket.issued > now + TICKET_SECS {
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

#[cfg(test)]
mod tests {
    use super::super::testing::World;
    use super::*;

    #[tokio::test]
    async fn one_session_takes_no_place_from_others_and_what_is_past_goes() {
        let world = World::new();
        world.user("ada@example.com");
        let [greedy, other] = [world.sign_in("ada@example.com").await, world.sign_in("ada@example.com").await];
        let who = |token: &Secret| world.accounts.authenticate(token.expose().as_bytes()).unwrap();
        let (greedy, other, host) = (who(&greedy.token), who(&other.token), Host::parse("a.test").unwrap());
        let first = world.accounts.ticket(&other, &host).unwrap();
        let tickets: Vec<_> = (0..TICKETS_OF_ONE * 2).map(|_| world.accounts.ticket(&greedy, &host).unwrap()).collect();
        let count = || world.accounts.shared.tickets.0.lock().held.len();
        assert_eq!(count(), TICKETS_OF_ONE + 1);
        let use_up =
            |ticket: &Secret| world.accounts.authenticate_handshake(ticket, &host).map(|who| who.session.id.clone());
        assert_eq!(use_up(&tickets[0]), Err(Rejected::Invalid));
        assert_eq!(use_up(&tickets[TICKETS_OF_ONE]), Ok(greedy.session.id.clone()));
        assert_eq!((use_up(&first), use_up(&first)), (Ok(other.session.id.clone()), Err(Rejected::Invalid)));
        world.clock.advance(TICKET_SECS + 1);
        let _ = world.accounts.ticket(&greedy, &host).unwrap();
        assert_eq!((count(), use_up(&tickets[TICKETS_OF_ONE + 1])), (1, Err(Rejected::Invalid)));
    }
}
