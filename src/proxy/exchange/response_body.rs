//! The response on its way to the client, once its head was read: policy, body, trailers. This is the one loop for all bodies,
//! whichever versions of HTTP both sides use; how bytes are written is up to the [`Downstream`].

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::StatusCode;
use pingora_core::{Error, ErrorType, Result};

use super::attempt_error::{client_disconnected, truncated};
use super::downstream::Downstream;
use super::upstream::{RequestSink, ResponseSource};
use crate::policy::forwarding::Forwarding;
use crate::policy::trailers;
use crate::proxy::attempt;
use crate::proxy::client_disconnected::ClientDisconnected;
use crate::proxy::connection_handler::ConnectionHandler;
use crate::proxy::connection_reuse::{self, uses_connection_auth};
use crate::proxy::flow::Flow;
use crate::proxy::request_state::RequestState;
use crate::upstream::h1_pool::Surplus;
use crate::upstream::targets::Target;
use crate::wire::body::Part;
use crate::wire::deadline::Deadline;
use crate::wire::response_view::ResponseHeadView as _;

/// Sends a response to its end. `upload_failed`: the server did not take the whole request.
pub(super) async fn relay<D: Downstream>(
    handler: &ConnectionHandler,
    forwarding: &Forwarding,
    (client, timer): (&mut D, &mut Deadline),
    (source, head): (&mut ResponseSource, D::Head),
    state: &mut RequestState,
    upload_failed: &AtomicBool,
) -> Result<()> {
    if head.status() == StatusCode::SWITCHING_PROTOCOLS && !D::CAN_SWITCH {
        // no upgrade was forwarded, not even a client's WebSocket handshake
        let why = "101 to a request that is not an upgrade";
        return Err(Error::explain(ErrorType::InvalidHTTPHeader, why).into_up());
    }
    let policy = attempt::on_response_head(&handler.gateway, forwarding, &head, state)?;
    let has_length = head.has_length();
    let over = source.is_over() || source.is_bodiless();
    source.meanwhile(pin!(client.head(head, policy, over, timer))).await.map_err(disconnected)?;
    if over {
        source.drain().await;
        return Ok(());
    }
    let mut flow = Flow::new(&handler.gateway, forwarding, has_length, state);
    let idle = handler.gateway.config.limits.idle;
    let mut relayed = pin!(relay_body(client, source, upload_failed, (idle, timer)));
    loop {
        tokio::select! {
            biased;
            relayed = &mut relayed => return relayed,
            () = flow.due() => flow.register_if_due(),
        };
    }
}

/// The body, and its trailers.
async fn relay_body(
    client: &mut impl Downstream,
    source: &mut ResponseSource,
    upload_failed: &AtomicBool,
    (idle, timer): (Duration, &mut Deadline),
) -> Result<()> {
    let complete = loop {
        let part = if let Some(part) = source.buffered()? {
            part
        } else {
            client.flush(timer).await.map_err(disconnected)?;
            next_part(client, source, (idle, timer)).await?
        };
        let data = match part {
            Part::Data(data) => data,
            Part::End(complete) => break complete,
        };
        if let Some(complete) = source.completed() {
            return client.last_data(data, complete, timer).await.map_err(disconnected);
        }
        source.meanwhile(pin!(client.data(data, timer))).await.map_err(disconnected)?;
    };
    if source.ends_with_connection() && upload_failed.load(Ordering::Relaxed) {
        return Err(truncated());
    }
    let trailers = timer.within(idle, pin!(source.trailers())).await;
    let trailers = trailers.unwrap_or_else(|| Err(too_late("reading the trailers")))?;
    client.end(complete, trailers.and_then(trailers::to_client), timer).await.map_err(disconnected)
}

/// Waits for more of the body.
async fn next_part(
    client: &mut impl Downstream,
    source: &mut ResponseSource,
    (idle, timer): (Duration, &mut Deadline),
) -> Result<Part> {
    let more = async {
        tokio::select! {
            biased;
            part = source.data() => part,
            () = client.disconnected() => Err(client_disconnected()),
        }
    };
    timer.within(idle, pin!(more)).await.unwrap_or_else(|| Err(too_late("reading the response")))
}

#[expect(clippy::unnecessary_box_returns, reason = "pingora's errors are boxed")]
fn disconnected(_: ClientDisconnected) -> Box<Error> {
    client_disconnected()
}

#[expect(clippy::unnecessary_box_returns, reason = "pingora's errors are boxed")]
fn too_late(what: &'static str) -> Box<Error> {
    Error::explain(ErrorType::ReadTimedout, what).into_up()
}

/// Keeps the connection of a response that was sent to its end, if it may be used again. `sink` is its writing side, unless
/// `source` is all of it.
pub(super) fn release(
    handler: &ConnectionHandler,
    forwarding: &Forwarding,
    (target, needs_probe): (&Target, bool),
    (source, sink): (ResponseSource, Option<RequestSink>),
    state: &RequestState,
) {
    match source.reusable(sink) {
        Ok(Some(connection)) if !uses_connection_auth(&forwarding.request().parsed().headers, state.field_names) => {
            connection_reuse::keep(&handler.gateway, target, connection, needs_probe);
        }
        Ok(_) => {}
        Err(Surplus) => connection_reuse::distrust(&handler.gateway, target, state),
    }
}
