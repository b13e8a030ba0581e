//! The head of a stream -> the head that the same request would have in HTTP/1.1 (RFC 9113, 8.3): the authority
//! becomes Host, cookie crumbs are joined. What cannot be both is refused.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Uri, Version, header};

use crate::config::Limits;
use crate::web::host::Host;
use crate::wire::head_error::BadHead;

/// Makes a head what it would be in HTTP/1.1, and returns the bytes that it would have there. Unchanged on errors.
pub(super) fn to_http1(parts: &mut http::request::Parts, limits: &Limits) -> Result<usize, BadHead> {
    // tunnels are not supported
    if parts.method == Method::CONNECT {
        return Err(BadHead::Method);
    }
    let target = parts.uri.path_and_query().ok_or(BadHead::Ambiguous("target"))?.clone();
    if target.as_str().bytes().any(|b| b <= b' ' || b == 0x7f) {
        return Err(BadHead::Ambiguous("target"));
    }
    let host = host(parts)?;
    let mut bytes = parts.method.as_str().len() + target.as_str().len() + header::HOST.as_str().len() + host.len();
    for (name, value) in &parts.headers {
        // HTTP/1.1 would trim them, and the checks would see another value (RFC 9113, 8.2.1)
        if value.as_bytes().trim_ascii().len() != value.len() {
            return Err(BadHead::Ambiguous("head"));
        }
        if name != header::HOST && name != header::COOKIE {
            bytes += name.as_str().len() + value.len() + 4;
        }
    }
    if let Some(cookies) = cookies(&parts.headers, limits)? {
        bytes += cookies.len();
        parts.headers.insert(header::COOKIE, cookies);
    }
    parts.headers.insert(header::HOST, host);
    (parts.uri, parts.version) = (Uri::from(target), Version::HTTP_11);
    Ok(bytes)
}

/// `:authority` and `Host` must be equal where both are present; one of them is required.
fn host(parts: &http::request::Parts) -> Result<HeaderValue, BadHead> {
    let bad = BadHead::Ambiguous("host");
    let mut fields = parts.headers.get_all(header::HOST).iter();
    let (field, second) = (fields.next(), fields.next());
    let authority = parts.uri.authority().map(http::uri::Authority::as_str);
    if second.is_some() {
        return Err(bad);
    }
    match (authority, field) {
        (Some(authority), None) => HeaderValue::from_str(authority).map_err(|_| bad),
        (None, Some(field)) => Ok(field.clone()),
        (Some(authority), Some(field)) => {
            let named = Host::parse(authority).ok_or(bad)?;
            let same = field.to_str().ok().and_then(Host::parse).is_some_and(|host| host == named);
            if same { Ok(field.clone()) } else { Err(bad) }
        }
        (None, None) => Err(bad),
    }
}

/// Clients may split the cookies (RFC 9113, 8.2.3); servers in HTTP/1.1 do not expect that.
fn cookies(headers: &HeaderMap, limits: &Limits) -> Result<Option<HeaderValue>, BadHead> {
    let crumbs: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if crumbs.len() > limits.head_fields {
        return Err(BadHead::TooLarge);
    }
    match (crumbs.as_slice(), headers.get(header::COOKIE)) {
        ([], _) => return Ok(None),
        ([_], only) => return Ok(only.cloned()),
        _ => {}
    }
    let joined = Bytes::from(crumbs.join(&b"; "[..]));
    HeaderValue::from_maybe_shared(joined).map(Some).map_err(|_| BadHead::Ambiguous("cookie"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        crate::config::one_app("http://127.0.0.1:9", None, None).unwrap().limits
    }

    fn parts(uri: &str, fields: &[(&'static str, &str)]) -> http::request::Parts {
        let mut request = http::Request::builder().uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn authority_and_crumbs_become_one_host_and_one_cookie() {
        let fields = [("cookie", "a=1"), ("x-odd", "1"), ("cookie", "b=2"), ("cookie", "c=3"), ("x-odd", "2")];
        let mut head = parts("https://a.example.com/p?q", &fields);
        to_http1(&mut head, &limits()).unwrap();
        assert_eq!((head.uri.to_string().as_str(), head.version), ("/p?q", Version::HTTP_11));
        let all = |name: &str| head.headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect::<Vec<_>>();
        assert_eq!(all("host"), ["a.example.com"]);
        assert_eq!(all("cookie"), ["a=1; b=2; c=3"]);
        assert_eq!(all("x-odd"), ["1", "2"]);
    }

    #[test]
    fn two_hosts_none_and_too_many_crumbs_are_refused() {
        let refused =
            |uri: &str, fields: &[(&'static str, &str)]| to_http1(&mut parts(uri, fields), &limits()).unwrap_err();
        let host = BadHead::Ambiguous("host");
        assert_eq!(refused("https://a/", &[("host", "b")]), host);
        assert_eq!(refused("https://a/", &[("host", "a:8")]), host);
        assert_eq!(refused("https://a/", &[("host", "a"), ("host", "a")]), host);
        assert_eq!(refused("/", &[]), host);
        assert_eq!(refused("https://a/", &vec![("cookie", "a"); 101]), BadHead::TooLarge);
        assert!(to_http1(&mut parts("https://a/", &[("host", "A")]), &limits()).is_ok());
        assert!(to_http1(&mut parts("/", &[("host", "a")]), &limits()).is_ok());
    }
}
