//! The client's end of a stream: its body, heads, data within its window, trailers, resets.

use std::future::{pending, poll_fn};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use pingora_core::protocols::http::date::get_cached_date;
use pingora_core::{Error, ErrorType, Result};
use pingora_http::ResponseHeader;
use tokio::time::timeout;

use super::super::body::{Complete, Part};
use super::super::client::Gone;
use super::super::streamed::{Download, Upload};
use crate::gateway::respond::{is_grpc, is_server_sent};

/// How long a client may go on sending a body whose answer has overtaken it.
const LINGER: Duration = Duration::from_secs(1);
/// What one wait for the client's window is for.
const PIECE: usize = 16 << 10;

/// The body of a stream's request.
pub(super) struct Body {
    stream: RecvStream,
    /// Taken out of the window, and to be given back when the next piece is wanted.
    held: usize,
}

impl Body {
    pub(super) fn new(stream: RecvStream) -> Self {
        Self { stream, held: 0 }
    }

    /// Lets a body go that is not asked for. A client that is told at once to stop takes the answer in (RFC 9113, 8.1),
    /// but not every one does: curl up to 7.88 loses it.
    pub(super) async fn let_go(&mut self) {
        let rest = async { while !self.is_over() && matches!(self.piece().await, Ok(Part::Data(_))) {} };
        let _ = timeout(LINGER, rest).await;
    }
}

impl Upload for Body {
    const IS_FRAMED: bool = false;

    fn is_over(&self) -> bool {
        self.stream.is_end_stream()
    }

    async fn piece(&mut self) -> Result<Part> {
        let _ = self.stream.flow_control().release_capacity(std::mem::take(&mut self.held));
        // at a reset there is an error, not nothing
        let Some(piece) = self.stream.data().await else { return Ok(Part::End(Complete::by_framing())) };
        let piece = piece.map_err(broken)?;
        self.held = piece.len();
        Ok(Part::Data(piece))
    }

    async fn trailers(&mut self) -> Result<Option<HeaderMap>> {
        self.stream.trailers().await.map_err(broken)
    }

    /// The way back tells.
    async fn gone(&mut self) {
        pending::<()>().await;
    }
}

/// gRPC's word for it: UNAUTHENTICATED.
fn signed_out() -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("16"));
    trailers.insert("grpc-message", HeaderValue::from_static("the session has ended"));
    trailers
}

#[expect(clippy::unnecessary_box_returns, reason = "pingora's errors are boxed")]
fn broken(e: h2::Error) -> Box<Error> {
    Error::because(ErrorType::ReadError, "reading the body", e).into_down()
}

/// One for each stream. Dropped before its end, it resets the stream.
pub(super) struct Client {
    respond: SendResponse<Bytes>,
    body: Option<SendStream<Bytes>>,
    /// What is sent ends cleanly when its session does: server-sent events, and calls that have words for it.
    is_server_sent: bool,
    is_grpc: bool,
    /// For each piece.
    idle: Duration,
    /// 0 as long as there is no final head.
    pub(super) status: u16,
    pub(super) bytes_out: usize,
}

impl Client {
    pub(super) fn new(respond: SendResponse<Bytes>, idle: Duration) -> Self {
        Self { respond, body: None, is_server_sent: false, is_grpc: false, idle, status: 0, bytes_out: 0 }
    }

    /// 100 Continue, or 103 with its links.
    pub(super) fn tell(&mut self, status: StatusCode, links: &HeaderMap) {
        let mut response = Response::new(());
        *response.status_mut() = status;
        for link in links.get_all(header::LINK) {
            response.headers_mut().append(header::LINK, link.clone());
        }
        let _ = self.respond.send_informational(response);
    }

    /// The connection is closed from outside. Some browsers never tell their pages of a reset, and listen for ever.
    pub(super) fn close(&mut self) {
        match &mut self.body {
            Some(body) if self.is_server_sent => drop(body.send_data(Bytes::new(), true)),
            Some(body) if self.is_grpc => drop(body.send_trailers(signed_out())),
            _ => self.reset(Reason::CANCEL),
        }
    }

    /// Ends the stream at once.
    pub(super) fn reset(&mut self, reason: Reason) {
        self.respond.send_reset(reason);
    }
}

impl Download for Client {
    const TAKES_H2: bool = true;

    /// It was asked for its body when the request was admitted.
    fn holds_back(&self) -> bool {
        false
    }

    async fn inform(&mut self, status: StatusCode, links: &HeaderMap) {
        if status == StatusCode::EARLY_HINTS {
            self.tell(status, links);
        }
    }

    async fn head(&mut self, mut head: ResponseHeader, end: bool) -> std::result::Result<(), Gone> {
        if !head.headers.contains_key(header::DATE) {
            let _ = head.insert_header(header::DATE, get_cached_date());
        }
        (self.is_server_sent, self.is_grpc) = (!end && is_server_sent(&head), !end && is_grpc(&head));
        let status = head.status.as_u16();
        let response = Response::from_parts(head.as_owned_parts(), ());
        self.body = Some(self.respond.send_response(response, end).map_err(|_| Gone)?);
        self.status = status;
        Ok(())
    }

    /// A piece of the body. However slowly the client opens its window, each 16 KiB must be gone within `idle`.
    async fn data(&mut self, mut data: Bytes) -> std::result::Result<(), Gone> {
        let Some(body) = &mut self.body else { return Err(Gone) };
        while data.has_remaining() {
            let mut piece = data.split_to(data.len().min(PIECE));
            self.bytes_out += piece.len();
            let sent = timeout(self.idle, async {
                while piece.has_remaining() {
                    body.reserve_capacity(piece.len());
                    let Some(Ok(room)) = poll_fn(|cx| body.poll_capacity(cx)).await else { return Err(Gone) };
                    body.send_data(piece.split_to(room.min(piece.len())), false).map_err(|_| Gone)?;
                }
                Ok(())
            });
            sent.await.unwrap_or(Err(Gone))?;
        }
        Ok(())
    }

    async fn end(&mut self, _whole: Complete, trailers: Option<HeaderMap>) -> std::result::Result<(), Gone> {
        let Some(body) = &mut self.body else { return Err(Gone) };
        match trailers {
            Some(trailers) => body.send_trailers(trailers).map_err(|_| Gone),
            None => body.send_data(Bytes::new(), true).map_err(|_| Gone),
        }
    }

    async fn gone(&mut self) {
        let _ = match &mut self.body {
            Some(body) => poll_fn(|cx| body.poll_reset(cx)).await,
            None => poll_fn(|cx| self.respond.poll_reset(cx)).await,
        };
    }
}
