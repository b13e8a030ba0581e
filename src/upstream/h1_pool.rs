//! Kept upstream connections. Each thread has its own, so that a request never waits for another
//! thread; the pool of one upstream is never used for another.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;

use crate::wire::stream::{IdleProbe, Stream};

/// Kept connections of one thread, all upstreams together.
pub(crate) const KEPT: usize = 1024;
/// Idle connections are given up sooner than common backends do (Node.js: 5 s), so that a request
/// seldom meets a connection that is just being closed.
pub(crate) const KEPT_TIME: Duration = Duration::from_secs(4);

thread_local! {
    static POOL: RefCell<Pool> = RefCell::default();
}

#[derive(Default)]
struct Pool {
    idle: HashMap<u64, Vec<Idle>, ahash::RandomState>,
    count: usize,
    /// One a second: the clock by which connections grow old, that costs no request a look.
    sweeps: u64,
}

struct Idle {
    stream: Stream,
    /// How many sweeps there had been when it was last used.
    since: u64,
    /// Whether a second answer may follow the last one.
    needs_probe: bool,
}

/// Something has come over a kept connection that nobody asked for.
pub(crate) struct Surplus;

/// The connection to this target that was used last, if one is left that the other end has not closed, and whether it
/// is doubtful. A request that is not `repeatable` is worth asking the kernel about any.
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

/// Keeps a connection whose last answer was read to its end. It is `needs_probe` where a body was sent, which a server may
/// take for one more request, or where an answer had none, which a server may send all the same (CWE-444), and stays it.
pub(crate) fn keep(target: u64, stream: Stream, needs_probe: bool) {
    POOL.with_borrow_mut(|pool| {
        if pool.count < KEPT {
            pool.count += 1;
            pool.idle.entry(target).or_default().push(Idle { stream, since: pool.sweeps, needs_probe });
        }
    });
}

/// Closes what has been idle for too long; called once a second on each thread.
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
