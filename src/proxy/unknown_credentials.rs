//! A request with credentials that this node does not know: another node may have begun the session a moment ago. The
//! request waits until what other nodes committed has been applied here, and is decided again. Requests at the same time
//! share one poll of the database, so made-up credentials cause few.

use std::time::Instant;

use http::StatusCode;

use super::gateway::Gateway;
use super::provider_token;
use super::request_state::{Decision, RequestState, Step, Subject};
use crate::account::credentials;
use crate::policy::authenticate::CatchUp;
use crate::policy::normalize::NormalRequest;
use crate::policy::refuse;
use crate::secret::Secret;
use crate::web::host::Host;

/// Decides about a request that waits for something.
pub(super) async fn settle(gateway: &Gateway, step: Step, state: &mut RequestState) -> Decision {
    let step = match step {
        Step::AwaitsStore(request, tokens) => decide_again(gateway, request, &tokens, state).await,
        step => step,
    };
    match step {
        Step::Decided(decision) => decision,
        Step::AwaitsToken(waiting) => provider_token::settle(gateway, waiting, state).await,
        // never twice; and never forwarded
        Step::AwaitsStore(request, _) => {
            let incoming = request.incoming();
            let code = StatusCode::SERVICE_UNAVAILABLE;
            let reply = refuse::status(&gateway.pages, code, &incoming, &state.request_id);
            Decision::Reply(reply, Subject::Normal(request))
        }
    }
}

async fn decide_again(gateway: &Gateway, request: NormalRequest, tokens: &[Secret], state: &mut RequestState) -> Step {
    let catch_up = catch_up(gateway, tokens, request.incoming().host).await;
    let step = gateway.decide_normalized(request, &catch_up, state);
    // what follows is timed from here
    state.decided = Instant::now();
    step
}

async fn catch_up(gateway: &Gateway, tokens: &[Secret], host: &Host) -> CatchUp {
    let accounts = &gateway.accounts;
    if credentials::catch_up(accounts).await.is_err() {
        return CatchUp::Failed;
    }
    credentials::use_ticket(accounts, tokens, host).await.map_or(CatchUp::Failed, CatchUp::Done)
}
