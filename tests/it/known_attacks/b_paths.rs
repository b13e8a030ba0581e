//! B: paths, hosts and rules. The path that rules match is byte for byte the path that is forwarded.

use std::io::{Read, Write};

use serde_json::json;

use super::{Stage, head, mirror, stage, still_serves};
use crate::backend::{Backend, ok};
use crate::gateway::{Gateway, PASSWORD, configured, refused_start};

/// 400 for everybody, and never forwarded.
fn refuse_all(stage: &Stage, paths: &[&str]) {
    for path in paths {
        for cookie in ["a=1", stage.ada.as_str()] {
            let fields = [("Host", "a"), ("Cookie", cookie), ("X-Mark", "refused-path")];
            stage.refuses(head(&format!("GET {path}"), &fields).as_bytes(), 400);
        }
    }
    assert!(stage.arrived("refused-path").is_empty());
}

/// Served to nobody, and forwarded as it is.
fn let_through(stage: &Stage, paths: &[&str]) {
    for path in paths {
        let answer = stage.get(path, &[]);
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.json()["line"], json!(format!("GET {path} HTTP/1.1")));
    }
}

/// One way to read it leads to what only the signed in may see: closed to others as that is, and forwarded to Ada as
/// it is.
fn as_the_strictest(stage: &Stage, paths: &[&str]) {
    for path in paths {
        assert_eq!(stage.get(path, &[("X-Mark", "strictest")]).status, 401, "{path}");
        let answer = stage.get_as_ada(path, &[]);
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.json()["line"], json!(format!("GET {path} HTTP/1.1")));
    }
    assert!(stage.arrived("strictest").is_empty());
    still_serves(&stage.gateway);
}

fn with_status(gateway: &Gateway, asked: &[(&str, u16)]) {
    for (path, status) in asked {
        assert_eq!(gateway.client().get(path, &[]).status, *status, "{path}");
    }
    still_serves(gateway);
}

/// The rule itself; without it the rest proves nothing.
#[test]
fn b1_a_protected_path_is_closed_with_a_slash_a_query_and_below_it() {
    let stage = stage();
    for path in ["/app", "/app/", "/app?x", "/app/x", "/app/x/?y#".trim_end_matches('#'), "/"] {
        assert_eq!(stage.get(path, &[]).status, 401, "{path}");
        assert_eq!(stage.get_as_ada(path, &[]).status, 200, "{path}");
    }
    still_serves(&stage.gateway);
}

/// Ory Oathkeeper CVE-2026-33494 and CVE-2021-32701.
#[test]
fn b2_dot_segments_lead_out_of_no_open_path() {
    let stage = stage();
    as_the_strictest(
        &stage,
        &["/public/../app", "/public/..", "/public/x/../../app", "/.", "/..", "/public/..;/app", "/public;x/../app"],
    );
    let_through(&stage, &["/public/...", "/public/.x", "/public/a.b", "/public/a..b", "/public/./x", "/public/x/../y"]);
}

/// Traefik CVE-2025-47952, -66490 and CVE-2026-40912: what is encoded is decoded behind the rule. Tomcat
/// CVE-2008-2938: so are dots that UTF-8 does not know.
#[test]
fn b3_encoded_dots_and_slashes_lead_out_of_no_open_path() {
    let stage = stage();
    as_the_strictest(
        &stage,
        &[
            "/public/%2e%2e/app",
            "/public/%2E%2e/app",
            "/public/.%2e/app",
            "/public%2f..%2fapp",
            "/public%2Fapp",
            "/public/..%2fapp",
            "/public%5c..%5capp",
            "/public\\..\\app",
            "/public/%252e%252e/app",
            "/public/..%252fapp",
        ],
    );
    refuse_all(
        &stage,
        &[
            "/public/%c0%ae%c0%ae%2fapp",
            "/public/%c0%ae%c0%ae/app",
            "/public/..%c0%afapp",
            "/public/%e0%80%afapp",
            "/public/%25c0%25ae/app",
            "/public/%EF%BC%8E%EF%BC%8E/app",
            "/public/\u{ff0e}\u{ff0e}/app",
            "/public/..\u{ff0f}app",
        ],
    );
    let_through(
        &stage,
        &["/public/%5Bslug%5D", "/public/%20x", "/public/100%25", "/public/%3bx", "/public/%252fapp", "/public/a%2Fb"],
    );
}

