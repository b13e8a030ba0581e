//! Steps of a forwarded request that both ways to an upstream share: the next server, the head that it
//! gets, what may be tried again, what its answer may say, how a failure is told.

use std::sync::Arc;

use http::{StatusCode, header};
use pingora_core::{Error, ErrorType, Result};
use pingora_http::RequestHeader;

use super::failure;
use super::gateway::Gateway;
use super::live_connections::RequestSnapshot;
use super::request_state::RequestState;
use crate::account::{Identity, SessionState};
use crate::policy::caching::Asker;
use crate::policy::request_headers::{self, Changes, ForwardContext};
use crate::policy::response_headers::ResponseHeaderPolicy;
use crate::policy::{
    app_cookies, hsts, normalize, refuse, response_kind, second_method, service_worker, websocket_credentials,
};
use crate::upstream::error_cause;
use crate::upstream::targets::Target;
use crate::web::method::is_idempotent;
use crate::web::reply::Reply;
use crate::wire::request_target;
use crate::wire::response_view::ResponseHeadView;

/// Interim answers (1xx) that an upstream may send before the final one.
const INTERIMS_MAX: usize = 10;

/// The server to try next; it counts as tried from here on.
pub(super) fn next_target(gateway: &Gateway, state: &mut RequestState) -> Result<Arc<Target>> {
    let Some(admission) = &state.admission else { return no_admission() };
    let targets = &gateway.targets[admission.upstream()];
    let Some(target) = targets.next(&state.tried) else {
        gateway.look_up.notify_one();
        let why = targets.why_unknown().unwrap_or_else(|| "no servers left to try".to_owned());
        return Error::e_explain(ErrorType::HTTPStatus(502), why);
    };
    state.tried.push(target.clone());
    Ok(target)
}

/// Whether a server of the admitted request's speaks HTTP/2 alone.
pub(super) fn requires_h2(gateway: &Gateway, state: &RequestState) -> bool {
    state.admission.as_ref().is_some_and(|admission| gateway.targets[admission.upstream()].has_h2c())
}

/// A server could not be reached, so nothing was sent: whether another may take the request, a POST too.
pub(super) fn may_try_another(gateway: &Gateway, state: &RequestState, e: &Error) -> bool {
    let (Some(target), Some(admission)) = (state.tried.last(), &state.admission) else { return false };
    if error_cause::is_our_own(e) {
        return false;
    }
    gateway.look_up.notify_one();
    let others = gateway.targets[admission.upstream()].next(&state.tried).is_some();
    if target.mark_down() && others {
        let upstream = gateway.config.upstreams[admission.upstream()].name.as_str();
        let (server, error, cause) = (target.server(), e.etype().as_str(), error_cause::root_cause(e));
        tracing::warn!(upstream, server, error, cause, "upstream server unreachable, removed from rotation");
    }
    others && state.connection.as_ref().is_none_or(|connection| !connection.is_overdue())
}

/// A connection broke before a byte of an answer: again, once, where doing it twice changes nothing (RFC 9110, 9.2.2),
/// and only if it was a kept one that was just being closed.
pub(super) fn may_repeat(state: &mut RequestState, head: &RequestHeader, kept: bool) -> bool {
    // an app may take it for a POST
    let overrides = || second_method::is_named(&head.headers, request_target::of(head));
    kept && is_idempotent(&head.method) && !overrides() && may_begin_anew(state)
}

/// The same, where the server says that it has not looked at the request: whatever that asks for, once.
pub(super) fn may_begin_anew(state: &mut RequestState) -> bool {
    let first = !std::mem::replace(&mut state.retried, true);
    if first {
        state.tried.pop();
    }
    first
}

