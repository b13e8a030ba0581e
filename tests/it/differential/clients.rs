//! The clients: each does what the plan says, and tells what it has seen by its protocol's own measure.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Request};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::plan::{Arrived, Plan, bytes};
use super::{Seen, Speaks};

trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for S {}

/// One client, with the connection that it keeps.
pub struct Client {
    speaks: Speaks,
    address: SocketAddr,
    tls: Option<Arc<rustls::ClientConfig>>,
    http1: Option<Http1>,
    http2: Option<SendRequest<Bytes>>,
}

impl Client {
    pub fn new(speaks: Speaks, address: SocketAddr, tls: Option<Arc<rustls::ClientConfig>>) -> Self {
        Self { speaks, address, tls, http1: None, http2: None }
    }

    /// Begins anew.
    pub fn forget(&mut self) {
        (self.http1, self.http2) = (None, None);
    }

    async fn connect(&self) -> Box<dyn Stream> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        match &self.tls {
            None => Box::new(stream),
            Some(tls) => {
                let name = "a.example.com".try_into().unwrap();
                Box::new(TlsConnector::from(tls.clone()).connect(name, stream).await.unwrap())
            }
        }
    }

    pub async fn exchange(&mut self, plan: &Plan) -> Seen {
        if self.speaks == Speaks::Http2 {
            let mut send = match self.http2.take() {
                Some(send) => send,
                None => self.begin().await,
            };
            // a connection that has ended meanwhile
            send = match send.ready().await {
                Ok(send) => send,
                Err(_) => self.begin().await,
            };
            self.http2 = Some(send.clone());
            return http2(send, plan).await.unwrap_or_else(|e| Seen::Broken(e.to_string()));
        }
        let kept = self.http1.take();
        let is_kept = kept.is_some();
        let http1 = match kept {
            Some(http1) => http1,
            None => Http1::new(self.connect().await),
        };
        let (seen, http1) = http1.exchange(plan).await;
        self.http1 = http1;
        match seen {
            // it was closed before it was used again: what every client has to bear
            Seen::Broken(how) if is_kept && how == CLOSED => Box::pin(self.exchange(plan)).await,
            seen => seen,
        }
    }

    async fn begin(&self) -> SendRequest<Bytes> {
        let (send, connection) = h2::client::handshake(self.connect().await).await.unwrap();
        tokio::spawn(connection);
        send.ready().await.unwrap()
    }
}

const CLOSED: &str = "closed before a byte of an answer";

/// A connection in HTTP/1.1.
struct Http1 {
    read: ReadHalf<Box<dyn Stream>>,
    write: WriteHalf<Box<dyn Stream>>,
    buffer: Vec<u8>,
}

/// How far an upload has come.
#[derive(PartialEq, Eq)]
enum Sent {
    Whole,
    Left,
    Failed,
}

impl Http1 {
    fn new(stream: Box<dyn Stream>) -> Self {
        let (read, write) = tokio::io::split(stream);
        Self { read, write, buffer: Vec::new() }
    }

    /// What came of it, and the connection where another exchange may follow.
    async fn exchange(self, plan: &Plan) -> (Seen, Option<Self>) {
        let Self { read, write, buffer } = self;
        let (mut incoming, mut write) = (Incoming { read, buffer }, write);
        let (seen, sent) = {
            let mut reading = std::pin::pin!(incoming.answer(plan));
            let mut writing = std::pin::pin!(send(&mut write, plan));
            let (mut seen, mut sent) = (None, None);
            loop {
                tokio::select! {
                    biased;
                    result = &mut reading, if seen.is_none() => seen = Some(result),
                    result = &mut writing, if sent.is_none() => sent = Some(result),
                }
                match (&seen, &sent) {
                    (_, Some(Sent::Left)) => return (Seen::Broken("left".to_owned()), None),
                    // an answer that has overtaken its request may be the last word
                    (Some(Err(_) | Ok((_, false))), _) | (Some(_), Some(_)) => break,
                    _ => {}
                }
            }
            (seen.unwrap_or_else(|| Err("nothing".to_owned())), sent)
        };
        match seen {
            Ok((seen, keeps)) => {
                let kept = Self { read: incoming.read, write, buffer: incoming.buffer };
                (seen, (keeps && sent == Some(Sent::Whole)).then_some(kept))
            }
            Err(how) => (Seen::Broken(how), None),
        }
    }
}

