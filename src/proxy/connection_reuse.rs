//! Decides which kept connections are reused. A connection is not reused if its server has sent unsolicited bytes,
//! which could be taken for the response to another client's request (CWE-444), nor if a request has authenticated it.

use http::{HeaderMap, header};

use super::gateway::Gateway;
use super::request_state::RequestState;
use crate::upstream::h1_pool;
use crate::upstream::targets::Target;
use crate::web::names::Names;
use crate::wire::stream::Stream;

/// A kept connection to this server, and whether it needs a probe (see [`h1_pool::take`]). `None` for a second attempt.
pub(crate) async fn reuse(
    gateway: &Gateway,
    target: &Target,
    state: &RequestState,
    repeatable: bool,
) -> Option<(Stream, bool)> {
    if state.retried || !target.is_trusted(|| gateway.now_millis()) {
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

/// Records that a server has sent more than its response: its connections are not reused for a while.
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

/// Whether a request authenticates its connection, and not only itself (RFC 4559, 6): no other client's request may use that
/// connection afterwards.
pub(crate) fn uses_connection_auth(headers: &HeaderMap, names: Names) -> bool {
    names.may_have(b"authorization")
        && headers.get_all(header::AUTHORIZATION).iter().any(|value| {
            let scheme = value.as_bytes().split(|b| !b.is_ascii_alphanumeric()).next().unwrap_or_default();
            scheme.eq_ignore_ascii_case(b"ntlm") || scheme.eq_ignore_ascii_case(b"negotiate")
        })
}
