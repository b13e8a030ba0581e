//! A client in HTTP/1 whose request was read whole, and the response to it. The head and what has arrived of the body are written
//! at the same time; later pieces are not copied where the framing allows that.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode, Version};
use pingora_core::Result;
use pingora_http::RequestHeader;

use super::client_connection::{ClientConnection, STREAM_END_TIMEOUT, disconnected, write_within};
use super::reply::{self, ConnectionOutcome};
use crate::policy::forwarding::Forwarding;
use crate::policy::response_headers::ResponseHeaderPolicy;
use crate::policy::response_kind::is_server_sent;
use crate::proxy::access_log::Counts;
use crate::proxy::attempt;
use crate::proxy::client_disconnected::ClientDisconnected;
use crate::proxy::connection_handle::ConnectionHandle;
use crate::proxy::connection_handler::ConnectionHandler;
use crate::proxy::exchange::buffered;
use crate::proxy::exchange::downstream::{Downstream, WaitingClient};
use crate::proxy::request_state::RequestState;
use crate::web::names::Names;
use crate::wire::body::Complete;
use crate::wire::chunked;
use crate::wire::deadline::Deadline;
use crate::wire::response_head::{self, Answer, Framing};
use crate::wire::response_view::ResponseHeadView as _;
use crate::wire::stream::{READ_CHUNK, Stream};

/// Bytes usually added to a head.
const ADDED: usize = 512;

/// The response on its way to one client.
struct H1BufferedDownstream<'c> {
    handler: &'c ConnectionHandler,
    stream: &'c mut Stream,
    /// What the client has sent after its request.
    buffer: &'c mut BytesMut,
    connection: &'c ConnectionHandle,
    request: &'c RequestHeader,
    field_names: Names,
    /// Waits to be written: the head, and pieces of the body that are copied.
    out: Vec<u8>,
    /// How the response's body is framed.
    sent: Framing,
    closes: bool,
    /// It ends cleanly when its session does; only chunks have such an end.
    is_server_sent: bool,
    /// Whether a part of the response was written.
    begun: bool,
    /// A write is incomplete.
    in_piece: bool,
    /// 0 before the final head.
    status: u16,
    bytes_out: usize,
}

/// Forwards a request with this body, and its response.
pub(super) async fn forward(
    handler: &ConnectionHandler,
    conn: &mut ClientConnection,
    forwarding: &Forwarding,
    body: Bytes,
    state: &mut RequestState,
    counts: &mut Counts,
) -> ConnectionOutcome {
    let request = forwarding.request().parsed();
    let ClientConnection { stream, buffer, deadline, handle, .. } = &mut *conn;
    let mut client = H1BufferedDownstream {
        handler,
        stream,
        buffer,
        connection: handle,
        request,
        field_names: state.field_names,
        out: Vec::new(),
        sent: Framing::Length(0),
        closes: false,
        is_server_sent: false,
        begun: false,
        in_piece: false,
        status: 0,
        bytes_out: 0,
    };
    let result = buffered::forward(handler, forwarding, &body, (&mut client, deadline), state).await;
    if result.is_err() {
        client.end_events(deadline).await;
    }
    (counts.status, counts.bytes_out) = (client.status, client.bytes_out);
    let (begun, sent, closes) = (client.begun, client.sent, client.closes);
    let e = match result {
        Ok(Some((server, first))) => return ConnectionOutcome::Tunnel(server, first),
        Ok(None) if closes => return ConnectionOutcome::Linger,
        Ok(None) => return ConnectionOutcome::Keep,
        Err(e) => e,
    };
    match attempt::on_upstream_error(&handler.gateway, &e, forwarding, state) {
        Some(reply) if !begun => reply::send(handler, conn, reply, request, state, counts).await,
        Some(_) => {
            // the head is written: the client sees that the body is truncated
            if sent == Framing::Close {
                conn.stream.abort();
            }
            ConnectionOutcome::Closed
        }
        None => ConnectionOutcome::Closed,
    }
}

