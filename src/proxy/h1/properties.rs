//! What must hold for any bytes that a server sends: see `web::properties`.

#![allow(clippy::expect_used, reason = "a property that does not hold panics")]

use bytes::BytesMut;
use http::Method;

use crate::policy::cors::CorsAnswer;
use crate::policy::response_headers::ResponseHeaderPolicy;
use crate::proxy::properties::{Fields, STRIPPER, framed_alike, lenient};
use crate::wire::chunked::Chunks;
use crate::wire::response_head::{self, Framing};

/// What a client gets of an answer is read in one way, whatever the server sent: one head with one framing, no
/// cookie of ours, and of a chunked body the data that another reader finds in it (CWE-113, CWE-444).
///
/// # Panics
/// Where it is not.
pub fn answer(bytes: &[u8]) {
    let Some((&how, sent)) = bytes.split_first() else { return };
    let method = if how & 1 == 0 { Method::GET } else { Method::HEAD };
    let mut buffer = BytesMut::from(sent);
    let Ok(Some(answer)) = response_head::read(&mut buffer, &method, 0) else { return };
    let changes = ResponseHeaderPolicy::new(&STRIPPER, &CorsAnswer::Nobody, &*answer.head);
    let mut out = Vec::new();
    // a client that knows no chunks
    let sent = if how & 4 != 0 && answer.framing == Framing::Chunked { Framing::Close } else { answer.framing };
    changes.write(&answer, sent, how & 2 == 0, &mut out);
    let mut fields = [httparse::EMPTY_HEADER; 512];
    let mut written = httparse::Response::new(&mut fields);
    assert_eq!(written.parse(&out).expect("a head"), httparse::Status::Complete(out.len()));
    let strict: Fields =
        written.headers.iter().map(|field| (field.name.to_ascii_lowercase(), field.value.to_vec())).collect();
    assert_eq!(lenient(&out).1, strict, "a lenient reader");
    for (_, value) in strict.iter().filter(|(name, _)| name == "set-cookie") {
        assert!(!sets_ours(value), "{:?}", String::from_utf8_lossy(value));
    }
    if written.code.is_some_and(|code| code >= 200) {
        framed_alike(&strict);
        assert!(strict.iter().all(|(name, _)| !["upgrade", "keep-alive", "trailer"].contains(&name.as_str())));
        let chunked = strict.iter().any(|(name, _)| name == "transfer-encoding");
        assert_eq!(chunked, sent == Framing::Chunked);
    }
    chunks(answer.rest(), usize::from(how >> 3) + 1);
}

/// Whether a browser would keep one of ours (RFC 6265bis, 5.6: it trims blanks and tabs alone): without a name it comes
/// back as its value alone.
fn sets_ours(value: &[u8]) -> bool {
    let pair = String::from_utf8_lossy(value.split(|b| *b == b';').next().unwrap_or_default()).into_owned();
    let (name, value) = pair.split_once('=').unwrap_or(("", &pair));
    let sent =
        if name.trim_ascii().is_empty() { value.trim_ascii().to_owned() } else { format!("{}=", name.trim_ascii()) };
    ["", "__Host-", "__Secure-"].iter().any(|prefix| sent.starts_with(&format!("{prefix}authgate=")))
}

/// The data of a chunked body, however it is cut: another reader finds the same, and the same end.
fn chunks(body: &[u8], piece: usize) {
    let (mut ours, mut data, mut at) = (Chunks::default(), Vec::new(), 0);
    while at < body.len() && !ours.is_done() {
        let end = body.len().min(at + piece);
        let Ok((taken, range)) = ours.take(&body[at..end]) else { return };
        data.extend_from_slice(&body[at..end][range]);
        at += taken;
    }
    if ours.is_done() {
        assert_eq!(by_lines(body), Some((data, at)));
    }
}

/// Data and length of a chunked body by RFC 9112, 7.1, line by line.
fn by_lines(body: &[u8]) -> Option<(Vec<u8>, usize)> {
    let line = |at: usize| {
        let end = at + body.get(at..)?.windows(2).position(|two| two == b"\r\n")?;
        Some((&body[at..end], end + 2))
    };
    let (mut data, mut at) = (Vec::new(), 0);
    loop {
        let (size, start) = line(at)?;
        let digits = std::str::from_utf8(size.split(|b| *b == b';').next()?).ok()?;
        let length = usize::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+'))?;
        at = start;
        if length == 0 {
            break;
        }
        let rest = body.get(at..)?.split_at_checked(length)?;
        data.extend_from_slice(rest.0);
        at += rest.1.starts_with(b"\r\n").then_some(length + 2)?;
    }
    loop {
        let (trailer, next) = line(at)?;
        at = next;
        if trailer.is_empty() {
            return Some((data, at));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::web::properties::{holds_for_the_seeds, pieces};

    #[test]
    fn it_holds_for_the_seeds() {
        holds_for_the_seeds("answer", answer);
    }

    #[test]
    fn the_models_see_what_they_are_there_to_see() {
        assert!(sets_ours(b"=authgate=x; Path=/"));
        assert!(sets_ours(b" __Host-authgate = x"));
        assert!(!sets_ours(b"a=authgate=x"));
        assert!(!sets_ours("\u{85}=authgate=x".as_bytes()), "a name of a character beyond ASCII is one");
        assert_eq!(by_lines(b"2;a\r\nab\r\n0\r\nX: y\r\n\r\nz"), Some((b"ab".to_vec(), 20)));
        assert_eq!(by_lines(b"+2\r\nab\r\n0\r\n\r\n"), None);
        assert_eq!(lenient(b"HTTP/1.1 200 OK\r\nA: b\rC : d\r\n e\r\n\r\n").1.len(), 2);
    }

    const PIECES: &[&str] = &[
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.0 204 \r\n",
        "HTTP/1.1 101 Up\r\n",
        "Content-Length: 3\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Connection: x-a\r\n",
        "Set-Cookie: ",
        "authgate=x",
        "__Host-",
        "=",
        ";",
        "X-A: b",
        "\r\n",
        "\r\n",
        "\r\n\r\n",
        "\n",
        "\r",
        " ",
        "\t",
        "3\r\nabc\r\n",
        "0\r\n\r\n",
        "a;b\r\n",
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn an_answer_is_passed_on_in_one_reading(how in any::<u8>(), bytes in pieces(PIECES, 14)) {
            answer(&[&[how][..], b"HTTP/1.1 200 OK\r\n", bytes.as_slice(), b"\r\n\r\n3\r\nabc\r\n0\r\n\r\n"].concat());
        }
    }
}
