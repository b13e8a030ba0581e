//! The addresses of the upstreams' names, looked up again and again.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{sleep, timeout};

use crate::proxy::{Current, Gateway};

/// How often names of upstreams are looked up again, and how long one look-up may take.
const RESOLVE: Duration = Duration::from_secs(15);
/// The least time between two look-ups, however often a server cannot be reached.
const RESOLVE_AGAIN: Duration = Duration::from_secs(1);
const RESOLVE_TIME: Duration = Duration::from_secs(5);

/// Looks up the upstreams' names now and then, until the process stops.
pub(super) async fn look_up(current: Current) {
    loop {
        sleep(RESOLVE_AGAIN).await;
        let gateway = current.gateway();
        let _ = timeout(RESOLVE.saturating_sub(RESOLVE_AGAIN), gateway.look_up_wanted()).await;
        resolve(&current.gateway()).await;
    }
}

/// Looks up the upstreams' names; what cannot be found now keeps what was found before.
pub(super) async fn resolve(gateway: &Gateway) {
    let mut names = gateway.names();
    names.sort();
    names.dedup();
    if names.is_empty() {
        return;
    }
    let look_up = |(host, port): (String, u16)| async move {
        let looked =
            async { Ok::<Vec<_>, std::io::Error>(tokio::net::lookup_host((host.as_str(), port)).await?.collect()) };
        let found = match timeout(RESOLVE_TIME, looked).await {
            Ok(Ok(addresses)) => Ok(addresses),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("timed out".to_owned()),
        };
        if let Err(error) = &found {
            tracing::warn!(host, error, "upstream DNS lookup failed");
        }
        ((host, port), found)
    };
    let found = join_all(names.into_iter().map(look_up)).await;
    gateway.resolved(&found);
}
