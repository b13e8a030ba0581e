//! Idle upstream connections, kept for reuse. Each thread has its own pool, so that a request never waits for another
//! thread; the pool of one upstream is never used for another.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;

use crate::wire::stream::{IdleProbe, Stream};

/// Limit on idle connections of one thread, all upstreams together.
pub(crate) const KEPT: usize = 1024;
/// Idle connections are closed sooner than common backends close them (Node.js: 5 s), so that a request rarely meets a
/// connection that is being closed.
pub(crate) const KEPT_TIME: Duration = Duration::from_secs(4);

thread_local! {
    static POOL: RefCell<Pool> = RefCell::default();
}

#[derive(Default)]
struct Pool {
    idle: HashMap<u64, Vec<Idle>, ahash::RandomState>,
    count: usize,
    /// Counts sweeps, one a second. Connections age by this count, so that no request has to read the clock.
    sweeps: u64,
}

struct Idle {
    stream: Stream,
    /// The count of sweeps when it was last used.
    since: u64,
    /// Whether a second response may follow the last one.
    needs_probe: bool,
}

/// Unsolicited bytes have arrived on an idle connection.
pub(crate) struct Surplus;

/// The most recently used connection to this target that the other end has not closed, and whether it needed a probe.
/// For a request that is not `repeatable`, the kernel is asked about every connection.
pub(crate) async fn take(target: u64, repeatable: bool) -> Result<Option<(Stream, bool)>, Surplus> {
    while let Some(Idle { mut stream, needs_probe, .. }) = pop(target) {
        match if needs_probe || !repeatable { stream.probe_idle().await } else { stream.looks_idle() } {
            IdleProbe::Yes => return Ok(Some((stream, needs_probe))),
            IdleProbe::Surplus => return Err(Surplus),
            IdleProbe::Ended => {}
        }
    }
    Ok(None)
}

fn pop(target: u64) -> Option<Idle> {
    POOL.with_borrow_mut(|pool| {
        let kept = pool.idle.get_mut(&target)?.pop()?;
        pool.count -= 1;
        Some(kept)
    })
}

/// Keeps a connection after its last response was read to the end. It `needs_probe` if a body was sent, which a server
/// may read as another request, or if a response had no body, which a server may send anyway (CWE-444). From then on it
/// always does.
pub(crate) fn keep(target: u64, stream: Stream, needs_probe: bool) {
    POOL.with_borrow_mut(|pool| {
        if pool.count < KEPT {
            pool.count += 1;
            pool.idle.entry(target).or_default().push(Idle { stream, since: pool.sweeps, needs_probe });
        }
    });
}

/// Closes connections that were idle for too long; called once a second on each thread.
pub(crate) fn sweep() {
    POOL.with_borrow_mut(|pool| {
        pool.sweeps += 1;
        for idle in pool.idle.values_mut() {
            idle.retain(|kept| pool.sweeps - kept.since <= KEPT_TIME.as_secs());
        }
        pool.idle.retain(|_, idle| !idle.is_empty());
        pool.count = pool.idle.values().map(Vec::len).sum();
    });
}
