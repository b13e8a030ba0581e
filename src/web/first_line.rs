//! Request lines that are not UTF-8: old clients send queries in other encodings.

use std::borrow::Cow;

/// Replaces each non-ASCII byte in the request target by an ASCII letter, for a parser that requires UTF-8 there. All
/// other bytes, including the method, are unchanged.
pub fn readable(head: &[u8]) -> Cow<'_, [u8]> {
    let line = memchr::memchr(b'\n', head).unwrap_or(head.len());
    let target = memchr::memchr(b' ', &head[..line]).unwrap_or(line)..line;
    if head[target.clone()].is_ascii() || std::str::from_utf8(&head[target.clone()]).is_ok() {
        return Cow::Borrowed(head);
    }
    let mut bytes = head.to_vec();
    bytes[target].iter_mut().filter(|byte| !byte.is_ascii()).for_each(|byte| *byte = b'x');
    Cow::Owned(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_stand_for_what_is_no_utf8_in_the_target_alone() {
        for (head, shown) in [
            (&b"GET /?caf\xe9 HTTP/1.1\r\nA: \xff\r\n\r\n"[..], &b"GET /?cafx HTTP/1.1\r\nA: \xff\r\n\r\n"[..]),
            (b"GET /?caf\xc3\xa9 HTTP/1.1\r\n\r\n", b"GET /?caf\xc3\xa9 HTTP/1.1\r\n\r\n"),
            (b"G\xffT /?a HTTP/1.1\r\n\r\n", b"G\xffT /?a HTTP/1.1\r\n\r\n"),
            (b"G\xffT /?\xe9 HTTP/1.1\r\n\r\n", b"G\xffT /?x HTTP/1.1\r\n\r\n"),
            (b"\xff", b"\xff"),
        ] {
            assert_eq!(&*readable(head), shown);
        }
    }
}
