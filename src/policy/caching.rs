//! Who may receive a response from a cache: only the account that it was made for (`route.cache`). Shared caches may
//! store any response that is not `private` (RFC 9111, 3); a browser keeps one cache for all accounts that sign in
//! there.

use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::authorize::Admission;
use crate::config::{Access, Cache, Route};
use crate::web::names::Names;
use crate::wire::response_view::ResponseHeadView;

static PRIVATE: HeaderValue = HeaderValue::from_static("private");

/// Replaces the app's own `Cache-Control` and `Vary`; `None` leaves the app's.
pub(crate) struct CacheRules {
    pub(crate) cache_control: Option<HeaderValue>,
    pub(crate) vary: Option<HeaderValue>,
}

/// How the identity that the app received was authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asker {
    /// The app received no identity.
    Unknown,
    /// By a session cookie, with no `Authorization` that might count as well.
    ByCookie,
    /// By another field, or possibly by one.
    ByField,
}

impl Asker {
    pub(crate) fn new(headers: &HeaderMap, names: Names, ambient_credential: bool, admission: &Admission) -> Self {
        let may_be = names.may_have(b"authorization");
        match admission.identity() {
            None => Self::Unknown,
            Some(_) if ambient_credential && !(may_be && headers.contains_key(header::AUTHORIZATION)) => Self::ByCookie,
            Some(_) => Self::ByField,
        }
    }
}

impl CacheRules {
    /// The rules for a final response that these routes admitted, one for each reading of its path. `vary` are values
    /// that the gateway adds. `None`: the response belongs to no account.
    pub(crate) fn new<'v, 'r>(
        mut routes: impl Iterator<Item = &'r Route>,
        answer: &'v impl ResponseHeadView,
        vary: impl Iterator<Item = &'v HeaderValue>,
        asker: Asker,
    ) -> Option<Self> {
        // an app behind a public route also receives the identity of a signed-in user
        let by_account = |route: &Route| match route.access {
            Access::SignedIn | Access::Optional => true,
            _ => asker != Asker::Unknown,
        };
        routes
            .any(|route| by_account(route) && route.cache == Cache::PerAccount)
            .then(|| Self { cache_control: private(answer), vary: by_credential(answer, vary, asker) })
    }
}

/// `private` in place of directives that let shared caches store; how long a browser keeps the response is unchanged.
pub(crate) fn private(answer: &impl ResponseHeadView) -> Option<HeaderValue> {
    let first = answer.values(&header::CACHE_CONTROL).next();
    if first.is_some() { made_private(answer) } else { Some(PRIVATE.clone()) }
}

#[inline(never)]
fn made_private(answer: &impl ResponseHeadView) -> Option<HeaderValue> {
    let (mut kept, mut is_private) = (Vec::new(), false);
    for directive in answer.values(&header::CACHE_CONTROL).flat_map(directives) {
        let name = directive.split(|&b| b == b'=').next().unwrap_or_default().trim_ascii();
        let is = |own: &str| name.eq_ignore_ascii_case(own.as_bytes());
        // `private="field"` covers that field alone (RFC 9111, 5.2.2.7)
        is_private |= [&b"no-store"[..], b"private"].iter().any(|own| directive.eq_ignore_ascii_case(own));
        if !(is("public") || is("s-maxage") || is("private")) {
            kept.push(directive);
        }
    }
    if is_private && !answer.values(&header::CACHE_CONTROL).flat_map(directives).any(is_for_shared_caches) {
        return None;
    }
    // first: after an unterminated quote it would be part of the quoted text
    if !kept.iter().any(|directive| directive.eq_ignore_ascii_case(b"no-store")) {
        kept.insert(0, b"private");
    }
    HeaderValue::from_bytes(&kept.join(&b", "[..])).ok()
}

