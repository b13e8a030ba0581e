//! Cookies that apps set belong to the account that was signed in then (`session.app_cookies`): they outlive a sign-out,
//! and an app would take the next person at the same browser for the one before. What another account had is not
//! forwarded, and is taken away in the answer; which names those are stands in a cookie of the gateway's own, one a host.

use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderMap, HeaderValue, header};

use super::header_filter::HeaderFilter;
use crate::account::{AccountTag, AppCookieKey, AppCookies, Identity, Owner, User};
use crate::config::AppCookieRule;
use crate::web::cookie::{self, CookieStyle};
use crate::web::incoming::Incoming;
use crate::web::origin::Scheme;

/// Requests that are remembered as having nothing in them that needs anything done.
const SETTLED: usize = 4096;
/// `Set-Cookie` lines at most that take cookies away in one answer: with a proxy's buffers in mind, 4 KiB for a head.
const EXPIRY_LINES_MAX: usize = 30;
/// And their bytes: what is left over goes with the next answer.
const EXPIRY_BYTES_MAX: usize = 2048;
/// Records that are read of one request: more than one has been planted, or is an old one of a longer path.
const RECORDS_MAX: usize = 8;
/// 400 days, the longest that browsers keep a cookie (RFC 6265bis, 5.5).
const RECORD_SECS: u64 = 400 * 86_400;

/// What is to be done about the cookies of one request.
#[derive(Debug)]
pub(crate) struct Foreign {
    tag: AccountTag,
    /// Another account's, name and value: not forwarded.
    withheld: Vec<(Vec<u8>, Vec<u8>)>,
    /// Whether there are some that belong to nobody so far.
    unrecorded: bool,
    /// Whose they are cannot be known: the record was not sent.
    unknowable: bool,
}

impl Foreign {
    /// Whether a cookie of the request stays here.
    pub(crate) fn withholds(&self, item: &[u8]) -> bool {
        let (name, value) = name_and_value(item);
        self.withheld.iter().any(|(own, owned)| own == name && owned == value)
    }
}

/// Which requests have been looked at and need nothing: a hash of account, host and cookies each. Whoever comes next takes
/// the place over.
pub(crate) struct Settled {
    /// Random per process: nobody can aim at a place, or at a hash.
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

/// The account that the cookies of a request belong to, wherever its session was shown (a ticket, too, is sent by a browser with
/// the app's cookies); `None`: they are not looked at. An API token is a program's, unless a record shows a browser.
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

/// What the gateway knows about cookies of apps, whatever the request.
pub(crate) struct Context<'g> {
    pub(crate) key: &'g AppCookieKey,
    pub(crate) cookies: &'g CookieStyle,
    pub(crate) header_filter: &'g HeaderFilter,
    pub(crate) settled: &'g Settled,
}

impl Context<'_> {
    /// Looks at the cookies of a request that the session of `user` authenticates; `None`: all of them may pass, and
    /// nothing is new. `ambient_credential`: the browser sent the session by itself, and so the record, if it has one.
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
        // a page of another site shows a session by a ticket or a field: apps' cookies may come with it, and ours do not
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

    /// The `Set-Cookie` values that an answer to it is given, before those of the app: cookies that are taken away, and the
    /// record where it changes. `set` are the app's own.
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

    /// The `Set-Cookie` values that record as this account's what the request carries and nobody had; nothing is taken away.
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

    /// What the browser's records hold, of those that are ours.
    fn record(&self, headers: &HeaderMap, host: &str) -> Option<AppCookies> {
        let sealed = cookie::values(headers, self.cookies.apps());
        let records = sealed.filter_map(|value| AppCookies::parse(self.key, host, value));
        records.take(RECORDS_MAX).reduce(AppCookies::with)
    }

    /// The request's cookies that are none of ours.
    fn of_apps<'h>(&self, headers: &'h HeaderMap) -> impl Iterator<Item = (&'h [u8], &'h [u8])> {
        let items = headers.get_all(header::COOKIE).iter().flat_map(|line| cookie::split(line.as_bytes()));
        items.map(name_and_value).filter(|(name, _)| self.is_apps(name))
    }

    fn is_apps(&self, name: &[u8]) -> bool {
        !name.is_empty() && !self.header_filter.is_ours(name)
    }
}

/// One item of a `Cookie` field, as [`cookie::name_of`] names it.
fn name_and_value(item: &[u8]) -> (&[u8], &[u8]) {
    let name = cookie::name_of(item).trim_ascii();
    let value = item.iter().position(|&b| b == b'=').map_or(&b""[..], |at| &item[at + 1..]);
    (name, value.trim_ascii())
}

/// The cookie that a `Set-Cookie` value sets.
fn name_and_set_value(set: &[u8]) -> (&[u8], &[u8]) {
    name_and_value(set.split(|&b| b == b';').next().unwrap_or_default())
}

/// Takes cookies away under all paths that this request could have had them from, the root first; for the host alone, and
/// for it with all below.
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

/// The paths whose cookies come with a request (RFC 6265, 5.1.4), shortest first: each folder without and with a slash.
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

    /// A proxy in front may hold 4 KiB for a head.
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
