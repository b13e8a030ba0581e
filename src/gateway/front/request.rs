//! The strict reader of request heads (RFC 9112, 2 to 5). What two parsers could read differently is
//! refused here, before anything is decided: bare CR or LF, folded lines, odd request lines, bytes
//! that some parsers drop. What the fields mean is judged in `head.rs`, for every way alike.

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method};
use pingora_http::RequestHeader;

use super::super::head::BadHead;
use crate::config::Limits;

/// Fields that are looked at; `limits.head_fields` is 250 at most.
const FIELDS: usize = 256;

/// What the bytes so far are.
#[derive(Debug)]
pub(crate) enum Read {
    /// More bytes are needed.
    Partial,
    /// No head that may be served.
    Bad(BadHead),
    /// A head that ends here.
    Whole(Whole),
}

/// Where a head ends.
#[derive(Debug)]
pub(crate) struct Whole(usize);

impl Whole {
    /// Parses the head and takes its bytes out of the buffer that it was found in.
    pub(crate) fn take(&self, buffer: &mut BytesMut) -> Result<Box<Head>, BadHead> {
        let bytes = buffer.split_to(self.0).freeze();
        Ok(Box::new(Head { parsed: parse(&bytes)?, bytes }))
    }
}

/// A head, parsed and as it came.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) parsed: RequestHeader,
    pub(crate) bytes: Bytes,
}

impl Head {
    /// Name and whole line of each field, in the order and the letters in which they came.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut lines = self.bytes.split_inclusive(|&b| b == b'\n');
        lines.next();
        lines.filter_map(|line| {
            let colon = line.iter().position(|&b| b == b':')?;
            Some((&line[..colon], line))
        })
    }
}

/// Reads the head at the start of `bytes`; empty lines before it are to be cut by [`blank_lines`].
pub(crate) fn read(bytes: &[u8], limits: &Limits) -> Read {
    if bytes.first().is_some_and(|&first| !is_token(first)) {
        return Read::Bad(BadHead::Ambiguous("request line"));
    }
    let Some(end) = end_of_head(bytes) else {
        return match too_large(bytes, limits) {
            Some(bad) => Read::Bad(bad),
            None => Read::Partial,
        };
    };
    Read::Whole(Whole(end))
}

/// Bytes of empty lines before a request line: let through (RFC 9112, 2.2).
pub(crate) fn blank_lines(bytes: &[u8]) -> usize {
    bytes.chunks_exact(2).take_while(|line| *line == b"\r\n").count() * 2
}

fn too_large(bytes: &[u8], limits: &Limits) -> Option<BadHead> {
    if bytes.len() <= limits.head_bytes {
        return None;
    }
    let line_ended = bytes.contains(&b'\n');
    Some(if line_ended { BadHead::TooLarge } else { BadHead::TargetTooLong })
}

fn end_of_head(bytes: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|&b| b == b'\n') {
        let end = from + at + 1;
        // a bare LF may end a head for other parsers: it ends here, and is refused below
        if bytes[..end].ends_with(b"\r\n\r\n") || bytes[..end].ends_with(b"\n\n") {
            return Some(end);
        }
        from = end;
    }
    None
}

fn parse(bytes: &Bytes) -> Result<RequestHeader, BadHead> {
    let bad = BadHead::Ambiguous("head");
    if !lines_are_plain(bytes) {
        return Err(BadHead::Ambiguous("line end"));
    }
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(bytes, &mut fields) {
        Ok(httparse::Status::Complete(_)) => {}
        Err(httparse::Error::TooManyHeaders) => return Err(BadHead::TooLarge),
        Err(httparse::Error::Version) => return Err(BadHead::Ambiguous("version")),
        Ok(httparse::Status::Partial) | Err(_) => return Err(bad),
    }
    let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else {
        return Err(bad);
    };
    // a fragment is no part of a target, and visible ASCII all that one may have (RFC 3986)
    if !target.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
        return Err(BadHead::Ambiguous("target"));
    }
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| bad)?;
    let mut head =
        RequestHeader::build_no_case(method, target.as_bytes(), Some(request.headers.len())).map_err(|_| bad)?;
    if version == 0 {
        head.set_version(http::Version::HTTP_10);
    }
    for field in &*request.headers {
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(field.value)).map_err(|_| bad)?;
        head.append_header(bytes.slice_ref(field.name.as_bytes()), value).map_err(|_| bad)?;
    }
    Ok(head)
}

/// Every CR stands before an LF and every LF behind a CR.
fn lines_are_plain(bytes: &[u8]) -> bool {
    let mut before = 0;
    for &byte in bytes {
        if (byte == b'\n') != (before == b'\r') {
            return false;
        }
        before = byte;
    }
    before != b'\r'
}

/// RFC 9110, 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
