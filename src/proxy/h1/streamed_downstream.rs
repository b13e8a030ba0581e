//! A client in HTTP/1 whose bodies are streamed: its request body, and the response to it.

use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode, Version, header};
use pingora_core::{Error, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use tokio::io::{ReadHalf, WriteHalf, split};

use crate::pages::Page;
use crate::policy::forwarding::Forwarding;
use crate::policy::response_headers::ResponseHeaderPolicy;
use crate::policy::response_kind::is_server_sent;
use crate::proxy::access_log::Counts;
use crate::proxy::attempt;
use crate::proxy::client_disconnected::ClientDisconnected;
use crate::proxy::connection_handle::ConnectionHandle;
use crate::proxy::connection_handler::ConnectionHandler;
use crate::proxy::exchange::downstream::{Downstream, RequestBody, WaitingClient, read_form};
use crate::proxy::exchange::streamed;
use crate::proxy::h1::client_connection::{ClientConnection, STREAM_END_TIMEOUT, write_within};
use crate::proxy::h1::reply::{self, ConnectionOutcome};
use crate::proxy::h1::request_body::body_length;
use crate::proxy::request_state::RequestState;
use crate::wire::body::{Complete, Part};
use crate::wire::chunked;
use crate::wire::deadline::Deadline;
use crate::wire::framed_body::{Cut, Framed};
use crate::wire::response_head::{self, Answer, Framing};
use crate::wire::stream::Stream;

/// What both directions know of each other.
#[derive(Default)]
struct Ends {
    /// The request's body was read to its end, and no bytes after it: another request may follow.
    request: AtomicBool,
    /// The client has the whole response, whether or not the server has ended it.
    answer: AtomicBool,
    /// Bytes arrived after the request, before the client had the whole response.
    pipelined: AtomicBool,
}

/// The body of its request.
struct H1RequestBody<'c> {
    framed: Framed<ReadHalf<&'c mut Stream>>,
    ends: &'c Ends,
    /// Without TLS a client that has shut down its sending side may still read: a failed write shows that it has disconnected.
    is_plain: bool,
}

/// The response to it.
struct H1StreamedDownstream<'c> {
    stream: WriteHalf<&'c mut Stream>,
    idle: Duration,
    connection: &'c ConnectionHandle,
    head: &'c RequestHeader,
    /// Whether the connection may be kept, if the request's body is read to its end.
    keeps: bool,
    ends: &'c Ends,
    /// How the response's body is framed.
    sent: Framing,
    /// Bytes of the declared length that are still to be sent.
    left: u64,
    /// It ends cleanly when its session does.
    is_server_sent: bool,
    /// A write is incomplete.
    in_piece: bool,
    /// 0 before the final head.
    status: u16,
    bytes_out: usize,
}

/// Reads the form that a page takes.
pub(super) async fn form(
    handler: &ConnectionHandler,
    conn: &mut ClientConnection,
    page: Page,
    head: &RequestHeader,
) -> std::result::Result<Bytes, StatusCode> {
    let limits = &handler.gateway.config.limits;
    if !page.takes_body(&head.method) {
        return Ok(Bytes::new());
    }
    if body_length(head) > limits.form_bytes as u64 {
        return Err(StatusCode::PAYLOAD_TOO_LARGE);
    }
    if expects_continue(head) && conn.write(CONTINUE, limits.idle).await.is_err() {
        return Err(StatusCode::BAD_REQUEST);
    }
    let ends = Ends::default();
    let is_plain = conn.stream.is_plain();
    let (read, _) = split(&mut conn.stream);
    let mut body = H1RequestBody::new((read, is_plain), std::mem::take(&mut conn.buffer), head, &ends);
    let form = read_form(&mut body, limits.form_bytes).await;
    conn.buffer = body.framed.buffer;
    form
}

