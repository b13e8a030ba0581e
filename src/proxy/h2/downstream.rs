//! The client's end of a stream: its body, heads, data within its window, trailers, resets.

use std::future::{Future, pending, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use parking_lot::Mutex;
use pingora_core::protocols::http::date::get_cached_date;
use pingora_core::{Error, ErrorType, Result};
use pingora_http::ResponseHeader;
use tokio::time::timeout;

use super::stream_budget::StreamBudget;
use crate::policy::response_kind::{is_grpc, is_server_sent};
use crate::proxy::client_disconnected::ClientDisconnected;
use crate::proxy::exchange::downstream::{Download, Upload};
use crate::wire::body::{Complete, Part};
use crate::wire::grpc_messages::Messages;
use crate::wire::h2_body::Inflow;

/// How long a client may go on sending a body whose answer has overtaken it.
const LINGER: Duration = Duration::from_secs(1);
/// What one wait for the client's window is for.
const PIECE: usize = 16 << 10;
/// How long a piece of an answer of ours waits for the client's window, at most: nobody has to be waited for to make it.
const OWN_TIME: Duration = Duration::from_secs(15);
/// Answers of ours that wait so at once, in the whole process. Whoever opens no window can ask for very many.
const OWN_WAITING_MAX: usize = 512;

static OWN_WAITING: AtomicUsize = AtomicUsize::new(0);

/// The body of a stream's request. Others take in what has come of it, too.
#[derive(Clone)]
pub(super) struct Body(Option<Arc<Mutex<Inflow>>>);

impl Body {
    pub(super) fn new(stream: RecvStream) -> Self {
        Self((!stream.is_end_stream()).then(|| Arc::new(Mutex::new(Inflow::new(stream)))))
    }

    /// Does something that may not want the body yet; what comes of it is taken in.
    pub(super) async fn meanwhile<T>(self, work: impl Future<Output = T>) -> T {
        let Some(inflow) = self.0 else { return work.await };
        let mut work = pin!(work);
        poll_fn(|cx| {
            inflow.lock().fill(cx);
            work.as_mut().poll(cx)
        })
        .await
    }

    /// Lets a body go that is not asked for. A client that is told at once to stop takes the answer in (RFC 9113, 8.1),
    /// but not every one does: curl up to 7.88 loses it.
    pub(super) async fn drain_body(&mut self) {
        let rest = async { while !self.is_over() && matches!(self.piece().await, Ok(Part::Data(_))) {} };
        let _ = timeout(LINGER, rest).await;
    }
}

impl Upload for Body {
    const IS_FRAMED: bool = false;

    fn is_over(&self) -> bool {
        self.0.as_ref().is_none_or(|inflow| inflow.lock().is_over())
    }

    async fn piece(&mut self) -> Result<Part> {
        let Some(inflow) = &self.0 else { return Ok(Part::End(Complete::by_framing())) };
        // at a reset there is an error, not nothing
        let Some(piece) = poll_fn(|cx| inflow.lock().poll_piece(cx)).await else {
            return Ok(Part::End(Complete::by_framing()));
        };
        piece.map(Part::Data).map_err(broken)
    }

    async fn trailers(&mut self) -> Result<Option<HeaderMap>> {
        let Some(inflow) = &self.0 else { return Ok(None) };
        poll_fn(|cx| inflow.lock().poll_trailers(cx)).await.map_err(broken)
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
    /// What is sent ends cleanly when its session does: server-sent events.
    is_server_sent: bool,
    /// For each piece.
    idle: Duration,
    stream_budget: Arc<StreamBudget>,
    /// So do gRPC calls, which have words for it.
    messages: Option<Messages>,
    /// 0 as long as there is no final head.
    pub(super) status: u16,
    pub(super) bytes_out: usize,
}

impl Client {
    pub(super) fn new(respond: SendResponse<Bytes>, idle: Duration, stream_budget: Arc<StreamBudget>) -> Self {
        let (body, messages) = (None, None);
        Self { respond, body, is_server_sent: false, idle, stream_budget, messages, status: 0, bytes_out: 0 }
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
            // where a message is under way, nothing can follow
            Some(body) if self.messages.as_ref().is_some_and(Messages::at_border) => {
                drop(body.send_trailers(signed_out()));
            }
            _ => self.reset(Reason::CANCEL),
        }
    }

    /// The body of an answer of ours, to its end.
    pub(super) async fn own(&mut self, body: Bytes) -> std::result::Result<(), ClientDisconnected> {
        self.idle = self.idle.min(OWN_TIME);
        let mut sent = pin!(async {
            self.data(body).await?;
            self.end(Complete::by_framing(), None).await
        });
        if let Poll::Ready(sent) = poll_fn(|cx| Poll::Ready(sent.as_mut().poll(cx))).await {
            return sent;
        }
        let Some(_waiting) = Waiting::begin() else { return Err(ClientDisconnected) };
        sent.await
    }

    /// Ends the stream at once.
    pub(super) fn reset(&mut self, reason: Reason) {
        self.respond.send_reset(reason);
    }
}

/// An answer of ours that waits for its client's window; counts itself out when dropped.
struct Waiting;

impl Waiting {
    fn begin() -> Option<Self> {
        let waiting = Self;
        (OWN_WAITING.fetch_add(1, Ordering::Relaxed) < OWN_WAITING_MAX).then_some(waiting)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        OWN_WAITING.fetch_sub(1, Ordering::Relaxed);
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

    async fn head(&mut self, mut head: ResponseHeader, end: bool) -> std::result::Result<(), ClientDisconnected> {
        if !head.headers.contains_key(header::DATE) {
            let _ = head.insert_header(header::DATE, get_cached_date());
        }
        self.is_server_sent = !end && is_server_sent(&head);
        let status = head.status.as_u16();
        self.messages = (!end && is_grpc(&head)).then(Messages::default);
        let response = Response::from_parts(head.as_owned_parts(), ());
        self.body = Some(self.respond.send_response(response, end).map_err(|_| ClientDisconnected)?);
        self.status = status;
        Ok(())
    }

    /// A piece of the body. However slowly the client opens its window, each 16 KiB must be gone within `idle`.
    async fn data(&mut self, mut data: Bytes) -> std::result::Result<(), ClientDisconnected> {
        let Some(body) = &mut self.body else { return Err(ClientDisconnected) };
        while data.has_remaining() {
            let mut piece = data.split_to(data.len().min(PIECE));
            self.bytes_out += piece.len();
            let sent = timeout(self.idle, async {
                while piece.has_remaining() {
                    body.reserve_capacity(piece.len());
                    let room = self.stream_budget.waiting(poll_fn(|cx| body.poll_capacity(cx))).await;
                    let Some(Ok(room)) = room else { return Err(ClientDisconnected) };
                    let part = piece.split_to(room.min(piece.len()));
                    if let Some(messages) = &mut self.messages {
                        messages.feed(&part);
                    }
                    body.send_data(part, false).map_err(|_| ClientDisconnected)?;
                }
                Ok(())
            });
            sent.await.unwrap_or(Err(ClientDisconnected))?;
        }
        Ok(())
    }

    async fn end(
        &mut self,
        _whole: Complete,
        trailers: Option<HeaderMap>,
    ) -> std::result::Result<(), ClientDisconnected> {
        let Some(body) = &mut self.body else { return Err(ClientDisconnected) };
        match trailers {
            Some(trailers) => body.send_trailers(trailers).map_err(|_| ClientDisconnected),
            None => body.send_data(Bytes::new(), true).map_err(|_| ClientDisconnected),
        }
    }

    async fn gone(&mut self) {
        let _ = match &mut self.body {
            Some(body) => poll_fn(|cx| body.poll_reset(cx)).await,
            None => poll_fn(|cx| self.respond.poll_reset(cx)).await,
        };
    }
}
