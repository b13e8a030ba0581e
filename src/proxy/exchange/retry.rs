//! The one loop over the servers of an upstream: the next server after one that cannot be reached, a second attempt where the
//! first one changed nothing.

use std::sync::Arc;

use pingora_core::Result;

use super::attempt_error::AttemptError;
use crate::policy::forwarding::Forwarding;
use crate::proxy::attempt;
use crate::proxy::connection_handler::ConnectionHandler;
use crate::proxy::request_state::RequestState;
use crate::upstream::targets::Target;

/// One way to send a request.
pub(super) trait Attempt {
    /// Sends the request to one server.
    async fn send(
        &mut self,
        handler: &ConnectionHandler,
        forwarding: &Forwarding,
        target: Arc<Target>,
        state: &mut RequestState,
    ) -> Result<(), AttemptError>;

    /// Starts the body again for another attempt; `false` where a part of it is gone.
    fn rewind(&mut self) -> bool;
}

/// Sends the request to one server after the other until one responds.
pub(super) async fn send<A: Attempt>(
    handler: &ConnectionHandler,
    forwarding: &Forwarding,
    mut attempt: A,
    state: &mut RequestState,
) -> Result<()> {
    let gateway = &handler.gateway;
    loop {
        let target = attempt::next_target(gateway, forwarding, state)?;
        match attempt.send(handler, forwarding, target, state).await {
            Ok(()) => return Ok(()),
            Err(AttemptError::Unreachable(e)) if attempt::may_try_another(gateway, forwarding, state, &e) => {}
            Err(AttemptError::NoResponse(_))
                if attempt.rewind() && attempt::may_retry_idempotent(forwarding, state) => {}
            Err(AttemptError::NotProcessed(_)) if attempt.rewind() && attempt::may_retry_unprocessed(state) => {}
            Err(e) => return Err(e.into_error()),
        }
    }
}
