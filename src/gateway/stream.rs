//! The stream between listener and parser: head deadline, request lines that the parser would
//! repair, the deadline of an answer, and the closing of live WebSockets from outside. It never
//! reads a request's meaning.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream, TimingDigest,
    UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::conn::Counted;
use super::frames::FrameTracker;
use super::guard::Guard;
use super::{Gateway, record};

/// How long the backend has to answer our Close frame before the connection ends anyway.
const CLOSE_HANDSHAKE: Duration = Duration::from_millis(500);

/// The stream that pingora reads requests from and writes answers to.
pub(crate) struct GuardedStream {
    inner: Stream,
    guard: Arc<Guard>,
    gateway: Gateway,
    address: Option<IpAddr>,
    timer: Option<Pin<Box<Sleep>>>,
    head_began: Option<Instant>,
    line: LineCheck,
    round: u32,
    from_client: FrameTracker,
    to_client: FrameTracker,
    farewell: Farewell,
    /// Status of an answer that the parser wrote to a head that it did not hand on.
    unread: Option<u16>,
    _counted: Counted,
}

/// How far the closing of a WebSocket has come.
#[derive(Debug)]
enum Farewell {
    NotYet,
    /// Our Close frame to the client, as far as it is not written yet; the backend's comes next.
    ToClient(Vec<u8>),
    /// Waiting for the backend's Close frame.
    FromBackend,
    Done,
}

impl GuardedStream {
    pub(crate) fn new(inner: Stream, counted: Counted, gateway: Gateway, address: Option<IpAddr>) -> Self {
        Self {
            inner,
            guard: Arc::new(Guard::new()),
            gateway,
            address,
            timer: None,
            head_began: None,
            line: LineCheck::default(),
            round: 0,
            from_client: FrameTracker::default(),
            to_client: FrameTracker::default(),
            farewell: Farewell::NotYet,
            unread: None,
            _counted: counted,
        }
    }

    /// What the filters above share with this stream.
    pub(crate) fn guard(&self) -> &Arc<Guard> {
        &self.guard
    }

    /// Polls the one timer of this connection; true when it stood at `due` or later.
    fn is_past(&mut self, due: Instant, cx: &mut Context<'_>) -> bool {
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        // moved only when it would ring too late: most requests never touch it
        if timer.deadline() > due || (timer.is_elapsed() && Instant::now() < due) {
            timer.as_mut().reset(due);
        }
        loop {
            if timer.as_mut().poll(cx).is_pending() {
                return false;
            }
            if Instant::now() >= due {
                return true;
            }
            timer.as_mut().reset(due);
        }
    }

    /// Deadlines of a request: its head must come whole in time, its answer must begin in time.
    fn poll_deadlines(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if let Some(round) = self.guard.awaited_round() {
            if round != self.round {
                self.round = round;
                self.head_began = None;
                self.line = LineCheck::default();
            }
            let late =
                self.head_began.is_some_and(|began| self.is_past(began + self.gateway.config.limits.head_time, cx));
            return if late { Poll::Ready(io::ErrorKind::TimedOut.into()) } else { Poll::Pending };
        }
        if let Some(due) = self.guard.answer_due()
            && self.is_past(due, cx)
        {
            self.guard.mark_overdue();
            return Poll::Ready(io::ErrorKind::TimedOut.into());
        }
        Poll::Pending
    }

    /// Looks at what the client sent: request line of a head, or frames.
    fn watch(&mut self, bytes: &[u8]) {
        if self.guard.is_upgraded() {
            self.from_client.feed(bytes);
        } else if self.guard.awaited_round().is_some() {
            self.head_began.get_or_insert_with(Instant::now);
            if self.line.is_bad_after(bytes) {
                self.guard.mark_bad_line();
            }
        }
    }

