//! A body in HTTP/1.1 as it is read from a connection, a client's or a server's.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::body::{Complete, Part};
use super::chunked::Chunks;
use super::response_head::Framing;

/// Bytes read at a time of a client's body.
const READ_CHUNK: usize = 32 << 10;
/// The same of a server's body: the buffer is held while more is awaited, and many responses are long and slow.
const SERVER_READ_CHUNK: usize = 16 << 10;

/// A connection, the bytes read and not used yet, and the progress of the body.
pub(crate) struct Framed<R> {
    pub(crate) stream: R,
    pub(crate) buffer: BytesMut,
    framing: Framing,
    chunks: Chunks,
    read_chunk: usize,
}

/// Why a body could not be read to its end.
pub(crate) enum Cut {
    /// The chunks are not valid.
    Malformed,
    /// The connection ended before the body did.
    Ended,
    Failed(io::Error),
}

impl<R: AsyncRead + Unpin> Framed<R> {
    /// `buffer` has the bytes after the head.
    pub(crate) fn new(stream: R, buffer: BytesMut, framing: Framing) -> Self {
        Self { stream, buffer, framing, chunks: Chunks::default(), read_chunk: READ_CHUNK }
    }

    /// A server's head was read: the bytes after it, and their framing.
    pub(crate) fn begin(&mut self, buffer: BytesMut, framing: Framing) {
        (self.buffer, self.framing, self.chunks) = (buffer, framing, Chunks::of_server());
        self.read_chunk = SERVER_READ_CHUNK;
    }

    /// Whether the body has been read to its end; never known where it ends with the connection.
    pub(crate) fn is_over(&self) -> bool {
        match self.framing {
            Framing::Length(left) => left == 0,
            Framing::Chunked => self.chunks.is_done(),
            Framing::Close => false,
        }
    }

    /// The end, if the body has been read to it.
    pub(crate) fn completed(&self) -> Option<Complete> {
        self.is_over().then(Complete::by_framing)
    }

    /// Whether the end of the connection is the end of the body.
    pub(crate) fn ends_with_connection(&self) -> bool {
        self.framing == Framing::Close
    }

    /// The next piece of the body.
    pub(crate) async fn piece(&mut self) -> Result<Part, Cut> {
        loop {
            if let Some(part) = self.buffered()? {
                return Ok(part);
            }
            if self.read().await.map_err(Cut::Failed)? == 0 {
                let is_complete = self.ends_with_connection();
                return if is_complete { Ok(Part::End(Complete::by_framing())) } else { Err(Cut::Ended) };
            }
        }
    }

    /// The next piece as far as it was read, or the end; `None`: more has to be read.
    pub(crate) fn buffered(&mut self) -> Result<Option<Part>, Cut> {
        if let Some(data) = self.buffered_data()? {
            return Ok(Some(Part::Data(data)));
        }
        Ok(self.completed().map(Part::End))
    }

    /// Reads what is available; 0 at the end of the connection.
    pub(crate) async fn read(&mut self) -> io::Result<usize> {
        self.buffer.reserve(self.read_chunk);
        self.stream.read_buf(&mut self.buffer).await
    }

    /// The next part of the body in the buffer.
    fn buffered_data(&mut self) -> Result<Option<Bytes>, Cut> {
        match &mut self.framing {
            Framing::Close => Ok((!self.buffer.is_empty()).then(|| self.buffer.split().freeze())),
            Framing::Length(left) => {
                let length = usize::try_from(*left).unwrap_or(usize::MAX).min(self.buffer.len());
                *left -= length as u64;
                Ok(match length {
                    0 => None,
                    // the end of a body with nothing behind it: what is not split need not be shared
                    all if *left == 0 && all == self.buffer.len() => Some(std::mem::take(&mut self.buffer).freeze()),
                    _ => Some(self.buffer.split_to(length).freeze()),
                })
            }
            Framing::Chunked => {
                while !self.buffer.is_empty() && !self.chunks.is_done() {
                    let (taken, data) = self.chunks.take(&self.buffer).map_err(|_| Cut::Malformed)?;
                    let piece = self.buffer.split_to(taken).freeze().slice(data);
                    if !piece.is_empty() {
                        return Ok(Some(piece));
                    }
                }
                Ok(None)
            }
        }
    }
}
