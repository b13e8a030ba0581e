//! One stream is one request: the same `decide_request`, replies and access line as in HTTP/1.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, Method, Request, StatusCode, header, request};
use pingora_core::{Error, ErrorType, Result};
use tokio::time::{Instant, timeout_at};

use super::downstream::{H2Downstream, H2RequestBody};
use super::head;
use super::stream_budget::{StreamBudget, StreamOutcome};
use crate::pages::Page;
use crate::policy::forwarding::Forwarding;
use crate::policy::normalize::NormalRequest;
use crate::policy::oversized_head::{self, Oversize};
use crate::policy::reasons::{Outcome, Reason};
use crate::policy::{hsts, reply_head};
use crate::proxy::access_log::{self, Counts};
use crate::proxy::body_time::body_time;
use crate::proxy::client_disconnected::ClientDisconnected;
use crate::proxy::connection_handle::ConnectionHandle;
use crate::proxy::connection_handler::ConnectionHandler;
use crate::proxy::exchange::attempt_error::client_disconnected;
use crate::proxy::exchange::buffered::{self, BODY_BYTES_MAX};
use crate::proxy::exchange::downstream::{RequestBody as _, read_form};
use crate::proxy::exchange::streamed;
use crate::proxy::h1::request_body::body_length;
use crate::proxy::request_state::{Decision, RequestState, Step, Subject};
use crate::proxy::{attempt, own_page, unknown_credentials};
use crate::web::incoming::wants_page;
use crate::web::reply::Reply;
use crate::wire::body::Part;
use crate::wire::deadline::Deadline;
use crate::wire::head_error::BadHead;
use crate::wire::request_head::Head;

/// Serves it and writes its access line.
pub(super) async fn serve(
    handler: ConnectionHandler,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    connection: Arc<ConnectionHandle>,
    stream_budget: Arc<StreamBudget>,
) -> StreamOutcome {
    let (parts, body) = request.into_parts();
    let (body, client) = (
        H2RequestBody::new(body),
        H2Downstream::new(respond, handler.gateway.config.limits.idle, stream_budget.clone()),
    );
    body.clone().meanwhile(serve_one(handler, parts, body, client, connection, stream_budget)).await
}

async fn serve_one(
    handler: ConnectionHandler,
    mut parts: request::Parts,
    mut body: H2RequestBody,
    mut client: H2Downstream,
    connection: Arc<ConnectionHandle>,
    stream_budget: Arc<StreamBudget>,
) -> StreamOutcome {
    let gateway = &handler.gateway;
    let bytes = match head::to_http1(&mut parts, &gateway.config.limits) {
        Ok(bytes) => bytes,
        Err(bad) => return reject_malformed_head(&handler, parts, &mut client, &connection, bad).await,
    };
    let mut state = RequestState::new(connection, gateway.fresh_id());
    let step = gateway.decide_request(Box::new(Head { parsed: parts.into(), bytes: Bytes::new() }), bytes, &mut state);
    let mut call = Call { handler: &handler, body: &mut body, client: &mut client, state: &mut state, bytes_in: 0 };
    let subject = call.answer(step, stream_budget).await;
    let bytes_in = call.bytes_in;
    (state.live_entry, state.grpc_entry) = (None, None);
    let closed = state.connection.close_reason();
    state.reason = closed.map(Reason::Closed).or(state.reason);
    let counts = Counts { status: client.status, bytes_in, bytes_out: client.bytes_out };
    access_log::record(gateway, subject.parsed(), subject.facts(), &state, &counts);
    if client.status > 0 && closed.is_none() {
        body.drain_body().await;
    }
    if matches!(state.outcome, Outcome::ClientGone | Outcome::BadRequest) {
        StreamOutcome::Abusive
    } else {
        StreamOutcome::Served
    }
}

async fn reject_malformed_head(
    handler: &ConnectionHandler,
    parts: request::Parts,
    client: &mut H2Downstream,
    connection: &ConnectionHandle,
    bad: BadHead,
) -> StreamOutcome {
    let gateway = &handler.gateway;
    let id = gateway.fresh_id();
    let seen = oversize_of(&parts, &gateway.config.server.prefix);
    let (method, site) = (parts.method.clone(), wants_page(&parts.headers).then_some(&*gateway.pages));
    // it may be many times as large as what was sent, and the response may have to wait
    drop(parts);
    let reply = oversized_head::bad_head(bad, &id, site, &seen);
    let client_host = (connection.address(), seen.host.as_str());
    access_log::unread(gateway, client_host, reply.status.as_u16(), &id, Reason::Head(bad));
    drop(seen);
    let _ = reply_h2(handler, client, connection, reply, &method, &id).await;
    StreamOutcome::Abusive
}

fn oversize_of(parts: &request::Parts, prefix: &str) -> Oversize {
    let authority = parts.uri.authority().map(http::uri::Authority::as_str);
    Oversize::of_head(&parts.method, parts.uri.path().as_bytes(), authority, &parts.headers, prefix)
}

/// One stream's request and response.
struct Call<'s> {
    handler: &'s ConnectionHandler,
    body: &'s mut H2RequestBody,
    client: &'s mut H2Downstream,
    state: &'s mut RequestState,
    /// How much of the body was read.
    bytes_in: usize,
}