    /// Says goodbye: a Close frame to the client, one to the backend (as if the client had sent it),
    /// then a short wait for the backend's own, then the end. `None`: nothing to be closed.
    fn poll_farewell(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Option<Poll<io::Result<()>>> {
        let why = self.guard.closed_for()?;
        if !self.guard.is_upgraded() {
            return Some(Poll::Ready(Ok(())));
        }
        loop {
            match &mut self.farewell {
                Farewell::NotYet => {
                    let possible = self.to_client.at_border() && !self.to_client.closed();
                    self.farewell = Farewell::ToClient(if possible { why.server_frame() } else { Vec::new() });
                }
                Farewell::ToClient(frame) if !frame.is_empty() => {
                    match Pin::new(&mut self.inner).poll_write(cx, frame) {
                        Poll::Ready(Ok(written)) if written > 0 => drop(frame.drain(..written)),
                        Poll::Ready(_) => self.farewell = Farewell::Done,
                        Poll::Pending => return Some(Poll::Pending),
                    }
                }
                Farewell::ToClient(_) => {
                    let _ = Pin::new(&mut self.inner).poll_flush(cx);
                    self.head_began = Some(Instant::now());
                    self.farewell = Farewell::FromBackend;
                    let frame = why.client_frame();
                    let possible = self.from_client.at_border() && !self.from_client.closed();
                    if possible && buf.remaining() >= frame.len() {
                        buf.put_slice(&frame);
                        return Some(Poll::Ready(Ok(())));
                    }
                }
                Farewell::FromBackend => {
                    let began = self.head_began.unwrap_or_else(Instant::now);
                    let over = self.to_client.closed() || self.is_past(began + CLOSE_HANDSHAKE, cx);
                    if !over {
                        return Some(Poll::Pending);
                    }
                    self.farewell = Farewell::Done;
                }
                Farewell::Done => return Some(Poll::Ready(Ok(()))),
            }
        }
    }
}

impl AsyncRead for GuardedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.guard.register(cx.waker());
        if let Some(farewell) = self.poll_farewell(cx, buf) {
            return farewell;
        }
        if let Poll::Ready(late) = self.poll_deadlines(cx) {
            return Poll::Ready(Err(late));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        self.watch(&buf.filled()[before..]);
        if self.head_began.is_some() {
            // arms the timer: without it a head that stops half-way would never be looked at again
            let _ = self.poll_deadlines(cx);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for GuardedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let upgraded = self.guard.is_upgraded();
        if upgraded && !matches!(self.farewell, Farewell::NotYet) {
            // the client has our Close frame; nothing may follow it (RFC 6455, 5.5.1)
            self.to_client.feed_answer(bytes);
            self.guard.wake();
            return Poll::Ready(Ok(bytes.len()));
        }
        if self.unread.is_none() && self.guard.awaited_round() == Some(self.round) && self.head_began.is_some() {
            self.unread = status_in(bytes);
        }
        let written = ready!(Pin::new(&mut self.inner).poll_write(cx, bytes))?;
        if upgraded {
            self.to_client.feed_answer(&bytes[..written]);
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.guard.is_upgraded() {
            let first = slices.iter().find(|slice| !slice.is_empty()).map_or(&[][..], |slice| slice);
            return self.poll_write(cx, first);
        }
        Pin::new(&mut self.inner).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

impl Drop for GuardedStream {
    fn drop(&mut self) {
        if let Some(status) = self.unread {
            record::unread(&self.gateway, self.address, status);
        }
    }
}

/// The code in a status line.
fn status_in(bytes: &[u8]) -> Option<u16> {
    let digits = bytes.strip_prefix(b"HTTP/1.1 ").or(bytes.strip_prefix(b"HTTP/1.0 "))?.get(..3)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Follows the request line of each head: exactly two spaces, visible ASCII, CR before LF. Pingora
/// would repair other lines (a space in the target becomes `%20`), and what is repaired is not what
/// was asked for (RFC 9112, 3.2).
#[derive(Debug, Default)]
struct LineCheck {
    spaces: u8,
    last: u8,
    begun: bool,
    done: bool,
}

impl LineCheck {
    fn is_bad_after(&mut self, bytes: &[u8]) -> bool {
        if self.done {
            return false;
        }
        for &byte in bytes {
            match byte {
                b'\n' => {
                    let bare = self.last != b'\r';
                    self.last = byte;
                    // empty lines before a request line are let through (RFC 9112, 2.2)
                    if self.begun {
                        self.done = true;
                        return bare || self.spaces != 2;
                    }
                }
                b'\r' => self.last = byte,
                0..=0x1f | 0x7f..=0xff => return true,
                _ => {
                    // a fragment is no part of a target; the parser would cut it off
                    let fragment = byte == b'#' && self.spaces == 1;
                    if self.last == b'\r' || fragment || (byte == b' ' && self.last == b' ') {
                        return true;
                    }
                    self.spaces += u8::from(byte == b' ');
                    if self.spaces > 2 {
                        return true;
                    }
                    self.last = byte;
                    self.begun = true;
                }
            }
        }
        false
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
        self.inner.shutdown().await;
    }
}

impl UniqueID for GuardedStream {
    fn id(&self) -> UniqueIDType {
        self.inner.id()
    }
}

// plain listeners alone so far: nothing about TLS to pass on
impl Ssl for GuardedStream {}

impl GetTimingDigest for GuardedStream {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.inner.get_timing_digest()
    }
}

impl GetProxyDigest for GuardedStream {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.inner.get_proxy_digest()
    }
}

impl GetSocketDigest for GuardedStream {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.inner.get_socket_digest()
    }
}

impl Peek for GuardedStream {}
