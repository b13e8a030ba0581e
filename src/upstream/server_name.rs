//! The names of a configured server: for `Host`, and for a resolver.

use crate::config::{UpstreamProtocol, UpstreamServer};

/// What `host = "upstream"` sends as `Host`.
pub(crate) fn authority(server: &UpstreamServer) -> String {
    match server {
        UpstreamServer::Whoami => "whoami".to_owned(),
        UpstreamServer::Unix(_) => "localhost".to_owned(),
        UpstreamServer::Tcp { host, port, protocol } => {
            let bracketed = if host.contains(':') { format!("[{host}]") } else { host.clone() };
            let own_port = if *protocol == UpstreamProtocol::Https { 443 } else { 80 };
            if *port == own_port { bracketed } else { format!("{bracketed}:{port}") }
        }
    }
}

pub(crate) fn resolvable(server: &UpstreamServer) -> Option<(String, u16)> {
    match server {
        UpstreamServer::Tcp { host, port, .. } if host.parse::<std::net::IpAddr>().is_err() => {
            Some((host.clone(), *port))
        }
        _ => None,
    }
}