impl Call<'_> {
    /// Answers the stream, or ends it.
    async fn answer(&mut self, step: Step, stream_budget: Arc<StreamBudget>) -> Subject {
        let gateway = &self.handler.gateway;
        let is_refused = matches!(step, Step::Decided(Decision::Reply(..)));
        let expects = step.parsed().headers.get(header::EXPECT).map_or(&b""[..], |expects| expects.as_bytes());
        if expects.eq_ignore_ascii_case(b"100-continue") && !is_refused {
            self.client.send_interim(StatusCode::CONTINUE, &HeaderMap::new());
        }
        let slot = if is_refused { None } else { stream_budget.place(gateway, self.state.connection.address()) };
        if slot.is_none() && !is_refused {
            (self.state.outcome, self.state.reason) = (Outcome::Refused, Some(Reason::Connections));
            // it was not processed: the client may try again (RFC 9113, 8.7)
            self.client.reset(h2::Reason::REFUSED_STREAM);
            return step.into_subject();
        }
        let decision = match step {
            Step::Decided(decision) => decision,
            waiting => Box::pin(unknown_credentials::settle(gateway, waiting, self.state)).await,
        };
        let (reply, subject) = match decision {
            Decision::Reply(reply, subject) => (Some(self.state.cors.dress(reply)), subject),
            Decision::Page(page, request) => (Some(self.show_page(page, &request).await), Subject::Normal(request)),
            Decision::Forward(forwarding) => {
                // boxed: a stream that waits with a reply of ours is not as large as this
                (Box::pin(self.forward(&forwarding)).await, Subject::Forwarded(forwarding))
            }
        };
        let Some(reply) = reply else { return subject };
        // the fields need not wait with the reply
        let subject = subject.without_fields();
        let method = &subject.parsed().method;
        let (connection, id) = (&self.state.connection, &self.state.request_id);
        if reply_h2(self.handler, self.client, connection, reply, method, id).await.is_err() {
            self.state.outcome = Outcome::ClientGone;
        }
        subject
    }

    async fn show_page(&mut self, page: Page, request: &NormalRequest) -> Reply {
        let gateway = &self.handler.gateway;
        let body = if page.takes_body(&request.parsed().method) {
            read_form(self.body, gateway.config.limits.form_bytes).await
        } else {
            Ok(Bytes::new())
        };
        self.bytes_in = body.as_ref().map_or(0, Bytes::len);
        let reply = Box::pin(own_page::answer(gateway, page, request, body, self.state)).await;
        self.state.cors.dress(reply)
    }

    /// Forwards the request; the reply in place of a response that did not begin.
    async fn forward(&mut self, forwarding: &Forwarding) -> Option<Reply> {
        let e = self.exchange(forwarding).await.err()?;
        let gateway = &self.handler.gateway;
        let is_closed = self.state.connection.close_reason().is_some();
        let reply = if is_closed {
            attempt::grpc_session_ended_reply(gateway, forwarding, self.state)
        } else {
            attempt::on_upstream_error(gateway, &e, forwarding, self.state)
        };
        match reply {
            Some(reply) if self.client.status == 0 => return Some(reply),
            _ if is_closed => self.client.close(),
            // the head is sent: the client sees that the body is truncated
            Some(_) => self.client.reset(h2::Reason::INTERNAL_ERROR),
            None => {}
        }
        None
    }

    /// A small body is read whole before, as in HTTP/1, and so is an empty one: data after a head that excludes them must not be
    /// noticed after the request was sent.
    async fn exchange(&mut self, forwarding: &Forwarding) -> Result<()> {
        let Self { handler, body, client, state, bytes_in } = self;
        let head = forwarding.request().parsed();
        let length = head.headers.contains_key(header::CONTENT_LENGTH).then(|| body_length(head));
        let is_small = body.is_over() || length.is_some_and(|length| length <= BODY_BYTES_MAX);
        let may_use_h2 = state.grpc_entry.is_some() || attempt::may_use_h2(&handler.gateway, forwarding);
        if (is_small && !may_use_h2) || length == Some(0) {
            let whole_body = read_body(body).await?;
            if !may_use_h2 {
                *bytes_in = whole_body.len();
                let (connection, mut timer) = (state.connection.clone(), Deadline::default());
                return tokio::select! {
                    biased;
                    _ = connection.closed() => Err(client_disconnected()),
                    sent = buffered::forward(handler, forwarding, &whole_body, (*client, &mut timer), state) => sent.map(drop),
                };
            }
        }
        streamed::forward(handler, forwarding, *body, *client, state, bytes_in).await
    }
}

/// Reads a body, at most as long as its `Content-Length` (RFC 9113, 8.1.1: the library compares them), in the time that one in
/// HTTP/1 may take.
async fn read_body(body: &mut H2RequestBody) -> Result<Bytes> {
    let slow = |_| Error::explain(ErrorType::ReadTimedout, "reading the body").into_down();
    let (mut received, began) = (BytesMut::new(), Instant::now());
    while !body.is_over() {
        match timeout_at(began + body_time(received.len()), body.piece()).await.map_err(slow)?? {
            Part::Data(piece) => received.extend_from_slice(&piece),
            Part::End(_) => break,
        }
    }
    Ok(received.freeze())
}

async fn reply_h2(
    handler: &ConnectionHandler,
    client: &mut H2Downstream,
    connection: &ConnectionHandle,
    reply: Reply,
    method: &Method,
    request_id: &str,
) -> std::result::Result<(), ClientDisconnected> {
    let hsts = hsts::sends_hsts(&handler.gateway.config, connection.tls().is_some());
    let head = reply_head::head_of(&reply, request_id, hsts).ok_or(ClientDisconnected)?;
    let bodiless = reply_head::is_bodiless(&reply) || *method == Method::HEAD;
    client.send_head(head, bodiless)?;
    if bodiless {
        return Ok(());
    }
    client.own(reply.body).await
}
