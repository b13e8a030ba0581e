//! The client's side of an exchange: the body of its request, and the way back to it. The implementations are in `h1/`, for
//! requests that were read whole and for streamed ones, and in `h2/`; the server's side is `upstream.rs`.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use pingora_core::Result;
use tokio::time::timeout;

use crate::policy::response_headers::ResponseHeaderPolicy;
use crate::proxy::body_time;
use crate::proxy::client_disconnected::ClientDisconnected;
use crate::wire::body::{Complete, Part};
use crate::wire::deadline::Deadline;
use crate::wire::response_head::Answer;
use crate::wire::response_view::ResponseHeadView;

/// The body of a request as the client sends it.
pub(crate) trait RequestBody {
    /// Whether the framing itself says where the body ends. A length in the head may turn out to be wrong at the end.
    const IS_FRAMED: bool;

    /// Whether nothing follows what was read.
    fn is_over(&self) -> bool;

    /// The next piece.
    async fn piece(&mut self) -> Result<Part>;

    /// The trailers, after the end.
    async fn trailers(&mut self) -> Result<Option<HeaderMap>>;

    /// Waits until the client has disconnected, after the end of the body.
    async fn disconnected(&mut self);
}

/// A client that waits for its response.
pub(crate) trait WaitingClient {
    /// An interim response: 100, or 103 with its links.
    async fn interim(&mut self, status: StatusCode, fields: &HeaderMap);

    /// Waits until the client no longer wants the response; forever where only reading its request can show that.
    async fn disconnected(&mut self);
}

/// The response on its way to a client. `timer` is the one timer of the exchange: each step of a write has the idle timeout.
pub(crate) trait Downstream: WaitingClient {
    /// Whether the client uses HTTP/2: then servers that offer it are used in HTTP/2, too.
    const IS_H2: bool;
    /// Whether the client's connection can switch to another protocol: then a 101 is a response.
    const CAN_SWITCH: bool;

    /// The head of a server's response, in the form that this downstream needs.
    type Head: ResponseHeadView;

    /// The head of a response in HTTP/1.
    fn head_of(answer: Answer) -> Result<Self::Head>;

    /// Whether the client sends its body only after a 100 Continue (RFC 9110, 10.1.1).
    fn expects_continue(&self) -> bool;

    /// The final head, as the policy changes it; with `end`, nothing follows it. Without, it may wait for the first piece of the
    /// body, or for [`Self::flush`].
    async fn head(
        &mut self,
        head: Self::Head,
        policy: ResponseHeaderPolicy<'_>,
        end: bool,
        timer: &mut Deadline,
    ) -> Result<(), ClientDisconnected>;

    /// A piece of the body. It may wait for [`Self::flush`], too.
    async fn data(&mut self, data: Bytes, timer: &mut Deadline) -> Result<(), ClientDisconnected>;

    /// Sends what waits: the server has sent no more so far.
    async fn flush(&mut self, timer: &mut Deadline) -> Result<(), ClientDisconnected>;

    /// The last piece of a whole body.
    async fn last_data(
        &mut self,
        data: Bytes,
        complete: Complete,
        timer: &mut Deadline,
    ) -> Result<(), ClientDisconnected> {
        self.data(data, timer).await?;
        self.end(complete, None, timer).await
    }

    /// The end of a whole body, perhaps with trailers.
    async fn end(
        &mut self,
        complete: Complete,
        trailers: Option<HeaderMap>,
        timer: &mut Deadline,
    ) -> Result<(), ClientDisconnected>;
}

/// Reads a body of at most `max` bytes; each error is the status to answer with.
pub(crate) async fn read_form(body: &mut impl RequestBody, max: usize) -> std::result::Result<Bytes, StatusCode> {
    let read = async {
        let mut form = BytesMut::new();
        while let Part::Data(part) = body.piece().await.map_err(|_| StatusCode::BAD_REQUEST)? {
            if form.len() + part.len() > max {
                return Err(StatusCode::PAYLOAD_TOO_LARGE);
            }
            form.extend_from_slice(&part);
        }
        Ok(form.freeze())
    };
    timeout(body_time::FORM_TIME, read).await.unwrap_or(Err(StatusCode::REQUEST_TIMEOUT))
}
