//! A client's connection in HTTP/1: reads each head strictly, once, and sends the request one of
//! three ways: a plain exchange, whose body is read whole first, one whose bodies are streamed, or a WebSocket
//! tunnel. All three ask the same rules (`Gateway::open`, `attempt.rs`, `access_log.rs`).

use std::future::{Future as _, poll_fn};
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use http::{Method, StatusCode, Version, header};
use pingora_core::server::ShutdownWatch;
use pingora_http::RequestHeader;
use tokio::time::Instant;

use super::downstream::Conn;
use super::websocket_tunnel::Tunnel;
use crate::pages::word;
use crate::policy::normalize::Peer;
use crate::policy::oversized_head::{self, Oversize};
use crate::policy::{hsts, refuse, reply_head};
use crate::proxy::access_log::{self, Counts};
use crate::proxy::assemble::Current;
use crate::proxy::client_gone::Gone;
use crate::proxy::connection_handle::Guard;
use crate::proxy::connection_limits::Counted;
use crate::proxy::gateway::{Gateway, Step};
use crate::proxy::request_state::RequestState;
use crate::upstream::tls::Connector;
use crate::web::names::Names;
use crate::web::reply::Reply;
use crate::wire::head_error::BadHead;
use crate::wire::request_head::{self, Head};
use crate::wire::stream::Wire;
use crate::wire::{request_target, response_head};

/// Bodies up to this size are read whole before they are sent on; larger ones are streamed.
pub(crate) const BODY_MAX: u64 = 64 << 10;
/// What a connection in HTTP/2 begins with, as far as it looks like a head (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";
/// How long a client that has connected before the gateway stops may take to begin its first request.
const FIRST_TIME: Duration = Duration::from_secs(1);

/// Serves connections; one for each thread.
#[derive(Clone)]
pub(crate) struct Front {
    current: Current,
    /// The one that the request under way began with.
    pub(crate) gateway: Gateway,
    pub(crate) connector: Connector,
    pub(crate) stopped: ShutdownWatch,
}

/// Whether a connection goes on after a request.
enum Next {
    Keep(Box<Conn>),
    Tunnel(Box<Tunnel>),
    End,
}

impl Front {
    /// `stopped` says when the gateway stops.
    pub(crate) fn new(current: Current, stopped: ShutdownWatch) -> Self {
        Self { connector: Connector::new(), gateway: current.gateway(), current, stopped }
    }

    /// Another one, for a connection or a stream that begins now.
    pub(crate) fn for_request(&mut self) -> Self {
        self.current.refresh(&mut self.gateway);
        self.clone()
    }

    /// Counts a connection; `None`: there are too many. `address` is the other end's; `None` on a Unix socket.
    pub(crate) fn admit(&self, address: Option<IpAddr>) -> Option<Counted> {
        self.gateway.connections.admit(address, &self.gateway.config)
    }

    /// Serves a connection to its end.
    pub(crate) async fn serve(self, wire: Wire, address: Option<IpAddr>, counted: Counted) {
        let guard = Guard::new(address, None).at(counted.spot());
        let conn = Conn::new(wire, Arc::new(guard), self.stopped.clone());
        self.converse(conn, counted).await;
    }

    /// One request after the other, in HTTP/1.
    pub(crate) async fn converse(mut self, mut conn: Box<Conn>, counted: Counted) {
        let mut fresh = true;
        loop {
            counted.spot().idle();
            let head = match self.read_head(&mut conn, fresh).await {
                Ok(Some(head)) => head,
                Ok(None) => return,
                // whoever ends TLS in front of us may speak HTTP/2 from the first byte on (RFC 9113, 3.3)
                Err(_) if fresh && conn.buffer.starts_with(PREFACE) && self.is_trusted_proxy(&conn) => {
                    let Conn { wire, buffer, guard, .. } = *conn;
                    return Box::pin(self.serve_h2(wire, buffer, guard, counted)).await;
                }
                Err(bad) => return self.refuse_unread(conn, bad).await,
            };
            if !counted.spot().busy() {
                return;
            }
            fresh = false;
            self.current.refresh(&mut self.gateway);
            match self.serve_one(conn, head).await {
                Next::Keep(kept) => conn = kept,
                Next::Tunnel(tunnel) => {
                    counted.spot().leave_task();
                    return drop(tokio::spawn(tunnel.run(counted)));
                }
                Next::End => return,
            }
        }
    }