/// Forwards a request whose body is still being received.
pub(super) async fn forward(
    handler: &ConnectionHandler,
    conn: &mut ClientConnection,
    forwarding: &Forwarding,
    state: &mut RequestState,
    counts: &mut Counts,
) -> ConnectionOutcome {
    let head = forwarding.request().parsed();
    let keeps = reply::keep_alive_allowed(handler, head, state.field_names);
    let ends = Ends::default();
    let handle = conn.handle.clone();
    let is_plain = conn.stream.is_plain();
    let (read, write) = split(&mut conn.stream);
    let mut body = H1RequestBody::new((read, is_plain), std::mem::take(&mut conn.buffer), head, &ends);
    let mut client = H1StreamedDownstream {
        stream: write,
        idle: handler.gateway.config.limits.idle,
        connection: &conn.handle,
        head,
        keeps,
        ends: &ends,
        sent: Framing::Length(0),
        left: 0,
        is_server_sent: false,
        in_piece: false,
        status: 0,
        bytes_out: 0,
    };
    let result = streamed::forward(handler, forwarding, &mut body, &mut client, state, &mut counts.bytes_in).await;
    if result.is_err() && handle.close_reason().is_some() {
        client.end_events().await;
    }
    (counts.status, counts.bytes_out) = (client.status, client.bytes_out);
    let (keeps, sent) = (client.keeps, client.sent);
    conn.buffer = body.framed.buffer;
    let Err(e) = result else {
        return match (keeps, ends.pipelined.load(Ordering::Relaxed)) {
            (true, true) => ConnectionOutcome::Keep,
            (true, false) => ConnectionOutcome::KeepPipelined,
            (false, _) => ConnectionOutcome::Linger,
        };
    };
    match attempt::on_upstream_error(&handler.gateway, &e, forwarding, state) {
        Some(reply) if counts.status == 0 => reply::send(handler, conn, reply, head, state, counts).await,
        // the head is written: the client sees that the body is truncated
        _ => {
            if counts.status > 0 && sent == Framing::Close {
                conn.stream.abort();
            }
            ConnectionOutcome::Closed
        }
    }
}

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// HTTP/1.0 has no expectations (RFC 9110, 10.1.1).
fn expects_continue(head: &RequestHeader) -> bool {
    let expects = head.headers.get(header::EXPECT);
    head.version == Version::HTTP_11
        && expects.is_some_and(|expects| expects.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

impl<'c> H1RequestBody<'c> {
    fn new(
        (stream, is_plain): (ReadHalf<&'c mut Stream>, bool),
        buffer: BytesMut,
        head: &RequestHeader,
        ends: &'c Ends,
    ) -> Self {
        let chunked = head.headers.contains_key(header::TRANSFER_ENCODING);
        let framing = if chunked { Framing::Chunked } else { Framing::Length(body_length(head)) };
        let body = Self { framed: Framed::new(stream, buffer, framing), ends, is_plain };
        body.note();
        body
    }

    fn note(&self) {
        self.ends.request.store(self.framed.is_over() && self.framed.buffer.is_empty(), Ordering::Relaxed);
    }
}

impl RequestBody for H1RequestBody<'_> {
    const IS_FRAMED: bool = true;

    fn is_over(&self) -> bool {
        self.framed.is_over()
    }

    async fn piece(&mut self) -> Result<Part> {
        let piece = self.framed.piece().await.map_err(|cut| match cut {
            Cut::Malformed => Error::explain(ErrorType::InvalidHTTPHeader, "bad chunk").into_down(),
            Cut::Ended => Error::explain(ErrorType::ConnectionClosed, "request body cut off").into_down(),
            Cut::Failed(e) => Error::because(ErrorType::ReadError, "reading the body", e).into_down(),
        });
        self.note();
        piece
    }

    /// Dropped (`chunked.rs`).
    async fn trailers(&mut self) -> Result<Option<HeaderMap>> {
        Ok(None)
    }

    /// What arrives meanwhile is kept, but never more than one piece: see `h1/client_connection.rs`.
    async fn disconnected(&mut self) {
        if self.framed.buffer.is_empty() {
            match self.framed.read().await {
                Ok(0) if self.is_plain => pending::<()>().await,
                Ok(1..) => {}
                _ => return,
            }
        }
        // a client that has the whole response may send another request before the server has ended it
        self.ends.pipelined.store(!self.ends.answer.load(Ordering::Relaxed), Ordering::Relaxed);
        pending::<()>().await;
    }
}

impl H1StreamedDownstream<'_> {
    /// Ends an event stream cleanly.
    async fn end_events(&mut self) {
        if self.is_server_sent && !self.in_piece {
            self.idle = STREAM_END_TIMEOUT;
            let _ = self.end(Complete::of_events(), None, &mut Deadline::default()).await;
        }
    }

    async fn write(&mut self, bytes: &[u8], timer: &mut Deadline) -> std::result::Result<(), ClientDisconnected> {
        self.in_piece = true;
        write_within(&mut self.stream, self.connection, bytes, (self.idle, timer)).await?;
        self.in_piece = false;
        Ok(())
    }

    fn has_no_body(&self, status: StatusCode) -> bool {
        self.head.method == Method::HEAD || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
    }

    /// How the body of this response is framed.
    fn framing(&self, head: &ResponseHeader, over: bool) -> Framing {
        let declared = head.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        match declared {
            _ if self.has_no_body(head.status) => Framing::Length(0),
            Some(length) => Framing::Length(length),
            None if over => Framing::Length(0),
            None if self.head.version == Version::HTTP_11 => Framing::Chunked,
            None => Framing::Close,
        }
    }
}

impl WaitingClient for H1StreamedDownstream<'_> {
    async fn interim(&mut self, status: StatusCode, fields: &HeaderMap) {
        let mut out = Vec::new();
        match status {
            StatusCode::CONTINUE if expects_continue(self.head) => out.extend_from_slice(CONTINUE),
            StatusCode::EARLY_HINTS => response_head::write_early_hints(fields, &mut out),
            _ => return,
        }
        // if that fails, so does the response
        let _ = self.write(&out, &mut Deadline::default()).await;
    }

    /// Never returns: reading the request's body shows that the client has disconnected.
    async fn disconnected(&mut self) {
        pending::<()>().await;
    }
}

