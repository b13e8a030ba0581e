//! The strict reader of request heads (RFC 9112, 2 to 5). What two parsers could read differently is
//! refused here, before anything is decided: bare CR or LF, folded lines, odd request lines, bytes
//! that some parsers drop. What the fields mean is decided elsewhere, for every protocol alike.

use std::borrow::Cow;
use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};
use pingora_http::RequestHeader;

use super::head_error::BadHead;
use super::request_target;
use crate::config::Limits;
use crate::web::first_line::readable;

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
    Complete(CompleteHead),
}

/// Where a head ends, and how many lines it has; `None`: one of them does not end in CR LF.
#[derive(Debug)]
pub(crate) struct CompleteHead {
    end: usize,
    lines: Option<usize>,
}

impl CompleteHead {
    /// Parses the head and takes its bytes out of the buffer that it was found in.
    pub(crate) fn take(&self, buffer: &mut BytesMut) -> Result<Box<Head>, BadHead> {
        // each CR is followed by an LF: there are no others
        if self.lines != Some(memchr::memchr_iter(b'\r', &buffer[..self.end]).count()) {
            return Err(BadHead::Ambiguous("line end"));
        }
        // a rejected head stays there: the form of the response depends on it
        let bytes = buffer.split_to(self.end).freeze();
        parse(&bytes).inspect_err(|_| {
            let rest = std::mem::replace(buffer, BytesMut::from(bytes));
            buffer.unsplit(rest);
        })
    }
}

/// A head, parsed and as it came.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) parsed: RequestHeader,
    pub(crate) bytes: Bytes,
}

impl Head {
    /// Drops what is not needed for an access line: all but the method and the target.
    pub(crate) fn drop_fields(&mut self) {
        let bare = request_target::head_with(self.parsed.method.clone(), request_target::of(&self.parsed));
        if let Ok(bare) = bare {
            *self = Self { parsed: bare, bytes: Bytes::new() };
        }
    }

    /// Whether it has lines. A head from HTTP/2 has none, and no spelling of names.
    pub(crate) fn has_lines(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// Name and whole line of each field, in the order and the letters in which they came.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut start = 0;
        let lines = memchr::memchr_iter(b'\n', &self.bytes).map(move |end| {
            let line = &self.bytes[start..=end];
            start = end + 1;
            line
        });
        // names are short: for them a search that is prepared costs more than one that is not
        lines.skip(1).filter_map(|line| Some((&line[..line.iter().position(|&byte| byte == b':')?], line)))
    }
}

/// Reads the head at the start of `bytes`; empty lines before it are to be cut by [`blank_lines`]. The first `seen`
/// bytes are known to contain no end, so a head that arrives byte by byte is not searched from its start each time.
pub(crate) fn read(bytes: &[u8], seen: usize, limits: &Limits) -> Read {
    // half an empty line
    if bytes == b"\r" {
        return Read::Partial;
    }
    if bytes.first().is_some_and(|&first| !is_token(first)) {
        return Read::Bad(BadHead::Ambiguous("request line"));
    }
    let complete = if seen == 0 || may_end(&bytes[seen.saturating_sub(2)..]) { end_of_head(bytes) } else { None };
    match complete {
        Some(complete) => Read::Complete(complete),
        None => too_large(bytes, limits).map_or(Read::Partial, Read::Bad),
    }
}

/// Whether a head can end here, at a bare LF as well.
pub(crate) fn may_end(bytes: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', bytes).any(|at| matches!(bytes[at + 1..], [b'\n', ..] | [b'\r', b'\n', ..]))
}

/// Whether a person looks at the answer to a head that is refused before its end: this decides how it looks, and
/// nothing else.
pub(crate) fn wants_page(bytes: &[u8]) -> bool {
    let field = |name: &str| {
        bytes.split(|&b| b == b'\n').skip(1).find_map(|line| {
            let (own, value) = line.split_at_checked(name.len())?;
            own.eq_ignore_ascii_case(name.as_bytes()).then(|| value.trim_ascii())
        })
    };
    match field("sec-fetch-mode:") {
        Some(mode) => mode == b"navigate",
        None => field("accept:").is_some_and(|kinds| kinds.starts_with(b"text/html")),
    }
}

/// Bytes of empty lines before a request line, which are ignored (RFC 9112, 2.2).
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

fn end_of_head(bytes: &[u8]) -> Option<CompleteHead> {
    let (mut plain, mut lines, mut from) = (true, 0, 0);
    while let Some(at) = memchr::memchr(b'\n', &bytes[from..]) {
        let line = &bytes[from..from + at];
        from += at + 1;
        lines += 1;
        plain &= line.ends_with(b"\r");
        // a bare LF may end a head for other parsers: it ends here, and is refused
        if lines > 1 && matches!(line, b"" | b"\r") {
            return Some(CompleteHead { end: from, lines: plain.then_some(lines) });
        }
    }
    None
}

