//! A request whose app gets a token of the provider that its session began through, and that is not in memory: it waits
//! for the token, with a deadline, while its thread serves others. It is never forwarded without.

use std::time::Instant;

use http::{HeaderValue, StatusCode, header};

use super::gateway::Gateway;
use super::request_state::{Decision, RequestState, Subject};
use crate::account::identity::upstream_token::{self, NoToken, RETRY_SECS};
use crate::account::{Rejected, SessionState};
use crate::policy::authenticate::Authentication;
use crate::policy::authorize::{self, Refusal};
use crate::policy::decide::Verdict;
use crate::policy::forwarding::Forwarding;
use crate::policy::provider_token;
use crate::policy::reasons::{Outcome, Reason};
use crate::policy::refuse::{self, Handling};
use crate::web::reply::Reply;

/// Waits for the token. The session may end meanwhile, or lose what it needs.
pub(super) async fn settle(gateway: &Gateway, mut forwarding: Box<Forwarding>, state: &mut RequestState) -> Decision {
    let found = match provider_token::wanted(&gateway.config, forwarding.admission()) {
        Some((token, session)) => upstream_token::wait(&gateway.accounts, token, session).await,
        None => Err(NoToken::Unavailable),
    };
    // what follows is timed from here
    state.decided = Instant::now();
    let refusal = match found {
        Ok(token) => {
            forwarding.add_provider_token(token);
            match refused_since(gateway, &forwarding) {
                None => return Decision::Forward(forwarding),
                refusal => refusal,
            }
        }
        Err(NoToken::SessionEnded) => Some(Refusal::SignedOut),
        Err(NoToken::Unavailable) => None,
    };
    // no connection of the app's is open
    (state.live_entry, state.grpc_entry, state.renewed_cookie) = (None, None, None);
    state.outcome = Outcome::Refused;
    let reply = match refusal {
        Some(refusal) => refused(gateway, &forwarding, refusal, state),
        None => None,
    };
    let reply = reply.unwrap_or_else(|| {
        state.reason = Some(Reason::ProviderToken);
        let incoming = forwarding.request().incoming();
        let reply = refuse::status(&gateway.pages, StatusCode::SERVICE_UNAVAILABLE, &incoming, &state.request_id);
        reply.with(header::RETRY_AFTER, HeaderValue::from(RETRY_SECS))
    });
    Decision::Reply(reply, Subject::Forwarded(forwarding))
}

/// Whether the request would be refused by now.
fn refused_since(gateway: &Gateway, forwarding: &Forwarding) -> Option<Refusal> {
    let identity = forwarding.admission().identity()?;
    if gateway.accounts.session_state(&identity.session) != SessionState::Active {
        return Some(Refusal::SignedOut);
    }
    let user = identity.session.user.load();
    let mut routes = forwarding.admission().routes().map(|route| &gateway.config.routes[route]);
    (!routes.all(|route| authorize::still_allowed(route, &user.groups))).then_some(Refusal::Forbidden)
}

fn refused(gateway: &Gateway, forwarding: &Forwarding, refusal: Refusal, state: &mut RequestState) -> Option<Reply> {
    let verdict = Verdict::Refuse(forwarding.admission().route(), refusal);
    let authentication = match refusal {
        Refusal::SignedOut => Authentication::Rejected(Rejected::Ended),
        _ => Authentication::Anonymous,
    };
    let incoming = forwarding.request().incoming();
    match refuse::handle(&gateway.rules(), verdict, &authentication, &incoming, &state.request_id) {
        Handling::Reply(refused) => {
            state.reason = refused.reason;
            Some(refused.reply)
        }
        Handling::Forward(_) | Handling::Page(_) => None,
    }
}
