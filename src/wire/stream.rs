//! Sockets of both sides, clients' and servers', as one type.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, RawFd};
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::BytesMut;
use pingora_core::protocols::{Stream as PingoraStream, TcpKeepalive};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

use super::peer_liveness::PeerLiveness;

/// Bytes read at a time: most heads and responses fit.
pub(crate) const READ_CHUNK: usize = 16 << 10;
/// A server that has vanished (half-open, RFC 9293, 3.5.1) is noticed because it does not acknowledge data (`peer_liveness.rs`),
/// or, when nothing is sent, does not answer the kernel's keepalive probes.
const SILENT: Duration = Duration::from_secs(60);
const PROBE_EVERY: Duration = Duration::from_secs(10);
const PROBES: u32 = 3;

/// A connected socket: a client's, or a server's behind us. Made on the thread that serves it.
#[derive(Debug)]
pub(crate) struct Stream {
    /// Let go of before the socket.
    peer_liveness: Option<PeerLiveness>,
    transport: Transport,
}

/// What a connection is made of.
#[derive(Debug)]
pub(crate) enum Transport {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// TLS to an upstream, verified by pingora's connector.
    TlsClient(PingoraStream),
    /// TLS to an upstream with an authority of its own.
    Verified(Box<tokio_rustls::client::TlsStream<TcpStream>>),
    /// TLS that a client began.
    TlsServer(Box<TlsStream<TcpStream>>),
}

/// What a kept connection looks like before it is used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IdleProbe {
    /// Nothing has come, and the other end is still there.
    Yes,
    /// The other end has closed it.
    Ended,
    /// Unsolicited bytes have arrived.
    Surplus,
}

/// The same for sockets that pingora connects.
pub(crate) fn keepalive() -> TcpKeepalive {
    TcpKeepalive { idle: SILENT, interval: PROBE_EVERY, count: PROBES as usize, user_timeout: Duration::ZERO }
}

impl Transport {
    /// Segments are sent without delay: what is written here is complete.
    pub(crate) fn tcp(stream: TcpStream) -> Self {
        let _ = stream.set_nodelay(true);
        Self::Tcp(stream)
    }

    /// The socket underneath.
    pub(crate) fn descriptor(&self) -> RawFd {
        match self {
            Self::Tcp(stream) => stream.as_raw_fd(),
            Self::TlsServer(stream) => stream.get_ref().0.as_raw_fd(),
            Self::Verified(stream) => stream.get_ref().0.as_raw_fd(),
            Self::TlsClient(stream) => stream.id(),
            Self::Unix(stream) => stream.as_raw_fd(),
        }
    }

