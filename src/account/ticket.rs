//! One-time tickets for WebSocket handshakes that can carry no cookie: asked for with a session, good
//! for one handshake within half a minute. In memory alone: after a restart a new one is asked for.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;

use super::accounts::Accounts;
use super::session::{Identity, Rejected, Session, Standing};
use crate::clock::UnixSecs;
use crate::secret::{NoRandomness, Secret, random_token, token_hash};
use crate::web::host::Host;

/// How long a ticket is good, seconds.
pub const TICKET_SECS: u64 = 30;
/// Tickets that are kept; when there are more, none is given.
const TICKETS_MAX: usize = 65_536;
/// Tickets of one session that are kept: a new one takes the place of its oldest.
const TICKETS_OF_ONE: usize = 32;
/// Tells a ticket from other tokens.
const PREFIX: &str = "agw_";

struct Ticket {
    session: Arc<Session>,
    /// Where it was asked for, and is good.
    host: Box<str>,
    issued: UnixSecs,
}

type Hash = [u8; 32];

/// Tickets that were given and not used.
#[derive(Default)]
pub(super) struct Tickets(Mutex<Given>);

#[derive(Default)]
struct Given {
    by_hash: HashMap<Hash, Ticket, ahash::RandomState>,
    /// Of each session, the oldest first; some of them may be used.
    of_session: HashMap<String, VecDeque<Hash>, ahash::RandomState>,
    swept: UnixSecs,
}

impl Given {
    /// Keeps a ticket; `false`: too many are out, of all sessions together.
    fn insert(&mut self, hash: Hash, ticket: Ticket) -> bool {
        self.sweep(ticket.issued);
        if self.by_hash.len() >= TICKETS_MAX {
            return false;
        }
        let own = self.of_session.entry(ticket.session.id.clone()).or_default();
        if own.len() >= TICKETS_OF_ONE
            && let Some(oldest) = own.pop_front()
        {
            self.by_hash.remove(&oldest);
        }
        own.push_back(hash);
        self.by_hash.insert(hash, ticket);
        true
    }

    /// Lets go of what is past, at most once in the life of a ticket.
    fn sweep(&mut self, now: UnixSecs) {
        if now.saturating_sub(self.swept) <= TICKET_SECS {
            return;
        }
        self.swept = now;
        self.by_hash.retain(|_, ticket| now.saturating_sub(ticket.issued) <= TICKET_SECS);
        let left = &self.by_hash;
        self.of_session.retain(|_, own| {
            own.retain(|hash| left.contains_key(hash));
            !own.is_empty()
        });
    }
}

impl Accounts {
    /// A ticket for the session's person, good at `host`; `None`: too many are out.
    pub fn ticket(&self, who: &Identity, host: &Host) -> Result<Option<Secret>, NoRandomness> {
        let now = self.shared.clock.now();
        let token = Secret::new(format!("{PREFIX}{}", random_token()?.expose()));
        let ticket = Ticket { session: Arc::clone(&who.session), host: host.name().into(), issued: now };
        let kept = self.shared.tickets.0.lock().insert(token_hash(token.expose()), ticket);
        Ok(kept.then_some(token))
    }

    /// Who the token of a handshake to `host` stands for: a ticket, which is used up by this, or what
    /// `Authorization` would take.
    ///
    /// # Errors
    /// [`Rejected`]: deny.
    pub fn authenticate_handshake(&self, token: &Secret, host: &Host) -> Result<Identity, Rejected> {
        if token.expose().starts_with(super::API_TOKEN_PREFIX) {
            return self.authenticate_api_token(token.expose().as_bytes());
        }
        if !token.expose().starts_with(PREFIX) {
            return self.authenticate(token.expose().as_bytes());
        }
        let ticket =
            self.shared.tickets.0.lock().by_hash.remove(&token_hash(token.expose())).ok_or(Rejected::Invalid)?;
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
    use super::*;
    use arc_swap::ArcSwap;

    use crate::account::User;

    fn ticket(session: &str, issued: UnixSecs) -> Ticket {
        let user = User::new("7".into(), "ada@example.com".into(), String::new(), String::new(), vec![], false);
        Ticket {
            host: "a.test".into(),
            session: Arc::new(Session::new(session.to_owned(), Arc::new(ArcSwap::from_pointee(user)), 0, 1000, 0)),
            issued,
        }
    }

    fn hash(number: usize) -> Hash {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&number.to_le_bytes());
        hash
    }

    #[test]
    fn one_session_takes_no_place_from_others_and_what_is_past_goes() {
        let mut given = Given::default();
        for number in 0..TICKETS_MAX * 2 {
            assert!(given.insert(hash(number), ticket("greedy", 1)));
        }
        assert_eq!(given.by_hash.len(), TICKETS_OF_ONE);
        assert!(given.insert(hash(usize::MAX), ticket("other", 2)));
        assert!(
            given.by_hash.contains_key(&hash(usize::MAX)) && given.by_hash.contains_key(&hash(TICKETS_MAX * 2 - 1))
        );
        assert!(given.insert(hash(usize::MAX - 1), ticket("late", 100)));
        assert_eq!((given.by_hash.len(), given.of_session.len()), (1, 1));
    }
}
