//! Header fields and cookies that the client sends and no app receives, in every spelling that a backend could fold
//! onto them.
//!
//! Sources: oauth2-proxy CVE-2025-64484, Traefik CVE-2026-33433 and -39858, Caddy CVE-2026-30851.

use std::collections::HashSet;

use crate::account::SESSION_TOKEN_START;
use crate::config::{Config, Upstream};
use crate::web::cookie;
use crate::web::names::Names;
use crate::web::proxy_headers::is_said_by_proxies;

/// Identity headers of the presets, in lower case, except the families in [`PREFIXES`].
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

/// Never forwarded from a client: set by the gateway, or read by frameworks as if a proxy had sent them (`Proxy`: CGI
/// programs read it as `HTTP_PROXY`, CVE-2016-5385), or meant for the gateway (RFC 9110, 11.7.2).
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

/// Families of names that are never forwarded: the gateway's, frameworks' internal ones, and identity headers of other
/// gateways.
const PREFIXES: [&str; 6] = ["x-authgate-", "x-auth-request-", "x-remote-", "x-webauth-", "x-invoke-", "x-middleware-"];

/// Which request headers are never forwarded; built once from the configuration.
#[derive(Debug)]
pub(crate) struct HeaderFilter {
    /// Names that are never forwarded, folded.
    never: HashSet<String, ahash::RandomState>,
    never_names: Names,
    /// Cookies that carry backend tokens, also with `__Host-` and `__Secure-`, folded as by [`folded_without_front`].
    token_cookies: Vec<Vec<u8>>,
    /// `session.cookie_name`.
    own_cookies: String,
    /// Proxy headers that pass if a trusted proxy sent them.
    trusted_headers: Vec<String>,
}

impl HeaderFilter {
    pub(crate) fn new(config: &Config) -> Self {
        let configured = config.upstreams.iter().flat_map(|upstream| &upstream.identity.0);
        let tokens = config.upstreams.iter().filter_map(|upstream| upstream.provider_token.as_ref());
        // any app may read `Authorization`: it is replaced where an upstream gets one
        let tokens = tokens.filter(|token| !token.is_authorization()).map(|token| fold(&token.header));
        let configured = configured.map(|(name, _)| fold(name)).chain(tokens);
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

    /// Whether a cookie of this name is the gateway's or carries a backend token. A name that starts with such a name
    /// counts, too: next-auth splits a token into `name.0`, `name.1`. Bytes that some parsers trim are ignored, and a
    /// token's name counts in every spelling.
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

    /// Whether a reader that ends a cookie at blanks and commas (RFC 2109, 4.3.4; Python's `SimpleCookie`) finds a
    /// token after one.
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

/// A cookie's name as lenient backends read it (PHP, ASP.NET, Rack): unescaped, in lower case, everything but letters
/// and digits as `-`.
fn folded(name: &[u8]) -> impl Iterator<Item = u8> {
    percent_encoding::percent_decode(name).map(fold_byte)
}

/// The same without the leading bytes that some of them skip (`$`, quotes) and others fold like the rest (PHP: a dot).
fn folded_without_front(name: &[u8]) -> impl Iterator<Item = u8> {
    let begins = |b: u8| b.is_ascii_alphanumeric() || b"_-".contains(&b);
    percent_encoding::percent_decode(name).skip_while(move |&b| !begins(b)).map(fold_byte)
}

fn fold_byte(b: u8) -> u8 {
    if b.is_ascii_alphanumeric() { b.to_ascii_lowercase() } else { b'-' }
}

/// Whether a folded name is that of a token, or of one piece of a long token, which has a suffix after a dot.
fn is_or_piece_of(own: &[u8], mut name: impl Iterator<Item = u8>) -> bool {
    own.iter().copied().eq(name.by_ref().take(own.len())) && name.next().is_none_or(|next| next == b'-')
}

/// `[A-Za-z0-9-]+`: names that every backend reads alike.
fn is_plain(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// The spelling that a CGI-like backend would fold a name onto: `_`, `.` and all other bytes become `-`.
fn fold(name: &str) -> String {
    name.bytes().map(fold_byte).map(char::from).collect()
}

/// Whether a cookie holds a session of any such gateway, whatever its cookie name: cookies ignore ports, so two
/// gateways on one host receive each other's cookies.
pub(crate) fn holds_session(item: &[u8]) -> bool {
    let value = memchr::memchr(b'=', item).map_or(item, |at| &item[at + 1..]);
    value.strip_prefix(b"\"").unwrap_or(value).starts_with(SESSION_TOKEN_START.as_bytes())
}
