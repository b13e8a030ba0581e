//! Bytes to request heads and bodies, for the built-in backend. Bodies are counted and never kept;
//! everything that is held has a limit.

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::web::first_line::readable;

/// A whole head, bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Fields in a head.
const FIELDS_MAX: usize = 200;
/// One line of the chunked coding, or all trailers together, bytes.
const LINE_BYTES_MAX: usize = 8 * 1024;
/// What one read asks for, bytes.
const READ_BYTES: usize = 64 * 1024;

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The client has gone, between requests or within one.
    Gone,
    /// What it sent cannot be read.
    Malformed(&'static str),
    /// The head is over its limit.
    TooLarge,
}

/// A request head as received.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) method: String,
    /// The whole request target, query included.
    pub(super) target: String,
    pub(super) is_http_11: bool,
    /// In order, names in the case they came in.
    pub(super) fields: Vec<(String, Vec<u8>)>,
}

/// Where the body ends (RFC 9112, 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    Length(u64),
    Chunked,
}

impl Head {
    /// The values of all fields of a name, given in lower case.
    pub(super) fn values(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.fields.iter().filter(move |(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_slice())
    }

    /// The target without its query.
    pub(super) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// Whether a comma-separated field lists a token.
    pub(super) fn lists(&self, name: &str, token: &str) -> bool {
        self.values(name).any(|value| {
            value.split(|&b| b == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
        })
    }

    /// Whether the connection goes on after this request (RFC 9112, 9.3).
    pub(super) fn keeps_alive(&self) -> bool {
        if self.is_http_11 { !self.lists("connection", "close") } else { self.lists("connection", "keep-alive") }
    }

    /// Whether the client waits for `100 Continue` (RFC 9110, 10.1.1).
    pub(super) fn expects_continue(&self) -> bool {
        self.is_http_11 && self.lists("expect", "100-continue")
    }

    /// Where the body ends; both framings at once are refused, never repaired.
    pub(super) fn framing(&self) -> Result<Framing, Fault> {
        let mut lengths = self.values("content-length");
        let mut codings = self.values("transfer-encoding");
        match (lengths.next(), codings.next()) {
            (None, None) => Ok(Framing::Length(0)),
            (Some(length), None) if lengths.next().is_none() => number(length, 10).map(Framing::Length),
            (None, Some(coding)) if codings.next().is_none() && coding.eq_ignore_ascii_case(b"chunked") => {
                Ok(Framing::Chunked)
            }
            _ => Err(Fault::Malformed("the framing is ambiguous")),
        }
    }
}

/// Digits alone: no sign, no blank, no overflow.
fn number(digits: &[u8], radix: u32) -> Result<u64, Fault> {
    let malformed = Fault::Malformed("a length is no number");
    if digits.is_empty() || !digits.iter().all(|&b| char::from(b).is_digit(radix)) {
        return Err(malformed);
    }
    std::str::from_utf8(digits).ok().and_then(|digits| u64::from_str_radix(digits, radix).ok()).ok_or(malformed)
}

/// A byte stream and what was read ahead of it.
#[derive(Debug)]
pub(super) struct Wire<S> {
    stream: S,
    buffer: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Wire<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, buffer: BytesMut::new() }
    }

    /// Reads at least one byte more.
    async fn fill(&mut self) -> Result<(), Fault> {
        self.buffer.reserve(READ_BYTES);
        match self.stream.read_buf(&mut self.buffer).await {
            Ok(0) | Err(_) => Err(Fault::Gone),
            Ok(_) => Ok(()),
        }
    }

