//! `[server]` and `[limits]`.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::file::{Item, Table};
use crate::config::{Limits, Listen, Paths, Server, UnixSocket};
use crate::web::host::Host;
use crate::web::origin::{Origin, Scheme};
use crate::web::proxy_headers;

/// Suggested fix for hosts that are not in the form that browsers send.
pub(super) const PUNYCODE: &str =
    "use punycode, as browsers send it: \"https://xn--bcher-kva.example\" is https://bücher.example";
const SECOND: Duration = Duration::from_secs(1);

pub(super) fn server(table: &Table<'_>) -> Server {
    let base = table.reading.base.as_path();
    let list = table.texts("listen", "127.0.0.1:8080");
    let listen = match &list {
        None => vec![Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 8080)))],
        Some(list) => {
            if list.value.is_empty() {
                list.fault("`listen` is empty, so no client could connect", "set `listen = [\"127.0.0.1:8080\"]`");
            }
            distinct(list.value.iter().filter_map(|one| Some((one, self::listen(one, base)?))).collect())
        }
    };
    let admin_listen = admin_listen(table, base);
    if let Some(admin) = admin_listen.as_ref().filter(|admin| listen.iter().any(|one| overlap(one, admin))) {
        let place = if table.has("admin_listen") { "admin_listen" } else { "listen" };
        let address = admin.address().map_or_else(String::new, |address| format!("`{address}` of "));
        table.reading.fault(
            table.span_of(place),
            format!("{address}`admin_listen` is also in `listen`"),
            "use a different address for each",
        );
    }
    let (tls, has_certificates) = super::tls::tls(&table.table("tls", "[server.tls]"));
    if let Some(list) =
        list.as_ref().filter(|_| !has_certificates && listen.iter().any(|one| matches!(one, Listen::Tls(_))))
    {
        for one in list.value.iter().filter(|one| one.value.starts_with("https://")) {
            one.fault(
                format!("`{}` has no certificate", one.value),
                "add [server.tls] with `certificates = [{ certificate = \"chain.pem\", key = { file = \"key.pem\" } }]`",
            );
        }
    }
    let is_public_url_guessed = !table.has("public_url")
        && listen.iter().find_map(Listen::address).is_some_and(|address| address.ip().is_unspecified());
    let public_url = public_url(table, &listen);
    let (proxies, is_trusting) = trusted_proxies(table);
    if !is_trusting {
        without_proxy(table, list.as_ref(), &listen, &public_url);
    }
    Server {
        public_url,
        is_public_url_guessed,
        state_dir: state_dir(table),
        prefix: prefix(table),
        paths: paths(table).unwrap_or(Paths::AllReadings),
        trusted_proxies: proxies,
        trusted_headers: trusted_headers(table),
        watch: table.boolean("watch").unwrap_or(true),
        listen,
        admin_listen,
        admin_hosts: admin_hosts(table),
        tls,
    }
}

/// Without a trusted proxy in front, an https URL needs a TLS listener, and addresses reachable from other machines
/// should have one.
fn without_proxy(
    table: &Table<'_>,
    list: Option<&Item<'_, Vec<Item<'_, String>>>>,
    listen: &[Listen],
    public: &Origin,
) {
    let tls = listen.iter().any(|one| matches!(one, Listen::Tls(_)));
    if public.scheme() == Scheme::Https {
        if let Some(typed) = table.text("public_url", "").filter(|_| !tls) {
            typed.fault(
                "`public_url` is https, but no listener is: every request would be redirected in a loop",
                "listen on \"https://0.0.0.0:443\" with [server.tls], or list the TLS proxy in front in trusted_proxies",
            );
        }
        return;
    }
    for one in list.into_iter().flat_map(|list| &list.value) {
        let plain = one.value.strip_prefix("http://").unwrap_or(&one.value).parse::<SocketAddr>();
        if plain.is_ok_and(|address| !address.ip().is_loopback()) {
            table.reading.warn(
                one.span.clone(),
                format!("`{}` is reachable from other machines over plain http: passwords and sessions can be intercepted", one.value),
                "listen on \"https://...\" with [server.tls], or on loopback behind a TLS proxy listed in trusted_proxies",
            );
        }
    }
}

fn admin_listen(table: &Table<'_>, base: &Path) -> Option<Listen> {
    let Some(text) = table.text("admin_listen", "127.0.0.1:9180") else {
        return Some(Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 9180))));
    };
    if text.value.is_empty() {
        return None;
    }
    let address = listen(&text, base);
    if matches!(address, Some(Listen::Tls(_))) {
        text.fault("`admin_listen` does not support TLS", "use a loopback address, for example \"127.0.0.1:9180\"");
    }
    address
}

