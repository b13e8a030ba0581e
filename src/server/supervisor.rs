//! What the service manager is told (sd_notify(3)): when we are ready, that the configuration is read again,
//! that we stop, and, where it asks for that, that we are alive. Without a manager nothing of this happens.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::workers::Workers;
use crate::account::Accounts;

/// One datagram. A socket without a file (`@name`, unix(7)) is nothing that the library reaches.
fn send(states: &[NotifyState<'_>]) -> std::io::Result<()> {
    let socket = std::env::var_os("NOTIFY_SOCKET").unwrap_or_default();
    let Some(name) = socket.as_bytes().strip_prefix(b"@") else { return sd_notify::notify(states) };
    let text = states.iter().fold(String::new(), |text, state| text + &state.to_string() + "\n");
    let datagram = UnixDatagram::unbound()?;
    datagram.connect_addr(&SocketAddr::from_abstract_name(name)?)?;
    datagram.send(text.as_bytes()).map(drop)
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = send(states) {
        tracing::warn!(%error, "sd_notify failed");
    }
}

/// Everything is open.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The configuration is being read again; [`reloaded`] ends that.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "sd_notify failed"),
    }
}

/// It has been read; `status` says what came of it.
pub(super) fn reloaded(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The end has begun.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("draining")]);
}

/// Tells the manager that we are alive, twice in the time that it gives us, as long as the store and every
/// thread that serves answer. Ends at once where it does not ask for that.
pub(super) async fn watchdog(accounts: Accounts, workers: Workers) {
    let Some(within) = sd_notify::watchdog_enabled() else { return };
    let mut tick = interval((within / 2).max(Duration::from_millis(1)));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let alive = async { workers.ping().await && accounts.ready().await };
        if timeout(within / 2, alive).await.unwrap_or(false) {
            tell(&[NotifyState::Watchdog]);
        } else {
            tracing::error!("account store or worker not responding, watchdog not notified");
        }
    }
}
