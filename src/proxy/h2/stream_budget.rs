//! The streams of one HTTP/2 connection, counted: how many are open, how many wait for their client, and how many were abusive.

use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

use crate::proxy::connection_activity::ConnectionActivity;
use crate::proxy::connection_limits::StreamPermit;
use crate::proxy::gateway::Gateway;

/// How many more streams may be abusive than served: resets by the client (CVE-2023-44487), heads that cannot be read.
const ABUSIVE_MAX: usize = 200;

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StreamOutcome {
    Served,
    /// The client has reset it, or sent what cannot be read.
    Abusive,
}

/// The streams of one connection, counted.
#[derive(Debug)]
pub(super) struct StreamBudget {
    open: AtomicUsize,
    /// Of those, the ones whose client does not read their responses.
    waiting: AtomicUsize,
    wasted: AtomicUsize,
    /// Whether a stream has the connection's own slot.
    placed: AtomicBool,
    quiet: Notify,
    activity: Arc<ConnectionActivity>,
}

impl StreamBudget {
    pub(super) fn new(activity: &Arc<ConnectionActivity>) -> Self {
        let (open, waiting, wasted) = Default::default();
        Self { open, waiting, wasted, placed: AtomicBool::new(false), quiet: Notify::new(), activity: activity.clone() }
    }

    /// Updates the connection's activity after a change of one of its streams.
    fn settle(&self) {
        match self.open.load(Ordering::Relaxed) {
            0 => self.activity.idle(),
            open if self.waiting.load(Ordering::Relaxed) >= open => self.activity.stalled(),
            _ => drop(self.activity.busy()),
        }
    }

    /// Does work that waits for the client to read.
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
    pub(super) async fn quiet_for(&self, time: Duration) {
        while self.open.load(Ordering::Relaxed) > 0 {
            self.quiet.notified().await;
        }
        sleep(time).await;
    }

    pub(super) fn is_exhausted(&self) -> bool {
        self.wasted.load(Ordering::Relaxed) > ABUSIVE_MAX
    }

    /// `None` when there are too many.
    pub(super) fn place(self: Arc<Self>, gateway: &Gateway, address: Option<IpAddr>) -> Option<StreamSlot> {
        if self.placed.swap(true, Ordering::Relaxed) {
            return gateway.connections.acquire_stream(address, &gateway.config).map(StreamSlot::Counted);
        }
        Some(StreamSlot::OfConnection(self))
    }
}

/// A stream's slot among the connections: like one it may occupy a server or a page's work. The first stream has the slot of its
/// connection.
pub(super) enum StreamSlot {
    OfConnection(Arc<StreamBudget>),
    Counted(#[expect(dead_code, reason = "counts itself out")] StreamPermit),
}

impl Drop for StreamSlot {
    fn drop(&mut self) {
        if let Self::OfConnection(stream_budget) = self {
            stream_budget.placed.store(false, Ordering::Relaxed);
        }
    }
}

/// A stream that waits for its client, until dropped.
struct Waits<'t>(&'t StreamBudget, bool);

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

/// One open stream, until dropped.
pub(super) struct Running(Arc<StreamBudget>);

impl Running {
    pub(super) fn new(stream_budget: &Arc<StreamBudget>) -> Self {
        stream_budget.open.fetch_add(1, Ordering::Relaxed);
        stream_budget.settle();
        Self(stream_budget.clone())
    }

    pub(super) fn end(self, outcome: StreamOutcome) {
        let change = |wasted: usize| {
            Some(if outcome == StreamOutcome::Abusive { wasted.saturating_add(1) } else { wasted.saturating_sub(1) })
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
