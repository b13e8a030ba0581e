//! A request's body that can be sent again, as long as it is small: a server in HTTP/2 may refuse a stream that it has
//! not looked at, and then it may be asked once more whatever the method (RFC 9113, 8.7).

use bytes::Bytes;
use http::HeaderMap;
use pingora_core::Result;

use super::downstream::Upload;
use crate::proxy::h1::request_body::BODY_MAX;
use crate::wire::body::Part;

/// What came of a body so far, held.
pub(super) struct Replay<'u, U> {
    inner: &'u mut U,
    /// Nothing, once it is too much.
    held: Vec<Bytes>,
    held_bytes: u64,
    is_whole: bool,
    /// The next of them to be given out.
    next: usize,
    /// What stands behind it, once that was read.
    trailers: Option<HeaderMap>,
    has_ended: bool,
}

impl<'u, U: Upload> Replay<'u, U> {
    pub(super) fn new(inner: &'u mut U) -> Self {
        Self { inner, held: Vec::new(), held_bytes: 0, is_whole: true, next: 0, trailers: None, has_ended: false }
    }

    /// Begins anew; `false`: it cannot.
    pub(super) fn rewind(&mut self) -> bool {
        self.next = 0;
        self.is_whole
    }

    fn hold(&mut self, piece: &Bytes) {
        self.held_bytes += piece.len() as u64;
        if self.held_bytes > BODY_MAX {
            (self.is_whole, self.next) = (false, 0);
            self.held = Vec::new();
        } else if self.is_whole {
            self.held.push(piece.clone());
            self.next = self.held.len();
        }
    }
}

impl<U: Upload> Upload for Replay<'_, U> {
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

    async fn gone(&mut self) {
        self.inner.gone().await;
    }
}
