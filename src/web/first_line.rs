//! The first line of a request where it is no UTF-8: old programs send queries in an encoding of their own.

use std::borrow::Cow;

/// The head with some letter for each byte beyond ASCII in its first line, for a parser that wants UTF-8 there. All others
/// as they came.
pub fn readable(head: &[u8]) -> Cow<'_, [u8]> {
    let line = memchr::memchr(b'\n', head).unwrap_or(head.len());
    if std::str::from_utf8(&head[..line]).is_ok() {
        return Cow::Borrowed(head);
    }
    let mut bytes = head.to_vec();
    bytes[..line].iter_mut().filter(|byte| !byte.is_ascii()).for_each(|byte| *byte = b'x');
    Cow::Owned(bytes)
}
