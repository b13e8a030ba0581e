//! Behind real proxies, with the configurations that docs/behind-a-proxy.md gives.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Message, client};

use crate::client::Client;
use crate::gateway::{Gateway, PASSWORD, eventually, is_here, send};

/// A real proxy, with the configuration of the documents.
struct Proxy {
    child: Child,
    address: SocketAddr,
    folder: TempDir,
}

/// What stands in docs/behind-a-proxy.md from `start` to `end`.
fn documented(start: &str, end: &str) -> String {
    let docs = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/behind-a-proxy.md")).unwrap();
    let from = docs.find(start).unwrap();
    docs[from..from + docs[from..].find(end).unwrap() + end.len()].to_owned()
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

impl Proxy {
    fn start(mut command: Command, address: SocketAddr, folder: TempDir) -> Self {
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        eventually("it listens", || std::net::TcpStream::connect(address).is_ok());
        Self { child, address, folder }
    }

    /// The documented `location`. TLS would end here, so `$scheme` is written as https.
    fn nginx(gateway: &Gateway) -> Self {
        let location = documented("    location / {", "\n    }\n");
        assert!(location.contains("proxy_pass http://127.0.0.1:8080;"));
        assert!(location.contains("$scheme"));
        let location = location.replace("127.0.0.1:8080", &gateway.host()).replace("$scheme", "https");
        let (address, folder) = (free(), TempDir::new().unwrap());
        let dir = folder.path().display();
        let config = format!(
            "daemon off; worker_processes 1; pid {dir}/pid; error_log {dir}/error.log;\nevents {{}}\nhttp {{ access_log off; \
             client_body_temp_path {dir}/b; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;\n\
             server {{ listen {address};\n{location}}} }}\n"
        );
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, config).unwrap();
        let mut command = Command::new("nginx");
        command.arg("-e").arg(folder.path().join("error.log")).arg("-c").arg(file);
        Self::start(command, address, folder)
    }

    /// The documented file, without TLS and its folder of certificates, and with a place to ask about health checks.
    fn haproxy(gateway: &Gateway) -> Self {
        let (address, folder) = (free(), TempDir::new().unwrap());
        let mut config = documented("defaults\n    mode http\n", "check port 9180\n");
        for (typed, here) in [
            (":443 ssl crt /etc/haproxy/certs/ alpn h2,http/1.1", address.to_string()),
            ("127.0.0.1:8080", gateway.host()),
            ("check port 9180", format!("check inter 100 port {}", gateway.admin.port())),
        ] {
            assert!(config.contains(typed), "{typed}");
            config = config.replace(typed, &here);
        }
        let file = folder.path().join("haproxy.cfg");
        let socket = folder.path().join("socket");
        std::fs::write(&file, format!("global\n    stats socket {}\n{config}", socket.display())).unwrap();
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(file);
        Self::start(command, address, folder)
    }

    /// The documented site; plain http stands in for TLS, and says https.
    fn caddy(gateway: &Gateway) -> Self {
        let (address, folder) = (free(), TempDir::new().unwrap());
        let site = documented("apps.example.com {\n", "\n    }\n}\n");
        assert!(site.contains("reverse_proxy 127.0.0.1:8080 {"));
        let site = site
            .replace("apps.example.com {", &format!("http://apps.example.com:{} {{\n bind 127.0.0.1", address.port()));
        let site =
            site.replace("127.0.0.1:8080 {", &format!("{} {{\n header_up X-Forwarded-Proto https", gateway.host()));
        let file = folder.path().join("Caddyfile");
        std::fs::write(&file, format!("{{\n admin off\n auto_https off\n}}\n{site}")).unwrap();
        let mut command = Command::new("caddy");
        command.args(["run", "--adapter", "caddyfile", "--config"]).arg(file).env("HOME", folder.path());
        Self::start(command, address, folder)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        send(self.child.id(), "TERM");
        let _ = self.child.wait();
    }
}

const TRUSTING: &str =
    "trusted_proxies = [\"127.0.0.1\"]\ntrusted_headers = [\"x-real-ip\", \"forwarded\", \"x-forwarded-prefix\"]\n";