/// Envoy CVE-2021-29492, OPA-Envoy CVE-2026-26205; Node's `new URL(path, base)` takes what begins with two slashes for
/// a host.
#[test]
fn b4_empty_segments_are_checked_with_and_without_them() {
    let stage = stage();
    as_the_strictest(&stage, &["//app", "/./app", "///", "//public/x", "/public//../../app", "/%2Fpublic/app"]);
    let_through(&stage, &["/public/", "/public", "/public/x/", "/public//app", "/public///", "/public/x//y/./z"]);
}

/// Caddy CVE-2026-27587: a backend that reads paths in any case.
#[test]
fn b5_another_case_of_an_open_path_is_not_open_and_encoded_letters_are_checked_as_both() {
    let stage = stage();
    with_status(&stage.gateway, &[("/PUBLIC/x", 401), ("/Public/x", 401), ("/APP", 401), ("/public/x", 200)]);
    as_the_strictest(&stage, &["/%61pp", "/%41pp", "/%70ublic/x"]);
    let_through(&stage, &["/public/%7Euser", "/public/%61pp"]);
}

/// Caddy GHSA-gx7w-56w6-g48x.
#[test]
fn b6_a_rule_ends_at_a_segment_border() {
    let stage = stage();
    with_status(
        &stage.gateway,
        &[("/publicity", 401), ("/public-admin", 401), ("/public.json", 401), ("/public%20", 401), ("/public", 200)],
    );
}

/// oauth2-proxy CVE-2025-54576.
#[test]
fn b7_a_rule_never_looks_at_the_query() {
    let gateway = Gateway::start(
        "[[route]]\npath = \"/*.css\"\naccess = \"public\"\nupstream = \"builtin:whoami\"\n[[route]]\nupstream = \"builtin:whoami\"\n",
    );
    with_status(
        &gateway,
        &[
            ("/x.css", 200),
            ("/app?x=/public/a.css", 401),
            ("/app?/x.css", 401),
            ("/app/x.css", 401),
            ("/x.css/app", 401),
            ("/x.css?a=/app", 200),
        ],
    );
}

/// oauth2-proxy CVE-2025-54576: an unanchored expression. Patterns are no expressions here: they take whole
/// paths, and what has no slash in front is a fault.
#[test]
fn b8_a_pattern_takes_a_whole_path_or_is_a_fault() {
    for pattern in ["public", "^/public/.*\\\\.css$", "/public/**/x", "**", "*"] {
        let folder = configured(&format!(
            "[[route]]\npath = \"{pattern}\"\naccess = \"public\"\nupstream = \"builtin:whoami\"\n"
        ));
        let (code, text) = refused_start(folder.path());
        assert!(code == 64 && text.contains("gateway.toml:"), "{pattern}: {text}");
    }
    let gateway = Gateway::start(
        "[[route]]\npath = \"/public\"\naccess = \"public\"\nupstream = \"builtin:whoami\"\n[[route]]\nupstream = \"builtin:whoami\"\n",
    );
    with_status(
        &gateway,
        &[("/public", 200), ("/public/x", 401), ("/x/public", 401), ("/xpublic", 401), ("/public/", 401)],
    );
}

