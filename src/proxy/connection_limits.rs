//! Limits on connections, in total and per address; which connection is evicted at a limit; and how many each thread
//! serves.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::connection_activity::{self, ConnectionActivity};
use super::limit_log::LimitLog;
use crate::config::Config;
use crate::metrics::Counter;
use crate::policy::normalize::is_trusted;
use crate::web::network::network_prefix;

/// Streams of one address, beyond the first of each connection, may use `limits.connections` divided by this.
const STREAMS_PART: usize = 4;

/// The names of the limits, as they are in the configuration.
const IN_ALL: &str = "limits.connections";
const OF_ONE: &str = "limits.connections_per_address";

/// Open connections, in all and by address (IPv6 by /64).
#[derive(Debug)]
pub(crate) struct Connections {
    open: AtomicUsize,
    /// Refused at the total limit, and at the limit per address.
    refused: [Counter; 2],
    /// Closed to make room for others.
    evicted: Counter,
    by_address: Mutex<HashMap<IpAddr, PerAddress, ahash::RandomState>>,
    pub(crate) log: LimitLog,
}

/// What one address has.
#[derive(Debug, Default)]
struct PerAddress {
    activities: Vec<Arc<ConnectionActivity>>,
    /// Streams beyond the first of each connection.
    streams: usize,
}

/// One counted connection; counts itself out when dropped.
#[derive(Debug)]
pub(crate) struct ConnectionPermit {
    connections: Arc<Connections>,
    address: Option<IpAddr>,
    activity: Arc<ConnectionActivity>,
    place: Option<LoadGuard>,
}

/// One counted stream; counts itself out when dropped.
pub(crate) struct StreamPermit {
    connections: Arc<Connections>,
    address: Option<IpAddr>,
}

/// How many connections one thread serves.
#[derive(Debug, Clone, Default)]
pub(crate) struct WorkerLoad(Arc<AtomicUsize>);

/// A connection's place on its thread; given back when dropped.
#[derive(Debug)]
struct LoadGuard(WorkerLoad);

