//! `[[upstream]]`, and upstreams that a route defines inline by URL.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use http::HeaderName;

use super::provider_token;
use crate::config::conceal;
use crate::config::file::{Item, Table};
use crate::config::{
    Health, IdentityHeaders, Listen, TemplatePart, Upstream, UpstreamHost, UpstreamProtocol, UpstreamServer,
    UpstreamTls,
};
use crate::web::host::Host;
use crate::web::origin::{Origin, Scheme};

/// Default and minimum health check interval.
const HEALTH_INTERVAL: Duration = Duration::from_secs(5);
const HEALTH_INTERVAL_MIN: Duration = Duration::from_secs(1);

/// All upstreams, and where their `provider_token` is written.
pub(super) fn upstreams(tables: Vec<Table<'_>>, own: &[Listen]) -> (Vec<Upstream>, Vec<provider_token::Place>) {
    let (mut upstreams, mut tokens): (Vec<Upstream>, _) = (Vec::new(), Vec::new());
    for table in tables {
        let token = provider_token::provider_token(&table, upstreams.len());
        let Some(mut upstream) = upstream(&table, own) else { continue };
        if let Some((token, place)) = token {
            upstream.provider_token = Some(token);
            tokens.push(place);
        }
        if upstreams.iter().any(|other| other.name == upstream.name) {
            table.reading.fault(
                table.span_of("name"),
                format!("duplicate upstream name \"{}\"", upstream.name),
                "use a different name for each",
            );
        }
        upstreams.push(upstream);
    }
    (upstreams, tokens)
}

fn upstream(table: &Table<'_>, own: &[Listen]) -> Option<Upstream> {
    let faults = table.reading.fault_count();
    let name = table.text("name", "app");
    let servers = table.texts("servers", "127.0.0.1:3000");
    let host_choice = table.choice("host", &[("client", UpstreamHost::Client), ("upstream", UpstreamHost::Upstream)]);
    let host = host_choice.unwrap_or(UpstreamHost::Client);
    // the only value; the key makes it explicit
    let _ = table.choice("balance", &[("round_robin", ())]);
    let allow_headers = allow_headers(table);
    let identity = identity(table);
    let tls = super::tls::upstream(table);
    let token = super::token::token(table);
    let health = health(table);
    let Some(name) = name else {
        if !table.has("name") {
            table.reading.fault(table.span.clone(), "the upstream has no name", "add `name = \"app\"`");
        }
        return None;
    };
    if name.value.is_empty() || name.value.contains([':', '/']) || name.value.chars().any(char::is_whitespace) {
        name.fault(format!("invalid name `{}`", name.value), "use a word, for example \"http-server\"");
    }
    let list = servers.map(|list| list.value).unwrap_or_default();
    if list.is_empty() && table.reading.fault_count() == faults {
        table.reading.fault(
            table.span.clone(),
            format!("upstream \"{}\" has no servers", name.value),
            "add `servers = [\"127.0.0.1:3000\"]`",
        );
    }
    let servers: Vec<UpstreamServer> = list.iter().filter_map(|text| server(text, own)).collect();
    if host == UpstreamHost::Upstream && servers.iter().any(|server| matches!(server, UpstreamServer::Unix(_))) {
        table.reading.fault(
            table.span_of("host"),
            "`host = \"upstream\"` does not work with a Unix socket, which has no host name",
            "leave `host` out, or use the address of the server",
        );
    }
    let uses =
        |own| move |server: &UpstreamServer| matches!(server, UpstreamServer::Tcp { protocol, .. } if *protocol == own);
    if health.is_some() && servers.iter().any(uses(UpstreamProtocol::H2c)) {
        let what = "`health` uses HTTP/1.1, which an h2c server does not speak";
        let remedy = "remove `health`; unreachable servers are skipped without it";
        table.reading.fault(table.span_of("health"), what, remedy);
    }
    if !tls.is_default() && !servers.iter().any(uses(UpstreamProtocol::Https)) && table.reading.fault_count() == faults
    {
        table.reading.fault(
            table.span.clone(),
            "`ca`, `server_name` and `client_certificate` only apply to https servers, and this upstream has none",
            "use https servers, for example \"https://127.0.0.1:8443\", or remove these keys",
        );
    }
    let (name, provider_token) = (name.value, None);
    Some(Upstream { name, servers, host, allow_headers, identity, tls, token, provider_token, health })
}