/// oauth2-proxy's rules that skip sign-in for one method.
#[test]
fn b9_a_rule_for_get_opens_get_and_head_alone() {
    let backend = Backend::start(mirror);
    let gateway = Gateway::start(&format!(
        "[[route]]\nmethods = [\"GET\"]\naccess = \"public\"\nupstream = \"http://{0}\"\n[[route]]\nupstream = \"http://{0}\"\n",
        backend.address
    ));
    for line in ["POST /", "PUT /", "DELETE /", "PATCH /", "OPTIONS /", "GETS /", "PROPFIND /"] {
        let told = [("X-HTTP-Method-Override", "GET"), ("X-HTTP-Method", "GET"), ("X-Original-Method", "GET")];
        assert_eq!(gateway.client().request(line, &told, b"").status, 401, "{line}");
    }
    assert_eq!(gateway.client().request("get /", &[], b"").status, 400);
    assert!(backend.all().is_empty());
    for line in ["GET /", "HEAD /"] {
        assert_eq!(gateway.client().request(line, &[], b"").status, 200, "{line}");
    }
    still_serves(&gateway);
}

const HOSTS: &str = r#"
[[route]]
host = "app.example.com"
access = "deny"
[[route]]
host = "*.example.com"
access = "public"
upstream = "builtin:whoami"
[[route]]
host = "other.test"
path = "/x/**"
access = "public"
upstream = "builtin:whoami"
"#;

fn with_hosts(gateway: &Gateway, asked: &[(&str, &str, u16)]) {
    for (path, host, status) in asked {
        assert_eq!(gateway.client().get(path, &[("Host", host)]).status, *status, "{host} {path}");
    }
}

/// Authelia CVE-2026-48794, Traefik CVE-2022-23632: another spelling of the host met another rule.
#[test]
fn b10_every_spelling_of_a_host_meets_the_same_rule() {
    let gateway = Gateway::start(HOSTS);
    with_hosts(
        &gateway,
        &[
            ("/", "app.example.com", 403),
            ("/", "APP.Example.COM", 403),
            ("/", "app.example.com.", 403),
            ("/", "APP.example.com.:443", 403),
            ("/", "app.example.com:8080", 403),
            ("/", "app.example.com..", 400),
            ("/", "b.example.com", 200),
            ("/", "a.B.example.COM.:80", 200),
        ],
    );
    let absolute = |target: &str, host: &str| {
        let mut client = gateway.client();
        client.send(head(&format!("GET {target}"), &[("Host", host)]).as_bytes());
        client.answer().status
    };
    assert_eq!(absolute("http://app.example.com/", "app.example.com"), 403);
    assert_eq!(absolute("http://b.example.com/", "b.example.com"), 200);
    assert_eq!(absolute("http://b.example.com/", "app.example.com"), 400);
}

/// Caddy CVE-2026-27588: from the hundredth host on, capitals were not matched.
#[test]
fn b11_many_hosts_are_matched_in_any_case() {
    use std::fmt::Write;
    let mut routes = String::new();
    for number in 0..101 {
        writeln!(routes, "[[route]]\nhost = \"App{number}.example.com\"\naccess = \"deny\"").unwrap();
    }
    let gateway = Gateway::start(&format!("{routes}[[route]]\naccess = \"public\"\nupstream = \"builtin:whoami\"\n"));
    for number in [0, 50, 99, 100] {
        let spellings = [format!("app{number}.example.com"), format!("APP{number}.EXAMPLE.COM")];
        with_hosts(&gateway, &spellings.each_ref().map(|host| ("/", host.as_str(), 403)));
    }
    with_hosts(&gateway, &[("/", "app101.example.com", 200)]);
    still_serves(&gateway);
}

/// Traefik CVE-2026-32695; the answer is 404.
#[test]
fn b12_an_unknown_host_has_no_default() {
    let gateway = Gateway::start(HOSTS);
    with_hosts(
        &gateway,
        &[
            ("/", "evil.test", 404),
            ("/", "example.com", 404),
            ("/", "evilexample.com", 404),
            ("/", "b.example.com.evil.test", 404),
            ("/y", "other.test", 404),
            ("/.auth/login", "evil.test", 404),
            ("/.auth/me", "evil.test", 404),
            ("/x", "other.test", 200),
            ("/.auth/login", "other.test", 200),
        ],
    );
}

