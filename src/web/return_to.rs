//! Where a user is redirected after sign-in: a local path, or an absolute URL with an origin that is the gateway's own,
//! under the shared domain, or configured. Everything else falls back to the default (OWASP "Unvalidated Redirects";
//! oauth2-proxy GHSA-qqxw-m5fj-f7gv, GHSA-4mf2-f3wh-gvf2).

use url::Url;

use super::origin::Origin;

/// Longest accepted URL, in bytes.
pub const PLACE_BYTES_MAX: usize = 8192;

/// Rules for return addresses.
#[derive(Debug, Clone)]
pub struct ReturnRules {
    /// Default destination: a path.
    pub after_login: String,
    /// Parent domain that shares the session.
    pub domain: Option<String>,
    /// Further allowed origins, compared exactly.
    pub origins: Vec<Origin>,
    /// Paths of the gateway's own pages, which are not valid destinations: the prefix and the extra paths.
    pub own_pages: Vec<String>,
}

/// A valid return address: a path with query and fragment, or an allowed absolute URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReturnTo(String);

impl ReturnTo {
    /// The requested address, or `after_login` if it is not allowed. `own` are the gateway's origins for this request.
    pub fn judge(wanted: Option<&str>, own: &[Origin], rules: &ReturnRules) -> Self {
        wanted.and_then(|wanted| Self::parse(wanted, own, rules)).unwrap_or_else(|| Self(rules.after_login.clone()))
    }

    /// The requested address, if it is allowed.
    pub fn parse(wanted: &str, own: &[Origin], rules: &ReturnRules) -> Option<Self> {
        allowed(wanted, own, rules).map(Self)
    }

    /// The address.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The allowed form of the requested address: relative if the origin is the same.
fn allowed(wanted: &str, own: &[Origin], rules: &ReturnRules) -> Option<String> {
    let plain = wanted.bytes().all(|b| b > 0x20 && b < 0x7f && b != b'\\');
    if wanted.len() > PLACE_BYTES_MAX || !plain {
        return None;
    }
    if wanted.starts_with('/') {
        let local = !wanted.starts_with("//") && leads_nowhere_else(wanted) && !is_own_page(wanted, rules);
        return local.then(|| wanted.to_owned());
    }
    let url = Url::parse(wanted).ok().filter(|url| url.username().is_empty() && url.password().is_none())?;
    let origin = origin_of(&url)?;
    if own.first() == Some(&origin) {
        let path = wanted_path(&url);
        return (!path.starts_with("//") && !is_own_page(&path, rules)).then_some(path);
    }
    let shared = rules.domain.as_deref().is_some_and(|domain| {
        let host = origin.host();
        host == domain || host.strip_suffix(domain).is_some_and(|front| front.ends_with('.'))
    });
    // a shared session exists only on https: a downgrade would expose it to eavesdroppers
    let shared = shared && own.iter().any(|own| own.scheme() == origin.scheme());
    let ok = own.contains(&origin) || shared || rules.origins.contains(&origin);
    // serialized from the parsed form: to cookies, a host with a trailing dot is a different host
    (ok && !is_own_page(url.path(), rules)).then(|| format!("{origin}{}", wanted_path(&url)))
}

/// Whether a browser resolves the path on the same origin.
fn leads_nowhere_else(path: &str) -> bool {
    let Ok(base) = Url::parse("http://authgate.invalid/") else { return false };
    base.join(path).is_ok_and(|url| url.origin() == base.origin())
}

fn origin_of(url: &Url) -> Option<Origin> {
    matches!(url.scheme(), "http" | "https").then(|| Origin::parse(&url.origin().ascii_serialization())).flatten()
}

fn wanted_path(url: &Url) -> String {
    url[url::Position::BeforePath..].to_owned()
}

fn is_own_page(path: &str, rules: &ReturnRules) -> bool {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    // dot segments would lead back to the gateway's pages once a browser has resolved them
    let resolved = Url::parse("http://authgate.invalid/").and_then(|base| base.join(path));
    let path = resolved.as_ref().map_or(path, |url| url.path());
    let account = rules.own_pages.first().map(|prefix| format!("{prefix}/account"));
    if account.as_deref() == Some(path) {
        return false;
    }
    rules
        .own_pages
        .iter()
        .any(|own| path.strip_prefix(own.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(wanted: &str) -> String {
        let own =
            [Origin::parse("https://app.example.com").unwrap(), Origin::parse("https://login.example.com").unwrap()];
        let rules = ReturnRules {
            after_login: "/home".into(),
            domain: Some("example.com".into()),
            origins: vec![Origin::parse("https://other.example.org").unwrap()],
            own_pages: vec!["/.auth".into(), "/login".into()],
        };
        ReturnTo::judge(Some(wanted), &own, &rules).as_str().to_owned()
    }

    #[test]
    fn paths_here_and_allowed_origins_are_returned_to_with_query_and_fragment() {
        for (wanted, place) in [
            ("/", "/"),
            ("/a/b?x=1&y=%2F#part", "/a/b?x=1&y=%2F#part"),
            ("/a?u=https://evil.test/", "/a?u=https://evil.test/"),
            ("https://app.example.com/x?y#z", "/x?y#z"),
            ("HTTPS://APP.example.com:443/x", "/x"),
            ("https://login.example.com/x", "https://login.example.com/x"),
            ("https://wiki.example.com/x#y", "https://wiki.example.com/x#y"),
            ("https://wiki.example.com./x?y#z", "https://wiki.example.com/x?y#z"),
            ("https://wiki.example.com:8443", "https://wiki.example.com:8443/"),
            ("https://other.example.org/", "https://other.example.org/"),
            ("/.auth/account", "/.auth/account"),
            ("/loginless", "/loginless"),
        ] {
            assert_eq!(judge(wanted), place, "{wanted}");
        }
    }

    #[test]
    fn everything_else_falls_back() {
        for wanted in [
            "",
            " ",
            "x",
            "//evil.test",
            "///evil.test",
            "////evil.test",
            "/\\evil.test",
            "\\/evil.test",
            "\\\\evil.test",
            "/\t/evil.test",
            "/\n/evil.test",
            "/\r/evil.test",
            "\t//evil.test",
            " //evil.test",
            "/ /evil.test",
            "https:evil.test",
            "https:/evil.test",
            "https:///evil.test",
            "https://evil.test",
            "http://app.example.com/",
            "https://app.example.com.evil.test/",
            "https://evil.test/app.example.com",
            "https://app.example.com@evil.test/",
            "https://u:p@app.example.com/",
            "https://evilexample.com/",
            "https://example.com.evil.test/",
            "https://other.example.org.evil.test/",
            "http://other.example.org/",
            "https://other.example.org:8443/",
            "javascript:alert(1)",
            "JaVaScRiPt:alert(1)",
            "data:text/html,x",
            "vbscript:x",
            "file:///etc/passwd",
            "ftp://app.example.com/",
            "blob:https://app.example.com/x",
            "/.auth",
            "/.auth/login",
            "/.auth/logout?x",
            "/.auth/login#x",
            "/login",
            "/login?x",
            "/./.auth/logout",
            "/x/../.auth/logout",
            "/%2e/.auth/logout",
            "https://app.example.com/.auth/logout",
            "https://app.example.com//evil.test",
            "//app.example.com/",
            "/é",
            "/a\0",
            "/a\u{7f}",
            "http://wiki.example.com/",
        ] {
            assert_eq!(judge(wanted), "/home", "{wanted:?}");
        }
        assert_eq!(judge(&format!("/{}", "a".repeat(PLACE_BYTES_MAX))), "/home");
    }
}
