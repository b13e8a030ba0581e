//! The gateway's cookies: names, lookup in requests, and `Set-Cookie` values. The `Cookie` header is split on bytes, at
//! `;`, and only SP and HTAB are trimmed: the cookie crate's parser also trims Unicode white space and would accept
//! `\u{2000}__Host-authgate` as the session cookie (PortSwigger, "Cookie Chaos").

use http::{HeaderMap, HeaderValue, header};

/// The SameSite attribute (`session.same_site`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum SameSite {
    Lax,
    Strict,
    /// Requires an https `public_url`.
    None,
}

/// Names and attributes common to all of the gateway's cookies; derived once from `public_url`, `session.domain` and
/// `same_site`.
#[derive(Debug, Clone)]
pub struct CookieStyle {
    secure: bool,
    domain: Option<String>,
    same_site: SameSite,
    session: String,
    device: String,
    csrf: String,
    signed_out: String,
    apps: String,
    flash: String,
    oauth: String,
}

/// Result of looking up one cookie name in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presented<'a> {
    /// No such cookie.
    Absent,
    /// Exactly one value.
    One(&'a [u8]),
    /// Several different values: tampering, treated as invalid.
    Conflict,
}

impl CookieStyle {
    /// `name` is `session.cookie_name`. The default yields `__Host-authgate` on https, `__Secure-authgate` with a
    /// domain, `authgate` on plain http.
    pub fn new(name: &str, secure: bool, domain: Option<String>, same_site: SameSite) -> Self {
        let prefix = match (secure, &domain) {
            (true, None) => "__Host-",
            (true, Some(_)) => "__Secure-",
            (false, _) => "",
        };
        let [session, device, csrf, signed_out, ..] = SUFFIXES.map(|suffix| format!("{prefix}{name}{suffix}"));
        // always host-only, even if a domain shares the session
        let own = if secure { "__Host-" } else { "" };
        let [apps, flash, oauth] = ["apps", "flash", "oauth"].map(|suffix| format!("{own}{name}-{suffix}"));
        Self { secure, domain, same_site, session, device, csrf, signed_out, apps, flash, oauth }
    }

    /// Name of the session cookie.
    pub fn session(&self) -> &str {
        &self.session
    }

    /// Name of the cookie that identifies browsers that have signed in before.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// Name of the cookie that Auth.js clients prove their CSRF token with.
    pub fn csrf(&self) -> &str {
        &self.csrf
    }

    /// Name of the cookie that keeps the login page from signing in again a browser that has just signed out.
    pub fn signed_out(&self) -> &str {
        &self.signed_out
    }

    /// Name of the cookie that records which account the apps' cookies belong to.
    pub fn apps(&self) -> &str {
        &self.apps
    }

    /// Name of the cookie that shows on the next page why a form failed.
    pub fn flash(&self) -> &str {
        &self.flash
    }

    /// Name of the cookie that sign-ins through providers are bound to.
    pub fn oauth(&self) -> &str {
        &self.oauth
    }

    /// A `Set-Cookie` value for [`CookieStyle::oauth`]: for this host alone, and Lax whatever `same_site` says, because it
    /// has to come back with a navigation from another site.
    pub fn set_oauth(&self, value: &str, max_age_secs: u64) -> Option<HeaderValue> {
        let style = Self { domain: None, same_site: SameSite::Lax, ..self.clone() };
        style.set(&self.oauth, value, Some(max_age_secs))
    }

    /// A host-only `Set-Cookie` value, even if a domain shares the session.
    pub fn set_for_host(&self, name: &str, value: &str, max_age_secs: u64) -> Option<HeaderValue> {
        let host = Self { domain: None, ..self.clone() };
        host.set(name, value, Some(max_age_secs))
    }

    /// A `Set-Cookie` value; `max_age_secs` of `None` makes a browser-session cookie. `None` if the value contains a
    /// byte outside base64url and `.`.
    pub fn set(&self, name: &str, value: &str, max_age_secs: Option<u64>) -> Option<HeaderValue> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        if !value.bytes().all(plain) {
            return None;
        }
        let mut built = cookie::Cookie::build((name, value)).path("/").http_only(true).secure(self.secure).same_site(
            match self.same_site {
                SameSite::Lax => cookie::SameSite::Lax,
                SameSite::Strict => cookie::SameSite::Strict,
                SameSite::None => cookie::SameSite::None,
            },
        );
        if let Some(domain) = &self.domain {
            built = built.domain(domain.clone());
        }
        if let Some(secs) = max_age_secs {
            let secs = i64::try_from(secs).unwrap_or(i64::MAX);
            built = built.max_age(cookie::time::Duration::seconds(secs));
        }
        HeaderValue::try_from(built.build().to_string()).ok()
    }

    /// A `Set-Cookie` value that deletes the cookie: same name, path, domain and flags.
    pub fn remove(&self, name: &str) -> Option<HeaderValue> {
        self.set(name, "", Some(0))
    }
}

/// Default of `session.cookie_name`.
pub const DEFAULT_NAME: &str = "authgate";

/// Behind that name: the session, the device, the proof of Auth.js clients' CSRF token, that the browser has just signed
/// out, which account the cookies of apps belong to, why a form failed, and what sign-ins through providers are bound to.
const SUFFIXES: [&str; 7] = ["", "-device", "-csrf", "-signed-out", "-apps", "-flash", "-oauth"];

