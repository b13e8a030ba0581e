//! The servers: each does what the plan of the request says, and looks whether the request that it got is whole.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::Faults;
use super::plan::{Answers, Arrived, Cut, Framing, Plan, bytes};
use crate::h2::serve;
use crate::tls::Authority;

/// One of each kind: HTTP/1.1, the same over TLS, h2c, and HTTP/2 over TLS.
pub fn start(seed: u64, authority: &Authority, faults: &Faults) -> [String; 4] {
    let (only_http1, both) = (authority.acceptor(&["http/1.1"]), authority.acceptor(&["h2", "http/1.1"]));
    let context = || Arc::new(Context { seed, faults: faults.clone() });
    let contexts = [context(), context(), context(), context()];
    let [plain, tls, h2c, h2] = contexts;
    let plain = serve(move |stream| {
        let context = plain.clone();
        async move { http1(stream, None, &context).await }
    });
    let tls = serve(move |stream| {
        let (context, acceptor) = (tls.clone(), only_http1.clone());
        async move { http1(stream, Some(acceptor), &context).await }
    });
    let h2c = serve(move |stream| {
        let context = h2c.clone();
        async move { http2(stream, context).await }
    });
    let h2 = serve(move |stream| {
        let (context, acceptor) = (h2.clone(), both.clone());
        async move {
            let raw = Raw::of(&stream);
            let Ok(stream) = acceptor.accept(stream).await else { return };
            if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                http2(stream, context).await;
            } else {
                exchanges(stream, raw, &context).await;
            }
        }
    });
    [
        format!("http://{plain}"),
        format!("https://localhost:{}", tls.port()),
        format!("h2c://{h2c}"),
        format!("https://localhost:{}", h2.port()),
    ]
}

struct Context {
    seed: u64,
    faults: Faults,
}

impl Context {
    fn plan(&self, id: Option<&str>) -> Option<Plan> {
        id.and_then(|id| id.parse().ok()).map(|id| Plan::new(self.seed, id))
    }

    /// What a whole request must be.
    fn whole(&self, plan: &Plan, body: &Arrived) {
        let length = plan.up.as_ref().map_or(0, |up| up.length);
        if plan.leaves_up.is_some() {
            self.faults.add(plan, "a server took for whole what its client broke off");
        } else if !body.is(length) {
            self.faults.add(plan, format!("a server got {} bytes, wrong: {}", body.length, body.wrong));
        }
    }
}

/// A descriptor of the socket beneath, to reset it.
struct Raw(std::net::TcpStream);

impl Raw {
    fn of(stream: &TcpStream) -> Self {
        use std::os::fd::AsFd as _;
        Self(stream.as_fd().try_clone_to_owned().unwrap().into())
    }

