//! A stream's request to a server and its answer back, bodies both ways at once, trailers too. Nothing is decided
//! here that `tries.rs` does not decide.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use http::{HeaderMap, header};
use pingora_core::{Error, ErrorType, Result};
use pingora_http::RequestHeader;
use tokio::time::{Instant, sleep_until, timeout};

use super::client::Client;
use super::server::{self, Broken, Server, Shared, Sink, Source, gone};
use super::trailers;
use crate::gateway::front::{Front, pool};
use crate::gateway::tries::no_admission;
use crate::gateway::upstream::Target;
use crate::gateway::{Gateway, RequestState};

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
    body: Option<u64>,
    /// The client said how long its body is.
    declared: bool,
}

impl Front {
    /// Sends the request to the servers in turn until one answers, and its answer to the client.
    pub(super) async fn forward_h2(
        &self,
        head: &RequestHeader,
        body: &mut RecvStream,
        client: &mut Client,
        state: &mut RequestState,
        read: &mut usize,
    ) -> Result<()> {
        let length = head.headers.get(header::CONTENT_LENGTH);
        if length.is_some_and(|length| length == "0") {
            // a head that says so is a whole request: data behind it must not be found out afterwards
            ends_empty(body, self.gateway.config.limits.idle).await?;
        }
        let bodiless = body.is_end_stream();
        loop {
            let target = self.gateway.next_target(state)?;
            let (server, kept) = match self.reach(&target, state.retried).await {
                Ok(reached) => reached,
                Err(_) if self.gateway.may_try_another(state) => continue,
                Err(e) => return Err(e),
            };
            let mut request = head.clone();
            self.gateway.changes(head, state)?.apply(&mut request)?;
            let tried = match server.begin(&request, bodiless).await {
                Ok(begun) => self.try_once_h2(head, body, client, state, begun, read).await,
                Err(e) => Err(Broken::Silent(e)),
            };
            match tried {
                Ok(Some((sink, source))) => {
                    server::keep(target.id(), sink, source);
                    return Ok(());
                }
                Ok(None) => return Ok(()),
                Err(Broken::Silent(e)) if !Gateway::may_repeat(state, head, bodiless, kept) => return Err(e),
                Err(Broken::Silent(_)) => {}
                Err(Broken::Other(e)) => return Err(e),
            }
        }
    }

    /// A connection to the server, and whether it is one that was kept.
    async fn reach(&self, target: &Target, anew: bool) -> Result<(Server, bool)> {
        if !anew {
            if let Some(shared) = Shared::take(target.id()) {
                return Ok((Server::Shared(shared), true));
            }
            if let Some(wire) = pool::take(target.id()).await {
                return Ok((Server::Own(wire), true));
            }
        }
        let wire = target.connect_any(&self.connector).await?;
        Ok((
            match target.agreed_on_h2(&wire) {
                Some(scheme) => Server::Shared(Shared::begin(target.id(), wire, scheme).await?),
                None => Server::Own(wire),
            },
            false,
        ))
    }

    /// Both bodies on their way. `Ok` with the server's ends: all was sent and read.
    async fn try_once_h2(
        &self,
        head: &RequestHeader,
        body: &mut RecvStream,
        client: &mut Client,
        state: &mut RequestState,
        (sink, source): (Sink, Source),
        read: &mut usize,
    ) -> Result<Option<(Sink, Source)>, Broken> {
        let (Some(guard), Some(admission)) = (state.guard.clone(), &state.admission) else {
            return no_admission().map_err(Broken::Other);
        };
        let route = &self.gateway.config.routes[admission.route()];
        let upstream = &self.gateway.config.upstreams[admission.upstream()];
        let passing = |told: HeaderMap| trailers::to_server(told, &self.gateway.stripper, upstream);
        let allowed = Allowed {
            idle: self.gateway.config.limits.idle,
            answer: route.timeout,
            body: route.body_max,
            declared: head.headers.contains_key(header::CONTENT_LENGTH),
        };
        let (answered, sent) = (AtomicBool::new(false), AtomicUsize::new(0));
        let result = {
            let mut up = pin!(upload(body, sink, &allowed, passing, &sent));
            let mut down = pin!(self.download(head, client, source, state, &answered));
            let (mut uploaded, mut awaited) = (None, false);
            let mut due = Instant::now();
            loop {
                tokio::select! {
                    biased;
                    _ = guard.closed() => break Err(Broken::Other(gone())),
                    result = &mut up, if uploaded.is_none() => match result {
                        Err(Stopped::Client(e)) => break Err(Broken::Other(e)),
                        result => {
                            uploaded = Some(result.ok());
                            (awaited, due) = (true, Instant::now() + allowed.answer);
                        }
                    },
                    result = &mut down => break result.map(|source| uploaded.flatten().map(|sink| (sink, source))),
                    () = sleep_until(due), if awaited => {
                        awaited = false;
                        if !answered.load(Ordering::Relaxed) {
                            guard.mark_overdue();
                            let late = Error::explain(ErrorType::ReadTimedout, "waiting for the answer");
                            break Err(Broken::Other(late.into_up()));
                        }
                    }
                }
            }
        };
        *read += sent.load(Ordering::Relaxed);
        result
    }

