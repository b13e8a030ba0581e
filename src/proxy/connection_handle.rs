//! The state of one client connection that all of its requests share: the client's address, whether a response is
//! overdue, and whether the gateway is closing the connection.

use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::{Poll, Waker};

use futures_util::task::AtomicWaker;

use super::connection_activity::ConnectionActivity;
use crate::policy::reasons::Reason;
use crate::wire::tls_info::TlsInfo;
use crate::wire::websocket_frames::Closing;

/// One for each connection, shared with the registry of live connections.
#[derive(Debug)]
pub(crate) struct ConnectionHandle {
    address: Option<IpAddr>,
    /// The address as text, formatted only once.
    address_text: Arc<str>,
    tls: Option<Arc<TlsInfo>>,
    /// `None` for a stream of an HTTP/2 connection.
    activity: Option<Arc<ConnectionActivity>>,
    /// 0, or a [`Closing`] and one.
    closing: AtomicU8,
    /// The response did not begin in time.
    overdue: AtomicBool,
    waker: AtomicWaker,
}

impl ConnectionHandle {
    /// `address` is the TCP peer's; `None` on a Unix socket.
    pub(crate) fn new(address: Option<IpAddr>, tls: Option<Arc<TlsInfo>>) -> Self {
        let address = address.map(|ip| ip.to_canonical());
        Self::with_text(address, address.map_or_else(String::new, |address| address.to_string()).into(), tls)
    }

    fn with_text(address: Option<IpAddr>, address_text: Arc<str>, tls: Option<Arc<TlsInfo>>) -> Self {
        Self {
            address,
            address_text,
            tls,
            activity: None,
            closing: AtomicU8::new(0),
            overdue: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        }
    }

    /// Adds the activity of the connection.
    pub(crate) fn with_activity(self, activity: &Arc<ConnectionActivity>) -> Self {
        Self { activity: Some(activity.clone()), ..self }
    }

    /// Runs a write to the client. `None`: the connection has been evicted.
    pub(crate) async fn writing<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        match &self.activity {
            Some(activity) => activity.writing(work).await,
            None => Some(work.await),
        }
    }

    /// Why the gateway closed the connection, for the access log.
    pub(crate) fn reason(&self) -> Option<Reason> {
        let is_evicted = self.activity.as_ref().is_some_and(|activity| activity.is_evicted());
        self.close_reason().map(Reason::Closed).or(is_evicted.then_some(Reason::Connections))
    }

    /// The other end's address.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// The other end's address as text.
    pub(crate) fn address_text(&self) -> Option<&str> {
        self.address.is_some().then_some(&self.address_text)
    }

    /// A handle for one stream of an HTTP/2 connection, which is closed on its own.
    pub(crate) fn for_stream(&self) -> Arc<Self> {
        Arc::new(Self::with_text(self.address, self.address_text.clone(), self.tls.clone()))
    }

    /// What the TLS handshake showed; `None` without TLS.
    pub(crate) fn tls(&self) -> Option<&Arc<TlsInfo>> {
        self.tls.as_ref()
    }

    /// Records that the response did not begin in time.
    pub(crate) fn mark_overdue(&self) {
        self.overdue.store(true, Ordering::Relaxed);
    }

    /// Registers the task to wake when the connection is to be closed.
    pub(crate) fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// Waits until the connection is to be closed from outside.
    pub(crate) async fn closed(&self) -> Closing {
        poll_fn(|cx| {
            self.register(cx.waker());
            self.close_reason().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// Whether the response did not begin in time.
    pub(crate) fn is_overdue(&self) -> bool {
        self.overdue.load(Ordering::Relaxed)
    }

    /// Ends the connection: a WebSocket with Close frames to both sides, anything else at once.
    pub(crate) fn close(&self, why: Closing) {
        let code = match why {
            Closing::GoingAway => 1,
            Closing::Expired => 2,
            Closing::Revoked => 3,
            Closing::Idle => 4,
            Closing::Unavailable => 5,
        };
        let first = self.closing.compare_exchange(0, code, Ordering::AcqRel, Ordering::Acquire);
        if first.is_ok() {
            self.waker.wake();
        }
    }

    /// Why the gateway closed the connection, if it did.
    pub(crate) fn close_reason(&self) -> Option<Closing> {
        match self.closing.load(Ordering::Acquire) {
            1 => Some(Closing::GoingAway),
            2 => Some(Closing::Expired),
            3 => Some(Closing::Revoked),
            4 => Some(Closing::Idle),
            5 => Some(Closing::Unavailable),
            _ => None,
        }
    }
}
