//! What a reply's head is on every way.

use std::time::Duration;

use http::{StatusCode, header};
use pingora_core::Result;
use pingora_http::ResponseHeader;

use super::respond;
use crate::web::reply::Reply;

/// Time for a whole form to arrive.
pub(crate) const FORM_TIME: Duration = Duration::from_secs(30);
/// Bytes a second of a body that is read whole, after that time.
const RATE: u64 = 256;

/// What a body may take of which so much has come: a slow one goes on, one that hardly moves is given up (some 256 bytes a
/// second).
pub(crate) fn body_time(received: usize) -> Duration {
    FORM_TIME + Duration::from_millis(received as u64 * 1000 / RATE)
}

/// The head of a reply as it is written on every way; with `hsts`, over TLS.
pub(crate) fn head_of(reply: &Reply, request_id: &str, hsts: bool) -> Result<ResponseHeader> {
    let mut head = ResponseHeader::build(reply.status, Some(reply.headers.len() + 5))?;
    for (name, value) in &reply.headers {
        head.append_header(name, value)?;
    }
    head.insert_header("X-Request-Id", request_id)?;
    head.insert_header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")?;
    if hsts {
        head.insert_header(header::STRICT_TRANSPORT_SECURITY, respond::HSTS)?;
    }
    if !matches!(reply.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        head.insert_header(header::CONTENT_LENGTH, reply.body.len())?;
    }
    Ok(head)
}

/// Whether nothing follows the head of a reply (to HEAD, nothing ever does).
pub(crate) fn is_bodiless(reply: &Reply) -> bool {
    reply.body.is_empty() || matches!(reply.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_of_a_kibibyte_a_second_is_read_and_one_that_drips_is_given_up() {
        let comes = |rate: usize, length: usize| {
            (0..length.div_ceil(rate)).all(|second| body_time(second * rate).as_secs() >= second as u64)
        };
        assert!(comes(1024, 45 << 10) && comes(256, 64 << 10));
        assert!(!comes(10, 64 << 10) && !comes(1, 1000));
    }
}
