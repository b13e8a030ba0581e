//! Admission -> what the upstream gets of the client's head: strip first, on every route and in every
//! spelling, then state the identity. Pure: it says what changes, and every way to an upstream does that.
//!
//! Sources: oauth2-proxy CVE-2025-64484, Traefik CVE-2026-33433 and -39858, Caddy CVE-2026-30851.

use std::collections::HashSet;
use std::net::IpAddr;

use bytes::BytesMut;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use pingora_core::Result;
use pingora_http::RequestHeader;

use super::authenticate::own_credential;
use super::handshake::Handshake;
use crate::account::{Minted, User};
use crate::config::{Config, IdentityHeaders, TemplatePart, Upstream};
use crate::web::cookie::{self, CookieStyle};

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
/// (`Proxy`: CGI programs take it for `HTTP_PROXY`, CVE-2016-5385).
const STRIPPED: [&str; 7] = [
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-request-id",
    "x-original-url",
    "x-rewrite-url",
    "proxy",
];

/// Families of names that never pass: ours, frameworks' own, and those that gateways state identities in.
const PREFIXES: [&str; 6] = ["x-authgate-", "x-auth-request-", "x-remote-", "x-webauth-", "x-invoke-", "x-middleware-"];

/// What proxies say of a request: let through from trusted ones alone, with all that begins with
/// `x-forwarded-` or ends in `client-ip`.
const FROM_TRUSTED: [&str; 3] = ["x-real-ip", "forwarded", "cf-connecting-ip"];

/// Fields about the client's connection alone (RFC 9110, 7.6.1). What `Connection` nominates besides goes
/// pingora's way.
const HOP: [&[u8]; 6] = [b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"upgrade"];

/// Which request headers never pass; made once from the configuration.
#[derive(Debug)]
pub(crate) struct Stripper {
    always: HashSet<&'static str, ahash::RandomState>,
    configured: HashSet<String, ahash::RandomState>,
    /// Cookies that carry backends' tokens, without `__Host-` and `__Secure-`.
    token_cookies: Vec<String>,
}

impl Stripper {
    pub(crate) fn new(config: &Config) -> Self {
        let configured = config
            .upstreams
            .iter()
            .flat_map(|upstream| &upstream.identity.0)
            .map(|(name, _)| fold(name.as_str()))
            .collect();
        Self {
            always: IDENTITY.into_iter().chain(STRIPPED).collect(),
            configured,
            token_cookies: token_cookies(config),
        }
    }

    /// Whether a cookie of this name is ours or carries a backend's token. What begins with such a name
    /// counts: next-auth joins `name.0`, `name.1`. Bytes that some parsers trim away are no part of it.
    pub(crate) fn is_ours(&self, name: &[u8]) -> bool {
        let dull = |b: &u8| !b.is_ascii_graphic();
        let start = name.iter().position(|b| !dull(b)).unwrap_or(name.len());
        let end = name.iter().rposition(|b| !dull(b)).map_or(start, |at| at + 1);
        let name = &name[start..end];
        let bare = name.strip_prefix(b"__Host-").or(name.strip_prefix(b"__Secure-")).unwrap_or(name);
        CookieStyle::is_ours(name) || self.token_cookies.iter().any(|own| bare.starts_with(own.as_bytes()))
    }

    /// Whether a header of this name (in lower case, as `http` keeps it) may reach the upstream.
    fn passes(&self, name: &str, upstream: &Upstream, trusted: bool) -> bool {
        if is_plain(name) {
            return self.folded_passes(name, trusted);
        }
        upstream.allow_headers.iter().any(|allowed| allowed == name) && self.folded_passes(&fold(name), trusted)
    }

    fn folded_passes(&self, name: &str, trusted: bool) -> bool {
        !(self.always.contains(name)
            || (!self.configured.is_empty() && self.configured.contains(name))
            || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
            || (!trusted && is_said_by_proxies(name)))
    }
}

fn is_said_by_proxies(name: &str) -> bool {
    FROM_TRUSTED.contains(&name) || name.starts_with("x-forwarded-") || name.ends_with("client-ip")
}

