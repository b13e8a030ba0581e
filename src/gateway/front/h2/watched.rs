//! A client's connection in HTTP/2, on which each header block must be whole in time. The `h2` crate waits for the rest
//! of one as long as the connection stands: heads that are never sent to their end would cost nothing.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::super::wire::Wire;

/// Octets of the preface (RFC 9113, 3.4) and of a frame's head (4.1).
const PREFACE: usize = 24;
const FRAME_HEAD: usize = 9;

const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

pub(super) struct Watched {
    wire: Wire,
    /// Read off it before, and to be read first.
    begun: BytesMut,
    blocks: Blocks,
    /// For a whole header block.
    head_time: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

/// Follows the frames that come in, as far as to know whether a header block is under way.
struct Blocks {
    head: [u8; FRAME_HEAD],
    /// How much of a frame's head is there.
    known: usize,
    /// What is still to come of its payload.
    left: usize,
    /// A block has begun and not ended.
    open: bool,
    /// It ends with the payload.
    ends: bool,
}

impl Watched {
    pub(super) fn new(wire: Wire, begun: BytesMut, head_time: Duration) -> Self {
        Self { wire, begun, blocks: Blocks::new(), head_time, timer: None }
    }

    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        let head_time = self.head_time;
        self.timer.get_or_insert_with(|| Box::pin(sleep(head_time))).as_mut().poll(cx).is_ready()
    }
}

impl Blocks {
    /// The preface comes first.
    fn new() -> Self {
        Self { head: [0; FRAME_HEAD], known: 0, left: PREFACE, open: false, ends: true }
    }

    /// Whether a block, or a frame that may be of one, is under way.
    fn under_way(&self) -> bool {
        self.open || self.known > 0
    }

    /// Follows what was read; whether one was under way and ended.
    fn feed(&mut self, mut bytes: &[u8]) -> bool {
        let mut ended = false;
        while let Some((&byte, rest)) = bytes.split_first() {
            if self.left > 0 {
                let taken = self.left.min(bytes.len());
                self.left -= taken;
                bytes = &bytes[taken..];
            } else {
                self.head[self.known] = byte;
                self.known = (self.known + 1) % FRAME_HEAD;
                bytes = rest;
                if self.known > 0 {
                    continue;
                }
                let [a, b, c, kind, flags, ..] = self.head;
                self.left = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                let is_head = matches!(kind, HEADERS | CONTINUATION);
                self.open |= is_head;
                self.ends = !is_head || flags & END_HEADERS != 0;
            }
            if self.left == 0 && self.ends {
                (self.open, ended) = (false, true);
            }
        }
        ended
    }
}

impl AsyncRead for Watched {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let read = if this.begun.is_empty() {
            Pin::new(&mut this.wire).poll_read(cx, buf)
        } else {
            let taken = this.begun.len().min(buf.remaining());
            buf.put_slice(&this.begun.split_to(taken));
            Poll::Ready(Ok(()))
        };
        if this.blocks.feed(&buf.filled()[before..]) {
            this.timer = None;
        }
        if read.is_pending() && this.blocks.under_way() && this.is_late(cx) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().wire).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().wire).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().wire).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        [&[0, 0, u8::try_from(payload.len()).unwrap(), kind, flags, 0, 0, 0, 1], payload].concat()
    }

    /// However the bytes are cut, a block is under way from its first byte to its last, and nothing else is.
    #[test]
    fn a_block_is_under_way_until_it_has_ended() {
        let data = frame(0, 0, b"data that takes its time");
        let settings = frame(4, 0, &[]);
        let block = [frame(HEADERS, 0, b"begun"), frame(CONTINUATION, 0, &[]), frame(CONTINUATION, END_HEADERS, b"on")];
        let block = block.concat();
        let stream = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &settings, &data, &block, &data, &settings].concat();
        let begins = PREFACE + settings.len() + data.len();
        for piece in 1..40 {
            let mut blocks = Blocks::new();
            let mut at = 0;
            for bytes in stream.chunks(piece) {
                blocks.feed(bytes);
                at += bytes.len();
                let in_block = at > begins && at < begins + block.len();
                let own = at > begins + block.len() || at <= begins;
                assert!(!in_block || blocks.under_way(), "{at} of {piece}");
                assert!(!own || !blocks.open, "{at} of {piece}");
            }
            assert!(!blocks.under_way());
        }
    }
}