fn parse(received: &Bytes) -> Result<Box<Head>, BadHead> {
    let bad = BadHead::Ambiguous("head");
    let bytes = match readable(received) {
        Cow::Borrowed(_) => received.clone(),
        Cow::Owned(bytes) => bytes.into(),
    };
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(&bytes, &mut fields) {
        Ok(httparse::Status::Complete(_)) => {}
        Err(httparse::Error::TooManyHeaders) => return Err(BadHead::TooLarge),
        Err(httparse::Error::Version) => return Err(BadHead::Ambiguous("version")),
        Ok(httparse::Status::Partial) | Err(_) => return Err(bad),
    }
    let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else {
        return Err(bad);
    };
    // a target has no fragment (RFC 3986, 3.5); non-ASCII bytes are checked when the path is read
    if !target.bytes().all(|b| b > b' ' && b != 0x7f && b != b'#') {
        return Err(BadHead::Ambiguous("target"));
    }
    let target = received.slice(method.len() + 1..method.len() + 1 + target.len());
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| bad)?;
    let mut headers = HeaderMap::with_capacity(request.headers.len());
    for field in &*request.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| bad)?;
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(field.value)).map_err(|_| bad)?;
        headers.append(name, value);
    }
    let version = if version == 0 { Version::HTTP_10 } else { Version::HTTP_11 };
    match request_target::head_of(method, &target, version, headers) {
        Ok(parsed) => Ok(Box::new(Head { parsed, bytes: received.clone() })),
        Err(_) => Err(BadHead::Ambiguous("target")),
    }
}

