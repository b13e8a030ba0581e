//! HTTP/2 connections to servers, each shared only by the streams of one client address. Streams of other addresses
//! neither wait for the flow-control window that this client leaves unread on either side (RFC 9113, 5.2) nor end with
//! the streams that it resets. Other clients behind the same address are protected, too, as far as the gateway can.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::Request;
use pingora_core::{Error, ErrorType, Result};
use tokio::time::{Instant, timeout};

use super::h1_pool::{KEPT, KEPT_TIME};
use crate::wire::h2_body::Inflow;
use crate::wire::h2_pacing::PacedStream;
use crate::wire::stream::Stream;

/// Limit on streams that the gateway opens on one connection; a server may allow fewer.
const STREAMS: u32 = 100;
/// Bytes that a server may send before the client has taken them. The connection's window has room for all streams, so
/// that an unread one does not block another.
const STREAM_WINDOW: u32 = 128 << 10;
const WINDOW: u32 = STREAM_WINDOW * STREAMS;
/// Limit on streams of one connection that were reset before their end, or could be before the server has seen them:
/// those without a response. Servers close a connection, with all clients' streams on it, after too many resets
/// (CVE-2023-44487); the strictest (hyper, tonic) after 20 of streams that they have not seen. Beyond the limit a
/// connection gets no new stream.
const UNANSWERED_STREAMS_MAX: usize = 20;
/// Limit on a head in HTTP/2, the same as in HTTP/1.1.
const HEAD_BYTES: u32 = 64 << 10;
/// Time limit for the first frames of a new connection.
const HANDSHAKE: Duration = Duration::from_secs(3);

/// An HTTP/2 connection, for as many streams as the server allows.
#[derive(Clone)]
pub(crate) struct SharedConnection {
    send: SendRequest<Bytes>,
    scheme: &'static str,
    /// One reference for the pool and one for each stream. The value counts streams towards [`UNANSWERED_STREAMS_MAX`].
    users: Arc<AtomicUsize>,
    /// When it was last in use.
    since: Instant,
}

/// What a connection serves: the server, by its id, and the client's address.
pub(crate) type Pair = (u64, Option<IpAddr>);

thread_local! {
    static SHARED: RefCell<HashMap<Pair, Vec<SharedConnection>, ahash::RandomState>> = RefCell::default();
}

impl SharedConnection {
    /// Begins HTTP/2 on a new connection, which is kept for further streams.
    pub(crate) async fn begin(pair: Pair, stream: Stream, scheme: &'static str) -> Result<Self> {
        let failed = |e| Error::because(ErrorType::ConnectError, "starting HTTP/2", e).into_up();
        let mut builder = h2::client::Builder::new();
        builder
            .enable_push(false)
            .max_header_list_size(HEAD_BYTES)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(WINDOW);
        let (stream, pace) = PacedStream::upstream(stream);
        let begun = timeout(HANDSHAKE, pace.clone().keep(builder.handshake::<_, Bytes>(stream))).await;
        let (send, connection) = match begun {
            Ok(begun) => begun.map_err(failed)?,
            Err(_) => return Err(Error::explain(ErrorType::ConnectTimedout, "starting HTTP/2").into_up()),
        };
        tokio::spawn(async move {
            if let Err(error) = pace.keep(connection).await {
                tracing::debug!(%error, "upstream HTTP/2 connection ended");
            }
        });
        let shared = Self { send, scheme, users: Arc::default(), since: Instant::now() };
        SHARED.with_borrow_mut(|all| all.entry(pair).or_default().push(shared.clone()));
        Ok(shared)
    }

    /// A connection that has room for another stream.
    pub(crate) fn take(pair: Pair) -> Option<Self> {
        SHARED.with_borrow_mut(|all| {
            let list = all.get_mut(&pair)?;
            list.retain_mut(Self::is_open);
            let found = list.iter_mut().find(|shared| shared.has_room())?;
            found.since = Instant::now();
            Some(found.clone())
        })
    }

