//! Serves the gateway's own pages: turns a request into a call of `crate::pages`, and its result into a reply.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, StatusCode, header};

use super::gateway::Gateway;
use super::request_state::RequestState;
use crate::account::Caller;
use crate::pages::{self, Call, Page};
use crate::policy::normalize::{self, NormalRequest};
use crate::policy::reasons::Reason;
use crate::policy::refuse;
use crate::web::cookie::{self, Presented};
use crate::web::incoming::Incoming;
use crate::web::reply::Reply;

/// Asks one of our own pages; `body` is what the request carried, or the status that refuses it.
pub(super) async fn answer(
    gateway: &Gateway,
    page: Page,
    request: &NormalRequest,
    body: Result<Bytes, StatusCode>,
    state: &mut RequestState,
) -> Reply {
    let reply = ask_page(gateway, page, request, body, state).await;
    if reply.status.is_client_error() || reply.status.is_server_error() {
        state.reason = state.reason.or(Some(Reason::Status(reply.status)));
    }
    reply
}

async fn ask_page(
    gateway: &Gateway,
    page: Page,
    request: &NormalRequest,
    body: Result<Bytes, StatusCode>,
    state: &RequestState,
) -> Reply {
    let incoming = request.incoming();
    let body = match body {
        Ok(body) => body,
        Err(code) => return refuse::status(&gateway.pages, code, &incoming, &state.request_id).closing(),
    };
    let agent = incoming.headers.get(header::USER_AGENT).map_or("", |agent| agent.to_str().unwrap_or(""));
    let device = match cookie::find(incoming.headers, gateway.cookies.device()) {
        Presented::One(value) => std::str::from_utf8(value).ok().map(str::to_owned),
        _ => None,
    };
    let caller = Caller {
        address: incoming.client,
        is_proxy: normalize::is_trusted(&gateway.config.server, incoming.client.unwrap_or(normalize::UNIX_PEER)),
        connection: Arc::as_ptr(&state.connection).addr(),
        user_agent: agent.chars().take(256).collect(),
        request_id: state.request_id.clone(),
        device,
        session: state.identity.as_ref().map(|identity| identity.session.id.clone()),
    };
    let (identity, renewed) = (state.identity.clone(), state.renewed_cookie.clone());
    let is_unavailable = state.is_unavailable;
    let call = Call { incoming: &incoming, identity, is_unavailable, renewed, body, caller };
    let reply = pages::answer(&gateway.pages, page, call).await;
    if page.is_for_providers() {
        return reply;
    }
    with_app_cookies(gateway, reply, &incoming, state)
}

/// Records the app cookies of a POST, such as a sign-out, as this account's. It is the last chance before another
/// account signs in, and of concurrent responses the browser may have kept only one record.
fn with_app_cookies(gateway: &Gateway, reply: Reply, incoming: &Incoming<'_>, state: &RequestState) -> Reply {
    let owner = gateway.owner(incoming, state).filter(|_| *incoming.method == Method::POST);
    let Some(user) = owner else { return reply };
    let cookies = gateway.app_cookies().record_those_of(user, incoming, state.ambient_credential);
    cookies.into_iter().fold(reply, |reply, cookie| reply.with(header::SET_COOKIE, cookie))
}