/// RFC 9110, 5.6.2.
pub(crate) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::normalize;

    const LIMITS: usize = 32 << 10;

    fn limits() -> Limits {
        crate::config::one_app("http://127.0.0.1:9", None, None).unwrap().limits
    }

    /// The head at the front of `bytes` and the rest; `None` if it is rejected or incomplete.
    fn take(bytes: &[u8]) -> Option<(Head, Vec<u8>)> {
        let Read::Complete(complete) = read(bytes, 0, &limits()) else { return None };
        let mut buffer = BytesMut::from(bytes);
        let head = complete.take(&mut buffer).ok()?;
        Some((*head, buffer.to_vec()))
    }

    #[test]
    fn a_head_is_taken_with_its_letters_and_order_and_nothing_behind_it() {
        let bytes = b"POST /a?b=c HTTP/1.1\r\nHost: a\r\nX-Odd:  1 \r\nhost-like: x\r\n\r\nbody";
        let (head, rest) = take(bytes).unwrap();
        assert_eq!((head.parsed.method.as_str(), head.parsed.raw_path()), ("POST", &b"/a?b=c"[..]));
        assert_eq!(head.parsed.headers["x-odd"], "1");
        let lines: Vec<_> = head.fields().map(|(_, line)| line).collect();
        assert_eq!(lines, [&b"Host: a\r\n"[..], b"X-Odd:  1 \r\n", b"host-like: x\r\n"]);
        assert_eq!(rest, b"body");
        for end in 1..bytes.len() - 4 {
            assert!(matches!(read(&bytes[..end], 0, &limits()), Read::Partial), "{end}");
        }
    }

    /// RFC 9112, 2.2 and 5; CWE-444.
    #[test]
    fn what_two_parsers_could_read_differently_is_refused() {
        for head in [
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\n\n",
            "GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n X: b\r\n\r\n",
            "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            "GET / HTTP/1.1\r\n: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost\r\n\r\n",
            "GET / HTTP/1.1\r\nX: a\0b\r\n\r\n",
            "GET / HTTP/1.1\r\nX\u{e9}: a\r\n\r\n",
            "GET  / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1 \r\n\r\n",
            "GET /\t HTTP/1.1\r\n\r\n",
            "GET /a b HTTP/1.1\r\n\r\n",
            "GET /#a HTTP/1.1\r\n\r\n",
            "GET /\u{7f} HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.2\r\n\r\n",
            "GET / HTTP/2.0\r\n\r\n",
            "GET / http/1.1\r\n\r\n",
            "GET /\r\n\r\n",
            " GET / HTTP/1.1\r\n\r\n",
            "G\u{0}T / HTTP/1.1\r\n\r\n",
        ] {
            assert!(take(head.as_bytes()).is_none(), "{head:?}");
        }
    }

    #[test]
    fn a_head_without_end_is_refused_at_the_limit() {
        let bad = |bytes: &[u8]| matches!(read(bytes, 0, &limits()), Read::Bad(_));
        let line = [b"GET /", vec![b'a'; LIMITS].as_slice()].concat();
        assert!(matches!(read(&line, 0, &limits()), Read::Bad(BadHead::TargetTooLong)));
        let fields = [b"GET / HTTP/1.1\r\nX: ", vec![b'a'; LIMITS].as_slice()].concat();
        assert!(matches!(read(&fields, 0, &limits()), Read::Bad(BadHead::TooLarge)));
        assert!(bad(b"\x16\x03\x01"));
        assert!(!bad(b"GET"));
    }

    /// A request line and fields that are nearly right: pieces of heads in any order.
    fn nearly_heads() -> impl Strategy<Value = Vec<u8>> {
        let piece = proptest::sample::select(vec![
            &b"\r\n"[..],
            b"\r\n",
            b"\r\n",
            b"\n",
            b"\r",
            b" ",
            b"\t",
            b":",
            b"\0",
            b",",
            b"\xff",
            b"Host: a\r\n",
            b"Host: a\r\n",
            b"Content-Length: 3\r\n",
            b"content-length:+3\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"X-A: b",
            b"chunked",
            b"GET / HTTP/1.1\r\n",
            b"HTTP/1.1",
            b"/a",
        ]);
        (any::<bool>(), proptest::collection::vec(piece, 0..12)).prop_map(|(lined, pieces)| {
            let start: &[u8] = if lined { b"POST /x HTTP/1.1\r\n" } else { b"" };
            [start, &pieces.concat(), b"\r\n\r\n"].concat()
        })
    }

    type Fields = Vec<(String, Vec<u8>)>;

    /// What httparse reads in these bytes: method, target, fields, length.
    fn by_httparse(bytes: &[u8]) -> Option<(String, String, Fields, usize)> {
        let mut fields = [httparse::EMPTY_HEADER; 64];
        let mut request = httparse::Request::new(&mut fields);
        let Ok(httparse::Status::Complete(length)) = request.parse(bytes) else { return None };
        let fields = request.headers.iter().map(|field| (field.name.to_lowercase(), field.value.to_vec())).collect();
        Some((request.method?.to_owned(), request.path?.to_owned(), fields, length))
    }

    /// What pingora's parser reads in these bytes.
    fn by_pingora(bytes: &[u8]) -> Option<RequestHeader> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (mut ours, theirs) = tokio::io::duplex(64 << 10);
        runtime.block_on(async {
            tokio::io::AsyncWriteExt::write_all(&mut ours, bytes).await.unwrap();
            drop(ours);
            let mut session = pingora_core::protocols::http::ServerSession::new_http1(Box::new(theirs));
            session.read_request().await.ok().filter(|read| *read)?;
            Some(session.req_header().clone())
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// Never two readings of one message: httparse and pingora read alike what is accepted, and the
        /// lines that are sent on say the same.
        #[test]
        fn every_head_that_is_taken_is_read_alike_by_others(bytes in nearly_heads()) {
            let Some((head, rest)) = take(&bytes) else { return Ok(()) };
            let (method, target, fields, length) = by_httparse(&bytes).expect("httparse refuses it");
            prop_assert_eq!(head.parsed.method.as_str(), method);
            prop_assert_eq!(head.parsed.raw_path(), target.as_bytes());
            prop_assert_eq!(bytes.len() - rest.len(), length);
            let lines: Vec<_> = head
                .fields()
                .map(|(name, line)| {
                    let value = line[name.len() + 1..].trim_ascii().to_vec();
                    (String::from_utf8_lossy(name).to_lowercase(), value)
                })
                .collect();
            prop_assert_eq!(&lines, &fields);
            let mut parsed: Vec<_> =
                head.parsed.headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect();
            let mut sorted = fields.clone();
            sorted.sort();
            parsed.sort();
            prop_assert_eq!(&parsed, &sorted);
            // pingora takes away a length beside a coding; such heads are refused before they reach it
            if normalize::check(&head.parsed, target.len(), length, &limits()).is_ok() && !sorted.is_empty()
                && let Some(theirs) = by_pingora(&bytes)
            {
                let mut theirs: Vec<_> =
                    theirs.headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect();
                theirs.sort();
                prop_assert_eq!(theirs, sorted);
            }
        }

        #[test]
        fn any_bytes_are_checked_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = take(&bytes);
        }

        /// However it is cut into packets, it ends where it ends.
        #[test]
        fn a_head_that_comes_in_pieces_is_the_same_head(bytes in nearly_heads(), piece in 1usize..9) {
            let (mut seen, mut received) = (0, 0);
            let found = loop {
                received = bytes.len().min(received + piece);
                match read(&bytes[..received], seen, &limits()) {
                    Read::Partial if received < bytes.len() => seen = received,
                    found => break found,
                }
            };
            let at_once = read(&bytes[..received], 0, &limits());
            prop_assert_eq!(format!("{found:?}"), format!("{at_once:?}"));
            if let Read::Complete(complete) = found {
                let Read::Complete(all) = read(&bytes, 0, &limits()) else { panic!("no head in all of them") };
                prop_assert_eq!(complete.end, all.end);
            }
        }
    }
}
