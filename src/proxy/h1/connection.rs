//! A client's connection in HTTP/1: reads each head strictly, once, and serves the request in one of three ways: an exchange
//! whose body is read whole first, an exchange with streamed bodies, or a WebSocket tunnel. All three use the same rules
//! (`Gateway::decide_request`, `attempt.rs`, `access_log.rs`).

use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use http::{Method, StatusCode};
use pingora_http::RequestHeader;
use tokio::time::Instant;

use super::client_connection::ClientConnection;
use super::reply::ConnectionOutcome;
use super::request_body::{body_length, is_streamed};
use super::websocket_tunnel::Tunnel;
use super::{buffered_downstream, reply, streamed_downstream};
use crate::pages::Page;
use crate::policy::forwarding::Forwarding;
use crate::policy::normalize::{NormalRequest, Peer};
use crate::policy::oversized_head::{self, Oversize};
use crate::policy::reasons::{Outcome, Reason};
use crate::policy::refuse;
use crate::proxy::access_log::{self, Counts};
use crate::proxy::connection_handler::ConnectionHandler;
use crate::proxy::connection_limits::ConnectionPermit;
use crate::proxy::request_state::{Decision, RequestState, Step, Subject};
use crate::proxy::{attempt, h2, own_page, unknown_credentials};
use crate::wire::head_error::BadHead;
use crate::wire::request_head::{self, Head};

/// The start of the HTTP/2 preface, as far as it looks like a head (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";
/// Time for the first request of a client that has connected before the gateway stops.
const FIRST_TIME: Duration = Duration::from_secs(1);

/// What a connection does after a request.
enum AfterRequest {
    Keep(Box<ClientConnection>),
    Tunnel(Box<Tunnel>),
    Close,
}

/// Serves one request after the other.
pub(crate) async fn serve_http1(
    mut handler: ConnectionHandler,
    mut conn: Box<ClientConnection>,
    permit: ConnectionPermit,
) {
    let mut fresh = true;
    loop {
        permit.activity().idle();
        let head = match read_head(&handler, &mut conn, fresh).await {
            Ok(Some(head)) => head,
            Ok(None) => return,
            // a proxy that terminates TLS may use HTTP/2 from the first byte (RFC 9113, 3.3)
            Err(_) if fresh && conn.buffer.starts_with(PREFACE) && is_trusted_proxy(&handler, &conn) => {
                let ClientConnection { stream, buffer, handle, .. } = *conn;
                return Box::pin(h2::connection::serve_h2(handler, stream, buffer, handle, permit)).await;
            }
            Err(bad) => return reject_malformed_head(&handler, conn, bad).await,
        };
        if !permit.activity().busy() {
            return;
        }
        fresh = false;
        handler.refresh();
        match serve_one(&handler, conn, head).await {
            AfterRequest::Keep(kept) => conn = kept,
            AfterRequest::Tunnel(tunnel) => {
                permit.activity().leave_task();
                return drop(tokio::spawn(tunnel.run(permit)));
            }
            AfterRequest::Close => return,
        }
    }
}

