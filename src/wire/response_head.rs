//! Heads of responses: a server's is read as strictly as a client's (ambiguous framing is 502), and ours is written.

use std::mem::MaybeUninit;
use std::ops::Range;

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use pingora_core::protocols::http::date::get_cached_date;
use pingora_core::{Error, ErrorType, Result};
use pingora_http::ResponseHeader;
use smallvec::SmallVec;

use super::hop_by_hop::is_hop_by_hop;
use super::request_head;
use super::response_view::{ResponseHeadView, connection_options};
use crate::web::names::{Names, is_named};

/// Fields and bytes that an upstream's head may have.
const FIELDS: usize = 256;
const HEAD_BYTES: usize = 64 << 10;
/// Most heads have no more fields than this.
const USUAL_FIELDS: usize = 12;
/// Bytes after a head that are copied out of its buffer.
const COPIED: usize = 1024;

/// How a body is framed (RFC 9112, 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    Length(u64),
    Chunked,
    /// To the end of the connection.
    Close,
}

/// A server's response, as far as it has arrived.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Boxed: it passes through several hands.
    pub(crate) head: Box<Head>,
    pub(crate) framing: Framing,
    /// Whether its connection may be used again after the body.
    pub(crate) keeps: bool,
}

/// The head of a server's response. Its fields stay as they are.
#[derive(Debug)]
pub(crate) struct Head {
    status: StatusCode,
    /// All that has arrived: the head, and the bytes after it.
    bytes: BytesMut,
    end: usize,
    reason: Range<usize>,
    fields: SmallVec<[Field; USUAL_FIELDS]>,
    /// Names of the fields, so that most lookups of absent ones end here.
    names: Names,
}

#[derive(Debug)]
struct Field {
    name: Range<usize>,
    value: Range<usize>,
}

impl Head {
    fn field(&self, field: &Field) -> (&[u8], &[u8]) {
        (&self.bytes[field.name.clone()], &self.bytes[field.value.clone()])
    }

    /// A field's whole line, where it is spelled as it would be written.
    fn line(&self, Field { name, value }: &Field) -> Option<&[u8]> {
        let end = value.end + 2;
        let between = (self.bytes.get(name.end..value.start)?, self.bytes.get(value.end..end)?);
        (between == (b": ", b"\r\n")).then(|| &self.bytes[name.start..end])
    }
}

impl Answer {
    /// Bytes of the head, and of what follows it as long as that was not taken.
    pub(crate) fn length(&self) -> usize {
        self.head.bytes.len()
    }

    /// Those after the head.
    pub(crate) fn rest(&self) -> &[u8] {
        &self.head.bytes[self.head.end..]
    }

    /// Takes them out of it.
    pub(crate) fn take_rest(&mut self) -> BytesMut {
        match self.rest() {
            [] => BytesMut::new(),
            // a copy costs less than sharing
            rest if rest.len() <= COPIED => {
                let rest = BytesMut::from(rest);
                self.head.bytes.truncate(self.head.end);
                rest
            }
            _ => self.head.bytes.split_off(self.head.end),
        }
    }
}

impl Head {
    /// The head as a map, without hop-by-hop fields; `Connection` remains, because it names others. `for_h1` adds what HTTP/2 does
    /// not have: a reason, and the case of names. Values are not copied.
    pub(crate) fn into_map(self, for_h1: bool) -> Result<ResponseHeader> {
        let size = Some(self.fields.len() + 6);
        let mut head = if for_h1 {
            let mut head = ResponseHeader::build(self.status, size)?;
            head.set_reason_phrase(std::str::from_utf8(&self.bytes[self.reason.clone()]).ok())?;
            head
        } else {
            ResponseHeader::build_no_case(self.status, size)?
        };
        let bytes = self.bytes.freeze();
        let passes = |name: &[u8]| name.eq_ignore_ascii_case(b"connection") || !is_hop_by_hop(name);
        for Field { name, value } in self.fields {
            let name = &bytes[name];
            if passes(name) {
                let name = HeaderName::from_bytes(name).map_err(|_| bad("field name"))?;
                let value = HeaderValue::from_maybe_shared(bytes.slice(value)).map_err(|_| bad("field value"))?;
                head.append_header(name, value)?;
            }
        }
        Ok(head)
    }
}

