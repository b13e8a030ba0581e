//! The steps that buffered and streamed exchanges share: pick the next server, change the request's head, decide on
//! retries, check the response's head, report a failure.

use std::sync::Arc;
use std::time::Duration;

use http::{StatusCode, header};
use pingora_core::{Error, ErrorType, Result};

use super::connection_handle::ConnectionHandle;
use super::failure;
use super::gateway::Gateway;
use super::live_connections::RequestSnapshot;
use super::request_state::RequestState;
use crate::account::{Identity, SessionState};
use crate::policy::caching::Asker;
use crate::policy::forwarding::Forwarding;
use crate::policy::reasons::Outcome;
use crate::policy::request_headers::{self, Changes, ForwardContext};
use crate::policy::response_headers::ResponseHeaderPolicy;
use crate::policy::{app_cookies, hsts, refuse, response_kind, second_method, service_worker, websocket_credentials};
use crate::upstream::error_cause;
use crate::upstream::targets::Target;
use crate::web::method::is_idempotent;
use crate::web::reply::Reply;
use crate::wire::response_view::ResponseHeadView;

/// Interim answers (1xx) that an upstream may send before the final one.
const INTERIMS_MAX: usize = 10;

/// The server to try next; it counts as tried from here on.
pub(super) fn next_target(gateway: &Gateway, forwarding: &Forwarding, state: &mut RequestState) -> Result<Arc<Target>> {
    let targets = &gateway.targets[forwarding.admission().upstream()];
    let Some(target) = targets.next(&state.tried) else {
        gateway.dns_refresh.notify_one();
        let why = targets.why_unknown().unwrap_or_else(|| "no servers left to try".to_owned());
        return Error::e_explain(ErrorType::HTTPStatus(502), why);
    };
    state.tried.push(target.clone());
    Ok(target)
}

/// Whether any server of the request's upstream speaks only HTTP/2.
pub(super) fn requires_h2(gateway: &Gateway, forwarding: &Forwarding) -> bool {
    gateway.targets[forwarding.admission().upstream()].has_h2c()
}

/// Whether a client in HTTP/2 may be served by a server in HTTP/2.
pub(super) fn may_use_h2(gateway: &Gateway, forwarding: &Forwarding) -> bool {
    gateway.targets[forwarding.admission().upstream()].may_speak_h2()
}

/// How long the route gives a server to begin its response.
pub(super) fn response_time(gateway: &Gateway, forwarding: &Forwarding) -> Duration {
    gateway.config.routes[forwarding.admission().route()].timeout
}

/// The error for a response that did not begin within the route's timeout.
#[expect(clippy::unnecessary_box_returns, reason = "pingora's errors are boxed")]
pub(super) fn response_overdue(connection: &ConnectionHandle) -> Box<Error> {
    connection.mark_overdue();
    Error::explain(ErrorType::ReadTimedout, "no response within the route's timeout").into_up()
}

/// Whether to try another server after one could not be reached. Nothing was sent, so any method may be retried.
pub(super) fn may_try_another(gateway: &Gateway, forwarding: &Forwarding, state: &RequestState, e: &Error) -> bool {
    let (Some(target), admission) = (state.tried.last(), forwarding.admission()) else { return false };
    if error_cause::is_our_own(e) {
        return false;
    }
    gateway.dns_refresh.notify_one();
    let others = gateway.targets[admission.upstream()].next(&state.tried).is_some();
    if target.mark_down() && others {
        let upstream = gateway.config.upstreams[admission.upstream()].name.as_str();
        let (server, error, cause) = (target.server(), e.etype().as_str(), error_cause::root_cause(e));
        tracing::warn!(upstream, server, error, cause, "upstream server unreachable, removed from rotation");
    }
    others && !state.connection.is_overdue()
}

