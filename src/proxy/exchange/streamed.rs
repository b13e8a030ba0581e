//! Bodies that pass while they are received, both directions at the same time, with their trailers.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use pingora_core::{Error, ErrorType, Result};
use pingora_http::ResponseHeader;
use tokio::time::{Instant, sleep_until, timeout};

use super::attempt_error::{AttemptError, client_disconnected};
use super::downstream::{Downstream, RequestBody};
use super::replay_buffer::ReplayBuffer;
use super::response_body;
use super::retry::{self, Attempt};
use super::upstream::{RequestSink, ResponseSource, UpstreamConnection};
use crate::policy::forwarding::Forwarding;
use crate::policy::trailers;
use crate::proxy::attempt;
use crate::proxy::connection_handler::ConnectionHandler;
use crate::proxy::connection_reuse;
use crate::proxy::request_state::RequestState;
use crate::upstream::h2_pool::SharedConnection;
use crate::upstream::targets::Target;
use crate::wire::body::Part;
use crate::wire::deadline::Deadline;

/// Why a request body was not sent to its end.
enum UploadError {
    /// The client disconnected, was too slow, or sent too much.
    Client(Box<Error>),
    /// The server takes no more of it: its response counts.
    Server,
}

/// Limits of one upload.
struct UploadLimits {
    idle: Duration,
    body_max: Option<u64>,
    /// The server has been informed that nothing follows the head.
    bodiless: bool,
    /// The length in the head may be wrong: the last piece is held until the end is seen.
    holds_last: bool,
}

/// What each direction knows of the other.
#[derive(Default)]
struct Progress {
    /// The response has begun.
    answered: AtomicBool,
    /// Bytes of the request's body that were read.
    sent: AtomicUsize,
    /// The server did not take the body to its end. After a reset only the writer gets the error, and the reader an end that looks
    /// clean.
    upload_failed: AtomicBool,
}

/// Forwards a request and its response. `read` becomes the number of bytes read of the body.
pub(crate) async fn forward<U: RequestBody, D: Downstream<Head = ResponseHeader>>(
    handler: &ConnectionHandler,
    forwarding: &Forwarding,
    body: &mut U,
    client: &mut D,
    state: &mut RequestState,
    read: &mut usize,
) -> Result<()> {
    let bodiless = body.is_over();
    let body = ReplayBuffer::new(body);
    retry::send(handler, forwarding, Streamed { body, client, bodiless, read }, state).await
}

struct Streamed<'b, U, D> {
    body: ReplayBuffer<'b, U>,
    client: &'b mut D,
    bodiless: bool,
    read: &'b mut usize,
}

impl<U: RequestBody, D: Downstream<Head = ResponseHeader>> Attempt for Streamed<'_, U, D> {
    async fn send(
        &mut self,
        handler: &ConnectionHandler,
        forwarding: &Forwarding,
        target: Arc<Target>,
        state: &mut RequestState,
    ) -> Result<(), AttemptError> {
        let (connection, reused) = acquire_connection(handler, forwarding, &target, state, D::IS_H2)
            .await
            .map_err(AttemptError::Unreachable)?;
        let changes = attempt::changes(&handler.gateway, forwarding, state, &target);
        let begun =
            connection.begin(forwarding.request().head(), changes, (self.client.expects_continue(), self.bodiless));
        let begun = match timeout(attempt::response_time(&handler.gateway, forwarding), begun).await {
            Ok(begun) => begun.map_err(|e| e.on_connection(reused))?,
            Err(_) => return Err(Error::explain(ErrorType::WriteTimedout, "sending the head").into_up().into()),
        };
        let relayed = self.relay(handler, forwarding, begun, state).await;
        if let Some((sink, source)) = relayed.map_err(|e| e.on_connection(reused))? {
            response_body::release(handler, forwarding, (&target, true), (source, Some(sink)), state);
        }
        Ok(())
    }

    fn rewind(&mut self) -> bool {
        self.body.rewind()
    }
}

impl<U: RequestBody, D: Downstream<Head = ResponseHeader>> Streamed<'_, U, D> {
    /// Both bodies. `Some`: all was sent and read.
    async fn relay(
        &mut self,
        handler: &ConnectionHandler,
        forwarding: &Forwarding,
        (sink, source): (RequestSink, ResponseSource),
        state: &mut RequestState,
    ) -> Result<Option<(RequestSink, ResponseSource)>, AttemptError> {
        let (connection, admission) = (state.connection.clone(), forwarding.admission());
        let gateway = &handler.gateway;
        let upstream = &gateway.config.upstreams[admission.upstream()];
        let passing = |sent: HeaderMap| trailers::to_server(sent, &gateway.header_filter, upstream);
        let limits = UploadLimits {
            idle: gateway.config.limits.idle,
            body_max: admission.body_max(),
            holds_last: forwarding.request().parsed().headers.contains_key(header::CONTENT_LENGTH) && !U::IS_FRAMED,
            bodiless: self.bodiless,
        };
        let answer_time = attempt::response_time(gateway, forwarding);
        if matches!(sink, RequestSink::H2(_)) {
            // the server is not asked
            self.client.interim(StatusCode::CONTINUE, &HeaderMap::new()).await;
        }
        let progress = Progress::default();
        let result = {
            let mut up = pin!(upload(&mut self.body, sink, &limits, passing, &progress));
            let mut down = pin!(download(handler, forwarding, self.client, source, state, &progress));
            let (mut sending, mut awaited) = (true, false);
            let (mut uploaded, mut watched) = (None, None);
            let mut due = Instant::now();
            loop {
                tokio::select! {
                    biased;
                    _ = connection.closed() => break Err(client_disconnected().into()),
                    result = &mut up, if sending => {
                        match result {
                            Err(UploadError::Client(e)) => break Err(e.into()),
                            Err(UploadError::Server) => progress.upload_failed.store(true, Ordering::Relaxed),
                            Ok((sink, body)) => (uploaded, watched) = (Some(sink), Some(body)),
                        }
                        sending = false;
                        (awaited, due) = (true, Instant::now() + answer_time);
                    },
                    result = &mut down => break result.map(|source| uploaded.map(|sink| (sink, source))),
                    () = disconnected(&mut watched) => break Err(client_disconnected().into()),
                    () = sleep_until(due), if awaited => {
                        awaited = false;
                        if !progress.answered.load(Ordering::Relaxed) {
                            break Err(AttemptError::Final(attempt::response_overdue(&connection)));
                        }
                    }
                }
            }
        };
        // another attempt sends it from its start
        *self.read = progress.sent.load(Ordering::Relaxed).max(*self.read);
        result
    }
}

