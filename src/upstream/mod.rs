//! Where requests go: the servers of each upstream, how they are reached and verified, their health, and the pools of
//! idle connections to them.

pub(crate) mod error_cause;
pub(crate) mod h1_pool;
pub(crate) mod h2_pool;
pub(crate) mod health;
pub(crate) mod server_name;
pub(crate) mod targets;
pub(crate) mod tls;

use crate::wire::peer_liveness;

/// Closes connections that were idle for too long, and looks for peers that have vanished; called once a second on each
/// thread.
pub(crate) fn sweep() {
    h2_pool::sweep();
    peer_liveness::look();
    h1_pool::sweep();
}