fn token_cookies(config: &Config) -> Vec<String> {
    let named = config.upstreams.iter().filter_map(|upstream| upstream.token.as_ref()).flat_map(|token| &token.cookies);
    let bare =
        |name: &String| name.strip_prefix("__Host-").or(name.strip_prefix("__Secure-")).unwrap_or(name).to_owned();
    let mut names: Vec<String> = named.map(bare).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// `[A-Za-z0-9-]+`: the names that every backend reads alike.
fn is_plain(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// The spelling that a CGI-like backend would fold a name onto: `_`, `.` and all else become `-`.
fn fold(name: &str) -> String {
    name.bytes().map(|b| if b.is_ascii_alphanumeric() { char::from(b.to_ascii_lowercase()) } else { '-' }).collect()
}

/// Everything about the request that the upstream is told besides what the client sent.
pub(crate) struct Told<'a> {
    pub(crate) upstream: &'a Upstream,
    pub(crate) user: Option<&'a User>,
    /// Its own token, where it gets one.
    pub(crate) token: Option<&'a Minted>,
    /// What a WebSocket handshake carried for us, to be taken out.
    pub(crate) handshake: Option<&'a Handshake>,
    /// The peer's own address, the last hop of X-Forwarded-For.
    pub(crate) peer: Option<IpAddr>,
    pub(crate) trusted: bool,
    pub(crate) scheme: &'static str,
    pub(crate) host: &'a str,
    pub(crate) request_id: &'a str,
    /// Names this process, so that a request that comes back is noticed.
    pub(crate) via: &'a str,
    /// What is cut off the front of the path; empty for nothing.
    pub(crate) prefix: &'a str,
    /// `Host` to send instead of the client's.
    pub(crate) host_override: Option<&'a str>,
}

/// What becomes of a client's head on its way to an upstream.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    dropped: Vec<HeaderName>,
    /// In place of all fields of these names.
    set: Vec<(SetName, HeaderValue)>,
    /// Path and query, where they change.
    pub(crate) target: Option<Vec<u8>>,
}

/// The name of a field that we set, as it is written.
#[derive(Debug)]
pub(crate) enum SetName {
    Fixed(&'static str),
    Configured(HeaderName),
}

impl SetName {
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Fixed(name) => name,
            Self::Configured(name) => name.as_str(),
        }
    }
}

impl Changes {
    fn set(&mut self, name: &'static str, value: HeaderValue) {
        self.set.push((SetName::Fixed(name), value));
    }

    /// Whether the client's fields of this name go on to the upstream.
    pub(crate) fn keeps(&self, name: &[u8]) -> bool {
        !(HOP.iter().any(|hop| hop.eq_ignore_ascii_case(name))
            || self.dropped.iter().any(|own| own.as_str().as_bytes().eq_ignore_ascii_case(name))
            || self.set.iter().any(|(own, _)| own.as_str().as_bytes().eq_ignore_ascii_case(name)))
    }

    /// The fields that we set.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&str, &HeaderValue)> {
        self.set.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// Changes a head in place. Idempotent.
    pub(crate) fn apply(self, head: &mut RequestHeader) -> Result<()> {
        for name in &self.dropped {
            head.remove_header(name);
        }
        for (name, value) in self.set {
            match name {
                SetName::Fixed(name) => head.insert_header(name, value)?,
                SetName::Configured(name) => head.insert_header(name, value)?,
            }
        }
        self.target.map_or(Ok(()), |target| head.set_raw_path(&target))
    }
}

/// Says what changes. `target` is the client's path and query.
pub(crate) fn changes(headers: &HeaderMap, target: &[u8], stripper: &Stripper, told: &Told<'_>) -> Changes {
    let mut changes = Changes { set: Vec::with_capacity(12), ..Changes::default() };
    changes.dropped =
        headers.keys().filter(|name| !stripper.passes(name.as_str(), told.upstream, told.trusted)).cloned().collect();
    strip_authorization(&mut changes, headers, told.upstream);
    rewrite_cookies(&mut changes, headers, stripper, told.token);
    state_identity(&mut changes, &told.upstream.identity, told.user);
    if let Some(token) = told.token {
        if let Some(bearer) = &token.bearer {
            changes.set("Authorization", bearer.clone());
        }
        if let Some(assertion) = &token.assertion {
            changes.set("X-Authgate-Jwt-Assertion", assertion.clone());
        }
    }
    if let Some(list) = forwarded_for(headers, told) {
        changes.set("X-Forwarded-For", list);
    }
    changes.set("X-Forwarded-Proto", HeaderValue::from_static(told.scheme));
    let text = |text: &str| HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""));
    changes.set("X-Forwarded-Host", text(told.host));
    changes.set("X-Request-Id", text(told.request_id));
    changes.set("X-Authgate-Via", text(told.via));
    let stripped = told.handshake.and_then(Handshake::target);
    if let Some(handshake) = told.handshake
        && let Some(left) = handshake.protocols_left()
    {
        changes.dropped.push(header::SEC_WEBSOCKET_PROTOCOL);
        if !left.is_empty() {
            changes.set("Sec-WebSocket-Protocol", text(left));
        }
    }
    changes.target = cut_prefix(told.prefix, stripped.unwrap_or(target)).or_else(|| stripped.map(<[u8]>::to_vec));
    if !told.prefix.is_empty() {
        changes.set("X-Forwarded-Prefix", text(told.prefix));
    }
    if let Some(host) = told.host_override {
        changes.set("Host", text(host));
    }
    changes
}

