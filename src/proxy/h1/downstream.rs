//! A client's connection: what has been read of it, and reading and writing within limits of time.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use pingora_core::server::ShutdownWatch;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::Instant;

use super::shutdown::Stopped;
use crate::proxy::body_time;
use crate::proxy::client_disconnected::ClientDisconnected;
use crate::proxy::connection_handle::ConnectionHandle;
use crate::wire::deadline::Deadline;
use crate::wire::stream::Stream;

/// How long a client may take to close after an answer that ends the connection.
const LINGER: Duration = Duration::from_secs(1);

/// One connection, as far as it has been read.
pub(crate) struct Conn {
    pub(crate) stream: Stream,
    /// Read and not used yet.
    pub(crate) buffer: BytesMut,
    pub(crate) deadline: Deadline,
    pub(crate) handle: Arc<ConnectionHandle>,
    pub(crate) stopped: Stopped,
    /// When the last request was over, where there was one.
    pub(crate) served: Option<Instant>,
}

impl Conn {
    pub(crate) fn new(stream: Stream, handle: Arc<ConnectionHandle>, stopped: ShutdownWatch) -> Box<Self> {
        let (stopped, deadline) = (Stopped::new(stopped), Deadline::default());
        Box::new(Self { stream, buffer: BytesMut::new(), deadline, handle, stopped, served: None })
    }

    /// The whole body. `Err(Some)` is the status to answer with, `Err(None)` a client that has gone.
    pub(crate) async fn read_body(&mut self, length: u64) -> Result<Bytes, Option<StatusCode>> {
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
    pub(crate) async fn write(&mut self, mut bytes: &[u8], idle: Duration) -> Result<(), ClientDisconnected> {
        while !bytes.is_empty() {
            match self.deadline.within(idle, pin!(self.handle.writing(self.stream.write(bytes)))).await {
                Some(Some(Ok(written @ 1..))) => bytes = &bytes[written..],
                _ => return Err(ClientDisconnected),
            }
        }
        if self.stream.is_plain() {
            return Ok(());
        }
        // TLS keeps what the socket did not take at once
        let flushed = self.deadline.within(idle, pin!(self.handle.writing(self.stream.flush()))).await;
        if matches!(flushed, Some(Some(Ok(())))) { Ok(()) } else { Err(ClientDisconnected) }
    }

    /// Closes so that the last answer arrives: a client that still sends would be cut off by a reset.
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

/// Waits until the client has gone. What it sends meanwhile is kept, but never more than one piece of it: whoever
/// goes on sending has to wait. One that has only shut down its sending side is answered (RFC 9112, 9.6): whether it has
/// gone altogether is told by a reset, or by what is written to it.
pub(crate) async fn gone(client: &mut Stream, buffer: &mut BytesMut) {
    if !buffer.is_empty() {
        std::future::pending::<()>().await;
    }
    match client.read_on(buffer).await {
        Ok(1..) => std::future::pending::<()>().await,
        Ok(0) => client.broken().await,
        Err(_) => {}
    }
}