/// Port 0 may be repeated: each asks for a free port.
fn distinct(listen: Vec<(&Item<'_, String>, Listen)>) -> Vec<Listen> {
    let mut kept: Vec<Listen> = Vec::new();
    for (typed, address) in listen {
        if let Some(other) = kept.iter().find(|other| overlap(other, &address)) {
            let what = if other.address() == address.address() {
                format!("duplicate address `{}`", typed.value)
            } else {
                format!("`{}` and another entry of `listen` use the same address and port", typed.value)
            };
            typed.fault(what, "remove one of them");
        }
        kept.push(address);
    }
    kept
}

/// Whether the two addresses conflict. A wildcard address includes every address of its family, and `[::]` is bound for
/// both families.
fn overlap(one: &Listen, other: &Listen) -> bool {
    let (Some(a), Some(b)) = (one.address(), other.address()) else {
        return matches!((one, other), (Listen::Unix(one), Listen::Unix(other)) if one.path == other.path);
    };
    let all = |ip: IpAddr| ip.is_unspecified() && (ip.is_ipv6() || a.is_ipv4() == b.is_ipv4());
    a.port() == b.port() && a.port() != 0 && (a.ip() == b.ip() || all(a.ip()) || all(b.ip()))
}

fn listen(text: &Item<'_, String>, base: &Path) -> Option<Listen> {
    if let Some(rest) = text.value.strip_prefix("unix:") {
        return unix_socket(text, rest, base).map(Listen::Unix);
    }
    let secure = text.value.strip_prefix("https://");
    let plain = secure.or(text.value.strip_prefix("http://")).unwrap_or(&text.value);
    let address = plain.parse().ok();
    if address.is_none() {
        text.fault(
            format!("invalid listen address `{}`", text.value),
            "use an IP address and a port, for example \"127.0.0.1:8080\" or \"[::]:8080\"",
        );
    }
    address.map(if secure.is_some() { Listen::Tls } else { Listen::Tcp })
}

/// `PATH?mode=0666&group=www-data`
fn unix_socket(text: &Item<'_, String>, rest: &str, base: &Path) -> Option<UnixSocket> {
    let (path, options) = rest.split_once('?').unwrap_or((rest, ""));
    let path = path.strip_prefix("//").unwrap_or(path);
    if path.is_empty() || path.len() > 100 {
        text.fault(format!("invalid Unix socket path `{}`", text.value), "use unix: and a path of at most 100 bytes");
        return None;
    }
    let mut socket = UnixSocket { path: base.join(path), mode: 0o660, group: None };
    for option in options.split('&').filter(|option| !option.is_empty()) {
        let read = match option.split_once('=') {
            Some(("mode", mode)) => {
                let mode = u32::from_str_radix(mode, 8).ok().filter(|mode| *mode <= 0o777);
                mode.map(|mode| socket.mode = mode)
            }
            Some(("group", group)) => group_id(group).map(|group| socket.group = Some(group)),
            _ => None,
        };
        if read.is_none() {
            text.fault(
                format!("`{option}` is not a Unix socket option, or the group does not exist on this machine"),
                "example: \"unix:/run/authgate/authgate.sock?mode=0660&group=www-data\"",
            );
        }
    }
    Some(socket)
}

/// A group by name (from /etc/group) or number.
fn group_id(name: &str) -> Option<u32> {
    let by_name = || {
        let groups = std::fs::read_to_string("/etc/group").ok()?;
        let fields = groups.lines().map(|line| line.split(':').collect::<Vec<_>>());
        fields.into_iter().find(|fields| fields.first() == Some(&name))?.get(2)?.parse().ok()
    };
    name.parse().ok().or_else(by_name)
}

/// Defaults to the first `listen` address, or to loopback if browsers cannot use that address.
fn public_url(table: &Table<'_>, listen: &[Listen]) -> Origin {
    if let Some(text) = table.text("public_url", "https://apps.example.com") {
        if let Some(origin) = Origin::parse(&text.value) {
            return origin;
        }
        let remedy = if text.value.is_ascii() {
            "use only scheme and host, for example \"https://apps.example.com\""
        } else {
            PUNYCODE
        };
        text.fault(format!("invalid origin `{}`", text.value), remedy);
    }
    let first = listen.iter().find(|listen| listen.address().is_some());
    let address = first.and_then(Listen::address).map(|address| {
        if address.ip().is_unspecified() { format!("127.0.0.1:{}", address.port()) } else { address.to_string() }
    });
    // the port behind port 0 is unknown until it is bound
    let host = address.and_then(|address| Host::parse(&address)).unwrap_or_else(Host::loopback);
    let scheme = if matches!(first, Some(Listen::Tls(_))) { Scheme::Https } else { Scheme::Http };
    Origin::new(scheme, &host)
}

/// The database cannot be placed next to the system configuration, where only root can write.
const SYSTEM: &str = "/etc/authgate";
const SYSTEM_STATE: &str = "/var/lib/authgate";

fn default_state_dir(base: &Path) -> &'static str {
    let here = if base.as_os_str().is_empty() { Path::new(".") } else { base };
    let is_system = here.canonicalize().is_ok_and(|folder| folder == Path::new(SYSTEM)) || here == Path::new(SYSTEM);
    if is_system { SYSTEM_STATE } else { "state" }
}

