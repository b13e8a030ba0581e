//! A connection as the `h2` crate reads it, a client's or a server's. Small DATA frames are passed on in batches, and the streams
//! take them before the next batch: the crate keeps each frame in memory, and ends the connection when there are too many. It
//! tolerates a hundred empty frames per connection, and some servers send one for each empty piece of a response: they are left
//! out here. And each header block must be complete in time: the crate waits for the rest of one without a limit.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::stream::Stream;

/// Octets of the preface (RFC 9113, 3.4) and of a frame's head (4.1).
const PREFACE: usize = 24;
const FRAME_HEAD: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// DATA frames of less than this are small: the crate counts the difference against the connection.
const SMALL: usize = 256;
/// Small frames that are passed on in one run of the connection's task: a quarter of what the crate tolerates.
const SMALL_A_RUN: usize = 128;
/// Consecutive empty frames that are left out. The crate counts those after them.
const HOLLOW_IN_A_ROW: u8 = 100;

pub(crate) struct PacedStream {
    stream: Stream,
    frames: Frames,
    /// Read, and held for the next run.
    held: BytesMut,
    pace: Pace,
    /// For a complete header block; a server has as long as its response may take.
    head_time: Option<Duration>,
    timer: Option<Pin<Box<Sleep>>>,
}

/// How many small frames may be passed on in this run.
#[derive(Clone, Default)]
pub(crate) struct Pace(Arc<AtomicUsize>);

/// Tracks incoming frames: their length, and whether a header block has begun.
struct Frames {
    head: [u8; FRAME_HEAD],
    /// How many bytes of a frame's head have arrived.
    known: usize,
    /// Bytes of its payload that are still to arrive.
    left: usize,
    /// A block has begun and not ended.
    open: bool,
    /// It ends with the payload.
    ends: bool,
    /// Empty DATA frames since the last frame of a message that was not empty.
    in_a_row: u8,
}

impl Pace {
    /// Runs the task of a connection; its streams run in between.
    pub(crate) async fn keep<T>(self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|cx| {
            self.0.store(SMALL_A_RUN, Ordering::Relaxed);
            work.as_mut().poll(cx)
        })
        .await
    }
}

impl PacedStream {
    /// A client's connection; `begun` are the bytes read already. The task must be run with the [`Pace`].
    pub(crate) fn downstream(stream: Stream, begun: BytesMut, head_time: Duration) -> (Self, Pace) {
        let (paced, pace) = Self::new(stream, Some(head_time), PREFACE);
        (Self { held: begun, ..paced }, pace)
    }

    /// A server's.
    pub(crate) fn upstream(stream: Stream) -> (Self, Pace) {
        Self::new(stream, None, 0)
    }

    fn new(stream: Stream, head_time: Option<Duration>, preface: usize) -> (Self, Pace) {
        let pace = Pace::default();
        let (held, frames) = (BytesMut::new(), Frames::new(preface));
        (Self { stream, frames, held, pace: pace.clone(), head_time, timer: None }, pace)
    }

    /// Passes on what this run allows, without empty frames, and holds the rest.
    fn follow(&mut self, buf: &mut ReadBuf<'_>, before: usize) {
        let (mut small, mut hollow) = (self.pace.0.load(Ordering::Relaxed), Vec::new());
        let (taken, ended) = self.frames.feed(&buf.filled()[before..], &mut small, &mut hollow);
        self.pace.0.store(small, Ordering::Relaxed);
        if ended {
            self.timer = None;
        }
        if before + taken < buf.filled().len() {
            // what was held is first
            let rest = BytesMut::from(&buf.filled()[before + taken..]);
            let later = std::mem::replace(&mut self.held, rest);
            self.held.extend_from_slice(&later);
            buf.set_filled(before + taken);
        }
        for at in hollow.into_iter().rev() {
            let filled = buf.filled().len();
            buf.filled_mut().copy_within(before + at + FRAME_HEAD.., before + at);
            buf.set_filled(filled - FRAME_HEAD);
        }
    }

    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(head_time) = self.head_time.filter(|_| self.frames.under_way()) else { return false };
        self.timer.get_or_insert_with(|| Box::pin(sleep(head_time))).as_mut().poll(cx).is_ready()
    }
}

