//! Admission -> the head that the upstream receives: strip first, on every route and in every spelling, then add the
//! identity. Pure: it computes the changes, and every upstream protocol applies them.

use std::borrow::Cow;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::app_cookies::Foreign;
use super::authenticate::holds_own;
use super::authorize::Admission;
use super::header_filter::{HeaderFilter, holds_session};
use super::loop_detection;
use super::normalize::Facts;
use super::websocket_credentials::Handshake;
use crate::account::{IssuedToken, User};
use crate::config::Config;
use crate::config::{IdentityHeaders, ProviderToken, TemplatePart, Upstream};
use crate::web::cookie;
use crate::web::names::Names;
use crate::wire::hop_by_hop::{self, is_hop_by_hop};

/// The gateway meets an expectation itself, or the encoder writes it again.
const EXPECT: &[u8] = b"expect";

/// Fields that `Connection` cannot remove: they define what is requested and where its body ends.
const NEVER_NOMINATED: [HeaderName; 3] = [header::HOST, header::CONTENT_LENGTH, header::TRANSFER_ENCODING];

/// What the upstream receives about the request besides what the client sent.
pub(crate) struct ForwardContext<'a> {
    pub(crate) upstream: &'a Upstream,
    pub(crate) user: Option<&'a User>,
    /// The upstream's own token, if it gets one.
    pub(crate) token: Option<&'a IssuedToken>,
    /// Name and value of the header with a token of the account's provider, if the upstream gets one.
    pub(crate) provider_token: Option<(&'a str, &'a str)>,
    /// Cookies that belong to another account: not forwarded.
    pub(crate) foreign: Option<&'a Foreign>,
    /// No cookie of the client is forwarded (`route.cookies`).
    pub(crate) drops_cookies: bool,
    /// Credentials in a WebSocket handshake, to be removed.
    pub(crate) handshake: Option<&'a Handshake>,
    /// The peer's own address, the last hop of X-Forwarded-For.
    pub(crate) peer: Option<&'a str>,
    pub(crate) trusted: bool,
    pub(crate) scheme: &'static str,
    pub(crate) host: &'a str,
    /// The port that the client uses.
    pub(crate) port: Cow<'a, str>,
    pub(crate) request_id: &'a str,
    /// Which fields the client's head may contain.
    pub(crate) names: Names,
    /// Names this process, so that a request that comes back is detected.
    pub(crate) via: &'a str,
    /// Prefix to strip from the path; empty for none.
    pub(crate) prefix: &'a str,
    /// `Host` to send instead of the client's.
    pub(crate) host_override: Option<&'a str>,
}

impl<'a> ForwardContext<'a> {
    /// What follows from the configuration, the admission and the head. `own_host` is the server's own name, if the
    /// upstream wants it as `Host`.
    pub(crate) fn new(
        config: &'a Config,
        admission: &'a Admission,
        facts: &'a Facts,
        own_host: Option<&'a str>,
    ) -> Self {
        Self {
            upstream: &config.upstreams[admission.upstream()],
            user: admission.identity().map(|identity| &*identity.user),
            token: None,
            provider_token: None,
            foreign: None,
            drops_cookies: admission.routes().any(|route| config.routes[route].drops_cookies),
            handshake: None,
            peer: None,
            trusted: false,
            scheme: facts.scheme.as_str(),
            host: facts.host.as_str(),
            port: facts.port(&config.server.public_url),
            request_id: "",
            names: facts.names,
            via: "",
            prefix: &config.routes[admission.route()].strip_prefix,
            host_override: own_host.or(facts.judged_host()),
        }
    }
}

/// How a client's head changes on its way to an upstream. It holds tokens, so it has no `Debug`.
pub(crate) struct Changes<'a> {
    /// Names of fields that may not be forwarded as they are.
    names: Names,
    dropped: Vec<HeaderName>,
    /// Replaces all fields of these names; `None` only removes them.
    set: Vec<(&'a str, Option<Cow<'a, [u8]>>)>,
    /// Path and query, if they change.
    pub(crate) target: Option<Vec<u8>>,
}

impl<'a> Changes<'a> {
    fn set(&mut self, name: &'a str, value: &'a [u8]) {
        self.put(name, Some(Cow::Borrowed(value)));
    }

    fn make(&mut self, name: &'a str, value: Vec<u8>) {
        self.put(name, Some(Cow::Owned(value)));
    }