/// The caller applies `--state-dir` over this.
fn state_dir(table: &Table<'_>) -> PathBuf {
    let typed = table.text("state_dir", "state").map(|text| text.value);
    let inherited =
        || (table.reading.env)("STATE_DIRECTORY").and_then(|list| list.split(':').next().map(str::to_owned));
    let path = typed.or_else(inherited).unwrap_or_else(|| default_state_dir(&table.reading.base).to_owned());
    table.reading.base.join(path)
}

fn prefix(table: &Table<'_>) -> String {
    const DEFAULT: &str = "/.auth";
    let Some(text) = table.text("prefix", DEFAULT) else { return DEFAULT.to_owned() };
    let segment = |part: &str| {
        !part.is_empty()
            && part != "."
            && part != ".."
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._~-".contains(&b))
    };
    let good = text.value.strip_prefix('/').is_some_and(|rest| rest.split('/').all(segment));
    if !good {
        text.fault(
            format!("invalid prefix `{}`", text.value),
            "use a path of letters, digits and . _ ~ - without a trailing slash, for example \"/.auth\"",
        );
        return DEFAULT.to_owned();
    }
    text.value
}

/// `paths` of the server or of a route.
pub(super) fn paths(table: &Table<'_>) -> Option<Paths> {
    table.choice("paths", &[("all_readings", Paths::AllReadings), ("plain", Paths::Plain)])
}

/// The networks, and whether any are configured, valid or not.
fn trusted_proxies(table: &Table<'_>) -> (Vec<ipnet::IpNet>, bool) {
    let Some(list) = table.texts("trusted_proxies", "10.0.0.0/8") else {
        return (Vec::new(), table.has("trusted_proxies"));
    };
    let mut nets = Vec::new();
    let any = !list.value.is_empty();
    for text in list.value {
        let net =
            text.value.parse().ok().or_else(|| text.value.parse::<std::net::IpAddr>().ok().map(ipnet::IpNet::from));
        match net {
            Some(net) if net.prefix_len() == 0 => text.fault(
                format!("`{}` would let every client spoof its address", text.value),
                "list only the addresses of the proxies in front",
            ),
            Some(net) => nets.push(net.trunc()),
            None => text.fault(
                format!("invalid network `{}`", text.value),
                "use an address or a network, for example \"10.0.0.0/8\" or \"127.0.0.1\"",
            ),
        }
    }
    (nets, any)
}

fn trusted_headers(table: &Table<'_>) -> Vec<String> {
    let list = table.texts("trusted_headers", "x-real-ip").map(|list| list.value).unwrap_or_default();
    let mut names = Vec::new();
    for text in list {
        let name = text.value.to_ascii_lowercase();
        if proxy_headers::may_be_trusted(&name) {
            names.push(name);
        } else {
            text.fault(
                format!("`{}` is not a header that a proxy in front may set", text.value),
                "use names such as \"x-real-ip\", \"forwarded\" or \"x-forwarded-prefix\"; only the gateway sets identity headers",
            );
        }
    }
    names
}

fn admin_hosts(table: &Table<'_>) -> Vec<String> {
    let list = table.texts("admin_hosts", "authgate").map(|list| list.value).unwrap_or_default();
    let mut names = Vec::new();
    for text in list {
        match Host::parse(&text.value).filter(|host| host.port().is_none()) {
            Some(host) => names.push(host.name().to_owned()),
            None => text.fault(
                format!("invalid host name `{}`", text.value),
                "use the host name of the request, without a port, for example \"authgate\"",
            ),
        }
    }
    names
}

pub(super) fn limits(table: &Table<'_>) -> Limits {
    let count = |key, default: usize, min, max| {
        table.number(key, min, max).and_then(|n| usize::try_from(n).ok()).unwrap_or(default)
    };
    let size = |key, default: usize, min, max| {
        table.size(key, min, max).and_then(|n| usize::try_from(n).ok()).unwrap_or(default)
    };
    let time = |key, default| table.duration(key, SECOND).map_or(Duration::from_secs(default), |text| text.value);
    Limits {
        head_bytes: size("head_bytes", 32 << 10, 1 << 10, 512 << 10),
        head_fields: count("head_fields", 100, 10, 250),
        head_time: time("head_time", 15),
        form_bytes: size("form_bytes", 8 << 10, 1 << 10, 1 << 20),
        connections: count("connections", 20_000, 1, 10_000_000),
        connections_per_address: count("connections_per_address", 4096, 1, 10_000_000),
        sockets_per_user: count("sockets_per_user", 1024, 1, 10_000_000),
        keep_alive: time("keep_alive", 75),
        idle: time("idle", 600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_folder_is_beside_the_file_but_not_in_etc() {
        let dir = tempfile::tempdir().unwrap();
        for (base, expected) in
            [("/etc/authgate", "/var/lib/authgate"), ("/etc/authgate/sub", "state"), ("", "state"), ("deploy", "state")]
        {
            assert_eq!(default_state_dir(Path::new(base)), expected, "{base}");
        }
        assert_eq!(default_state_dir(dir.path()), "state");
    }
}
