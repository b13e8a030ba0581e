//! TLS handshakes of clients, with a deadline. Connections are counted before it.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use pingora_core::server::ShutdownWatch;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::server::TlsStream;

use super::accepted_connection::AcceptedConnection;
use super::access_log;
use super::connection_handle::ConnectionHandle;
use super::connection_handler::ConnectionHandler;
use super::connection_limits::ConnectionPermit;
use super::h1::client_connection::ClientConnection;
use super::h1::reply;
use super::server_app::ProxyApp;
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

/// Completes the handshake of a connection that has been counted; `None` if there is nothing to serve.
pub(crate) async fn accept<H: Future<Output = io::Result<Accepted>>>(
    app: &ProxyApp,
    shutdown: &ShutdownWatch,
    stream: TcpStream,
    handshake: impl FnOnce(TcpStream) -> H,
    address: Option<IpAddr>,
    permit: ConnectionPermit,
) -> Option<AcceptedConnection> {
    let (begun, mut first) = (Instant::now(), [0]);
    match timeout(HANDSHAKE, stream.peek(&mut first)).await {
        // a method in the place of a handshake
        Ok(Ok(1..)) if first[0].is_ascii_uppercase() => {
            refuse_plain(&app.handler(shutdown), stream, address).await;
            return None;
        }
        Ok(Ok(1..)) => {}
        Ok(Ok(0) | Err(_)) => return None,
        Err(_) => return not_completed(&"timed out"),
    }
    let accepted = match timeout(HANDSHAKE.saturating_sub(begun.elapsed()), handshake(stream)).await {
        Ok(Ok(accepted)) => accepted,
        Ok(Err(error)) => return not_completed(&error),
        Err(_) => return not_completed(&"timed out"),
    };
    let tls = Some(Arc::new(TlsInfo { name: accepted.name, certificate: accepted.certificate }));
    let stream = Stream::new(Transport::TlsServer(accepted.stream));
    Some(AcceptedConnection { stream, address, tls, is_h2: accepted.is_h2, permit })
}

fn not_completed(error: &dyn fmt::Display) -> Option<AcceptedConnection> {
    tracing::debug!(%error, "TLS handshake failed");
    None
}

/// Responds to plain HTTP on a TLS listener, instead of only closing the connection.
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
