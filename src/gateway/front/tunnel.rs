//! A WebSocket behind its 101: bytes pass both ways with backpressure, frames are followed so that a
//! Close can be put between two of them. A socket that is silent holds no buffer.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::wire::Wire;
use super::{Conn, Front};
use crate::gateway::frames::{Closing, FrameTracker};
use crate::gateway::guard::Guard;
use crate::gateway::record::Counts;

/// What one read takes at most.
const PIECE: usize = 16 << 10;
/// How long a frame that is under way may take to end, and then both ends to answer our Close.
const GRACE: Duration = Duration::from_millis(500);

thread_local! {
    /// Lent to whichever socket has something to say.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; PIECE].into_boxed_slice());
}

/// One direction.
#[derive(Default)]
struct Half {
    frames: FrameTracker,
    /// Read and not written yet: while there is any, nothing more is read.
    pending: BytesMut,
    bytes: usize,
    ended: bool,
    shut: bool,
    /// Our Close is in `pending` or gone: nothing of the sender's follows it.
    said_goodbye: bool,
}

/// How far the closing from outside has come.
struct Farewell {
    frame: Vec<u8>,
    mask: Vec<u8>,
    by: Instant,
}

/// Passes frames until one end is done with it or the session is.
pub(super) async fn run(front: &Front, conn: &mut Conn, mut server: Wire, first: &[u8], counts: &mut Counts) {
    let idle = front.gateway.config.limits.idle;
    let (mut up, mut down) = (Half::default(), Half::default());
    down.frames.feed(first);
    up.pending.unsplit(conn.buffer.split());
    let early = up.pending.clone();
    up.frames.feed(&early);
    let guard = conn.guard.clone();
    let mut farewell = None;
    let mut active = Instant::now();
    let mut timer = Box::pin(sleep_until(active + idle));
    poll_fn(|cx| {
        guard.register(cx.waker());
        if farewell.is_none() {
            farewell = begin(&guard);
        }
        let closing = farewell.as_ref();
        let moved = up.pump(&mut conn.wire, &mut server, closing.map(|farewell| farewell.mask.as_slice()), cx)
            | down.pump(&mut server, &mut conn.wire, closing.map(|farewell| farewell.frame.as_slice()), cx);
        if up.is_over() && down.is_over() {
            return Poll::Ready(());
        }
        if moved {
            active = Instant::now();
        }
        let by = closing.map_or(active + idle, |farewell| farewell.by);
        poll_timer(&mut timer, by, cx)
    })
    .await;
    counts.bytes_in += up.bytes;
    counts.bytes_out += down.bytes;
}

fn begin(guard: &Guard) -> Option<Farewell> {
    let why: Closing = guard.closed_for()?;
    Some(Farewell { frame: why.server_frame(), mask: why.client_frame(), by: Instant::now() + GRACE })
}

/// Ready when `by` has passed. The timer is moved only when it would ring too late, or has rung too early:
/// most bytes never touch it.
fn poll_timer(timer: &mut Pin<Box<Sleep>>, by: Instant, cx: &mut Context<'_>) -> Poll<()> {
    if timer.deadline() > by {
        timer.as_mut().reset(by);
    }
    while timer.as_mut().poll(cx).is_ready() {
        if Instant::now() >= by {
            return Poll::Ready(());
        }
        timer.as_mut().reset(by);
    }
    Poll::Pending
}

impl Half {
    /// Moves bytes from one end to the other as long as both are ready; whether any were moved. With
    /// `close`, the frame under way is let through, then that one is sent and nothing more.
    fn pump(&mut self, from: &mut Wire, to: &mut Wire, close: Option<&[u8]>, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        loop {
            if let Some(frame) = close {
                self.say_goodbye(frame);
            }
            match self.flush(to, cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => {
                    self.end();
                    return moved;
                }
                Poll::Pending => return moved,
            }
            if self.ended {
                if !self.shut && Pin::new(&mut *to).poll_shutdown(cx).is_ready() {
                    self.shut = true;
                }
                return moved;
            }
            match self.fill(from, close.is_some(), cx) {
                Poll::Ready(0) => self.ended = true,
                Poll::Ready(_) => moved = true,
                Poll::Pending => return moved,
            }
        }
    }

    /// Reads a piece; 0 at the end.
    fn fill(&mut self, from: &mut Wire, closing: bool, cx: &mut Context<'_>) -> Poll<usize> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buf = ReadBuf::new(scratch);
            match Pin::new(from).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(0),
                Poll::Pending => return Poll::Pending,
            }
            let bytes = buf.filled();
            if self.said_goodbye {
                // an answer to our Close, or what the sender does not know yet to be too late
                self.frames.feed(bytes);
                return Poll::Ready(if self.frames.closed() { 0 } else { bytes.len() });
            }
            let passed = if closing { self.frames.feed_frame(bytes) } else { self.frames.feed(bytes) };
            self.bytes += passed;
            self.pending.extend_from_slice(&bytes[..passed]);
            Poll::Ready(bytes.len())
        })
    }

    fn flush(&mut self, to: &mut Wire, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.pending.is_empty() {
            match Pin::new(&mut *to).poll_write(cx, &self.pending) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => self.pending.advance(written),
                Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                Poll::Pending => return Poll::Pending,
            }
        }
        if self.pending.capacity() > 0 {
            self.pending = BytesMut::new();
        }
        Pin::new(to).poll_flush(cx)
    }

    /// Puts our Close behind the last frame, once, if one may still be sent.
    fn say_goodbye(&mut self, frame: &[u8]) {
        if self.said_goodbye || self.ended || !self.frames.at_border() {
            return;
        }
        if !self.frames.closed() {
            self.pending.extend_from_slice(frame);
        }
        self.said_goodbye = true;
    }

    fn end(&mut self) {
        (self.ended, self.shut) = (true, true);
        self.pending.clear();
    }

    fn is_over(&self) -> bool {
        self.ended && self.shut
    }
}