async fn send(write: &mut WriteHalf<Box<dyn Stream>>, plan: &Plan) -> Sent {
    let mut head =
        format!("{} {} HTTP/1.1\r\nHost: a.example.com\r\nX-Plan: {}\r\n", plan.method, plan.path(), plan.id);
    let chunked = plan.up.is_some() && !plan.up_declared;
    match &plan.up {
        Some(_) if chunked => head += "Transfer-Encoding: chunked\r\n",
        Some(body) => write!(head, "Content-Length: {}\r\n", body.length).unwrap(),
        None => {}
    }
    head += "\r\n";
    let result = async {
        // heads are cut now and then, too
        let cut = head.len() * usize::from(plan.id.is_multiple_of(3)) / 2;
        write.write_all(&head.as_bytes()[..cut]).await?;
        write.flush().await?;
        write.write_all(&head.as_bytes()[cut..]).await?;
        let mut sent = 0;
        for &(length, rests) in plan.up.iter().flat_map(|body| &body.pieces) {
            let leaves = plan.leaves_up.filter(|leaves| sent + length > *leaves);
            let length = leaves.map_or(length, |leaves| leaves - sent);
            let data = bytes(plan.id, sent, length);
            if chunked && length > 0 {
                let chunk = [format!("{length:x}\r\n").as_bytes(), &data, b"\r\n"].concat();
                write.write_all(&chunk).await?;
            } else {
                write.write_all(&data).await?;
            }
            sent += length;
            if leaves.is_some() {
                write.flush().await?;
                return Ok(Sent::Left);
            }
            if rests {
                write.flush().await?;
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        }
        if chunked {
            let trailers = if plan.up_trailers { "X-End: 1\r\n" } else { "" };
            write.write_all(format!("0\r\n{trailers}\r\n").as_bytes()).await?;
        }
        write.flush().await?;
        Ok::<_, std::io::Error>(Sent::Whole)
    };
    result.await.unwrap_or(Sent::Failed)
}

struct Incoming {
    read: ReadHalf<Box<dyn Stream>>,
    buffer: Vec<u8>,
}

impl Incoming {
    async fn more(&mut self) -> Result<(), String> {
        match self.read.read_buf(&mut self.buffer).await {
            Ok(1..) => Ok(()),
            Ok(0) => Err("ended".to_owned()),
            Err(e) => Err(e.to_string()),
        }
    }

    async fn line(&mut self) -> Result<String, String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|two| two == b"\r\n") {
                let line = String::from_utf8(self.buffer.drain(..end + 2).take(end).collect());
                return line.map_err(|_| "no text".to_owned());
            }
            self.more().await?;
        }
    }

    async fn head(&mut self) -> Result<(u16, HeaderMap), String> {
        let line = self.line().await?;
        let status = line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
        let status = status.ok_or_else(|| format!("no status line: {line:?}"))?;
        let mut fields = HeaderMap::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Ok((status, fields));
            }
            let (name, value) = line.split_once(": ").ok_or_else(|| format!("no field: {line:?}"))?;
            let name = http::HeaderName::from_bytes(name.as_bytes()).map_err(|e| e.to_string())?;
            fields.append(name, value.parse().map_err(|_| format!("no value: {line:?}"))?);
        }
    }

    /// The final answer, and whether another one may follow on the connection.
    async fn answer(&mut self, plan: &Plan) -> Result<(Seen, bool), String> {
        if self.buffer.is_empty() && self.more().await.is_err() {
            return Err(CLOSED.to_owned());
        }
        let (status, fields) = loop {
            let (status, fields) = self.head().await?;
            if status >= 200 {
                break (status, fields);
            }
        };
        let text = |name: &str| fields.get(name).and_then(|value| value.to_str().ok());
        let mut body = Arrived::default();
        let id = text("x-plan").and_then(|id| id.parse().ok());
        let leaves = |body: &Arrived| plan.leaves_down.is_some_and(|leaves| body.length >= leaves);
        if plan.method == "HEAD" || matches!(status, 204 | 304) {
        } else if text("transfer-encoding") == Some("chunked") {
            loop {
                let size = self.line().await?;
                let size = usize::from_str_radix(&size, 16).map_err(|_| format!("no size: {size:?}"))?;
                self.take(plan.id, size, &mut body).await?;
                if !self.line().await?.is_empty() {
                    return Err("no end of a chunk".to_owned());
                }
                if size == 0 {
                    break;
                }
                if leaves(&body) {
                    return Err("left".to_owned());
                }
            }
        } else if let Some(length) = text("content-length").and_then(|length| length.parse().ok()) {
            let first = plan.leaves_down.map_or(length, |leaves| leaves.min(length));
            self.take(plan.id, first, &mut body).await?;
            if leaves(&body) {
                return Err("left".to_owned());
            }
            self.take(plan.id, length - first, &mut body).await?;
        } else {
            return Err("an answer in HTTP/1.1 that ends with the connection".to_owned());
        }
        let keeps = text("connection") != Some("close");
        Ok((Seen::Whole { status, id, body, trailer: None }, keeps))
    }

    async fn take(&mut self, id: u64, mut length: usize, body: &mut Arrived) -> Result<(), String> {
        while length > 0 {
            if self.buffer.is_empty() {
                self.more().await?;
            }
            let taken = length.min(self.buffer.len());
            body.take(id, &self.buffer[..taken]);
            self.buffer.drain(..taken);
            length -= taken;
        }
        Ok(())
    }
}