impl Frames {
    /// The preface comes first.
    fn new(preface: usize) -> Self {
        Self { head: [0; FRAME_HEAD], known: 0, left: preface, open: false, ends: true, in_a_row: 0 }
    }

    /// Whether a block, or a frame that may be of one, is under way.
    fn under_way(&self) -> bool {
        self.open || self.known > 0
    }

    /// Tracks what was read, up to the end of the last one of so many `small` frames: how many bytes that is, and whether a
    /// header block ended. `hollow` gets the start of each frame that can be left out: not one whose head was split over two
    /// reads, since a part was passed on already.
    fn feed(&mut self, mut bytes: &[u8], small: &mut usize, hollow: &mut Vec<usize>) -> (usize, bool) {
        let (length, mut ended) = (bytes.len(), false);
        while let Some((&byte, rest)) = bytes.split_first() {
            if self.left > 0 {
                let taken = self.left.min(bytes.len());
                self.left -= taken;
                bytes = &bytes[taken..];
            } else {
                if self.known == 0 && *small == 0 {
                    break;
                }
                self.head[self.known] = byte;
                self.known = (self.known + 1) % FRAME_HEAD;
                bytes = rest;
                if self.known > 0 {
                    continue;
                }
                if self.begin(small)
                    && let Some(at) = (length - bytes.len()).checked_sub(FRAME_HEAD)
                {
                    hollow.push(at);
                }
            }
            if self.left == 0 && self.ends {
                (self.open, ended) = (false, true);
            }
        }
        (length - bytes.len(), ended)
    }

    /// A frame's head is complete. Returns whether nothing is lost without the frame.
    fn begin(&mut self, small: &mut usize) -> bool {
        let [a, b, c, kind, flags, ..] = self.head;
        self.left = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        let is_head = matches!(kind, HEADERS | CONTINUATION);
        // within a block it is an error of the peer
        let is_hollow = kind == DATA && self.left == 0 && flags & END_STREAM == 0 && !self.open;
        if is_hollow {
            self.in_a_row = self.in_a_row.saturating_add(1);
        } else if is_head || kind == DATA {
            self.in_a_row = 0;
        }
        self.open |= is_head;
        self.ends = !is_head || flags & END_HEADERS != 0;
        if kind == DATA && self.left < SMALL {
            *small = small.saturating_sub(1);
        }
        is_hollow && self.in_a_row <= HOLLOW_IN_A_ROW
    }
}

