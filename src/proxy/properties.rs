//! What must hold for any bytes that a client sends: see `web::properties`.

#![allow(clippy::expect_used, reason = "a property that does not hold panics")]

use std::path::PathBuf;
use std::sync::LazyLock;

use bytes::BytesMut;
use http::HeaderMap;

pub use super::h1::properties::answer;
use crate::account::User;
use crate::config::{self, Config};
use crate::policy::header_filter::HeaderFilter;
use crate::policy::normalize::{self, Peer};
use crate::policy::request_headers::{self, ForwardContext};
use crate::web::first_line::readable;
use crate::web::names::Names;
use crate::wire::request_head::{self, Head, Read};
use crate::wire::websocket_frames::FrameTracker;

/// A gateway of nothing but defaults, and an upstream with names of its own.
static CONFIG: LazyLock<Config> = LazyLock::new(|| {
    let text = "[[upstream]]\nname = \"app\"\nservers = [\"127.0.0.1:9\"]\nallow_headers = [\"x_plain\", \"x_user_role\"]\n\
                identity = { \"X-User-Role\" = \"{groups}\" }\n[[route]]\nupstream = \"app\"\n";
    config::parse(text, "a property", PathBuf::new(), &|_| None).expect("a configuration")
});

/// The head at the front of some bytes and how long it is.
fn take(bytes: &[u8]) -> Option<(Head, usize)> {
    let Read::Complete(complete) = request_head::read(bytes, 0, &CONFIG.limits) else { return None };
    let mut buffer = BytesMut::from(bytes);
    let head = complete.take(&mut buffer).ok()?;
    Some((*head, bytes.len() - buffer.len()))
}

/// The header filter of that gateway.
pub(super) static STRIPPER: LazyLock<HeaderFilter> = LazyLock::new(|| HeaderFilter::new(&CONFIG));

pub(super) type Fields = Vec<(String, Vec<u8>)>;

fn sorted(headers: &HeaderMap) -> Fields {
    let mut list: Fields = headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect();
    list.sort();
    list
}

/// An accepted head has only one reading: a strict and a lenient reader agree on it and on the lines that are forwarded
/// (CWE-444).
///
/// # Panics
/// Where it is read in two ways.
pub fn head(bytes: &[u8]) {
    let Some((head, length)) = take(bytes) else { return };
    let mut fields = [httparse::EMPTY_HEADER; 256];
    let mut other = httparse::Request::new(&mut fields);
    // it wants UTF-8 in queries, too
    let line = readable(bytes);
    let complete = other.parse(&line).expect("httparse refuses what we take");
    assert_eq!(complete, httparse::Status::Complete(length));
    assert_eq!(other.method, Some(head.parsed.method.as_str()));
    let target = [b" ", crate::wire::request_target::of(&head.parsed)].concat();
    assert_eq!(other.path.map(str::as_bytes), Some(&readable(&target)[1..]));
    let mut read: Fields =
        other.headers.iter().map(|field| (field.name.to_ascii_lowercase(), field.value.to_vec())).collect();
    let lines: Fields = head
        .fields()
        .map(|(name, line)| {
            (String::from_utf8_lossy(name).to_ascii_lowercase(), line[name.len() + 1..].trim_ascii().to_vec())
        })
        .collect();
    assert_eq!(lines, read);
    let (start, lenient) = lenient(&bytes[..length]);
    assert_eq!(lenient, read, "a lenient reader");
    assert!(matches!(start.as_slice(), [method, target, _]
        if *method == head.parsed.method.as_str().as_bytes() && *target == crate::wire::request_target::of(&head.parsed)));
    let target = crate::wire::request_target::of(&head.parsed).len();
    if normalize::check(&head.parsed, target, length, &CONFIG.limits).is_ok() {
        framed_alike(&read);
        hosted_alike(&head, &read);
    }
    read.sort();
    assert_eq!(sorted(&head.parsed.headers), read);
}

/// What a reader makes of a head that forgives everything: lines end at CR, LF or NUL, one that begins with white
/// space goes on the line before, and white space and controls around names and values are nothing.
pub(super) fn lenient(bytes: &[u8]) -> (Vec<&[u8]>, Fields) {
    let blank = |b: &u8| *b <= b' ' || *b == 0x7f;
    let trim = |bytes: &[u8]| {
        let start = bytes.iter().position(|b| !blank(b)).unwrap_or(bytes.len());
        let end = bytes.iter().rposition(|b| !blank(b)).map_or(start, |at| at + 1);
        bytes[start..end].to_vec()
    };
    let mut lines = bytes.split(|b| b"\r\n\0".contains(b)).filter(|line| !line.is_empty());
    let start = lines.next().unwrap_or_default().split(blank).filter(|part| !part.is_empty()).collect();
    let mut fields = Fields::new();
    for line in lines {
        if let (true, Some((_, value))) = (blank(&line[0]), fields.last_mut()) {
            value.extend(trim(line));
            continue;
        }
        let colon = line.iter().position(|b| *b == b':').unwrap_or(line.len());
        let name = String::from_utf8_lossy(&trim(&line[..colon])).to_ascii_lowercase();
        fields.push((name, trim(line.get(colon + 1..).unwrap_or_default())));
    }
    (start, fields)
}

