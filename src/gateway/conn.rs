//! How many connections there may be, in all and of one address, and how many each thread serves.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::head::is_trusted;
use crate::config::Config;
use crate::metrics::Counter;

/// Open connections, in all and by address (IPv6 by /64).
#[derive(Debug)]
pub(crate) struct Connections {
    open: AtomicUsize,
    /// Refused because there are too many in all, or of one address.
    refused: [Counter; 2],
    by_address: Mutex<HashMap<IpAddr, usize, ahash::RandomState>>,
}

/// One counted connection; counts itself out when dropped.
pub(crate) struct Counted {
    connections: Arc<Connections>,
    address: Option<IpAddr>,
    place: Option<Place>,
}

/// How many connections one thread serves.
#[derive(Debug, Clone, Default)]
pub(crate) struct Load(Arc<AtomicUsize>);

/// A connection's place on its thread; given back when dropped.
#[derive(Debug)]
struct Place(Load);

impl Load {
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Counted {
    /// On this thread, too.
    pub(crate) fn seat(mut self, load: &Load) -> Self {
        load.0.fetch_add(1, Ordering::Relaxed);
        self.place = Some(Place(load.clone()));
        self
    }
}

impl Connections {
    pub(crate) fn new() -> Self {
        Self { open: AtomicUsize::new(0), refused: Default::default(), by_address: Mutex::default() }
    }

    /// Connections open now.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Connections refused so far: because there are too many in all, and of one address.
    pub(crate) fn refused(&self) -> [u64; 2] {
        self.refused.each_ref().map(Counter::value)
    }

    pub(crate) fn admit(self: &Arc<Self>, address: Option<IpAddr>, config: &Config) -> Option<Counted> {
        // a trusted proxy's connections are many people's
        let address = address.map(|ip| ip.to_canonical()).filter(|&ip| !is_trusted(&config.server, ip)).map(network);
        let counted = Counted { connections: self.clone(), address, place: None };
        let open = self.open.fetch_add(1, Ordering::Relaxed);
        let own = address.map_or(0, |address| {
            let mut by_address = self.by_address.lock();
            let count = by_address.entry(address).or_insert(0);
            *count += 1;
            *count
        });
        let too_many = [open >= config.limits.connections, own > config.limits.connections_per_address];
        if let Some(which) = too_many.iter().position(|too_many| *too_many) {
            self.refused[which].add_one();
            return None;
        }
        Some(counted)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.connections.open.fetch_sub(1, Ordering::Relaxed);
        let Some(address) = self.address else { return };
        let mut by_address = self.connections.by_address.lock();
        if let Some(count) = by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&address);
            }
        }
    }
}

fn network(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) >> 64 << 64).into()),
    }
}