impl AsyncRead for PacedStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        loop {
            if this.pace.0.load(Ordering::Relaxed) == 0 {
                // after the streams that have data to take
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if this.held.is_empty() {
                let read = Pin::new(&mut this.stream).poll_read(cx, buf);
                if read.is_pending() && this.is_late(cx) {
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
                ready!(read)?;
            } else {
                let some = this.held.len().min(buf.remaining());
                buf.put_slice(&this.held[..some]);
                this.held.advance(some);
            }
            let is_end = buf.filled().len() == before;
            this.follow(buf, before);
            // no bytes would mean the end
            if is_end || buf.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for PacedStream {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        [&[0, 0, u8::try_from(payload.len()).unwrap(), kind, flags, 0, 0, 0, 1], payload].concat()
    }

    /// However the bytes are split, a block is open from its first byte to its last, and at no other time.
    #[test]
    fn a_block_is_under_way_until_it_has_ended() {
        let data = frame(0, 0, b"data that takes its time");
        let settings = frame(4, 0, &[]);
        let block = [frame(HEADERS, 0, b"begun"), frame(CONTINUATION, 0, &[]), frame(CONTINUATION, END_HEADERS, b"on")];
        let block = block.concat();
        let stream = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &settings, &data, &block, &data, &settings].concat();
        let begins = PREFACE + settings.len() + data.len();
        for piece in 1..40 {
            let mut blocks = Frames::new(PREFACE);
            let mut at = 0;
            for bytes in stream.chunks(piece) {
                assert_eq!(blocks.feed(bytes, &mut 1_000, &mut Vec::new()).0, bytes.len());
                at += bytes.len();
                let in_block = at > begins && at < begins + block.len();
                let own = at > begins + block.len() || at <= begins;
                assert!(!in_block || blocks.under_way(), "{at} of {piece}");
                assert!(!own || !blocks.open, "{at} of {piece}");
            }
            assert!(!blocks.under_way());
        }
    }
    /// No data, end or other frame is lost, and what exceeds the limit is left to the crate.
    #[test]
    fn frames_that_hold_nothing_are_left_out_so_many_in_a_row() {
        let most = usize::from(HOLLOW_IN_A_ROW);
        let (hollow, full) = (frame(DATA, 0, &[]), frame(DATA, 0, b"some"));
        let of = |sent: &[u8]| {
            let mut found = Vec::new();
            assert_eq!(Frames::new(0).feed(sent, &mut 10_000, &mut found).0, sent.len());
            found
        };
        assert_eq!(of(&[hollow.clone(), full.clone(), hollow.clone()].concat()), [0, FRAME_HEAD + full.len()]);
        assert_eq!(of(&frame(DATA, END_STREAM, &[])), [0; 0]);
        assert_eq!(of(&frame(4, 0, &[])), [0; 0]);
        assert_eq!(of(&[frame(HEADERS, 0, b"begun"), hollow.clone()].concat()), [0; 0]);
        // padding is a part of the window
        assert_eq!(of(&frame(DATA, 8, &[1, 0])), [0; 0]);
        assert_eq!(of(&hollow.repeat(2 * most)).len(), most);
        let ping = [hollow.clone(), frame(6, 0, &[0; 8])].concat();
        assert_eq!(of(&ping.repeat(2 * most)).len(), most);
        assert_eq!(of(&[hollow.clone(), full].concat().repeat(2 * most)).len(), 2 * most);
        let mut frames = Frames::new(0);
        let mut found = Vec::new();
        frames.feed(&hollow[..4], &mut 9, &mut found);
        frames.feed(&[&hollow[4..], &hollow].concat(), &mut 9, &mut found);
        assert_eq!(found, [FRAME_HEAD - 4], "a part of the first is gone");
    }

    /// What is held arrives later, complete and in order.
    #[tokio::test]
    async fn small_frames_come_so_many_a_run_and_large_ones_as_they_are() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let small = frame(DATA, 0, b"one message").repeat(1_000);
        let large = [&[0, 64, 0, DATA, 0, 0, 0, 0, 1], vec![7; 16 << 10].as_slice()].concat();
        let sent = [small.clone(), large.repeat(20), small].concat();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = Stream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut other, _) = listener.accept().await.unwrap();
        let bytes = sent.clone();
        tokio::spawn(async move { other.write_all(&bytes).await.unwrap() });
        let (mut paced, pace) = PacedStream::upstream(stream);
        let mut runs = 0;
        let work = async {
            let (mut read, mut piece) = (Vec::new(), [0; 8 << 10]);
            while read.len() < sent.len() {
                let some = paced.read(&mut piece).await.unwrap();
                read.extend_from_slice(&piece[..some]);
            }
            read
        };
        let mut work = pin!(pace.keep(work));
        let read = poll_fn(|cx| {
            runs += 1;
            work.as_mut().poll(cx)
        });
        assert!(read.await == sent);
        assert!(runs >= 2_000 / SMALL_A_RUN, "{runs}");
    }
}
