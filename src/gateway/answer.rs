//! Replies and small bodies on pingora's way, and what a reply's head is on every way.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode, header};
use pingora_core::Result;
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use super::guard::Guard;
use super::respond;
use crate::config::Config;
use crate::pages::Page;
use crate::web::reply::Reply;

/// Time for a whole form to arrive.
pub(crate) const FORM_TIME: Duration = Duration::from_secs(30);

/// Writes a whole reply; the connection goes on unless the reply closes it.
pub(crate) async fn write(config: &Config, session: &mut Session, reply: Reply, request_id: &str) -> Result<()> {
    if reply.close {
        session.set_keepalive(None);
    }
    let hsts = Guard::of(session).is_some_and(|guard| respond::sends_hsts(config, guard));
    let head = head_of(&reply, request_id, hsts)?;
    let no_body = is_bodiless(&reply) || session.req_header().method == Method::HEAD;
    session.write_response_header(Box::new(head), no_body).await?;
    if !no_body {
        session.write_response_body(Some(reply.body), true).await?;
    }
    Ok(())
}

/// The head of a reply as it is written on every way; with `hsts`, over TLS.
pub(crate) fn head_of(reply: &Reply, request_id: &str, hsts: bool) -> Result<ResponseHeader> {
    let mut head = ResponseHeader::build(reply.status, Some(reply.headers.len() + 4))?;
    for (name, value) in &reply.headers {
        head.append_header(name, value)?;
    }
    head.insert_header("X-Request-Id", request_id)?;
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

/// The body that a page takes; an error is the status to answer with on a closed connection.
pub(crate) async fn body_of(page: Page, session: &mut Session, max: usize) -> std::result::Result<Bytes, StatusCode> {
    if page.takes_body(&session.req_header().method) { read_form(session, max).await } else { Ok(Bytes::new()) }
}

/// Reads a body of at most `max` bytes. Each error is the status to answer with on a closed connection.
async fn read_form(session: &mut Session, max: usize) -> std::result::Result<Bytes, StatusCode> {
    if let Some(length) = session.get_header(header::CONTENT_LENGTH) {
        let length = length.to_str().ok().and_then(|digits| digits.parse::<usize>().ok());
        if length.is_none_or(|length| length > max) {
            return Err(StatusCode::PAYLOAD_TOO_LARGE);
        }
    }
    if session.get_header_bytes("expect").eq_ignore_ascii_case(b"100-continue") {
        session.write_continue_response().await.map_err(|_| StatusCode::BAD_REQUEST)?;
    }
    let whole = async {
        let mut body = BytesMut::new();
        while let Some(part) = session.read_request_body().await.map_err(|_| StatusCode::BAD_REQUEST)? {
            if body.len() + part.len() > max {
                return Err(StatusCode::PAYLOAD_TOO_LARGE);
            }
            body.extend_from_slice(&part);
        }
        Ok(body.freeze())
    };
    tokio::time::timeout(FORM_TIME, whole).await.unwrap_or(Err(StatusCode::REQUEST_TIMEOUT))
}
