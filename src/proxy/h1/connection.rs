//! A client's connection in HTTP/1: reads each head strictly, once, and sends the request one of
//! three ways: a plain exchange, whose body is read whole first, one whose bodies are streamed, or a WebSocket
//! tunnel. All three ask the same rules (`Gateway::open`, `attempt.rs`, `access_log.rs`).

use std::future::{Future as _, poll_fn};
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use http::{Method, StatusCode};
use tokio::time::Instant;

use super::downstream::Conn;
use super::reply::ConnectionOutcome;
use super::request_body::{body_length, is_streamed};
use super::websocket_tunnel::Tunnel;
use super::{reply, streamed_downstream};
use crate::pages::word;
use crate::policy::normalize::Peer;
use crate::policy::oversized_head::{self, Oversize};
use crate::policy::refuse;
use crate::proxy::access_log::{self, Counts};
use crate::proxy::connection_handle::ConnectionHandle;
use crate::proxy::connection_handler::ConnectionHandler;
use crate::proxy::connection_limits::ConnectionPermit;
use crate::proxy::exchange::buffered;
use crate::proxy::gateway::Step;
use crate::proxy::request_state::RequestState;
use crate::proxy::{attempt, h2, page};
use crate::wire::head_error::BadHead;
use crate::wire::request_head::{self, Head};
use crate::wire::request_target;
use crate::wire::stream::Stream;

/// What a connection in HTTP/2 begins with, as far as it looks like a head (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";
/// How long a client that has connected before the gateway stops may take to begin its first request.
const FIRST_TIME: Duration = Duration::from_secs(1);

/// Whether a connection goes on after a request.
enum AfterRequest {
    Keep(Box<Conn>),
    Tunnel(Box<Tunnel>),
    Close,
}

/// Serves a connection to its end.
pub(crate) async fn serve(
    handler: ConnectionHandler,
    stream: Stream,
    address: Option<IpAddr>,
    permit: ConnectionPermit,
) {
    let connection = ConnectionHandle::new(address, None).at(permit.activity());
    let conn = Conn::new(stream, Arc::new(connection), handler.stopped.clone());
    serve_http1(handler, conn, permit).await;
}

