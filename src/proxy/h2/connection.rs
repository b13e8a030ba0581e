//! HTTP/2 connections (RFC 9113): the `h2` crate handles frames; the number of streams, the end of a connection and each
//! stream's request are handled here. A stream's head becomes the head of the same request in HTTP/1.1, and all rules apply alike.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::Reason;
use h2::server::{Builder, Connection};
use tokio::time::timeout;

use super::stream;
use super::stream_budget::{Running, StreamBudget};
use crate::proxy::connection_activity::ConnectionActivity;
use crate::proxy::connection_handle::ConnectionHandle;
use crate::proxy::connection_handler::ConnectionHandler;
use crate::proxy::connection_limits::ConnectionPermit;
use crate::wire::h2_pacing::PacedStream;
use crate::wire::stream::Stream;

/// Open streams of one client connection.
const STREAMS: u32 = 100;
/// A head's fields, unpacked, with 32 bytes for each (RFC 9113, 6.5.2), or twice `limits.head_bytes` where that is more.
const FIELD_BYTES: u32 = 64 << 10;
/// Bytes that a client may send ahead: on one stream, and on all.
const STREAM_WINDOW: u32 = 128 << 10;
const WINDOW: u32 = 256 << 10;
/// Bytes buffered for one stream while its client opens its window and reads nothing.
const SENT_MAX: usize = 32 << 10;
/// How long a connection that is ending waits for its client.
const LINGER: Duration = Duration::from_secs(1);

/// Serves a connection to its end; `begun` are the bytes read already.
pub(crate) async fn serve_h2(
    handler: ConnectionHandler,
    stream: Stream,
    begun: BytesMut,
    handle: Arc<ConnectionHandle>,
    permit: ConnectionPermit,
) {
    let limits = handler.gateway.config.limits.clone();
    let head_time = limits.head_time;
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(FIELD_BYTES.max(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX).saturating_mul(2)))
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_send_buffer_size(SENT_MAX);
    let (stream, pace) = PacedStream::downstream(stream, begun, head_time);
    let work = async {
        if let Ok(Ok(connection)) = timeout(head_time, builder.handshake::<_, Bytes>(stream)).await {
            serve_streams(handler, connection, &handle, permit.activity()).await;
        }
    };
    pace.keep(Box::pin(work)).await;
}

async fn serve_streams(
    mut handler: ConnectionHandler,
    mut connection: Connection<PacedStream, Bytes>,
    handle: &ConnectionHandle,
    activity: &Arc<ConnectionActivity>,
) {
    let keep_alive = handler.gateway.config.limits.keep_alive;
    let stream_budget = Arc::new(StreamBudget::new(activity));
    let mut stopped = handler.stopped.clone();
    let mut ending = false;
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stopped.wait_for(|stopped| *stopped), if !ending => None,
            accepted = connection.accept() => Some(accepted),
            () = stream_budget.quiet_for(if ending { LINGER } else { keep_alive }) => None,
        };
        match accepted {
            Some(Some(Ok((request, respond)))) => {
                if stream_budget.is_exhausted() {
                    return goaway_calm(connection).await;
                }
                let running = Running::new(&stream_budget);
                if activity.is_evicted() {
                    return;
                }
                let call =
                    stream::serve(handler.for_request(), request, respond, handle.for_stream(), stream_budget.clone());
                // a task's future is moved several times, and is large
                let call = Box::pin(call);
                tokio::spawn(async move { running.end(call.await) });
            }
            Some(_) => return,
            None if ending => return,
            None => {
                connection.graceful_shutdown();
                ending = true;
            }
        }
    }
}

/// Ends the connection with all its streams: GOAWAY with ENHANCE_YOUR_CALM.
async fn goaway_calm(mut connection: Connection<PacedStream, Bytes>) {
    connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
    let _ = timeout(LINGER, async { while connection.accept().await.is_some_and(|next| next.is_ok()) {} }).await;
}
