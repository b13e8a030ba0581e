//! A request whose body was read whole, its response, and what the connections of both sides do afterwards.

use bytes::Bytes;

use super::downstream::ClientConnection;
use super::reply::ConnectionOutcome;
use super::response_relay::RelayOutcome;
use super::{reply, response_relay};
use crate::proxy::access_log::Counts;
use crate::proxy::connection_handler::ConnectionHandler;
use crate::proxy::exchange::buffered::{self, UpstreamResponse};
use crate::proxy::request_state::{Forwarding, RequestState};
use crate::proxy::{attempt, connection_reuse};

/// Forwards a request that was admitted.
pub(super) async fn exchange(
    handler: &ConnectionHandler,
    conn: &mut ClientConnection,
    forwarding: &Forwarding,
    body: Bytes,
    state: &mut RequestState,
    counts: &mut Counts,
) -> ConnectionOutcome {
    let gateway = &handler.gateway;
    let (mut client, deadline) = conn.waiting(gateway.config.limits.idle);
    let failure = match buffered::send(handler, forwarding, &body, &mut client, deadline, state).await {
        Ok(mut response) => match attempt::on_response_head(gateway, forwarding, &response.answer.head, state) {
            Ok(policy) => {
                let relayed =
                    response_relay::relay(handler, conn, forwarding, (&mut response, &policy), state, counts).await;
                return finish(handler, response, relayed);
            }
            Err(e) => e,
        },
        Err(e) => e,
    };
    match attempt::on_upstream_error(gateway, &failure, forwarding, state) {
        Some(reply) => reply::send(handler, conn, reply, forwarding.request.parsed(), state, counts).await,
        None => ConnectionOutcome::Closed,
    }
}

fn finish(handler: &ConnectionHandler, mut response: UpstreamResponse, relayed: RelayOutcome) -> ConnectionOutcome {
    match relayed {
        RelayOutcome::Switched => {
            let rest = response.answer.take_rest();
            ConnectionOutcome::Tunnel(response.connection, rest)
        }
        RelayOutcome::Done { outcome, reusable } => {
            if reusable {
                let UpstreamResponse { connection, target, needs_probe, .. } = response;
                connection_reuse::keep(&handler.gateway, &target, connection, needs_probe);
            }
            outcome
        }
    }
}