fn health(upstream: &Table<'_>) -> Option<Health> {
    if !upstream.has("health") {
        return None;
    }
    let table = upstream.table("health", "health");
    let typed = table.text("path", "/healthz");
    let interval = table.duration("interval", HEALTH_INTERVAL_MIN).map_or(HEALTH_INTERVAL, |typed| typed.value);
    let Some(path) = typed else {
        if upstream.holds_table("health") && !table.has("path") {
            table.reading.fault(table.span.clone(), "`health` has no path", "add `path = \"/healthz\"`");
        }
        return None;
    };
    let plain = |b: u8| b.is_ascii_graphic() && b != b'#';
    if !path.value.starts_with('/') || !path.value.bytes().all(plain) {
        path.fault(format!("invalid path `{}`", path.value), "use a path of the app, for example \"/healthz\"");
        return None;
    }
    Some(Health { path: path.value, interval })
}

/// An upstream defined inline by URL.
pub(super) fn from_url(text: &Item<'_, String>, own: &[Listen]) -> Option<Upstream> {
    let server = server(text, own)?;
    Some(Upstream {
        name: text.value.clone(),
        servers: vec![server],
        host: UpstreamHost::Client,
        allow_headers: Vec::new(),
        identity: preset("remote"),
        tls: UpstreamTls::default(),
        token: None,
        provider_token: None,
        health: None,
    })
}

/// Parses a server. It must not be one of the gateway's `own` addresses, which would create a forwarding loop.
fn server(text: &Item<'_, String>, own: &[Listen]) -> Option<UpstreamServer> {
    let server = read_server(text, &text.reading.base)?;
    let reaches = |listen: &Listen| match (&server, listen) {
        (UpstreamServer::Tcp { host, port, .. }, Listen::Tcp(address) | Listen::Tls(address)) => {
            let loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
            let here = loopback && (address.ip().is_loopback() || address.ip().is_unspecified());
            address.port() != 0 && address.port() == *port && (here || host.parse() == Ok(address.ip()))
        }
        (UpstreamServer::Unix(path), Listen::Unix(own)) => *path == own.path,
        _ => false,
    };
    if own.iter().any(reaches) {
        text.fault(
            format!("`{}` is this gateway's own address", text.value),
            "use the app's address; the gateway must not forward to itself",
        );
    }
    Some(server)
}

/// `host:port`, `http(s)://host[:port]`, `h2c://host[:port]`, `unix:/path` or `builtin:whoami`.
fn read_server(text: &Item<'_, String>, base: &Path) -> Option<UpstreamServer> {
    let typed = text.value.as_str();
    if typed == "builtin:whoami" {
        return Some(UpstreamServer::Whoami);
    }
    if let Some(path) = typed.strip_prefix("unix:").filter(|path| !path.is_empty() && path.len() <= 100) {
        return Some(UpstreamServer::Unix(base.join(path.strip_prefix("//").unwrap_or(path))));
    }
    let read = if let Some(authority) = typed.strip_prefix("h2c://") {
        let host = Host::parse(authority.strip_suffix('/').unwrap_or(authority));
        host.map(|host| (host.name().to_owned(), host.port().unwrap_or(80), UpstreamProtocol::H2c))
    } else if typed.contains("://") {
        Origin::parse(typed).map(|origin| {
            let secure = origin.scheme() == Scheme::Https;
            let protocol = if secure { UpstreamProtocol::Https } else { UpstreamProtocol::Http1 };
            (origin.host().to_owned(), origin.port(), protocol)
        })
    } else {
        Host::parse(typed).and_then(|host| Some((host.name().to_owned(), host.port()?, UpstreamProtocol::Http1)))
    };
    let Some((host, port, protocol)) = read else {
        text.fault(
            format!("invalid server `{typed}`"),
            "use \"host:port\", \"http://host:port\", \"https://host\", \"h2c://host:port\", \"unix:/path\" or \"builtin:whoami\", without a path after the host",
        );
        return None;
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).map(str::to_owned).unwrap_or(host);
    Some(UpstreamServer::Tcp { host, port, protocol })
}

fn allow_headers(table: &Table<'_>) -> Vec<String> {
    let Some(list) = table.texts("allow_headers", "x_custom") else { return Vec::new() };
    let mut names = Vec::new();
    for text in list.value {
        match HeaderName::try_from(text.value.as_str()) {
            Ok(name) => names.push(name.as_str().to_owned()),
            Err(_) => text.fault(format!("invalid header name `{}`", text.value), "use the name of a request header"),
        }
    }
    names
}

