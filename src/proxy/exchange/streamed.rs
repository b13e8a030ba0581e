//! A request to a server and its answer back, bodies both ways at once, trailers too. Nothing is decided here that
//! `attempt.rs` does not decide.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use pingora_core::{Error, ErrorType, Result};
use tokio::time::{Instant, sleep_until, timeout};

use super::downstream::{Download, Upload};
use super::replay_buffer::Replay;
use super::upstream::{self, AttemptError, Server, Sink, Source, gone};
use crate::policy::trailers;
use crate::proxy::connection_handler::ConnectionHandler;
use crate::proxy::flow::Flow;
use crate::proxy::request_state::{Forwarding, RequestState};
use crate::proxy::retry::uses_connection_auth;
use crate::proxy::{attempt, connection_reuse};
use crate::upstream::h1_pool;
use crate::upstream::h2_pool::Shared;
use crate::upstream::targets::Target;
use crate::wire::body::Part;

/// Why a body was not sent to its end.
enum Stopped {
    /// The client broke off, was too slow, or sent too much.
    Client(Box<Error>),
    /// The server takes no more of it: its answer counts.
    Server,
}

/// What a route allows of one try.
struct Allowed {
    idle: Duration,
    /// To the first byte of the answer, once the body is sent.
    answer: Duration,
    body_max: Option<u64>,
    /// The server was told that nothing follows the head.
    bodiless: bool,
    /// The client said how long its body is, and may have been wrong: the last piece waits for the end.
    held: bool,
}

/// What each direction has to know of the other.
#[derive(Default)]
struct Progress {
    /// The answer has begun.
    answered: AtomicBool,
    /// Bytes of the body that were read.
    sent: AtomicUsize,
    /// The server did not take the body to its end. Where its connection was reset, whoever writes hears of that first, and
    /// whoever reads finds an end that looks like a clean one.
    failed: AtomicBool,
}

/// Sends the request to the servers in turn until one answers, and its answer to the client.
pub(crate) async fn forward<U: Upload, D: Download>(
    handler: &ConnectionHandler,
    forwarding: &Forwarding,
    body: &mut U,
    client: &mut D,
    state: &mut RequestState,
    read: &mut usize,
) -> Result<()> {
    let head = forwarding.request.parsed();
    let bodiless = body.is_over();
    let mut body = Replay::new(body);
    loop {
        let target = attempt::next_target(&handler.gateway, forwarding, state)?;
        let (server, kept) = match acquire_connection(handler, forwarding, &target, state, D::TAKES_H2).await {
            Ok(reached) => reached,
            Err(e) if attempt::may_try_another(&handler.gateway, forwarding, state, &e) => continue,
            Err(e) => return Err(e),
        };
        let mut request = head.clone();
        attempt::changes(&handler.gateway, forwarding, state, &target).apply(&mut request)?;
        if !client.holds_back() {
            request.remove_header(&header::EXPECT);
        }
        let tried = match timeout(answer_time(handler, forwarding), server.begin(&request, bodiless)).await {
            Ok(Ok(begun)) => relay(handler, forwarding, &mut body, client, state, (bodiless, begun), read).await,
            Ok(Err(e)) => Err(AttemptError::NoResponse(e)),
            Err(_) => Err(AttemptError::Other(Error::explain(ErrorType::WriteTimedout, "sending the head").into_up())),
        };
        match tried {
            Ok(Some((sink, source))) => {
                match upstream::kept(sink, source) {
                    Ok(Some(stream)) if !uses_connection_auth(&head.headers, state.names) => {
                        connection_reuse::keep(&handler.gateway, &target, stream, true);
                    }
                    Ok(_) => {}
                    Err(h1_pool::Surplus) => connection_reuse::distrust(&handler.gateway, &target, state),
                }
                return Ok(());
            }
            Ok(None) => return Ok(()),
            Err(AttemptError::NoResponse(e)) if !(body.rewind() && attempt::may_repeat(forwarding, state, kept)) => {
                return Err(e);
            }
            Err(AttemptError::NotProcessed(e)) if !(body.rewind() && attempt::may_begin_anew(state)) => return Err(e),
            Err(AttemptError::NoResponse(_) | AttemptError::NotProcessed(_)) => {}
            Err(AttemptError::Other(e)) => return Err(e),
        }
    }
}

/// What the route allows a server to begin its answer.
fn answer_time(handler: &ConnectionHandler, forwarding: &Forwarding) -> Duration {
    handler.gateway.config.routes[forwarding.admission.route()].timeout
}

