//! One stream, one request: the same `open`, replies and access line as on every way.

use std::sync::Arc;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Method, Request, StatusCode, header, request};
use pingora_core::{Error, ErrorType, Result};
use pingora_http::RequestHeader;
use tokio::time::timeout;

use super::downstream::{Body, Client};
use super::head;
use super::stream_budget::{StreamBudget, StreamOutcome};
use crate::policy::oversized_head::{self, Oversize};
use crate::policy::{hsts, reply_head};
use crate::proxy::access_log::{self, Counts};
use crate::proxy::client_disconnected::ClientDisconnected;
use crate::proxy::connection_handle::ConnectionHandle;
use crate::proxy::connection_handler::ConnectionHandler;
use crate::proxy::exchange::downstream::{Download as _, Upload as _, read_form};
use crate::proxy::exchange::streamed;
use crate::proxy::gateway::Step;
use crate::proxy::request_state::RequestState;
use crate::proxy::{attempt, page};
use crate::web::incoming::wants_page;
use crate::web::reply::Reply;
use crate::wire::body::Part;
use crate::wire::request_target;

/// Serves it and writes its access line.
pub(super) async fn serve(
    front: ConnectionHandler,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    connection: Arc<ConnectionHandle>,
    stream_budget: Arc<StreamBudget>,
) -> StreamOutcome {
    let (parts, body) = request.into_parts();
    let (body, client) =
        (Body::new(body), Client::new(respond, front.gateway.config.limits.idle, stream_budget.clone()));
    body.clone().meanwhile(serve_one(front, parts, body, client, connection, stream_budget)).await
}

async fn serve_one(
    front: ConnectionHandler,
    parts: request::Parts,
    mut body: Body,
    mut client: Client,
    connection: Arc<ConnectionHandle>,
    stream_budget: Arc<StreamBudget>,
) -> StreamOutcome {
    let gateway = &front.gateway;
    let read = head::read(&parts, &gateway.config.limits);
    let (method, to_people) = (parts.method.clone(), wants_page(&parts.headers));
    let seen = if read.is_err() { oversize_of(&parts, &gateway.config.server.prefix) } else { Oversize::default() };
    // it may be many times as large as what was sent, and an answer may wait
    drop(parts);
    let (mut head, bytes) = match read {
        Ok(read) => read,
        Err(bad) => {
            let (id, mut why) = (gateway.fresh_id(), None);
            let reply = oversized_head::bad_head(bad, &id, &mut why, to_people.then_some(&*gateway.pages), &seen);
            access_log::unread(gateway, (connection.address(), &seen.host), reply.status.as_u16(), &id, why);
            drop(seen);
            let _ = reply_h2(&front, &mut client, &connection, reply, &method, &id).await;
            return StreamOutcome::Abusive;
        }
    };
    let mut state = RequestState::new(gateway.fresh_id());
    state.connection = Some(connection.clone());
    let step = gateway.open(&mut head, bytes, &mut state);
    let read = carry_on_h2(&front, step, &mut head, &mut body, &mut client, &mut state, stream_budget).await;
    (state.live, state.call) = (None, None);
    if let Some(why) = connection.closed_for() {
        state.why = Some(why.reason());
    }
    let counts = Counts { status: client.status, bytes_in: read, bytes_out: client.bytes_out };
    access_log::record(gateway, &head, request_target::of(&head), &state, &counts);
    if client.status > 0 && connection.closed_for().is_none() {
        body.drain_body().await;
    }
    if state.outcome == "client_gone" || state.outcome == "bad_request" {
        StreamOutcome::Abusive
    } else {
        StreamOutcome::Served
    }
}

fn oversize_of(parts: &request::Parts, prefix: &str) -> Oversize {
    let authority = parts.uri.authority().map(http::uri::Authority::as_str);
    Oversize::of_head(&parts.method, parts.uri.path().as_bytes(), authority, &parts.headers, prefix)
}