/// Traefik CVE-2026-48020. Rules see the whole path, so that these meet none: 404.
#[test]
fn b13_a_prefix_is_cut_at_a_segment_border_and_forwarded() {
    let backend = Backend::start(ok);
    let gateway = Gateway::start(&format!(
        "[[route]]\npath = \"/api/**\"\nstrip_prefix = \"/api\"\naccess = \"public\"\nupstream = \"http://{}\"\n",
        backend.address
    ));
    for path in ["/api../x", "/api./x", "/apix", "/%40pi/x"] {
        assert_eq!(gateway.client().get(path, &[]).status, 404, "{path}");
    }
    // one reading is no route's
    for path in ["/api/../x", "/api/..", "/api/%2e%2e/x", "/api;x/y", "/%61pi/x", "//api/x", "/api%2Fx"] {
        assert_eq!(gateway.client().get(path, &[]).status, 404, "{path}");
    }
    assert!(backend.all().is_empty());
    for (path, forwarded) in [
        ("/api/x?y", "/x?y"),
        ("/api", "/"),
        ("/api/", "/"),
        ("/api?x", "/?x"),
        ("/api/api", "/api"),
        ("/api//evil.test/", "//evil.test/"),
        ("/api/a%2Fb;c", "/a%2Fb;c"),
    ] {
        assert_eq!(gateway.client().get(path, &[]).status, 200);
        let received = backend.next();
        assert_eq!(
            (received.line.as_str(), received.field("x-forwarded-prefix")),
            (format!("GET {forwarded} HTTP/1.1").as_str(), Some("/api"))
        );
    }
}

/// next-auth GHSA-xmf8-cvqr-rfgj: an escape that is none threw, and the answer was 500.
#[test]
fn b14_broken_escapes_and_bytes_that_no_path_holds_are_400() {
    let stage = stage();
    refuse_all(
        &stage,
        &[
            "/app%zz",
            "/app%",
            "/app%2",
            "/app%u0041",
            "/app%00",
            "/app%0d%0aX:1",
            "/app%7f",
            "/app%2500",
            "/app#x",
            "/app%FC",
            "app",
            "\\app",
            "*",
            "foo:/app",
            "ftp://a/app",
            "http:///app",
            "?x",
            "/app\u{1}",
            "/app\u{7f}",
            "/app\u{85}",
            "/public?a#b",
            "/public?\u{1}",
        ],
    );
    let_through(&stage, &["/public/%25zz", "/public/x?a=%zz&b=%"]);
    as_the_strictest(&stage, &["/app%252e", "/app%23x", "/app%3fx", "/app%20x/../y", "/caf\u{e9}"]);
}

#[test]
fn b15_a_target_arrives_byte_for_byte() {
    let stage = stage();
    let_through(
        &stage,
        &[
            "/public/caf%C3%A9?a=%2F&b=x+y&c=../..",
            "/public/caf%c3%a9",
            "/public/@scope/x:y,z=(1)!$&'*+~",
            "/public/[x]",
            "/public/{x}|",
            "/public/?",
            "/public/??a",
            "/public/?a=//../;%00",
            "/public/%EF%BC%9F",
            "/public/caf\u{e9}?x=\u{e9}",
        ],
    );
}

#[test]
fn b16_a_target_of_16_kib_is_served_and_a_longer_one_is_414() {
    let stage = stage();
    let path = |length: usize| format!("/public/{}", "a".repeat(length - "/public/".len()));
    assert_eq!(stage.get(&path(16 << 10), &[]).status, 200);
    let query = format!("/public?{}", "a".repeat(16 << 10));
    for target in [path((16 << 10) + 1), path(17 << 10), query] {
        stage.refuses(head(&format!("GET {target}"), &[("Host", "a")]).as_bytes(), 414);
    }
}

