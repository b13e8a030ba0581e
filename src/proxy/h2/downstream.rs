//! A client's stream in HTTP/2: its request body, and the response to it, within the client's window.

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
use crate::policy::response_headers::ResponseHeaderPolicy;
use crate::policy::response_kind::{is_grpc, is_server_sent};
use crate::proxy::client_disconnected::ClientDisconnected;
use crate::proxy::exchange::downstream::{Downstream, RequestBody, WaitingClient};
use crate::wire::body::{Complete, Part};
use crate::wire::deadline::Deadline;
use crate::wire::grpc_messages::Messages;
use crate::wire::h2_body::Inflow;
use crate::wire::response_head::Answer;

/// How long a client may continue to send its body after the whole response.
const LINGER: Duration = Duration::from_secs(1);
/// Bytes for one wait for the client's window.
const WRITE_CHUNK: usize = 16 << 10;
/// The longest wait of a reply of the gateway's own for the client's window.
const OWN_TIME: Duration = Duration::from_secs(15);
/// Replies of the gateway's own that wait at the same time, in the whole process: clients that open no window can request very
/// many.
const OWN_WAITING_MAX: usize = 512;

static OWN_WAITING: AtomicUsize = AtomicUsize::new(0);

/// The body of a stream's request. Clones share it.
#[derive(Clone)]
pub(super) struct H2RequestBody(Option<Arc<Mutex<Inflow>>>);

impl H2RequestBody {
    pub(super) fn new(stream: RecvStream) -> Self {
        Self((!stream.is_end_stream()).then(|| Arc::new(Mutex::new(Inflow::new(stream)))))
    }

    /// Does work that may not read the body yet, and takes what arrives of it meanwhile.
    pub(super) async fn meanwhile<T>(self, work: impl Future<Output = T>) -> T {
        let Some(inflow) = self.0 else { return work.await };
        let mut work = pin!(work);
        poll_fn(|cx| {
            inflow.lock().fill(cx);
            work.as_mut().poll(cx)
        })
        .await
    }

    /// Discards a body that is not needed. A reset right after the response is allowed (RFC 9113, 8.1), but curl up to 7.88 loses
    /// the response then.
    pub(super) async fn drain_body(&mut self) {
        let rest = async { while !self.is_over() && matches!(self.piece().await, Ok(Part::Data(_))) {} };
        let _ = timeout(LINGER, rest).await;
    }
}

impl RequestBody for H2RequestBody {
    const IS_FRAMED: bool = false;

    fn is_over(&self) -> bool {
        self.0.as_ref().is_none_or(|inflow| inflow.lock().is_over())
    }

    async fn piece(&mut self) -> Result<Part> {
        let Some(inflow) = &self.0 else { return Ok(Part::End(Complete::by_framing())) };
        // a reset is an error, not the end
        let Some(piece) = poll_fn(|cx| inflow.lock().poll_piece(cx)).await else {
            return Ok(Part::End(Complete::by_framing()));
        };
        piece.map(Part::Data).map_err(broken)
    }

    async fn trailers(&mut self) -> Result<Option<HeaderMap>> {
        let Some(inflow) = &self.0 else { return Ok(None) };
        poll_fn(|cx| inflow.lock().poll_trailers(cx)).await.map_err(broken)
    }

    /// The response's side of the stream shows it.
    async fn disconnected(&mut self) {
        pending::<()>().await;
    }
}

/// gRPC's status: UNAUTHENTICATED.
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

/// The response on one stream. Dropped before its end, it resets the stream.
pub(super) struct H2Downstream {
    respond: SendResponse<Bytes>,
    body: Option<SendStream<Bytes>>,
    /// Server-sent events: they end cleanly when their session does.
    is_server_sent: bool,
    /// Time for each piece.
    idle: Duration,
    stream_budget: Arc<StreamBudget>,
    /// The messages of a gRPC call: it also ends cleanly with its session, with a status in trailers.
    messages: Option<Messages>,
    /// 0 before the final head.
    pub(super) status: u16,
    pub(super) bytes_out: usize,
}

impl H2Downstream {
    pub(super) fn new(respond: SendResponse<Bytes>, idle: Duration, stream_budget: Arc<StreamBudget>) -> Self {
        let (body, messages) = (None, None);
        Self { respond, body, is_server_sent: false, idle, stream_budget, messages, status: 0, bytes_out: 0 }
    }

    /// 100 Continue, or 103 with its links.
    pub(super) fn send_interim(&mut self, status: StatusCode, links: &HeaderMap) {
        let mut response = Response::new(());
        *response.status_mut() = status;
        for link in links.get_all(header::LINK) {
            response.headers_mut().append(header::LINK, link.clone());
        }
        let _ = self.respond.send_informational(response);
    }

    /// Ends the stream because its session has ended. Some browsers do not report a reset to their pages, which then wait forever.
    pub(super) fn close(&mut self) {
        match &mut self.body {
            Some(body) if self.is_server_sent => drop(body.send_data(Bytes::new(), true)),
            // within a message nothing can follow
            Some(body) if self.messages.as_ref().is_some_and(Messages::at_border) => {
                drop(body.send_trailers(signed_out()));
            }
            _ => self.reset(Reason::CANCEL),
        }
    }

