//! How many requests to a provider one network may have in progress: the provider's places are for all. More than that wait
//! behind each other, whether or not their browsers still do, and so many at most.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::web::network::network_prefix;

/// Sign-ins of one network that are in progress with a provider: a quarter of its places.
const IN_PROGRESS_MAX: usize = 4;
/// Those, and the ones that wait.
const ALL_MAX: usize = 36;
/// How long one waits.
const WAIT: Duration = Duration::from_secs(10);
/// From so many networks on, those without any sign-in are dropped.
const NETWORKS_KEPT: usize = 256;

/// The networks with sign-ins in progress, each of which holds its entry.
#[derive(Default)]
pub(super) struct Shares(Mutex<HashMap<IpAddr, Weak<Share>, ahash::RandomState>>);

struct Share {
    in_progress: Arc<Semaphore>,
    all: Arc<Semaphore>,
}

/// A place, until it is dropped. `None` in it: nothing is counted.
pub(super) struct Place {
    _held: Option<(Arc<Share>, [OwnedSemaphorePermit; 2])>,
}

/// The network has as many sign-ins in progress and waiting as it may have.
#[derive(Debug)]
pub(super) struct ShareExceeded;

impl Shares {
    /// A place, now or after others of the same network. `caller`: `None` if many people share the address.
    pub(super) async fn place(&self, caller: Option<IpAddr>) -> Result<Place, ShareExceeded> {
        let Some(caller) = caller else { return Ok(Place { _held: None }) };
        let share = self.share(network_prefix(caller));
        let queued = Arc::clone(&share.all).try_acquire_owned().map_err(|_| ShareExceeded)?;
        let placed = timeout(WAIT, Arc::clone(&share.in_progress).acquire_owned()).await;
        let placed = placed.map_err(|_| ShareExceeded)?.map_err(|_| ShareExceeded)?;
        Ok(Place { _held: Some((share, [queued, placed])) })
    }

    fn share(&self, network: IpAddr) -> Arc<Share> {
        let mut held = self.0.lock();
        if let Some(share) = held.get(&network).and_then(Weak::upgrade) {
            return share;
        }
        if held.len() >= NETWORKS_KEPT {
            held.retain(|_, share| share.strong_count() > 0);
        }
        let places = |count: usize| Arc::new(Semaphore::new(count));
        let share = Arc::new(Share { in_progress: places(IN_PROGRESS_MAX), all: places(ALL_MAX) });
        held.insert(network, Arc::downgrade(&share));
        share
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[tokio::test]
    async fn a_network_waits_behind_itself_alone_and_so_many_of_it_at_most() {
        let shares = Shares::default();
        let mut held = Vec::new();
        for _ in 0..IN_PROGRESS_MAX {
            held.push(shares.place(Some(address(1))).now_or_never().unwrap().unwrap());
        }
        let mut waiting: Vec<_> =
            (IN_PROGRESS_MAX..ALL_MAX).map(|_| Box::pin(shares.place(Some(address(1))))).collect();
        assert!(waiting.iter_mut().all(|place| place.now_or_never().is_none()));
        assert!(shares.place(Some(address(1))).now_or_never().unwrap().is_err(), "one too many");
        assert!(shares.place(Some(address(2))).now_or_never().unwrap().is_ok(), "another network");
        for _ in 0..2 * ALL_MAX {
            held.push(shares.place(None).now_or_never().unwrap().unwrap());
        }
        drop(held);
        assert!(waiting.swap_remove(0).now_or_never().unwrap().is_ok(), "the first that waited");
    }

    #[tokio::test]
    async fn networks_without_any_sign_in_are_forgotten() {
        let shares = Shares::default();
        let kept = shares.place(Some(address(0))).await.unwrap();
        for network in 0..2 * u16::try_from(NETWORKS_KEPT).unwrap() {
            let [high, low] = network.to_be_bytes();
            shares.place(Some(IpAddr::from([10, 0, high, low]))).await.unwrap();
        }
        assert!(shares.0.lock().len() <= NETWORKS_KEPT);
        let is_held = || shares.0.lock().get(&address(0)).is_some_and(|share| share.strong_count() > 0);
        assert!(is_held());
        drop(kept);
        assert!(!is_held());
    }
}