    fn drop(&mut self, name: &'static HeaderName) {
        self.put(name.as_str(), None);
    }

    fn put(&mut self, name: &'a str, value: Option<Cow<'a, [u8]>>) {
        self.names = self.names.with(name.as_bytes());
        self.set.push((name, value));
    }

    /// Whether the client's fields of this name are forwarded to the upstream.
    pub(crate) fn keeps(&self, name: &[u8]) -> bool {
        !self.names.may_have(name)
            || !(is_hop_by_hop(name)
                || name.eq_ignore_ascii_case(EXPECT)
                || self.dropped.iter().any(|own| own.as_str().as_bytes().eq_ignore_ascii_case(name))
                || self.set.iter().any(|(own, _)| own.as_bytes().eq_ignore_ascii_case(name)))
    }

    /// The fields that the gateway sets.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.set.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?)))
    }
}

/// Computes the changes. `target` is the client's path and query.
pub(crate) fn changes<'a>(
    headers: &HeaderMap,
    target: &[u8],
    header_filter: &HeaderFilter,
    context: &ForwardContext<'a>,
) -> Changes<'a> {
    let passes = |name: &&HeaderName| header_filter.passes(name.as_str(), context.upstream, context.trusted);
    let mut dropped: Vec<HeaderName> = headers.keys().filter(|name| !passes(name)).cloned().collect();
    if context.names.may_have(b"connection") {
        dropped.extend(nominated(headers));
    }
    let names = dropped.iter().fold(hop_by_hop::NAMES.with(EXPECT), |names, name| names.with(name.as_str().as_bytes()));
    let mut changes = Changes { names, dropped, set: Vec::with_capacity(16), target: None };
    if context.names.may_have(b"authorization") {
        strip_authorization(&mut changes, headers, context.upstream);
    }
    rewrite_cookies(&mut changes, headers, header_filter, context);
    state_identity(&mut changes, &context.upstream.identity, context.user);
    add_tokens(&mut changes, context);
    if context.trusted {
        let hops = forwarded_for(headers, context.peer);
        if !hops.is_empty() {
            changes.make("X-Forwarded-For", hops);
        }
    } else if let Some(peer) = context.peer {
        changes.set("X-Forwarded-For", peer.as_bytes());
    }
    changes.set("X-Forwarded-Proto", context.scheme.as_bytes());
    changes.set("X-Forwarded-Host", context.host.as_bytes());
    match &context.port {
        Cow::Borrowed(port) => changes.set("X-Forwarded-Port", port.as_bytes()),
        Cow::Owned(port) => changes.make("X-Forwarded-Port", port.clone().into_bytes()),
    }
    changes.set("X-Request-Id", context.request_id.as_bytes());
    changes.put("X-Authgate-Via", Some(loop_detection::append_self(headers, context.names, context.via)));
    let stripped = context.handshake.and_then(Handshake::target);
    if let Some(handshake) = context.handshake
        && let Some(left) = handshake.protocols_left()
    {
        changes.drop(&header::SEC_WEBSOCKET_PROTOCOL);
        if !left.is_empty() {
            changes.set("Sec-WebSocket-Protocol", left.as_bytes());
        }
    }
    changes.target = cut_prefix(context.prefix, stripped.unwrap_or(target)).or_else(|| stripped.map(<[u8]>::to_vec));
    if !context.prefix.is_empty() {
        changes.set("X-Forwarded-Prefix", context.prefix.as_bytes());
    }
    if let Some(host) = context.host_override {
        changes.set("Host", host.as_bytes());
    }
    changes
}

/// The fields that `Connection` limits to the client's connection.
fn nominated(headers: &HeaderMap) -> impl Iterator<Item = HeaderName> {
    let options = headers.get_all(header::CONNECTION).iter().flat_map(|line| line.as_bytes().split(|&b| b == b','));
    let names = options.filter_map(|option| std::str::from_utf8(option.trim_ascii()).ok());
    let there = names.filter(|name| headers.contains_key(*name)).filter_map(|name| HeaderName::try_from(name).ok());
    there.filter(|name| !NEVER_NOMINATED.contains(name))
}

/// The rest of a target after the prefix is stripped at a segment border; `None` without a prefix.
fn cut_prefix(prefix: &str, raw: &[u8]) -> Option<Vec<u8>> {
    if prefix.is_empty() {
        return None;
    }
    let rest = raw.strip_prefix(prefix.as_bytes())?;
    Some(if rest.first() == Some(&b'/') { rest.to_vec() } else { [b"/", rest].concat() })
}

