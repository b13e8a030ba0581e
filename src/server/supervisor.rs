//! Notifications to the service manager (sd_notify(3)): ready, reloading, stopping and, if it requests them, watchdog
//! pings. Without a service manager this does nothing.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::workers::Workers;
use crate::account::Accounts;

/// Sends one datagram. The library does not support abstract sockets (`@name`, unix(7)).
fn send(states: &[NotifyState<'_>]) -> std::io::Result<()> {
    let socket = std::env::var_os("NOTIFY_SOCKET").unwrap_or_default();
    let Some(name) = socket.as_bytes().strip_prefix(b"@") else { return sd_notify::notify(states) };
    let text = states.iter().fold(String::new(), |text, state| text + &state.to_string() + "\n");
    let datagram = UnixDatagram::unbound()?;
    datagram.connect_addr(&SocketAddr::from_abstract_name(name)?)?;
    datagram.send(text.as_bytes()).map(drop)
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = send(states) {
        tracing::warn!(%error, "sd_notify failed");
    }
}

/// The start takes longer than usual, for at least ten seconds more.
pub(super) fn starting() {
    notify(&[NotifyState::ExtendTimeoutUsec(10_000_000), NotifyState::Status("waiting for the account store")]);
}

/// The gateway is ready.
pub(super) fn ready() {
    notify(&[NotifyState::Ready]);
}

/// A reload has started; [`reloaded`] ends it.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "sd_notify failed"),
    }
}

/// A reload has ended; `status` describes its result.
pub(super) fn reloaded(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Shutdown has started.
pub(super) fn stopping() {
    notify(&[NotifyState::Stopping, NotifyState::Status("draining")]);
}

/// Notifies the watchdog twice per interval, as long as the store and every worker respond. Returns at once if the
/// service manager uses no watchdog.
pub(super) async fn watchdog(accounts: Accounts, workers: Workers) {
    let Some(within) = sd_notify::watchdog_enabled() else { return };
    let mut tick = interval((within / 2).max(Duration::from_millis(1)));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let alive = async { workers.ping().await && accounts.ready().await };
        if timeout(within / 2, alive).await.unwrap_or(false) {
            notify(&[NotifyState::Watchdog]);
        } else {
            tracing::error!("account store or worker not responding, watchdog not notified");
        }
    }
}
