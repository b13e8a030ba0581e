//! What serves one connection: the gateway as it is now, and what reaches its servers.

use pingora_core::server::ShutdownWatch;

use super::assemble::Current;
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

    /// Another one, for a stream that begins now.
    pub(crate) fn for_request(&mut self) -> Self {
        self.refresh();
        self.clone()
    }

    /// Takes the gateway as it is now.
    pub(super) fn refresh(&mut self) {
        self.current.refresh(&mut self.gateway);
    }
}