/// Whether to retry after a reused connection ended before the first byte of the response: once, and only an idempotent
/// request (RFC 9110, 9.2.2).
pub(super) fn may_retry_idempotent(forwarding: &Forwarding, state: &mut RequestState) -> bool {
    let head = forwarding.request().parsed();
    // an app may take it for a POST
    let overrides = || second_method::is_named(&head.headers, forwarding.request().target());
    is_idempotent(&head.method) && !overrides() && may_retry_unprocessed(state)
}

/// Whether to retry a request that the server says it has not processed: once, whatever the method.
pub(super) fn may_retry_unprocessed(state: &mut RequestState) -> bool {
    let first = !std::mem::replace(&mut state.retried, true);
    if first {
        state.tried.pop();
    }
    first
}

/// The changes to the client's head for this server.
pub(super) fn changes<'a>(
    gateway: &'a Gateway,
    forwarding: &'a Forwarding,
    state: &'a RequestState,
    target: &'a Target,
) -> Changes<'a> {
    let (admission, request) = (forwarding.admission(), forwarding.request());
    let own_host = gateway.targets[admission.upstream()].host_override(target);
    let spec = gateway.config.upstreams[admission.upstream()].provider_token.as_ref();
    let provider_token = spec
        .zip(forwarding.provider_token())
        .map(|(spec, token)| (spec.header.as_str(), token.value(spec.is_authorization())));
    let context = ForwardContext {
        token: forwarding.token(),
        provider_token,
        foreign: forwarding.foreign_cookies(),
        handshake: forwarding.handshake(),
        peer: state.connection.address_text(),
        trusted: state.peer.trusted,
        request_id: &state.request_id,
        via: &gateway.via,
        ..ForwardContext::new(&gateway.config, admission, request.facts(), own_host)
    };
    request_headers::changes(&request.parsed().headers, request.target(), &gateway.header_filter, &context)
}

/// Handles the head of an upstream's response: returns the changes to it, and registers an event stream.
pub(super) fn on_response_head<'g>(
    gateway: &'g Gateway,
    forwarding: &Forwarding,
    answer: &impl ResponseHeadView,
    state: &mut RequestState,
) -> Result<ResponseHeaderPolicy<'g>> {
    let (admission, request) = (forwarding.admission(), forwarding.request());
    let mut changes = ResponseHeaderPolicy::new(&gateway.header_filter, &state.cors, answer);
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        is_switch(forwarding, answer, state)
            .map_err(|why| Error::explain(ErrorType::InvalidHTTPHeader, why).into_up())?;
        changes.extend(forwarding.handshake().and_then(|handshake| handshake.choose(answer)));
        settle_app_cookies(gateway, forwarding, answer, state, &mut changes);
    }
    if answer.status().is_informational() {
        return Ok(changes);
    }
    state.time_to_response_head = Some(state.began.elapsed());
    let place = (&request.facts().host, request.target());
    service_worker::limit(&mut changes, answer, &gateway.config, admission.route(), place);
    // the upgrade was not granted: there is no WebSocket to close
    state.live_entry = None;
    changes.extend(state.cors.fields());
    // the session may have ended meanwhile, and the browser may have another session's cookie
    let stands = |who: &Identity| gateway.accounts.session_state(&who.session) == SessionState::Active;
    if let Some(cookie) = state.renewed_cookie.take().filter(|_| state.identity.as_ref().is_some_and(stands)) {
        changes.add_session_cookie(cookie, answer);
    }
    let name = header::STRICT_TRANSPORT_SECURITY;
    let is_tls = state.connection.tls().is_some();
    if hsts::sends_hsts(&gateway.config, is_tls) && answer.values(&name).next().is_none() {
        changes.extend([(name, hsts::HSTS)]);
    }
    settle_app_cookies(gateway, forwarding, answer, state, &mut changes);
    let routes = admission.routes().map(|route| &gateway.config.routes[route]);
    let asker = Asker::new(&request.parsed().headers, state.field_names, state.ambient_credential, admission);
    changes.keep_to_account(routes, answer, asker);
    if let Some(target) = state.tried.last()
        && gateway.targets[admission.upstream()].host_override(target).is_some()
        && let Some(own) = target.origin()
    {
        changes.rewrite_location(&own, &gateway.config.routes[admission.route()].strip_prefix, answer);
    }
    if let Some(ends) = response_kind::is_event_stream(answer) {
        register_stream(gateway, forwarding, state, ends);
    }
    Ok(changes)
}

