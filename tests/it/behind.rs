//! Behind a real nginx, with the configuration that docs/behind-a-proxy.md gives.

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};

use serde_json::json;
use tempfile::TempDir;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Message, client};

use crate::client::Client;
use crate::gateway::{Gateway, PASSWORD, eventually};

struct Nginx {
    child: Child,
    address: SocketAddr,
    _folder: TempDir,
}

impl Nginx {
    /// The documented `location`, before this gateway. TLS would end here, so `$scheme` is written as https.
    fn before(gateway: &Gateway) -> Self {
        let docs = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/behind-a-proxy.md")).unwrap();
        let start = docs.find("    location / {").unwrap();
        let location = &docs[start..start + docs[start..].find("\n    }\n").unwrap() + 7];
        assert!(location.contains("proxy_pass http://127.0.0.1:8080;") && location.contains("$scheme"));
        let location = location.replace("127.0.0.1:8080", &gateway.host()).replace("$scheme", "https");
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let folder = TempDir::new().unwrap();
        let dir = folder.path().display();
        let config = format!(
            "daemon off; worker_processes 1; pid {dir}/pid; error_log {dir}/error.log;\nevents {{}}\nhttp {{ access_log off; \
             client_body_temp_path {dir}/b; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;\n\
             server {{ listen {address};\n{location}}} }}\n"
        );
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, config).unwrap();
        let errors = folder.path().join("error.log");
        let child =
            Command::new("nginx").arg("-e").arg(errors).arg("-c").arg(&file).stderr(Stdio::null()).spawn().unwrap();
        eventually("nginx listens", || std::net::TcpStream::connect(address).is_ok());
        Self { child, address, _folder: folder }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

#[test]
fn people_behind_nginx_sign_in_and_are_told_apart_from_whoever_reaches_the_port() {
    let gateway = Gateway::start(
        "public_url = \"https://apps.example.com\"\ntrusted_proxies = [\"127.0.0.1\"]\n[sign_up]\nmode = \"invite\"\n[[route]]\nupstream = \"builtin:whoami\"\n",
    );
    let nginx = Nginx::before(&gateway);
    let host = ("Host", "apps.example.com");
    let ask =
        |path: &str, fields: &[(&str, &str)]| Client::connect(nginx.address).get(path, &[&[host], fields].concat());
    let refused = ask("/app?x=1", &[("Accept", "text/html")]);
    assert_eq!((refused.status, refused.field("location")), (303, Some("/.auth/login?callbackUrl=/app?x=1")));
    let body = json!({ "email": "ada@example.com", "name": "Ada", "password": PASSWORD });
    let joined = Client::connect(nginx.address).post_json(gateway.invite.as_ref().unwrap(), &[host], &body);
    let cookie = joined.session_cookie();
    assert!(joined.status == 200 && cookie.starts_with("__Host-authgate="), "{joined:?}");
    let spoofed = [
        ("Cookie", cookie.as_str()),
        ("Remote-User", "mallory@example.com"),
        ("X-Forwarded-For", "10.0.0.1"),
        ("X-Forwarded-Host", "other.example.com"),
        ("X-Forwarded-Port", "1"),
        ("X-Forwarded-Prefix", "/x"),
        ("X-Real-IP", "10.0.0.1"),
        ("Forwarded", "for=10.0.0.1"),
    ];
    let seen = ask("/app", &spoofed);
    assert_eq!(
        (seen.seen("host"), seen.seen("x-real-ip")),
        (vec!["apps.example.com".into()], vec!["127.0.0.1".into()])
    );
    assert_eq!(seen.seen("x-forwarded-port"), [nginx.address.port().to_string()]);
    assert!(seen.seen("x-forwarded-prefix").is_empty() && seen.seen("forwarded").is_empty());
    assert_eq!(seen.seen("remote-user"), ["ada@example.com"]);
    assert_eq!(
        (seen.seen("x-forwarded-proto"), seen.seen("x-forwarded-host")),
        (vec!["https".into()], vec!["apps.example.com".into()])
    );
    // nginx says who its client is, whatever that client says
    assert_eq!(seen.seen("x-forwarded-for"), ["127.0.0.1, 127.0.0.1"]);
    for path in ["/a/../b", "//a", "/a%2fb"] {
        assert_eq!(ask(path, &[("Cookie", &cookie)]).status, 400, "{path} arrives as it was sent");
    }

    let mut request = "ws://apps.example.com/ws".into_client_request().unwrap();
    request.headers_mut().insert("cookie", cookie.parse().unwrap());
    request.headers_mut().insert("origin", "https://apps.example.com".parse().unwrap());
    let (mut socket, _) = client(request, std::net::TcpStream::connect(nginx.address).unwrap()).unwrap();
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

/// What browsers show of it is a redirect without end, or nothing at all: the log says what is missing.
#[test]
fn a_proxy_that_is_not_believed_or_not_named_is_told_of_once() {
    const ROUTE: &str = "[[route]]\nupstream = \"builtin:whoami\"\n";
    let https = [("Host", "apps.example.com"), ("X-Forwarded-Proto", "https")];
    for (keys, fields, status, why, warned) in [
        (
            "public_url = \"https://apps.example.com\"\ntrusted_proxies = [\"192.0.2.1\"]\n",
            &https[..],
            308,
            Some("X-Forwarded-Proto of an address that is not in trusted_proxies"),
            Some("name its address in trusted_proxies"),
        ),
        (
            "public_url = \"https://apps.example.com\"\ntrusted_proxies = [\"127.0.0.1\"]\n",
            &https[..1],
            308,
            Some("no X-Forwarded-Proto: https of the trusted proxy"),
            None,
        ),
        ("", &https[..], 200, None, Some("name its address in trusted_proxies")),
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