impl H1BufferedDownstream<'_> {
    /// Writes what the socket takes, nearly always everything, without a timer.
    async fn write(&mut self, bytes: &[u8], timer: &mut Deadline) -> std::result::Result<(), ClientDisconnected> {
        self.begun = true;
        let bytes = &bytes[self.stream.write_now(bytes)..];
        if bytes.is_empty() && self.stream.is_plain() {
            return Ok(());
        }
        self.in_piece = true;
        let limits = &self.handler.gateway.config.limits;
        tokio::select! {
            biased;
            written = write_within(self.stream, self.connection, bytes, (limits.idle, timer)) => written?,
            // closing does not wait for a client that may not read at all
            _ = self.connection.closed() => return Err(ClientDisconnected),
        }
        self.in_piece = false;
        Ok(())
    }

    /// Ends an event stream cleanly where the connection is being closed.
    async fn end_events(&mut self, timer: &mut Deadline) {
        if self.is_server_sent && !self.in_piece && self.connection.close_reason().is_some() {
            let limit = (STREAM_END_TIMEOUT, timer);
            let _ = write_within(self.stream, self.connection, chunked::LAST, limit).await;
        }
    }
}

impl WaitingClient for H1BufferedDownstream<'_> {
    /// 100 Continue is for clients that hold their body back, and this one has sent it.
    async fn interim(&mut self, status: StatusCode, fields: &HeaderMap) {
        if status != StatusCode::EARLY_HINTS {
            return;
        }
        let mut out = Vec::new();
        response_head::write_early_hints(fields, &mut out);
        let limit = (self.handler.gateway.config.limits.idle, &mut Deadline::default());
        let _ = write_within(self.stream, self.connection, &out, limit).await;
    }

    /// A response that has begun also ends with its session.
    async fn disconnected(&mut self) {
        if self.status == 0 {
            return disconnected(self.stream, self.buffer).await;
        }
        tokio::select! {
            biased;
            _ = self.connection.closed() => {}
            () = disconnected(self.stream, self.buffer) => {}
        }
    }
}

impl Downstream for H1BufferedDownstream<'_> {
    const IS_H2: bool = false;
    const CAN_SWITCH: bool = true;

    type Head = Answer;

    fn head_of(answer: Answer) -> Result<Answer> {
        Ok(answer)
    }

    /// It has sent it.
    fn expects_continue(&self) -> bool {
        false
    }

    async fn head(
        &mut self,
        answer: Answer,
        policy: ResponseHeaderPolicy<'_>,
        end: bool,
        timer: &mut Deadline,
    ) -> std::result::Result<(), ClientDisconnected> {
        let status = answer.status();
        // chunks distinguish a whole body from a truncated one; in HTTP/1.0 the body ends with the connection (RFC 9112, 6.1)
        self.sent = match answer.framing {
            Framing::Length(length) => Framing::Length(length),
            Framing::Chunked | Framing::Close if self.request.version == Version::HTTP_11 => Framing::Chunked,
            Framing::Chunked | Framing::Close => Framing::Close,
        };
        let keeps = self.buffer.is_empty() && reply::keep_alive_allowed(self.handler, self.request, self.field_names);
        self.closes = status != StatusCode::SWITCHING_PROTOCOLS && (self.sent == Framing::Close || !keeps);
        self.is_server_sent = self.sent == Framing::Chunked && is_server_sent(&answer);
        let piece = match self.sent {
            Framing::Length(length) => usize::try_from(length).unwrap_or(READ_CHUNK).min(READ_CHUNK),
            Framing::Chunked | Framing::Close => 0,
        };
        self.out = Vec::with_capacity(answer.length() + ADDED + piece);
        policy.write(&answer, self.sent, self.closes, &mut self.out);
        self.status = status.as_u16();
        if end { self.flush(timer).await } else { Ok(()) }
    }

    async fn data(&mut self, data: Bytes, timer: &mut Deadline) -> std::result::Result<(), ClientDisconnected> {
        self.bytes_out += data.len();
        if self.sent == Framing::Chunked {
            chunked::put(&data, &mut self.out);
        } else if self.out.is_empty() {
            return self.write(&data, timer).await;
        } else {
            self.out.extend_from_slice(&data);
        }
        Ok(())
    }

    async fn flush(&mut self, timer: &mut Deadline) -> std::result::Result<(), ClientDisconnected> {
        if self.out.is_empty() {
            return Ok(());
        }
        let mut out = std::mem::take(&mut self.out);
        self.write(&out, timer).await?;
        out.clear();
        self.out = out;
        Ok(())
    }

    /// Trailers are not forwarded.
    async fn end(
        &mut self,
        _complete: Complete,
        _trailers: Option<HeaderMap>,
        timer: &mut Deadline,
    ) -> std::result::Result<(), ClientDisconnected> {
        if self.sent == Framing::Chunked {
            self.out.extend_from_slice(chunked::LAST);
        }
        self.flush(timer).await
    }
}
