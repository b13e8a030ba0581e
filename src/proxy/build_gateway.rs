//! Builds a gateway, and replaces it on a reload: each request uses the gateway that is current when it begins, to its
//! end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use super::connection_limits::Connections;
use super::gateway::{Gateway, Generation, ProcessState};
use crate::account::Accounts;
use crate::clock::Clock;
use crate::config::Config;
use crate::logging::Log;
use crate::metrics::Metrics;
use crate::pages::Pages;
use crate::policy::app_cookies::Settled;
use crate::policy::header_filter::HeaderFilter;
use crate::policy::route;
use crate::upstream::targets::Targets;
use crate::upstream::tls;

/// Puts a gateway together. `whoami` is where the built-in backend listens.
pub(crate) fn gateway(
    config: Arc<Config>,
    accounts: Accounts,
    clock: Clock,
    log: Log,
    whoami: Option<SocketAddr>,
) -> Gateway {
    let id_hasher = ahash::RandomState::new();
    let process = ProcessState {
        live: Arc::default(),
        connections: Arc::new(Connections::new()),
        metrics: Arc::new(Metrics::new()),
        via: format!("{:016x}", id_hasher.hash_one("via")),
        settled: Settled::default(),
        next_id: AtomicU64::new(0),
        dns_refresh: Notify::new(),
        log,
        clock,
        id_hasher,
    };
    let targets = config.upstreams.iter().map(|upstream| Arc::new(Targets::new(upstream, whoami))).collect();
    assemble(config, accounts, targets, 0, Arc::new(process))
}

/// The same gateway under another configuration, for requests that begin from now on. Upstreams that have
/// not changed keep their servers' standing and their connections.
pub(crate) fn reconfigured(
    before: &Gateway,
    config: Arc<Config>,
    accounts: Accounts,
    whoami: Option<SocketAddr>,
) -> Gateway {
    let targets = config.upstreams.iter().map(|upstream| {
        let mut others = before.config.upstreams.iter().zip(&before.targets);
        let same = others.find(|(old, targets)| old.name == upstream.name && targets.serve(upstream, whoami));
        same.map_or_else(|| Arc::new(Targets::new(upstream, whoami)), |(_, same)| same.clone())
    });
    let targets = targets.collect();
    assemble(config, accounts, targets, before.number + 1, before.process.clone())
}

fn assemble(
    config: Arc<Config>,
    accounts: Accounts,
    targets: Vec<Arc<Targets>>,
    number: u64,
    process: Arc<ProcessState>,
) -> Gateway {
    tls::tell(&config);
    Gateway(Arc::new(Generation {
        pages: Pages::new(&config, accounts.clone()),
        cookies: config.cookie_style(),
        header_filter: HeaderFilter::new(&config),
        route_metrics: process.metrics.of_routes(config.routes.iter().map(route::name)),
        targets,
        number,
        proxy_warning_logged: AtomicBool::new(false),
        config,
        accounts,
        process,
    }))
}

/// The current gateway; all clones share it.
#[derive(Clone)]
pub struct Current(Arc<ArcSwap<Generation>>);

impl Current {
    /// Begins with this one.
    pub fn new(gateway: &Gateway) -> Self {
        Self(Arc::new(ArcSwap::new(gateway.0.clone())))
    }

    /// The gateway for a request that begins now.
    pub fn gateway(&self) -> Gateway {
        Gateway(self.0.load_full())
    }

    /// Puts another in place, at once for all threads.
    pub fn replace(&self, gateway: &Gateway) {
        self.0.store(gateway.0.clone());
    }

    /// Updates `gateway` if another one is current. Writes no memory that threads share unless it changed.
    pub(super) fn refresh(&self, gateway: &mut Gateway) {
        let now = self.0.load();
        if !Arc::ptr_eq(&now, &gateway.0) {
            *gateway = Gateway(arc_swap::Guard::into_inner(now));
        }
    }
}
