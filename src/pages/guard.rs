//! Cross-origin protection without tokens: what the browser says about where a
//! request comes from. `Sec-Fetch-Site` first, else `Origin`, else `Referer`; a request with none
//! of them is not from a browser (OWASP CSRF Prevention Cheat Sheet; Go 1.25 `CrossOriginProtection`).

use crate::web::host::Host;
use crate::web::incoming::Incoming;
use crate::web::origin::Origin;

/// The origins that are ours for a request: the one that it came to, and `public_url` where the session is the same one,
/// on its own host and with `session.domain` on the hosts below that.
pub fn own_origins(public_url: &Origin, domain: Option<&str>, incoming: &Incoming<'_>) -> [Origin; 2] {
    let own = incoming.origin();
    let shared = |host: &Host| host.name() == public_url.host() || domain.is_some_and(|domain| host.is_within(domain));
    if shared(incoming.host) { [own, public_url.clone()] } else { [own.clone(), own] }
}

const SEC_FETCH_SITE: &str = "sec-fetch-site";

/// Whether a page of another origin than `own` made a request, and not one of those that
/// responses are `shared` with (configured CORS origins).
pub fn is_cross_origin(incoming: &Incoming<'_>, own: &[Origin], shared: &[Origin]) -> bool {
    let known = |origin: Option<Origin>| origin.is_some_and(|origin| own.contains(&origin) || shared.contains(&origin));
    let origin = || incoming.single("origin").and_then(Origin::parse);
    if incoming.headers.contains_key(SEC_FETCH_SITE) {
        return comes_from_another_site(incoming) && !origin().is_some_and(|origin| shared.contains(&origin));
    }
    if incoming.headers.contains_key(http::header::ORIGIN) {
        return !known(origin());
    }
    if incoming.headers.contains_key(http::header::REFERER) {
        return !known(incoming.single("referer").and_then(referer_origin));
    }
    false
}

/// Whether `Sec-Fetch-Site` is present and is neither `same-origin` nor `none`.
pub fn comes_from_another_site(incoming: &Incoming<'_>) -> bool {
    incoming.headers.contains_key(SEC_FETCH_SITE)
        && !matches!(incoming.single(SEC_FETCH_SITE), Some("same-origin" | "none"))
}

fn referer_origin(referer: &str) -> Option<Origin> {
    let (scheme, rest) = referer.split_once("://")?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    Origin::parse(&format!("{scheme}://{}", &rest[..end]))
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue, Method};

    use super::*;
    use crate::web::host::Host;
    use crate::web::names::Names;
    use crate::web::origin::Scheme;
    use crate::web::readings::RequestPath;

    fn refused(fields: &[(&str, &str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        let host = Host::parse("app.example.com").unwrap();
        let incoming = Incoming {
            method: &Method::POST,
            path: RequestPath::parse(b"/").unwrap(),
            query: None,
            headers: &headers,
            names: Names::of(&headers),
            host: &host,
            scheme: Scheme::Https,
            client: None,
            is_websocket: false,
        };
        let shared = [Origin::parse("https://shared.example.org").unwrap()];
        is_cross_origin(&incoming, &[incoming.origin(), Origin::parse("https://login.example.com").unwrap()], &shared)
    }

    #[test]
    fn our_own_pages_and_programs_pass() {
        for fields in [
            &[][..],
            &[("sec-fetch-site", "same-origin")],
            &[("sec-fetch-site", "none")],
            &[("sec-fetch-site", "same-origin"), ("origin", "https://app.example.com")],
            &[("origin", "https://app.example.com")],
            &[("origin", "https://login.example.com")],
            &[("referer", "https://app.example.com/x?y")],
            &[("sec-fetch-site", "cross-site"), ("origin", "https://shared.example.org")],
            &[("origin", "https://shared.example.org")],
        ] {
            assert!(!refused(fields), "{fields:?}");
        }
    }

    #[test]
    fn other_origins_siblings_and_unreadable_fields_are_refused() {
        for fields in [
            &[("sec-fetch-site", "cross-site")][..],
            &[("sec-fetch-site", "same-site")],
            &[("sec-fetch-site", "")],
            &[("sec-fetch-site", "same-origin"), ("sec-fetch-site", "same-origin")],
            &[("sec-fetch-site", "cross-site"), ("origin", "https://app.example.com")],
            &[("origin", "https://evil.test")],
            &[("origin", "http://app.example.com")],
            &[("origin", "https://app.example.com:444")],
            &[("origin", "null")],
            &[("origin", "")],
            &[("origin", "https://app.example.com"), ("origin", "https://app.example.com")],
            &[("referer", "https://evil.test/https://app.example.com/")],
            &[("referer", "https://app.example.com.evil.test/")],
            &[("referer", "")],
        ] {
            assert!(refused(fields), "{fields:?}");
        }
    }
}