    /// The answer, to its end.
    async fn download(
        &self,
        head: &RequestHeader,
        client: &mut Client,
        mut source: Source,
        state: &mut RequestState,
        answered: &AtomicBool,
    ) -> Result<Source, Broken> {
        let idle = self.gateway.config.limits.idle;
        let mut answer = source.head(&head.method, client).await?;
        answered.store(true, Ordering::Relaxed);
        self.gateway.answered(head, &answer, state).map_err(Broken::Other)?.apply(&mut answer);
        answer.remove_header(&http::header::CONNECTION);
        let over = source.is_over();
        client.head(answer, over).map_err(|_| Broken::Other(gone()))?;
        if over {
            return Ok(source);
        }
        loop {
            let piece = tokio::select! {
                biased;
                piece = timeout(idle, source.data()) => piece,
                () = client.gone() => return Err(Broken::Other(gone())),
            };
            let late = |_| Broken::Other(Error::explain(ErrorType::ReadTimedout, "reading the answer").into_up());
            let Some(data) = piece.map_err(late)?.map_err(Broken::Other)? else { break };
            client.data(data).await.map_err(|_| Broken::Other(gone()))?;
        }
        let late = |_| Broken::Other(Error::explain(ErrorType::ReadTimedout, "reading the trailers").into_up());
        let trailers = timeout(idle, source.trailers()).await.map_err(late)?.map_err(Broken::Other)?;
        client.end(trailers.and_then(trailers::to_client)).map_err(|_| Broken::Other(gone()))?;
        Ok(source)
    }
}

/// Waits for the end of a body that is to have no bytes.
async fn ends_empty(body: &mut RecvStream, idle: Duration) -> Result<()> {
    let slow = |_| Error::explain(ErrorType::ReadTimedout, "reading the body").into_down();
    while let Some(part) = timeout(idle, body.data()).await.map_err(slow)? {
        part.map_err(|e| Error::because(ErrorType::ReadError, "reading the body", e).into_down())?;
    }
    Ok(())
}

async fn send(sink: &mut Sink, part: Bytes, idle: Duration) -> Result<(), Stopped> {
    match timeout(idle, sink.data(part)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(Stopped::Server),
    }
}

/// The request's body, to its end, and what passes of its trailers.
async fn upload(
    body: &mut RecvStream,
    mut sink: Sink,
    allowed: &Allowed,
    passing: impl FnOnce(HeaderMap) -> Option<HeaderMap>,
    sent: &AtomicUsize,
) -> Result<Sink, Stopped> {
    if body.is_end_stream() {
        return Ok(sink);
    }
    let slow = |_| Stopped::Client(Error::explain(ErrorType::ReadTimedout, "reading the body").into_down());
    let broken = |e| Stopped::Client(Error::because(ErrorType::ReadError, "reading the body", e).into_down());
    let mut held = None;
    while let Some(part) = timeout(allowed.idle, body.data()).await.map_err(slow)? {
        let mut part = part.map_err(broken)?;
        let length = part.len();
        let before = sent.fetch_add(length, Ordering::Relaxed);
        if allowed.body.is_some_and(|max| (before + length) as u64 > max) {
            let large = Error::explain(ErrorType::HTTPStatus(413), "body larger than body_max");
            return Err(Stopped::Client(large.into_down()));
        }
        if allowed.declared {
            // the last piece waits for the end: a body that turns out too long never was a whole one
            part = held.replace(part).unwrap_or_default();
        }
        send(&mut sink, part, allowed.idle).await?;
        let _ = body.flow_control().release_capacity(length);
    }
    let trailers = timeout(allowed.idle, body.trailers()).await.map_err(slow)?.map_err(broken)?;
    send(&mut sink, held.unwrap_or_default(), allowed.idle).await?;
    match timeout(allowed.idle, sink.end(trailers.and_then(passing))).await {
        Ok(Ok(())) => Ok(sink),
        Ok(Err(_)) | Err(_) => Err(Stopped::Server),
    }
}
