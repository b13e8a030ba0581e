//! Where a request comes from, and which queue and limits it counts against.

use std::net::{IpAddr, Ipv4Addr};

use super::limits::fair_queue::Flow;
use crate::web::network::network_prefix;

/// The origin of a request, for throttling, the session list and the audit trail.
#[derive(Debug, Clone, Default)]
pub struct Caller {
    /// The client's address; `None` on a Unix socket.
    pub address: Option<IpAddr>,
    /// The address belongs to a trusted proxy that did not name its client, so many people share it.
    pub is_proxy: bool,
    /// Identifies the connection while it is open.
    pub connection: usize,
    /// User-Agent as sent, truncated to 256 bytes by the creator of this value.
    pub user_agent: String,
    /// Request id, for the audit trail.
    pub request_id: String,
    /// Value of the device cookie, if one was presented.
    pub device: Option<String>,
    /// Id of the valid session that the browser presented: signing in ends it.
    pub session: Option<String>,
}

impl Caller {
    /// The address that attempts are counted by: 127.0.0.1 on a Unix socket; `None`: many people share it.
    pub(crate) fn counted_address(&self) -> Option<IpAddr> {
        (!self.is_proxy).then(|| self.address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)))
    }

    /// The address that limits apply to; `None`: the client's address is unknown.
    pub(super) fn limited_address(&self) -> Option<IpAddr> {
        self.address.filter(|_| !self.is_proxy)
    }

    /// The queue flow that the caller belongs to.
    pub(super) fn flow(&self) -> Flow {
        self.limited_address()
            .map_or(Flow::Connection(self.connection), |address| Flow::Network(network_prefix(address)))
    }
}
