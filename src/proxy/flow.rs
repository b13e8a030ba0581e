//! Long responses without a declared length. One that is still being sent after [`AFTER`] is registered as a live
//! connection, and ends with its session as a WebSocket does. A response with a length is sent to its end.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::attempt;
use super::gateway::Gateway;
use super::request_state::RequestState;
use crate::policy::forwarding::Forwarding;

/// How long a response may be sent before it is registered; it must be cut within a second of its session's end.
const AFTER: Duration = Duration::from_millis(300);

/// An answer's body on its way.
pub(crate) struct Flow<'r> {
    gateway: &'r Gateway,
    forwarding: &'r Forwarding,
    state: &'r mut RequestState,
    /// When to register it; `None`: it is registered, or need not be.
    due: Option<Instant>,
}

impl<'r> Flow<'r> {
    pub(crate) fn new(
        gateway: &'r Gateway,
        forwarding: &'r Forwarding,
        has_length: bool,
        state: &'r mut RequestState,
    ) -> Self {
        let counts = !has_length && state.live_entry.is_none() && forwarding.admission().identity().is_some();
        let due = counts.then(|| Instant::now() + AFTER);
        Self { gateway, forwarding, state, due }
    }

    /// Waits until it is to be registered.
    pub(crate) async fn due(&self) {
        match self.due {
            Some(due) => sleep_until(due).await,
            None => std::future::pending().await,
        }
    }

    /// Registers it if that is due.
    pub(crate) fn register_if_due(&mut self) {
        if self.due.is_some_and(|due| due <= Instant::now()) {
            self.due = None;
            attempt::register_flow(self.gateway, self.forwarding, self.state);
        }
    }
}