/// What all of them must do, on another port than 443: people sign in with a form, sockets open, the app hears of the
/// port, and nothing of what clients say arrives.
fn serves_people(gateway: &Gateway, proxy: &Proxy) {
    let (name, port) = ("apps.example.com", proxy.address.port().to_string());
    let host = format!("{name}:{port}");
    let origin = format!("https://{host}");
    let ask = |path: &str, fields: &[(&str, &str)]| {
        Client::connect(proxy.address).get(path, &[&[("Host", host.as_str())], fields].concat())
    };
    let refused = ask("/app?x=1", &[("Accept", "text/html")]);
    assert_eq!((refused.status, refused.field("location")), (303, Some("/.auth/login?callbackUrl=/app?x=1")));
    gateway.add_user("ada@example.com", &[]);
    let body = format!("email=ada%40example.com&password={}&callbackUrl=%2Fapp", PASSWORD.replace(' ', "+"));
    let fields = [("Host", host.as_str()), ("Origin", origin.as_str()), ("X-Forwarded-Host", "other.example.com")];
    let signed_in = Client::connect(proxy.address).post_form("/.auth/login", &fields, &body);
    assert_eq!((signed_in.status, signed_in.field("location")), (303, Some("/app")), "{signed_in:?}");
    let cookie = signed_in.session_cookie();
    assert!(cookie.starts_with("__Host-authgate="), "{cookie}");
    let spoofed = [
        ("Cookie", cookie.as_str()),
        ("Remote-User", "mallory@example.com"),
        ("X-Forwarded-For", "10.0.0.1"),
        ("X-Forwarded-Host", "other.example.com"),
        ("X-Forwarded-Port", "1"),
        ("X-Forwarded-Prefix", "/evil"),
        ("X-Real-IP", "10.0.0.1"),
        ("Forwarded", "for=10.0.0.1"),
        ("X-Request-Id", "evil"),
    ];
    let seen = ask("/app", &spoofed);
    let one = |text: &str| vec![text.to_owned()];
    for (field, value) in [
        ("host", host.as_str()),
        ("x-forwarded-host", &host),
        ("x-forwarded-port", &port),
        ("x-forwarded-proto", "https"),
        ("x-real-ip", "127.0.0.1"),
        ("x-forwarded-for", "127.0.0.1, 127.0.0.1"),
        ("remote-user", "ada@example.com"),
    ] {
        assert_eq!(seen.seen(field), one(value), "{field}");
    }
    assert!(seen.seen("x-forwarded-prefix").is_empty());
    assert!(seen.seen("forwarded").is_empty());
    assert!(!seen.text().contains("evil"), "{}", seen.text());

    let mut request = format!("ws://{host}/ws").into_client_request().unwrap();
    request.headers_mut().insert("cookie", cookie.parse().unwrap());
    request.headers_mut().insert("origin", origin.parse().unwrap());
    let (mut socket, _) = client(request, std::net::TcpStream::connect(proxy.address).unwrap()).unwrap();
    let _ = socket.read().unwrap();
    socket.send(Message::text("hello")).unwrap();
    while socket.read().unwrap() != Message::text("hello") {}
    gateway.cli(&["session", "revoke", "--user", "ada@example.com"]);
    let close = loop {
        if let Message::Close(frame) = socket.read().unwrap() {
            break frame;
        }
    };
    assert_eq!(u16::from(close.unwrap().code), 4403);
}

/// A gateway behind a proxy on a port that is known only once it listens: `public_url` names none, and the host does.
fn gateway_behind() -> Gateway {
    Gateway::start(&format!(
        "public_url = \"https://apps.example.com\"\n{TRUSTING}[[route]]\nupstream = \"builtin:whoami\"\n"
    ))
}

#[test]
fn people_behind_nginx_sign_in_on_any_port_and_are_distinguished_from_direct_clients() {
    if !is_here("nginx") {
        return;
    }
    let gateway = gateway_behind();
    let nginx = Proxy::nginx(&gateway);
    serves_people(&gateway, &nginx);
}

#[test]
fn people_behind_haproxy_sign_in_on_any_port_and_its_health_check_finds_the_gateway() {
    if !is_here("haproxy") {
        return;
    }
    let gateway = gateway_behind();
    let haproxy = Proxy::haproxy(&gateway);
    serves_people(&gateway, &haproxy);
    eventually("the check has been answered", || {
        let mut socket = std::os::unix::net::UnixStream::connect(haproxy.folder.path().join("socket")).unwrap();
        socket.write_all(b"show stat\n").unwrap();
        let mut text = String::new();
        socket.read_to_string(&mut text).unwrap();
        text.lines()
            .any(|line| line.starts_with("authgate,authgate,") && line.contains(",UP,") && line.contains("L7OK"))
    });
}

#[test]
fn people_behind_caddy_sign_in_on_any_port() {
    if !is_here("caddy") {
        return;
    }
    let gateway = gateway_behind();
    let caddy = Proxy::caddy(&gateway);
    serves_people(&gateway, &caddy);
}

/// What browsers show of it is a redirect without end, or nothing at all: the log says what is missing.
#[test]
fn a_proxy_that_is_not_trusted_or_not_named_is_reported_once() {
    const ROUTE: &str = "[[route]]\nupstream = \"builtin:whoami\"\n";
    let https = [("Host", "apps.example.com"), ("X-Forwarded-Proto", "https")];
    for (keys, fields, status, why, warned) in [
        (
            "public_url = \"https://apps.example.com\"\ntrusted_proxies = [\"192.0.2.1\"]\n",
            &https[..],
            308,
            Some("X-Forwarded-Proto from an address that is not in trusted_proxies"),
            Some("add its address to trusted_proxies"),
        ),
        (
            "public_url = \"https://apps.example.com\"\ntrusted_proxies = [\"127.0.0.1\"]\n",
            &https[..1],
            308,
            Some("no X-Forwarded-Proto: https from the trusted proxy"),
            None,
        ),
        ("", &https[..], 200, None, Some("add its address to trusted_proxies")),
        ("trusted_proxies = [\"127.0.0.1\"]\n", &https[..], 200, None, Some("cookies are not Secure")),
        ("public_url = \"https://apps.example.com\"\ntrusted_proxies = [\"127.0.0.1\"]\n", &https[..], 200, None, None),
        ("", &https[..1], 200, None, None),
    ] {
        let gateway = Gateway::start(&format!("{keys}{ROUTE}"));
        for _ in 0..2 {
            assert_eq!(gateway.client().get("/.auth/login", fields).status, status, "{keys}");
        }
        let log = gateway.into_log();
        let lines: Vec<serde_json::Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let line = lines.iter().find(|line| line["path"] == "/.auth/login").unwrap();
        assert_eq!(line["why"].as_str(), why, "{keys}");
        let told: Vec<_> = lines.iter().filter(|line| !line["peer"].is_null()).collect();
        assert_eq!(told.len(), usize::from(warned.is_some()), "{log}");
        assert!(told.iter().all(|line| line["message"].as_str().unwrap().contains(warned.unwrap())), "{log}");
    }
}
