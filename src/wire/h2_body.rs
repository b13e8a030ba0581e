//! What has come of a body in HTTP/2 and is not wanted yet. Whoever waits for the other end goes on taking frames out of
//! the `h2` crate, which bears few small ones: the window, and nothing else, stops a sender.

use std::collections::VecDeque;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use h2::RecvStream;
use http::HeaderMap;

/// Frames below this size are put together: one by one they would take more memory than the window says.
const COPIED: usize = 1 << 10;

/// A stream's body. It never holds more than the stream's window.
pub(crate) struct Inflow {
    stream: RecvStream,
    large: VecDeque<Bytes>,
    /// Behind those.
    small: BytesMut,
    /// Handed out, and given back to the window when the next piece is wanted.
    lent: usize,
    /// No data follows, perhaps by an error that is still to be told.
    ended: bool,
    failed: Option<h2::Error>,
}

impl Inflow {
    pub(crate) fn new(stream: RecvStream) -> Self {
        Self { stream, large: VecDeque::new(), small: BytesMut::new(), lent: 0, ended: false, failed: None }
    }

    /// Whether nothing follows what was handed out.
    pub(crate) fn is_over(&self) -> bool {
        self.holds_nothing() && self.failed.is_none() && self.stream.is_end_stream()
    }

    /// Whether the sender has ended it, handed out or not.
    pub(crate) fn has_come(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn holds_nothing(&self) -> bool {
        self.large.is_empty() && self.small.is_empty()
    }

    /// Takes in what has come; the task is woken when more does.
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
        // nothing but empty frames
        Poll::Pending
    }

    fn lend(&mut self, data: Bytes) -> Bytes {
        self.lent = data.len();
        data
    }

    /// What stands behind the body, once that was handed out.
    pub(crate) fn poll_trailers(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<HeaderMap>, h2::Error>> {
        self.stream.poll_trailers(cx)
    }
}
