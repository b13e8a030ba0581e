//! Replies of the gateway's own, and whether the connection is kept after one.

use bytes::BytesMut;
use http::{Method, Version, header};
use pingora_http::RequestHeader;

use super::client_connection::ClientConnection;
use crate::policy::{hsts, reply_head};
use crate::proxy::access_log::Counts;
use crate::proxy::client_disconnected::ClientDisconnected;
use crate::proxy::connection_handler::ConnectionHandler;
use crate::proxy::request_state::RequestState;
use crate::web::names::Names;
use crate::web::reply::Reply;
use crate::wire::response_head;
use crate::wire::stream::Stream;

/// What a request means for its connection.
pub(crate) enum ConnectionOutcome {
    /// Another request may follow.
    Keep,
    /// Another request may follow, and may have begun already: the client had its whole response before the server
    /// ended it.
    KeepPipelined,
    /// Frames follow. The server's connection, and the bytes after its 101.
    Tunnel(Stream, BytesMut),
    /// The response is written, with `Connection: close`.
    Linger,
    /// The client has disconnected, or the response was truncated.
    Closed,
}

/// Sends a reply, and keeps its status and bytes for the access log.
pub(crate) async fn send(
    handler: &ConnectionHandler,
    conn: &mut ClientConnection,
    mut reply: Reply,
    head: &RequestHeader,
    state: &RequestState,
    counts: &mut Counts,
) -> ConnectionOutcome {
    reply.close |= !keep_alive(handler, conn, head, state.field_names);
    let (close, bytes) = (reply.close, reply.body.len());
    counts.status = reply.status.as_u16();
    if write(handler, conn, reply, &head.method, &state.request_id).await.is_err() {
        return ConnectionOutcome::Closed;
    }
    counts.bytes_out = if head.method == Method::HEAD { 0 } else { bytes };
    if close { ConnectionOutcome::Linger } else { ConnectionOutcome::Keep }
}

/// Writes a reply.
pub(crate) async fn write(
    handler: &ConnectionHandler,
    conn: &mut ClientConnection,
    reply: Reply,
    method: &Method,
    request_id: &str,
) -> Result<(), ClientDisconnected> {
    let hsts = hsts::sends_hsts(&handler.gateway.config, conn.handle.tls().is_some());
    let Some(mut head) = reply_head::head_of(&reply, request_id, hsts) else { return Err(ClientDisconnected) };
    let mut out = Vec::with_capacity(1024 + reply.body.len());
    let bodiless = reply_head::is_bodiless(&reply) || *method == Method::HEAD;
    response_head::write_head(&mut head, reply.close, &mut out);
    if !bodiless {
        out.extend_from_slice(&reply.body);
    }
    conn.write(&out, handler.gateway.config.limits.idle).await
}

/// Whether the connection is kept after this request.
fn keep_alive(handler: &ConnectionHandler, conn: &ClientConnection, head: &RequestHeader, names: Names) -> bool {
    conn.buffer.is_empty() && keep_alive_allowed(handler, head, names)
}

/// The same, by the head alone. A proxy never keeps an HTTP/1.0 connection, whatever the client says (RFC 9112, 9.3).
pub(crate) fn keep_alive_allowed(handler: &ConnectionHandler, head: &RequestHeader, names: Names) -> bool {
    let closes = || names.may_have(b"connection") && asks_to_close(head);
    head.version == Version::HTTP_11 && !*handler.stopped.borrow() && !closes()
}

/// Whether a `Connection` field says `close`.
fn asks_to_close(head: &RequestHeader) -> bool {
    let lines = head.headers.get_all(header::CONNECTION).iter();
    let mut options = lines.flat_map(|line| line.as_bytes().split(|&b| b == b','));
    options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"))
}
