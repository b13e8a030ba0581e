//! The client's end of a stream: heads, data within its window, trailers, resets.

use std::future::poll_fn;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use pingora_core::protocols::http::date::get_cached_date;
use pingora_http::ResponseHeader;
use tokio::time::timeout;

/// What one wait for the client's window is for.
const PIECE: usize = 16 << 10;

/// The client does not take it any more.
#[derive(Debug)]
pub(super) struct Gone;

/// One for each stream. Dropped before its end, it resets the stream.
pub(super) struct Client {
    respond: SendResponse<Bytes>,
    body: Option<SendStream<Bytes>>,
    /// For each piece.
    idle: Duration,
    /// 0 as long as there is no final head.
    pub(super) status: u16,
    pub(super) bytes_out: usize,
}

impl Client {
    pub(super) fn new(respond: SendResponse<Bytes>, idle: Duration) -> Self {
        Self { respond, body: None, idle, status: 0, bytes_out: 0 }
    }

    /// 100 Continue, or 103 with its links.
    pub(super) fn inform(&mut self, status: StatusCode, links: &HeaderMap) {
        let mut response = Response::new(());
        *response.status_mut() = status;
        for link in links.get_all(header::LINK) {
            response.headers_mut().append(header::LINK, link.clone());
        }
        let _ = self.respond.send_informational(response);
    }

    /// The final head; with `end`, nothing follows it.
    pub(super) fn head(&mut self, mut head: ResponseHeader, end: bool) -> Result<(), Gone> {
        if !head.headers.contains_key(header::DATE) {
            let _ = head.insert_header(header::DATE, get_cached_date());
        }
        let status = head.status.as_u16();
        let response = Response::from_parts(head.as_owned_parts(), ());
        self.body = Some(self.respond.send_response(response, end).map_err(|_| Gone)?);
        self.status = status;
        Ok(())
    }

    /// A piece of the body. However slowly the client opens its window, each 16 KiB must be gone within `idle`.
    pub(super) async fn data(&mut self, mut data: Bytes) -> Result<(), Gone> {
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

    /// The end of the body, perhaps with trailers.
    pub(super) fn end(&mut self, trailers: Option<HeaderMap<HeaderValue>>) -> Result<(), Gone> {
        let Some(body) = &mut self.body else { return Err(Gone) };
        match trailers {
            Some(trailers) => body.send_trailers(trailers).map_err(|_| Gone),
            None => body.send_data(Bytes::new(), true).map_err(|_| Gone),
        }
    }

    /// Waits until the client takes the stream back.
    pub(super) async fn gone(&mut self) {
        let _ = match &mut self.body {
            Some(body) => poll_fn(|cx| body.poll_reset(cx)).await,
            None => poll_fn(|cx| self.respond.poll_reset(cx)).await,
        };
    }

    /// Ends the stream at once.
    pub(super) fn reset(&mut self, reason: Reason) {
        self.respond.send_reset(reason);
    }
}
