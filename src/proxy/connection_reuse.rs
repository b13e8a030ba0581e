//! Which kept connections are used again. Not those of a server that sent bytes which nobody asked for: whatever it sends
//! next could be taken for the answer to somebody else's request (CWE-444).

use super::gateway::Gateway;
use super::request_state::RequestState;
use crate::upstream::h1_pool;
use crate::upstream::targets::Target;
use crate::wire::stream::Stream;

/// A kept connection to this server, and whether it is doubtful, as [`h1_pool::take`] has it.
pub(crate) async fn reuse(
    gateway: &Gateway,
    target: &Target,
    state: &RequestState,
    repeatable: bool,
) -> Option<(Stream, bool)> {
    if !target.is_trusted(|| gateway.now_millis()) {
        return None;
    }
    let kept = h1_pool::take(target.id(), repeatable).await;
    if kept.is_err() {
        distrust(gateway, target, state);
    }
    kept.ok().flatten()
}

/// Keeps a connection that could be used again.
pub(crate) fn keep(gateway: &Gateway, target: &Target, stream: Stream, needs_probe: bool) {
    if target.is_trusted(|| gateway.now_millis()) {
        h1_pool::keep(target.id(), stream, needs_probe);
    }
}

/// A server has sent more than its answer.
pub(crate) fn distrust(gateway: &Gateway, target: &Target, state: &RequestState) {
    if !target.distrust(gateway.now_millis()) {
        return;
    }
    let upstream = state.upstream.map_or("", |upstream| &*gateway.config.upstreams[upstream].name);
    let (server, request_id) = (target.server(), state.request_id.as_str());
    tracing::warn!(
        upstream,
        server,
        request_id,
        "unsolicited bytes from upstream server, connection reuse disabled for a minute"
    );
}