/// A connection to the server, and whether it is one that was kept. With `any`, it may be in HTTP/2 though the
/// server does not ask for that.
async fn acquire_connection(
    handler: &ConnectionHandler,
    forwarding: &Forwarding,
    target: &Target,
    state: &RequestState,
    any: bool,
) -> Result<(Server, bool)> {
    let pair = (target.id(), forwarding.request.facts().client);
    if !state.retried {
        let shared = if any || target.is_h2c() { Shared::take(pair) } else { None };
        if let Some(shared) = shared {
            return Ok((Server::Shared(shared), true));
        }
        let kept = if any && target.may_speak_h2() {
            None
        } else {
            connection_reuse::reuse(&handler.gateway, target, state, false).await
        };
        if let Some((stream, _)) = kept {
            return Ok((Server::Own(stream), true));
        }
    }
    let stream =
        if any { target.connect_any(&handler.connector).await } else { target.connect(&handler.connector).await }?;
    let Some(scheme) = target.agreed_on_h2(&stream) else { return Ok((Server::Own(stream), false)) };
    // of many that begin at once, one may have a connection by now that has room for this one, too
    if let Some(shared) = Shared::take(pair).filter(|_| !state.retried) {
        return Ok((Server::Shared(shared), true));
    }
    Ok((Server::Shared(Shared::begin(pair, stream, scheme).await?), false))
}

/// Both bodies on their way. `Ok` with the server's ends: all was sent and read.
async fn relay<U: Upload, D: Download>(
    handler: &ConnectionHandler,
    forwarding: &Forwarding,
    body: &mut U,
    client: &mut D,
    state: &mut RequestState,
    (bodiless, (sink, source)): (bool, (Sink, Source)),
    read: &mut usize,
) -> Result<Option<(Sink, Source)>, AttemptError> {
    let (connection, admission, head) = (state.connection.clone(), &forwarding.admission, forwarding.request.parsed());
    let body_max = admission.body_max();
    let upstream = &handler.gateway.config.upstreams[admission.upstream()];
    let passing = |told: HeaderMap| trailers::to_server(told, &handler.gateway.header_filter, upstream);
    let (idle, declared) = (handler.gateway.config.limits.idle, head.headers.contains_key(header::CONTENT_LENGTH));
    let allowed =
        Allowed { idle, answer: answer_time(handler, forwarding), body_max, held: declared && !U::IS_FRAMED, bodiless };
    if matches!(sink, Sink::Shared(_)) {
        // it was not asked
        client.inform(StatusCode::CONTINUE, &HeaderMap::new()).await;
    }
    let progress = Progress::default();
    let result = {
        let mut up = pin!(upload(body, sink, &allowed, passing, &progress));
        let mut down = pin!(download(handler, forwarding, client, source, state, &progress));
        let (mut sending, mut awaited) = (true, false);
        let (mut uploaded, mut watched) = (None, None);
        let mut due = Instant::now();
        loop {
            tokio::select! {
                biased;
                _ = connection.closed() => break Err(AttemptError::Other(gone())),
                result = &mut up, if sending => {
                    match result {
                        Err(Stopped::Client(e)) => break Err(AttemptError::Other(e)),
                        Err(Stopped::Server) => progress.failed.store(true, Ordering::Relaxed),
                        Ok((sink, body)) => (uploaded, watched) = (Some(sink), Some(body)),
                    }
                    sending = false;
                    (awaited, due) = (true, Instant::now() + allowed.answer);
                },
                result = &mut down => break result.map(|source| uploaded.map(|sink| (sink, source))),
                () = client_disconnected(&mut watched) => break Err(AttemptError::Other(gone())),
                () = sleep_until(due), if awaited => {
                    awaited = false;
                    if !progress.answered.load(Ordering::Relaxed) {
                        connection.mark_overdue();
                        let late = Error::explain(ErrorType::ReadTimedout, "no response within the route's timeout");
                        break Err(AttemptError::Other(late.into_up()));
                    }
                }
            }
        }
    };
    // a second try sends it from its start
    *read = progress.sent.load(Ordering::Relaxed).max(*read);
    result
}