/// What is left of a target when the prefix is cut at a segment border; `None` without a prefix.
fn cut_prefix(prefix: &str, raw: &[u8]) -> Option<Vec<u8>> {
    if prefix.is_empty() {
        return None;
    }
    let rest = raw.strip_prefix(prefix.as_bytes())?;
    Some(if rest.first() == Some(&b'/') { rest.to_vec() } else { [b"/", rest].concat() })
}

/// The peer alone; behind a trusted proxy, what it told and the peer behind that.
fn forwarded_for(headers: &HeaderMap, told: &Told<'_>) -> Option<HeaderValue> {
    let mut list = BytesMut::new();
    if told.trusted {
        for line in headers.get_all("x-forwarded-for") {
            if !list.is_empty() {
                list.extend_from_slice(b", ");
            }
            list.extend_from_slice(line.as_bytes());
        }
    }
    if let Some(peer) = told.peer {
        if !list.is_empty() {
            list.extend_from_slice(b", ");
        }
        list.extend_from_slice(peer.to_string().as_bytes());
    }
    (!list.is_empty()).then(|| HeaderValue::from_maybe_shared(list.freeze()).ok()).flatten()
}

/// Ours is always removed; any other belongs to the app and passes, unless the app gets a Bearer token
/// from us: then exactly that one arrives, or none.
fn strip_authorization(changes: &mut Changes, headers: &HeaderMap, upstream: &Upstream) {
    let replaced = upstream.token.as_ref().is_some_and(|token| token.bearer);
    let values = headers.get_all(header::AUTHORIZATION);
    if replaced || values.iter().any(|value| own_credential(value).is_some()) {
        changes.dropped.push(header::AUTHORIZATION);
    }
}

/// One `Cookie` line without our own cookies and with the token's; untouched where nothing changes.
fn rewrite_cookies(changes: &mut Changes, headers: &HeaderMap, stripper: &Stripper, token: Option<&Minted>) {
    let added = token.map_or("", |token| token.cookies.as_str());
    let mut lines = headers.get_all(header::COOKIE).iter();
    let first = lines.next();
    let single = lines.next().is_none();
    let is_ours = |item: &[u8]| stripper.is_ours(cookie::name_of(item));
    if added.is_empty() && single && first.is_none_or(|line| !cookie::split(line.as_bytes()).any(is_ours)) {
        return;
    }
    let mut kept = BytesMut::with_capacity(first.map_or(0, HeaderValue::len) + added.len() + 2);
    let items = headers.get_all(header::COOKIE).iter().flat_map(|line| cookie::split(line.as_bytes()));
    for item in items.filter(|item| !is_ours(item)).chain((!added.is_empty()).then_some(added.as_bytes())) {
        if !kept.is_empty() {
            kept.extend_from_slice(b"; ");
        }
        kept.extend_from_slice(item);
    }
    changes.dropped.push(header::COOKIE);
    if let Ok(value) = HeaderValue::from_maybe_shared(kept.freeze())
        && !value.is_empty()
    {
        changes.set("Cookie", value);
    }
}

fn state_identity(changes: &mut Changes, identity: &IdentityHeaders, user: Option<&User>) {
    let Some(user) = user else { return };
    for (name, template) in &identity.0 {
        let value = match template.as_slice() {
            [part] if !matches!(part, TemplatePart::Text(_)) => part_value(part, user),
            parts => join(parts, user),
        };
        changes.set.push((SetName::Configured(name.clone()), value));
    }
}

fn part_value(part: &TemplatePart, user: &User) -> HeaderValue {
    let values = user.values();
    match part {
        TemplatePart::Text(text) => HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("")),
        TemplatePart::Id => values.id.clone(),
        TemplatePart::Email => values.email.clone(),
        TemplatePart::Name => values.name.clone(),
        TemplatePart::Picture => values.picture.clone(),
        TemplatePart::Groups => values.groups.clone(),
    }
}

fn join(parts: &[TemplatePart], user: &User) -> HeaderValue {
    let mut value = BytesMut::new();
    for part in parts {
        value.extend_from_slice(part_value(part, user).as_bytes());
    }
    HeaderValue::from_maybe_shared(value.freeze()).unwrap_or(HeaderValue::from_static(""))
}
