//! A client's connection as an application gets it: counted, and past its TLS handshake if it has one.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};

use super::connection_limits::ConnectionPermit;
use crate::wire::stream::Stream;
use crate::wire::tls_info::TlsInfo;

/// A connection on its way to the proxy.
#[derive(Debug)]
pub(crate) struct AcceptedConnection {
    pub(super) stream: Stream,
    /// The TCP peer's; `None` on a Unix socket.
    pub(super) address: Option<IpAddr>,
    pub(super) tls: Option<Arc<TlsInfo>>,
    /// The handshake agreed on HTTP/2.
    pub(super) is_h2: bool,
    pub(super) permit: ConnectionPermit,
}

impl AcceptedConnection {
    /// A connection without TLS.
    pub(crate) fn plain(stream: Stream, address: Option<IpAddr>, permit: ConnectionPermit) -> Self {
        Self { stream, address, tls: None, is_h2: false, permit }
    }
}

impl AsyncRead for AcceptedConnection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for AcceptedConnection {
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

// what pingora asks of a stream besides; the proxy asks the stream itself

#[async_trait]
impl Shutdown for AcceptedConnection {
    async fn shutdown(&mut self) {
        // the client may have closed it first
        let _ = self.stream.shutdown().await;
    }
}

impl UniqueID for AcceptedConnection {
    fn id(&self) -> UniqueIDType {
        self.stream.transport().descriptor()
    }
}

impl Ssl for AcceptedConnection {}

impl Peek for AcceptedConnection {}

impl GetTimingDigest for AcceptedConnection {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for AcceptedConnection {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for AcceptedConnection {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }
}
