//! `[[route]]`.

use std::time::Duration;

use http::Method;

use super::caution::{self, Places};
use super::pages::origins;
use super::{server, upstream};
use crate::config::fault::nearest;
use crate::config::file::{Item, Reading, Table};
use crate::config::{Access, Cache, Cors, Listen, PathPattern, Paths, Refuse, Route, Routes, Upstream, WebSocketToken};
use crate::web::host::HostPattern;
use crate::web::origin::Origin;
use crate::web::path::NormalPath;

/// Settings outside the route's own table that its checks need.
pub(super) struct Around<'a> {
    pub(super) own: &'a [Listen],
    pub(super) cors_origins: &'a [Origin],
    /// `session.domain`
    pub(super) domain: Option<&'a str>,
    /// `server.paths`
    pub(super) paths: Paths,
}

pub(super) fn routes(
    tables: Vec<Table<'_>>,
    upstreams: &mut Vec<Upstream>,
    around: &Around<'_>,
    reading: &Reading<'_>,
) -> (Routes, Places) {
    let mut routes = Routes::default();
    // a faulty route does not count as covering others: each problem is reported once
    let (mut numbers, mut places) = (Vec::new(), Places::default());
    for (number, table) in (1..).zip(tables) {
        let faults = table.reading.fault_count();
        let route = route(&table, upstreams, around);
        if table.reading.fault_count() > faults {
            continue;
        }
        if let Some(earlier) = routes.covering(&route) {
            table.reading.fault(
                table.span.clone(),
                format!("this route is never reached: route {} matches all of its requests first", numbers[earlier]),
                "move it before that route, or remove it",
            );
        }
        numbers.push(number);
        places.paths.push(table.span_of("path"));
        places.cookies.push(table.has("cookies"));
        places.hosts.push(table.span_of("host"));
        routes.push(route);
    }
    caution::open_below(&routes, &numbers, &places.paths, reading);
    caution::public_part(&routes, upstreams, &numbers, &places, reading);
    (routes, places)
}

fn route(table: &Table<'_>, upstreams: &mut Vec<Upstream>, around: &Around<'_>) -> Route {
    let words = [
        ("signed_in", Access::SignedIn),
        ("public", Access::Public),
        ("optional", Access::Optional),
        ("deny", Access::Deny),
    ];
    let access = table.choice("access", &words).unwrap_or(Access::SignedIn);
    let path = path(table);
    let strip_prefix = strip_prefix(table, &path);
    let words =
        [("auto", Refuse::Auto), ("redirect", Refuse::Redirect), ("status", Refuse::Status), ("basic", Refuse::Basic)];
    let refuse = table.choice("refuse", &words).unwrap_or(Refuse::Auto);
    let leads_to_login = matches!(refuse, Refuse::Auto | Refuse::Redirect);
    if table.boolean("enforce") == Some(false) {
        table.reading.fault(
            table.span_of("enforce"),
            "report-only routes are not supported yet, and this route would be enforced",
            "remove it, or set `enforce = true`",
        );
    }
    let timeout =
        table.duration("timeout", Duration::from_millis(1)).map_or(Duration::from_secs(60), |text| text.value);
    let websocket = table.table("websocket", "websocket");
    let websocket_origins = origins(&websocket, "origins");
    Route {
        line: table.line(),
        host: host(table, around.domain.filter(|_| access == Access::SignedIn && leads_to_login)),
        methods: methods(table),
        upstream: route_upstream(table, access, upstreams, around.own),
        groups: groups(table, access),
        paths: server::paths(table).unwrap_or(around.paths),
        refuse,
        body_max: table.size("body_max", 0, u64::MAX).filter(|&max| max > 0),
        danger_cross_origin: table.boolean("danger_cross_origin").unwrap_or(false),
        access,
        path,
        strip_prefix,
        timeout,
        websocket_origins,
        websocket_token: websocket_token(&websocket),
        upgrade: upgrade(table),
        cors: cors(table, around.cors_origins),
        drops_cookies: table.choice("cookies", &[("app", false), ("drop", true)]).unwrap_or(false),
        cache: table.choice("cache", &[("auto", Cache::PerAccount), ("app", Cache::App)]).unwrap_or(Cache::PerAccount),
    }
}