/// Traefik CVE-2026-54762 and Caddy CVE-2026-27586: what could not be read was left out, and the door stood
/// open. (That there are no users yet is no fault: the first one gets a link.)
#[test]
fn b17_a_configuration_that_cannot_be_read_whole_starts_nothing() {
    let route = "[[route]]\nupstream = \"builtin:whoami\"\n";
    let token = |secret: &str| {
        format!("[[upstream]]\nname = \"a\"\nservers = [\"127.0.0.1:9\"]\ntoken = {{ secret = {secret} }}\n{route}")
    };
    for (what, text) in [
        ("grups", format!("{route}grups = [\"staff\"]\n")),
        ("acess", "[[route]]\nacess = \"public\"\nupstream = \"builtin:whoami\"\n".into()),
        ("sign_in", format!("{route}access = \"sign_in\"\n")),
        ("nowhere", "[[route]]\nupstream = \"nowhere\"\n".into()),
        ("missing", token("{ file = \"missing\" }")),
        ("NOT_SET_ANYWHERE", token("{ env = \"NOT_SET_ANYWHERE\" }")),
        ("NOT_SET_ANYWHERE", "[[route]]\nupstream = \"http://${NOT_SET_ANYWHERE}\"\n".into()),
        ("route", String::new()),
        ("trusted_proxies", format!("trusted_proxies = [\"everybody\"]\n{route}")),
    ] {
        let folder = configured(&text);
        let (code, said) = refused_start(folder.path());
        assert_eq!(code, 64, "{what}: {said}");
        assert!(said.contains("gateway.toml:") && said.contains(what), "{what}: {said}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "{what}: something was made");
    }
    still_serves(&Gateway::start(route));
}

/// The first one wins, and one that never can is a fault.
#[test]
fn b18_of_two_rules_the_first_wins_and_one_that_never_wins_is_a_fault() {
    let both = |first: &str, second: &str| {
        let route = |path: &str, access: &str| {
            format!("[[route]]\npath = \"{path}\"\naccess = \"{access}\"\nupstream = \"builtin:whoami\"\n")
        };
        route(first, "public") + &route(second, "signed_in")
    };
    for (first, second) in [("/**", "/admin/**"), ("/a/*", "/a/b"), ("/a/**", "/a"), ("/a", "/a")] {
        let (code, said) = refused_start(configured(&both(first, second)).path());
        assert!(code == 64 && said.contains("gateway.toml:"), "{first} {second}: {said}");
    }
    let gateway = Gateway::start(&both("/a/b", "/a/**"));
    with_status(&gateway, &[("/a/b", 200), ("/a/c", 401), ("/a", 401)]);
}

/// The app has a `/login` too: the one that is configured as ours is ours.
#[test]
fn b19_a_page_of_ours_at_a_path_of_the_apps_is_ours() {
    let backend = Backend::start(mirror);
    let gateway = Gateway::start(&format!(
        "[pages]\nlogin = \"/login\"\n[[route]]\naccess = \"public\"\nupstream = \"http://{}\"\n",
        backend.address
    ));
    gateway.first_account();
    let page = gateway.client().get("/login", &[("Accept", "text/html")]);
    assert!(page.status == 200 && page.text().contains("<form"), "{page:?}");
    let body = json!({ "email": "ada@example.com", "password": PASSWORD });
    let cookie = gateway.client().post_json("/login", &[], &body).session_cookie();
    assert_eq!(gateway.client().get("/login", &[("Cookie", &cookie), ("Accept", "text/html")]).status, 303);
    assert!(backend.all().is_empty());
    for path in ["/login/x", "/loginx", "/login/"] {
        assert_eq!(gateway.client().get(path, &[]).json()["line"], format!("GET {path} HTTP/1.1"));
    }
    still_serves(&gateway);
}

/// OWASP ASVS 13.4.5 and 13.4.6; oauth2-proxy CVE-2026-34457 opened the door to whatever called itself a
/// health check.
#[test]
fn b20_health_says_ok_and_opens_nothing() {
    let stage = stage();
    let mut stream = std::net::TcpStream::connect(stage.gateway.admin).unwrap();
    write!(stream, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (said, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(said.starts_with("HTTP/1.1 200") && body == "ok\n" && !said.contains("authgate"), "{text}");
    for path in ["/healthz", "/readyz", "/metrics", "/app/ping"] {
        for agent in ["GoogleHC/1.0", "kube-probe/1.30", "ELB-HealthChecker/2.0"] {
            assert_eq!(stage.get(path, &[("User-Agent", agent)]).status, 401, "{path}");
        }
    }
    assert_eq!(stage.get_as_ada("/healthz", &[]).status, 200);
    still_serves(&stage.gateway);
}

/// RFC 9112, 3.2: a Host that reads two ways.
#[test]
fn b21_hosts_that_read_two_ways_are_400() {
    let stage = stage();
    for host in [
        "a, b",
        "a b",
        "a/x",
        "a?x",
        "a#x",
        "a\\x",
        "<script>",
        ":99999",
        "a:x",
        "u@a",
        "",
        "a..b",
        "[::1",
        "a%2eb",
        "a\tb",
        "\u{e9}.test",
    ] {
        let fields = [("Host", host), ("X-Mark", "refused-host")];
        stage.refuses(head("GET /public/x", &fields).as_bytes(), 400);
    }
    assert!(stage.arrived("refused-host").is_empty());
    assert_eq!(stage.get("/public/x", &[("Host", "[::1]:8080")]).status, 200);
}

/// Rack, Symfony, Laravel and Express take a POST with such a field for another method: rules must hold for that one, too.
#[test]
fn b22_a_request_that_names_another_method_must_be_let_in_under_both() {
    let backend = Backend::start(mirror);
    let gateway = Gateway::start(&format!(
        "[[route]]\npath = \"/x\"\nmethods = [\"DELETE\"]\ngroups = [\"admin\"]\nupstream = \"http://{0}\"\n\
         [[route]]\npath = \"/x\"\nmethods = [\"PATCH\"]\naccess = \"deny\"\n\
         [[route]]\npath = \"/x\"\nmethods = [\"PUT\"]\nupstream = \"http://{0}\"\n\
         [[route]]\npath = \"/x\"\nmethods = [\"GET\", \"POST\"]\naccess = \"public\"\nupstream = \"http://{0}\"\n\
         [[route]]\npath = \"/api\"\nupstream = \"http://{0}\"\n",
        backend.address
    ));
    let ada = gateway.first_account();
    gateway.add_user("bob@example.com", &[]);
    let bob = gateway.sign_in("bob@example.com");
    let ask = |line: &str, who: &str, name: &str, method: &str| {
        gateway.client().request(line, &[("Cookie", who), (name, method)], b"").status
    };
    for name in ["X-HTTP-Method-Override", "x-http-method", "X-Method-Override"] {
        for (method, nobody, bobs, adas) in [
            ("DELETE", 401, 403, 200),
            ("delete", 401, 403, 200),
            ("GET, DELETE", 401, 403, 200),
            ("PATCH", 403, 403, 403),
            ("PUT", 401, 200, 200),
            ("LINK", 404, 404, 404),
            ("GET", 200, 200, 200),
            ("POST", 200, 200, 200),
            ("no method", 200, 200, 200),
            (&["GET"; 8].join(","), 200, 200, 200),
            (&["GET"; 9].join(","), 404, 404, 404),
        ] {
            let got = ["a=b", &bob, &ada].map(|who| ask("POST /x", who, name, method));
            assert_eq!(got, [nobody, bobs, adas], "{name}: {method}");
        }
        assert_eq!(ask("GET /x", &bob, name, "DELETE"), 403);
        assert_eq!(ask("POST /api", &bob, name, "DELETE"), 200, "no rule tells them apart");
    }
    let arrived = backend.all();
    let named = |method: &str| arrived.iter().any(|got| got.fields.iter().any(|(_, value)| value == method));
    assert_eq!(["PUT", "PATCH", "LINK"].map(named), [true, false, false]);
    // nor does a token get past its scopes
    let scoped = ["token", "create", "ada@example.com", "--name", "x", "--scope", "POST /api"];
    let token = format!("Bearer {}", gateway.cli(&scoped).trim());
    let ask =
        |field: (&str, &str)| gateway.client().request("POST /api", &[("Authorization", &token), field], b"").status;
    assert_eq!([ask(("X-HTTP-Method-Override", "DELETE")), ask(("X-HTTP-Method-Override", "POST"))], [403, 200]);
    still_serves(&gateway);
}

/// RFC 4918, 10.3 (CWE-863): COPY and MOVE name a second path, which is judged as the first one is.
#[test]
fn b24_a_destination_is_checked_as_the_path_is_under_every_reading() {
    let backend = Backend::start(ok);
    let gateway = Gateway::start(&format!(
        "[[route]]\npath = \"/admin/**\"\ngroups = [\"admin\"]\nupstream = \"http://{0}\"\n\
         [[route]]\npath = \"/drop/**\"\nmethods = [\"PUT\"]\nupstream = \"http://{0}\"\n\
         [[route]]\npath = \"/files/**\"\nupstream = \"http://{0}\"\n",
        backend.address
    ));
    let ada = gateway.first_account();
    gateway.add_user("bob@example.com", &[]);
    let bob = gateway.sign_in("bob@example.com");
    let own = format!("http://{}", gateway.host());
    for (destination, bobs, adas) in [
        ("/files/b", 200, 200),
        (&format!("{own}/files/b?x#y"), 200, 200),
        ("/admin/b", 403, 200),
        (&format!("{own}/admin/b"), 403, 200),
        ("https://other.example.com/admin/b", 403, 200),
        ("//other.example.com/files/b", 404, 404),
        ("/files/../admin/b", 403, 200),
        ("/files/x/..%2f..%2Fadmin/b", 403, 200),
        ("/files/x?/../../admin/b", 403, 200),
        ("/files/x#/../../admin/b", 403, 200),
        ("/%61dmin/b", 404, 404),
        ("/files//b", 200, 200),
        ("/files/.~lock.b.odt%23", 200, 200),
        ("/files/50%25%20%231%3Bv2%3F.txt", 200, 200),
        (&format!("{own}/files/a%2Fb"), 200, 200),
        ("/drop/b", 404, 404),
        ("/nowhere", 404, 404),
        ("http://other.example.com", 404, 404),
        ("", 400, 400),
        ("files/b", 400, 400),
        ("admin/x://a/files/b", 400, 400),
        ("http://a\\admin/files/b", 400, 400),
        ("http:///files/b", 400, 400),
        ("/files/b c", 400, 400),
        ("/files/%zz", 400, 400),
        ("/files/b%00", 400, 400),
        ("/files/%EF%BC%8E%EF%BC%8E/admin", 400, 400),
    ] {
        let ask = |method: &str, who: &str, field| {
            let fields = [("Cookie", who), ("Destination", destination), field];
            gateway.client().request(&format!("{method} /files/a"), &fields, b"").status
        };
        for (method, field) in [("MOVE", "X-Own"), ("COPY", "X-Own"), ("BMOVE", "X-Own"), ("POST", "X-HTTP-Method")] {
            let ask = |who| ask(method, who, (field, "move"));
            assert_eq!([ask(&bob), ask(&ada)], [bobs, adas], "{method} to {destination:?}");
        }
        // an app's own field of that name
        assert_eq!(
            ["GET", "POST", "PUT"].map(|m| ask(m, &bob, ("X-HTTP-Method", "PATCH"))),
            [200; 3],
            "{destination:?}"
        );
    }
    let two = [("Cookie", bob.as_str()), ("Destination", "/files/b"), ("Destination", "/admin/b")];
    assert_eq!(gateway.client().request("MOVE /files/a", &two, b"").status, 400);
    // nor does a token get past its scopes
    let scoped = ["token", "create", "ada@example.com", "--name", "x", "--scope", "MOVE /files/**"];
    let token = format!("Bearer {}", gateway.cli(&scoped).trim());
    let ask = |to: &str| {
        gateway.client().request("MOVE /files/a", &[("Authorization", &token), ("Destination", to)], b"").status
    };
    assert_eq!([ask("/admin/b"), ask("/files/b")], [403, 200]);
    still_serves(&gateway);
}

/// The same: an app behind a prefix that is cut off reads the second path as it came, and may take it for its own.
#[test]
fn b25_a_destination_behind_a_cut_prefix_is_checked_as_the_app_reads_it() {
    let backend = Backend::start(ok);
    let gateway = Gateway::start(&format!(
        "[[route]]\npath = \"/dav/admin/**\"\naccess = \"deny\"\n\
         [[route]]\npath = \"/dav/**\"\nstrip_prefix = \"/dav\"\naccess = \"public\"\nupstream = \"http://{0}\"\n\
         [[route]]\npath = \"/admin/**\"\naccess = \"public\"\nupstream = \"http://{0}\"\n",
        backend.address
    ));
    let ask = |to: &str| gateway.client().request("MOVE /dav/a", &[("Destination", to)], b"").status;
    assert_eq!(
        ["/dav/admin/x", "/admin/x", "http://a/admin/x", "/dav//x/admin/y", "/dav/x/../admin/y"].map(ask),
        [403; 5]
    );
    assert_eq!(["/dav/b", "http://a/dav/b", "/dav/b%2Fc"].map(ask), [200; 3]);
    still_serves(&gateway);
}

/// RFC 9110, 9.2.2: what an app takes for another method is not repeated as a GET is, and crosses origins as that other
/// method does.
#[test]
fn b23_a_get_that_names_another_method_is_sent_once_and_guarded_as_that_method() {
    let backend = Backend::start(|request, stream| {
        // the first of a connection is answered, the next is taken and the connection closed
        request.line.starts_with("GET /first") && ok(request, stream)
    });
    let gateway = Gateway::start(&format!("[[route]]\nupstream = \"http://{}\"\n", backend.address));
    let ada = gateway.first_account();
    for (field, times) in
        [(("X-Own", "POST"), 2), (("X-HTTP-Method-Override", "POST"), 1), (("X-Method-Override", "x"), 1)]
    {
        let mut client = gateway.client();
        assert_eq!(client.get("/first", &[("Cookie", &ada)]).status, 200);
        assert_eq!(client.get("/next", &[("Cookie", &ada), field]).status, 502);
        let seen = backend.all().iter().filter(|request| request.line.starts_with("GET /next")).count();
        assert_eq!(seen, times, "{field:?}");
    }
    let foreign = ("Sec-Fetch-Site", "cross-site");
    for (fields, status) in [
        (&[foreign][..], 200),
        (&[foreign, ("X-HTTP-Method-Override", "POST")], 403),
        (&[("Sec-Fetch-Site", "same-origin"), ("X-HTTP-Method-Override", "POST")], 200),
        (&[foreign, ("X-HTTP-Method-Override", "HEAD")], 200),
    ] {
        let answer = gateway.client().get("/first", &[&[("Cookie", ada.as_str())], fields].concat());
        assert_eq!(answer.status, status, "{fields:?}");
    }
    still_serves(&gateway);
}
