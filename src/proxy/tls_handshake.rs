//! Connections that begin with a TLS handshake: counted before it, with a deadline for it, and then served
//! in the protocol that was agreed on.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use http::{Method, StatusCode};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::server::TlsStream;

use super::access_log;
use super::connection_handle::ConnectionHandle;
use super::connection_handler::ConnectionHandler;
use super::connection_limits::ConnectionPermit;
use super::h1::downstream::ClientConnection;
use super::h1::{connection, reply};
use super::h2;
use crate::config::Certificate;
use crate::policy::reasons::Reason;
use crate::web::reply::Reply;
use crate::wire::stream::{Stream, Transport};
use crate::wire::tls_info::TlsInfo;

/// For the whole handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// A handshake that came to its end.
pub(crate) struct Accepted {
    pub(crate) stream: Box<TlsStream<TcpStream>>,
    /// HTTP/2 was agreed on.
    pub(crate) is_h2: bool,
    /// The name that the client asked for, in lower case.
    pub(crate) name: Option<String>,
    /// What it was shown.
    pub(crate) certificate: Arc<Certificate>,
}

/// Serves a connection to its end, from its handshake on.
pub(crate) async fn serve_tls<H: Future<Output = io::Result<Accepted>>>(
    handler: ConnectionHandler,
    stream: TcpStream,
    handshake: impl FnOnce(TcpStream) -> H,
    address: Option<IpAddr>,
    permit: ConnectionPermit,
) {
    let (begun, mut first) = (Instant::now(), [0]);
    match timeout(HANDSHAKE, stream.peek(&mut first)).await {
        // a method in the place of a handshake
        Ok(Ok(1..)) if first[0].is_ascii_uppercase() => return refuse_plain(&handler, stream, address).await,
        Ok(Ok(1..)) => {}
        Ok(Ok(0) | Err(_)) => return,
        Err(_) => return tracing::debug!("TLS handshake timed out"),
    }
    let accepted = match timeout(HANDSHAKE.saturating_sub(begun.elapsed()), handshake(stream)).await {
        Ok(Ok(accepted)) => accepted,
        Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => return tracing::debug!("TLS handshake timed out"),
    };
    let secured = TlsInfo { name: accepted.name, certificate: accepted.certificate };
    let connection = Arc::new(ConnectionHandle::new(address, Some(Arc::new(secured))).at(permit.activity()));
    let stream = Stream::new(Transport::TlsServer(accepted.stream));
    if accepted.is_h2 {
        // apart: it is many times as large as a connection in HTTP/1
        Box::pin(h2::connection::serve_h2(handler, stream, BytesMut::new(), connection, permit)).await;
    } else {
        let conn = ClientConnection::new(stream, connection, handler.stopped.clone());
        connection::serve_http1(handler, conn, permit).await;
    }
}

/// Tells a client that speaks plain HTTP where TLS is spoken: it would see nothing but a closed connection.
async fn refuse_plain(handler: &ConnectionHandler, stream: TcpStream, address: Option<IpAddr>) {
    let mut conn = ClientConnection::new(
        Stream::new(Transport::tcp(stream)),
        Arc::new(ConnectionHandle::new(address, None)),
        handler.stopped.clone(),
    );
    let id = handler.gateway.fresh_id();
    let text = "A plain HTTP request was sent to an HTTPS port: use https:// in the address.\n";
    let reply = Reply::text(StatusCode::BAD_REQUEST, text).closing();
    let client = (conn.handle.address(), "");
    access_log::unread(&handler.gateway, client, reply.status.as_u16(), &id, Reason::PlainOnTls);
    let _ = reply::write(handler, &mut conn, reply, &Method::GET, &id).await;
    conn.linger().await;
}
