//! The target of a request as it came. The library's own holds none with a bare `"` in its query, which programs send and
//! apps accept (promtool): such a target is kept in an extension. Bytes of a query that are not UTF-8 pass, too.

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, Uri, Version};
use pingora_core::Result;
use pingora_http::RequestHeader;

/// What the library would not hold.
#[derive(Clone)]
struct AsItCame(Bytes);

/// A head with this target and no fields.
pub(crate) fn head_with(method: Method, target: &[u8]) -> Result<RequestHeader> {
    if let Ok(head) = RequestHeader::build_no_case(method.clone(), target, None) {
        return Ok(head);
    }
    let head = RequestHeader::build_no_case(method, path_of(target), None)?;
    Ok(beside(head, Some(target)))
}

/// The head of a request with this target, which has no fragment. The usual form of a target is not copied.
pub(crate) fn head_of(method: Method, target: &Bytes, version: Version, headers: HeaderMap) -> Result<RequestHeader> {
    let path = if target.starts_with(b"/") { PathAndQuery::from_maybe_shared(target.clone()).ok() } else { None };
    if let Some(path) = path {
        let (mut parts, ()) = Request::new(()).into_parts();
        (parts.method, parts.uri, parts.version, parts.headers) = (method, Uri::from(path), version, headers);
        return Ok(parts.into());
    }
    let mut head = head_with(method, target)?;
    head.set_version(version);
    for (name, value) in &headers {
        head.append_header(name, value.clone())?;
    }
    Ok(head)
}

/// The target: what is checked, logged and forwarded.
pub(crate) fn of(head: &RequestHeader) -> &[u8] {
    head.extensions.get::<AsItCame>().map_or_else(|| head.raw_path(), |target| &target.0)
}

/// Puts another in its place.
pub(crate) fn set(head: &mut RequestHeader, target: &[u8]) -> Result<()> {
    let (own, rest) = if head.set_raw_path(target).is_ok() { (target, None) } else { (path_of(target), Some(target)) };
    if rest.is_some() || head.extensions.get::<AsItCame>().is_some() {
        head.set_raw_path(own)?;
        let empty = RequestHeader::build_no_case(Method::GET, b"/", None)?;
        *head = beside(std::mem::replace(head, empty), rest);
    }
    Ok(())
}

/// The target for a server in HTTP/2: the library accepts no bare quote in a query, and only UTF-8.
pub(crate) fn in_h2(target: &[u8]) -> String {
    let mut shown = String::with_capacity(target.len());
    for chunk in target.utf8_chunks() {
        shown.push_str(&chunk.valid().replace('"', "%22"));
        shown.extend(chunk.invalid().iter().map(|byte| format!("%{byte:02X}")));
    }
    shown
}

fn beside(head: RequestHeader, target: Option<&[u8]>) -> RequestHeader {
    let mut parts = http::request::Parts::from(head);
    parts.extensions.remove::<AsItCame>();
    if let Some(target) = target {
        parts.extensions.insert(AsItCame(Bytes::copy_from_slice(target)));
    }
    parts.into()
}

/// Everything before the query: only a query can hold what the library rejects.
fn path_of(target: &[u8]) -> &[u8] {
    &target[..memchr::memchr(b'?', target).unwrap_or(target.len())]
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_http2_does_not_hold_is_escaped_for_it() {
        for (target, shown) in [
            (&b"/x?up{job=\"a\"}"[..], "/x?up{job=%22a%22}"),
            (b"/x?caf\xe9\xff&caf\xc3\xa9", "/x?caf%E9%FF&caf\u{e9}"),
            (b"/x", "/x"),
        ] {
            assert_eq!(super::in_h2(target), shown);
            assert!(shown.parse::<http::uri::PathAndQuery>().is_ok());
        }
    }
}