impl WorkerLoad {
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for LoadGuard {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl ConnectionPermit {
    /// Also counts it on this thread.
    pub(crate) fn assign_to_worker(mut self, load: &WorkerLoad) -> Self {
        load.0.fetch_add(1, Ordering::Relaxed);
        self.place = Some(LoadGuard(load.clone()));
        self
    }

    /// What it is doing, which decides whether it can be evicted.
    pub(crate) fn activity(&self) -> &Arc<ConnectionActivity> {
        &self.activity
    }
}

impl Connections {
    pub(crate) fn new() -> Self {
        Self {
            open: AtomicUsize::new(0),
            refused: Default::default(),
            evicted: Counter::default(),
            by_address: Mutex::default(),
            log: LimitLog::default(),
        }
    }

    /// Connections open now, with the streams beyond the first of each.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Connections refused so far at the total limit and at the limit per address, and connections evicted.
    pub(crate) fn refused(&self) -> [u64; 3] {
        [self.refused[0].value(), self.refused[1].value(), self.evicted.value()]
    }

    /// Counts a connection. At the limit per address, the address's connection that has been idle longest is evicted;
    /// at the total limit, one of the address with the most. `None`: none can be evicted.
    pub(crate) fn acquire(self: &Arc<Self>, address: Option<IpAddr>, config: &Config) -> Option<ConnectionPermit> {
        let limits = &config.limits;
        let address = counted_for(address, config);
        let mut by_address = self.by_address.lock();
        let own = address.and_then(|address| by_address.get_mut(&address));
        if let Some(held) = own
            && held.activities.len() >= limits.connections_per_address
            && !self.evict(held, OF_ONE, address)
        {
            return self.refuse(1, OF_ONE, address);
        }
        if self.open() >= limits.connections && !self.evict_from_largest(&mut by_address) {
            return self.refuse(0, IN_ALL, address);
        }
        self.open.fetch_add(1, Ordering::Relaxed);
        let activity = Arc::new(ConnectionActivity::new());
        if let Some(address) = address {
            let held = by_address.entry(address).or_default();
            activity.set_index(held.activities.len());
            held.activities.push(activity.clone());
        }
        Some(ConnectionPermit { connections: self.clone(), address, activity, place: None })
    }

    /// Counts a stream that may hold as much as a connection does.
    pub(crate) fn acquire_stream(self: &Arc<Self>, address: Option<IpAddr>, config: &Config) -> Option<StreamPermit> {
        let most = config.limits.connections;
        let address = counted_for(address, config);
        if self.open() >= most {
            return self.refuse(0, IN_ALL, address);
        }
        if let Some(address) = address {
            let mut by_address = self.by_address.lock();
            let held = by_address.entry(address).or_default();
            if held.streams >= (most / STREAMS_PART).max(1) {
                drop(by_address);
                return self.refuse(0, IN_ALL, Some(address));
            }
            held.streams += 1;
        }
        self.open.fetch_add(1, Ordering::Relaxed);
        Some(StreamPermit { connections: self.clone(), address })
    }

    fn refuse<T>(&self, which: usize, key: &'static str, address: Option<IpAddr>) -> Option<T> {
        self.refused[which].add_one();
        self.log.refused(key, || address.map_or_else(String::new, |address| address.to_string()));
        None
    }

    /// Evicts a connection of an address; `false` if none can be evicted.
    fn evict(&self, held: &mut PerAddress, key: &'static str, address: Option<IpAddr>) -> bool {
        let Some(at) = connection_activity::evict_first(&held.activities) else { return false };
        drop(held.take(at));
        self.open.fetch_sub(1, Ordering::Relaxed);
        self.evicted.add_one();
        self.log.evicted(key, || address.map_or_else(String::new, |address| address.to_string()));
        true
    }

    /// Evicts a connection of the address with the most connections and streams.
    fn evict_from_largest(&self, by_address: &mut HashMap<IpAddr, PerAddress, ahash::RandomState>) -> bool {
        let largest = by_address.iter_mut().max_by_key(|(_, held)| held.activities.len() + held.streams);
        largest.is_some_and(|(address, held)| self.evict(held, IN_ALL, Some(*address)))
    }

    fn leave(&self, address: IpAddr, change: impl FnOnce(&mut PerAddress)) {
        let mut by_address = self.by_address.lock();
        if let Some(held) = by_address.get_mut(&address) {
            change(held);
            if held.activities.is_empty() && held.streams == 0 {
                by_address.remove(&address);
            }
        }
    }
}

impl PerAddress {
    /// Removes a connection; the last one moves to its index.
    fn take(&mut self, at: usize) -> Arc<ConnectionActivity> {
        let taken = self.activities.swap_remove(at);
        if let Some(moved) = self.activities.get(at) {
            moved.set_index(at);
        }
        taken
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        if let Some(address) = self.address {
            self.connections.leave(address, |held| {
                if let Some(at) = self.activity.index().filter(|_| !self.activity.is_evicted()) {
                    held.take(at);
                }
            });
        }
        // one that was evicted has been counted out
        if !self.activity.is_evicted() {
            self.connections.open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        self.connections.open.fetch_sub(1, Ordering::Relaxed);
        if let Some(address) = self.address {
            self.connections.leave(address, |held| held.streams = held.streams.saturating_sub(1));
        }
    }
}

/// The address that a connection counts towards. `None` on a Unix socket and for a trusted proxy, whose connections
/// belong to many people.
fn counted_for(address: Option<IpAddr>, config: &Config) -> Option<IpAddr> {
    address.map(|ip| ip.to_canonical()).filter(|&ip| !is_trusted(&config.server, ip)).map(network_prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(limits: &str) -> Config {
        let text = format!("[limits]\n{limits}\n[[route]]\nupstream = \"http://127.0.0.1:9\"\n");
        crate::config::parse(&text, "gateway.toml", std::path::PathBuf::new(), &|_| None).unwrap()
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn the_connection_that_is_idle_for_longest_makes_room_for_one_of_its_address_and_no_busy_one_does() {
        let config = config("connections_per_address = 3");
        let connections = Arc::new(Connections::new());
        let acquire = |last| connections.acquire(Some(address(last)), &config);
        let (busy, first, second) = (acquire(1).unwrap(), acquire(1).unwrap(), acquire(1).unwrap());
        let other = acquire(2).unwrap();
        busy.activity().busy();
        second.activity().busy();
        first.activity().idle();
        second.activity().idle();
        let third = acquire(1).unwrap();
        assert!(first.activity().is_evicted());
        assert!(!second.activity().is_evicted());
        third.activity().busy();
        let fourth = acquire(1).unwrap();
        assert!(second.activity().is_evicted());
        fourth.activity().busy();
        assert!(acquire(1).is_none(), "all are at work");
        assert!(![&busy, &third, &fourth, &other].iter().any(|one| one.activity().is_evicted()));
        assert_eq!((connections.open(), connections.refused()), (4, [0, 1, 2]));
        drop((busy, first, second, third, fourth, other));
        assert!((connections.open(), connections.by_address.lock().is_empty()) == (0, true));
    }

    #[test]
    fn in_all_the_address_that_has_most_makes_room_for_the_others() {
        let config = config("connections = 5");
        let connections = Arc::new(Connections::new());
        let acquire = |last| connections.acquire(Some(address(last)), &config);
        let (many, few) = ([(); 4].map(|()| acquire(1).unwrap()), acquire(2).unwrap());
        let new = acquire(3).unwrap();
        assert_eq!(many.iter().filter(|one| one.activity().is_evicted()).count(), 1);
        assert!(!few.activity().is_evicted());
        assert!(!new.activity().is_evicted());
        for one in &many {
            one.activity().busy();
        }
        assert!(acquire(4).is_none());
        drop(many);
        assert_eq!((connections.open(), acquire(4).is_some()), (2, true));
    }

    /// An address whose streams wait for servers leaves three quarters of all places to others.
    #[test]
    fn streams_of_one_address_have_a_quarter_of_all_places_and_are_no_connections_of_it() {
        let config = config("connections = 40\nconnections_per_address = 1");
        let connections = Arc::new(Connections::new());
        let _own = connections.acquire(Some(address(1)), &config).unwrap();
        let stream = || connections.acquire_stream(Some(address(1)), &config);
        let held: Vec<_> = std::iter::from_fn(stream).collect();
        assert_eq!((held.len(), connections.open()), (10, 11));
        assert!(connections.acquire_stream(Some(address(2)), &config).is_some());
        drop(held);
        assert!(stream().is_some());
    }
}