/// What becomes of the client's head on its way to the server that is tried.
pub(super) fn changes<'a>(gateway: &'a Gateway, head: &RequestHeader, state: &'a RequestState) -> Result<Changes<'a>> {
    let (Some(admission), Some(known), Some(target)) = (&state.admission, &state.known, state.tried.last()) else {
        return no_admission();
    };
    let told = ForwardContext {
        upstream: &gateway.config.upstreams[admission.upstream()],
        user: admission.identity().map(|identity| &*identity.user),
        token: state.token.as_deref(),
        foreign: state.foreign.as_deref(),
        drops_cookies: admission.routes().any(|route| gateway.config.routes[route].drops_cookies),
        handshake: state.handshake.as_ref(),
        peer: state.connection.as_ref().and_then(|connection| connection.address_text()),
        trusted: state.peer.trusted,
        scheme: known.scheme.as_str(),
        host: known.host.as_str(),
        port: known.port(&gateway.config.server.public_url),
        request_id: &state.request_id,
        names: known.names,
        via: &gateway.via,
        prefix: &gateway.config.routes[admission.route()].strip_prefix,
        host_override: gateway.targets[admission.upstream()].host_override(target).or(known.judged_host()),
    };
    Ok(request_headers::changes(&head.headers, request_target::of(head), &gateway.header_filter, &told))
}

/// An upstream's answer has begun: what becomes of its head, and whether it lives on.
pub(super) fn on_response_head<'g>(
    gateway: &'g Gateway,
    head: &RequestHeader,
    answer: &impl ResponseHeadView,
    state: &mut RequestState,
) -> Result<ResponseHeaderPolicy<'g>> {
    let Some(connection) = &state.connection else { return no_admission() };
    let mut changes = ResponseHeaderPolicy::new(&gateway.header_filter, &state.cors, answer);
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        is_switch(head, answer, state).map_err(|why| Error::explain(ErrorType::InvalidHTTPHeader, why).into_up())?;
        changes.extend(state.handshake.as_ref().and_then(|handshake| handshake.choose(answer)));
        settle_app_cookies(gateway, head, answer, state, &mut changes);
    }
    if answer.status().is_informational() {
        return Ok(changes);
    }
    state.answered = Some(state.began.elapsed());
    if let (Some(admission), Some(known)) = (&state.admission, &state.known) {
        service_worker::limit(
            &mut changes,
            answer,
            &gateway.config,
            admission.route(),
            (&known.host, request_target::of(head)),
        );
    }
    // a socket that was not granted is no live connection
    state.live = None;
    changes.extend(state.cors.fields());
    // the session may have ended meanwhile, and the browser have the cookie of another one
    let stands = |who: &Identity| gateway.accounts.session_state(&who.session) == SessionState::Active;
    if let Some(cookie) = state.renewed.take().filter(|_| state.identity.as_ref().is_some_and(stands)) {
        changes.add_session_cookie(cookie, answer);
    }
    let name = header::STRICT_TRANSPORT_SECURITY;
    if hsts::sends_hsts(&gateway.config, connection.secured().is_some()) && answer.values(&name).next().is_none() {
        changes.extend([(name, hsts::HSTS)]);
    }
    settle_app_cookies(gateway, head, answer, state, &mut changes);
    if let Some(admission) = &state.admission {
        let routes = admission.routes().map(|route| &gateway.config.routes[route]);
        changes.keep_to_account(
            routes,
            answer,
            Asker::new(&head.headers, state.names(), state.ambient_credential, admission),
        );
    }
    if let (Some(admission), Some(target)) = (&state.admission, state.tried.last())
        && gateway.targets[admission.upstream()].host_override(target).is_some()
        && let Some(own) = target.origin()
    {
        changes.lead_home(&own, &gateway.config.routes[admission.route()].strip_prefix, answer);
    }
    if let Some(ends) = response_kind::is_event_stream(answer) {
        register_stream(gateway, head, state, ends);
    }
    Ok(changes)
}

/// An answer of a session's own goes on flowing: from here on it ends with that.
pub(super) fn register_flow(gateway: &Gateway, head: &RequestHeader, state: &mut RequestState) {
    register_stream(gateway, head, state, true);
}

