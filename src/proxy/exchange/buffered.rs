//! Requests with small bodies, or none: the body is held whole, so that it goes out with the head in one write, and can be sent
//! again. While the response is awaited there is no timer but the connection's own.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::BytesMut;
use http::StatusCode;
use pingora_core::{Error, ErrorType, Result};
use tokio::io::AsyncWriteExt as _;
use tokio::time::Instant;

use super::attempt_error::{AttemptError, truncated};
use super::downstream::{Downstream, WaitingClient};
use super::request_encoder::{self, Extra};
use super::response_body;
use super::response_head::read_head;
use super::retry::{self, Attempt};
use super::upstream::ResponseSource;
use crate::policy::forwarding::Forwarding;
use crate::proxy::attempt;
use crate::proxy::connection_handler::ConnectionHandler;
use crate::proxy::connection_reuse;
use crate::proxy::request_state::RequestState;
use crate::upstream::targets::Target;
use crate::web::method::is_safe;
use crate::wire::deadline::Deadline;
use crate::wire::response_head::{Answer, Framing};
use crate::wire::response_view::ResponseHeadView as _;
use crate::wire::stream::Stream;

/// Request bodies up to this size are read whole before they are forwarded; larger ones are streamed.
pub(crate) const BODY_BYTES_MAX: u64 = 64 << 10;

/// A server's connection with a response whose body follows.
struct UpstreamResponse {
    source: ResponseSource,
    target: Arc<Target>,
    /// As [`crate::upstream::h1_pool::keep`] has it.
    needs_probe: bool,
    answer: Answer,
}

/// Forwards a request, and its response by way of [`Downstream`]. `Some`: the server has switched to another protocol; its
/// connection, and the bytes after its 101.
pub(crate) async fn forward<D: Downstream>(
    handler: &ConnectionHandler,
    forwarding: &Forwarding,
    body: &[u8],
    (client, timer): (&mut D, &mut Deadline),
    state: &mut RequestState,
) -> Result<Option<(Stream, BytesMut)>> {
    let mut response = None;
    let attempt = Buffered { body, client, timer, response: &mut response };
    retry::send(handler, forwarding, attempt, state).await?;
    let Some(UpstreamResponse { mut source, target, needs_probe, answer }) = response else {
        return Err(truncated());
    };
    let switches = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
    let response = (&mut source, D::head_of(answer)?);
    let upload_failed = AtomicBool::new(false);
    response_body::relay(handler, forwarding, (client, timer), response, state, &upload_failed).await?;
    if switches {
        return Ok(source.into_switched());
    }
    response_body::release(handler, forwarding, (&target, needs_probe), (source, None), state);
    Ok(None)
}

struct Buffered<'b, C> {
    body: &'b [u8],
    client: &'b mut C,
    timer: &'b mut Deadline,
    /// The response, once there is one. As a result of each step on the way it would be copied several times.
    response: &'b mut Option<UpstreamResponse>,
}

impl<C: WaitingClient> Attempt for Buffered<'_, C> {
    async fn send(
        &mut self,
        handler: &ConnectionHandler,
        forwarding: &Forwarding,
        target: Arc<Target>,
        state: &mut RequestState,
    ) -> Result<(), AttemptError> {
        let is_repeatable = self.body.is_empty() && is_safe(&forwarding.request().parsed().method);
        let kept = connection_reuse::reuse(&handler.gateway, &target, state, is_repeatable).await;
        let reused = kept.is_some();
        let (mut connection, needs_probe) = match kept {
            Some(kept) => kept,
            None => (target.connect(&handler.connector).await.map_err(AttemptError::Unreachable)?, false),
        };
        let upgrade = state.live_entry.is_some().then(|| forwarding.upgrade().unwrap_or("websocket"));
        let changes = attempt::changes(&handler.gateway, forwarding, state, &target);
        let extra = Extra { upgrade, ..Extra::default() };
        let mut request = request_encoder::http1(forwarding.request().head(), &changes, &extra, self.body.len());
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
        let source = ResponseSource::of_answer(connection, &mut answer);
        *self.response = Some(UpstreamResponse { source, target, needs_probe, answer });
        Ok(())
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
            match self.timer.within(idle, pin!(sent)).await {
                Some(Ok(())) => {}
                Some(Err(e)) => {
                    let e = Error::because(ErrorType::WriteError, "sending", e).into_up();
                    return Err(AttemptError::NoResponse(e));
                }
                None => return Err(Error::explain(ErrorType::WriteTimedout, "sending").into_up().into()),
            }
        }
        let within = attempt::response_time(&handler.gateway, forwarding);
        let answer = pin!(read_head(connection, forwarding.request().parsed(), self.client));
        match self.timer.within_since(since, within, answer).await {
            Some(answer) => answer,
            None => Err(attempt::response_overdue(&state.connection).into()),
        }
    }
}
