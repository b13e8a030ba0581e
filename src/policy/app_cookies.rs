//! Cookies set by apps belong to the account that was signed in at the time (`session.app_cookies`). They outlive a
//! sign-out, and an app would mistake the next user of the same browser for the previous one. Cookies of another
//! account are not forwarded, and the response expires them. A cookie of the gateway's own, one per host, records which
//! names those are.

use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderMap, HeaderValue, header};

use super::header_filter::HeaderFilter;
use crate::account::{AccountTag, AppCookieKey, AppCookies, Identity, Owner, User};
use crate::config::AppCookieRule;
use crate::web::cookie::{self, CookieStyle};
use crate::web::incoming::Incoming;
use crate::web::origin::Scheme;

/// Number of remembered requests with cookies that need no action.
const SETTLED: usize = 4096;
/// Limit on `Set-Cookie` lines that expire cookies in one response; some proxies buffer only 4 KiB for a head.
const EXPIRY_LINES_MAX: usize = 30;
/// Limit on their bytes; the next response expires the rest.
const EXPIRY_BYTES_MAX: usize = 2048;
/// Limit on records read from one request. A second one was planted, or is an old one of a longer path.
const RECORDS_MAX: usize = 8;
/// 400 days, the longest that browsers keep a cookie (RFC 6265bis, 5.5).
const RECORD_SECS: u64 = 400 * 86_400;

/// The app cookies of one request that need action.
#[derive(Debug)]
pub(crate) struct Foreign {
    tag: AccountTag,
    /// Cookies of another account, name and value: not forwarded.
    withheld: Vec<(Vec<u8>, Vec<u8>)>,
    /// Whether some cookies belong to no account yet.
    unrecorded: bool,
    /// The record was not sent, so the owners are unknown.
    unknowable: bool,
}

impl Foreign {
    /// Whether a cookie of the request is not forwarded.
    pub(crate) fn withholds(&self, item: &[u8]) -> bool {
        let (name, value) = name_and_value(item);
        self.withheld.iter().any(|(own, owned)| own == name && owned == value)
    }
}

/// Requests that were checked and need no action: a hash of account, host and cookies each. A later request may
/// overwrite the slot.
pub(crate) struct Settled {
    /// Random per process, so that an attacker cannot target a slot or a hash.
    hasher: ahash::RandomState,
    places: Vec<AtomicU64>,
}

impl Default for Settled {
    fn default() -> Self {
        Self { hasher: ahash::RandomState::new(), places: (0..SETTLED).map(|_| AtomicU64::new(0)).collect() }
    }
}

impl Settled {
    fn hash(&self, user: &User, incoming: &Incoming<'_>) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        for part in [user.id.as_bytes(), incoming.host.name().as_bytes()] {
            hasher.write(part);
            hasher.write_u8(0);
        }
        incoming.headers.get_all(header::COOKIE).iter().for_each(|line| hasher.write(line.as_bytes()));
        hasher.finish()
    }

    fn place(&self, hash: u64) -> &AtomicU64 {
        &self.places[usize::try_from(hash % SETTLED as u64).unwrap_or(0)]
    }
}

/// The account that the cookies of a request belong to, wherever its session was presented (a browser sends a ticket,
/// too, together with the app's cookies). `None`: the cookies are not checked. An API token belongs to a program,
/// unless a record shows a browser.
pub(crate) fn owner<'s>(
    rule: AppCookieRule,
    cookies: &CookieStyle,
    identity: Option<&'s Identity>,
    headers: &HeaderMap,
) -> Option<&'s User> {
    let identity = identity?;
    let by_browser = || cookie::values(headers, cookies.apps()).next().is_some();
    let looked_at = rule == AppCookieRule::PerAccount;
    (looked_at && (identity.grant.is_none() || by_browser())).then_some(&identity.user)
}

/// What the gateway knows about app cookies, independent of the request.
pub(crate) struct Context<'g> {
    pub(crate) key: &'g AppCookieKey,
    pub(crate) cookies: &'g CookieStyle,
    pub(crate) header_filter: &'g HeaderFilter,
    pub(crate) settled: &'g Settled,
}

