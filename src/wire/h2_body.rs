//! The part of a body in HTTP/2 that has arrived and is not needed yet. A stream that waits for its other side continues to take
//! frames out of the `h2` crate, which tolerates few small ones: only the window stops a sender.

use std::collections::VecDeque;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use h2::RecvStream;
use http::HeaderMap;

/// Frames below this size are joined: separately they would take more memory than the window allows.
const COPIED: usize = 1 << 10;

/// A stream's body. It never holds more than the stream's window.
pub(crate) struct Inflow {
    stream: RecvStream,
    large: VecDeque<Bytes>,
    /// After those.
    small: BytesMut,
    /// Bytes returned last, and released to the window when the next piece is requested.
    lent: usize,
    /// No data follows, perhaps because of an error that is yet to be returned.
    ended: bool,
    failed: Option<h2::Error>,
}

impl Inflow {
    pub(crate) fn new(stream: RecvStream) -> Self {
        Self { stream, large: VecDeque::new(), small: BytesMut::new(), lent: 0, ended: false, failed: None }
    }

    /// Whether nothing follows what was returned.
    pub(crate) fn is_over(&self) -> bool {
        self.holds_nothing() && self.failed.is_none() && self.stream.is_end_stream()
    }

    /// Whether the sender has ended it, returned or not.
    pub(crate) fn has_come(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn holds_nothing(&self) -> bool {
        self.large.is_empty() && self.small.is_empty()
    }

    /// Takes what has arrived; the task is woken when more does.
    pub(crate) fn fill(&mut self, cx: &mut Context<'_>) {
        while !self.ended
            && let Poll::Ready(next) = self.stream.poll_data(cx)
        {
            match next {
                Some(Ok(data)) => self.put(data),
                end => {
                    self.ended = true;
                    self.failed = end.and_then(Result::err);
                }
            }
        }
    }

    fn put(&mut self, data: Bytes) {
        if data.len() < COPIED {
            self.small.extend_from_slice(&data);
            return;
        }
        if !self.small.is_empty() {
            self.large.push_back(self.small.split().freeze());
        }
        self.large.push_back(data);
    }

    /// The next piece, never an empty one; `None` at the end.
    pub(crate) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, h2::Error>>> {
        let _ = self.stream.flow_control().release_capacity(std::mem::take(&mut self.lent));
        if self.holds_nothing() && !self.ended {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) if data.len() >= COPIED => return Poll::Ready(Some(Ok(self.lend(data)))),
                Some(Ok(data)) => self.put(data),
                end => {
                    self.ended = true;
                    self.failed = end.and_then(Result::err);
                }
            }
            self.fill(cx);
        }
        if let Some(data) = self.large.pop_front() {
            return Poll::Ready(Some(Ok(self.lend(data))));
        }
        if !self.small.is_empty() {
            let data = self.small.split().freeze();
            return Poll::Ready(Some(Ok(self.lend(data))));
        }
        if self.ended {
            return Poll::Ready(self.failed.take().map(Err));
        }
        // only empty frames
        Poll::Pending
    }

    fn lend(&mut self, data: Bytes) -> Bytes {
        self.lent = data.len();
        data
    }

    /// The trailers, once the body was returned.
    pub(crate) fn poll_trailers(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<HeaderMap>, h2::Error>> {
        self.stream.poll_trailers(cx)
    }
}