/// How long the body is, as readers find it that take the first or the last length, read numbers as C does, and see
/// a coding wherever its name stands (RFC 9112, 6.3).
pub(super) fn framed_alike(fields: &Fields) {
    let of =
        |wanted: &'static str| fields.iter().filter(move |(name, _)| name == wanted).map(|(_, value)| value.as_slice());
    let number = |value: &[u8]| {
        let digits = value.strip_prefix(b"+").unwrap_or(value);
        let end = digits.iter().position(|b| !b.is_ascii_digit()).unwrap_or(digits.len());
        String::from_utf8_lossy(&digits[..end]).parse::<u64>().ok()
    };
    let (first, last) = (of("content-length").next().map(number), of("content-length").next_back().map(number));
    let strict = of("content-length").next().map(|value| std::str::from_utf8(value).ok()?.parse::<u64>().ok());
    assert!(first == last && first == strict && first != Some(None), "{first:?} {last:?} {strict:?}");
    let mentions = |value: &[u8]| value.to_ascii_lowercase().windows(7).any(|seven| seven == b"chunked");
    let (coded, chunked) = (of("transfer-encoding").count(), of("transfer-encoding").filter(|v| mentions(v)).count());
    assert!(coded == chunked && coded <= 1 && (coded == 0 || first.is_none()), "one framing");
}

/// Which host is asked for, as a reader of URLs finds it.
fn hosted_alike(head: &Head, fields: &Fields) {
    let mut parsed = head.parsed.clone();
    let Ok(facts) = normalize::read(&mut parsed, 0, Peer::default(), None, &CONFIG) else { return };
    let said: Vec<_> = fields.iter().filter(|(name, _)| name == "host").map(|(_, value)| value).collect();
    assert_eq!(said.len(), 1, "one Host (RFC 9112, 3.2)");
    let Ok(url) = url::Url::parse(&format!("http://{}/", String::from_utf8_lossy(said[0]))) else { return };
    // a name of digits is an address for browsers, and written anew
    if let Some(url::Host::Domain(name)) = url.host() {
        assert_eq!(name.strip_suffix('.').unwrap_or(name), facts.host.name());
        assert_eq!(url.port_or_known_default(), facts.host.port().or(Some(80)));
    }
}

/// What CGI, WSGI, Rack and PHP make of a field's name: every other byte becomes `_`.
fn folded(name: &[u8]) -> String {
    name.iter().map(|b| if b.is_ascii_alphanumeric() { char::from(b.to_ascii_uppercase()) } else { '_' }).collect()
}

/// Names of identity headers that a backend may trust, folded. Written out here independently of the code under test.
const BELIEVED: [&str; 28] = [
    "REMOTE_USER",
    "REMOTE_EMAIL",
    "REMOTE_NAME",
    "REMOTE_GROUPS",
    "REMOTE_ID",
    "X_AUTH_REQUEST_USER",
    "X_AUTH_REQUEST_EMAIL",
    "X_AUTH_REQUEST_GROUPS",
    "X_AUTH_REQUEST_PREFERRED_USERNAME",
    "X_FORWARDED_USER",
    "X_FORWARDED_EMAIL",
    "X_FORWARDED_GROUPS",
    "X_FORWARDED_PREFERRED_USERNAME",
    "X_USER_ROLE",
    "X_FORWARDED_FOR",
    "X_FORWARDED_PROTO",
    "X_FORWARDED_HOST",
    "X_FORWARDED_SERVER",
    "X_FORWARDED_PORT",
    "X_FORWARDED_PREFIX",
    "X_REQUEST_ID",
    "X_REAL_IP",
    "FORWARDED",
    "X_CLIENT_IP",
    "TRUE_CLIENT_IP",
    "CF_CONNECTING_IP",
    "X_ORIGINAL_URL",
    "X_REWRITE_URL",
];
const BELIEVED_PREFIXES: [&str; 3] = ["X_AUTHGATE_", "X_INVOKE_", "X_MIDDLEWARE_"];

