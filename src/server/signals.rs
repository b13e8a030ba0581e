//! The signals that a running gateway listens for.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM, SIGINT and SIGHUP. Made before anything tells that we are here: none of them ever finds the
/// default action, which would end the process.
pub(super) struct Signals {
    pub(super) stop: Stop,
    pub(super) reload: Signal,
}

/// SIGTERM and SIGINT.
pub(super) struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(super) fn listen() -> std::io::Result<Self> {
        Ok(Self {
            stop: Stop { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? },
            reload: signal(SignalKind::hangup())?,
        })
    }
}

impl Stop {
    pub(super) async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
