//! The server's side of a streamed exchange: an HTTP/1.1 connection, or a stream of a shared HTTP/2 connection. Request and
//! response are separate halves, so that bodies pass in both directions at the same time.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use h2::{Reason, SendStream};
use http::{HeaderMap, Method, StatusCode, header};
use pingora_core::{Error, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf, ReadHalf, WriteHalf};
use tokio::time::timeout;

use super::attempt_error::{AttemptError, client_disconnected, truncated};
use super::downstream::{Downstream, WaitingClient};
use super::request_encoder::{self, Extra};
use super::response_head::{HeadSource, read_head};
use crate::policy::request_headers::Changes;
use crate::upstream::h1_pool;
use crate::upstream::h2_pool::{ResponseStream, SharedConnection};
use crate::wire::body::{Complete, Part};
use crate::wire::chunked;
use crate::wire::framed_body::{Cut, Framed};
use crate::wire::request_head::Head;
use crate::wire::response_head::{self, Answer, Framing};
use crate::wire::stream::Stream;

/// How long the end of a response without a body may take.
const LINGER: Duration = Duration::from_secs(1);
/// Bytes read of a response head at a time.
const READ_CHUNK: usize = 16 << 10;

/// A connection to a server.
pub(super) enum UpstreamConnection {
    H1(Stream),
    H2(SharedConnection),
}

/// Takes the request's body.
pub(super) enum RequestSink {
    H1 { stream: WriteHalf<Stream>, chunked: bool },
    H2(SendStream<Bytes>),
}

/// Gives the response.
pub(super) enum ResponseSource {
    H1 { body: Framed<Reader>, keeps: bool },
    H2(ResponseStream),
}

/// The reading side of an HTTP/1.1 connection: all of it where the whole request was sent before.
pub(super) enum Reader {
    Stream(Stream),
    Half(ReadHalf<Stream>),
}

impl AsyncRead for Reader {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Stream(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Half(half) => Pin::new(half).poll_read(cx, buf),
        }
    }
}

impl HeadSource for Reader {
    async fn read_more(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        buffer.reserve(READ_CHUNK);
        self.read_buf(buffer).await
    }
}

impl UpstreamConnection {
    /// Sends the head; `bodiless` says that nothing follows.
    pub(super) async fn begin(
        self,
        head: &Head,
        changes: Changes<'_>,
        (expects_continue, bodiless): (bool, bool),
    ) -> Result<(RequestSink, ResponseSource), AttemptError> {
        let failed =
            |e| AttemptError::NoResponse(Error::because(ErrorType::WriteError, "sending the head", e).into_up());
        match self {
            Self::H1(stream) => {
                let chunked = !bodiless && !head.parsed.headers.contains_key(header::CONTENT_LENGTH);
                let extra = Extra { chunked, expects_continue, upgrade: None };
                let bytes = request_encoder::http1(head, &changes, &extra, 0);
                drop(changes);
                let (read, mut stream) = tokio::io::split(stream);
                stream.write_all(&bytes).await.map_err(failed)?;
                stream.flush().await.map_err(failed)?;
                let body = Framed::new(Reader::Half(read), BytesMut::new(), Framing::Length(0));
                Ok((RequestSink::H1 { stream, chunked }, ResponseSource::H1 { body, keeps: false }))
            }
            Self::H2(shared) => {
                let bad = || Error::explain(ErrorType::InvalidHTTPHeader, "not a valid HTTP/2 request").into_in();
                let request = request_encoder::http2(&head.parsed, &changes, shared.scheme()).ok_or_else(bad)?;
                drop(changes);
                let (body, stream) = shared.open_stream(request, bodiless).await.map_err(AttemptError::NoResponse)?;
                Ok((RequestSink::H2(body), ResponseSource::H2(stream)))
            }
        }
    }
}

impl RequestSink {
    /// A piece of the body.
    pub(super) async fn data(&mut self, mut data: Bytes) -> Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        match self {
            Self::H1 { stream, chunked } => {
                if !*chunked {
                    return write(stream, &data).await;
                }
                let mut out = BytesMut::with_capacity(data.len() + 16);
                chunked::put(&data, &mut out);
                write(stream, &out).await
            }
            Self::H2(body) => {
                let closed =
                    || Error::explain(ErrorType::WriteError, "server stopped reading the request body").into_up();
                while data.has_remaining() {
                    body.reserve_capacity(data.len());
                    let Some(Ok(room)) = poll_fn(|cx| body.poll_capacity(cx)).await else { return Err(closed()) };
                    body.send_data(data.split_to(room.min(data.len())), false).map_err(|_| closed())?;
                }
                Ok(())
            }
        }
    }

    /// The end of a whole body. Trailers pass in HTTP/2 only.
    pub(super) async fn end(&mut self, _complete: Complete, trailers: Option<HeaderMap>) -> Result<()> {
        let failed = |e| Error::because(ErrorType::WriteError, "ending the body", e).into_up();
        match self {
            Self::H1 { stream, chunked: true } => write(stream, chunked::LAST).await,
            Self::H1 { .. } => Ok(()),
            Self::H2(body) => match trailers {
                Some(trailers) => body.send_trailers(trailers).map_err(failed),
                None => body.send_data(Bytes::new(), true).map_err(failed),
            },
        }
    }
}