    /// Sends the body of a reply of the gateway's own.
    pub(super) async fn own(&mut self, body: Bytes) -> std::result::Result<(), ClientDisconnected> {
        self.idle = self.idle.min(OWN_TIME);
        let mut timer = Deadline::default();
        let mut sent = pin!(async {
            self.data(body, &mut timer).await?;
            self.end(Complete::by_framing(), None, &mut timer).await
        });
        if let Poll::Ready(sent) = poll_fn(|cx| Poll::Ready(sent.as_mut().poll(cx))).await {
            return sent;
        }
        let Some(_waiting) = Waiting::begin() else { return Err(ClientDisconnected) };
        sent.await
    }

    /// A piece of the body; with `complete`, the last one. However slowly the client opens its window, each 16 KiB must be taken
    /// within `idle`.
    async fn send_data(
        &mut self,
        mut data: Bytes,
        complete: Option<Complete>,
        timer: &mut Deadline,
    ) -> std::result::Result<(), ClientDisconnected> {
        let Some(body) = &mut self.body else { return Err(ClientDisconnected) };
        while data.has_remaining() {
            let mut piece = data.split_to(data.len().min(WRITE_CHUNK));
            self.bytes_out += piece.len();
            let sent = pin!(async {
                while piece.has_remaining() {
                    body.reserve_capacity(piece.len());
                    let room = self.stream_budget.waiting(poll_fn(|cx| body.poll_capacity(cx))).await;
                    let Some(Ok(room)) = room else { return Err(ClientDisconnected) };
                    let part = piece.split_to(room.min(piece.len()));
                    if let Some(messages) = &mut self.messages {
                        messages.feed(&part);
                    }
                    let ends = complete.is_some() && !(data.has_remaining() || piece.has_remaining());
                    body.send_data(part, ends).map_err(|_| ClientDisconnected)?;
                }
                Ok(())
            });
            timer.within(self.idle, sent).await.unwrap_or(Err(ClientDisconnected))?;
        }
        Ok(())
    }

    /// The final head; with `end`, nothing follows it.
    pub(super) fn send_head(
        &mut self,
        mut head: ResponseHeader,
        end: bool,
    ) -> std::result::Result<(), ClientDisconnected> {
        if !head.headers.contains_key(header::DATE) {
            let _ = head.insert_header(header::DATE, get_cached_date());
        }
        self.is_server_sent = !end && is_server_sent(&head);
        let status = head.status.as_u16();
        self.messages = (!end && is_grpc(&head)).then(Messages::default);
        let response = Response::from_parts(head.into(), ());
        self.body = Some(self.respond.send_response(response, end).map_err(|_| ClientDisconnected)?);
        self.status = status;
        Ok(())
    }

    /// Ends the stream immediately.
    pub(super) fn reset(&mut self, reason: Reason) {
        self.respond.send_reset(reason);
    }
}

/// A reply that waits for its client's window; drop ends the count.
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

impl WaitingClient for H2Downstream {
    async fn interim(&mut self, status: StatusCode, fields: &HeaderMap) {
        if status == StatusCode::EARLY_HINTS {
            self.send_interim(status, fields);
        }
    }

    async fn disconnected(&mut self) {
        let _ = match &mut self.body {
            Some(body) => poll_fn(|cx| body.poll_reset(cx)).await,
            None => poll_fn(|cx| self.respond.poll_reset(cx)).await,
        };
    }
}

impl Downstream for H2Downstream {
    const IS_H2: bool = true;
    const CAN_SWITCH: bool = false;

    type Head = ResponseHeader;

    fn head_of(answer: Answer) -> Result<ResponseHeader> {
        answer.head.into_map(false)
    }

    /// It got 100 Continue when the request was admitted.
    fn expects_continue(&self) -> bool {
        false
    }

    async fn head(
        &mut self,
        head: ResponseHeader,
        policy: ResponseHeaderPolicy<'_>,
        end: bool,
        _timer: &mut Deadline,
    ) -> std::result::Result<(), ClientDisconnected> {
        self.send_head(policy.apply(head), end)
    }

    async fn data(&mut self, data: Bytes, timer: &mut Deadline) -> std::result::Result<(), ClientDisconnected> {
        self.send_data(data, None, timer).await
    }

    /// Nothing waits here: the library writes it.
    async fn flush(&mut self, _timer: &mut Deadline) -> std::result::Result<(), ClientDisconnected> {
        Ok(())
    }

    async fn last_data(
        &mut self,
        data: Bytes,
        complete: Complete,
        timer: &mut Deadline,
    ) -> std::result::Result<(), ClientDisconnected> {
        self.send_data(data, Some(complete), timer).await
    }

    async fn end(
        &mut self,
        _complete: Complete,
        trailers: Option<HeaderMap>,
        _timer: &mut Deadline,
    ) -> std::result::Result<(), ClientDisconnected> {
        let Some(body) = &mut self.body else { return Err(ClientDisconnected) };
        match trailers {
            Some(trailers) => body.send_trailers(trailers).map_err(|_| ClientDisconnected),
            None => body.send_data(Bytes::new(), true).map_err(|_| ClientDisconnected),
        }
    }
}
