//! What the two ends of a connection tell each other: the stream below the parser and the filters
//! above it. Flags and deadlines alone; no bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::task::Waker;
use std::time::Duration;

use futures_util::task::AtomicWaker;
use pingora_core::protocols::http::ServerSession;
use tokio::time::Instant;

use super::frames::Closing;
use super::stream::GuardedStream;

/// What both ends of a connection know of each other: the stream below and the filters above.
#[derive(Debug)]
pub(crate) struct Guard {
    /// The next bytes belong to a request head.
    awaiting_head: AtomicBool,
    /// Which request of the connection this is.
    round: AtomicU32,
    /// The request line had a byte or a shape that the parser would have repaired.
    bad_line: AtomicBool,
    /// Both ends speak WebSocket.
    upgraded: AtomicBool,
    /// 0, or a [`Closing`] and one.
    closing: AtomicU8,
    /// Milliseconds after `opened` at which the first byte of the answer is due; 0 is never.
    answer_due: AtomicU64,
    /// The answer was due and had not begun.
    overdue: AtomicBool,
    opened: Instant,
    waker: AtomicWaker,
}

impl Guard {
    pub(crate) fn new() -> Self {
        Self {
            awaiting_head: AtomicBool::new(true),
            round: AtomicU32::new(0),
            bad_line: AtomicBool::new(false),
            upgraded: AtomicBool::new(false),
            closing: AtomicU8::new(0),
            answer_due: AtomicU64::new(0),
            overdue: AtomicBool::new(false),
            opened: Instant::now(),
            waker: AtomicWaker::new(),
        }
    }

    /// The guard of the connection that a request came over.
    pub(crate) fn of(session: &ServerSession) -> Option<&Arc<Self>> {
        session.stream()?.as_any().downcast_ref::<GuardedStream>().map(GuardedStream::guard)
    }

    /// Number of the request whose bytes come next, while its head is awaited.
    pub(crate) fn awaited_round(&self) -> Option<u32> {
        let awaited = self.awaiting_head.load(Ordering::Relaxed);
        awaited.then(|| self.round.load(Ordering::Relaxed))
    }

    /// The request line read so far is none that may be served.
    pub(crate) fn mark_bad_line(&self) {
        self.bad_line.store(true, Ordering::Relaxed);
    }

    /// When the answer is due, if one is awaited.
    pub(crate) fn answer_due(&self) -> Option<Instant> {
        let millis = self.answer_due.load(Ordering::Relaxed);
        (millis != 0).then(|| self.opened + Duration::from_millis(millis))
    }

    /// The answer was due and had not begun.
    pub(crate) fn mark_overdue(&self) {
        self.overdue.store(true, Ordering::Relaxed);
    }

    /// Whether the bytes are WebSocket frames by now.
    pub(crate) fn is_upgraded(&self) -> bool {
        self.upgraded.load(Ordering::Acquire)
    }

    /// Whom to wake when the connection is to be closed.
    pub(crate) fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// Wakes the reader.
    pub(crate) fn wake(&self) {
        self.waker.wake();
    }

    /// A head has been read; says whether its request line was as it should be.
    pub(crate) fn head_done(&self) -> bool {
        self.awaiting_head.store(false, Ordering::Relaxed);
        !self.bad_line.load(Ordering::Relaxed)
    }

    /// The request is over: the next bytes are a new head.
    pub(crate) fn request_done(&self) {
        self.answer_due.store(0, Ordering::Relaxed);
        self.round.fetch_add(1, Ordering::Relaxed);
        self.awaiting_head.store(true, Ordering::Relaxed);
    }

    /// The answer must begin within this time from now.
    pub(crate) fn expect_answer(&self, within: Duration) {
        let due = self.opened.elapsed() + within;
        let millis = u64::try_from(due.as_millis()).unwrap_or(u64::MAX).max(1);
        self.answer_due.store(millis, Ordering::Relaxed);
        self.waker.wake();
    }

    /// The answer has begun.
    pub(crate) fn answer_began(&self) {
        self.answer_due.store(0, Ordering::Relaxed);
    }

    /// Whether the answer was not there in time.
    pub(crate) fn is_overdue(&self) -> bool {
        self.overdue.load(Ordering::Relaxed)
    }

    /// From here on the bytes are WebSocket frames.
    pub(crate) fn upgraded(&self) {
        self.upgraded.store(true, Ordering::Release);
    }

    /// Ends the connection: a WebSocket with Close frames to both sides, anything else at once.
    pub(crate) fn close(&self, why: Closing) {
        let code = match why {
            Closing::GoingAway => 1,
            Closing::Expired => 2,
            Closing::Revoked => 3,
        };
        let first = self.closing.compare_exchange(0, code, Ordering::AcqRel, Ordering::Acquire);
        if first.is_ok() {
            self.waker.wake();
        }
    }

    /// Why the connection was ended from here, if it was.
    pub(crate) fn closed_for(&self) -> Option<Closing> {
        match self.closing.load(Ordering::Acquire) {
            1 => Some(Closing::GoingAway),
            2 => Some(Closing::Expired),
            3 => Some(Closing::Revoked),
            _ => None,
        }
    }
}