/// The answer, to its end.
async fn download(
    handler: &ConnectionHandler,
    forwarding: &Forwarding,
    client: &mut impl Download,
    mut source: Source,
    state: &mut RequestState,
    progress: &Progress,
) -> Result<Source, AttemptError> {
    let idle = handler.gateway.config.limits.idle;
    let mut answer = source.head(&forwarding.request.parsed().method, client).await?;
    progress.answered.store(true, Ordering::Relaxed);
    if answer.status == StatusCode::SWITCHING_PROTOCOLS {
        // no upgrade was sent on, a client's handshake for a WebSocket included
        let why = "101 to a request that is not an upgrade";
        return Err(AttemptError::Other(Error::explain(ErrorType::InvalidHTTPHeader, why).into_up()));
    }
    attempt::on_response_head(&handler.gateway, forwarding, &answer, state)
        .map_err(AttemptError::Other)?
        .apply(&mut answer);
    let has_length = answer.headers.contains_key(header::CONTENT_LENGTH);
    answer.remove_header(&http::header::CONNECTION);
    let over = source.is_over() || source.is_bodiless();
    source.meanwhile(client.head(answer, over)).await.map_err(|_| AttemptError::Other(gone()))?;
    if over {
        source.let_end().await;
        return Ok(source);
    }
    let mut flow = Flow::new(&handler.gateway, forwarding, has_length, state);
    {
        let mut relayed = pin!(relay_body(client, &mut source, progress, idle));
        loop {
            tokio::select! {
                biased;
                relayed = &mut relayed => break relayed,
                () = flow.due() => flow.register_if_due(),
            };
        }
    }
    .map_err(AttemptError::Other)?;
    Ok(source)
}

/// The answer's body, and its trailers.
async fn relay_body(
    client: &mut impl Download,
    source: &mut Source,
    progress: &Progress,
    idle: Duration,
) -> Result<()> {
    let whole = loop {
        let part = tokio::select! {
            biased;
            part = timeout(idle, source.data()) => part,
            () = client.gone() => return Err(gone()),
        };
        let late = |_| Error::explain(ErrorType::ReadTimedout, "reading the response").into_up();
        match part.map_err(late)?? {
            Part::Data(data) => source.meanwhile(client.data(data)).await.map_err(|_| gone())?,
            Part::End(whole) => break whole,
        }
    };
    if source.ends_with_connection() && progress.failed.load(Ordering::Relaxed) {
        return Err(upstream::cut_off());
    }
    let late = |_| Error::explain(ErrorType::ReadTimedout, "reading the trailers").into_up();
    let trailers = timeout(idle, source.trailers()).await.map_err(late)??;
    client.end(whole, trailers.and_then(trailers::to_client)).await.map_err(|_| gone())
}

/// Waits until whoever has sent a whole body goes away.
async fn client_disconnected(body: &mut Option<&mut impl Upload>) {
    match body {
        Some(body) => body.gone().await,
        None => std::future::pending().await,
    }
}

async fn send(sink: &mut Sink, part: Bytes, idle: Duration) -> Result<(), Stopped> {
    match timeout(idle, sink.data(part)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(Stopped::Server),
    }
}

/// The request's body, to its end, and what passes of its trailers.
async fn upload<'b, U: Upload>(
    body: &'b mut U,
    mut sink: Sink,
    allowed: &Allowed,
    passing: impl FnOnce(HeaderMap) -> Option<HeaderMap>,
    progress: &Progress,
) -> Result<(Sink, &'b mut U), Stopped> {
    // a body may have turned out to be over since: its end is still to be sent
    if allowed.bodiless {
        return Ok((sink, body));
    }
    let slow = |_| Stopped::Client(Error::explain(ErrorType::ReadTimedout, "reading the body").into_down());
    let mut held = None;
    let whole = loop {
        let part = timeout(allowed.idle, body.piece()).await.map_err(slow)?.map_err(Stopped::Client)?;
        let mut part = match part {
            Part::Data(part) => part,
            Part::End(whole) => break whole,
        };
        let length = part.len();
        let before = progress.sent.fetch_add(length, Ordering::Relaxed);
        if allowed.body_max.is_some_and(|max| (before + length) as u64 > max) {
            let large = Error::explain(ErrorType::HTTPStatus(413), "body larger than body_max");
            return Err(Stopped::Client(large.into_down()));
        }
        if allowed.held {
            // a body that turns out too long never was a whole one
            part = held.replace(part).unwrap_or_default();
        }
        send(&mut sink, part, allowed.idle).await?;
    };
    let trailers = timeout(allowed.idle, body.trailers()).await.map_err(slow)?.map_err(Stopped::Client)?;
    send(&mut sink, held.unwrap_or_default(), allowed.idle).await?;
    // whoever has answered may have forgotten the stream: trailers that come then end Go's whole connection
    let trailers = trailers.and_then(passing).filter(|_| !progress.answered.load(Ordering::Relaxed));
    match timeout(allowed.idle, sink.end(whole, trailers)).await {
        Ok(Ok(())) => Ok((sink, body)),
        Ok(Err(_)) | Err(_) => Err(Stopped::Server),
    }
}
