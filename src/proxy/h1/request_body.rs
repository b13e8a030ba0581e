//! The length of a request's body, and whether it is read whole before it is forwarded.

use http::{Version, header};
use pingora_http::RequestHeader;

use crate::proxy::exchange::buffered::BODY_BYTES_MAX;
use crate::web::names::Names;

/// Whether the body is streamed: it is chunked or large, or the client waits for 100 Continue (not in HTTP/1.0: RFC 9110,
/// 10.1.1).
pub(super) fn is_streamed(head: &RequestHeader, names: Names, length: u64) -> bool {
    let held_back = length > 0 && head.version == Version::HTTP_11 && head.headers.contains_key(header::EXPECT);
    let is_chunked = || names.may_have(b"transfer-encoding") && head.headers.contains_key(header::TRANSFER_ENCODING);
    length > BODY_BYTES_MAX || held_back || is_chunked()
}

/// The `Content-Length`, which was validated before.
pub(crate) fn body_length(head: &RequestHeader) -> u64 {
    let length = head.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    length.map_or(0, |digits| digits.parse().unwrap_or(u64::MAX))
}