/// Nothing that a client says about who it is reaches an upstream, under any name that a backend could
/// fold onto one that it believes (CVE-2025-64484, CVE-2026-39858), and no cookie of ours.
///
/// # Panics
/// Where something does.
pub fn stripped(bytes: &[u8]) {
    let Some((head, _)) = take(bytes) else { return };
    let user =
        User::new("7".into(), "ada@example.com".into(), "Ada".into(), String::new(), vec!["staff".into()], false);
    for user in [None, Some(&user)] {
        let told = ForwardContext {
            upstream: &CONFIG.upstreams[0],
            user,
            token: None,
            provider_token: None,
            foreign: None,
            drops_cookies: false,
            handshake: None,
            peer: Some("127.0.0.1"),
            trusted: false,
            scheme: "http",
            host: "app.example.com",
            request_id: "0123456789abcdef",
            names: Names::of(&head.parsed.headers),
            via: "here",
            prefix: "",
            host_override: None,
            port: "80".into(),
        };
        let changes = request_headers::changes(
            &head.parsed.headers,
            crate::wire::request_target::of(&head.parsed),
            &STRIPPER,
            &told,
        );
        for (name, line) in head.fields().filter(|(name, _)| changes.keeps(name)) {
            let folded = folded(name);
            let shown = String::from_utf8_lossy(line);
            assert!(!BELIEVED.contains(&folded.as_str()), "{shown}");
            assert!(!BELIEVED_PREFIXES.iter().any(|prefix| folded.starts_with(prefix)), "{shown}");
            assert!(folded != "COOKIE" || !holds_ours(&line[name.len() + 1..]), "{shown}");
            let plain = name.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-');
            assert!(plain || name.eq_ignore_ascii_case(b"x_plain"), "{shown}");
        }
        for (name, value) in changes.fields() {
            assert!(name != "Cookie" || !holds_ours(value), "{value:?}");
        }
        let role = changes.fields().filter(|(name, _)| name.eq_ignore_ascii_case("x-user-role"));
        assert_eq!(role.count(), usize::from(user.is_some()));
    }
}

/// Whether a lenient reader of cookies finds one of ours: it trims all white space.
fn holds_ours(value: &[u8]) -> bool {
    let value = String::from_utf8_lossy(value);
    value.split(';').any(|item| {
        let name = item.split('=').next().unwrap_or_default().trim();
        matches!(name, "authgate" | "__Host-authgate" | "__Secure-authgate" | "__Host-authgate-device")
    })
}

/// The borders of WebSocket frames are where a reader of the whole stream finds them, however it is cut.
///
/// # Panics
/// Where they are not.
pub fn frames(bytes: &[u8]) {
    let Some((&cut, stream)) = bytes.split_first() else { return };
    let borders = borders(stream);
    let mut by_byte = FrameTracker::default();
    for (at, byte) in stream.iter().enumerate() {
        assert_eq!(by_byte.at_border(), borders.binary_search(&at).is_ok(), "at {at}");
        by_byte.feed(&[*byte]);
    }
    let mut in_pieces = FrameTracker::default();
    for piece in stream.chunks(usize::from(cut).max(1)) {
        assert_eq!(in_pieces.feed(piece), piece.len());
    }
    assert_eq!((in_pieces.at_border(), in_pieces.closed()), (by_byte.at_border(), by_byte.closed()));
    let mut by_frame = FrameTracker::default();
    let mut at = 0;
    while at < stream.len() {
        at += by_frame.feed_frame(&stream[at..]);
        assert!(borders.binary_search(&at).is_ok() || at == stream.len(), "at {at}");
    }
}

/// Where frames begin (RFC 6455, 5.2).
fn borders(stream: &[u8]) -> Vec<usize> {
    let mut at = 0_u64;
    let mut found = vec![0];
    let byte = |at: u64| usize::try_from(at).ok().and_then(|at| stream.get(at)).copied().map(u64::from);
    while let Some(second) = at.checked_add(1).and_then(byte) {
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        let bytes_of_length = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mut length = if bytes_of_length == 0 { second & 0x7f } else { 0 };
        for step in 0..bytes_of_length {
            let Some(next) = byte(at + 2 + step) else { return found };
            length = length << 8 | next;
        }
        let Some(end) = at.checked_add(2 + bytes_of_length + mask).and_then(|end| end.checked_add(length)) else {
            return found;
        };
        at = end;
        match usize::try_from(at) {
            Ok(at) => found.push(at),
            Err(_) => return found,
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::web::properties::{holds_for_the_seeds, pieces};

    #[test]
    fn they_hold_for_the_seeds() {
        holds_for_the_seeds("head", head);
        holds_for_the_seeds("stripped", stripped);
        holds_for_the_seeds("frames", frames);
    }

    const NAMES: &[&str] = &[
        "Remote-User",
        "remote_user",
        "REMOTE.USER",
        "X_Forwarded-For",
        "x.auth.request.email",
        "X-User_Role",
        "x_plain",
        "X-Authgate-Via",
        "x_authgate_x",
        "X-Middleware-Subrequest",
        "Cookie",
        "cookie",
        "CF_Connecting_IP",
        "Forwarded",
        "X-Real-IP",
        "x",
        "-",
        "_",
        ".",
        ": ",
        ": a",
        "\r\n",
        "\r\n",
        "\r\n",
        "authgate=x",
        "; ",
        " __Host-authgate=x",
        "\u{a0}authgate=x",
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn no_spelling_of_an_identity_arrives(lines in pieces(NAMES, 16)) {
            stripped(&[b"GET / HTTP/1.1\r\nHost: a\r\n", lines.as_slice(), b"\r\n\r\n"].concat());
        }

        #[test]
        fn frames_end_where_they_end(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            frames(&bytes);
        }
    }
}
