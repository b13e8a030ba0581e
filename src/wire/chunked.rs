//! Chunked bodies (RFC 9112, 7.1): decoded and encoded again, so that no byte of the sender's framing is forwarded.
//! Extensions and trailers are dropped.

use std::ops::Range;

use bytes::BufMut;

use super::request_head::is_token;

/// Bytes that a size line with its extensions, or the trailers, may have.
const LINE_MAX: usize = 4096;

/// Follows one chunked body.
#[derive(Debug, Default)]
pub(crate) struct Chunks {
    at: At,
    size: u64,
    digits: u8,
    line: usize,
    /// Of a server: blanks behind a size and a bare LF at the end of a line pass, since its framing is not forwarded.
    is_servers: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum At {
    #[default]
    Size,
    /// Blanks behind the size.
    Blanks,
    Extension,
    SizeEnd,
    Data,
    DataCr,
    DataLf,
    Trailer,
    /// Behind the colon of one.
    TrailerValue,
    TrailerLf,
    Done,
}

/// The framing is not valid (RFC 9112, 7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadChunk;

/// The last chunk.
pub(crate) const LAST: &[u8] = b"0\r\n\r\n";

/// Writes data as a chunk. Empty data is left out: it would be the last chunk.
pub(crate) fn put(data: &[u8], out: &mut impl BufMut) {
    if data.is_empty() {
        return;
    }
    out.put_slice(format!("{:x}\r\n", data.len()).as_bytes());
    out.put_slice(data);
    out.put_slice(b"\r\n");
}

/// Bytes allowed in an extension or a field's value: no controls but the tab (RFC 9110, 5.5).
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

impl Chunks {
    /// Of a server's answer.
    pub(crate) fn of_server() -> Self {
        Self { is_servers: true, ..Self::default() }
    }

    /// Whether the body has ended.
    pub(crate) fn is_done(&self) -> bool {
        self.at == At::Done
    }

    /// Takes bytes from the front of `bytes`, up to the end of the first run of data: how many were taken, and the range of
    /// data in them. Bytes after the end of the body are not taken.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<(usize, Range<usize>), BadChunk> {
        let mut at = 0;
        while at < bytes.len() && self.at != At::Done {
            if self.at == At::Data {
                let taken = usize::try_from(self.size).unwrap_or(usize::MAX).min(bytes.len() - at);
                self.size -= taken as u64;
                if self.size == 0 {
                    self.at = At::DataCr;
                }
                return Ok((at + taken, at..at + taken));
            }
            self.step(bytes[at])?;
            at += 1;
        }
        Ok((at, at..at))
    }

    fn step(&mut self, byte: u8) -> Result<(), BadChunk> {
        self.at = match (self.at, byte) {
            (At::Size | At::Blanks, b'\r') if self.digits > 0 => At::SizeEnd,
            (At::Size | At::Blanks, b';') if self.digits > 0 => At::Extension,
            (At::Size | At::Blanks, b' ' | b'\t') if self.digits > 0 && self.is_servers => self.counted(At::Blanks)?,
            (At::Size | At::Blanks | At::Extension, b'\n') if self.digits > 0 && self.is_servers => self.sized(),
            (At::Size, _) => {
                let digit = char::from(byte).to_digit(16).ok_or(BadChunk)?;
                self.digits += 1;
                if self.digits > 15 {
                    return Err(BadChunk);
                }
                self.size = self.size << 4 | u64::from(digit);
                At::Size
            }
            (At::Extension, b'\r') => At::SizeEnd,
            (At::Extension, byte) if is_text(byte) => self.counted(At::Extension)?,
            (At::SizeEnd, b'\n') => self.sized(),
            (At::DataCr, b'\r') => At::DataLf,
            (At::DataCr, b'\n') if self.is_servers => At::Size,
            (At::DataLf, b'\n') => At::Size,
            (At::Trailer | At::TrailerValue | At::TrailerLf, byte) => self.step_trailer(byte)?,
            _ => return Err(BadChunk),
        };
        Ok(())
    }

    /// The line of a size has ended.
    fn sized(&mut self) -> At {
        (self.digits, self.line) = (0, 0);
        if self.size == 0 { At::Trailer } else { At::Data }
    }

