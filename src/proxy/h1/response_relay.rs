//! A server's response in HTTP/1 on its way to a client in HTTP/1: its bytes are not copied where the framing allows that.

use std::io;
use std::pin::pin;
use std::time::Duration;

use bytes::BytesMut;
use http::{StatusCode, Version};
use pingora_core::{Error, ErrorType, Result};
use tokio::io::AsyncReadExt as _;

use super::downstream::{ClientConnection, disconnected};
use super::reply::{self, ConnectionOutcome};
use crate::policy::reasons::Outcome;
use crate::policy::response_headers::ResponseHeaderPolicy;
use crate::policy::response_kind::is_server_sent;
use crate::proxy::access_log::Counts;
use crate::proxy::attempt;
use crate::proxy::client_disconnected::ClientDisconnected;
use crate::proxy::connection_handler::ConnectionHandler;
use crate::proxy::connection_reuse::{self, uses_connection_auth};
use crate::proxy::exchange::attempt_error::truncated;
use crate::proxy::exchange::buffered::UpstreamResponse;
use crate::proxy::flow::Flow;
use crate::proxy::request_state::{Forwarding, RequestState};
use crate::wire::body::Complete;
use crate::wire::chunked::{self, Chunks};
use crate::wire::response_head::Framing;
use crate::wire::response_view::ResponseHeadView as _;
use crate::wire::stream::Stream;

/// Bytes usually added to a head.
const ADDED: usize = 512;
/// Time for the last bytes of an event stream.
const STREAM_END_TIMEOUT: Duration = Duration::from_millis(100);
/// Bytes read of a response at a time: most fit.
const ANSWER: usize = 16 << 10;

