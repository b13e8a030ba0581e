//! Connections to servers in HTTP/2, each shared by the streams of one client address: nobody else's wait for the room
//! that it leaves unread here or there (RFC 9113, 5.2), nor end with those that it takes back. Nor do those of others
//! behind the same address, as far as that is ours to say.

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

/// Streams that we open on one connection; a server may allow fewer.
const STREAMS: u32 = 100;
/// What a server may send before the client has taken it. There is room for all together: one that is not read holds up
/// no other.
const STREAM_WINDOW: u32 = 128 << 10;
const WINDOW: u32 = STREAM_WINDOW * STREAMS;
/// Streams of one connection that were given up before their end, or may be before the server has seen them: those that
/// it has not answered. Servers end a connection, with everybody's streams, when there are too many resets
/// (CVE-2023-44487), the strictest (hyper, tonic) after 20 of streams that it has not seen: nobody is put on it beyond.
const AT_STAKE_MAX: usize = 20;
/// A head in HTTP/2, as large as one in HTTP/1.1 may be.
const HEAD_BYTES: u32 = 64 << 10;
/// For the first frames of a new connection.
const HANDSHAKE: Duration = Duration::from_secs(3);

/// A connection in HTTP/2, for as many streams as the server allows.
#[derive(Clone)]
pub(crate) struct SharedConnection {
    send: SendRequest<Bytes>,
    scheme: &'static str,
    /// One for the pool, and one for each stream. Counts those that are at stake.
    users: Arc<AtomicUsize>,
    /// When it was in use last.
    since: Instant,
}

/// Whose streams a connection is for: the server's, and the client's address.
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

    /// A connection that has room for one more stream.
    pub(crate) fn take(pair: Pair) -> Option<Self> {
        SHARED.with_borrow_mut(|all| {
            let list = all.get_mut(&pair)?;
            list.retain_mut(Self::is_open);
            let found = list.iter_mut().find(|shared| shared.has_room())?;
            found.since = Instant::now();
            Some(found.clone())
        })
    }

    /// The scheme of requests on it.
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
            && self.users.load(Ordering::Relaxed) < AT_STAKE_MAX
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

/// Closes shared connections that nobody has used for a while; called once a second on each thread.
pub(crate) fn sweep() {
    SHARED.with_borrow_mut(|all| {
        for shared in all.values_mut().flatten().filter(|shared| shared.is_used()) {
            shared.since = Instant::now();
        }
        // whoever has very many addresses leaves no more behind than that
        let crowded = all.values().map(Vec::len).sum::<usize>() > KEPT;
        close(all, |shared| !shared.is_used() && (crowded || shared.since.elapsed() > KEPT_TIME));
    });
}

/// The answer on a stream of a shared connection.
pub(crate) struct ResponseStream {
    /// Until its head has come.
    pub(crate) answer: Option<ResponseFuture>,
    /// From then on.
    body: Option<Inflow>,
    /// By its length, its status, or as the answer to HEAD.
    pub(crate) bodiless: bool,
    /// By the latter two: not even trailers follow.
    pub(crate) ends_with_head: bool,
    users: Arc<AtomicUsize>,
}

impl ResponseStream {
    /// Its head has come.
    pub(crate) fn answered(&mut self, body: RecvStream) {
        self.body = Some(Inflow::new(body));
        self.users.fetch_sub(1, Ordering::Relaxed);
    }

    /// Behind its head.
    pub(crate) fn body(&mut self) -> Option<&mut Inflow> {
        self.body.as_mut()
    }

    /// Does something else; what comes of the body meanwhile is taken in.
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
        // one that was not answered stays at stake
        if !self.body.as_ref().is_none_or(Inflow::has_come) {
            self.users.fetch_add(1, Ordering::Relaxed);
        }
    }
}