/// A route's own table overrides `[cors]`; `"app"` leaves CORS to the app.
fn cors(table: &Table<'_>, everywhere: &[Origin]) -> Cors {
    if table.holds_table("cors") {
        return Cors::Origins(origins(&table.table("cors", "cors"), "origins"));
    }
    let Some(text) = table.text("cors", "app") else { return Cors::Origins(everywhere.to_vec()) };
    if text.value != "app" {
        text.fault(
            format!("`cors` cannot be \"{}\"", text.value),
            "use { origins = [\"https://app.example.com\"] }, or \"app\" to leave CORS to the app",
        );
    }
    Cors::App
}

fn websocket_token(table: &Table<'_>) -> WebSocketToken {
    let mut places = WebSocketToken::default();
    let Some(list) = table.texts("token", "query:access_token") else { return places };
    let plain =
        |name: &&str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b));
    for place in list.value {
        match (place.value.as_str(), place.value.strip_prefix("query:").filter(plain)) {
            ("subprotocol", _) => places.subprotocol = true,
            (_, Some(name)) => places.query.push(name.to_owned()),
            _ => place.fault(
                format!("`{}` is not a valid token location", place.value),
                "use \"subprotocol\", or \"query:\" and a parameter name, for example \"query:access_token\"",
            ),
        }
    }
    places
}

/// Protocols that carry further requests would bypass every rule; WebSockets have their own settings.
fn upgrade(table: &Table<'_>) -> Vec<String> {
    let Some(list) = table.texts("upgrade", "spdy/3.1") else { return Vec::new() };
    let mut protocols = Vec::new();
    for text in list.value {
        let name = text.value.to_ascii_lowercase();
        let is_token = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
        };
        let mut parts = name.splitn(2, '/');
        let kind = parts.next().unwrap_or_default();
        if kind == "websocket" {
            text.fault(
                "WebSockets are allowed without being listed",
                "remove it; `websocket` sets the allowed origins",
            );
        } else if matches!(kind, "h2" | "h2c" | "h3" | "http" | "tls") {
            text.fault(
                format!("`{}` would bypass every rule", text.value),
                "list protocols of the app itself, for example \"spdy/3.1\" or \"tcp\"",
            );
        } else if !is_token(kind) || !parts.all(is_token) {
            text.fault(
                format!("invalid protocol `{}`", text.value),
                "use a name, optionally with a version, for example \"spdy/3.1\"",
            );
        } else {
            protocols.push(name);
        }
    }
    protocols
}

/// With `domain`, users sign in on a host that shares the session, so the route's host must be one of them.
fn host(table: &Table<'_>, domain: Option<&str>) -> HostPattern {
    let Some(text) = table.text("host", "app.example.com") else { return HostPattern::Any };
    let Some(host) = HostPattern::parse(&text.value) else {
        let remedy = if text.value == "*" {
            "leave `host` out to match any host"
        } else if !text.value.is_ascii() {
            "use punycode, as browsers send it: \"xn--bcher-kva.example\" is bücher.example"
        } else {
            "use a host name without a scheme, for example \"app.example.com\" or \"*.example.com\""
        };
        text.fault(format!("invalid host `{}`", text.value), remedy);
        return HostPattern::Any;
    };
    if let HostPattern::Exact(exact) = &host
        && matches!(exact.port(), Some(80 | 443))
    {
        text.fault(
            format!("browsers omit the port of `{}`: the route would match none of their requests", text.value),
            format!("use \"{}\"", exact.name()),
        );
    }
    let name = match &host {
        HostPattern::Any => return host,
        HostPattern::Exact(host) => host.name(),
        HostPattern::Below(domain) => domain,
    };
    let outside =
        |domain: &&str| name != *domain && !name.strip_suffix(*domain).is_some_and(|front| front.ends_with('.'));
    if let Some(domain) = domain.filter(outside) {
        text.fault(
            format!("`{}` is outside session.domain: sessions would not be valid there", text.value),
            format!("use a host under {domain}, or `refuse = \"status\"` if only programs use the route"),
        );
    }
    host
}

