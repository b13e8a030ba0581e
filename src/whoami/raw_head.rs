//! A request head as it was sent: names in their own case, fields in their own order, bytes that are no text. hyper keeps
//! none of these, so the head is parsed a second time, from the bytes that hyper was given.

/// Fields in a head; also hyper's limit here.
pub(super) const FIELDS_MAX: usize = 200;

/// A request head as received.
#[derive(Debug, Default)]
pub(super) struct RawHead {
    pub(super) method: String,
    /// The whole request target, query included.
    pub(super) target: String,
    pub(super) is_http_11: bool,
    /// In order, names in the case they came in.
    pub(super) fields: Vec<(String, Vec<u8>)>,
}

impl RawHead {
    /// Parses a whole head. hyper reads the same bytes with the same parser, except for the target, which only has to be
    /// a URI for hyper; `readable` is the head with such a target.
    pub(super) fn parse(bytes: &[u8], readable: &[u8]) -> Option<Self> {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut request = httparse::Request::new(&mut fields);
        request.parse(readable).ok().filter(httparse::Status::is_complete)?;
        Some(Self {
            method: request.method?.to_owned(),
            target: String::from_utf8_lossy(&bytes[target(bytes)]).into_owned(),
            is_http_11: request.version == Some(1),
            fields: request.headers.iter().map(|field| (field.name.to_owned(), field.value.to_vec())).collect(),
        })
    }

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

    /// Whether the body has one length that all parsers agree on (RFC 9112, 6.3). hyper is more lenient.
    pub(super) fn is_clearly_framed(&self) -> bool {
        let codings_are_plain = self.values("transfer-encoding").all(|coding| coding.eq_ignore_ascii_case(b"chunked"));
        codings_are_plain && self.values("content-length").chain(self.values("transfer-encoding")).count() <= 1
    }
}

/// Where the head at the start of `bytes` ends, if it does: behind its first empty line (as httparse reads it, which also
/// accepts a bare LF). Empty lines before the request line are a head of their own; hyper skips them.
pub(super) fn end(bytes: &[u8]) -> Option<usize> {
    memchr::memchr_iter(b'\n', bytes).find_map(|at| match &bytes[at + 1..] {
        [b'\n', ..] => Some(at + 2),
        [b'\r', b'\n', ..] => Some(at + 3),
        _ => None,
    })
}

/// The same head with a target that hyper accepts, of the same length. Backends receive targets that are no URI.
pub(super) fn with_readable_target(head: &[u8]) -> Vec<u8> {
    let (mut bytes, target) = (head.to_vec(), target(head));
    if http::Uri::try_from(&head[target.clone()]).is_err() {
        let letters = bytes[target].iter_mut().skip(1).filter(|byte| !byte.is_ascii_alphanumeric());
        letters.for_each(|byte| *byte = b'x');
    }
    bytes
}

/// Where the target is: between the blanks of the first line that is not empty.
fn target(head: &[u8]) -> std::ops::Range<usize> {
    let line = head.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(head.len());
    let end = memchr::memchr(b'\n', &head[line..]).map_or(head.len(), |at| line + at);
    let start = memchr::memchr(b' ', &head[line..end]).map_or(end, |at| line + at + 1);
    start..memchr::memchr(b' ', &head[start..end]).map_or(end, |at| start + at)
}
