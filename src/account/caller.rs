//! Who asks: where a request comes from, and behind whom it waits.

use std::net::{IpAddr, Ipv6Addr};

use super::limits::fair_queue::Flow;

/// Where a request comes from, for throttling, the session list and the audit trail.
#[derive(Debug, Clone, Default)]
pub struct Caller {
    /// The client's address; `None` on a Unix socket.
    pub address: Option<IpAddr>,
    /// The address is a trusted proxy's, which did not say whose client it is: many people have it.
    pub is_proxy: bool,
    /// Tells the connection from others, for as long as it is open.
    pub connection: usize,
    /// User-Agent as sent, cut to 256 bytes by whoever builds this.
    pub user_agent: String,
    /// Request id, for the audit trail.
    pub request_id: String,
    /// Value of the device cookie, if one was presented.
    pub device: Option<String>,
    /// Id of the session that the browser presented and that was valid: signing in ends it.
    pub session: Option<String>,
}

impl Caller {
    /// The address that limits count; `None`: nobody knows where the client is.
    pub(super) fn limited_address(&self) -> Option<IpAddr> {
        self.address.filter(|_| !self.is_proxy)
    }

    /// Behind whom the caller waits.
    pub(super) fn flow(&self) -> Flow {
        self.limited_address()
            .map_or(Flow::Connection(self.connection), |address| Flow::Network(network_prefix(address)))
    }
}

/// The address as it is counted: IPv6 by /64, because one customer has all of it.
pub(super) fn network_prefix(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}
