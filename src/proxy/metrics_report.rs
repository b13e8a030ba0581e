//! What the gateway reports of itself for `/metrics`.

use std::collections::HashSet;
use std::sync::Arc;

use super::gateway::Gateway;
use crate::metrics::{Format, Reading};
use crate::upstream::targets::Target;

/// Records when the first certificate expires (Unix seconds), and how many new ones could not be used.
pub(crate) fn note_certificates(gateway: &Gateway, expiry: Option<i64>, unfit: u64) {
    if let Some(expiry) = expiry {
        gateway.metrics.certificate_ends(expiry);
    }
    gateway.metrics.certificates_unfit.add(unfit);
}

/// The text of `/metrics`.
pub(crate) fn metrics_text(gateway: &Gateway, format: Format) -> String {
    let reading = Reading {
        connections: gateway.connections.open(),
        connections_refused: gateway.connections.refused(),
        live: gateway.live.open(),
        sessions: gateway.accounts.sessions_active(),
        hashing: gateway.accounts.hash_queue(),
        log_dropped: gateway.log.dropped(),
        panics: gateway.log.panics(),
        servers: servers(gateway),
        now: gateway.clock.now(),
    };
    gateway.metrics.text(format, &reading)
}

/// The servers of each upstream that has several or a health check: upstream, address, and whether requests go to it.
fn servers(gateway: &Gateway) -> Vec<(String, String, bool)> {
    let upstreams = gateway.config.upstreams.iter().zip(&gateway.targets);
    let told = upstreams.filter(|(upstream, targets)| upstream.health.is_some() || targets.all().len() > 1);
    let mut seen = HashSet::new();
    told.flat_map(|(upstream, targets)| {
        let server = |target: &Arc<Target>| (upstream.name.clone(), target.server().to_owned(), !target.is_down());
        targets.all().iter().map(server).collect::<Vec<_>>()
    })
    // a server may be listed twice, to get twice the requests
    .filter(|(upstream, server, _)| seen.insert((upstream.clone(), server.clone())))
    .collect()
}