/// Waits for a head; `None` when the client has disconnected, was idle too long or sent only empty lines, or the gateway stops
/// (a `fresh` client may still send its first request).
async fn read_head(
    handler: &ConnectionHandler,
    conn: &mut ClientConnection,
    fresh: bool,
) -> Result<Option<Box<Head>>, BadHead> {
    let limits = &handler.gateway.config.limits;
    let (mut due, mut leaving, mut seen) = (None, None, 0);
    loop {
        let blank = request_head::blank_lines(&conn.buffer);
        conn.buffer.advance(blank);
        if !conn.buffer.is_empty() {
            match request_head::read(&conn.buffer, seen, limits) {
                request_head::Read::Complete(head) => return Ok(Some(head.take(&mut conn.buffer)?)),
                request_head::Read::Bad(bad) => return Err(bad),
                request_head::Read::Partial => seen = conn.buffer.len(),
            }
        }
        if blank > 0 || !conn.buffer.is_empty() {
            due.get_or_insert_with(|| Instant::now() + limits.head_time);
        }
        let by = due.or(leaving);
        let time = by.map_or(limits.keep_alive, |by| by.saturating_duration_since(Instant::now()));
        let ClientConnection { stream, buffer, deadline, stopped, served, .. } = &mut *conn;
        let since = served.filter(|_| by.is_none());
        let received = {
            let mut read = pin!(stream.read_on(buffer));
            let read = poll_fn(|cx| {
                if let Poll::Ready(read) = read.as_mut().poll(cx) {
                    return Poll::Ready(Some(matches!(read, Ok(1..))));
                }
                if by.is_some() { Poll::Pending } else { stopped.poll(cx).map(|()| None) }
            });
            deadline.within_since(since, time, pin!(read)).await
        };
        match received {
            Some(Some(true)) => {}
            Some(None) if fresh => leaving = Some(Instant::now() + FIRST_TIME),
            // a client that has begun a head gets a 408 (RFC 9110, 15.5.9)
            None if due.is_some() && conn.buffer.len() > 1 => return Err(BadHead::TooSlow),
            _ => return Ok(None),
        }
    }
}

fn is_trusted_proxy(handler: &ConnectionHandler, conn: &ClientConnection) -> bool {
    conn.handle.tls().is_none() && Peer::new(conn.handle.address(), false, &handler.gateway.config.server).trusted
}

async fn reject_malformed_head(handler: &ConnectionHandler, mut conn: Box<ClientConnection>, bad: BadHead) {
    let request_id = handler.gateway.fresh_id();
    let site = request_head::wants_page(&conn.buffer).then_some(&*handler.gateway.pages);
    let seen = Oversize::of_bytes(&conn.buffer, &handler.gateway.config.server.prefix);
    let reply = oversized_head::bad_head(bad, &request_id, site, &seen);
    let client = (conn.handle.address(), seen.host.as_str());
    access_log::unread(&handler.gateway, client, reply.status.as_u16(), &request_id, Reason::Head(bad));
    let _ = reply::write(handler, &mut conn, reply, &Method::GET, &request_id).await;
    conn.linger().await;
}

/// Serves one request and writes its access line.
async fn serve_one(handler: &ConnectionHandler, mut conn: Box<ClientConnection>, head: Box<Head>) -> AfterRequest {
    let mut state = RequestState::new(conn.handle.clone(), handler.gateway.fresh_id());
    let mut counts = Counts { status: 0, bytes_in: 0, bytes_out: 0 };
    let head_bytes = head.bytes.len();
    let decision = match handler.gateway.decide_request(head, head_bytes, &mut state) {
        Step::Decided(decision) => decision,
        // boxed: see `forward`
        waiting => Box::pin(unknown_credentials::settle(&handler.gateway, waiting, &mut state)).await,
    };
    let length = if state.field_names.may_have(b"content-length") { body_length(decision.parsed()) } else { 0 };
    let streams = is_streamed(decision.parsed(), state.field_names, length);
    let (outcome, subject) = match decision {
        Decision::Forward(mut forwarding) => {
            let outcome = forward(handler, &mut conn, &mut forwarding, (streams, length), &mut state, &mut counts);
            match outcome.await {
                ConnectionOutcome::Tunnel(server, first) => {
                    let gateway = handler.gateway.clone();
                    let tunnel = Tunnel::new(gateway, *conn, (server, &first), *forwarding, state, counts);
                    return AfterRequest::Tunnel(Box::new(tunnel));
                }
                outcome => (outcome, Subject::Forwarded(forwarding)),
            }
        }
        Decision::Page(page, request) => {
            let shown = show_page(handler, &mut conn, page, &request, (streams, length), &mut state, &mut counts);
            (shown.await, Subject::Normal(request))
        }
        Decision::Reply(reply, subject) => {
            let skips = streams || reply.close;
            let reply = if streams { reply.closing() } else { reply };
            let head = subject.parsed();
            let body =
                read_body(handler, &mut conn, if skips { 0 } else { length }, head, &mut state, &mut counts).await;
            let outcome = match body {
                Ok(_) => reply::send(handler, &mut conn, state.cors.dress(reply), head, &state, &mut counts).await,
                Err(outcome) => outcome,
            };
            (outcome, subject)
        }
    };
    // nothing closes the connection from here on: another request may follow
    (state.live_entry, state.grpc_entry) = (None, None);
    let closed = conn.handle.reason();
    state.reason = closed.or(state.reason);
    let over = access_log::record(&handler.gateway, subject.parsed(), subject.facts(), &state, &counts);
    conn.served = Some(Instant::from_std(over));
    match outcome {
        ConnectionOutcome::Keep if conn.buffer.is_empty() && closed.is_none() => AfterRequest::Keep(conn),
        ConnectionOutcome::KeepPipelined if closed.is_none() => AfterRequest::Keep(conn),
        // bytes behind a request that is not over are never answered
        ConnectionOutcome::Keep | ConnectionOutcome::KeepPipelined | ConnectionOutcome::Linger => {
            conn.linger().await;
            AfterRequest::Close
        }
        ConnectionOutcome::Closed | ConnectionOutcome::Tunnel(..) => AfterRequest::Close,
    }
}

