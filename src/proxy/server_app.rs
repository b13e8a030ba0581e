//! The proxy as a pingora application: [`ServerApp::process_new`] serves one connection to its end. The workers accept
//! connections and hand them over; which protocol is spoken has been agreed on by then.

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::BytesMut;
use pingora_core::apps::ServerApp;
use pingora_core::protocols::Stream as PingoraStream;
use pingora_core::server::ShutdownWatch;

use super::accepted_connection::AcceptedConnection;
use super::build_gateway::Current;
use super::connection_handle::ConnectionHandle;
use super::connection_handler::ConnectionHandler;
use super::connection_limits::ConnectionPermit;
use super::h1::client_connection::ClientConnection;
use super::h1::connection;
use super::h2;
use crate::upstream::tls::Connector;

/// The application of one worker thread.
pub(crate) struct ProxyApp {
    current: Current,
    connector: Connector,
}

impl ProxyApp {
    pub(crate) fn new(current: Current) -> Self {
        Self { current, connector: Connector::new() }
    }

    /// Counts a connection; `None`: there are too many. `address` is the other end's; `None` on a Unix socket.
    pub(crate) fn acquire(&self, address: Option<IpAddr>) -> Option<ConnectionPermit> {
        let gateway = self.current.gateway();
        gateway.connections.acquire(address, &gateway.config)
    }

    /// What serves one connection.
    pub(super) fn handler(&self, shutdown: &ShutdownWatch) -> ConnectionHandler {
        ConnectionHandler::new(self.current.clone(), self.connector.clone(), shutdown.clone())
    }
}

#[async_trait]
impl ServerApp for ProxyApp {
    /// `session` is an [`AcceptedConnection`]: it has been counted, and its socket can be asked what pingora's streams do not
    /// tell (whether its peer is gone, how much it takes without waiting). It is never handed back.
    async fn process_new(self: &Arc<Self>, session: PingoraStream, shutdown: &ShutdownWatch) -> Option<PingoraStream> {
        let Ok(accepted) = session.into_any().downcast::<AcceptedConnection>() else {
            tracing::error!("connection dropped: it was not counted");
            return None;
        };
        let AcceptedConnection { stream, address, tls, is_h2, permit } = *accepted;
        let handler = self.handler(shutdown);
        let handle = Arc::new(ConnectionHandle::new(address, tls).with_activity(permit.activity()));
        if is_h2 {
            // apart: it is many times as large as a connection in HTTP/1
            Box::pin(h2::connection::serve_h2(handler, stream, BytesMut::new(), handle, permit)).await;
        } else {
            let conn = ClientConnection::new(stream, handle, handler.stopped.clone());
            connection::serve_http1(handler, conn, permit).await;
        }
        None
    }
}