/// The list that a trusted proxy sent, followed by the proxy itself.
fn forwarded_for(headers: &HeaderMap, peer: Option<&str>) -> Vec<u8> {
    let told = headers.get_all("x-forwarded-for").iter().map(HeaderValue::as_bytes);
    told.chain(peer.map(str::as_bytes)).collect::<Vec<_>>().join(&b", "[..])
}

/// The gateway's own credential is always removed. Any other belongs to the app and passes, even beside one of the
/// gateway's. If the app gets a Bearer token from the gateway, its own or a provider's, it receives exactly that one, or
/// none.
fn strip_authorization(changes: &mut Changes<'_>, headers: &HeaderMap, upstream: &Upstream) {
    let is_providers = upstream.provider_token.as_ref().is_some_and(ProviderToken::is_authorization);
    let replaced = is_providers || upstream.token.as_ref().is_some_and(|token| token.bearer);
    let values = headers.get_all(header::AUTHORIZATION);
    if !replaced && !values.iter().any(holds_own) {
        return;
    }
    changes.drop(&header::AUTHORIZATION);
    for value in values.iter().filter(|value| !replaced && !holds_own(value)) {
        changes.make("Authorization", value.as_bytes().to_vec());
    }
}

/// One `Cookie` line without the gateway's own cookies and with the token's; untouched if nothing changes.
fn rewrite_cookies(
    changes: &mut Changes<'_>,
    headers: &HeaderMap,
    header_filter: &HeaderFilter,
    context: &ForwardContext<'_>,
) {
    let added = context.token.map_or("", |token| token.cookies.as_str());
    let lines = headers.get_all(header::COOKIE);
    let bytes: usize = lines.iter().map(|line| line.len() + 2).sum();
    let mut kept = Vec::new();
    let mut changed = lines.iter().nth(1).is_some() || !added.is_empty();
    let mut keep = |item: &[u8]| {
        if kept.is_empty() {
            kept = Vec::with_capacity(bytes + added.len());
        } else {
            kept.extend_from_slice(b"; ");
        }
        kept.extend_from_slice(item);
    };
    for item in lines.iter().flat_map(|line| cookie::split(line.as_bytes())) {
        let is_foreign = || context.drops_cookies || context.foreign.is_some_and(|foreign| foreign.withholds(item));
        if header_filter.is_ours(cookie::name_of(item))
            || header_filter.hides_token(item)
            || holds_session(item)
            || is_foreign()
        {
            changed = true;
        } else {
            keep(item);
        }
    }
    if !added.is_empty() {
        keep(added.as_bytes());
    }
    if !changed {
        return;
    }
    changes.drop(&header::COOKIE);
    if !kept.is_empty() {
        changes.make("Cookie", kept);
    }
}

/// The upstream's own token, and one of the account's provider.
fn add_tokens<'a>(changes: &mut Changes<'a>, context: &ForwardContext<'a>) {
    if let Some(token) = context.token {
        if let Some(bearer) = &token.bearer {
            changes.set("Authorization", bearer.as_bytes());
        }
        if let Some(assertion) = &token.assertion {
            changes.set("X-Authgate-Jwt-Assertion", assertion.as_bytes());
        }
    }
    if let Some((name, value)) = context.provider_token {
        changes.set(name, value.as_bytes());
    }
}

fn state_identity<'a>(changes: &mut Changes<'a>, identity: &'a IdentityHeaders, user: Option<&'a User>) {
    let Some(user) = user else { return };
    for (name, template) in &identity.0 {
        match template.as_slice() {
            [part] => changes.set(name, part_value(part, user)),
            parts => {
                let value = parts.iter().flat_map(|part| part_value(part, user)).copied().collect();
                changes.make(name, value);
            }
        }
    }
}

fn part_value<'a>(part: &'a TemplatePart, user: &'a User) -> &'a [u8] {
    let values = user.values();
    match part {
        TemplatePart::Text(text) | TemplatePart::Secret(text) => text.as_bytes(),
        TemplatePart::Id => values.id.as_bytes(),
        TemplatePart::Email => values.email.as_bytes(),
        TemplatePart::Name => values.name.as_bytes(),
        TemplatePart::Picture => values.picture.as_bytes(),
        TemplatePart::Groups => values.groups.as_bytes(),
    }
}