    /// Only fields (RFC 9112, 7.1.2). `size` counts the bytes of a field's name: an empty line ends the body.
    fn step_trailer(&mut self, byte: u8) -> Result<At, BadChunk> {
        match (self.at, byte) {
            (At::Trailer, b'\r') if self.size == 0 => Ok(At::TrailerLf),
            (At::Trailer, b'\n') if self.size == 0 && self.is_servers => Ok(At::Done),
            (At::Trailer, b':') if self.size > 0 => self.counted(At::TrailerValue),
            (At::Trailer, byte) if is_token(byte) => {
                self.size += 1;
                self.counted(At::Trailer)
            }
            (At::TrailerValue, b'\r') => Ok(At::TrailerLf),
            (At::TrailerLf, b'\n') if self.size == 0 => Ok(At::Done),
            (At::TrailerValue, b'\n') if !self.is_servers => Err(BadChunk),
            (At::TrailerLf | At::TrailerValue, b'\n') => {
                self.size = 0;
                Ok(At::Trailer)
            }
            (At::TrailerValue, byte) if is_text(byte) => self.counted(At::TrailerValue),
            _ => Err(BadChunk),
        }
    }

    fn counted(&mut self, at: At) -> Result<At, BadChunk> {
        self.line += 1;
        if self.line > LINE_MAX { Err(BadChunk) } else { Ok(at) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The data of a body that arrives in pieces of `piece` bytes, and what is left behind it.
    fn read(body: &[u8], piece: usize) -> Result<(Vec<u8>, usize), BadChunk> {
        read_as(Chunks::default(), body, piece)
    }

    fn read_as(mut chunks: Chunks, body: &[u8], piece: usize) -> Result<(Vec<u8>, usize), BadChunk> {
        let (mut data, mut at) = (Vec::new(), 0);
        while at < body.len() && !chunks.is_done() {
            let end = body.len().min(at + piece);
            let (taken, range) = chunks.take(&body[at..end])?;
            data.extend_from_slice(&body[at..end][range]);
            at += taken;
        }
        if chunks.is_done() { Ok((data, body.len() - at)) } else { Err(BadChunk) }
    }

    #[test]
    fn bodies_are_read_however_they_are_cut() {
        let body = b"4\r\nWiki\r\n0000a;name=value\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\nrest";
        for piece in 1..=body.len() {
            assert_eq!(read(body, piece), Ok((b"Wiki0123456789".to_vec(), 4)), "{piece}");
        }
        assert_eq!(read(b"0\r\n\r\n", 1), Ok((Vec::new(), 0)));
    }

    /// RFC 9112, 2.2 and 7.1.1; ESPAsyncWebServer pads its sizes.
    #[test]
    fn servers_may_pad_sizes_and_end_lines_with_a_bare_lf() {
        let body = b"4  \r\nWiki\na\t; b\n0123456789\r\n0 \nTrailer: x\n\nrest";
        for piece in 1..=body.len() {
            assert_eq!(read_as(Chunks::of_server(), body, piece), Ok((b"Wiki0123456789".to_vec(), 4)), "{piece}");
        }
        for body in
            [&b" 4\r\nWiki\r\n0\r\n\r\n"[..], b"4 4\r\nWiki\r\n0\r\n\r\n", b"\n4\r\nWiki\r\n0\r\n\r\n", b"4\r\r\nWiki"]
        {
            assert_eq!(read_as(Chunks::of_server(), body, 64), Err(BadChunk), "{}", String::from_utf8_lossy(body));
        }
        let padded = [b"4", vec![b' '; LINE_MAX + 1].as_slice()].concat();
        assert_eq!(read_as(Chunks::of_server(), &padded, 64), Err(BadChunk));
    }

    /// CWE-444: what another parser could frame differently is refused.
    #[test]
    fn odd_framing_is_refused() {
        for body in [
            &b"\r\n0\r\n\r\n"[..],
            b"4\nWiki\r\n0\r\n\r\n",
            b"4\r\nWiki0\r\n\r\n",
            b"4\r\nWiki\n0\r\n\r\n",
            b"-1\r\n\r\n",
            b"0x4\r\nWiki\r\n0\r\n\r\n",
            b" 4\r\nWiki\r\n0\r\n\r\n",
            b"4 \r\nWiki\r\n0\r\n\r\n",
            b"10000000000000000\r\n\r\n",
            b"4;a\nb\r\nWiki\r\n0\r\n\r\n",
            b"4\rX\nWiki\r\n0\r\n\r\n",
            b"0\r\nTrailer: x\n\r\n\r\n",
            b"0\r\nTrailer: \0\r\n\r\n",
            b"0\r\nTrailer : x\r\n\r\n",
            b"0\r\n: x\r\n\r\n",
            b"0\r\nXXGET / HTTP/1.1\r\n\r\n",
            b"0\r\n folded\r\n\r\n",
            b"0\r\nTrailer\r\n\r\n",
            b"4;\0\r\nWiki\r\n0\r\n\r\n",
            b"4;\x7f\r\nWiki\r\n0\r\n\r\n",
        ] {
            assert_eq!(read(body, 64), Err(BadChunk), "{}", String::from_utf8_lossy(body));
        }
        assert_eq!(read(&[b"1;", vec![b'x'; LINE_MAX + 1].as_slice()].concat(), 64), Err(BadChunk));
    }
}