    /// The scheme of requests on this connection.
    pub(crate) fn scheme(&self) -> &'static str {
        self.scheme
    }

    /// Opens a stream; `bodiless` says that nothing follows the head.
    pub(crate) async fn open_stream(
        self,
        request: Request<()>,
        bodiless: bool,
    ) -> Result<(SendStream<Bytes>, ResponseStream)> {
        let failed = |e| Error::because(ErrorType::WriteError, "sending the head", e).into_up();
        let mut send = self.send.ready().await.map_err(failed)?;
        let (answer, body) = send.send_request(request, bodiless).map_err(failed)?;
        self.users.fetch_add(1, Ordering::Relaxed);
        Ok((
            body,
            ResponseStream {
                answer: Some(answer),
                body: None,
                bodiless: false,
                ends_with_head: false,
                users: self.users,
            },
        ))
    }

    fn is_open(&mut self) -> bool {
        let waker = std::task::Waker::noop();
        !matches!(self.send.poll_ready(&mut std::task::Context::from_waker(waker)), std::task::Poll::Ready(Err(_)))
    }

    fn has_room(&self) -> bool {
        Arc::strong_count(&self.users) - 1 < self.send.current_max_send_streams().min(STREAMS as usize)
            && self.users.load(Ordering::Relaxed) < UNANSWERED_STREAMS_MAX
    }

    fn is_used(&self) -> bool {
        Arc::strong_count(&self.users) > 1
    }
}

/// Closes connections.
fn close(
    all: &mut HashMap<Pair, Vec<SharedConnection>, ahash::RandomState>,
    doomed: impl Fn(&SharedConnection) -> bool,
) {
    for list in all.values_mut() {
        list.retain_mut(|shared| !doomed(shared) && shared.is_open());
    }
    all.retain(|_, list| !list.is_empty());
}

/// Closes shared connections that were unused for a while; called once a second on each thread.
pub(crate) fn sweep() {
    SHARED.with_borrow_mut(|all| {
        for shared in all.values_mut().flatten().filter(|shared| shared.is_used()) {
            shared.since = Instant::now();
        }
        // a client with very many addresses cannot keep more unused connections than that
        let crowded = all.values().map(Vec::len).sum::<usize>() > KEPT;
        close(all, |shared| !shared.is_used() && (crowded || shared.since.elapsed() > KEPT_TIME));
    });
}

/// The response on a stream of a shared connection.
pub(crate) struct ResponseStream {
    /// Until its head has arrived.
    pub(crate) answer: Option<ResponseFuture>,
    /// After its head has arrived.
    body: Option<Inflow>,
    /// By its length, by its status, or as the response to HEAD.
    pub(crate) bodiless: bool,
    /// By its status, or as the response to HEAD: not even trailers follow.
    pub(crate) ends_with_head: bool,
    users: Arc<AtomicUsize>,
}

impl ResponseStream {
    /// Its head has arrived.
    pub(crate) fn answered(&mut self, body: RecvStream) {
        self.body = Some(Inflow::new(body));
        self.users.fetch_sub(1, Ordering::Relaxed);
    }

    /// The body, once the head has arrived.
    pub(crate) fn body(&mut self) -> Option<&mut Inflow> {
        self.body.as_mut()
    }

    /// Runs `work`, and buffers what arrives of the body meanwhile.
    pub(crate) async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|cx| {
            if let Some(body) = &mut self.body {
                body.fill(cx);
            }
            work.as_mut().poll(cx)
        })
        .await
    }

    /// Whether nothing follows what was read.
    pub(crate) fn is_over(&self) -> bool {
        self.body.as_ref().is_none_or(Inflow::is_over)
    }
}

impl Drop for ResponseStream {
    fn drop(&mut self) {
        // a stream without a response is still counted
        if !self.body.as_ref().is_none_or(Inflow::has_come) {
            self.users.fetch_add(1, Ordering::Relaxed);
        }
    }
}