/// Forwards a request, whose body `streams` or has this length.
async fn forward(
    handler: &ConnectionHandler,
    conn: &mut ClientConnection,
    forwarding: &mut Forwarding,
    (streams, length): (bool, u64),
    state: &mut RequestState,
    counts: &mut Counts,
) -> ConnectionOutcome {
    if streams || attempt::requires_h2(&handler.gateway, forwarding) {
        if forwarding.remove_upgrade() {
            // a body that is still being received would be taken for frames
            state.live_entry = None;
        }
        // boxed, as pages and TLS handshakes with servers are: every connection is as large as the largest future that it may wait for
        return Box::pin(streamed_downstream::forward(handler, conn, forwarding, state, counts)).await;
    }
    match read_body(handler, conn, length, forwarding.request().parsed(), state, counts).await {
        Ok(body) => buffered_downstream::forward(handler, conn, forwarding, body, state, counts).await,
        Err(outcome) => outcome,
    }
}

/// Answers with one of the gateway's own pages.
async fn show_page(
    handler: &ConnectionHandler,
    conn: &mut ClientConnection,
    page: Page,
    request: &NormalRequest,
    (streams, length): (bool, u64),
    state: &mut RequestState,
    counts: &mut Counts,
) -> ConnectionOutcome {
    let head = request.parsed();
    let body = if streams {
        let body = Box::pin(streamed_downstream::form(handler, conn, page, head)).await;
        counts.bytes_in = body.as_ref().map_or(0, Bytes::len);
        body
    } else {
        match read_body(handler, conn, length, head, state, counts).await {
            Ok(body) if body.len() <= handler.gateway.config.limits.form_bytes => Ok(body),
            Ok(_) => Err(StatusCode::PAYLOAD_TOO_LARGE),
            Err(outcome) => return outcome,
        }
    };
    let unread = streams && body.as_ref().map_or(true, Bytes::is_empty);
    let reply = Box::pin(own_page::answer(&handler.gateway, page, request, body, state)).await;
    let reply = if unread { reply.closing() } else { reply };
    reply::send(handler, conn, state.cors.dress(reply), head, state, counts).await
}

/// Reads the whole body; `Err` where there is none, and the client has its answer.
async fn read_body(
    handler: &ConnectionHandler,
    conn: &mut ClientConnection,
    length: u64,
    head: &RequestHeader,
    state: &mut RequestState,
    counts: &mut Counts,
) -> Result<Bytes, ConnectionOutcome> {
    match conn.read_body(length).await {
        Ok(body) => {
            counts.bytes_in = body.len();
            Ok(body)
        }
        Err(Some(code)) => {
            (state.outcome, state.reason) = (Outcome::BadRequest, Some(Reason::Status(code)));
            let reply = refuse::unread(code, &state.request_id);
            Err(reply::send(handler, conn, reply, head, state, counts).await)
        }
        Err(None) => {
            state.outcome = Outcome::ClientGone;
            Err(ConnectionOutcome::Closed)
        }
    }
}
