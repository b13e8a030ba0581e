//! A head over the size limit, examined as far as it has arrived: its host for the log, its largest cookies for the
//! error page, and whether that page's form asks to clear them. The form sends the same cookies, so its head is never
//! read to the end either.

use http::{HeaderMap, StatusCode};

use super::{reasons, refuse};
use crate::pages::{Site, errors};
use crate::web::host::Host;
use crate::web::reply::Reply;
use crate::wire::head_error::BadHead;

/// Number of cookies that the page names.
const NAMED: usize = 3;
/// The form's path, below `prefix`.
const CLEAR: &str = "/clear-cookies";

/// What was found in the head.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Oversize {
    pub(crate) host: String,
    /// The largest cookies, with their size in bytes.
    pub(crate) cookies: Vec<(String, usize)>,
    /// A page of this host asks to clear the cookies.
    pub(crate) clears: bool,
}

impl Oversize {
    /// From the bytes read so far of an HTTP/1 head.
    pub(crate) fn of_bytes(bytes: &[u8], prefix: &str) -> Self {
        let mut lines = bytes.split(|&byte| byte == b'\n');
        let mut line = lines.next().unwrap_or_default().split(|&byte| byte == b' ');
        let (method, path) = (line.next().unwrap_or_default(), line.next().unwrap_or_default());
        let fields = lines.filter_map(|line| {
            let colon = line.iter().position(|&byte| byte == b':')?;
            Some((&line[..colon], line[colon + 1..].trim_ascii()))
        });
        Self::of(method, path, None, fields, prefix)
    }

    /// From a parsed head.
    pub(crate) fn of_head(
        method: &http::Method,
        path: &[u8],
        authority: Option<&str>,
        fields: &HeaderMap,
        prefix: &str,
    ) -> Self {
        let fields = fields.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
        Self::of(method.as_str().as_bytes(), path, authority, fields, prefix)
    }

    /// Keeps a cookie if it is one of the largest; there may be thousands.
    fn note(&mut self, pair: &[u8]) {
        let pair = pair.trim_ascii();
        if self.cookies.len() == NAMED && self.cookies.last().is_some_and(|(_, bytes)| *bytes >= pair.len()) {
            return;
        }
        let name = pair.split(|&byte| byte == b'=').next().unwrap_or_default();
        if !name.is_empty() && name.len() <= 100 && name.iter().all(u8::is_ascii_graphic) {
            self.cookies.truncate(NAMED - 1);
            self.cookies.push((String::from_utf8_lossy(name).into_owned(), pair.len()));
            self.cookies.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        }
    }

    fn of<'f>(
        method: &[u8],
        path: &[u8],
        authority: Option<&str>,
        fields: impl Iterator<Item = (&'f [u8], &'f [u8])>,
        prefix: &str,
    ) -> Self {
        let mut seen = Self { host: authority.unwrap_or_default().to_owned(), ..Self::default() };
        let (mut site, mut origin) = (None, None);
        for (name, value) in fields {
            let is = |own: &str| name.eq_ignore_ascii_case(own.as_bytes());
            if is("host") && seen.host.is_empty() {
                seen.host = String::from_utf8_lossy(value).into_owned();
            } else if is("sec-fetch-site") {
                site = Some(value);
            } else if is("origin") {
                origin = std::str::from_utf8(value).ok().and_then(|origin| origin.split_once("://"));
            } else if is("cookie") {
                value.split(|&byte| byte == b';').for_each(|pair| seen.note(pair));
            }
        }
        // it is logged, so only a valid host is kept
        if Host::parse(&seen.host).is_none() {
            seen.host.clear();
        }
        let own = match (site, origin) {
            (Some(site), _) => site == b"same-origin",
            (None, Some((_, host))) => !seen.host.is_empty() && host.eq_ignore_ascii_case(&seen.host),
            (None, None) => false,
        };
        seen.clears = own && method == b"POST" && path.strip_prefix(prefix.as_bytes()) == Some(CLEAR.as_bytes());
        seen
    }
}

/// The response to a head that is refused unread; `site` is present if a person will see it.
pub(crate) fn bad_head(bad: BadHead, request_id: &str, site: Option<&Site>, seen: &Oversize) -> Reply {
    let code = match bad {
        BadHead::Ambiguous(_) => StatusCode::BAD_REQUEST,
        BadHead::Method => StatusCode::METHOD_NOT_ALLOWED,
        BadHead::TargetTooLong => StatusCode::URI_TOO_LONG,
        BadHead::TooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        BadHead::TooSlow => StatusCode::REQUEST_TIMEOUT,
        BadHead::Misdirected => StatusCode::MISDIRECTED_REQUEST,
    };
    match site {
        Some(site) if bad == BadHead::TooLarge && seen.clears => errors::cookies_cleared(site).closing(),
        Some(site) if bad == BadHead::TooLarge && !seen.cookies.is_empty() => {
            errors::too_many_cookies(site, &seen.cookies, CLEAR, request_id).closing()
        }
        Some(site) => errors::error_page(site, code, request_id, None).closing(),
        None if code == StatusCode::BAD_REQUEST => refuse::bad_head(reasons::of_head(bad), request_id),
        None => refuse::unread(code, request_id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(line: &str, fields: &str) -> Oversize {
        Oversize::of_bytes(format!("{line} HTTP/1.1\r\nHost: a.example.com\r\n{fields}").as_bytes(), "/.auth")
    }

    #[test]
    fn the_largest_cookies_are_named_as_far_as_they_have_come() {
        let seen =
            seen("GET /x", "Cookie: small=1; large=12345678; none; \u{e4}=12345678901234567890; mid=1234; cut=12");
        let named: Vec<_> = seen.cookies.iter().map(|(name, bytes)| (name.as_str(), *bytes)).collect();
        assert_eq!((seen.host.as_str(), named), ("a.example.com", vec![("large", 14), ("mid", 8), ("small", 7)]));
    }

    #[test]
    fn only_a_page_of_the_same_host_clears_them() {
        let clears = |line: &str, fields: &str| seen(line, fields).clears;
        let own = "POST /.auth/clear-cookies";
        assert!(clears(own, "Sec-Fetch-Site: same-origin\r\nCookie: a"));
        assert!(clears(own, "Origin: https://A.example.com\r\nCookie: a"));
        for fields in
            ["Cookie: a", "Origin: https://b.example.com\r\n", "Origin: null\r\n", "Sec-Fetch-Site: same-site\r\n"]
        {
            assert!(!clears(own, fields), "{fields}");
        }
        assert!(!clears(own, "Sec-Fetch-Site: cross-site\r\nOrigin: https://a.example.com\r\n"));
        assert!(!clears("GET /.auth/clear-cookies", "Sec-Fetch-Site: same-origin\r\n"));
        assert!(!clears("POST /clear-cookies", "Sec-Fetch-Site: same-origin\r\n"));
    }
}
