//! A client's connection: the bytes read and not used yet, and reading and writing within time limits.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use pingora_core::server::ShutdownWatch;
use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::Instant;

use super::shutdown::Stopped;
use crate::proxy::body_time;
use crate::proxy::client_disconnected::ClientDisconnected;
use crate::proxy::connection_handle::ConnectionHandle;
use crate::wire::deadline::Deadline;
use crate::wire::stream::Stream;

/// How long a client may take to close after a response that ends the connection.
const LINGER: Duration = Duration::from_secs(1);
/// Time for the last bytes of an event stream.
pub(super) const STREAM_END_TIMEOUT: Duration = Duration::from_millis(100);

/// One connection.
pub(crate) struct ClientConnection {
    pub(crate) stream: Stream,
    /// Bytes read and not used yet.
    pub(crate) buffer: BytesMut,
    pub(crate) deadline: Deadline,
    pub(crate) handle: Arc<ConnectionHandle>,
    pub(crate) stopped: Stopped,
    /// When the last request ended, if there was one.
    pub(crate) served: Option<Instant>,
}

impl ClientConnection {
    pub(crate) fn new(stream: Stream, handle: Arc<ConnectionHandle>, stopped: ShutdownWatch) -> Box<Self> {
        let (stopped, deadline) = (Stopped::new(stopped), Deadline::default());
        Box::new(Self { stream, buffer: BytesMut::new(), deadline, handle, stopped, served: None })
    }

    /// Reads the whole body. `Err(Some)` is the status of the response, `Err(None)`: the client has disconnected.
    pub(crate) async fn read_body(&mut self, length: u64) -> Result<Bytes, Option<StatusCode>> {
        if length == 0 {
            return Ok(Bytes::new());
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let mut began = None;
        while self.buffer.len() < length {
            let began = *began.get_or_insert_with(Instant::now);
            let left = body_time::body_time(self.buffer.len()).saturating_sub(began.elapsed());
            self.buffer.reserve(length - self.buffer.len());
            match self.deadline.within(left, pin!(self.stream.read_buf(&mut self.buffer))).await {
                Some(Ok(1..)) => {}
                Some(_) => return Err(None),
                None => return Err(Some(StatusCode::REQUEST_TIMEOUT)),
            }
        }
        Ok(self.buffer.split_to(length).freeze())
    }

    /// Writes all of it; each step within `idle`.
    pub(crate) async fn write(&mut self, bytes: &[u8], idle: Duration) -> Result<(), ClientDisconnected> {
        write_within(&mut self.stream, &self.handle, bytes, (idle, &mut self.deadline)).await
    }

    /// Closes so that the last response arrives: a client that still sends would lose it to a reset.
    pub(crate) async fn linger(&mut self) {
        if self.stream.shutdown().await.is_err() {
            return;
        }
        let rest = async {
            loop {
                self.buffer.clear();
                if !matches!(self.stream.read_buf(&mut self.buffer).await, Ok(1..)) {
                    return;
                }
            }
        };
        let _ = self.deadline.within(LINGER, pin!(rest)).await;
    }
}

/// Writes all of it to a client; each step within `idle`.
pub(super) async fn write_within(
    stream: &mut (impl AsyncWrite + Unpin),
    handle: &ConnectionHandle,
    mut bytes: &[u8],
    (idle, timer): (Duration, &mut Deadline),
) -> Result<(), ClientDisconnected> {
    while !bytes.is_empty() {
        match timer.within(idle, pin!(handle.writing(stream.write(bytes)))).await {
            Some(Some(Ok(written @ 1..))) => bytes = &bytes[written..],
            _ => return Err(ClientDisconnected),
        }
    }
    // TLS keeps what the socket did not take
    let flushed = timer.within(idle, pin!(handle.writing(stream.flush()))).await;
    if matches!(flushed, Some(Some(Ok(())))) { Ok(()) } else { Err(ClientDisconnected) }
}

/// Waits until the client has disconnected. What it sends meanwhile is kept, but never more than one piece: after that it has to
/// wait. A client that has only shut down its sending side still gets its response (RFC 9112, 9.6): a reset or a failed write
/// shows that it has disconnected.
pub(super) async fn disconnected(client: &mut Stream, buffer: &mut BytesMut) {
    if !buffer.is_empty() {
        std::future::pending::<()>().await;
    }
    match client.read_on(buffer).await {
        Ok(1..) => std::future::pending::<()>().await,
        Ok(0) => client.broken().await,
        Err(_) => {}
    }
}