impl Head {
    /// Equal lengths become one (RFC 9110, 8.6), and the coding `identity` is removed, so that one field frames the body.
    /// Lengths that differ all stay, and are rejected.
    fn tidy(&mut self) {
        let Self { bytes, fields, names, .. } = self;
        let is = |field: &Field, name: &HeaderName| is_named(&bytes[field.name.clone()], name.as_str().as_bytes());
        if names.may_have(header::TRANSFER_ENCODING.as_str().as_bytes()) {
            fields.retain(|field| {
                !(is(field, &header::TRANSFER_ENCODING) && bytes[field.value.clone()].eq_ignore_ascii_case(b"identity"))
            });
        }
        if !names.may_have(header::CONTENT_LENGTH.as_str().as_bytes()) {
            return;
        }
        let mut lengths = fields.iter().filter(|field| is(field, &header::CONTENT_LENGTH));
        let Some(first) = lengths.next().map(|field| field.value.clone()) else { return };
        let item = bytes[first.clone()].split(|&b| b == b',').next().unwrap_or_default().trim_ascii();
        let is_list = item.len() < first.len();
        if !is_list && lengths.next().is_none() {
            return;
        }
        let values = fields.iter().filter(|field| is(field, &header::CONTENT_LENGTH)).map(|field| field.value.clone());
        let mut items = values.flat_map(|value| bytes[value].split(|&b| b == b','));
        if items.all(|other| other.trim_ascii() == item) {
            let length = first.start..first.start + item.len();
            let mut is_first = true;
            fields.retain_mut(|field| {
                if !is(field, &header::CONTENT_LENGTH) {
                    return true;
                }
                field.value = length.clone();
                std::mem::take(&mut is_first)
            });
        }
    }
}

impl ResponseHeadView for Head {
    fn status(&self) -> StatusCode {
        self.status
    }

    fn values(&self, name: &HeaderName) -> impl Iterator<Item = &[u8]> {
        let name = name.as_str().as_bytes();
        let fields = if self.names.may_have(name) { &*self.fields } else { &[] };
        let fields = fields.iter().map(|field| self.field(field));
        fields.filter(move |(own, _)| is_named(own, name)).map(|(_, value)| value)
    }
}

impl ResponseHeadView for Answer {
    fn status(&self) -> StatusCode {
        self.head.status()
    }

    fn values(&self, name: &HeaderName) -> impl Iterator<Item = &[u8]> {
        self.head.values(name)
    }

    /// The framing was read from the fields.
    fn has_length(&self) -> bool {
        matches!(self.framing, Framing::Length(_))
    }
}

/// Reads the head at the front of `buffer`, and takes the buffer with it; `None` while it is incomplete. In its first `seen` bytes
/// no end was found before: a head that arrives byte by byte is not parsed each time.
pub(crate) fn read(buffer: &mut BytesMut, method: &Method, seen: usize) -> Result<Option<Answer>> {
    let parsed =
        if seen == 0 || request_head::may_end(&buffer[seen.saturating_sub(2)..]) { parse(buffer)? } else { None };
    let Some((head, version)) = parsed else {
        return if buffer.len() > HEAD_BYTES { Err(bad("head too large")) } else { Ok(None) };
    };
    let framing = framing(&*head, method)?;
    // a 204 has no body (RFC 9110, 15.3.5): a server that announces one may send it all the same
    let overhangs = head.status == StatusCode::NO_CONTENT && announces_body(&*head);
    let closes = connection_options(&*head).any(|option| option.eq_ignore_ascii_case(b"close"));
    let keeps = version == 1 && !closes && !overhangs;
    Ok(Some(Answer { head, framing, keeps }))
}

/// Takes the buffer once there is a complete head in it; the second is its minor version.
fn parse(buffer: &mut BytesMut) -> Result<Option<(Box<Head>, u8)>> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let mut config = httparse::ParserConfig::default();
    // a blank before the colon is removed (RFC 9112, 5.1)
    config.allow_spaces_after_header_name_in_responses(true);
    let end = match config.parse_response_with_uninit_headers(&mut parsed, buffer, &mut fields) {
        Ok(httparse::Status::Complete(end)) => end,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(e) => return Err(bad(unreadable(e))),
    };
    // the parser returns slices of its input
    let place = |part: &[u8]| {
        let start = part.as_ptr().addr().saturating_sub(buffer.as_ptr().addr()).min(end);
        start..(start + part.len()).min(end)
    };
    let fields = parsed.headers.iter();
    let fields = fields.map(|field| Field { name: place(field.name.as_bytes()), value: place(field.value) });
    let names = parsed.headers.iter().fold(Names::NONE, |names, field| names.with(field.name.as_bytes()));
    let (status, version) = (parsed.code.unwrap_or(0), parsed.version.unwrap_or(0));
    let status = StatusCode::from_u16(status).map_err(|_| bad("status"))?;
    let reason = parsed.reason.map_or(0..0, |reason| place(reason.as_bytes()));
    let mut head = Box::new(Head { status, reason, fields: SmallVec::new(), names, bytes: BytesMut::new(), end });
    head.fields.extend(fields);
    head.bytes = std::mem::take(buffer);
    head.tidy();
    Ok(Some((head, version)))
}

