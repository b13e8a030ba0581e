//! The server's end of a stream's request: a connection of its own in HTTP/1.1, or a stream of a shared one in
//! HTTP/2. Both are written and read apart from each other, so that bodies pass both ways at once.

use std::future::{Future, poll_fn};
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use h2::{Reason, SendStream};
use http::{HeaderMap, Method, StatusCode, header};
use pingora_core::{Error, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use tokio::io::{AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::time::timeout;

use super::downstream::Download;
use crate::proxy::attempt::count_interim;
use crate::upstream::h1_pool;
use crate::upstream::h2_pool::{ResponseStream, Shared};
use crate::wire::body::{Complete, Part};
use crate::wire::framed_body::{Cut, Framed};
use crate::wire::hop_by_hop::is_hop_by_hop_name;
use crate::wire::response_head::{self, Framing};
use crate::wire::response_view::ResponseHeadView as _;
use crate::wire::stream::Stream;
use crate::wire::{chunked, request_target};

/// How long the end of an answer without a body may take.
const LINGER: Duration = Duration::from_secs(1);

/// Why a try came to nothing.
pub(super) enum AttemptError {
    /// The connection ended before a byte of an answer.
    NoResponse(Box<Error>),
    /// The server says that it has not looked at the request.
    NotProcessed(Box<Error>),
    Other(Box<Error>),
}

/// A server that can be asked.
pub(super) enum Server {
    Own(Stream),
    Shared(Shared),
}

/// What the request's body goes into.
pub(super) enum Sink {
    Own { stream: WriteHalf<Stream>, chunked: bool },
    Shared(SendStream<Bytes>),
}

/// What the answer comes from.
pub(super) enum Source {
    Own { body: Framed<ReadHalf<Stream>>, keeps: bool },
    Shared(ResponseStream),
}

impl Server {
    /// Sends the head; `bodiless` says that nothing follows.
    pub(super) async fn begin(self, head: &RequestHeader, bodiless: bool) -> Result<(Sink, Source)> {
        match self {
            Self::Own(stream) => {
                let (read, mut write) = tokio::io::split(stream);
                let (bytes, chunked) = head_bytes(head, bodiless);
                let failed = |e| Error::because(ErrorType::WriteError, "sending the head", e).into_up();
                write.write_all(&bytes).await.map_err(failed)?;
                write.flush().await.map_err(failed)?;
                let body = Framed::new(read, BytesMut::new(), Framing::Length(0));
                Ok((Sink::Own { stream: write, chunked }, Source::Own { body, keeps: false }))
            }
            Self::Shared(shared) => {
                let bad = || Error::explain(ErrorType::InvalidHTTPHeader, "not a valid HTTP/2 request").into_in();
                let request = request_h2(head, shared.scheme()).ok_or_else(bad)?;
                let (body, stream) = shared.ask(request, bodiless).await?;
                Ok((Sink::Shared(body), Source::Shared(stream)))
            }
        }
    }
}

/// A length that is said twice is said once (RFC 9110, 8.6); two that differ stay, to be refused.
fn say_length_once(head: &mut ResponseHeader) {
    let mut lengths = head.headers.get_all(header::CONTENT_LENGTH).iter();
    if let (Some(first), Some(second)) = (lengths.next(), lengths.next())
        && first == second
        && lengths.all(|other| other == first)
    {
        let first = first.clone();
        let _ = head.insert_header(header::CONTENT_LENGTH, first);
    }
}

/// The head in HTTP/2.
fn request_h2(head: &RequestHeader, scheme: &str) -> Option<http::Request<()>> {
    let host = head.headers.get(header::HOST)?.to_str().ok()?;
    let target = request_target::in_h2(request_target::of(head));
    let uri = http::Uri::builder().scheme(scheme).authority(host).path_and_query(target).build().ok()?;
    let mut request = http::Request::builder().method(head.method.clone()).uri(uri).body(()).ok()?;
    *request.version_mut() = http::Version::HTTP_2;
    for (name, value) in &head.headers {
        // the one thing that `TE` may say here (RFC 9113, 8.2.2)
        let told = *name == header::TE && value == "trailers";
        if told || !(is_hop_by_hop_name(name) || matches!(*name, header::HOST | header::EXPECT)) {
            request.headers_mut().append(name.clone(), value.clone());
        }
    }
    Some(request)
}

/// The head in HTTP/1.1, and whether the body is to be chunked.
fn head_bytes(head: &RequestHeader, bodiless: bool) -> (BytesMut, bool) {
    let mut out = BytesMut::with_capacity(2048);
    out.put_slice(head.method.as_str().as_bytes());
    out.put_u8(b' ');
    out.put_slice(request_target::of(head));
    out.put_slice(b" HTTP/1.1\r\n");
    for (name, value) in head.headers.iter().filter(|(name, _)| !is_hop_by_hop_name(name)) {
        out.put_slice(name.as_str().as_bytes());
        out.put_slice(b": ");
        out.put_slice(value.as_bytes());
        out.put_slice(b"\r\n");
    }
    let told = head.headers.contains_key(header::CONTENT_LENGTH);
    let chunked = !bodiless && !told;
    if chunked {
        out.put_slice(b"transfer-encoding: chunked\r\n");
    } else if !told && !matches!(head.method, Method::GET | Method::HEAD | Method::OPTIONS | Method::DELETE) {
        out.put_slice(b"content-length: 0\r\n");
    }
    out.put_slice(b"\r\n");
    (out, chunked)
}

impl Sink {
    /// A piece of the body.
    pub(super) async fn data(&mut self, mut data: Bytes) -> Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        match self {
            Self::Own { stream, chunked } => {
                if !*chunked {
                    return write(stream, &data).await;
                }
                let mut out = BytesMut::with_capacity(data.len() + 16);
                chunked::put(&data, &mut out);
                write(stream, &out).await
            }
            Self::Shared(body) => {
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

    /// The end of a whole body; trailers pass in HTTP/2 alone.
    pub(super) async fn end(&mut self, _whole: Complete, trailers: Option<HeaderMap>) -> Result<()> {
        let failed = |e| Error::because(ErrorType::WriteError, "ending the body", e).into_up();
        match self {
            Self::Own { stream, chunked: true } => write(stream, chunked::LAST).await,
            Self::Own { .. } => Ok(()),
            Self::Shared(body) => match trailers {
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

impl Source {
    /// Waits for the head of the final answer; the client is told of interim ones on the way (RFC 8297).
    pub(super) async fn head(
        &mut self,
        method: &Method,
        client: &mut impl Download,
    ) -> Result<ResponseHeader, AttemptError> {
        match self {
            Self::Own { body, keeps } => {
                let mut answer = own_head(body, method, client).await?;
                body.begin(answer.take_rest(), answer.framing);
                *keeps = answer.keeps;
                answer.head.to_map().map_err(|e| AttemptError::Other(e.into_up()))
            }
            Self::Shared(stream) => {
                let Some(answer) = stream.answer.take() else { return Err(AttemptError::Other(cut_off())) };
                let answer = tokio::select! {
                    biased;
                    answer = answer => answer,
                    () = client.gone() => return Err(AttemptError::Other(gone())),
                };
                let (parts, rest) = answer.map_err(broken_stream)?.into_parts();
                stream.answered(rest);
                let mut head = ResponseHeader::from(parts);
                say_length_once(&mut head);
                // what it says of its length may be written on in HTTP/1.1
                let framing = response_head::framing(&head, method).map_err(|e| AttemptError::Other(e.into_up()))?;
                stream.bodiless = framing == Framing::Length(0);
                let status_ends = matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
                stream.ends_with_head = status_ends || *method == Method::HEAD;
                Ok(head)
            }
        }
    }

    /// Whether nothing follows what was read.
    pub(super) fn is_over(&self) -> bool {
        match self {
            Self::Own { body, .. } => body.is_over(),
            Self::Shared(stream) => stream.is_over(),
        }
    }

    /// Whether the end of the connection is the end of the body.
    pub(super) fn ends_with_connection(&self) -> bool {
        matches!(self, Self::Own { body, .. } if body.ends_with_connection())
    }

    /// Whether its head says that no body follows; an empty frame may.
    pub(super) fn is_bodiless(&self) -> bool {
        matches!(self, Self::Shared(stream) if stream.ends_with_head)
    }

    /// The next piece of the body.
    pub(super) async fn data(&mut self) -> Result<Part> {
        match self {
            Self::Own { body, .. } => body.piece().await.map_err(|cut| match cut {
                Cut::Malformed => Error::explain(ErrorType::InvalidHTTPHeader, "bad chunk").into_up(),
                Cut::Ended => cut_off(),
                Cut::Failed(e) => Error::because(ErrorType::ReadError, "reading the response", e).into_up(),
            }),
            Self::Shared(stream) => {
                let bodiless = stream.bodiless;
                let Some(body) = stream.body() else { return Err(cut_off()) };
                // at a reset there is an error, not nothing
                let Some(data) = poll_fn(|cx| body.poll_piece(cx)).await else {
                    return Ok(Part::End(Complete::by_framing()));
                };
                let failed = |e| Error::because(ErrorType::ReadError, "reading the response", e).into_up();
                let data = data.map_err(failed)?;
                if bodiless {
                    // whoever keeps the client's connection would take them for the next answer (CWE-444)
                    return Err(Error::explain(ErrorType::InvalidHTTPHeader, "unexpected response body").into_up());
                }
                Ok(Part::Data(data))
            }
        }
    }

    /// Lets the end of an answer without a body come, where it comes in a frame of its own. What the library says of a 304
    /// whose length does not follow, or a server sends where nothing may stand, is of no consequence: nobody gets it.
    pub(super) async fn let_end(&mut self) {
        let rest = async { while !self.is_over() && matches!(self.data().await, Ok(Part::Data(_))) {} };
        let _ = timeout(LINGER, rest).await;
    }

    /// Does something else; what comes of a shared connection's stream meanwhile holds up no other.
    pub(super) async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> T {
        match self {
            Self::Own { .. } => work.await,
            Self::Shared(stream) => stream.meanwhile(work).await,
        }
    }

    /// What stands behind the body.
    pub(super) async fn trailers(&mut self) -> Result<Option<HeaderMap>> {
        let Self::Shared(stream) = self else { return Ok(None) };
        let Some(body) = stream.body() else { return Ok(None) };
        match poll_fn(|cx| body.poll_trailers(cx)).await {
            Ok(trailers) => Ok(trailers),
            // the server wants no more of the request (RFC 9113, 8.1): the answer is whole
            Err(e) if e.reason() == Some(Reason::NO_ERROR) => Ok(None),
            Err(e) => Err(Error::because(ErrorType::ReadError, "reading the trailers", e).into_up()),
        }
    }
}

/// A connection of its own whose answer was read to its end, where it may be used again.
pub(super) fn kept(sink: Sink, source: Source) -> Result<Option<Stream>, h1_pool::Surplus> {
    match (sink, source) {
        (Sink::Own { stream: write, .. }, Source::Own { body, keeps: true }) if body.is_over() => {
            if body.buffer.is_empty() { Ok(Some(body.stream.unsplit(write))) } else { Err(h1_pool::Surplus) }
        }
        _ => Ok(None),
    }
}

async fn own_head(
    body: &mut Framed<ReadHalf<Stream>>,
    method: &Method,
    client: &mut impl Download,
) -> Result<response_head::Answer, AttemptError> {
    let (mut begun, mut interims, mut seen) = (false, 0, 0);
    loop {
        match response_head::read(&mut body.buffer, method, seen).map_err(|e| AttemptError::Other(e.into_up()))? {
            Some(mut told)
                if told.head.status().is_informational() && told.head.status() != StatusCode::SWITCHING_PROTOCOLS =>
            {
                count_interim(&mut interims).map_err(AttemptError::Other)?;
                if matches!(told.head.status(), StatusCode::CONTINUE | StatusCode::EARLY_HINTS) {
                    let fields = told.head.to_map().map_err(|e| AttemptError::Other(e.into_up()))?;
                    client.inform(told.head.status(), &fields.headers).await;
                }
                (body.buffer, seen) = (told.take_rest(), 0);
                continue;
            }
            Some(answer) => return Ok(answer),
            None => seen = body.buffer.len(),
        }
        let read = tokio::select! {
            biased;
            read = body.read() => read,
            () = client.gone() => return Err(AttemptError::Other(gone())),
        };
        let broken = |e| if begun { AttemptError::Other(e) } else { AttemptError::NoResponse(e) };
        match read {
            Ok(0) => return Err(broken(Error::explain(ErrorType::ConnectionClosed, "no response").into_up())),
            Ok(_) => begun = true,
            Err(e) => return Err(broken(Error::because(ErrorType::ReadError, "no response", e).into_up())),
        }
    }
}

/// A stream that was not begun may be begun anew (RFC 9113, 6.8 and 8.7): one that was refused, or comes behind the last
/// one that a GOAWAY of the server's names.
fn broken_stream(e: h2::Error) -> AttemptError {
    let unseen = e.is_remote() && (e.is_go_away() || e.reason() == Some(Reason::REFUSED_STREAM));
    let silent = e.is_io() || e.is_go_away();
    let error = Error::because(ErrorType::ReadError, "no response", e).into_up();
    match (unseen, silent) {
        (true, _) => AttemptError::NotProcessed(error),
        (false, true) => AttemptError::NoResponse(error),
        (false, false) => AttemptError::Other(error),
    }
}

#[expect(clippy::unnecessary_box_returns, reason = "pingora's errors are boxed")]
pub(super) fn cut_off() -> Box<Error> {
    Error::explain(ErrorType::ConnectionClosed, "response cut off").into_up()
}

#[expect(clippy::unnecessary_box_returns, reason = "pingora's errors are boxed")]
pub(super) fn gone() -> Box<Error> {
    Error::explain(ErrorType::ConnectionClosed, "client disconnected").into_down()
}
