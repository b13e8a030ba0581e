//! What hyper reads of a connection, with a copy of each head. A read never crosses the end of a request, so that the next
//! head begins where a read begins, also where requests are pipelined or arrive in pieces.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::raw_head::{self, RawHead};

/// A whole head, bytes; also hyper's limit here.
pub(super) const HEAD_BYTES_MAX: usize = 64 * 1024;
/// What one read takes from the socket, bytes.
const READ_BYTES: usize = 8 * 1024;

/// Which part of a request comes next.
#[derive(Debug, Clone, Copy)]
enum Next {
    Head,
    /// A body with this many bytes left.
    Sized(u64),
    /// A chunked body: only hyper knows where it ends, and it ends with a line.
    Chunked,
}

/// The head last read, shared with the service that hyper calls for it.
#[derive(Debug, Clone)]
pub(super) struct Recorded(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    next: Next,
    head: Option<RawHead>,
}

impl Recorded {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(State { next: Next::Head, head: None })))
    }

    /// The head of the request that hyper has just read. `length` is that of its body, `None` if it is chunked.
    pub(super) fn take(&self, length: Option<u64>) -> Option<RawHead> {
        let mut state = self.0.lock();
        state.next = length.map_or(Next::Chunked, Next::Sized);
        state.head.take()
    }

    /// The body has been read to its end.
    pub(super) fn body_ended(&self) {
        self.0.lock().next = Next::Head;
    }
}

/// A byte stream and what was read ahead of it.
#[derive(Debug)]
pub(super) struct Recorder<S> {
    stream: S,
    ahead: BytesMut,
    /// How much at the start of `ahead` may be read now.
    released: usize,
    recorded: Recorded,
}

impl<S> Recorder<S> {
    pub(super) fn new(stream: S, recorded: Recorded) -> Self {
        Self { stream, ahead: BytesMut::new(), released: 0, recorded }
    }

    /// The stream, and what was read ahead of it.
    pub(super) fn into_parts(self) -> (S, Bytes) {
        (self.stream, self.ahead.freeze())
    }

    /// Releases what belongs to the present part of the request; nothing if the head is not whole yet.
    fn release(&mut self) {
        let mut state = self.recorded.0.lock();
        if let Next::Sized(0) = state.next {
            state.next = Next::Head;
        }
        self.released = match state.next {
            Next::Head => match raw_head::end(&self.ahead) {
                Some(end) => {
                    let readable = raw_head::with_readable_target(&self.ahead[..end]);
                    state.head = RawHead::parse(&self.ahead[..end], &readable);
                    self.ahead[..end].copy_from_slice(&readable);
                    end
                }
                // hyper refuses it
                None if self.ahead.len() >= HEAD_BYTES_MAX => self.ahead.len(),
                None => 0,
            },
            Next::Sized(left) => {
                let part = self.ahead.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                state.next = Next::Sized(left - part as u64);
                part
            }
            Next::Chunked => memchr::memchr(b'\n', &self.ahead).map_or(self.ahead.len(), |at| at + 1),
        };
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Recorder<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.released == 0 {
            this.release();
            if this.released > 0 {
                break;
            }
            let mut piece = [0; READ_BYTES];
            let mut read = ReadBuf::new(&mut piece);
            ready!(Pin::new(&mut this.stream).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                // hyper decides what an incomplete request is
                this.released = this.ahead.len();
                break;
            }
            this.ahead.extend_from_slice(read.filled());
        }
        let part = this.released.min(buf.remaining());
        buf.put_slice(&this.ahead[..part]);
        this.ahead.advance(part);
        this.released -= part;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Recorder<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
