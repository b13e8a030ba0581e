//! Starts the built-in demo backend if the configuration uses it.

use std::time::Duration;

use tokio::time::sleep;

use super::error::ServeError;
use crate::config::{Config, UpstreamServer};
use crate::critical;
use crate::whoami;

pub(super) fn is_used(config: &Config) -> bool {
    config.upstreams.iter().any(|upstream| upstream.servers.contains(&UpstreamServer::Whoami))
}

/// Starts it on a loopback port of its own, so that it receives exactly what any other backend would.
pub(super) async fn start() -> Result<std::net::SocketAddr, ServeError> {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.map_err(ServeError::new)?;
    let address = listener.local_addr().map_err(ServeError::new)?;
    critical::spawn("whoami", async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => drop(tokio::spawn(whoami::serve(stream))),
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    });
    Ok(address)
}