impl Context<'_> {
    /// Checks the cookies of a request that the session of `user` authenticates. `None`: all of them may pass, and none
    /// is new. `ambient_credential`: the browser sent the session automatically, and so also the record, if it has one.
    pub(crate) fn judge(&self, user: &User, incoming: &Incoming<'_>, ambient_credential: bool) -> Option<Box<Foreign>> {
        let hash = self.settled.hash(user, incoming);
        if self.settled.place(hash).load(Ordering::Relaxed) == hash {
            return None;
        }
        self.look(user, incoming, ambient_credential, hash)
    }

    #[inline(never)]
    fn look(&self, user: &User, incoming: &Incoming<'_>, ambient_credential: bool, hash: u64) -> Option<Box<Foreign>> {
        let tag = self.key.tag(&user.id);
        let record = self.record(incoming.headers, incoming.host.name());
        // a page of another site sends a session as a ticket or in a header: app cookies may come with it, the
        // gateway's cannot
        let unknowable = record.is_none() && !ambient_credential;
        let record = record.unwrap_or_default();
        let mut foreign = Foreign { tag, withheld: Vec::new(), unrecorded: false, unknowable };
        for (name, value) in self.of_apps(incoming.headers) {
            match record.owner(tag, name, value) {
                Owner::Own => {}
                Owner::New if !unknowable => foreign.unrecorded = true,
                Owner::New | Owner::Other => foreign.withheld.push((name.to_vec(), value.to_vec())),
            }
        }
        if foreign.withheld.is_empty() && !foreign.unrecorded {
            self.settled.place(hash).store(hash, Ordering::Relaxed);
            return None;
        }
        Some(Box::new(foreign))
    }

    /// The `Set-Cookie` values that the response gets ahead of the app's own: expired cookies, and the record if it
    /// changed. `set` are the app's own.
    #[inline(never)]
    pub(crate) fn settle<'a>(
        &self,
        user: &User,
        incoming: &Incoming<'_>,
        foreign: Option<&Foreign>,
        set: impl Iterator<Item = &'a [u8]>,
    ) -> Vec<HeaderValue> {
        let set: Vec<(&[u8], &[u8])> = set.map(name_and_set_value).filter(|(name, _)| self.is_apps(name)).collect();
        if foreign.is_none() && set.is_empty() {
            return Vec::new();
        }
        let host = incoming.host.name();
        let tag = foreign.map_or_else(|| self.key.tag(&user.id), |foreign| foreign.tag);
        let mut record = self.record(incoming.headers, host).unwrap_or_default();
        let mut changed = false;
        let mut kept = Vec::new();
        let is_knowable = !foreign.is_some_and(|foreign| foreign.unknowable);
        for (name, value) in self.of_apps(incoming.headers).filter(|_| is_knowable) {
            match record.owner(tag, name, value) {
                Owner::New => changed |= record.record(tag, name, value),
                Owner::Own => kept.push(name),
                Owner::Other => {}
            }
        }
        for (name, value) in &set {
            changed |= record.record(tag, name, value);
            kept.push(name);
        }
        let mut values = Vec::new();
        if let Some(foreign) = foreign.filter(|_| is_knowable) {
            let gone = foreign.withheld.iter().map(|(name, _)| name.as_slice()).filter(|name| !kept.contains(name));
            expire(gone, (host, incoming.path.as_str(), incoming.scheme), &mut values);
        }
        if changed {
            values.extend(self.cookies.set_for_host(self.cookies.apps(), &record.seal(self.key, host), RECORD_SECS));
        }
        values
    }

    /// The `Set-Cookie` values that record the request's unowned cookies as this account's; expires nothing.
    pub(crate) fn record_those_of(
        &self,
        user: &User,
        incoming: &Incoming<'_>,
        ambient_credential: bool,
    ) -> Vec<HeaderValue> {
        let Some(foreign) = self.judge(user, incoming, ambient_credential) else { return Vec::new() };
        let foreign = Foreign { withheld: Vec::new(), ..*foreign };
        self.settle(user, incoming, Some(&foreign), std::iter::empty())
    }

    /// The browser's records that this gateway sealed, merged.
    fn record(&self, headers: &HeaderMap, host: &str) -> Option<AppCookies> {
        let sealed = cookie::values(headers, self.cookies.apps());
        let records = sealed.filter_map(|value| AppCookies::parse(self.key, host, value));
        records.take(RECORDS_MAX).reduce(AppCookies::with)
    }

    /// The request's cookies except the gateway's own.
    fn of_apps<'h>(&self, headers: &'h HeaderMap) -> impl Iterator<Item = (&'h [u8], &'h [u8])> {
        let items = headers.get_all(header::COOKIE).iter().flat_map(|line| cookie::split(line.as_bytes()));
        items.map(name_and_value).filter(|(name, _)| self.is_apps(name))
    }

    fn is_apps(&self, name: &[u8]) -> bool {
        !name.is_empty() && !self.header_filter.is_ours(name)
    }
}

/// Name and value of one item of a `Cookie` field, the name as in [`cookie::name_of`].
fn name_and_value(item: &[u8]) -> (&[u8], &[u8]) {
    let name = cookie::name_of(item).trim_ascii();
    let value = item.iter().position(|&b| b == b'=').map_or(&b""[..], |at| &item[at + 1..]);
    (name, value.trim_ascii())
}

