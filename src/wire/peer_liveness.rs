//! Distinguishes peers that have vanished from peers that do not read. The kernel can give up on data that is not acknowledged
//! (TCP_USER_TIMEOUT), but treats a closed window alike: a player that pauses would be cut off. So the kernel's TCP_INFO is
//! read now and then: a peer that answers probes is there, and how long it may pause is a matter of `limits.idle`.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Waker};

use futures_util::task::AtomicWaker;
use pingora_core::protocols::l4::ext::get_tcp_info;

/// How long a peer that has something to acknowledge may be silent, in milliseconds.
const SILENT_MILLIS: u32 = 30_000;
/// Seconds between two looks at one socket. It must be found silent twice: a probe may be under way to a living peer.
const LOOK_EVERY: u64 = 6;

thread_local! {
    static WATCHED: RefCell<Watched> = RefCell::default();
}

/// The sockets of one thread.
#[derive(Default)]
struct Watched {
    sockets: HashMap<u64, Entry, ahash::RandomState>,
    next: u64,
    seconds: u64,
}

struct Entry {
    socket: RawFd,
    state: Weak<State>,
    suspect: bool,
}

#[derive(Debug, Default)]
struct State {
    gone: AtomicBool,
    waker: AtomicWaker,
}

/// Watches one TCP socket, for as long as its owner has it.
#[derive(Debug)]
pub(crate) struct PeerLiveness {
    key: u64,
    state: Arc<State>,
    /// The one that is registered: nearly all polls come from one task.
    waker: Option<Waker>,
}

impl PeerLiveness {
    /// To be dropped before the socket is closed.
    pub(crate) fn of(socket: RawFd) -> Self {
        let state = Arc::<State>::default();
        let key = WATCHED.with_borrow_mut(|watched| {
            watched.next += 1;
            let entry = Entry { socket, state: Arc::downgrade(&state), suspect: false };
            watched.sockets.insert(watched.next, entry);
            watched.next
        });
        Self { key, state, waker: None }
    }

    /// An error once the peer has vanished; until then the task is woken when it does.
    pub(crate) fn check(&mut self, cx: &Context<'_>) -> io::Result<()> {
        if !self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            self.waker = Some(cx.waker().clone());
            self.state.waker.register(cx.waker());
        }
        if self.state.gone.load(Ordering::Relaxed) { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) }
    }
}

impl Drop for PeerLiveness {
    fn drop(&mut self) {
        // a thread that ends has dropped them already
        let _ = WATCHED.try_with(|watched| watched.borrow_mut().sockets.remove(&self.key));
    }
}

/// Looks at some of this thread's sockets; called once a second.
pub(crate) fn look() {
    WATCHED.with_borrow_mut(|watched| {
        watched.seconds += 1;
        let turn = watched.seconds % LOOK_EVERY;
        watched.sockets.retain(|key, entry| {
            // the descriptor of one that was closed on another thread may belong to another socket by now
            let Some(state) = entry.state.upgrade() else { return false };
            if key % LOOK_EVERY == turn {
                let silent = is_silent(entry.socket);
                if silent && entry.suspect {
                    state.gone.store(true, Ordering::Relaxed);
                    state.waker.wake();
                }
                entry.suspect = silent;
            }
            true
        });
    });
}

/// Whether there is something to acknowledge, and neither that nor a probe has been answered for long.
fn is_silent(socket: RawFd) -> bool {
    get_tcp_info(socket).is_ok_and(|info| {
        let waits = info.tcpi_unacked > 0 || info.tcpi_notsent_bytes > 0;
        let unanswered = info.tcpi_retransmits > 0 || info.tcpi_probes > 0;
        waits && unanswered && info.tcpi_last_ack_recv >= SILENT_MILLIS
    })
}
