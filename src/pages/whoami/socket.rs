//! A WebSocket server for the built-in backend (RFC 6455): says what the handshake received, then
//! echoes every message. Messages are limited to 1 MiB; what the RFC forbids ends the connection.

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};

use super::wire::{Fault, Head, Wire};
use crate::web::websocket;

/// A whole message, bytes.
const MESSAGE_BYTES_MAX: usize = 1024 * 1024;

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// The key of a client's handshake.
#[derive(Debug)]
pub(super) struct Handshake {
    accept: String,
}

impl Handshake {
    /// Looks for a handshake in a request; `Err` if it is one that cannot be answered (4.2.1).
    pub(super) fn find(head: &Head) -> Option<Result<Self, Fault>> {
        let asked = head.method == "GET"
            && head.is_http_11
            && head.lists("connection", "upgrade")
            && head.lists("upgrade", "websocket");
        asked.then(|| Self::read(head).ok_or(Fault::Malformed("this is no WebSocket handshake of version 13")))
    }

    fn read(head: &Head) -> Option<Self> {
        let mut keys = head.values("sec-websocket-key");
        let (Some(key), None) = (keys.next(), keys.next()) else { return None };
        let is_13 = head.values("sec-websocket-version").eq([b"13".as_slice()]);
        websocket::accept(key).filter(|_| is_13).map(|accept| Self { accept })
    }
}

/// How a socket ends.
#[derive(Debug)]
enum End {
    /// The client went without a word.
    Fault(Fault),
    /// With a Close frame that says why (7.4.1).
    Close(u16),
}

impl From<Fault> for End {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

const PROTOCOL_ERROR: End = End::Close(1002);

struct Frame {
    last: bool,
    opcode: u8,
    payload: BytesMut,
}

/// Answers the handshake and serves the socket to its end.
pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send>(
    wire: &mut Wire<S>,
    head: &Head,
    handshake: Handshake,
) -> Result<(), Fault> {
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n\r\n",
        handshake.accept
    );
    wire.write(answer.as_bytes()).await?;
    send(wire, TEXT, super::received(head, 0).as_bytes()).await?;
    match echo(wire).await {
        End::Fault(fault) => Err(fault),
        End::Close(1005) => send(wire, CLOSE, b"").await,
        End::Close(code) => send(wire, CLOSE, &code.to_be_bytes()).await,
    }
}

/// Echoes messages until the socket ends.
async fn echo<S: AsyncRead + AsyncWrite + Unpin + Send>(wire: &mut Wire<S>) -> End {
    let mut message = BytesMut::new();
    let mut kind = None;
    loop {
        match step(wire, &mut message, &mut kind).await {
            Ok(()) => {}
            Err(end) => return end,
        }
    }
}

/// Reads one frame and does what it asks for (5.4, 5.5).
async fn step<S: AsyncRead + AsyncWrite + Unpin + Send>(
    wire: &mut Wire<S>,
    message: &mut BytesMut,
    kind: &mut Option<u8>,
) -> Result<(), End> {
    let frame = read_frame(wire, message.len()).await?;
    match (frame.opcode, *kind) {
        (CLOSE, _) => return Err(closing(&frame.payload)),
        (PING, _) => return Ok(send(wire, PONG, &frame.payload).await?),
        (PONG, _) => return Ok(()),
        (TEXT | BINARY, None) => *kind = Some(frame.opcode),
        (CONTINUATION, Some(_)) => {}
        _ => return Err(PROTOCOL_ERROR),
    }
    message.extend_from_slice(&frame.payload);
    if !frame.last {
        return Ok(());
    }
    let whole = std::mem::take(message);
    let opcode = kind.take().unwrap_or(BINARY);
    if opcode == TEXT && std::str::from_utf8(&whole).is_err() {
        return Err(End::Close(1007));
    }
    Ok(send(wire, opcode, &whole).await?)
}

/// Reads one frame; `held` bytes of its message came before it.
async fn read_frame<S: AsyncRead + AsyncWrite + Unpin + Send>(wire: &mut Wire<S>, held: usize) -> Result<Frame, End> {
    let start = wire.take(2).await?;
    let (last, reserved, opcode) = (start[0] & 0x80 != 0, start[0] & 0x70, start[0] & 0x0f);
    let masked = start[1] & 0x80 != 0;
    let is_control = opcode >= CLOSE;
    let length = match start[1] & 0x7f {
        126 => u64::from(be16(&wire.take(2).await?)),
        127 => wire.take(8).await?.iter().fold(0, |sum, &b| sum << 8 | u64::from(b)),
        short => u64::from(short),
    };
    if reserved != 0 || !masked || (is_control && (!last || length > 125)) {
        return Err(PROTOCOL_ERROR);
    }
    let length = usize::try_from(length).ok().filter(|&length| length <= MESSAGE_BYTES_MAX - held);
    let Some(length) = length else { return Err(End::Close(1009)) };
    let mask = wire.take(4).await?;
    let mut payload = wire.take(length).await?;
    for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
    Ok(Frame { last, opcode, payload })
}

fn be16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |sum, &b| sum << 8 | u16::from(b))
}

/// The answer to a client's Close: its own code, unless that may not be sent (7.4).
fn closing(payload: &[u8]) -> End {
    let (code, reason) = match payload {
        [] => return End::Close(1005),
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
        [_] => return PROTOCOL_ERROR,
    };
    let may_be_sent = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
    if may_be_sent && std::str::from_utf8(reason).is_ok() { End::Close(code) } else { PROTOCOL_ERROR }
}

/// Sends one whole, unmasked frame.
async fn send<S: AsyncRead + AsyncWrite + Unpin + Send>(
    wire: &mut Wire<S>,
    opcode: u8,
    payload: &[u8],
) -> Result<(), Fault> {
    let mut frame = Vec::with_capacity(payload.len() + 10);
    frame.push(0x80 | opcode);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ ..126), _) => frame.push(length),
        (_, Ok(length)) => {
            frame.push(126);
            frame.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            frame.push(127);
            frame.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    wire.write(&frame).await
}
