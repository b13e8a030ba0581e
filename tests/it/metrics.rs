//! `/metrics` as Prometheus reads it. The parts are real: promtool and Prometheus from Debian.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::backend::{Backend, nobody, ok, silent};
use crate::gateway::{Gateway, configured, eventually, is_here};
use crate::provider::{Provider, SECRET};
use crate::providers::Browser;
use crate::websockets::open;

const OPEN_METRICS: &str = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";

/// Head and body of what the admin listener answers.
pub fn ask(address: SocketAddr, path: &str, accept: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

fn promtool(metrics: &str) -> String {
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A gateway with a route of every kind, and the session of somebody without groups.
struct Served {
    gateway: Gateway,
    cookie: String,
    backend: Backend,
    provider: Provider,
    _silent: TcpListener,
}

impl Served {
    fn start() -> Self {
        let (backend, (listener, silent)) = (Backend::start(ok), silent());
        let route = |path: &str, access: &str, upstream: &str, rest: &str| {
            format!("[[route]]\npath = \"{path}\"\naccess = \"{access}\"\nupstream = \"{upstream}\"\n{rest}")
        };
        let (dead, slow) = (format!("http://{}", nobody()), format!("http://{silent}"));
        let provider = Provider::start();
        provider.person("grace-1", "grace@example.com", true);
        let config = [
            "[limits]\nsockets_per_user = 1\n[throttle]\nmax_retries = 2\n".to_owned(),
            format!("[[upstream]]\nname = \"app\"\nservers = [\"{}\"]\nhealth = {{ path = \"/\" }}\n", backend.address),
            provider.configured("corp", ""),
            route("/dead/**", "public", &dead, ""),
            route("/slow/**", "public", &slow, "timeout = \"100ms\"\n"),
            route("/ops/**", "signed_in", "app", "groups = [\"ops\"]\n"),
            route("/api/**", "signed_in", "app", "methods = [\"GET\", \"POST\"]\n"),
            route("/**", "signed_in", "builtin:whoami", "host = \"127.0.0.1\"\n"),
        ];
        let gateway = Gateway::serve_with(configured(&config.concat()), &[("CLIENT_SECRET", SECRET)]);
        let cookie = gateway.first_account();
        Self { gateway, cookie, backend, provider, _silent: listener }
    }

    /// Traffic of all kinds, once.
    fn use_it(&self) {
        let cookie = [("Cookie", self.cookie.as_str())];
        let mut client = self.gateway.client();
        for path in ["/api/x", "/ops/x", "/", "/.auth/me", "/.auth/login"] {
            client.get(path, &[]);
            client.get(path, &cookie);
        }
        client.request("PUT /brewery?secret=1", &cookie, b"x");
        client.request("BREW /brewery", &cookie, b"");
        client.request("POST /api/x", &[cookie[0], ("Origin", "https://evil.example.com")], b"x");
        for path in ["/dead/x", "/slow/x", "/no/%00/way"] {
            self.gateway.client().get(path, &[]);
        }
        self.gateway.login("nobody@example.com", "wrong wrong wrong wrong");
        let mut socket = open(&self.gateway, "/socket", &self.cookie);
        assert!(socket.read().unwrap().is_text());
        self.backend.all();
        // she has no account
        let refused = Browser::default().through(&self.gateway, &self.provider, "/.auth/oauth/corp");
        assert_eq!(refused.status, 403);
    }

    fn metrics(&self, accept: &str) -> (String, String) {
        ask(self.gateway.admin, "/metrics", accept)
    }
}

/// Issue 5, item 8. What promtool checks is Prometheus' own text; OpenMetrics has names that it does not expect.
#[test]
fn promtool_has_nothing_to_say() {
    if !is_here("promtool") {
        return;
    }
    let served = Served::start();
    served.use_it();
    let (head, text) = served.metrics("text/plain;version=0.0.4");
    assert!(head.contains("\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{head}");
    assert_eq!(promtool(&text), "");
    assert_ne!(promtool(&text.replace("_total", "")), "", "promtool looks at nothing");
    let (head, open) = served.metrics(OPEN_METRICS);
    assert!(
        head.contains("\r\nContent-Type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"),
        "{head}"
    );
    assert!(open.ends_with("# EOF\n"));
}

#[test]
fn requests_are_counted_by_route_method_and_status_and_nothing_that_a_client_chooses() {
    let served = Served::start();
    served.use_it();
    eventually("the socket is over", || served.metrics("").1.contains("websockets_closed_total{reason=\"peer\"} 1\n"));
    let text = served.metrics("").1;
    let has = |line: &str| assert!(text.contains(&format!("authgate_{line}\n")), "{line}\n{text}");
    for line in [
        "http_requests_total{route=\"GET,POST /api/**\",method=\"GET\",code=\"200\"} 1",
        "http_requests_total{route=\"GET,POST /api/**\",method=\"GET\",code=\"401\"} 1",
        "http_requests_total{route=\"GET,POST /api/**\",method=\"POST\",code=\"403\"} 1",
        "http_requests_total{route=\"/ops/**\",method=\"GET\",code=\"403\"} 1",
        "http_requests_total{route=\"/dead/**\",method=\"GET\",code=\"502\"} 1",
        "http_requests_total{route=\"/slow/**\",method=\"GET\",code=\"504\"} 1",
        "http_requests_total{route=\"127.0.0.1/**\",method=\"PUT\",code=\"200\"} 1",
        "http_requests_total{route=\"127.0.0.1/**\",method=\"other\",code=\"200\"} 1",
        "http_requests_total{route=\"127.0.0.1/**\",method=\"GET\",code=\"101\"} 1",
        "http_requests_total{route=\"none\",method=\"GET\",code=\"400\"} 1",
        "http_request_duration_seconds_count{route=\"/dead/**\"} 1",
        "gate_duration_seconds_count{route=\"/dead/**\"} 1",
        "authz_total{route=\"GET,POST /api/**\",result=\"allowed\"} 1",
        "authz_total{route=\"GET,POST /api/**\",result=\"signed_out\"} 1",
        "authz_total{route=\"GET,POST /api/**\",result=\"cross_origin\"} 1",
        "authz_total{route=\"/ops/**\",result=\"forbidden\"} 1",
        "upstream_errors_total{route=\"/dead/**\",kind=\"connect\"} 1",
        "upstream_errors_total{route=\"/slow/**\",kind=\"timeout\"} 1",
        "logins_total{method=\"invite\",result=\"ok\"} 1",
        "logins_total{method=\"password\",result=\"wrong\"} 1",
        "logins_total{method=\"provider\",provider=\"corp\",result=\"no_account\"} 1",
        "provider_requests_total{provider=\"corp\",what=\"discovery\",result=\"ok\"} 1",
        "provider_requests_total{provider=\"corp\",what=\"token\",result=\"ok\"} 1",
        "provider_request_seconds_count{provider=\"corp\",what=\"token\"} 1",
        "websockets_active{route=\"127.0.0.1/**\"} 0",
        "sessions_active 1",
        "password_hash_queue 0",
        "config_last_reload_successful 1",
        "build_info{version=\"0.2.0\"} 1",
    ] {
        has(line);
    }
    for chosen in ["secret", "brewery", "BREW", "evil", "ada@example.com", "nobody@example.com"] {
        assert!(!text.contains(chosen), "{chosen}");
    }
}

#[test]
fn what_is_turned_away_because_of_a_limit_is_counted_by_that_limit() {
    let served = Served::start();
    for _ in 0..3 {
        served.gateway.login("nobody@example.com", "wrong wrong wrong wrong");
    }
    let mut first = open(&served.gateway, "/socket", &served.cookie);
    assert!(first.read().unwrap().is_text());
    let handshake = [
        ("Cookie", served.cookie.as_str()),
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    assert_eq!(served.gateway.client().get("/socket", &handshake).status, 429);
    let text = served.metrics("").1;
    for line in [
        "ratelimited_total{scope=\"account\"} 1",
        "ratelimited_total{scope=\"sockets_per_user\"} 1",
        "logins_total{method=\"password\",result=\"throttled\"} 1",
        "websockets_active{route=\"127.0.0.1/**\"} 1",
    ] {
        assert!(text.contains(&format!("authgate_{line}\n")), "{line}\n{text}");
    }
    served.gateway.cli(&["session", "revoke", "--all"]);
    eventually("the socket was closed for its session", || {
        served.metrics("").1.contains("authgate_websockets_closed_total{reason=\"revoked\"} 1\n")
    });
}

/// Prometheus from Debian, scraping one address.
struct Prometheus {
    child: Child,
    address: SocketAddr,
    _folder: TempDir,
}

impl Prometheus {
    fn start(target: SocketAddr) -> Self {
        let folder = TempDir::new().unwrap();
        let config = format!(
            "global: {{ scrape_interval: 500ms, scrape_timeout: 500ms }}\nscrape_configs: [{{ job_name: authgate, static_configs: [{{ targets: ['{target}'] }}] }}]\n"
        );
        std::fs::write(folder.path().join("prometheus.yml"), config).unwrap();
        let address = nobody();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", folder.path().join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=error")
            .spawn()
            .unwrap();
        let started = Self { child, address, _folder: folder };
        eventually("Prometheus is ready", || started.get("/-/ready").is_some());
        started
    }

    /// The body of a 200, and of nothing else: until its data is open, Prometheus answers 503.
    fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.address).ok()?;
        // HTTP/1.0: no chunks in the answer
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        (head.split(' ').nth(1)? == "200").then(|| body.to_owned())
    }

    /// How many series a query gives; 0 for a query that Prometheus does not understand.
    fn series(&self, query: &str) -> usize {
        let encoded: String = form_urlencoded::byte_serialize(query.as_bytes()).collect();
        let Some(body) = self.get(&format!("/api/v1/query?query={encoded}")) else { return 0 };
        let answer: Value = serde_json::from_str(&body).unwrap_or_else(|_| panic!("{query}: {body}"));
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        answer["data"]["result"].as_array().unwrap().len()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Every query of docs/grafana.json, with the interval that Grafana would put in.
fn dashboard() -> Vec<String> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/grafana.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    targets.map(|target| target["expr"].as_str().unwrap().replace("$__rate_interval", "10s")).collect()
}

/// Issue 5, item 8: every query of the dashboard gives data, from a real Prometheus that reads a gateway in use.
#[test]
fn every_query_of_the_dashboard_gives_data() {
    if !is_here("prometheus") {
        return;
    }
    let served = Served::start();
    let prometheus = Prometheus::start(served.gateway.admin);
    let mut silent = dashboard();
    assert!(silent.len() > 20, "{silent:?}");
    let until = Instant::now() + Duration::from_secs(60);
    while !silent.is_empty() {
        served.use_it();
        silent.retain(|query| prometheus.series(query) == 0);
        assert!(Instant::now() < until, "no data: {silent:#?}");
    }
    assert_eq!(prometheus.series("authgate_nothing"), 0);
    // one scrape may miss its time on a busy machine
    eventually("Prometheus reads the gateway", || prometheus.series("up == 1") == 1);
    eventually("scrapes are small", || prometheus.series("scrape_samples_scraped > 0 < 1000") == 1);
}

/// The dashboard shows every family that there is, but for those of a gateway with TLS.
#[test]
fn the_dashboard_leaves_no_family_out() {
    let served = Served::start();
    let (text, queries) = (served.metrics("").1, dashboard().concat());
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let name = line.split(' ').next().unwrap();
        assert!(queries.contains(name) || name.starts_with("authgate_tls_"), "{name} is on no panel");
    }
}
