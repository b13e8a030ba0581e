//! `upstream.provider_token`: the token of a provider that an app gets.

use std::collections::HashSet;
use std::ops::Range;

use http::HeaderName;

use super::provider_session;
use crate::config::file::{Item, Reading, Table};
use crate::config::{Access, Provider, ProviderToken, ProviderTokenKind, Route, Routes, Upstream, UpstreamServer};
use crate::web::proxy_headers::is_said_by_proxies;

/// Names that browsers, HTTP itself or the gateway use. A name that is sent to one app is removed from the requests of
/// clients to all apps.
const RESERVED: [&str; 25] = [
    "host",
    "cookie",
    "connection",
    "transfer-encoding",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "keep-alive",
    "proxy",
    "proxy-authorization",
    "proxy-connection",
    "origin",
    "referer",
    "user-agent",
    "range",
    "date",
    "via",
    "cache-control",
    "pragma",
    "destination",
    "x-request-id",
    "x-requested-with",
    "upgrade-insecure-requests",
    "last-event-id",
];

/// Beginnings of such names: the gateway's own, those of HTTP, and identity headers of other gateways.
const RESERVED_STARTS: [&str; 18] = [
    "content-",
    "accept",
    "if-",
    "sec-",
    "access-control-",
    "hx-",
    "remote-",
    "x-authgate-",
    "x-auth-request-user",
    "x-auth-request-email",
    "x-auth-request-groups",
    "x-auth-request-preferred-username",
    "x-remote-",
    "x-webauth-",
    "x-invoke-",
    "x-middleware-",
    "x-http-method",
    "x-method",
];

/// Where an upstream's `provider_token` is written.
pub(super) struct Place {
    /// The upstream, by index.
    upstream: usize,
    table: Range<usize>,
    provider: Range<usize>,
    kind: Range<usize>,
    header: Range<usize>,
}

/// `provider_token` of the upstream with this index.
pub(super) fn provider_token(upstream: &Table<'_>, index: usize) -> Option<(ProviderToken, Place)> {
    if !upstream.has("provider_token") {
        return None;
    }
    let table = upstream.table("provider_token", "provider_token");
    let provider = table.text("provider", "corp");
    let words = [("access", ProviderTokenKind::Access), ("id", ProviderTokenKind::Id)];
    let kind = table.choice("kind", &words).unwrap_or(ProviderTokenKind::Access);
    let header = table.text("header", "X-Forwarded-Access-Token");
    if upstream.holds_table("provider_token") {
        for (key, example) in [("provider", "corp"), ("header", "X-Forwarded-Access-Token")] {
            if !table.has(key) {
                let what = format!("`provider_token` has no `{key}`");
                table.reading.fault(table.span.clone(), what, format!("add `{key} = \"{example}\"`"));
            }
        }
    }
    let place = Place {
        upstream: index,
        table: table.span.clone(),
        provider: table.span_of("provider"),
        kind: table.span_of("kind"),
        header: table.span_of("header"),
    };
    let header = header.filter(is_free)?.value;
    Some((ProviderToken { provider: provider?.value, kind, header }, place))
}

fn is_free(name: &Item<'_, String>) -> bool {
    let parsed = HeaderName::try_from(name.value.as_str()).ok();
    let is_plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let fits = parsed.as_ref().map(HeaderName::as_str).filter(|text| is_plain(text)).is_some_and(|text| {
        !RESERVED.contains(&text)
            && !RESERVED_STARTS.iter().any(|start| text.starts_with(start))
            && (!is_said_by_proxies(text) || text.starts_with("x-forwarded-") && text.ends_with("-token"))
    });
    if !fits {
        let remedy = "use \"X-Forwarded-Access-Token\", \"Authorization\", or another name of letters, digits and - that \
                      nothing else uses";
        name.fault(format!("`{}` cannot hold a provider's token", name.value), remedy);
    }
    fits
}

/// Checks the tokens against the rest of the file, and has providers keep what they ask for. `typed`: how many providers
/// the file has; those with a fault are not among `providers`.
pub(super) fn keep(
    places: &[Place],
    upstreams: &[Upstream],
    routes: &Routes,
    (providers, typed): (&mut [Provider], usize),
    reading: &Reading<'_>,
) {
    let has_faults = providers.len() < typed;
    let mut warned = HashSet::new();
    for place in places {
        let Some((upstream, token)) =
            upstreams.get(place.upstream).and_then(|own| Some((own, own.provider_token.as_ref()?)))
        else {
            continue;
        };
        clashes(place, upstream, token, upstreams, reading);
        let is_sent = |route: &Route| route.access == Access::SignedIn && route.upstream == Some(place.upstream);
        if !routes.iter().any(is_sent) {
            let what = "no route that requires sign-in leads to this upstream, so the token is never sent";
            reading.warn(place.table.clone(), what, "add one with access = \"signed_in\", or remove `provider_token`");
        }
        let Some(provider) = providers.iter_mut().find(|provider| provider.name == token.provider) else {
            if has_faults {
                continue;
            }
            let what = format!("no [[provider]] has the name \"{}\"", token.provider);
            reading.fault(place.provider.clone(), what, "use the `name` of a [[provider]]");
            continue;
        };
        if token.kind == ProviderTokenKind::Id && !provider.kind.is_openid() {
            let what = format!("kind \"{}\" gives no ID tokens", provider.kind.word());
            reading.fault(place.kind.clone(), what, "use kind = \"access\"");
            continue;
        }
        if let Some(missing) = provider_session::missing_offline(provider.kind, &provider.scopes, &provider.params)
            && warned.insert(provider.name.clone())
        {
            let what = "this provider gives no refresh token, so sessions end when their first token expires";
            reading.warn(place.table.clone(), what, format!("add {missing} to the provider"));
        }
        match token.kind {
            ProviderTokenKind::Access => provider.kept.access = true,
            ProviderTokenKind::Id => provider.kept.id = true,
        }
        provider.kept.refresh = true;
    }
}

/// One name must not mean two things.
fn clashes(place: &Place, upstream: &Upstream, token: &ProviderToken, upstreams: &[Upstream], reading: &Reading<'_>) {
    let is_own = |name: &str| name.eq_ignore_ascii_case(&token.header);
    if upstreams.iter().flat_map(|upstream| &upstream.identity.0).any(|(name, _)| is_own(name)) {
        let what = format!("`{}` is an identity header", token.header);
        reading.fault(place.header.clone(), what, "use another name");
    }
    if token.is_authorization() && upstream.token.as_ref().is_some_and(|token| token.bearer) {
        let what = "`token` already sends `Authorization`";
        reading.fault(place.header.clone(), what, "use another header, or send = [\"assertion\"] in `token`");
    }
    let other = |other: &Upstream| {
        let other = other.provider_token.as_ref().filter(|other| is_own(&other.header));
        other.is_some_and(|other| (&other.provider, other.kind) != (&token.provider, token.kind))
    };
    if !token.is_authorization() && upstreams.iter().take(place.upstream).any(other) {
        let what = format!("another upstream gets a different token as `{}`", token.header);
        reading.warn(
            place.header.clone(),
            what,
            "use a name of its own, so that apps cannot mistake one for the other",
        );
    }
    if upstream.servers.contains(&UpstreamServer::Whoami) {
        let what = "builtin:whoami shows all that it receives, and would show the token";
        reading.fault(place.table.clone(), what, "remove `provider_token`, or use another server");
    }
}
