//! The head of the gateway's own replies, the same for every protocol.

use http::{StatusCode, header};
use pingora_http::ResponseHeader;

use super::hsts;
use crate::web::reply::Reply;

/// The head of a reply; `hsts` adds HSTS, for TLS only. `None` if a field cannot be sent.
pub(crate) fn head_of(reply: &Reply, request_id: &str, hsts: bool) -> Option<ResponseHeader> {
    let mut head = ResponseHeader::build(reply.status, Some(reply.headers.len() + 5)).ok()?;
    for (name, value) in &reply.headers {
        head.append_header(name, value).ok()?;
    }
    head.insert_header("X-Request-Id", request_id).ok()?;
    head.insert_header(header::X_CONTENT_TYPE_OPTIONS, "nosniff").ok()?;
    if hsts {
        head.insert_header(header::STRICT_TRANSPORT_SECURITY, hsts::HSTS).ok()?;
    }
    if !matches!(reply.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        head.insert_header(header::CONTENT_LENGTH, reply.body.len()).ok()?;
    }
    Some(head)
}

/// Whether nothing follows the head of a reply (a response to HEAD never has a body).
pub(crate) fn is_bodiless(reply: &Reply) -> bool {
    reply.body.is_empty() || matches!(reply.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}
