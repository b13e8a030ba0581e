//! DNS lookups of upstream names: at startup, periodically, and soon after a server could not be reached.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{sleep, timeout};

use crate::proxy::{Current, Gateway};

/// How often all upstream names are looked up.
const LOOKUP_INTERVAL: Duration = Duration::from_secs(15);
/// Minimum time between two lookups, however often a server cannot be reached.
const LOOKUP_INTERVAL_MIN: Duration = Duration::from_secs(1);
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// Looks up the upstream names periodically, until shutdown.
pub(super) async fn look_up(current: Current) {
    loop {
        sleep(LOOKUP_INTERVAL_MIN).await;
        let gateway = current.gateway();
        let _ = timeout(LOOKUP_INTERVAL.saturating_sub(LOOKUP_INTERVAL_MIN), gateway.look_up_wanted()).await;
        resolve(&current.gateway()).await;
    }
}

/// Looks up all upstream names once. A name whose lookup fails keeps its previous addresses.
pub(super) async fn resolve(gateway: &Gateway) {
    let mut names = gateway.names();
    names.sort();
    names.dedup();
    if names.is_empty() {
        return;
    }
    let look_up = |(host, port): (String, u16)| async move {
        let lookup =
            async { Ok::<Vec<_>, std::io::Error>(tokio::net::lookup_host((host.as_str(), port)).await?.collect()) };
        let found = match timeout(LOOKUP_TIMEOUT, lookup).await {
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