/// One request after the other, in HTTP/1.
pub(crate) async fn serve_http1(mut handler: ConnectionHandler, mut conn: Box<Conn>, permit: ConnectionPermit) {
    let mut fresh = true;
    loop {
        permit.activity().idle();
        let head = match read_head(&handler, &mut conn, fresh).await {
            Ok(Some(head)) => head,
            Ok(None) => return,
            // whoever ends TLS in front of us may speak HTTP/2 from the first byte on (RFC 9113, 3.3)
            Err(_) if fresh && conn.buffer.starts_with(PREFACE) && is_trusted_proxy(&handler, &conn) => {
                let Conn { stream, buffer, handle, .. } = *conn;
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

/// Waits for a head; `None` when the client has gone, was idle too long or sent empty lines alone, or the gateway stops
/// (a client that is `fresh` may still ask).
async fn read_head(handler: &ConnectionHandler, conn: &mut Conn, fresh: bool) -> Result<Option<Box<Head>>, BadHead> {
    let limits = &handler.gateway.config.limits;
    let (mut due, mut leaving, mut seen) = (None, None, 0);
    loop {
        let blank = request_head::blank_lines(&conn.buffer);
        conn.buffer.advance(blank);
        if !conn.buffer.is_empty() {
            match request_head::read(&conn.buffer, seen, limits) {
                request_head::Read::Whole(head) => return Ok(Some(head.take(&mut conn.buffer)?)),
                request_head::Read::Bad(bad) => return Err(bad),
                request_head::Read::Partial => seen = conn.buffer.len(),
            }
        }
        if blank > 0 || !conn.buffer.is_empty() {
            due.get_or_insert_with(|| Instant::now() + limits.head_time);
        }
        let by = due.or(leaving);
        let time = by.map_or(limits.keep_alive, |by| by.saturating_duration_since(Instant::now()));
        let Conn { stream, buffer, deadline, stopped, served, .. } = &mut *conn;
        let since = served.filter(|_| by.is_none());
        let came = {
            let mut read = pin!(stream.read_on(buffer));
            let read = poll_fn(|cx| {
                if let Poll::Ready(read) = read.as_mut().poll(cx) {
                    return Poll::Ready(Some(matches!(read, Ok(1..))));
                }
                if by.is_some() { Poll::Pending } else { stopped.poll(cx).map(|()| None) }
            });
            deadline.within_since(since, time, pin!(read)).await
        };
        match came {
            Some(Some(true)) => {}
            Some(None) if fresh => leaving = Some(Instant::now() + FIRST_TIME),
            // whoever has begun a head is told why it ends here (RFC 9110, 15.5.9)
            None if due.is_some() && conn.buffer.len() > 1 => return Err(BadHead::TooSlow),
            _ => return Ok(None),
        }
    }
}

fn is_trusted_proxy(handler: &ConnectionHandler, conn: &Conn) -> bool {
    conn.handle.secured().is_none() && Peer::new(conn.handle.address(), false, &handler.gateway.config.server).trusted
}

async fn reject_malformed_head(handler: &ConnectionHandler, mut conn: Box<Conn>, bad: BadHead) {
    let (request_id, mut why) = (handler.gateway.fresh_id(), None);
    let site = request_head::wants_page(&conn.buffer).then_some(&*handler.gateway.pages);
    let seen = Oversize::of_bytes(&conn.buffer, &handler.gateway.config.server.prefix);
    let reply = oversized_head::bad_head(bad, &request_id, &mut why, site, &seen);
    let client = (conn.handle.address(), seen.host.as_str());
    access_log::unread(&handler.gateway, client, reply.status.as_u16(), &request_id, why);
    let _ = reply::write(handler, &mut conn, reply, &Method::GET, &request_id).await;
    conn.linger().await;
}

/// Serves one request and writes its access line.
async fn serve_one(handler: &ConnectionHandler, mut conn: Box<Conn>, mut head: Box<Head>) -> AfterRequest {
    let mut state = RequestState::new(handler.gateway.fresh_id());
    state.connection = Some(conn.handle.clone());
    let mut counts = Counts { status: 0, bytes_in: 0, bytes_out: 0 };
    let head_bytes = head.bytes.len();
    let step = handler.gateway.open(&mut head.parsed, head_bytes, &mut state);
    let names = state.names();
    let length = if names.may_have(b"content-length") { body_length(&head.parsed) } else { 0 };
    let streams = is_streamed(&head.parsed, names, length)
        || (matches!(step, Step::Forward) && attempt::requires_h2(&handler.gateway, &state));
    if streams && state.upgrade.take().is_some() {
        // a body that is still on its way would be frames
        state.live = None;
    }
    let end = if streams {
        // apart, as pages and TLS handshakes with servers are: every connection is as large as the largest thing it may wait for
        Box::pin(streamed_downstream::stream(handler, &mut conn, step, &head.parsed, &mut state, &mut counts)).await
    } else {
        serve_buffered(handler, &mut conn, step, (&head, length), &mut state, &mut counts).await
    };
    if let ConnectionOutcome::Tunnel(server, first) = end {
        let gateway = handler.gateway.clone();
        let tunnel = Tunnel::new(gateway, *conn, (server, &first), &head.parsed, state, counts);
        return tunnel.map_or(AfterRequest::Close, |tunnel| AfterRequest::Tunnel(Box::new(tunnel)));
    }
    // from here on nobody closes the connection: it may go on with somebody else's request
    (state.live, state.call) = (None, None);
    let closed = conn.handle.reason();
    state.why = closed.or(state.why);
    let over = access_log::record(&handler.gateway, &head.parsed, request_target::of(&head.parsed), &state, &counts);
    conn.served = Some(Instant::from_std(over));
    match end {
        ConnectionOutcome::Keep if conn.buffer.is_empty() && closed.is_none() => AfterRequest::Keep(conn),
        ConnectionOutcome::Next if closed.is_none() => AfterRequest::Keep(conn),
        // bytes behind a request that is not over are nobody's: they are never answered
        ConnectionOutcome::Keep | ConnectionOutcome::Next | ConnectionOutcome::Linger => {
            conn.linger().await;
            AfterRequest::Close
        }
        ConnectionOutcome::Closed | ConnectionOutcome::Tunnel(..) => AfterRequest::Close,
    }
}

/// Reads the whole body, and then answers.
async fn serve_buffered(
    handler: &ConnectionHandler,
    conn: &mut Conn,
    step: Step,
    (head, length): (&Head, u64),
    state: &mut RequestState,
    counts: &mut Counts,
) -> ConnectionOutcome {
    let length = if matches!(&step, Step::Reply(reply) if reply.close) { 0 } else { length };
    match conn.read_body(length).await {
        Ok(body) => {
            counts.bytes_in = body.len();
            respond_or_forward(handler, conn, step, head, body, state, counts).await
        }
        Err(Some(code)) => {
            (state.outcome, state.why) = ("bad_request", Some(word(code)));
            let reply = refuse::unread(code, &state.request_id);
            reply::send(handler, conn, reply, &head.parsed, state, counts).await
        }
        Err(None) => {
            state.outcome = "client_gone";
            ConnectionOutcome::Closed
        }
    }
}

async fn respond_or_forward(
    handler: &ConnectionHandler,
    conn: &mut Conn,
    step: Step,
    head: &Head,
    body: Bytes,
    state: &mut RequestState,
    counts: &mut Counts,
) -> ConnectionOutcome {
    let reply = match step {
        Step::Forward => return buffered::exchange(handler, conn, head, body, state, counts).await,
        Step::Reply(reply) => reply,
        Step::Page(page) => {
            let fits = body.len() <= handler.gateway.config.limits.form_bytes;
            let body = if fits { Ok(body) } else { Err(StatusCode::PAYLOAD_TOO_LARGE) };
            Box::pin(page::answer(&handler.gateway, page, &head.parsed, body, state)).await
        }
    };
    reply::send(handler, conn, state.cors.dress(reply), &head.parsed, state, counts).await
}
