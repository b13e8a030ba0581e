//! A streamed request body that can be sent again as long as it is small: a server may refuse a stream before it has processed
//! it, and then any request may be sent again (RFC 9113, 8.7).

use bytes::Bytes;
use http::HeaderMap;
use pingora_core::Result;

use super::buffered::BODY_BYTES_MAX;
use super::downstream::RequestBody;
use crate::wire::body::Part;

/// A body, and what has been read of it.
pub(super) struct ReplayBuffer<'u, U> {
    inner: &'u mut U,
    /// Empty once the body is too large.
    held: Vec<Bytes>,
    held_bytes: u64,
    is_whole: bool,
    /// The next of them to be returned.
    next: usize,
    /// Once they were read.
    trailers: Option<HeaderMap>,
    has_ended: bool,
}

impl<'u, U: RequestBody> ReplayBuffer<'u, U> {
    pub(super) fn new(inner: &'u mut U) -> Self {
        Self { inner, held: Vec::new(), held_bytes: 0, is_whole: true, next: 0, trailers: None, has_ended: false }
    }

    /// Starts again; `false` where a part is no longer held.
    pub(super) fn rewind(&mut self) -> bool {
        self.next = 0;
        self.is_whole
    }

    fn hold(&mut self, piece: &Bytes) {
        self.held_bytes += piece.len() as u64;
        if self.held_bytes > BODY_BYTES_MAX {
            (self.is_whole, self.next) = (false, 0);
            self.held = Vec::new();
        } else if self.is_whole {
            self.held.push(piece.clone());
            self.next = self.held.len();
        }
    }
}

impl<U: RequestBody> RequestBody for ReplayBuffer<'_, U> {
    const IS_FRAMED: bool = U::IS_FRAMED;

    fn is_over(&self) -> bool {
        self.next == self.held.len() && self.inner.is_over()
    }

    async fn piece(&mut self) -> Result<Part> {
        if let Some(piece) = self.held.get(self.next) {
            self.next += 1;
            return Ok(Part::Data(piece.clone()));
        }
        let part = self.inner.piece().await?;
        if let Part::Data(piece) = &part {
            self.hold(piece);
        }
        Ok(part)
    }

    async fn trailers(&mut self) -> Result<Option<HeaderMap>> {
        if !self.has_ended {
            self.trailers = self.inner.trailers().await?;
            self.has_ended = true;
        }
        Ok(self.trailers.clone())
    }

    async fn disconnected(&mut self) {
        self.inner.disconnected().await;
    }
}