    fn is_tcp(&self) -> bool {
        !matches!(self, Self::Unix(_))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::TlsClient(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Verified(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::TlsServer(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl Stream {
    pub(crate) fn new(transport: Transport) -> Self {
        Self { peer_liveness: transport.is_tcp().then(|| PeerLiveness::of(transport.descriptor())), transport }
    }

    pub(crate) fn transport(&self) -> &Transport {
        &self.transport
    }

    pub(crate) fn into_transport(self) -> Transport {
        self.transport
    }

    pub(crate) async fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        let socket = SockRef::from(&stream);
        let probes = socket2::TcpKeepalive::new().with_time(SILENT).with_interval(PROBE_EVERY).with_retries(PROBES);
        socket.set_tcp_keepalive(&probes)?;
        Ok(Self::new(Transport::tcp(stream)))
    }

    pub(crate) async fn connect_unix(path: &Path) -> io::Result<Self> {
        UnixStream::connect(path).await.map(Transport::Unix).map(Self::new)
    }

    /// The result for a socket that is not ready: an error where the peer has vanished, since it never will be.
    fn pending<T>(&mut self, cx: &Context<'_>) -> Poll<io::Result<T>> {
        match self.peer_liveness.as_mut().map(|peer_liveness| peer_liveness.check(cx)) {
            Some(Err(gone)) => Poll::Ready(Err(gone)),
            _ => Poll::Pending,
        }
    }

    /// After the end of what the peer sends: waits until it can receive nothing either. Over TLS a peer that has ended its side
    /// has disconnected.
    pub(crate) async fn broken(&self) {
        loop {
            let ready = match &self.transport {
                Transport::Tcp(stream) => stream.ready(Interest::ERROR).await,
                Transport::Unix(stream) => stream.ready(Interest::ERROR).await,
                Transport::TlsClient(_) | Transport::Verified(_) | Transport::TlsServer(_) => return,
            };
            if ready.is_ok_and(|ready| ready.is_error() || ready.is_write_closed()) {
                return;
            }
        }
    }

    /// Whether this is a socket without TLS: a write goes straight to the socket, and [`Self::broken`] waits.
    pub(crate) fn is_plain(&self) -> bool {
        matches!(self.transport, Transport::Tcp(_) | Transport::Unix(_))
    }

    /// Writes as much as the socket takes without waiting, and returns how much. 0 over TLS, and on errors: writing the rest
    /// returns the error.
    pub(crate) fn write_now(&self, bytes: &[u8]) -> usize {
        match &self.transport {
            Transport::Tcp(stream) => stream.try_write(bytes).unwrap_or(0),
            Transport::Unix(stream) => stream.try_write(bytes).unwrap_or(0),
            Transport::TlsClient(_) | Transport::Verified(_) | Transport::TlsServer(_) => 0,
        }
    }

    /// Makes the connection end in a reset when it is dropped, since the message is incomplete (not on Unix sockets, which
    /// have none).
    pub(crate) fn abort(&self) {
        let _ = match &self.transport {
            Transport::Tcp(stream) => SockRef::from(stream).set_linger(Some(Duration::ZERO)),
            Transport::Verified(stream) => SockRef::from(stream.get_ref().0).set_linger(Some(Duration::ZERO)),
            Transport::TlsServer(stream) => SockRef::from(stream.get_ref().0).set_linger(Some(Duration::ZERO)),
            Transport::Unix(_) | Transport::TlsClient(_) => Ok(()),
        };
    }

    /// What had arrived at the runtime's last poll.
    pub(crate) fn looks_idle(&mut self) -> IdleProbe {
        let mut byte = [MaybeUninit::uninit()];
        let mut cx = Context::from_waker(Waker::noop());
        let mut read = ReadBuf::uninit(&mut byte);
        match self.transport.poll_read(&mut cx, &mut read) {
            Poll::Pending => IdleProbe::Yes,
            Poll::Ready(Ok(())) if !read.filled().is_empty() => IdleProbe::Surplus,
            Poll::Ready(_) => IdleProbe::Ended,
        }
    }

    /// What has arrived, by the kernel: the runtime's knowledge is as old as its last poll, and bytes that have arrived since would
    /// be taken for the response to the next request.
    pub(crate) async fn probe_idle(&mut self) -> IdleProbe {
        let mut byte = [MaybeUninit::uninit()];
        let seen = match &self.transport {
            Transport::Tcp(stream) => SockRef::from(stream).peek(&mut byte),
            Transport::Unix(stream) => SockRef::from(stream).peek(&mut byte),
            Transport::TlsServer(stream) => SockRef::from(stream.get_ref().0).peek(&mut byte),
            Transport::TlsClient(_) | Transport::Verified(_) => {
                // what TLS has read already is no longer in the socket: the runtime polls again before this continues
                tokio::task::yield_now().await;
                return self.looks_idle();
            }
        };
        match seen {
            Ok(1..) => IdleProbe::Surplus,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => IdleProbe::Yes,
            Ok(0) | Err(_) => IdleProbe::Ended,
        }
    }
}

thread_local! {
    /// Used by whichever socket has data: a connection that waits holds no buffer.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_CHUNK].into());
}

impl Stream {
    /// Passes what has arrived to `take`, [`READ_CHUNK`] bytes at most; none at the end.
    pub(crate) fn poll_take<T>(&mut self, cx: &mut Context<'_>, take: impl FnOnce(&[u8]) -> T) -> Poll<io::Result<T>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut read = ReadBuf::new(scratch);
            Pin::new(self).poll_read(cx, &mut read).map_ok(|()| take(read.filled()))
        })
    }

    /// Appends what has arrived to `buffer`, [`READ_CHUNK`] bytes at most; 0 is the end.
    pub(crate) async fn read_on(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        let mut add = |bytes: &[u8]| {
            if buffer.is_empty() && !buffer.try_reclaim(bytes.len()) {
                *buffer = BytesMut::from(bytes);
            } else {
                buffer.extend_from_slice(bytes);
            }
            bytes.len()
        };
        poll_fn(|cx| self.poll_take(cx, &mut add)).await
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let read = this.transport.poll_read(cx, buf);
        if read.is_pending() { this.pending(cx) } else { read }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = match &mut this.transport {
            Transport::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Transport::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Transport::TlsClient(stream) => Pin::new(stream).poll_write(cx, bytes),
            Transport::Verified(stream) => Pin::new(stream).poll_write(cx, bytes),
            Transport::TlsServer(stream) => Pin::new(stream).poll_write(cx, bytes),
        };
        if written.is_pending() { this.pending(cx) } else { written }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = match &mut this.transport {
            Transport::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Transport::TlsClient(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Verified(stream) => Pin::new(stream).poll_flush(cx),
            Transport::TlsServer(stream) => Pin::new(stream).poll_flush(cx),
        };
        if flushed.is_pending() { this.pending(cx) } else { flushed }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().transport {
            Transport::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::TlsClient(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Verified(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::TlsServer(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// Half-open connections to servers are freed by the kernel's probes; a server that does not read for a while is none.
    #[tokio::test]
    async fn a_silent_server_is_probed_and_one_that_pauses_is_no_dead_one() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = Stream::connect(listener.local_addr().unwrap()).await.unwrap();
        let Transport::Tcp(stream) = stream.transport() else { panic!("not a TCP connection") };
        let socket = SockRef::from(stream);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_user_timeout().unwrap_or_default(), None);
        let probes = (socket.tcp_keepalive_time(), socket.tcp_keepalive_interval(), socket.tcp_keepalive_retries());
        assert_eq!((probes.0.unwrap(), probes.1.unwrap(), probes.2.unwrap()), (SILENT, PROBE_EVERY, PROBES));
    }

    /// What a server sends unsolicited, just before its connection is used again, is no response to any request.
    #[tokio::test]
    async fn what_lies_in_a_kept_connection_is_seen_before_the_runtime_has_looked() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("socket");
        let unix = std::os::unix::net::UnixListener::bind(&path).unwrap();
        for closes in [false, true] {
            let address = listener.local_addr().unwrap();
            let tcp = Stream::connect(address).await.unwrap();
            let mut server = listener.accept().unwrap().0;
            let local = Stream::connect_unix(&path).await.unwrap();
            let mut other = unix.accept().unwrap().0;
            // what pingora's connector returns, without TLS
            let within = TcpStream::connect(address).await.unwrap();
            let tls = Transport::TlsClient(Box::new(pingora_core::protocols::l4::stream::Stream::from(within)));
            let tls = Stream::new(tls);
            let mut third = listener.accept().unwrap().0;
            let mut wires = [tcp, local, tls];
            for _ in 0..3 {
                for stream in &mut wires {
                    assert_eq!(stream.probe_idle().await, IdleProbe::Yes);
                    // the runtime notices that there is nothing to read
                    assert_eq!(stream.looks_idle(), IdleProbe::Yes);
                }
            }
            if closes {
                drop((server, other, third));
            } else {
                server.write_all(b"H").unwrap();
                other.write_all(b"H").unwrap();
                third.write_all(b"H").unwrap();
            }
            for stream in &mut wires {
                let seen = stream.probe_idle().await;
                assert_eq!(seen, if closes { IdleProbe::Ended } else { IdleProbe::Surplus }, "{stream:?}");
            }
        }
    }
}
