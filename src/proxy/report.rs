//! What the gateway reports of itself for `/metrics`.

use std::collections::HashSet;
use std::sync::Arc;

use super::gateway::Gateway;
use crate::metrics::{Format, Reading};
use crate::upstream::targets::Target;

impl Gateway {
    /// When the first certificate ends (seconds since 1970), and how many new ones could not be used.
    pub fn note_certificates(&self, expiry: Option<i64>, unfit: u64) {
        if let Some(expiry) = expiry {
            self.metrics.certificate_ends(expiry);
        }
        self.metrics.certificates_unfit.add(unfit);
    }

    /// The text of `/metrics`.
    pub fn metrics_text(&self, format: Format) -> String {
        let reading = Reading {
            connections: self.connections.open(),
            connections_refused: self.connections.refused(),
            live: self.live.open(),
            sessions: self.accounts.sessions_active(),
            hashing: self.accounts.hash_queue(),
            log_dropped: self.log.dropped(),
            panics: self.log.panics(),
            servers: self.servers(),
            now: self.clock.now(),
        };
        self.metrics.text(format, &reading)
    }

    /// Servers that can be told apart, or are asked whether they are well: upstream, address, and whether requests go
    /// to it.
    fn servers(&self) -> Vec<(String, String, bool)> {
        let upstreams = self.config.upstreams.iter().zip(&self.targets);
        let told = upstreams.filter(|(upstream, targets)| upstream.health.is_some() || targets.all().len() > 1);
        let mut seen = HashSet::new();
        told.flat_map(|(upstream, targets)| {
            let server = |target: &Arc<Target>| (upstream.name.clone(), target.server().to_owned(), !target.is_down());
            targets.all().iter().map(server).collect::<Vec<_>>()
        })
        // one may be written twice, to be asked twice as often
        .filter(|(upstream, server, _)| seen.insert((upstream.clone(), server.clone())))
        .collect()
    }
}
