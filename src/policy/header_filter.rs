//! Which header fields and cookies of a client's reach no app, in every spelling that a backend could fold onto them.
//!
//! Sources: oauth2-proxy CVE-2025-64484, Traefik CVE-2026-33433 and -39858, Caddy CVE-2026-30851.

use std::collections::HashSet;

use crate::account::SESSION_TOKEN_START;
use crate::config::{Config, Upstream};
use crate::web::cookie;
use crate::web::names::Names;
use crate::web::proxy_headers::is_said_by_proxies;

/// Identity headers of the presets, in lower case, as far as they are no whole family.
const IDENTITY: [&str; 9] = [
    "remote-user",
    "remote-email",
    "remote-name",
    "remote-groups",
    "remote-id",
    "x-forwarded-user",
    "x-forwarded-email",
    "x-forwarded-groups",
    "x-forwarded-preferred-username",
];

/// Never let through from a client: set anew by us, or read by frameworks as if a proxy had said it
/// (`Proxy`: CGI programs take it for `HTTP_PROXY`, CVE-2016-5385), or meant for us (RFC 9110, 11.7.2).
const STRIPPED: [&str; 9] = [
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-request-id",
    "x-original-url",
    "x-rewrite-url",
    "proxy",
    "proxy-authorization",
];

/// Families of names that never pass: ours, frameworks' own, and those that gateways state identities in.
const PREFIXES: [&str; 6] = ["x-authgate-", "x-auth-request-", "x-remote-", "x-webauth-", "x-invoke-", "x-middleware-"];

/// Which request headers never pass; made once from the configuration.
#[derive(Debug)]
pub(crate) struct HeaderFilter {
    /// Names that never pass.
    never: HashSet<String, ahash::RandomState>,
    never_names: Names,
    /// Cookies that carry backends' tokens, also with `__Host-` and `__Secure-`, as [`folded`] has them.
    token_cookies: Vec<Vec<u8>>,
    /// `session.cookie_name`.
    own_cookies: String,
    /// What proxies say that passes from trusted ones.
    trusted_headers: Vec<String>,
}

impl HeaderFilter {
    pub(crate) fn new(config: &Config) -> Self {
        let configured = config.upstreams.iter().flat_map(|upstream| &upstream.identity.0);
        let configured = configured.map(|(name, _)| fold(name));
        let never: HashSet<String, _> =
            IDENTITY.into_iter().chain(STRIPPED).map(str::to_owned).chain(configured).collect();
        Self {
            never_names: never.iter().fold(Names::NONE, |names, name| names.with(name.as_bytes())),
            never,
            token_cookies: token_cookies(config),
            own_cookies: config.session.cookie_name.clone(),
            trusted_headers: config.server.trusted_headers.clone(),
        }
    }

    /// Whether a cookie of this name is ours or carries a backend's token. What begins with such a name
    /// counts: next-auth joins `name.0`, `name.1`. Bytes that some parsers trim away are no part of it, and a token's
    /// counts in every spelling.
    pub(crate) fn is_ours(&self, name: &[u8]) -> bool {
        let dull = |b: &u8| !b.is_ascii_graphic();
        let start = name.iter().position(|b| !dull(b)).unwrap_or(name.len());
        let end = name.iter().rposition(|b| !dull(b)).map_or(start, |at| at + 1);
        let name = &name[start..end];
        cookie::is_own(&self.own_cookies, name) || cookie::is_own(cookie::DEFAULT_NAME, name) || self.is_token(name)
    }

    fn is_token(&self, name: &[u8]) -> bool {
        self.token_cookies.iter().any(|own| {
            let in_front = own.first() == Some(&b'-') && is_or_piece_of(own, folded(name));
            in_front || is_or_piece_of(own, folded_without_front(name))
        })
    }

    /// Whether a reader that takes blanks and commas for the end of a cookie (RFC 2109, 4.3.4; Python's `SimpleCookie`)
    /// finds a token behind one.
    pub(crate) fn hides_token(&self, item: &[u8]) -> bool {
        !self.token_cookies.is_empty()
            && item
                .split(|b| b" \t,".contains(b))
                .skip(1)
                .any(|part| part.contains(&b'=') && self.is_token(cookie::name_of(part)))
    }

    /// Whether a header of this name (in lower case, as `http` keeps it) may reach the upstream.
    pub(crate) fn passes(&self, name: &str, upstream: &Upstream, trusted: bool) -> bool {
        if is_plain(name) {
            return self.folded_passes(name, trusted);
        }
        upstream.allow_headers.iter().any(|allowed| allowed == name) && self.folded_passes(&fold(name), trusted)
    }

    fn folded_passes(&self, name: &str, trusted: bool) -> bool {
        !((self.never_names.may_have(name.as_bytes()) && self.never.contains(name))
            || (name.starts_with('x') && PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
            || (is_said_by_proxies(name) && !(trusted && self.trusted_headers.iter().any(|own| own == name))))
    }
}

fn token_cookies(config: &Config) -> Vec<Vec<u8>> {
    let named = config.upstreams.iter().filter_map(|upstream| upstream.token.as_ref()).flat_map(|token| &token.cookies);
    let mut names: Vec<Vec<u8>> = named
        .flat_map(|name| {
            let bare = name.strip_prefix("__Host-").or(name.strip_prefix("__Secure-")).unwrap_or(name);
            ["", "__Host-", "__Secure-"].map(|prefix| {
                let name = format!("{prefix}{bare}");
                folded_without_front(name.as_bytes()).collect()
            })
        })
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// A cookie's name as lenient backends would have it (PHP, ASP.NET, Rack): escapes read, in lower case, all else but
/// letters and digits `-`.
fn folded(name: &[u8]) -> impl Iterator<Item = u8> {
    percent_encoding::percent_decode(name).map(fold_byte)
}

/// The same without what some of them leave out in front (`$`, quotes), and others fold as the rest (PHP: a dot).
fn folded_without_front(name: &[u8]) -> impl Iterator<Item = u8> {
    let begins = |b: u8| b.is_ascii_alphanumeric() || b"_-".contains(&b);
    percent_encoding::percent_decode(name).skip_while(move |&b| !begins(b)).map(fold_byte)
}

fn fold_byte(b: u8) -> u8 {
    if b.is_ascii_alphanumeric() { b.to_ascii_lowercase() } else { b'-' }
}

/// Whether a folded name is that of a token, or of one of the pieces of a long one, which follow behind a dot.
fn is_or_piece_of(own: &[u8], mut name: impl Iterator<Item = u8>) -> bool {
    own.iter().copied().eq(name.by_ref().take(own.len())) && name.next().is_none_or(|next| next == b'-')
}

/// `[A-Za-z0-9-]+`: the names that every backend reads alike.
fn is_plain(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// The spelling that a CGI-like backend would fold a name onto: `_`, `.` and all else become `-`.
fn fold(name: &str) -> String {
    name.bytes().map(fold_byte).map(char::from).collect()
}

/// Whether a cookie holds a session of a gateway like this one, which may have another name: cookies know no ports, and
/// two of them on one host get each other's.
pub(crate) fn holds_session(item: &[u8]) -> bool {
    let value = memchr::memchr(b'=', item).map_or(item, |at| &item[at + 1..]);
    value.strip_prefix(b"\"").unwrap_or(value).starts_with(SESSION_TOKEN_START.as_bytes())
}