impl Downstream for H1StreamedDownstream<'_> {
    const IS_H2: bool = false;
    /// What follows the head of its request is a body.
    const CAN_SWITCH: bool = false;

    type Head = ResponseHeader;

    fn head_of(answer: Answer) -> Result<ResponseHeader> {
        answer.head.into_map(true)
    }

    fn expects_continue(&self) -> bool {
        expects_continue(self.head)
    }

    async fn head(
        &mut self,
        head: ResponseHeader,
        policy: ResponseHeaderPolicy<'_>,
        end: bool,
        timer: &mut Deadline,
    ) -> std::result::Result<(), ClientDisconnected> {
        let mut head = policy.apply(head);
        self.sent = self.framing(&head, end);
        self.is_server_sent = !end && is_server_sent(&head);
        self.keeps &= self.ends.request.load(Ordering::Relaxed) && self.sent != Framing::Close;
        let _ = match self.sent {
            Framing::Chunked => head.insert_header(header::TRANSFER_ENCODING, "chunked"),
            Framing::Length(0) if !self.has_no_body(head.status) => head.insert_header(header::CONTENT_LENGTH, "0"),
            _ => Ok(()),
        };
        let mut out = Vec::with_capacity(1024);
        response_head::write_head(&mut head, !self.keeps, &mut out);
        self.status = head.status.as_u16();
        self.left = if let Framing::Length(length) = self.sent { length } else { u64::MAX };
        self.write(&out, timer).await?;
        self.ends.answer.store(self.left == 0, Ordering::Relaxed);
        Ok(())
    }

    async fn data(&mut self, data: Bytes, timer: &mut Deadline) -> std::result::Result<(), ClientDisconnected> {
        if data.is_empty() {
            return Ok(());
        }
        self.bytes_out += data.len();
        if self.sent != Framing::Chunked {
            self.left = self.left.saturating_sub(data.len() as u64);
            self.write(&data, timer).await?;
            self.ends.answer.store(self.left == 0, Ordering::Relaxed);
            return Ok(());
        }
        let mut out = BytesMut::with_capacity(data.len() + 16);
        chunked::put(&data, &mut out);
        self.write(&out, timer).await
    }

    /// Nothing waits here.
    async fn flush(&mut self, _timer: &mut Deadline) -> std::result::Result<(), ClientDisconnected> {
        Ok(())
    }

    /// Trailers are not forwarded.
    async fn end(
        &mut self,
        _complete: Complete,
        _trailers: Option<HeaderMap>,
        timer: &mut Deadline,
    ) -> std::result::Result<(), ClientDisconnected> {
        if self.sent == Framing::Chunked { self.write(chunked::LAST, timer).await } else { Ok(()) }
    }
}