async fn write(stream: &mut WriteHalf<Stream>, bytes: &[u8]) -> Result<()> {
    let failed = |e| Error::because(ErrorType::WriteError, "sending the body", e).into_up();
    stream.write_all(bytes).await.map_err(failed)?;
    stream.flush().await.map_err(failed)
}

impl ResponseSource {
    /// A response in HTTP/1.1 whose head was read. Takes the bytes after the head.
    pub(super) fn of_answer(connection: Stream, answer: &mut Answer) -> Self {
        let mut body = Framed::new(Reader::Stream(connection), BytesMut::new(), Framing::Length(0));
        body.begin(answer.take_rest(), answer.framing);
        Self::H1 { body, keeps: answer.keeps }
    }

    /// Waits for the head of the final response; the client gets interim ones (RFC 8297).
    pub(super) async fn head<D: Downstream<Head = ResponseHeader>>(
        &mut self,
        request: &RequestHeader,
        client: &mut D,
    ) -> Result<ResponseHeader, AttemptError> {
        match self {
            Self::H1 { body, keeps } => {
                let mut answer = read_head(&mut body.stream, request, client).await?;
                body.begin(answer.take_rest(), answer.framing);
                *keeps = answer.keeps;
                Ok(D::head_of(answer)?)
            }
            Self::H2(stream) => h2_head(stream, &request.method, client).await,
        }
    }

    /// Whether nothing follows what was read.
    pub(super) fn is_over(&self) -> bool {
        match self {
            Self::H1 { body, .. } => body.is_over(),
            Self::H2(stream) => stream.is_over(),
        }
    }

    /// The end, where nothing follows what was read, trailers included.
    pub(super) fn completed(&self) -> Option<Complete> {
        match self {
            Self::H1 { body, .. } => body.completed(),
            Self::H2(_) => None,
        }
    }

    /// Whether the end of the connection is the end of the body.
    pub(super) fn ends_with_connection(&self) -> bool {
        matches!(self, Self::H1 { body, .. } if body.ends_with_connection())
    }

    /// Whether the head says that no body follows; an empty frame may.
    pub(super) fn is_bodiless(&self) -> bool {
        matches!(self, Self::H2(stream) if stream.ends_with_head)
    }

    /// The next piece of the body as far as it was read, or the end; `None`: more has to be read.
    pub(super) fn buffered(&mut self) -> Result<Option<Part>> {
        match self {
            Self::H1 { body, .. } => body.buffered().map_err(cut_off),
            Self::H2(_) => Ok(None),
        }
    }

    /// The next piece of the body.
    pub(super) async fn data(&mut self) -> Result<Part> {
        match self {
            Self::H1 { body, .. } => body.piece().await.map_err(cut_off),
            Self::H2(stream) => {
                let bodiless = stream.bodiless;
                let Some(body) = stream.body() else { return Err(truncated()) };
                // a reset is an error, not the end
                let Some(data) = poll_fn(|cx| body.poll_piece(cx)).await else {
                    return Ok(Part::End(Complete::by_framing()));
                };
                let failed = |e| Error::because(ErrorType::ReadError, "reading the response", e).into_up();
                let data = data.map_err(failed)?;
                if bodiless {
                    // on a connection that is kept the client would take it for the next response (CWE-444)
                    return Err(Error::explain(ErrorType::InvalidHTTPHeader, "unexpected response body").into_up());
                }
                Ok(Part::Data(data))
            }
        }
    }

    /// Waits for the end of a response without a body, where the end is a frame of its own. Errors do not matter here (a 304 whose
    /// length does not follow, data where there must be none): no one gets what follows.
    pub(super) async fn drain(&mut self) {
        if self.is_over() {
            return;
        }
        let rest = async { while !self.is_over() && matches!(self.data().await, Ok(Part::Data(_))) {} };
        let _ = timeout(LINGER, rest).await;
    }