async fn http2(mut send: SendRequest<Bytes>, plan: &Plan) -> Result<Seen, h2::Error> {
    let mut request = Request::builder()
        .method(plan.method)
        .uri(format!("https://a.example.com{}", plan.path()))
        .header("x-plan", plan.id);
    if let Some(body) = plan.up.as_ref().filter(|_| plan.up_declared) {
        request = request.header("content-length", body.length);
    }
    let (answer, up) = send.send_request(request.body(()).unwrap(), plan.up.is_none())?;
    let mut writing = std::pin::pin!(upload(up, plan));
    let mut reading = std::pin::pin!(async {
        let answer = answer.await?;
        let status = answer.status().as_u16();
        let id = answer.headers().get("x-plan").and_then(|id| id.to_str().ok()?.parse().ok());
        let (mut down, mut body) = (answer.into_body(), Arrived::default());
        while let Some(data) = down.data().await {
            let data = data?;
            let _ = down.flow_control().release_capacity(data.len());
            body.take(plan.id, &data);
            if plan.leaves_down.is_some_and(|leaves| body.length >= leaves) {
                return Ok(Seen::Broken("left".to_owned()));
            }
        }
        let trailers = match down.trailers().await {
            // the rest of the request is not wanted: the answer is whole
            Err(e) if e.reason() == Some(h2::Reason::NO_ERROR) => None,
            trailers => trailers?,
        };
        let trailer = trailers.and_then(|trailers| trailers.get("x-end")?.to_str().ok()?.parse().ok());
        Ok(Seen::Whole { status, id, body, trailer })
    });
    let mut sending = true;
    loop {
        tokio::select! {
            biased;
            seen = &mut reading => return seen,
            left = &mut writing, if sending => {
                sending = false;
                if left {
                    return Ok(Seen::Broken("left".to_owned()));
                }
            }
        }
    }
}

/// Whether it goes away before the end.
async fn upload(mut up: h2::SendStream<Bytes>, plan: &Plan) -> bool {
    let Some(body) = &plan.up else { return false };
    let mut sent = 0;
    for &(length, rests) in &body.pieces {
        let leaves = plan.leaves_up.filter(|leaves| sent + length > *leaves);
        let mut data = Bytes::from(bytes(plan.id, sent, leaves.map_or(length, |leaves| leaves - sent)));
        sent += data.len();
        while !data.is_empty() {
            up.reserve_capacity(data.len());
            let Some(Ok(room)) = std::future::poll_fn(|cx| up.poll_capacity(cx)).await else { return false };
            if up.send_data(data.split_to(room.min(data.len())), false).is_err() {
                return false;
            }
        }
        if leaves.is_some() {
            up.send_reset(h2::Reason::CANCEL);
            return true;
        }
        if rests {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }
    let _ = if plan.up_trailers {
        up.send_trailers([("x-end".parse().unwrap(), plan.id.into())].into_iter().collect())
    } else {
        up.send_data(Bytes::new(), true)
    };
    false
}
