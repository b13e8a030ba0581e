//! A connection as pingora reads it: the head that the front has read already comes first, chunks are held
//! to our own rules, an answer that does not begin in time is given up, and closing from outside ends it.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use bytes::{Buf as _, BytesMut};
use pingora_core::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, Ssl, TimingDigest, UniqueID, UniqueIDType,
};
use pingora_core::protocols::{SocketDigest, raw_connect::ProxyDigest};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::front::chunks::Chunks;
use super::front::wire::Wire;
use super::guard::Guard;

/// Handed to pingora for one request.
pub(crate) struct GuardedStream {
    inner: Wire,
    guard: Arc<Guard>,
    /// What the front has read and pingora has not.
    unread: BytesMut,
    /// Of a chunked body: how much of the head is still to come before it, and what of it has passed.
    chunked: Option<(usize, Chunks)>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl GuardedStream {
    /// `head` is how much of `unread` comes before a body that is chunked.
    pub(crate) fn new(inner: Wire, guard: Arc<Guard>, unread: BytesMut, head: Option<usize>) -> Self {
        Self { inner, guard, unread, chunked: head.map(|left| (left, Chunks::default())), timer: None }
    }

    /// What the filters above share with this stream.
    pub(crate) fn guard(&self) -> &Arc<Guard> {
        &self.guard
    }

    /// The socket again, if nothing is left that was read from it.
    pub(crate) fn into_inner(self) -> Option<Wire> {
        self.unread.is_empty().then_some(self.inner)
    }

    /// Holds a chunked body to the rules of [`Chunks`]: pingora's reader lets more pass. Says how many of
    /// these bytes it may have; after the first that it may not have there are none.
    fn follow(&mut self, bytes: &[u8]) -> usize {
        let Some((head, chunks)) = &mut self.chunked else { return bytes.len() };
        let mut good = bytes.len().min(*head);
        *head -= good;
        while good < bytes.len() && !chunks.is_done() {
            let Ok((taken, _)) = chunks.take(&bytes[good..]) else {
                self.guard.mark_malformed();
                return good;
            };
            good += taken;
        }
        bytes.len()
    }

    /// Whether the answer should have begun by now; polls the one timer of this request.
    fn is_overdue(&mut self, due: Instant, cx: &mut Context<'_>) -> bool {
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        if timer.deadline() != due {
            timer.as_mut().reset(due);
        }
        timer.as_mut().poll(cx).is_ready()
    }
}

impl AsyncRead for GuardedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.guard.register(cx.waker());
        if self.guard.closed_for().is_some() {
            return Poll::Ready(Ok(()));
        }
        if let Some(due) = self.guard.answer_due()
            && self.is_overdue(due, cx)
        {
            self.guard.mark_overdue();
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if self.guard.is_malformed() {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        let before = buf.filled().len();
        if self.unread.is_empty() {
            ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        } else {
            let taken = self.unread.len().min(buf.remaining());
            buf.put_slice(&self.unread[..taken]);
            self.unread.advance(taken);
        }
        let good = self.follow(&buf.filled()[before..]);
        buf.set_filled(before + good);
        if good == 0 && self.guard.is_malformed() {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for GuardedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        // a client that does not read is not waited for
        self.guard.register(cx.waker());
        if self.guard.closed_for().is_some() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl fmt::Debug for GuardedStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardedStream").field("inner", &self.inner).finish_non_exhaustive()
    }
}

#[async_trait]
impl Shutdown for GuardedStream {
    async fn shutdown(&mut self) {
        let _ = self.inner.shutdown().await;
    }
}

// the digests are for logs of pingora's own, which are off
impl UniqueID for GuardedStream {
    fn id(&self) -> UniqueIDType {
        0
    }
}

impl Ssl for GuardedStream {}

impl GetTimingDigest for GuardedStream {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for GuardedStream {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for GuardedStream {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }
}

impl Peek for GuardedStream {}