fn is_for_shared_caches(directive: &[u8]) -> bool {
    let name = directive.split(|&b| b == b'=').next().unwrap_or_default().trim_ascii();
    name.eq_ignore_ascii_case(b"public") || name.eq_ignore_ascii_case(b"s-maxage")
}

/// The directives of one `Cache-Control` line; a comma inside quotes is not a separator.
fn directives(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut quoted = false;
    line.split(move |&b| {
        quoted ^= b == b'"';
        b == b',' && !quoted
    })
    .map(<[u8]>::trim_ascii)
    .filter(|directive| !directive.is_empty())
}

/// `Vary` with the fields that authenticate the caller, in one line: some caches read only one. A 304 has no content
/// type and refreshes the stored response, so its `Vary` is unchanged.
fn by_credential<'v>(
    answer: &'v impl ResponseHeadView,
    added: impl Iterator<Item = &'v HeaderValue>,
    asker: Asker,
) -> Option<HeaderValue> {
    let wanted = match (asker, is_part(answer)) {
        _ if answer.status() == StatusCode::NOT_MODIFIED => return None,
        (Asker::ByField, true) => "Authorization, X-Authgate-Token, Proxy-Authorization",
        (Asker::ByField, false) => "Cookie, Authorization, X-Authgate-Token, Proxy-Authorization",
        (_, true) => return None,
        (_, false) => "Cookie",
    };
    let lines: Vec<&[u8]> = answer.values(&header::VARY).chain(added.map(HeaderValue::as_bytes)).collect();
    if lines.is_empty() { Some(HeaderValue::from_static(wanted)) } else { vary_with(lines, wanted) }
}

#[inline(never)]
fn vary_with(mut lines: Vec<&[u8]>, wanted: &'static str) -> Option<HeaderValue> {
    let items = lines.iter().flat_map(|line| line.split(|&b| b == b','));
    let told: Vec<&[u8]> = items.map(<[u8]>::trim_ascii).collect();
    let is_told = |name: &str| told.iter().any(|item| *item == b"*" || item.eq_ignore_ascii_case(name.as_bytes()));
    let missing: Vec<&[u8]> = wanted.split(", ").filter(|name| !is_told(name)).map(str::as_bytes).collect();
    if missing.is_empty() {
        return None;
    }
    lines.extend(missing);
    HeaderValue::from_bytes(&lines.join(&b", "[..])).ok()
}

/// Whether a response is unambiguously a subresource of a page.
fn is_part(answer: &impl ResponseHeadView) -> bool {
    let mut kinds = answer.values(&header::CONTENT_TYPE);
    let kind = kinds.next().filter(|kind| !kind.contains(&b',') && is_kind_of_part(kind));
    kind.is_some() && kinds.next().is_none()
}

/// Styles, scripts, fonts, images, audio and video: subresources. A session cookie that is renewed every hour must not
/// make a browser fetch them again.
fn is_kind_of_part(kind: &[u8]) -> bool {
    const KINDS: [&[u8]; 5] = [b"image/", b"font/", b"audio/", b"video/", b"application/font"];
    const TYPES: [&[u8]; 8] = [
        b"text/css",
        b"text/javascript",
        b"application/javascript",
        b"application/x-javascript",
        b"application/ecmascript",
        b"application/wasm",
        b"application/vnd.ms-fontobject",
        b"application/x-font-ttf",
    ];
    let kind = kind.split(|&b| b == b';').next().unwrap_or_default().trim_ascii();
    KINDS.iter().any(|start| kind.get(..start.len()).is_some_and(|own| own.eq_ignore_ascii_case(start)))
        || TYPES.iter().any(|own| own.eq_ignore_ascii_case(kind))
}

#[cfg(test)]
mod tests {
    use pingora_http::ResponseHeader;

    use super::*;