fn path(table: &Table<'_>) -> PathPattern {
    let everything = || PathPattern { text: "/**".to_owned(), segments: Vec::new(), open_end: true };
    let Some(text) = table.text("path", "/api/**") else { return everything() };
    PathPattern::parse(&text.value).unwrap_or_else(|why| {
        text.fault(
            format!("invalid path pattern `{}`: {why}", text.value),
            "use a path, for example \"/api/**\"; `*` matches within one segment, `/**` matches everything below",
        );
        everything()
    })
}

fn methods(table: &Table<'_>) -> Vec<Method> {
    let Some(list) = table.texts("methods", "GET") else { return Vec::new() };
    let mut methods = Vec::new();
    for text in list.value {
        let refused = ["CONNECT", "TRACE", "TRACK"].contains(&text.value.as_str());
        match Method::from_bytes(text.value.as_bytes()) {
            Ok(method) if !refused && !text.value.bytes().any(|b| b.is_ascii_lowercase()) => methods.push(method),
            _ => text.fault(
                format!("unsupported method `{}`", text.value),
                "use upper-case methods, for example \"GET\"; CONNECT, TRACE and TRACK are never served",
            ),
        }
    }
    methods
}

fn route_upstream(table: &Table<'_>, access: Access, upstreams: &mut Vec<Upstream>, own: &[Listen]) -> Option<usize> {
    let Some(text) = table.text("upstream", "http://127.0.0.1:3000") else {
        if access != Access::Deny && !table.has("upstream") {
            table.reading.fault(
                table.span.clone(),
                "this route has no upstream",
                "add `upstream = \"http://127.0.0.1:3000\"`, or `access = \"deny\"`",
            );
        }
        return None;
    };
    if let Some(known) = upstreams.iter().position(|upstream| upstream.name == text.value) {
        return Some(known);
    }
    if text.value.contains(':') {
        upstreams.push(upstream::from_url(&text, own)?);
        return Some(upstreams.len() - 1);
    }
    unknown(&text, upstreams);
    None
}

fn unknown(text: &Item<'_, String>, upstreams: &[Upstream]) {
    let names = upstreams.iter().map(|upstream| upstream.name.as_str());
    let remedy = nearest(&text.value, names).map_or_else(
        || "add an [[upstream]] with that name, or use a URL, for example \"http://127.0.0.1:3000\"".to_owned(),
        |name| format!("did you mean \"{name}\"?"),
    );
    text.fault(format!("unknown upstream \"{}\"", text.value), remedy);
}

fn groups(table: &Table<'_>, access: Access) -> Vec<String> {
    let Some(list) = table.texts("groups", "staff") else { return Vec::new() };
    if access != Access::SignedIn && !list.value.is_empty() {
        list.fault("`groups` only apply to signed_in routes", "set `access = \"signed_in\"`, or remove `groups`");
    }
    let mut groups = Vec::new();
    for text in list.value {
        let plain = !text.value.is_empty() && text.value.chars().count() <= 64 && !text.value.contains(',');
        if plain && !text.value.chars().any(char::is_control) && text.value.trim() == text.value {
            text.reading.groups.borrow_mut().entry(text.value.clone()).or_insert(text.span);
            groups.push(text.value);
        } else {
            text.fault(format!("invalid group `{}`", text.value), "use a name of 1 to 64 characters without a comma");
        }
    }
    groups
}

/// The prefix is stripped from the raw path, so it must be the literal start of the pattern.
fn strip_prefix(table: &Table<'_>, path: &PathPattern) -> String {
    let Some(text) = table.text("strip_prefix", "/api").filter(|text| !text.value.is_empty()) else {
        return String::new();
    };
    let plain = NormalPath::parse(text.value.as_bytes()).is_ok() && !text.value.ends_with('/');
    let front =
        path.text.strip_prefix(text.value.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if !plain || !front || text.value.contains('*') {
        text.fault(
            format!("`{}` is not a prefix of this route's path", text.value),
            "use the first segments of `path`, without wildcards or a trailing slash, for example \"/api\" for \"/api/**\"",
        );
        return String::new();
    }
    text.value
}