    /// The connection ends in a reset as soon as all is dropped.
    fn abort(&self) {
        SockRef::from(&self.0).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

async fn http1(stream: TcpStream, acceptor: Option<tokio_rustls::TlsAcceptor>, context: &Context) {
    let raw = Raw::of(&stream);
    match acceptor {
        None => exchanges(stream, raw, context).await,
        Some(acceptor) => {
            if let Ok(stream) = acceptor.accept(stream).await {
                exchanges(stream, raw, context).await;
            }
        }
    }
}

async fn rest(rests: bool) {
    if rests {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// One after the other, until something breaks.
async fn exchanges(mut stream: impl AsyncRead + AsyncWrite + Unpin, raw: Raw, context: &Context) {
    let mut buffer = Vec::new();
    while exchange(&mut stream, &mut buffer, &raw, context).await.is_some() {}
}

/// `None` where the connection is not used again.
async fn exchange(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    buffer: &mut Vec<u8>,
    raw: &Raw,
    context: &Context,
) -> Option<()> {
    let head = loop {
        if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8(buffer.drain(..end + 4).collect()).unwrap().to_ascii_lowercase();
            break head;
        }
        more(stream, buffer).await?;
    };
    let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let plan = context.plan(field("x-plan"))?;
    let framing = match field("content-length") {
        Some(length) => Upload::Length(length.parse().unwrap()),
        None if field("transfer-encoding").is_some() => Upload::Chunked,
        None => Upload::Length(0),
    };
    if plan.answers == Answers::AtTheEnd {
        let body = framing.read(stream, buffer, plan.id).await?;
        context.whole(&plan, &body);
    }
    let keeps = answer(stream, &plan).await;
    match keeps {
        None => {
            raw.abort();
            return None;
        }
        Some(false) => {
            let _ = stream.shutdown().await;
            return None;
        }
        Some(true) => {}
    }
    match plan.answers {
        Answers::AtTheEnd => {}
        Answers::Early => {
            let body = framing.read(stream, buffer, plan.id).await?;
            context.whole(&plan, &body);
        }
        Answers::EarlyAndLeaves => {
            let _ = stream.shutdown().await;
            return None;
        }
    }
    Some(())
}

enum Upload {
    Length(usize),
    Chunked,
}

impl Upload {
    /// `None` where it breaks off.
    async fn read(&self, stream: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>, id: u64) -> Option<Arrived> {
        let mut body = Arrived::default();
        match self {
            Self::Length(length) => take(stream, buffer, *length, id, &mut body).await?,
            Self::Chunked => loop {
                let size = line(stream, buffer).await?;
                let size = usize::from_str_radix(&size, 16).ok()?;
                take(stream, buffer, size, id, &mut body).await?;
                line(stream, buffer).await?;
                if size == 0 {
                    break;
                }
            },
        }
        Some(body)
    }
}

async fn more(stream: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> Option<()> {
    matches!(stream.read_buf(buffer).await, Ok(1..)).then_some(())
}

async fn line(stream: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(end) = buffer.windows(2).position(|two| two == b"\r\n") {
            return String::from_utf8(buffer.drain(..end + 2).take(end).collect()).ok();
        }
        more(stream, buffer).await?;
    }
}

async fn take(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
    mut length: usize,
    id: u64,
    body: &mut Arrived,
) -> Option<()> {
    while length > 0 {
        if buffer.is_empty() {
            more(stream, buffer).await?;
        }
        let taken = length.min(buffer.len());
        body.take(id, &buffer[..taken]);
        buffer.drain(..taken);
        length -= taken;
    }
    Some(())
}

/// Whether the connection may be used again; `None`: it is to be reset.
async fn answer(stream: &mut (impl AsyncWrite + Unpin), plan: &Plan) -> Option<bool> {
    for at in 0..plan.interims {
        let hints = format!("HTTP/1.1 103 Early Hints\r\nLink: </{at}>; rel=preload\r\n\r\n");
        stream.write_all(hints.as_bytes()).await.ok()?;
        stream.flush().await.ok()?;
    }
    if plan.cut == Some(Cut::BeforeHead) {
        return None;
    }
    let mut head = format!("HTTP/1.1 {} X\r\nX-Plan: {}\r\n", plan.status, plan.id);
    match plan.framing {
        Framing::Length if plan.status != 204 => write!(head, "Content-Length: {}\r\n", plan.down.length).unwrap(),
        Framing::Chunked if !plan.has_no_answer_body() => head += "Transfer-Encoding: chunked\r\n",
        _ => {}
    }
    let closes = plan.framing == Framing::Close || plan.answers == Answers::EarlyAndLeaves;
    head += if closes { "Connection: close\r\n\r\n" } else { "\r\n" };
    let mut out = head.into_bytes();
    let mut sent = 0;
    let pieces = if plan.has_no_answer_body() { &[][..] } else { &plan.down.pieces };
    for &(length, rests) in pieces {
        let cut = plan.cut_after().filter(|cut| sent + length > *cut);
        let data = bytes(plan.id, sent, cut.map_or(length, |cut| cut - sent));
        sent += data.len();
        if plan.framing == Framing::Chunked && !data.is_empty() {
            out.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
            out.extend_from_slice(&data);
            out.extend_from_slice(b"\r\n");
        } else {
            out.extend_from_slice(&data);
        }
        if rests || cut.is_some() || out.len() > 16_384 {
            stream.write_all(&std::mem::take(&mut out)).await.ok()?;
            stream.flush().await.ok()?;
            rest(rests).await;
        }
        if cut.is_some() {
            return None;
        }
    }
    if plan.framing == Framing::Chunked && !plan.has_no_answer_body() {
        if plan.ends_apart {
            stream.write_all(&std::mem::take(&mut out)).await.ok()?;
            stream.flush().await.ok()?;
            rest(true).await;
        }
        let trailers = if plan.down_trailers { "X-End: 1\r\n" } else { "" };
        out.extend_from_slice(format!("0\r\n{trailers}\r\n").as_bytes());
    }
    stream.write_all(&out).await.ok()?;
    stream.flush().await.ok()?;
    Some(!closes)
}

async fn http2(stream: impl AsyncRead + AsyncWrite + Unpin, context: Arc<Context>) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let context = context.clone();
        tokio::spawn(async move {
            let _ = stream_of(request, respond, &context).await;
        });
    }
}

async fn stream_of(
    request: Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    context: &Context,
) -> Result<(), h2::Error> {
    let (parts, mut body) = request.into_parts();
    let Some(plan) = context.plan(parts.headers.get("x-plan").and_then(|id| id.to_str().ok())) else { return Ok(()) };
    if plan.answers == Answers::AtTheEnd {
        read(&mut body, &plan, context).await?;
    }
    for at in 0..plan.interims {
        let hints = Response::builder().status(103).header("link", format!("</{at}>; rel=preload"));
        respond.send_informational(hints.body(()).unwrap())?;
    }
    if plan.cut == Some(Cut::BeforeHead) {
        respond.send_reset(h2::Reason::INTERNAL_ERROR);
        return Ok(());
    }
    let mut head = Response::builder().status(plan.status).header("x-plan", plan.id);
    if plan.framing == Framing::Length && plan.status != 204 {
        head = head.header("content-length", plan.down.length);
    }
    let none = plan.has_no_answer_body() || (plan.down.length == 0 && !plan.ends_apart && !plan.down_trailers);
    let mut down = respond.send_response(head.body(()).unwrap(), none)?;
    if !none {
        let mut sent = 0;
        let last = plan.down.pieces.len();
        for (at, &(length, rests)) in plan.down.pieces.iter().enumerate() {
            let cut = plan.cut_after().filter(|cut| sent + length > *cut);
            let mut data = Bytes::from(bytes(plan.id, sent, cut.map_or(length, |cut| cut - sent)));
            sent += data.len();
            let ends = at + 1 == last && !plan.ends_apart && !plan.down_trailers;
            while !data.is_empty() {
                down.reserve_capacity(data.len());
                let Some(Ok(room)) = std::future::poll_fn(|cx| down.poll_capacity(cx)).await else { return Ok(()) };
                let part = data.split_to(room.min(data.len()));
                down.send_data(part, ends && data.is_empty() && cut.is_none())?;
            }
            if cut.is_some() {
                rest(rests).await;
                down.send_reset(h2::Reason::INTERNAL_ERROR);
                return Ok(());
            }
            rest(rests).await;
        }
        if plan.down_trailers {
            down.send_trailers([("x-end".parse().unwrap(), plan.id.into())].into_iter().collect())?;
        } else if plan.ends_apart {
            down.send_data(Bytes::new(), true)?;
        }
    }
    if plan.answers == Answers::Early {
        read(&mut body, &plan, context).await?;
    }
    Ok(())
}

async fn read(body: &mut h2::RecvStream, plan: &Plan, context: &Context) -> Result<(), h2::Error> {
    let mut arrived = Arrived::default();
    while let Some(data) = body.data().await {
        let data = data?;
        let _ = body.flow_control().release_capacity(data.len());
        arrived.take(plan.id, &data);
    }
    body.trailers().await?;
    context.whole(plan, &arrived);
    Ok(())
}