/// Registers a long response, which from now on ends with its session.
pub(super) fn register_flow(gateway: &Gateway, forwarding: &Forwarding, state: &mut RequestState) {
    register_stream(gateway, forwarding, state, true);
}

#[inline(never)]
fn register_stream(gateway: &Gateway, forwarding: &Forwarding, state: &mut RequestState, ends: bool) {
    let snapshot = RequestSnapshot::new(&forwarding.request().incoming(), state.ambient_credential);
    let (connection, rules) = (&state.connection, gateway.live_rules());
    state.live_entry = Some(gateway.live.stream(connection, forwarding.admission(), snapshot, ends, &rules));
}

/// The reply to a gRPC call whose session ended before the response began; other requests get none.
pub(super) fn grpc_session_ended_reply(
    gateway: &Gateway,
    forwarding: &Forwarding,
    state: &mut RequestState,
) -> Option<Reply> {
    state.outcome = Outcome::ClientGone;
    let incoming = forwarding.request().incoming();
    let is_grpc = incoming.is_grpc();
    is_grpc.then(|| refuse::status(&gateway.pages, StatusCode::UNAUTHORIZED, &incoming, &state.request_id))
}

/// Records which account the cookies of the request and of its response belong to, as far as that is new.
fn settle_app_cookies(
    gateway: &Gateway,
    forwarding: &Forwarding,
    answer: &impl ResponseHeadView,
    state: &RequestState,
    changes: &mut ResponseHeaderPolicy<'_>,
) {
    let (rule, identity) = (gateway.config.session.app_cookies, state.identity.as_ref());
    let headers = &forwarding.request().parsed().headers;
    let Some(user) = app_cookies::owner(rule, &gateway.cookies, identity, headers) else { return };
    let mut set = answer.values(&header::SET_COOKIE).peekable();
    // a 304 updates the stored response with all of its fields, so it gets none that can wait
    let waits = answer.status() == StatusCode::NOT_MODIFIED || forwarding.foreign_cookies().is_none();
    if !waits || set.peek().is_some() {
        let incoming = forwarding.request().incoming();
        let settled = gateway.app_cookies().settle(user, &incoming, forwarding.foreign_cookies(), set);
        changes.set_cookies(settled, answer);
    }
}

/// Logs and counts a failure. Returns the reply, which closes the connection; `None` if the client has disconnected.
pub(super) fn on_upstream_error(
    gateway: &Gateway,
    e: &Error,
    forwarding: &Forwarding,
    state: &mut RequestState,
) -> Option<Reply> {
    let overdue = state.connection.is_overdue().then_some(StatusCode::GATEWAY_TIMEOUT);
    let code = overdue.or_else(|| failure::failure(e));
    failure::log_failure(gateway, state, e, code);
    let reply = refuse::status(&gateway.pages, code?, &forwarding.request().incoming(), &state.request_id);
    Some(state.cors.dress(reply.closing()))
}

/// Whether a 101 is the answer to what was asked for, and if not, why.
fn is_switch(
    forwarding: &Forwarding,
    answer: &impl ResponseHeadView,
    state: &RequestState,
) -> std::result::Result<(), &'static str> {
    let headers = &forwarding.request().parsed().headers;
    match forwarding.upgrade() {
        _ if state.live_entry.is_none() => Err("101 to a request without an upgrade"),
        Some(protocol) => websocket_credentials::is_switched(protocol, answer),
        None => websocket_credentials::is_granted(headers, forwarding.handshake(), answer),
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