/// What the log says of a head that is not valid in HTTP/1 (RFC 9112, 4 and 5).
fn unreadable(e: httparse::Error) -> &'static str {
    match e {
        httparse::Error::HeaderName => "malformed response head: invalid field name or folded line",
        httparse::Error::HeaderValue => "malformed response head: control character in a field",
        httparse::Error::TooManyHeaders => "malformed response head: more than 256 fields",
        httparse::Error::Version => "malformed response head: not HTTP/1",
        _ => "malformed response head",
    }
}

/// Writes a server's head as the client gets it: without the fields that `drops` names, with those that are `added`, and
/// with the framing of the body that is `sent`.
pub(crate) fn write_answer<'f>(
    answer: &Answer,
    drops: impl Fn(&[u8], &[u8]) -> bool,
    added: impl Iterator<Item = (&'f HeaderName, &'f HeaderValue)>,
    (sent, close): (Framing, bool),
    out: &mut Vec<u8>,
) {
    let head = &answer.head;
    put_status(out, head.status, &head.bytes[head.reason.clone()]);
    let switches = head.status == StatusCode::SWITCHING_PROTOCOLS;
    for field in &head.fields {
        let (name, value) = head.field(field);
        if (!switches && is_hop_by_hop(name)) || drops(name, value) {
            continue;
        }
        match head.line(field) {
            Some(line) => out.extend_from_slice(line),
            None => put_field(out, name, value),
        }
    }
    for (name, value) in added {
        put_field(out, name.as_str().as_bytes(), value.as_bytes());
    }
    if sent == Framing::Chunked {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    if !head.status.is_informational() && head.values(&header::DATE).next().is_none() {
        put_field(out, b"Date", get_cached_date().as_bytes());
    }
    if close {
        out.extend_from_slice(b"Connection: close\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes a 103 with its `Link` fields and no others (RFC 8297).
pub(crate) fn write_early_hints(fields: &HeaderMap, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 103 Early Hints\r\n");
    for link in fields.get_all(header::LINK) {
        put_field(out, b"Link", link.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes the head of a reply of the gateway's, with the fields about this connection.
pub(crate) fn write_head(head: &mut ResponseHeader, close: bool, out: &mut Vec<u8>) {
    let status = head.status;
    if !status.is_informational() && !head.headers.contains_key(header::DATE) {
        let _ = head.insert_header(header::DATE, get_cached_date());
    }
    if close {
        let _ = head.insert_header(header::CONNECTION, "close");
    }
    put_status(out, status, head.get_reason_phrase().unwrap_or_default().as_bytes());
    head.header_to_h1_wire(out);
    out.extend_from_slice(b"\r\n");
}

fn put_status(out: &mut Vec<u8>, status: StatusCode, reason: &[u8]) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(reason);
    out.extend_from_slice(b"\r\n");
}

pub(crate) fn put_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// How the body is framed; ambiguous and unknown framing is rejected.
pub(crate) fn framing(head: &impl ResponseHeadView, method: &Method) -> Result<Framing> {
    let mut lengths = head.values(&header::CONTENT_LENGTH);
    let mut codings = head.values(&header::TRANSFER_ENCODING);
    let (length, coding) = (lengths.next(), codings.next());
    if lengths.next().is_some() || codings.next().is_some() || (length.is_some() && coding.is_some()) {
        return Err(bad("ambiguous framing"));
    }
    let length = match length {
        Some(digits) => Some(number(digits).ok_or_else(|| bad("content-length"))?),
        None => None,
    };
    if coding.is_some_and(|coding| !coding.eq_ignore_ascii_case(b"chunked")) {
        return Err(bad("transfer-encoding"));
    }
    let status = head.status();
    if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS && announces_body(head) {
        return Err(bad("interim response with a body"));
    }
    let bodiless = *method == Method::HEAD
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    Ok(match (length, coding) {
        _ if bodiless => Framing::Length(0),
        (_, Some(_)) => Framing::Chunked,
        (Some(length), None) => Framing::Length(length),
        (None, None) => Framing::Close,
    })
}

/// A number that consists of digits alone.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| digit - b'0')?;
        number.checked_mul(10)?.checked_add(digit.into())
    })
}

/// Whether the fields say that bytes follow the head.
fn announces_body(head: &impl ResponseHeadView) -> bool {
    head.values(&header::TRANSFER_ENCODING).next().is_some()
        || head.values(&header::CONTENT_LENGTH).any(|length| length.iter().any(|&digit| digit != b'0'))
}

#[expect(clippy::unnecessary_box_returns, reason = "pingora's errors are boxed")]
fn bad(what: &'static str) -> Box<Error> {
    Error::explain(ErrorType::InvalidHTTPHeader, what).into_up()
}