/// Sends the response to the client.
pub(super) async fn relay(
    handler: &ConnectionHandler,
    conn: &mut ClientConnection,
    forwarding: &Forwarding,
    (response, policy): (&mut UpstreamResponse, &ResponseHeaderPolicy<'_>),
    state: &mut RequestState,
    counts: &mut Counts,
) -> RelayOutcome {
    let UpstreamResponse { connection: server, target, answer, .. } = response;
    let head = forwarding.request.parsed();
    let status = answer.head.status();
    // chunks distinguish a whole body from a truncated one; in HTTP/1.0 the body ends with the connection (RFC 9112, 6.1)
    let in_chunks = head.version == Version::HTTP_11;
    let sent = match answer.framing {
        Framing::Length(length) => Framing::Length(length),
        Framing::Chunked | Framing::Close if in_chunks => Framing::Chunked,
        Framing::Chunked | Framing::Close => Framing::Close,
    };
    let close = sent == Framing::Close || !reply::keep_alive(handler, conn, head, state.names);
    let mut out = Vec::with_capacity(answer.length() + ADDED);
    if status == StatusCode::SWITCHING_PROTOCOLS {
        policy.write(answer, sent, false, &mut out);
        counts.status = 101;
        let written = conn.write(&out, handler.gateway.config.limits.idle).await;
        return written.map_or(RelayOutcome::CLOSED, |()| RelayOutcome::Switched);
    }
    policy.write(answer, sent, close, &mut out);
    counts.status = status.as_u16();
    let (chunks, is_server_sent) = (Chunks::of_server(), state.live_entry.is_some() && is_server_sent(&answer.head));
    let mut body = Body { framing: answer.framing, chunks, in_chunks, is_server_sent, out, sent: 0, begun: false };
    let mut flow = Flow::new(&handler.gateway, forwarding, matches!(answer.framing, Framing::Length(_)), state);
    let relayed = relay_body(handler, conn, server, answer.rest(), &mut body, &mut flow).await;
    counts.bytes_out = body.sent;
    match relayed {
        Ok(clean) => {
            let ends_clean = answer.keeps && clean && body.framing != Framing::Close;
            if answer.keeps && !clean {
                connection_reuse::distrust(&handler.gateway, target, state);
            }
            let reusable = ends_clean && !uses_connection_auth(&head.headers, state.names);
            RelayOutcome::done(if close { ConnectionOutcome::Linger } else { ConnectionOutcome::Keep }, reusable)
        }
        Err(Some(e)) => match attempt::on_upstream_error(&handler.gateway, &e, forwarding, state) {
            Some(reply) if !body.begun => {
                RelayOutcome::done(reply::send(handler, conn, reply, head, state, counts).await, false)
            }
            // the head is written: the client sees that the body is truncated
            _ => {
                if sent == Framing::Close {
                    conn.stream.abort();
                }
                RelayOutcome::CLOSED
            }
        },
        Err(None) => {
            state.outcome = Outcome::ClientGone;
            RelayOutcome::CLOSED
        }
    }
}

/// Forwards the body piece by piece; `first` was read with the head. `true`: no bytes follow it. `Err(None)`: the client has
/// disconnected, or the connection is being closed.
async fn relay_body(
    handler: &ConnectionHandler,
    conn: &mut ClientConnection,
    server: &mut Stream,
    first: &[u8],
    body: &mut Body,
    flow: &mut Flow<'_>,
) -> std::result::Result<bool, Option<Box<Error>>> {
    let idle = handler.gateway.config.limits.idle;
    let (mut is_first, mut piece) = (true, BytesMut::new());
    loop {
        let came = if std::mem::take(&mut is_first) { first } else { &*piece };
        let left = if let Some(own) = body.pass(came.len()) {
            body.begun = true;
            write_on(conn, &came[..own], idle, flow).await.map_err(|_| None)?;
            came.len() - own
        } else {
            let left = body.take(came).map_err(Some)?;
            if !body.out.is_empty() {
                body.begun = true;
                write_on(conn, &body.out, idle, flow).await.map_err(|_| None)?;
                body.out.clear();
            }
            left
        };
        if body.is_done() {
            return Ok(left == 0);
        }
        piece.clear();
        piece.reserve(ANSWER);
        let ClientConnection { stream, buffer, deadline, handle, .. } = &mut *conn;
        let more = async {
            tokio::select! {
                biased;
                _ = handle.closed() => None,
                read = server.read_buf(&mut piece) => Some(read),
                () = disconnected(stream, buffer) => None,
            }
        };
        let read = deadline.within(flow.patience(idle), pin!(more)).await;
        let is_due = flow.register_if_due();
        match read {
            Some(None) => {
                body.end_events(conn).await;
                return Err(None);
            }
            Some(Some(Ok(0))) if body.framing == Framing::Close => {
                body.end(Complete::by_framing());
                write_on(conn, &body.out, idle, flow).await.map_err(|_| None)?;
                return Ok(true);
            }
            Some(Some(Ok(1..))) => {}
            None if is_due => {}
            Some(Some(cut)) => return Err(Some(cut_off(Some(cut)))),
            None => return Err(Some(cut_off(None))),
        }
    }
}

/// How a response ended.
pub(super) enum RelayOutcome {
    /// The client has the 101: frames follow.
    Switched,
    /// `reusable`: the server's connection may be used again.
    Done { outcome: ConnectionOutcome, reusable: bool },
}

impl RelayOutcome {
    const CLOSED: Self = Self::Done { outcome: ConnectionOutcome::Closed, reusable: false };

    fn done(outcome: ConnectionOutcome, reusable: bool) -> Self {
        Self::Done { outcome, reusable }
    }
}

/// The error for what was read instead of more of the body; `None`: nothing in time.
#[expect(clippy::unnecessary_box_returns, reason = "pingora's errors are boxed")]
fn cut_off(came: Option<io::Result<usize>>) -> Box<Error> {
    match came {
        Some(Ok(_)) => truncated(),
        Some(Err(e)) => Error::because(ErrorType::ReadError, "reading the response", e).into_up(),
        None => Error::explain(ErrorType::ReadTimedout, "reading the response").into_up(),
    }
}

/// Writes to a client that may not read at all: closing the connection does not wait for it.
async fn write_on(
    conn: &mut ClientConnection,
    bytes: &[u8],
    idle: Duration,
    flow: &mut Flow<'_>,
) -> std::result::Result<(), ClientDisconnected> {
    let bytes = &bytes[conn.stream.write_now(bytes)..];
    if bytes.is_empty() && conn.stream.is_plain() {
        return Ok(());
    }
    let handle = conn.handle.clone();
    let mut written = pin!(conn.write(bytes, idle));
    loop {
        tokio::select! {
            biased;
            written = &mut written => return written,
            _ = handle.closed() => return Err(ClientDisconnected),
            () = flow.due() => flow.register_if_due(),
        };
    }
}

/// A response's body on its way.
struct Body {
    framing: Framing,
    chunks: Chunks,
    /// The client gets a body without a length in chunks.
    in_chunks: bool,
    /// It ends cleanly when its session does.
    is_server_sent: bool,
    out: Vec<u8>,
    sent: usize,
    /// Whether a part of the response was sent.
    begun: bool,
}

impl Body {
    /// How many bytes of a piece of this length can be sent without a copy; `None`: none, or after what waits in `out`.
    fn pass(&mut self, length: usize) -> Option<usize> {
        let own = match &mut self.framing {
            _ if !self.out.is_empty() => return None,
            Framing::Chunked => return None,
            Framing::Close if self.in_chunks => return None,
            Framing::Close => length,
            Framing::Length(left) => {
                let own = usize::try_from(*left).unwrap_or(usize::MAX).min(length);
                *left -= own as u64;
                own
            }
        };
        self.sent += own;
        Some(own)
    }

    /// Writes the body's bytes to `out`, framed for the client; returns how many bytes are after the body.
    fn take(&mut self, mut piece: &[u8]) -> Result<usize> {
        match &mut self.framing {
            Framing::Close => self.put_in_frame(piece),
            Framing::Length(left) => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(piece.len());
                *left -= taken as u64;
                self.put(&piece[..taken]);
                return Ok(piece.len() - taken);
            }
            Framing::Chunked => {
                while !piece.is_empty() && !self.chunks.is_done() {
                    let bad = |_| Error::explain(ErrorType::InvalidHTTPHeader, "bad chunk").into_up();
                    let (taken, data) = self.chunks.take(piece).map_err(bad)?;
                    self.put_in_frame(&piece[data]);
                    piece = &piece[taken..];
                }
                if self.chunks.is_done() {
                    self.end(Complete::by_framing());
                    return Ok(piece.len());
                }
            }
        }
        Ok(0)
    }

    fn put(&mut self, data: &[u8]) {
        self.sent += data.len();
        self.out.extend_from_slice(data);
    }

    fn put_in_frame(&mut self, data: &[u8]) {
        if self.in_chunks {
            self.sent += data.len();
            chunked::put(data, &mut self.out);
        } else {
            self.put(data);
        }
    }

    /// Ends an event stream cleanly where the connection is being closed.
    async fn end_events(&mut self, conn: &mut ClientConnection) {
        if self.is_server_sent && conn.handle.close_reason().is_some() {
            self.end(Complete::of_events());
            let _ = conn.write(&self.out, STREAM_END_TIMEOUT).await;
        }
    }

    /// The end of a body without a length.
    fn end(&mut self, _whole: Complete) {
        if self.in_chunks {
            self.out.extend_from_slice(chunked::LAST);
        }
    }

    fn is_done(&self) -> bool {
        match self.framing {
            Framing::Length(left) => left == 0,
            Framing::Chunked => self.chunks.is_done(),
            Framing::Close => false,
        }
    }
}