#[inline(never)]
fn register_stream(gateway: &Gateway, head: &RequestHeader, state: &mut RequestState, ends: bool) {
    if let (Some(connection), Some(admission), Some(known)) = (&state.connection, &state.admission, &state.known)
        && let Ok(incoming) = normalize::incoming(head, request_target::of(head), known)
    {
        let asked = RequestSnapshot::new(&incoming, state.ambient_credential);
        state.live = Some(gateway.live.stream(connection, admission, asked, ends, &gateway.rules()));
    }
}

/// What a gRPC call is told whose session ended before it was answered; other requests are told nothing.
pub(super) fn ended_call(gateway: &Gateway, head: &RequestHeader, state: &mut RequestState) -> Option<Reply> {
    state.outcome = "client_gone";
    let incoming = normalize::incoming(head, request_target::of(head), state.known.as_ref()?).ok()?;
    let is_grpc = incoming.is_grpc();
    is_grpc.then(|| refuse::status(&gateway.pages, StatusCode::UNAUTHORIZED, &incoming, &state.request_id))
}

/// Whose the cookies of the request and of its answer are, as far as that is new.
fn settle_app_cookies(
    gateway: &Gateway,
    head: &RequestHeader,
    answer: &impl ResponseHeadView,
    state: &RequestState,
    changes: &mut ResponseHeaderPolicy<'_>,
) {
    let (Some(user), Some(known)) = (
        app_cookies::owner(
            gateway.config.session.app_cookies,
            &gateway.cookies,
            state.identity.as_ref(),
            &head.headers,
        ),
        &state.known,
    ) else {
        return;
    };
    let mut set = answer.values(&header::SET_COOKIE).peekable();
    // a 304 freshens what is stored, with all its fields: it gets none that can wait
    let waits = answer.status() == StatusCode::NOT_MODIFIED || state.foreign.is_none();
    if (!waits || set.peek().is_some())
        && let Ok(incoming) = normalize::incoming(head, request_target::of(head), known)
    {
        changes.set_cookies(gateway.app_cookies().settle(user, &incoming, state.foreign.as_deref(), set), answer);
    }
}

/// Logs and counts a failure, and says what the client is told, if there is one to tell. The
/// connection ends with it.
pub(super) fn on_upstream_error(
    gateway: &Gateway,
    e: &Error,
    head: &RequestHeader,
    state: &mut RequestState,
) -> Option<Reply> {
    let code = match &state.connection {
        Some(connection) if connection.is_overdue() => Some(StatusCode::GATEWAY_TIMEOUT),
        _ => failure::failure(e),
    };
    failure::log_failure(gateway, state, e, code);
    let code = code?;
    let incoming =
        state.known.as_ref().and_then(|known| normalize::incoming(head, request_target::of(head), known).ok());
    let reply = match &incoming {
        Some(incoming) => refuse::status(&gateway.pages, code, incoming, &state.request_id),
        None => refuse::unread(code, &state.request_id),
    };
    Some(state.cors.dress(reply.closing()))
}

/// Whether a 101 is the answer to what was asked for, and if not, why.
fn is_switch(
    head: &RequestHeader,
    answer: &impl ResponseHeadView,
    state: &RequestState,
) -> std::result::Result<(), &'static str> {
    match &state.upgrade {
        _ if state.live.is_none() => Err("101 to a request without an upgrade"),
        Some(protocol) => websocket_credentials::is_switched(protocol, answer),
        None => websocket_credentials::is_granted(&head.headers, state.handshake.as_ref(), answer),
    }
}

/// Counts an interim answer; there are not so many unless something is wrong.
pub(super) fn count_interim(so_far: &mut usize) -> Result<()> {
    *so_far += 1;
    if *so_far <= INTERIMS_MAX {
        return Ok(());
    }
    Err(Error::explain(ErrorType::InvalidHTTPHeader, "too many interim responses").into_up())
}

pub(super) fn no_admission<T>() -> Result<T> {
    Error::e_explain(ErrorType::HTTPStatus(500), "missing admission")
}