/// Answers the stream, or ends it; gives how much of its body was read.
async fn carry_on_h2(
    handler: &ConnectionHandler,
    step: Step,
    head: &mut RequestHeader,
    body: &mut Body,
    client: &mut Client,
    state: &mut RequestState,
    stream_budget: Arc<StreamBudget>,
) -> usize {
    let Some(connection) = state.connection.clone() else { return 0 };
    let expects = head.headers.get(header::EXPECT).map_or(&b""[..], |expects| expects.as_bytes());
    let answers_at_once = matches!(step, Step::Reply(_));
    if expects.eq_ignore_ascii_case(b"100-continue") && !answers_at_once {
        client.tell(StatusCode::CONTINUE, &HeaderMap::new());
    }
    let mut read = 0;
    let place = if answers_at_once { None } else { stream_budget.place(&handler.gateway, connection.address()) };
    if place.is_none() && !answers_at_once {
        (state.outcome, state.why) = ("refused", Some("connections"));
        // nobody has seen it: the client may try again (RFC 9113, 8.7)
        client.reset(Reason::REFUSED_STREAM);
        return 0;
    }
    let reply = match step {
        Step::Reply(reply) => state.cors.dress(reply),
        Step::Page(page) => {
            let body = if page.takes_body(&head.method) {
                read_form(body, handler.gateway.config.limits.form_bytes).await
            } else {
                Ok(Bytes::new())
            };
            read = body.as_ref().map_or(0, Bytes::len);
            let reply = Box::pin(page::answer(&handler.gateway, page, head, body, state)).await;
            state.cors.dress(reply)
        }
        // apart: a stream that waits with an answer of ours is not as large as this
        Step::Forward => match Box::pin(forward_h2(handler, head, body, client, state, &mut read)).await {
            Some(reply) => reply,
            None => return read,
        },
    };
    // its fields are nothing that an answer waits with
    if let Ok(bare) = RequestHeader::build_no_case(head.method.clone(), head.raw_path(), None) {
        *head = bare;
    }
    if reply_h2(handler, client, &connection, reply, &head.method, &state.request_id).await.is_err() {
        state.outcome = "client_gone";
    }
    read
}

/// Forwards it; what is to be said in the place of an answer that did not begin.
async fn forward_h2(
    handler: &ConnectionHandler,
    head: &RequestHeader,
    body: &mut Body,
    client: &mut Client,
    state: &mut RequestState,
    read: &mut usize,
) -> Option<Reply> {
    let e = forward_whole(handler, head, body, client, state, read).await.err()?;
    let is_closed = state.connection.as_ref().is_some_and(|connection| connection.closed_for().is_some());
    let reply = if is_closed {
        attempt::ended_call(&handler.gateway, head, state)
    } else {
        attempt::on_upstream_error(&handler.gateway, &e, head, state)
    };
    match reply {
        Some(reply) if client.status == 0 => return Some(reply),
        _ if is_closed => client.close(),
        // the head is written: the client sees that the body breaks off
        Some(_) => client.reset(Reason::INTERNAL_ERROR),
        None => {}
    }
    None
}

/// A head that says that there is no body is a whole request: data behind it must not be found out afterwards.
async fn forward_whole(
    handler: &ConnectionHandler,
    head: &RequestHeader,
    body: &mut Body,
    client: &mut Client,
    state: &mut RequestState,
    read: &mut usize,
) -> Result<()> {
    let slow = |_| Error::explain(ErrorType::ReadTimedout, "reading the body").into_down();
    if head.headers.get(header::CONTENT_LENGTH).is_some_and(|length| length == "0") {
        let idle = handler.gateway.config.limits.idle;
        while let Part::Data(_) = timeout(idle, body.piece()).await.map_err(slow)?? {}
    }
    streamed::forward(handler, head, body, client, state, read).await
}

async fn reply_h2(
    handler: &ConnectionHandler,
    client: &mut Client,
    connection: &ConnectionHandle,
    reply: Reply,
    method: &Method,
    request_id: &str,
) -> std::result::Result<(), ClientDisconnected> {
    let hsts = hsts::sends_hsts(&handler.gateway.config, connection.secured().is_some());
    let head = reply_head::head_of(&reply, request_id, hsts).map_err(|_| ClientDisconnected)?;
    let bodiless = reply_head::is_bodiless(&reply) || *method == Method::HEAD;
    client.head(head, bodiless).await?;
    if bodiless {
        return Ok(());
    }
    client.own(reply.body).await
}
