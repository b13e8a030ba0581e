//! What serves connections: the gateway as it is now, and what reaches its servers. One for each thread.

use std::net::IpAddr;

use pingora_core::server::ShutdownWatch;

use super::assemble::Current;
use super::connection_limits::ConnectionPermit;
use super::gateway::Gateway;
use crate::upstream::tls::Connector;

/// Serves connections; one for each thread.
#[derive(Clone)]
pub(crate) struct ConnectionHandler {
    current: Current,
    /// The one that the request under way began with.
    pub(super) gateway: Gateway,
    pub(super) connector: Connector,
    pub(super) stopped: ShutdownWatch,
}

impl ConnectionHandler {
    /// `stopped` says when the gateway stops.
    pub(crate) fn new(current: Current, stopped: ShutdownWatch) -> Self {
        Self { connector: Connector::new(), gateway: current.gateway(), current, stopped }
    }

    /// Another one, for a connection or a stream that begins now.
    pub(crate) fn for_request(&mut self) -> Self {
        self.refresh();
        self.clone()
    }

    /// Takes the gateway as it is now.
    pub(super) fn refresh(&mut self) {
        self.current.refresh(&mut self.gateway);
    }

    /// Counts a connection; `None`: there are too many. `address` is the other end's; `None` on a Unix socket.
    pub(crate) fn admit(&self, address: Option<IpAddr>) -> Option<ConnectionPermit> {
        self.gateway.connections.admit(address, &self.gateway.config)
    }
}