    /// Writes all of it and sends it off.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.stream.write_all(bytes).await.map_err(|_| Fault::Gone)?;
        self.stream.flush().await.map_err(|_| Fault::Gone)
    }

    /// Closes our side.
    pub(super) async fn end(&mut self) {
        // the other side may have closed first
        let _ = self.stream.shutdown().await;
    }

    /// Waits until the client has gone. Whatever it still sends is thrown away: nothing is
    /// answered after this.
    pub(super) async fn gone(&mut self) {
        while self.fill().await.is_ok() {
            self.buffer.clear();
        }
    }

    /// Reads a whole head.
    pub(super) async fn head(&mut self) -> Result<Head, Fault> {
        loop {
            if let Some((head, length)) = parse(&self.buffer)? {
                self.buffer.advance(length);
                return Ok(head);
            }
            if self.buffer.len() >= HEAD_BYTES_MAX {
                return Err(Fault::TooLarge);
            }
            self.fill().await?;
        }
    }

    /// Reads a body to its end and says how long it was, bytes.
    pub(super) async fn skip_body(&mut self, framing: Framing) -> Result<u64, Fault> {
        match framing {
            Framing::Length(length) => self.skip(length).await.map(|()| length),
            Framing::Chunked => self.skip_chunks().await,
        }
    }

    async fn skip_chunks(&mut self) -> Result<u64, Fault> {
        let mut total = 0_u64;
        loop {
            let line = self.line().await?;
            let size = line.split(|&b| b == b';').next().unwrap_or_default().trim_ascii_end();
            let size = number(size, 16)?;
            if size == 0 {
                return self.skip_trailers().await.map(|()| total);
            }
            self.skip(size).await?;
            total = total.saturating_add(size);
            if !self.line().await?.is_empty() {
                return Err(Fault::Malformed("a chunk is longer than it says"));
            }
        }
    }

    async fn skip_trailers(&mut self) -> Result<(), Fault> {
        let mut left = LINE_BYTES_MAX;
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Ok(());
            }
            left = left.checked_sub(line.len()).ok_or(Fault::TooLarge)?;
        }
    }

    async fn skip(&mut self, mut left: u64) -> Result<(), Fault> {
        while left > 0 {
            if self.buffer.is_empty() {
                self.fill().await?;
            }
            let part = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            self.buffer.advance(part);
            left -= part as u64;
        }
        Ok(())
    }

    /// One line without its end.
    async fn line(&mut self) -> Result<Bytes, Fault> {
        loop {
            if let Some(at) = self.buffer.iter().position(|&b| b == b'\n') {
                let line = self.buffer.split_to(at + 1).freeze();
                return line
                    .strip_suffix(b"\r\n")
                    .map(|bare| line.slice_ref(bare))
                    .ok_or(Fault::Malformed("a line ends without CR"));
            }
            if self.buffer.len() >= LINE_BYTES_MAX {
                return Err(Fault::Malformed("a line is too long"));
            }
            self.fill().await?;
        }
    }

    /// Takes exactly so many bytes; the caller bounds them.
    pub(super) async fn take(&mut self, count: usize) -> Result<BytesMut, Fault> {
        while self.buffer.len() < count {
            self.fill().await?;
        }
        Ok(self.buffer.split_to(count))
    }
}

/// A head and its length in bytes, as soon as it is whole.
fn parse(bytes: &[u8]) -> Result<Option<(Head, usize)>, Fault> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    let shown = readable(bytes);
    let length = match request.parse(&shown) {
        Ok(httparse::Status::Complete(length)) if length > HEAD_BYTES_MAX => return Err(Fault::TooLarge),
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Fault::TooLarge),
        Err(_) => return Err(Fault::Malformed("this is no HTTP/1 request")),
    };
    let (method, path) = (request.method.unwrap_or_default(), request.path.unwrap_or_default());
    // behind empty lines, which the parser leaves out
    let start = bytes.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or_default();
    let target = &bytes[start + method.len() + 1..][..path.len()];
    let head = Head {
        method: method.to_owned(),
        target: String::from_utf8_lossy(target).into_owned(),
        is_http_11: request.version == Some(1),
        fields: request.headers.iter().map(|field| (field.name.to_owned(), field.value.to_vec())).collect(),
    };
    Ok(Some((head, length)))
}
