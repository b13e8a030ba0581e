//! Requests with small bodies, or none: the body is held whole, so that it goes out with the head in one write, and can be sent
//! again. While the response is awaited there is no timer but the connection's own.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use pingora_core::{Error, ErrorType, Result};
use tokio::io::AsyncWriteExt as _;
use tokio::time::Instant;

use super::attempt_error::{AttemptError, client_disconnected};
use super::downstream::{Downstream, WaitingClient};
use super::request_encoder::{self, Extra};
use super::response_body;
use super::response_head::read_head;
use super::retry::{self, Attempt};
use super::upstream::ResponseSource;
use crate::proxy::attempt;
use crate::proxy::connection_handler::ConnectionHandler;
use crate::proxy::connection_reuse::{self, uses_connection_auth};
use crate::proxy::request_state::{Forwarding, RequestState};
use crate::upstream::h1_pool::Surplus;
use crate::upstream::targets::Target;
use crate::web::method::is_safe;
use crate::wire::deadline::Deadline;
use crate::wire::response_head::{Answer, Framing};
use crate::wire::stream::Stream;

/// Request bodies up to this size are read whole before they are forwarded; larger ones are streamed.
pub(crate) const BODY_BYTES_MAX: u64 = 64 << 10;

/// A server's connection with a response whose body follows.
pub(crate) struct UpstreamResponse {
    pub(crate) connection: Stream,
    pub(crate) target: Arc<Target>,
    /// As [`crate::upstream::h1_pool::keep`] has it.
    pub(crate) needs_probe: bool,
    pub(crate) answer: Answer,
}

/// Sends a request and waits for the head of its response.
pub(crate) fn send<'s>(
    handler: &'s ConnectionHandler,
    forwarding: &'s Forwarding,
    body: &'s [u8],
    client: &'s mut impl WaitingClient,
    deadline: &'s mut Deadline,
    state: &'s mut RequestState,
) -> impl Future<Output = Result<UpstreamResponse>> {
    retry::send(handler, forwarding, Buffered { body, client, deadline }, state)
}

/// Forwards a request, and its response by way of [`Downstream`].
pub(crate) async fn forward<D: Downstream>(
    handler: &ConnectionHandler,
    forwarding: &Forwarding,
    body: &[u8],
    client: &mut D,
    state: &mut RequestState,
) -> Result<()> {
    let (stream, request) = (state.connection.clone(), forwarding.request.parsed());
    let whole = async {
        let response = send(handler, forwarding, body, client, &mut Deadline::default(), state).await?;
        let UpstreamResponse { connection, target, needs_probe, answer } = response;
        let response = ResponseSource::of_answer(connection, answer, !D::IS_H2)?;
        let upload_failed = AtomicBool::new(false);
        let relayed = response_body::relay(handler, forwarding, client, response, state, &upload_failed);
        match relayed.await?.reusable(None) {
            Ok(Some(connection)) if !uses_connection_auth(&request.headers, state.names) => {
                connection_reuse::keep(&handler.gateway, &target, connection, needs_probe);
            }
            Ok(_) => {}
            Err(Surplus) => connection_reuse::distrust(&handler.gateway, &target, state),
        }
        Ok(())
    };
    tokio::select! {
        biased;
        _ = stream.closed() => Err(client_disconnected()),
        result = whole => result,
    }
}

struct Buffered<'b, C> {
    body: &'b [u8],
    client: &'b mut C,
    deadline: &'b mut Deadline,
}

impl<C: WaitingClient> Attempt for Buffered<'_, C> {
    type Response = UpstreamResponse;

    async fn send(
        &mut self,
        handler: &ConnectionHandler,
        forwarding: &Forwarding,
        target: Arc<Target>,
        state: &mut RequestState,
    ) -> Result<UpstreamResponse, AttemptError> {
        let is_repeatable = self.body.is_empty() && is_safe(&forwarding.request.parsed().method);
        let kept = connection_reuse::reuse(&handler.gateway, &target, state, is_repeatable).await;
        let reused = kept.is_some();
        let (mut connection, needs_probe) = match kept {
            Some(kept) => kept,
            None => (target.connect(&handler.connector).await.map_err(AttemptError::Unreachable)?, false),
        };
        let upgrade = state.live_entry.is_some().then(|| forwarding.upgrade.as_deref().unwrap_or("websocket"));
        let changes = attempt::changes(&handler.gateway, forwarding, state, &target);
        let extra = Extra { upgrade, ..Extra::default() };
        let mut request = request_encoder::http1(forwarding.request.head(), &changes, &extra, self.body.len());
        drop(changes);
        request.extend_from_slice(self.body);
        // no wait since the decision (no body, first server tried), so its time is used as the current time
        let is_first = reused && self.body.is_empty() && state.tried.len() == 1;
        let since = is_first.then(|| Instant::from_std(state.decided));
        let answer = self.ask(handler, &mut connection, (&request, since), forwarding, state).await;
        let mut answer = answer.map_err(|e| e.on_connection(reused))?;
        // after a request to switch the server may have switched, whatever its response says
        answer.keeps &= state.live_entry.is_none();
        let needs_probe = needs_probe || !self.body.is_empty() || answer.framing == Framing::Length(0);
        Ok(UpstreamResponse { connection, target, needs_probe, answer })
    }

    fn rewind(&mut self) -> bool {
        true
    }
}

impl<C: WaitingClient> Buffered<'_, C> {
    async fn ask(
        &mut self,
        handler: &ConnectionHandler,
        connection: &mut Stream,
        (request, since): (&[u8], Option<Instant>),
        forwarding: &Forwarding,
        state: &RequestState,
    ) -> Result<Answer, AttemptError> {
        let idle = handler.gateway.config.limits.idle;
        let rest = &request[connection.write_now(request)..];
        if !(rest.is_empty() && connection.is_plain()) {
            let sent = async {
                connection.write_all(rest).await?;
                // TLS keeps what the socket did not take
                connection.flush().await
            };
            match self.deadline.within(idle, pin!(sent)).await {
                Some(Ok(())) => {}
                Some(Err(e)) => {
                    let e = Error::because(ErrorType::WriteError, "sending", e).into_up();
                    return Err(AttemptError::NoResponse(e));
                }
                None => return Err(Error::explain(ErrorType::WriteTimedout, "sending").into_up().into()),
            }
        }
        let within = attempt::response_time(&handler.gateway, forwarding);
        let answer = pin!(read_head(connection, forwarding.request.parsed(), self.client));
        match self.deadline.within_since(since, within, answer).await {
            Some(answer) => answer,
            None => Err(attempt::response_overdue(&state.connection).into()),
        }
    }
}
