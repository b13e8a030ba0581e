//! A WebSocket server for the built-in backend (RFC 6455): says what the handshake received, then echoes every message.

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use super::raw_head::RawHead;
use crate::web::websocket;

/// A whole message, bytes.
const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// Read at a time, and allocated for each socket, bytes.
const READ_BYTES: usize = 4 * 1024;

/// Whether a request asks for a WebSocket.
pub(super) fn is_handshake(head: &RawHead) -> bool {
    head.method == "GET" && head.is_http_11 && head.lists("connection", "upgrade") && head.lists("upgrade", "websocket")
}

/// `Sec-WebSocket-Accept` for a handshake; `None` if it is not one of version 13 (RFC 6455, 4.2.1).
pub(super) fn accept(head: &RawHead) -> Option<String> {
    let mut keys = head.values("sec-websocket-key");
    let (Some(key), None) = (keys.next(), keys.next()) else { return None };
    let is_13 = head.values("sec-websocket-version").eq([b"13".as_slice()]);
    websocket::accept(key).filter(|_| is_13)
}

/// Serves an open socket to its end. `read` is what came behind the handshake.
pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send>(stream: S, read: Vec<u8>, greeting: String) {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BYTES)
        .write_buffer_size(0)
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    let mut socket = WebSocketStream::from_partially_read(stream, read, Role::Server, Some(config)).await;
    let Err(error) = echo(&mut socket, greeting).await else { return };
    let code = match error {
        Error::Protocol(_) => CloseCode::Protocol,
        Error::Utf8(_) => CloseCode::Invalid,
        Error::Capacity(_) => CloseCode::Size,
        // closed by the client, or gone
        _ => return,
    };
    // the client may be gone
    let _ = socket.close(Some(CloseFrame { code, reason: Utf8Bytes::default() })).await;
}

/// Echoes messages until the socket ends. Pings and Close are answered by the library as messages are read.
async fn echo<S: AsyncRead + AsyncWrite + Unpin + Send>(
    socket: &mut WebSocketStream<S>,
    greeting: String,
) -> Result<(), Error> {
    socket.send(Message::text(greeting)).await?;
    while let Some(message) = socket.next().await {
        match message? {
            message @ (Message::Text(_) | Message::Binary(_)) => socket.send(message).await?,
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => {}
        }
    }
    Ok(())
}
