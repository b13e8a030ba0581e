//! A plain exchange with an upstream over a kept connection: the head and the whole body go out at
//! once, the answer is streamed back. Nothing is decided here that `attempt.rs` does not decide.

use std::pin::pin;

use bytes::{Bytes, BytesMut};
use http::{StatusCode, Version, header};
use pingora_core::{Error, ErrorType, Result};
use pingora_http::RequestHeader;
use tokio::io::AsyncWriteExt as _;
use tokio::time::Instant;

use crate::proxy::access_log::Counts;
use crate::proxy::attempt::count_interim;
use crate::proxy::connection_handler::ConnectionHandler;
use crate::proxy::h1::downstream::{Conn, gone};
use crate::proxy::h1::reply::ConnectionOutcome;
use crate::proxy::h1::response_relay::{Answered, Relayed};
use crate::proxy::h1::{reply, response_relay};
use crate::proxy::request_state::{Forwarding, RequestState};
use crate::proxy::{attempt, connection_reuse};
use crate::upstream::targets::Target;
use crate::web::method::is_safe;
use crate::wire::request_target;
use crate::wire::response_head::{self, Answer, Framing};
use crate::wire::response_view::ResponseHeadView as _;
use crate::wire::stream::Stream;

/// What we usually add to a head, bytes: small memory is the cheapest, and grows where it must.
const ADDED: usize = 512;

/// Forwards a request that was admitted.
pub(crate) async fn exchange(
    handler: &ConnectionHandler,
    conn: &mut Conn,
    forwarding: &Forwarding,
    body: Bytes,
    state: &mut RequestState,
    counts: &mut Counts,
) -> ConnectionOutcome {
    let failure = match ask(handler, conn, forwarding, &body, state).await {
        Ok(mut answered) => {
            match attempt::on_response_head(&handler.gateway, forwarding, &answered.answer.head, state) {
                Ok(changes) => {
                    let relayed =
                        response_relay::answer(handler, conn, forwarding, (&mut answered, &changes), state, counts)
                            .await;
                    return go_on(handler, answered, relayed);
                }
                Err(e) => e,
            }
        }
        Err(e) => e,
    };
    match attempt::on_upstream_error(&handler.gateway, &failure, forwarding, state) {
        Some(reply) => reply::send(handler, conn, reply, forwarding.request.parsed(), state, counts).await,
        None => ConnectionOutcome::Closed,
    }
}

fn go_on(handler: &ConnectionHandler, mut answered: Answered, relayed: Relayed) -> ConnectionOutcome {
    match relayed {
        Relayed::Switched => {
            let rest = answered.answer.take_rest();
            ConnectionOutcome::Tunnel(answered.server, rest)
        }
        Relayed::Over(end, keeps) => {
            if keeps {
                connection_reuse::keep(&handler.gateway, &answered.target, answered.server, answered.needs_probe);
            }
            end
        }
    }
}

/// Sends the request to the servers in turn until one answers.
async fn ask(
    handler: &ConnectionHandler,
    conn: &mut Conn,
    forwarding: &Forwarding,
    body: &[u8],
    state: &mut RequestState,
) -> Result<Answered> {
    loop {
        let target = attempt::next_target(&handler.gateway, forwarding, state)?;
        let repeatable = body.is_empty() && is_safe(&forwarding.request.parsed().method);
        let kept = if state.retried {
            None
        } else {
            connection_reuse::reuse(&handler.gateway, &target, state, repeatable).await
        };
        let (reused, needs_probe) = (kept.is_some(), kept.as_ref().is_some_and(|(_, needs_probe)| *needs_probe));
        let mut server = match kept {
            Some((server, _)) => server,
            None => match target.connect(&handler.connector).await {
                Ok(server) => server,
                Err(e) if attempt::may_try_another(&handler.gateway, forwarding, state, &e) => continue,
                Err(e) => return Err(e),
            },
        };
        let request = request(handler, forwarding, (body, &target), state);
        // nothing was waited for since then: no body, and no server that cannot be reached
        let is_at_once = reused && body.is_empty() && state.tried.len() == 1;
        let since = is_at_once.then(|| Instant::from_std(state.decided));
        match try_once(handler, conn, &mut server, (&request, since), forwarding).await {
            Ok(mut answer) => {
                // whoever was asked to switch may have done so, whatever its answer is
                answer.keeps &= state.live.is_none();
                let needs_probe = needs_probe || !body.is_empty() || answer.framing == Framing::Length(0);
                return Ok(Answered { server, target, needs_probe, answer });
            }
            // the whole body is held
            Err(AttemptError::NoResponse(e)) if !attempt::may_repeat(forwarding, state, reused) => return Err(e),
            Err(AttemptError::NoResponse(_)) => {}
            Err(AttemptError::Other(e)) => return Err(e),
        }
    }
}

