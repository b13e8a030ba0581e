//! Heads of answers: an upstream's is read as strictly as a client's (what frames in two ways is a bad
//! gateway), and ours is written.

use std::mem::MaybeUninit;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use pingora_core::protocols::http::date::get_cached_date;
use pingora_core::{Error, ErrorType, Result};
use pingora_http::ResponseHeader;

/// Fields and bytes that an upstream's head may have.
const FIELDS: usize = 256;
const HEAD_BYTES: usize = 64 << 10;
/// Fields about one connection alone (RFC 9110, 7.6.1).
const HOP: [HeaderName; 6] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TRANSFER_ENCODING,
    header::TRAILER,
    header::UPGRADE,
];

/// How a body is framed (RFC 9112, 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    Length(u64),
    Chunked,
    /// To the end of the connection.
    Close,
}

/// An upstream's answer, as far as it has come.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) head: ResponseHeader,
    pub(super) framing: Framing,
    /// Whether its connection may be used again after the body.
    pub(super) keeps: bool,
    /// Bytes behind the head.
    pub(super) rest: BytesMut,
}

/// Reads a head off the front of `buffer`; `None` while it is not whole.
pub(super) fn read(buffer: &mut BytesMut, method: &Method) -> Result<Option<Answer>> {
    let Some(end) = end_of_head(buffer) else {
        return if buffer.len() > HEAD_BYTES { Err(bad("head too large")) } else { Ok(None) };
    };
    let bytes = buffer.split_to(end).freeze();
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let whole = config.parse_response_with_uninit_headers(&mut parsed, &bytes, &mut fields);
    if !whole.is_ok_and(|status| status.is_complete()) {
        return Err(bad("unreadable head"));
    }
    let mut head = ResponseHeader::build(parsed.code.unwrap_or(0), Some(parsed.headers.len() + 6))?;
    if let Some(reason) = parsed.reason.filter(|reason| Some(*reason) != head.status.canonical_reason()) {
        head.set_reason_phrase(Some(reason))?;
    }
    for field in &*parsed.headers {
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(field.value)).map_err(|_| bad("field value"))?;
        head.append_header(Bytes::slice_ref(&bytes, field.name.as_bytes()), value)?;
    }
    let keeps = parsed.version == Some(1) && !names(&head, b"close");
    let framing = framing(&head, method)?;
    if head.status != StatusCode::SWITCHING_PROTOCOLS {
        remove_hop_by_hop(&mut head);
    }
    Ok(Some(Answer { head, framing, keeps, rest: buffer.split() }))
}

/// Writes a head and the fields about this connection.
pub(super) fn write_head(head: &mut ResponseHeader, close: bool, out: &mut BytesMut) {
    let status = head.status;
    if !status.is_informational() && !head.headers.contains_key(header::DATE) {
        let _ = head.insert_header(header::DATE, get_cached_date());
    }
    if close {
        let _ = head.insert_header(header::CONNECTION, "close");
    }
    out.put_slice(b"HTTP/1.1 ");
    out.put_slice(status.as_str().as_bytes());
    out.put_u8(b' ');
    out.put_slice(head.get_reason_phrase().unwrap_or_default().as_bytes());
    out.put_slice(b"\r\n");
    head.header_to_h1_wire(out);
    out.put_slice(b"\r\n");
}

/// The end of a head: bare LF is let through as a line end, as the parser does.
fn end_of_head(bytes: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|&b| b == b'\n') {
        let end = from + at + 1;
        if bytes[..end].ends_with(b"\n\r\n") || bytes[..end].ends_with(b"\n\n") {
            return Some(end);
        }
        from = end;
    }
    None
}

/// Refuses an answer that is framed in two ways, or in one that we do not know.
pub(in crate::gateway) fn check_framing(head: &ResponseHeader) -> Result<()> {
    framing(head, &Method::GET).map(drop)
}

fn framing(head: &ResponseHeader, method: &Method) -> Result<Framing> {
    let mut lengths = head.headers.get_all(header::CONTENT_LENGTH).iter();
    let mut codings = head.headers.get_all(header::TRANSFER_ENCODING).iter();
    let (length, coding) = (lengths.next(), codings.next());
    if lengths.next().is_some() || codings.next().is_some() || (length.is_some() && coding.is_some()) {
        return Err(bad("framed in two ways"));
    }
    let length = match length {
        Some(length) => {
            let digits = length.as_bytes();
            let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
            let text = length.to_str().ok().filter(|_| plain);
            Some(text.and_then(|text| text.parse().ok()).ok_or_else(|| bad("content-length"))?)
        }
        None => None,
    };
    if coding.is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked")) {
        return Err(bad("transfer-encoding"));
    }
    let bodiless = *method == Method::HEAD
        || head.status.is_informational()
        || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    Ok(match (length, coding) {
        _ if bodiless => Framing::Length(0),
        (_, Some(_)) => Framing::Chunked,
        (Some(length), None) => Framing::Length(length),
        (None, None) => Framing::Close,
    })
}

fn names(head: &ResponseHeader, option: &[u8]) -> bool {
    head.headers
        .get_all(header::CONNECTION)
        .iter()
        .any(|line| line.as_bytes().split(|&b| b == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(option)))
}

/// Removes what `Connection` names besides its own options (RFC 9110, 7.6.1). What frames the body and what
/// browsers keep is no connection's to take away.
pub(in crate::gateway) fn remove_nominated(head: &mut ResponseHeader) {
    const KEPT: [HeaderName; 4] =
        [header::CONNECTION, header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::SET_COOKIE];
    let nominated: Vec<HeaderName> = head
        .headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|line| line.as_bytes().split(|&b| b == b','))
        .filter_map(|item| HeaderName::from_bytes(item.trim_ascii()).ok())
        .filter(|name| !KEPT.contains(name))
        .collect();
    for name in &nominated {
        head.remove_header(name);
    }
}

fn remove_hop_by_hop(head: &mut ResponseHeader) {
    remove_nominated(head);
    for name in &HOP {
        head.remove_header(name);
    }
}

#[expect(clippy::unnecessary_box_returns, reason = "pingora's errors are boxed")]
fn bad(what: &'static str) -> Box<Error> {
    Error::explain(ErrorType::InvalidHTTPHeader, what).into_up()
}