/// A connection to the server, and whether it was kept. `prefers_h2`: in HTTP/2 where the server offers it.
async fn acquire_connection(
    handler: &ConnectionHandler,
    forwarding: &Forwarding,
    target: &Target,
    state: &RequestState,
    prefers_h2: bool,
) -> Result<(UpstreamConnection, bool)> {
    let pair = (target.id(), forwarding.request().facts().client);
    let shared = || if state.retried { None } else { SharedConnection::take(pair).map(UpstreamConnection::H2) };
    if (prefers_h2 || target.is_h2c())
        && let Some(shared) = shared()
    {
        return Ok((shared, true));
    }
    if !(prefers_h2 && target.may_speak_h2())
        && let Some((stream, _)) = connection_reuse::reuse(&handler.gateway, target, state, false).await
    {
        return Ok((UpstreamConnection::H1(stream), true));
    }
    let connector = &handler.connector;
    let stream = if prefers_h2 { target.connect_any(connector).await } else { target.connect(connector).await }?;
    let Some(scheme) = target.agreed_on_h2(&stream) else { return Ok((UpstreamConnection::H1(stream), false)) };
    // of many requests that start together, one may have a connection by now that has room for this one
    if let Some(shared) = shared() {
        return Ok((shared, true));
    }
    Ok((UpstreamConnection::H2(SharedConnection::begin(pair, stream, scheme).await?), false))
}

/// The response, to its end.
async fn download(
    handler: &ConnectionHandler,
    forwarding: &Forwarding,
    client: &mut impl Downstream<Head = ResponseHeader>,
    mut source: ResponseSource,
    state: &mut RequestState,
    progress: &Progress,
) -> Result<ResponseSource, AttemptError> {
    let head = source.head(forwarding.request().parsed(), client).await?;
    progress.answered.store(true, Ordering::Relaxed);
    let (mut timer, response) = (Deadline::default(), (&mut source, head));
    let (client, upload_failed) = ((client, &mut timer), &progress.upload_failed);
    response_body::relay(handler, forwarding, client, response, state, upload_failed).await?;
    Ok(source)
}

/// Waits until the client has disconnected, once its body was read.
async fn disconnected(body: &mut Option<&mut impl RequestBody>) {
    match body {
        Some(body) => body.disconnected().await,
        None => std::future::pending().await,
    }
}

async fn send(sink: &mut RequestSink, part: Bytes, idle: Duration) -> Result<(), UploadError> {
    match timeout(idle, sink.data(part)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(UploadError::Server),
    }
}

/// The request's body, to its end, and those of its trailers that pass.
async fn upload<'b, U: RequestBody>(
    body: &'b mut U,
    mut sink: RequestSink,
    limits: &UploadLimits,
    passing: impl FnOnce(HeaderMap) -> Option<HeaderMap>,
    progress: &Progress,
) -> Result<(RequestSink, &'b mut U), UploadError> {
    // a body may have ended since without a byte: the end is still to be sent
    if limits.bodiless {
        return Ok((sink, body));
    }
    let slow = |_| UploadError::Client(Error::explain(ErrorType::ReadTimedout, "reading the body").into_down());
    let mut held = None;
    let complete = loop {
        let part = timeout(limits.idle, body.piece()).await.map_err(slow)?.map_err(UploadError::Client)?;
        let mut part = match part {
            Part::Data(part) => part,
            Part::End(complete) => break complete,
        };
        let length = part.len();
        let before = progress.sent.fetch_add(length, Ordering::Relaxed);
        if limits.body_max.is_some_and(|max| (before + length) as u64 > max) {
            let large = Error::explain(ErrorType::HTTPStatus(413), "body larger than body_max");
            return Err(UploadError::Client(large.into_down()));
        }
        if limits.holds_last {
            // a body that turns out too long was never whole for the server
            part = held.replace(part).unwrap_or_default();
        }
        send(&mut sink, part, limits.idle).await?;
    };
    let trailers = timeout(limits.idle, body.trailers()).await.map_err(slow)?.map_err(UploadError::Client)?;
    send(&mut sink, held.unwrap_or_default(), limits.idle).await?;
    // a server that has responded may have forgotten the stream: then Go ends the whole connection because of trailers
    let trailers = trailers.and_then(passing).filter(|_| !progress.answered.load(Ordering::Relaxed));
    match timeout(limits.idle, sink.end(complete, trailers)).await {
        Ok(Ok(())) => Ok((sink, body)),
        Ok(Err(_)) | Err(_) => Err(UploadError::Server),
    }
}