    fn answer(status: u16, fields: &[(&'static str, &str)]) -> ResponseHeader {
        let mut head = ResponseHeader::build(status, None).unwrap();
        for (name, value) in fields {
            head.append_header(*name, *value).unwrap();
        }
        head
    }

    #[test]
    fn what_lets_shared_caches_store_becomes_private_and_the_rest_stays() {
        for (told, sent) in [
            (&[][..], Some("private")),
            (&["public, max-age=3600"], Some("private, max-age=3600")),
            (&["max-age=60, s-maxage=600, must-revalidate"], Some("private, max-age=60, must-revalidate")),
            (&["Public"], Some("private")),
            (&["public", "max-age=5"], Some("private, max-age=5")),
            (&["max-age=5"], Some("private, max-age=5")),
            (&["no-cache"], Some("private, no-cache")),
            (&["private=\"Set-Cookie, X\", max-age=5"], Some("private, max-age=5")),
            (&["no-store=0, max-age=5"], Some("private, no-store=0, max-age=5")),
            (&["x=\"a, private, b\", max-age=5"], Some("private, x=\"a, private, b\", max-age=5")),
            (&["x=\"a, public"], Some("private, x=\"a, public")),
            (&["private, max-age=5"], None),
            (&["no-store"], None),
            (&["no-store, public"], Some("no-store")),
            (&["private, s-maxage=5"], Some("private")),
        ] {
            let fields: Vec<_> = told.iter().map(|line| ("cache-control", *line)).collect();
            let sent = sent.map(|sent| HeaderValue::from_str(sent).unwrap());
            assert_eq!(private(&answer(200, &fields)), sent, "{told:?}");
        }
    }

    #[test]
    fn pages_and_data_vary_by_cookie_and_their_parts_do_not() {
        let vary = |status, fields: &[(&'static str, &str)]| {
            by_credential(&answer(status, fields), std::iter::empty(), Asker::ByCookie)
        };
        for (fields, sent) in [
            (&[("content-type", "text/html; charset=utf-8")][..], Some("Cookie")),
            (&[("content-type", "application/json"), ("vary", "Accept")], Some("Accept, Cookie")),
            (&[("vary", "Accept"), ("vary", "Origin")], Some("Accept, Origin, Cookie")),
            (&[("vary", "cookie")], None),
            (&[("vary", "*")], None),
            (&[("content-type", "Text/CSS; charset=utf-8")], None),
            (&[("content-type", "image/svg+xml")], None),
            (&[("content-type", "imagery/x")], Some("Cookie")),
            (&[("content-type", "image/png"), ("content-type", "text/html")], Some("Cookie")),
            (&[("content-type", "image/png, text/html")], Some("Cookie")),
            (&[], Some("Cookie")),
        ] {
            assert_eq!(vary(200, fields), sent.map(HeaderValue::from_static), "{fields:?}");
        }
        assert_eq!(vary(304, &[]), None);
        assert_eq!(vary(301, &[]), Some(HeaderValue::from_static("Cookie")));
        let added = [HeaderValue::from_static("Origin")];
        let sent = by_credential(&answer(200, &[]), added.iter(), Asker::Unknown);
        assert_eq!(sent, Some(HeaderValue::from_static("Origin, Cookie")));
    }

    #[test]
    fn what_a_field_authenticated_varies_by_all_that_may_have() {
        for (fields, sent) in [
            (&[][..], Some("Cookie, Authorization, X-Authgate-Token, Proxy-Authorization")),
            (&[("content-type", "image/png")], Some("Authorization, X-Authgate-Token, Proxy-Authorization")),
            (
                &[("vary", "accept, authorization")],
                Some("accept, authorization, Cookie, X-Authgate-Token, Proxy-Authorization"),
            ),
            (&[("vary", "*")], None),
        ] {
            let vary = by_credential(&answer(200, fields), std::iter::empty(), Asker::ByField);
            assert_eq!(vary, sent.map(HeaderValue::from_static), "{fields:?}");
        }
        assert_eq!(by_credential(&answer(304, &[]), std::iter::empty(), Asker::ByField), None);
    }
}
