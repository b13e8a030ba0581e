//! Answers that go on flowing. One that says how long it is, is sent to its end, and most others are over before anybody
//! could end their session; one that still flows after a while is registered, and ends with its session as a socket does.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::attempt;
use super::gateway::Gateway;
use super::request_state::{Forwarding, RequestState};

/// After how long an answer is registered: it has to be cut within a second of its session's end.
const AFTER: Duration = Duration::from_millis(300);

/// An answer's body on its way.
pub(crate) struct Flow<'r> {
    gateway: &'r Gateway,
    forwarding: &'r Forwarding,
    state: &'r mut RequestState,
    /// When it is registered; `None`: it is, or need not be.
    due: Option<Instant>,
}

impl<'r> Flow<'r> {
    pub(crate) fn new(
        gateway: &'r Gateway,
        forwarding: &'r Forwarding,
        has_length: bool,
        state: &'r mut RequestState,
    ) -> Self {
        let counts = !has_length && state.live.is_none() && forwarding.admission.identity().is_some();
        let due = counts.then(|| Instant::now() + AFTER);
        Self { gateway, forwarding, state, due }
    }

    /// How long to wait for more of it, which may be `idle` in all.
    pub(crate) fn patience(&self, idle: Duration) -> Duration {
        self.due.map_or(idle, |due| due.saturating_duration_since(Instant::now()).min(idle))
    }

    /// Waits until it is to be registered.
    pub(crate) async fn due(&self) {
        match self.due {
            Some(due) => sleep_until(due).await,
            None => std::future::pending().await,
        }
    }

    /// Registers it, once, when it is time; whether it was.
    pub(crate) fn register_if_due(&mut self) -> bool {
        let is_due = self.due.is_some_and(|due| due <= Instant::now());
        if is_due {
            self.due = None;
            attempt::register_flow(self.gateway, self.forwarding, self.state);
        }
        is_due
    }
}
