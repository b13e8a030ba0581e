//! HTTP/2 connections (RFC 9113): frames are the `h2` crate's; which streams there may be, when a connection
//! ends, and what each stream asks for are ours. A stream's head becomes what it would have been in HTTP/1.1, and
//! from there on every rule is the same.

use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::Reason;
use h2::server::{Builder, Connection};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::stream;
use crate::proxy::connection_activity::Spot;
use crate::proxy::connection_handle::Guard;
use crate::proxy::connection_limits::{Counted, CountedStream};
use crate::proxy::gateway::Gateway;
use crate::proxy::h1::connection::Front;
use crate::wire::h2_pacing::Paced;
use crate::wire::stream::Wire;

/// Streams that a client may have open at once.
const STREAMS: u32 = 100;
/// A head's fields, unpacked, with 32 bytes for each (RFC 9113, 6.5.2), or twice `limits.head_bytes` where that is more.
const FIELD_BYTES: u32 = 64 << 10;
/// What a client may send before we have taken it: of one stream, and in all.
const STREAM_WINDOW: u32 = 128 << 10;
const WINDOW: u32 = 256 << 10;
/// What may lie written of one stream while its client opens its window and reads nothing.
const SENT_MAX: usize = 32 << 10;
/// Streams that came to nothing by the client's doing, more than those that were served: resets
/// (CVE-2023-44487), heads that cannot be read.
const WASTED_MAX: usize = 200;
/// How long a connection that is to end waits for its client to see it.
const LINGER: Duration = Duration::from_secs(1);

impl Front {
    /// Serves a connection to its end, of which `begun` has been read.
    pub(crate) async fn serve_h2(self, wire: Wire, begun: BytesMut, guard: Arc<Guard>, counted: Counted) {
        let limits = self.gateway.config.limits.clone();
        let head_time = limits.head_time;
        let mut builder = Builder::new();
        builder
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(
                FIELD_BYTES.max(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX).saturating_mul(2)),
            )
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_send_buffer_size(SENT_MAX);
        let (wire, pace) = Paced::downstream(wire, begun, head_time);
        let work = async {
            if let Ok(Ok(connection)) = timeout(head_time, builder.handshake::<_, Bytes>(wire)).await {
                self.serve_streams(connection, &guard, counted.spot()).await;
            }
        };
        pace.keep(Box::pin(work)).await;
    }

    async fn serve_streams(mut self, mut connection: Connection<Paced, Bytes>, guard: &Guard, spot: &Arc<Spot>) {
        let keep_alive = self.gateway.config.limits.keep_alive;
        let tally = Arc::new(Tally::new(spot));
        let mut stopped = self.stopped.clone();
        let mut ending = false;
        loop {
            let accepted = tokio::select! {
                biased;
                _ = stopped.wait_for(|stopped| *stopped), if !ending => None,
                accepted = connection.accept() => Some(accepted),
                () = tally.quiet_for(if ending { LINGER } else { keep_alive }) => None,
            };
            match accepted {
                Some(Some(Ok((request, respond)))) => {
                    if tally.is_wasted() {
                        return give_up(connection).await;
                    }
                    let running = Running::new(&tally);
                    if spot.is_evicted() {
                        return;
                    }
                    let call = stream::serve(self.for_request(), request, respond, guard.for_stream(), tally.clone());
                    tokio::spawn(async move { running.end(call.await) });
                }
                Some(_) => return,
                None if ending => return,
                None => {
                    connection.graceful_shutdown();
                    ending = true;
                }
            }
        }
    }
}

/// Tells the client to calm down, and ends the connection with all its streams.
async fn give_up(mut connection: Connection<Paced, Bytes>) {
    connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
    let _ = timeout(LINGER, async { while connection.accept().await.is_some_and(|next| next.is_ok()) {} }).await;
}

/// What came of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Served,
    /// The client took it back, or sent what cannot be read.
    Wasted,
}

/// The streams of one connection, counted.
#[derive(Debug)]
pub(super) struct Tally {
    open: AtomicUsize,
    /// Of those, the ones whose client does not take their answers.
    waiting: AtomicUsize,
    wasted: AtomicUsize,
    /// Whether a stream has the place of the connection itself.
    placed: AtomicBool,
    quiet: Notify,
    spot: Arc<Spot>,
}

impl Tally {
    fn new(spot: &Arc<Spot>) -> Self {
        let (open, waiting, wasted) = Default::default();
        Self { open, waiting, wasted, placed: AtomicBool::new(false), quiet: Notify::new(), spot: spot.clone() }
    }

    /// Says what the connection does, when one of its streams does something else.
    fn settle(&self) {
        match self.open.load(Ordering::Relaxed) {
            0 => self.spot.idle(),
            open if self.waiting.load(Ordering::Relaxed) >= open => self.spot.stalled(),
            _ => drop(self.spot.busy()),
        }
    }

    /// Waits for the client to take something.
    pub(super) async fn waiting<T>(&self, work: impl Future<Output = T>) -> T {
        let (mut work, mut waits) = (pin!(work), Waits(self, false));
        poll_fn(|cx| {
            let done = work.as_mut().poll(cx);
            if done.is_pending() {
                waits.begin();
            }
            done
        })
        .await
    }

    /// Returns when no stream has been open for this long.
    async fn quiet_for(&self, time: Duration) {
        while self.open.load(Ordering::Relaxed) > 0 {
            self.quiet.notified().await;
        }
        sleep(time).await;
    }

    fn is_wasted(&self) -> bool {
        self.wasted.load(Ordering::Relaxed) > WASTED_MAX
    }

    /// `None` when there are too many.
    pub(super) fn place(self: Arc<Self>, gateway: &Gateway, address: Option<IpAddr>) -> Option<Place> {
        if self.placed.swap(true, Ordering::Relaxed) {
            return gateway.connections.admit_stream(address, &gateway.config).map(Place::Counted);
        }
        Some(Place::OfConnection(self))
    }
}

/// A stream's place among the connections: it may hold one to a server, or a page's work, for as long as a connection
/// may. The first has that of its connection.
pub(super) enum Place {
    OfConnection(Arc<Tally>),
    Counted(#[expect(dead_code, reason = "counts itself out")] CountedStream),
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Self::OfConnection(tally) = self {
            tally.placed.store(false, Ordering::Relaxed);
        }
    }
}

/// A stream that waits for its client; no longer when dropped.
struct Waits<'t>(&'t Tally, bool);

impl Waits<'_> {
    fn begin(&mut self) {
        if !std::mem::replace(&mut self.1, true) {
            self.0.waiting.fetch_add(1, Ordering::Relaxed);
            self.0.settle();
        }
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        if self.1 {
            self.0.waiting.fetch_sub(1, Ordering::Relaxed);
            self.0.settle();
        }
    }
}

/// One open stream; counts itself out when dropped.
struct Running(Arc<Tally>);

impl Running {
    fn new(tally: &Arc<Tally>) -> Self {
        tally.open.fetch_add(1, Ordering::Relaxed);
        tally.settle();
        Self(tally.clone())
    }

    fn end(self, fate: Fate) {
        let change = |wasted: usize| {
            Some(if fate == Fate::Wasted { wasted.saturating_add(1) } else { wasted.saturating_sub(1) })
        };
        let _ = self.0.wasted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.0.open.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.quiet.notify_one();
        }
        self.0.settle();
    }
}