/// Whether a cookie of this name belongs to a gateway with `session.cookie_name` set to `own`: such cookies are neither
/// forwarded nor accepted from a backend. The names used under other schemes count too, so that a cookie planted under
/// them is not forwarded.
pub fn is_own(own: &str, name: &[u8]) -> bool {
    let name = name.strip_prefix(b"__Host-").or(name.strip_prefix(b"__Secure-")).unwrap_or(name);
    name.strip_prefix(own.as_bytes()).is_some_and(|rest| SUFFIXES.iter().any(|suffix| suffix.as_bytes() == rest))
}

/// Whether `session.cookie_name` may have this value: a token (RFC 6265, 4.1.1) that every parser reads alike, without
/// a prefix that has special rules in browsers.
pub fn may_be_named(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    (1..=64).contains(&name.len())
        && name.bytes().all(plain)
        && name.bytes().any(|b| b.is_ascii_alphanumeric())
        && !name.starts_with("__")
}

/// The cookies of a request, in order, as name and value. Items without `=` are skipped.
pub fn pairs(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    headers.get_all(header::COOKIE).iter().flat_map(|line| split(line.as_bytes())).filter_map(|item| {
        let at = memchr::memchr(b'=', item)?;
        Some((trim(&item[..at]), trim(&item[at + 1..])))
    })
}

/// The items of one `Cookie` line, trimmed of SP and HTAB. Tokens are long, so the search jumps from `;` to `;`.
pub fn split(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let ends = memchr::memchr_iter(b';', line).chain(std::iter::once(line.len()));
    let items = ends.scan(0, |start, end| Some(&line[std::mem::replace(start, end + 1)..end]));
    items.map(trim).filter(|item| !item.is_empty())
}

/// The name under which a browser will return a cookie: it sends a nameless one (`=name=value`) as just its value (RFC
/// 6265bis, 5.8.3).
pub fn name_of(item: &[u8]) -> &[u8] {
    let start = item.iter().position(|b| !b" \t=".contains(b)).unwrap_or(item.len());
    let item = &item[start..];
    &item[..memchr::memchr(b'=', item).unwrap_or(item.len())]
}

/// The values of all cookies of this exact name, in order.
pub fn values<'h>(headers: &'h HeaderMap, name: &str) -> impl Iterator<Item = &'h [u8]> {
    pairs(headers).filter(move |(own, _)| *own == name.as_bytes()).map(|(_, value)| value)
}

/// Finds one cookie by its exact name.
pub fn find<'a>(headers: &'a HeaderMap, name: &str) -> Presented<'a> {
    let mut found = Presented::Absent;
    for (own, value) in pairs(headers) {
        if own != name.as_bytes() {
            continue;
        }
        found = match found {
            Presented::Absent => Presented::One(value),
            Presented::One(first) if first == value => found,
            _ => Presented::Conflict,
        };
    }
    found
}

fn trim(bytes: &[u8]) -> &[u8] {
    let blank = |b: &u8| *b == b' ' || *b == b'\t';
    let start = bytes.iter().position(|b| !blank(b)).unwrap_or(bytes.len());
    let end = bytes.iter().rposition(|b| !blank(b)).map_or(start, |at| at + 1);
    &bytes[start..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::COOKIE, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        headers
    }

    #[test]
    fn a_cookie_is_found_by_its_exact_name_among_others_and_across_lines() {
        let headers = request(&["a=1; __Host-authgate=x.y.z;b=2", "c=3"]);
        assert_eq!(find(&headers, "__Host-authgate"), Presented::One(b"x.y.z"));
        assert_eq!(find(&headers, "c"), Presented::One(b"3"));
        assert_eq!(find(&headers, "d"), Presented::Absent);
    }

    #[test]
    fn look_alikes_of_our_name_are_not_our_cookie() {
        for line in ["\u{2000}__Host-authgate=x", "\u{a0}__Host-authgate=x", "__host-authgate=x", "%5F_Host-authgate=x"]
        {
            assert_eq!(find(&request(&[line]), "__Host-authgate"), Presented::Absent, "{line}");
        }
    }

    #[test]
    fn a_cookie_without_a_name_is_named_by_its_value() {
        for item in ["authgate=x", "=authgate=x", " = =authgate=x", "authgate"] {
            assert_eq!(name_of(item.as_bytes()), b"authgate", "{item}");
        }
        assert_eq!(name_of(b"a=authgate=x"), b"a");
    }

    #[test]
    fn two_values_under_one_name_are_tampering_and_one_value_twice_is_not() {
        assert_eq!(find(&request(&["s=a; s=b"]), "s"), Presented::Conflict);
        assert_eq!(find(&request(&["s=a", "s=a"]), "s"), Presented::One(b"a"));
    }

    #[test]
    fn names_and_attributes_follow_the_scheme_and_the_domain() {
        let host = CookieStyle::new("authgate", true, None, SameSite::Lax);
        assert_eq!(
            host.set(host.session(), "v", Some(60)).unwrap(),
            "__Host-authgate=v; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=60"
        );
        let domain = CookieStyle::new("authgate", true, Some("example.com".into()), SameSite::Strict);
        assert_eq!(
            domain.set(domain.session(), "v", None).unwrap(),
            "__Secure-authgate=v; HttpOnly; SameSite=Strict; Secure; Path=/; Domain=example.com"
        );
        let plain = CookieStyle::new("authgate", false, None, SameSite::Lax);
        assert_eq!(plain.remove(plain.session()).unwrap(), "authgate=; HttpOnly; SameSite=Lax; Path=/; Max-Age=0");
        assert_eq!(plain.set("authgate", "a; Domain=evil.test", None), None);
    }
}
