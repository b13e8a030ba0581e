//! HTTP/2 connections (RFC 9113): frames are the `h2` crate's; which streams there may be, when a connection
//! ends, and what each stream asks for are ours. A stream's head becomes what it would have been in HTTP/1.1, and
//! from there on every rule is the same.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::Reason;
use h2::server::{Builder, Connection};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::Front;
use super::wire::Wire;
use crate::gateway::Gateway;
use crate::gateway::conn::Counted;
use crate::gateway::guard::Guard;

mod client;
mod head;
mod stream;
mod watched;

use watched::Watched;

/// Streams that a client may have open at once.
const STREAMS: u32 = 100;
/// A head's fields, unpacked, with 32 bytes for each (RFC 9113, 6.5.2).
const FIELD_BYTES: u32 = 64 << 10;
/// What a client may send before we have taken it: of one stream, and in all.
const STREAM_WINDOW: u32 = 128 << 10;
const WINDOW: u32 = 256 << 10;
/// Streams that came to nothing by the client's doing, more than those that were served: resets
/// (CVE-2023-44487), heads that cannot be read.
const WASTED_MAX: usize = 200;
/// How long a connection that is to end waits for its client to see it.
const LINGER: Duration = Duration::from_secs(1);

impl Front {
    /// Serves a connection to its end, of which `begun` has been read.
    pub(super) async fn serve_h2(mut self, wire: Wire, begun: BytesMut, guard: Arc<Guard>, _counted: Counted) {
        let limits = self.gateway.config.limits.clone();
        let mut builder = Builder::new();
        builder
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(FIELD_BYTES)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(WINDOW);
        let wire = Watched::new(wire, begun, limits.head_time);
        let Ok(Ok(mut connection)) = timeout(limits.head_time, builder.handshake::<_, Bytes>(wire)).await else {
            return;
        };
        let tally = Arc::new(Tally::default());
        let mut stopped = self.stopped.clone();
        let mut ending = false;
        loop {
            let accepted = tokio::select! {
                biased;
                _ = stopped.wait_for(|stopped| *stopped), if !ending => None,
                accepted = connection.accept() => Some(accepted),
                () = tally.quiet_for(if ending { LINGER } else { limits.idle }) => None,
            };
            match accepted {
                Some(Some(Ok((request, respond)))) => {
                    if tally.is_wasted() {
                        return give_up(connection).await;
                    }
                    let running = Running::new(&tally);
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
async fn give_up(mut connection: Connection<Watched, Bytes>) {
    connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
    let _ = timeout(LINGER, async { while connection.accept().await.is_some_and(|next| next.is_ok()) {} }).await;
}

/// What came of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Served,
    /// The client took it back, or sent what cannot be read.
    Wasted,
}

/// The streams of one connection, counted.
#[derive(Debug, Default)]
struct Tally {
    open: AtomicUsize,
    wasted: AtomicUsize,
    /// Whether a stream has the place of the connection itself.
    placed: AtomicBool,
    quiet: Notify,
}

impl Tally {
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

    /// `None` when there are too many, in all or of one address.
    fn place(self: Arc<Self>, gateway: &Gateway, address: Option<IpAddr>) -> Option<Place> {
        if self.placed.swap(true, Ordering::Relaxed) {
            return gateway.connections.admit(address, &gateway.config).map(Place::Counted);
        }
        Some(Place::OfConnection(self))
    }
}

/// A stream's place among the connections: it may hold one to a server, or a page's work, for as long as a connection
/// may, so that one client's streams are not to be more than its connections might be. The first has that of its
/// connection.
enum Place {
    OfConnection(Arc<Tally>),
    Counted(#[expect(dead_code, reason = "counts itself out")] Counted),
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Self::OfConnection(tally) = self {
            tally.placed.store(false, Ordering::Relaxed);
        }
    }
}

/// One open stream; counts itself out when dropped.
struct Running(Arc<Tally>);

impl Running {
    fn new(tally: &Arc<Tally>) -> Self {
        tally.open.fetch_add(1, Ordering::Relaxed);
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
    }
}
