//! The two ends that a streamed exchange reads and writes: what the client speaks is behind [`Upload`] and [`Download`], what
//! the server speaks behind `upstream.rs`; between them there is one exchange.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use pingora_core::Result;
use pingora_http::ResponseHeader;
use tokio::time::timeout;

use crate::proxy::body_time;
use crate::proxy::client_disconnected::ClientDisconnected;
use crate::wire::body::{Complete, Part};

/// A request's body, as its client sends it.
pub(crate) trait Upload {
    /// Whether its framing says how long it is. Where a head alone does, that may turn out to be wrong at the end.
    const IS_FRAMED: bool;

    /// Whether nothing follows what was read.
    fn is_over(&self) -> bool;

    /// The next piece.
    async fn piece(&mut self) -> Result<Part>;

    /// What stands behind it.
    async fn trailers(&mut self) -> Result<Option<HeaderMap>>;

    /// Waits until the client has gone, once the body is over.
    async fn gone(&mut self);
}

/// The way back to a client.
pub(crate) trait Download {
    /// Whether servers are asked in HTTP/2 for it where they offer that.
    const TAKES_H2: bool;

    /// Whether it sends its body only when the server asks for that (RFC 9110, 10.1.1).
    fn holds_back(&self) -> bool;

    /// An interim answer of the server's: 100, or 103 with its links.
    async fn inform(&mut self, status: StatusCode, links: &HeaderMap);

    /// The final head; with `end`, nothing follows it.
    async fn head(&mut self, head: ResponseHeader, end: bool) -> Result<(), ClientDisconnected>;

    /// A piece of the body.
    async fn data(&mut self, data: Bytes) -> Result<(), ClientDisconnected>;

    /// The end of a whole body, perhaps with trailers.
    async fn end(&mut self, whole: Complete, trailers: Option<HeaderMap>) -> Result<(), ClientDisconnected>;

    /// Waits until the client takes its request back; for ever where its body alone could tell.
    async fn gone(&mut self);
}

/// Reads a body of at most `max` bytes; each error is the status to answer with.
pub(crate) async fn read_form(body: &mut impl Upload, max: usize) -> std::result::Result<Bytes, StatusCode> {
    let whole = async {
        let mut form = BytesMut::new();
        while let Part::Data(part) = body.piece().await.map_err(|_| StatusCode::BAD_REQUEST)? {
            if form.len() + part.len() > max {
                return Err(StatusCode::PAYLOAD_TOO_LARGE);
            }
            form.extend_from_slice(&part);
        }
        Ok(form.freeze())
    };
    timeout(body_time::FORM_TIME, whole).await.unwrap_or(Err(StatusCode::REQUEST_TIMEOUT))
}