/// Name and value of the cookie that a `Set-Cookie` value sets.
fn name_and_set_value(set: &[u8]) -> (&[u8], &[u8]) {
    name_and_value(set.split(|&b| b == b';').next().unwrap_or_default())
}

/// Expires cookies under every path that this request could have received them from, the root first; for the host
/// alone, and for the host with its subdomains.
fn expire<'a>(
    names: impl Iterator<Item = &'a [u8]>,
    (host, path, scheme): (&str, &str, Scheme),
    out: &mut Vec<HeaderValue>,
) {
    let mut names: Vec<&[u8]> = names.collect();
    names.sort_unstable();
    names.dedup();
    let lines = paths(path).flat_map(|path| {
        names.iter().flat_map(move |name| ["", host].map(|domain| expired(name, path, domain, scheme)))
    });
    let mut bytes = 0;
    out.extend(lines.flatten().take(EXPIRY_LINES_MAX).take_while(|line| {
        bytes += line.len();
        bytes <= EXPIRY_BYTES_MAX
    }));
}

fn expired(name: &[u8], path: &str, domain: &str, scheme: Scheme) -> Option<HeaderValue> {
    let bound = name.starts_with(b"__Host-");
    if bound && (path != "/" || !domain.is_empty()) {
        return None;
    }
    let mut line = name.to_vec();
    line.extend_from_slice(b"=; Max-Age=0; Path=");
    line.extend_from_slice(path.as_bytes());
    if !domain.is_empty() {
        line.extend_from_slice(b"; Domain=");
        line.extend_from_slice(domain.as_bytes());
    }
    if scheme == Scheme::Https {
        line.extend_from_slice(b"; Secure");
    }
    HeaderValue::from_bytes(&line).ok()
}

/// The paths that a request receives cookies from (RFC 6265, 5.1.4), shortest first: each folder without and with a
/// slash.
fn paths(path: &str) -> impl Iterator<Item = &str> {
    let path = path.split(';').next().unwrap_or_default();
    let slashes = path.match_indices('/').skip(1).flat_map(|(at, _)| [&path[..at], &path[..=at]]);
    std::iter::once("/").chain(slashes).chain((path.len() > 1 && !path.ends_with('/')).then_some(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_paths_that_a_request_has_cookies_from() {
        assert_eq!(paths("/").collect::<Vec<_>>(), ["/"]);
        assert_eq!(paths("/a/b/c").collect::<Vec<_>>(), ["/", "/a", "/a/", "/a/b", "/a/b/", "/a/b/c"]);
        assert_eq!(paths("/a/").collect::<Vec<_>>(), ["/", "/a", "/a/"]);
        assert_eq!(paths("/a;x/b").collect::<Vec<_>>(), ["/", "/a"]);
    }

    #[test]
    fn cookies_with_a_prefix_are_taken_away_as_browsers_let_them_be_set() {
        let line = |name: &str, path, domain| expired(name.as_bytes(), path, domain, Scheme::Https);
        assert_eq!(line("__Host-a", "/", "").unwrap(), "__Host-a=; Max-Age=0; Path=/; Secure");
        assert_eq!(line("__Host-a", "/x", ""), None);
        assert_eq!(line("__Host-a", "/", "app.example.com"), None);
        let domain = line("a", "/x", "app.example.com").unwrap();
        assert_eq!(domain, "a=; Max-Age=0; Path=/x; Domain=app.example.com; Secure");
        assert_eq!(expired(b"a", "/", "", Scheme::Http).unwrap(), "a=; Max-Age=0; Path=/");
    }

    /// A proxy in front may buffer only 4 KiB for a head.
    #[test]
    fn what_takes_cookies_away_has_bounds() {
        let names: Vec<Vec<u8>> = (0..15).map(|at| format!("{at:x>253}").into_bytes()).collect();
        for (names, scheme, lines) in [(names, Scheme::Https, 7), (vec![b"sid".to_vec()], Scheme::Http, 8)] {
            let mut out = Vec::new();
            expire(names.iter().map(Vec::as_slice), ("app.example.com", "/a/b", scheme), &mut out);
            assert_eq!(out.len(), lines);
            assert!(out.iter().map(HeaderValue::len).sum::<usize>() <= EXPIRY_BYTES_MAX);
        }
    }

    #[test]
    fn a_cookie_is_named_alike_where_it_is_set_and_where_it_comes_back() {
        assert_eq!(name_and_set_value(b"sid=a=b ; Path=/"), (&b"sid"[..], &b"a=b"[..]));
        assert_eq!(name_and_value(b"sid=a=b"), (&b"sid"[..], &b"a=b"[..]));
        assert_eq!(name_and_value(b"alone"), (&b"alone"[..], &b""[..]));
    }
}