    /// Waits for a head; `None` when the client has gone, was idle too long or sent empty lines alone, or the gateway stops
    /// (a client that is `fresh` may still ask).
    async fn read_head(&self, conn: &mut Conn, fresh: bool) -> Result<Option<Box<Head>>, BadHead> {
        let limits = &self.gateway.config.limits;
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
            let Conn { wire, buffer, deadline, stopped, served, .. } = &mut *conn;
            let since = served.filter(|_| by.is_none());
            let came = {
                let mut read = pin!(wire.read_on(buffer));
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

    fn is_trusted_proxy(&self, conn: &Conn) -> bool {
        conn.guard.secured().is_none() && Peer::new(conn.guard.address(), false, &self.gateway.config.server).trusted
    }

    async fn refuse_unread(&self, mut conn: Box<Conn>, bad: BadHead) {
        let (request_id, mut why) = (self.gateway.fresh_id(), None);
        let site = request_head::wants_page(&conn.buffer).then_some(&*self.gateway.pages);
        let seen = Oversize::of_bytes(&conn.buffer, &self.gateway.config.server.prefix);
        let reply = oversized_head::bad_head(bad, &request_id, &mut why, site, &seen);
        let client = (conn.guard.address(), seen.host.as_str());
        access_log::unread(&self.gateway, client, reply.status.as_u16(), &request_id, why);
        let _ = self.write_reply(&mut conn, reply, &Method::GET, &request_id).await;
        conn.linger().await;
    }

    /// Serves one request and writes its access line.
    async fn serve_one(&self, mut conn: Box<Conn>, mut head: Box<Head>) -> Next {
        let mut state = self.gateway.new_state();
        state.guard = Some(conn.guard.clone());
        let mut counts = Counts { status: 0, bytes_in: 0, bytes_out: 0 };
        let head_bytes = head.bytes.len();
        let step = self.gateway.open(&mut head.parsed, head_bytes, &mut state);
        let names = state.names();
        let length = if names.may_have(b"content-length") { body_length(&head.parsed) } else { 0 };
        let streams =
            is_streamed(&head.parsed, names, length) || (matches!(step, Step::Forward) && self.gateway.asks_h2(&state));
        if streams && state.upgrade.take().is_some() {
            // a body that is still on its way would be frames
            state.live = None;
        }
        let end = if streams {
            // apart, as pages and TLS handshakes with servers are: every connection is as large as the largest thing it may wait for
            Box::pin(self.stream(&mut conn, step, &head.parsed, &mut state, &mut counts)).await
        } else {
            self.at_once(&mut conn, step, (&head, length), &mut state, &mut counts).await
        };
        if let End::Tunnel(server, first) = end {
            let gateway = self.gateway.clone();
            let tunnel = Tunnel::new(gateway, *conn, (server, &first), &head.parsed, state, counts);
            return tunnel.map_or(Next::End, |tunnel| Next::Tunnel(Box::new(tunnel)));
        }
        // from here on nobody closes the connection: it may go on with somebody else's request
        (state.live, state.call) = (None, None);
        let closed = conn.guard.reason();
        state.why = closed.or(state.why);
        let over = access_log::record(&self.gateway, &head.parsed, request_target::of(&head.parsed), &state, &counts);
        conn.served = Some(Instant::from_std(over));
        match end {
            End::Keep if conn.buffer.is_empty() && closed.is_none() => Next::Keep(conn),
            End::Next if closed.is_none() => Next::Keep(conn),
            // bytes behind a request that is not over are nobody's: they are never answered
            End::Keep | End::Next | End::Linger => {
                conn.linger().await;
                Next::End
            }
            End::Closed | End::Tunnel(..) => Next::End,
        }
    }

    /// Reads the whole body, and then answers.
    async fn at_once(
        &self,
        conn: &mut Conn,
        step: Step,
        (head, length): (&Head, u64),
        state: &mut RequestState,
        counts: &mut Counts,
    ) -> End {
        let length = if matches!(&step, Step::Reply(reply) if reply.close) { 0 } else { length };
        match conn.read_body(length).await {
            Ok(body) => {
                counts.bytes_in = body.len();
                self.carry_on(conn, step, head, body, state, counts).await
            }
            Err(Some(code)) => {
                (state.outcome, state.why) = ("bad_request", Some(word(code)));
                let reply = refuse::unread(code, &state.request_id);
                self.reply(conn, reply, &head.parsed, state, counts).await
            }
            Err(None) => {
                state.outcome = "client_gone";
                End::Closed
            }
        }
    }

    async fn carry_on(
        &self,
        conn: &mut Conn,
        step: Step,
        head: &Head,
        body: Bytes,
        state: &mut RequestState,
        counts: &mut Counts,
    ) -> End {
        let reply = match step {
            Step::Forward => return self.exchange(conn, head, body, state, counts).await,
            Step::Reply(reply) => reply,
            Step::Page(page) => {
                let fits = body.len() <= self.gateway.config.limits.form_bytes;
                let body = if fits { Ok(body) } else { Err(StatusCode::PAYLOAD_TOO_LARGE) };
                Box::pin(self.gateway.page(page, &head.parsed, body, state)).await
            }
        };
        self.reply(conn, state.cors.dress(reply), &head.parsed, state, counts).await
    }

    pub(crate) async fn reply(
        &self,
        conn: &mut Conn,
        mut reply: Reply,
        head: &RequestHeader,
        state: &RequestState,
        counts: &mut Counts,
    ) -> End {
        reply.close |= !self.keeps(conn, head, state.names());
        let (close, bytes) = (reply.close, reply.body.len());
        counts.status = reply.status.as_u16();
        if self.write_reply(conn, reply, &head.method, &state.request_id).await.is_err() {
            return End::Closed;
        }
        counts.bytes_out = if head.method == Method::HEAD { 0 } else { bytes };
        if close { End::Linger } else { End::Keep }
    }

    pub(crate) async fn write_reply(
        &self,
        conn: &mut Conn,
        reply: Reply,
        method: &Method,
        request_id: &str,
    ) -> Result<(), Gone> {
        let hsts = hsts::sends_hsts(&self.gateway.config, conn.guard.secured().is_some());
        let Ok(mut head) = reply_head::head_of(&reply, request_id, hsts) else { return Err(Gone) };
        let mut out = Vec::with_capacity(1024 + reply.body.len());
        let bodiless = reply_head::is_bodiless(&reply) || *method == Method::HEAD;
        response_head::write_head(&mut head, reply.close, &mut out);
        if !bodiless {
            out.extend_from_slice(&reply.body);
        }
        conn.write(&out, self.gateway.config.limits.idle).await
    }

    /// Whether the client and we go on after this request.
    pub(super) fn keeps(&self, conn: &Conn, head: &RequestHeader, names: Names) -> bool {
        conn.buffer.is_empty() && self.may_keep(head, names)
    }

    /// The same, as far as the head tells. A proxy never goes on in HTTP/1.0, whatever the client says (RFC 9112, 9.3).
    pub(crate) fn may_keep(&self, head: &RequestHeader, names: Names) -> bool {
        let closes = || names.may_have(b"connection") && asks_to_close(head);
        head.version == Version::HTTP_11 && !*self.stopped.borrow() && !closes()
    }
}

/// How a request ended for its connection.
pub(crate) enum End {
    /// Another request may follow.
    Keep,
    /// The same, and it may have begun: the client had its whole answer before we knew that it was.
    Next,
    /// Frames follow. The server's connection, and what came on it behind its 101.
    Tunnel(Wire, BytesMut),
    /// The answer is written, and said that it is the last.
    Linger,
    /// Nobody is there any more, or nothing sensible can follow.
    Closed,
}

/// Whether the body is to pass while it comes: it has no length or is long, or the client holds it back until it is
/// asked for (HTTP/1.0 knows no such expectations: RFC 9110, 10.1.1).
fn is_streamed(head: &RequestHeader, names: Names, length: u64) -> bool {
    let held_back = length > 0 && head.version == Version::HTTP_11 && head.headers.contains_key(header::EXPECT);
    let is_chunked = || names.may_have(b"transfer-encoding") && head.headers.contains_key(header::TRANSFER_ENCODING);
    length > BODY_MAX || held_back || is_chunked()
}

/// What `Content-Length` says; checked before.
pub(crate) fn body_length(head: &RequestHeader) -> u64 {
    let length = head.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    length.map_or(0, |digits| digits.parse().unwrap_or(u64::MAX))
}

/// Whether a `Connection` field says `close`.
fn asks_to_close(head: &RequestHeader) -> bool {
    let lines = head.headers.get_all(header::CONNECTION).iter();
    let mut options = lines.flat_map(|line| line.as_bytes().split(|&b| b == b','));
    options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"))
}