const PRESETS: [&str; 4] = ["remote", "x-auth-request", "x-forwarded", "none"];

fn identity(table: &Table<'_>) -> IdentityHeaders {
    if table.holds_table("identity") {
        let own = table.table("identity", "identity");
        return IdentityHeaders(own.free_texts().iter().filter_map(|(name, value)| header(name, value)).collect());
    }
    let words = PRESETS.map(|word| (word, word));
    preset(table.choice("identity", &words).unwrap_or("remote"))
}

/// The name keeps its case: some apps read it case-sensitively.
fn header(name: &Item<'_, String>, template: &Item<'_, String>) -> Option<(String, Vec<TemplatePart>)> {
    const RESERVED: [&str; 12] = [
        "host",
        "cookie",
        "authorization",
        "connection",
        "transfer-encoding",
        "te",
        "trailer",
        "upgrade",
        "expect",
        "keep-alive",
        "proxy-authorization",
        "x-request-id",
    ];
    let parsed = HeaderName::try_from(name.value.as_str()).ok().filter(|parsed| {
        let text = parsed.as_str();
        !RESERVED.contains(&text) && !text.starts_with("content-") && !text.starts_with("x-authgate-")
    });
    let plain = parsed.filter(|parsed| parsed.as_str().bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'));
    if plain.is_none() {
        name.fault(
            format!("`{}` cannot be an identity header", name.value),
            "use a header name of letters, digits and - that HTTP itself does not use, for example \"X-User-Id\"",
        );
    }
    plain?;
    let mut parts = parts(template)?;
    for part in &mut parts {
        if let TemplatePart::Text(text) = part
            && (conceal::is_secret(&name.value) || template.reading.came_from_environment(&template.span, text))
        {
            *part = TemplatePart::Secret(std::mem::take(text));
        }
    }
    Some((name.value.clone(), parts))
}

fn parts(template: &Item<'_, String>) -> Option<Vec<TemplatePart>> {
    const PLACES: [(&str, TemplatePart); 5] = [
        ("{id}", TemplatePart::Id),
        ("{email}", TemplatePart::Email),
        ("{name}", TemplatePart::Name),
        ("{picture}", TemplatePart::Picture),
        ("{groups}", TemplatePart::Groups),
    ];
    let bad = || {
        template.fault(
            format!("invalid identity header template `{}`", template.value),
            "use printable ASCII with {id}, {email}, {name}, {picture} or {groups}",
        );
    };
    if !template.value.bytes().all(|b| (0x20..0x7f).contains(&b)) {
        bad();
        return None;
    }
    let mut parts = Vec::new();
    let mut rest = template.value.as_str();
    while !rest.is_empty() {
        if let Some((place, part)) = PLACES.iter().find(|(place, _)| rest.starts_with(place)) {
            parts.push(part.clone());
            rest = &rest[place.len()..];
            continue;
        }
        let end = rest.find('{').unwrap_or(rest.len());
        if end == 0 {
            bad();
            return None;
        }
        parts.push(TemplatePart::Text(rest[..end].to_owned()));
        rest = &rest[end..];
    }
    Some(parts)
}

/// The headers of a preset.
pub(in crate::config) fn preset(name: &str) -> IdentityHeaders {
    use TemplatePart::{Email, Groups, Id, Name};
    let headers: Vec<(&'static str, TemplatePart)> = match name {
        "remote" => vec![
            ("Remote-User", Email),
            ("Remote-Email", Email),
            ("Remote-Name", Name),
            ("Remote-Groups", Groups),
            ("Remote-Id", Id),
        ],
        "x-auth-request" => vec![
            ("X-Auth-Request-User", Email),
            ("X-Auth-Request-Email", Email),
            ("X-Auth-Request-Groups", Groups),
            ("X-Auth-Request-Preferred-Username", Name),
        ],
        "x-forwarded" => vec![
            ("X-Forwarded-User", Email),
            ("X-Forwarded-Email", Email),
            ("X-Forwarded-Groups", Groups),
            ("X-Forwarded-Preferred-Username", Name),
        ],
        _ => Vec::new(),
    };
    IdentityHeaders(headers.into_iter().map(|(name, part)| (name.to_owned(), vec![part])).collect())
}