/// The bytes that the upstream gets: the client's fields as they came, except for those that do not
/// pass, then ours.
fn request(
    handler: &ConnectionHandler,
    forwarding: &Forwarding,
    (body, target): (&[u8], &Target),
    state: &RequestState,
) -> Vec<u8> {
    let head = forwarding.request.head();
    let changes = attempt::changes(&handler.gateway, forwarding, state, target);
    let mut out = Vec::with_capacity(head.bytes.len() + ADDED + body.len());
    out.extend_from_slice(head.parsed.method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(changes.target.as_deref().unwrap_or(request_target::of(&head.parsed)));
    out.extend_from_slice(b" HTTP/1.1\r\n");
    for (name, line) in head.fields() {
        if changes.keeps(name) {
            out.extend_from_slice(line);
        }
    }
    for (name, value) in changes.fields() {
        response_head::put_field(&mut out, name.as_bytes(), value);
    }
    if state.live.is_some() {
        out.extend_from_slice(b"Connection: Upgrade\r\n");
        response_head::put_field(&mut out, b"Upgrade", forwarding.upgrade.as_deref().unwrap_or("websocket").as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body);
    out
}

async fn try_once(
    handler: &ConnectionHandler,
    conn: &mut Conn,
    server: &mut Stream,
    (request, since): (&[u8], Option<Instant>),
    forwarding: &Forwarding,
) -> std::result::Result<Answer, AttemptError> {
    let idle = handler.gateway.config.limits.idle;
    let rest = &request[server.write_now(request)..];
    if !(rest.is_empty() && server.is_plain()) {
        let sent = async {
            server.write_all(rest).await?;
            // TLS keeps what the socket did not take at once
            server.flush().await
        };
        match conn.deadline.within(idle, pin!(sent)).await {
            Some(Ok(())) => {}
            Some(Err(e)) => {
                return Err(AttemptError::NoResponse(Error::because(ErrorType::WriteError, "sending", e).into_up()));
            }
            None => return Err(AttemptError::Other(Error::explain(ErrorType::WriteTimedout, "sending").into_up())),
        }
    }
    let within = handler.gateway.config.routes[forwarding.admission.route()].timeout;
    let head = forwarding.request.parsed();
    let mut deadline = std::mem::take(&mut conn.deadline);
    let answer = deadline.within_since(since, within, pin!(read_answer(conn, server, head, idle))).await;
    conn.deadline = deadline;
    if let Some(answer) = answer {
        return answer;
    }
    conn.handle.mark_overdue();
    Err(AttemptError::Other(
        Error::explain(ErrorType::ReadTimedout, "no response within the route's timeout").into_up(),
    ))
}

/// Why a try came to nothing.
enum AttemptError {
    /// The connection ended before a byte of an answer.
    NoResponse(Box<Error>),
    Other(Box<Error>),
}

/// Waits for the head of the final answer; the client is told of 103s on the way (RFC 8297).
async fn read_answer(
    conn: &mut Conn,
    server: &mut Stream,
    head: &RequestHeader,
    idle: std::time::Duration,
) -> std::result::Result<Answer, AttemptError> {
    let mut buffer = BytesMut::new();
    let (mut begun, mut interims, mut seen) = (false, 0, 0);
    loop {
        match response_head::read(&mut buffer, &head.method, seen).map_err(|e| AttemptError::Other(e.into_up()))? {
            Some(mut interim) if interim.head.status().is_informational() && interim.head.status() != 101 => {
                count_interim(&mut interims).map_err(AttemptError::Other)?;
                // HTTP/1.0 knows no interim answers (RFC 9110, 15.2)
                if interim.head.status() == StatusCode::EARLY_HINTS && head.version == Version::HTTP_11 {
                    let mut out = Vec::new();
                    response_head::write_early_hints(interim.head.values(&header::LINK), &mut out);
                    let _ = conn.write(&out, idle).await;
                }
                (buffer, seen) = (interim.take_rest(), 0);
                continue;
            }
            Some(answer) => return Ok(answer),
            None => seen = buffer.len(),
        }
        let read = tokio::select! {
            biased;
            read = server.read_on(&mut buffer) => read,
            () = gone(&mut conn.stream, &mut conn.buffer) => {
                return Err(AttemptError::Other(Error::explain(ErrorType::ConnectionClosed, "client disconnected").into_down()));
            }
        };
        let broken = |e| if begun { AttemptError::Other(e) } else { AttemptError::NoResponse(e) };
        match read {
            Ok(0) => return Err(broken(Error::explain(ErrorType::ConnectionClosed, "no response").into_up())),
            Ok(_) => begun = true,
            Err(e) => return Err(broken(Error::because(ErrorType::ReadError, "no response", e).into_up())),
        }
    }
}
