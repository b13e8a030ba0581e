//! What one connection is served with: the current gateway, and the connector for upstream servers.

use pingora_core::server::ShutdownWatch;

use super::build_gateway::Current;
use super::gateway::Gateway;
use crate::upstream::tls::Connector;

/// Serves one connection, or one stream of it.
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
    pub(crate) fn new(current: Current, connector: Connector, stopped: ShutdownWatch) -> Self {
        Self { connector, gateway: current.gateway(), current, stopped }
    }

    /// A copy with the current gateway, for a stream that begins now.
    pub(crate) fn for_request(&mut self) -> Self {
        self.refresh();
        self.clone()
    }

    /// Switches to the current gateway.
    pub(super) fn refresh(&mut self) {
        self.current.refresh(&mut self.gateway);
    }
}
