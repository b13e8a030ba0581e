//! The response on its way to the client, once its head was read: policy, body, trailers.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{StatusCode, header};
use pingora_core::{Error, ErrorType, Result};
use pingora_http::ResponseHeader;
use tokio::time::timeout;

use super::attempt_error::{client_disconnected, truncated};
use super::downstream::Downstream;
use super::upstream::ResponseSource;
use crate::policy::trailers;
use crate::proxy::attempt;
use crate::proxy::connection_handler::ConnectionHandler;
use crate::proxy::flow::Flow;
use crate::proxy::request_state::{Forwarding, RequestState};
use crate::wire::body::Part;

/// Sends a response to its end. `upload_failed`: the server did not take the whole request.
pub(super) async fn relay(
    handler: &ConnectionHandler,
    forwarding: &Forwarding,
    client: &mut impl Downstream,
    (mut source, mut answer): (ResponseSource, ResponseHeader),
    state: &mut RequestState,
    upload_failed: &AtomicBool,
) -> Result<ResponseSource> {
    if answer.status == StatusCode::SWITCHING_PROTOCOLS {
        // no upgrade was forwarded, not even a client's WebSocket handshake
        let why = "101 to a request that is not an upgrade";
        return Err(Error::explain(ErrorType::InvalidHTTPHeader, why).into_up());
    }
    attempt::on_response_head(&handler.gateway, forwarding, &answer, state)?.apply(&mut answer);
    let has_length = answer.headers.contains_key(header::CONTENT_LENGTH);
    answer.remove_header(&header::CONNECTION);
    let over = source.is_over() || source.is_bodiless();
    source.meanwhile(client.head(answer, over)).await.map_err(|_| client_disconnected())?;
    if over {
        source.drain().await;
        return Ok(source);
    }
    let mut flow = Flow::new(&handler.gateway, forwarding, has_length, state);
    {
        let idle = handler.gateway.config.limits.idle;
        let mut relayed = pin!(relay_body(client, &mut source, upload_failed, idle));
        loop {
            tokio::select! {
                biased;
                relayed = &mut relayed => break relayed,
                () = flow.due() => flow.register_if_due(),
            };
        }
    }?;
    Ok(source)
}

/// The body, and its trailers.
async fn relay_body(
    client: &mut impl Downstream,
    source: &mut ResponseSource,
    upload_failed: &AtomicBool,
    idle: Duration,
) -> Result<()> {
    let whole = loop {
        let part = tokio::select! {
            biased;
            part = timeout(idle, source.data()) => part,
            () = client.disconnected() => return Err(client_disconnected()),
        };
        let late = |_| Error::explain(ErrorType::ReadTimedout, "reading the response").into_up();
        let data = match part.map_err(late)?? {
            Part::Data(data) => data,
            Part::End(whole) => break whole,
        };
        if let Some(whole) = source.completed() {
            return client.last_data(data, whole).await.map_err(|_| client_disconnected());
        }
        source.meanwhile(client.data(data)).await.map_err(|_| client_disconnected())?;
    };
    if source.ends_with_connection() && upload_failed.load(Ordering::Relaxed) {
        return Err(truncated());
    }
    let late = |_| Error::explain(ErrorType::ReadTimedout, "reading the trailers").into_up();
    let trailers = timeout(idle, source.trailers()).await.map_err(late)??;
    client.end(whole, trailers.and_then(trailers::to_client)).await.map_err(|_| client_disconnected())
}
