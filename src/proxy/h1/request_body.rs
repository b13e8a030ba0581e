//! How long a request's body is, and whether it is read whole before it is sent on.

use http::{Version, header};
use pingora_http::RequestHeader;

use crate::web::names::Names;

/// Bodies up to this size are read whole before they are sent on; larger ones are streamed.
pub(crate) const BODY_MAX: u64 = 64 << 10;

/// Whether the body is to pass while it comes: it has no length or is long, or the client holds it back until it is
/// asked for (HTTP/1.0 knows no such expectations: RFC 9110, 10.1.1).
pub(super) fn is_streamed(head: &RequestHeader, names: Names, length: u64) -> bool {
    let held_back = length > 0 && head.version == Version::HTTP_11 && head.headers.contains_key(header::EXPECT);
    let is_chunked = || names.may_have(b"transfer-encoding") && head.headers.contains_key(header::TRANSFER_ENCODING);
    length > BODY_MAX || held_back || is_chunked()
}

/// What `Content-Length` says; checked before.
pub(crate) fn body_length(head: &RequestHeader) -> u64 {
    let length = head.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    length.map_or(0, |digits| digits.parse().unwrap_or(u64::MAX))
}
