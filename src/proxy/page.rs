//! Where the two lines meet: a request to one of our own pages becomes a call, its answer a reply.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, StatusCode, header};
use pingora_http::RequestHeader;

use super::gateway::Gateway;
use super::request_state::RequestState;
use crate::account::Caller;
use crate::pages::{Call, Page, word};
use crate::policy::{app_cookies, normalize, refuse};
use crate::web::cookie::{self, Presented};
use crate::web::incoming::Incoming;
use crate::web::reply::Reply;
use crate::wire::request_target;

/// Asks one of our own pages; `body` is what the request carried, or the status that refuses it.
pub(super) async fn answer(
    gateway: &Gateway,
    page: Page,
    head: &RequestHeader,
    body: Result<Bytes, StatusCode>,
    state: &mut RequestState,
) -> Reply {
    let reply = ask_page(gateway, page, head, body, state).await;
    if reply.status.is_client_error() || reply.status.is_server_error() {
        state.why = state.why.or(Some(word(reply.status)));
    }
    reply
}

async fn ask_page(
    gateway: &Gateway,
    page: Page,
    head: &RequestHeader,
    body: Result<Bytes, StatusCode>,
    state: &RequestState,
) -> Reply {
    let unread = |code| refuse::unread(code, &state.request_id);
    let Some(incoming) =
        state.known.as_ref().and_then(|known| normalize::incoming(head, request_target::of(head), known).ok())
    else {
        return unread(StatusCode::BAD_REQUEST);
    };
    let body = match body {
        Ok(body) => body,
        Err(code) => return refuse::status(&gateway.pages, code, &incoming, &state.request_id).closing(),
    };
    let agent = head.headers.get(header::USER_AGENT).map_or("", |agent| agent.to_str().unwrap_or(""));
    let device = match cookie::find(&head.headers, gateway.cookies.device()) {
        Presented::One(value) => std::str::from_utf8(value).ok().map(str::to_owned),
        _ => None,
    };
    let caller = Caller {
        address: incoming.client,
        is_proxy: normalize::is_trusted(&gateway.config.server, incoming.client.unwrap_or(normalize::UNIX_PEER)),
        connection: state.connection.as_ref().map_or(0, |connection| Arc::as_ptr(connection).addr()),
        user_agent: agent.chars().take(256).collect(),
        request_id: state.request_id.clone(),
        device,
        session: state.identity.as_ref().map(|identity| identity.session.id.clone()),
    };
    let reply = gateway
        .pages
        .answer(
            page,
            Call {
                incoming: &incoming,
                identity: state.identity.clone(),
                renewed: state.renewed.clone(),
                body,
                caller,
            },
        )
        .await;
    with_app_cookies(gateway, reply, &incoming, state)
}

/// Signing out, and in as somebody else, is the last word about whose the cookies of apps are that come with it: of
/// answers at the same time the browser may have kept one record alone.
fn with_app_cookies(gateway: &Gateway, reply: Reply, incoming: &Incoming<'_>, state: &RequestState) -> Reply {
    let owner = app_cookies::owner(
        gateway.config.session.app_cookies,
        &gateway.cookies,
        state.identity.as_ref(),
        incoming.headers,
    )
    .filter(|_| *incoming.method == Method::POST);
    let Some(user) = owner else { return reply };
    let cookies = gateway.app_cookies().record_those_of(user, incoming, state.ambient_credential);
    cookies.into_iter().fold(reply, |reply, cookie| reply.with(header::SET_COOKIE, cookie))
}