    /// Does other work, and meanwhile takes what arrives on a stream of a shared connection: it must not block the others. The
    /// work is pinned by the caller: moved in here, it would be stored three times, in each connection.
    pub(super) async fn meanwhile<T>(&mut self, work: Pin<&mut impl Future<Output = T>>) -> T {
        match self {
            Self::H1 { .. } => work.await,
            Self::H2(stream) => stream.meanwhile(work).await,
        }
    }

    /// The trailers, after the body.
    pub(super) async fn trailers(&mut self) -> Result<Option<HeaderMap>> {
        let Self::H2(stream) = self else { return Ok(None) };
        let Some(body) = stream.body() else { return Ok(None) };
        match poll_fn(|cx| body.poll_trailers(cx)).await {
            Ok(trailers) => Ok(trailers),
            // the server needs no more of the request (RFC 9113, 8.1): the response is whole
            Err(e) if e.reason() == Some(Reason::NO_ERROR) => Ok(None),
            Err(e) => Err(Error::because(ErrorType::ReadError, "reading the trailers", e).into_up()),
        }
    }

    /// The connection after a 101, and the bytes that were read behind that.
    pub(super) fn into_switched(self) -> Option<(Stream, BytesMut)> {
        match self {
            Self::H1 { body: Framed { stream: Reader::Stream(stream), buffer, .. }, .. } => Some((stream, buffer)),
            Self::H1 { .. } | Self::H2(_) => None,
        }
    }

    /// The connection, where it was read to the end of the response and may be used again. `sink` is its writing side, unless this
    /// is all of it.
    pub(super) fn reusable(self, sink: Option<RequestSink>) -> Result<Option<Stream>, h1_pool::Surplus> {
        let Self::H1 { body, keeps: true } = self else { return Ok(None) };
        if !body.is_over() {
            return Ok(None);
        }
        if !body.buffer.is_empty() {
            return Err(h1_pool::Surplus);
        }
        Ok(match (body.stream, sink) {
            (Reader::Stream(stream), _) => Some(stream),
            (Reader::Half(read), Some(RequestSink::H1 { stream, .. })) => Some(read.unsplit(stream)),
            (Reader::Half(_), _) => None,
        })
    }
}

#[expect(clippy::unnecessary_box_returns, reason = "pingora's errors are boxed")]
fn cut_off(cut: Cut) -> Box<Error> {
    match cut {
        Cut::Malformed => Error::explain(ErrorType::InvalidHTTPHeader, "bad chunk").into_up(),
        Cut::Ended => truncated(),
        Cut::Failed(e) => Error::because(ErrorType::ReadError, "reading the response", e).into_up(),
    }
}

async fn h2_head(
    stream: &mut ResponseStream,
    method: &Method,
    client: &mut impl WaitingClient,
) -> Result<ResponseHeader, AttemptError> {
    let Some(answer) = stream.answer.take() else { return Err(truncated().into()) };
    let answer = tokio::select! {
        biased;
        answer = answer => answer,
        () = client.disconnected() => return Err(client_disconnected().into()),
    };
    let (parts, rest) = answer.map_err(no_response_on_stream)?.into_parts();
    stream.answered(rest);
    let mut head = ResponseHeader::from(parts);
    merge_lengths(&mut head);
    // the length may be forwarded in HTTP/1.1
    let framing = response_head::framing(&head, method)?;
    stream.bodiless = framing == Framing::Length(0);
    let status_ends = matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    stream.ends_with_head = status_ends || *method == Method::HEAD;
    Ok(head)
}

/// Equal lengths become one (RFC 9110, 8.6). Different ones remain, and are rejected.
fn merge_lengths(head: &mut ResponseHeader) {
    let mut lengths = head.headers.get_all(header::CONTENT_LENGTH).iter();
    if let (Some(first), Some(second)) = (lengths.next(), lengths.next())
        && first == second
        && lengths.all(|other| other == first)
    {
        let first = first.clone();
        let _ = head.insert_header(header::CONTENT_LENGTH, first);
    }
}

/// A stream that was refused, or is behind the last one in a GOAWAY of the server, was not processed (RFC 9113, 6.8 and 8.7).
fn no_response_on_stream(e: h2::Error) -> AttemptError {
    let unprocessed = e.is_remote() && (e.is_go_away() || e.reason() == Some(Reason::REFUSED_STREAM));
    let ended = e.is_io() || e.is_go_away();
    let error = Error::because(ErrorType::ReadError, "no response", e).into_up();
    match (unprocessed, ended) {
        (true, _) => AttemptError::NotProcessed(error),
        (false, true) => AttemptError::NoResponse(error),
        (false, false) => AttemptError::Final(error),
    }
}
