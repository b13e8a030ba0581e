//! The open file limit: a connection needs one descriptor, and one more for its upstream connection.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit as far as the system allows, and warns if that is too low for this number of connections.
pub(super) fn raise(connections: usize) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    if let Err(error) = raised {
        tracing::warn!(%error, "could not raise the open file limit");
    }
    let limit = if raised.is_ok() { maximum } else { current };
    let needed = connections.saturating_mul(2);
    if let Some(limit) = limit.filter(|limit| usize::try_from(*limit).is_ok_and(|limit| limit < needed)) {
        tracing::warn!(
            limit,
            needed,
            "open file limit too low for limits.connections: raise LimitNOFILE= or ulimit -n"
        );
    }
}
