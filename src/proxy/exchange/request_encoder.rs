//! The request head that a server gets. It is the same for every body and for either version of HTTP that the client uses: the
//! client's fields in the client's spelling, without those that the policy drops, then the gateway's own fields in theirs.

use bytes::BufMut as _;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Version, header};
use pingora_http::RequestHeader;

use crate::policy::request_headers::Changes;
use crate::wire::request_head::Head;
use crate::wire::request_target;
use crate::wire::response_head::put_field;

/// Bytes that are usually added to a head. Memory that is not used is not touched, and it grows where needed.
const ADDED: usize = 512;
/// Bytes of a head from HTTP/2, which has no lines to measure.
const UNMEASURED: usize = 1536;

/// What the head says besides its fields.
#[derive(Debug, Default)]
pub(super) struct Extra<'s> {
    /// The body follows in chunks; otherwise the client's `Content-Length` says how long it is.
    pub(super) chunked: bool,
    /// The client waits for 100 Continue before it sends its body.
    pub(super) expects_continue: bool,
    /// The protocol that the client asks to switch to.
    pub(super) upgrade: Option<&'s str>,
}

/// The head in HTTP/1.1, with room for `body_bytes` more.
pub(super) fn http1(head: &Head, changes: &Changes<'_>, extra: &Extra<'_>, body_bytes: usize) -> Vec<u8> {
    let parsed = &head.parsed;
    let head_bytes = if head.has_lines() { head.bytes.len() } else { UNMEASURED };
    let mut out = Vec::with_capacity(head_bytes + ADDED + body_bytes);
    out.extend_from_slice(parsed.method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(changes.target.as_deref().unwrap_or(request_target::of(parsed)));
    out.extend_from_slice(b" HTTP/1.1\r\n");
    if head.has_lines() {
        for (_, line) in head.fields().filter(|(name, _)| changes.keeps(name)) {
            out.extend_from_slice(line);
        }
    } else {
        put_map(&mut out, &parsed.headers, changes);
    }
    for (name, value) in changes.fields() {
        put_field(&mut out, name.as_bytes(), value);
    }
    if extra.expects_continue {
        out.put_slice(b"Expect: 100-continue\r\n");
    }
    if extra.chunked {
        out.put_slice(b"Transfer-Encoding: chunked\r\n");
    } else if !head.has_lines() && expects_body(&parsed.method) && !parsed.headers.contains_key(header::CONTENT_LENGTH)
    {
        // in HTTP/2 the end of the stream has said so
        out.put_slice(b"Content-Length: 0\r\n");
    }
    if let Some(protocol) = extra.upgrade {
        out.put_slice(b"Connection: Upgrade\r\n");
        put_field(&mut out, b"Upgrade", protocol.as_bytes());
    }
    out.put_slice(b"\r\n");
    out
}

/// The fields of a head from HTTP/2. `Host` comes from its `:authority`, and is first (RFC 9112, 3.2).
fn put_map(out: &mut Vec<u8>, fields: &HeaderMap, changes: &Changes<'_>) {
    if let Some(host) = fields.get(header::HOST).filter(|_| changes.keeps(b"host")) {
        put_field(out, b"Host", host.as_bytes());
    }
    for (name, value) in fields {
        if *name != header::HOST && changes.keeps(name.as_str().as_bytes()) {
            put_field(out, name.as_str().as_bytes(), value.as_bytes());
        }
    }
}

/// Methods whose requests without a body say so (RFC 9110, 8.6).
fn expects_body(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::DELETE)
}

/// The head in HTTP/2; `None` where it cannot be expressed there.
pub(super) fn http2(parsed: &RequestHeader, changes: &Changes<'_>, scheme: &str) -> Option<Request<()>> {
    let own = changes.fields().find(|(name, _)| name.eq_ignore_ascii_case("host")).map(|(_, value)| value);
    let host = match own {
        Some(host) => host,
        None => parsed.headers.get(header::HOST)?.as_bytes(),
    };
    let target = request_target::in_h2(changes.target.as_deref().unwrap_or(request_target::of(parsed)));
    let uri = http::Uri::builder().scheme(scheme).authority(host).path_and_query(target).build().ok()?;
    let mut request = Request::builder().method(parsed.method.clone()).uri(uri).body(()).ok()?;
    *request.version_mut() = Version::HTTP_2;
    let fields = request.headers_mut();
    fields.reserve(parsed.headers.len() + 16);
    for (name, value) in &parsed.headers {
        // the only value that `TE` may have here (RFC 9113, 8.2.2)
        let is_trailers = *name == header::TE && value == "trailers";
        if is_trailers || (*name != header::HOST && changes.keeps(name.as_str().as_bytes())) {
            fields.append(name.clone(), value.clone());
        }
    }
    for (name, value) in changes.fields() {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        if name != header::HOST {
            fields.append(name, HeaderValue::from_bytes(value).ok()?);
        }
    }
    Some(request)
}
