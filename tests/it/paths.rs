//! Paths that a backend may read in more than one way: judged under every reading, forwarded as
//! they came.

use std::io::Write;

use serde_json::{Value, json};

use crate::backend::{Backend, Received, ok};
use crate::gateway::{Gateway, configured};
use crate::h2;
use crate::known_attacks::{head, mirror, still_serves};
use crate::tls::Secure;
use crate::websockets::{close_code, open};

/// A gateway before two backends, and the sessions of Bob and of Ada, who is in the group admin.
struct Stage {
    gateway: Gateway,
    app: Backend,
    other: Backend,
    bob: String,
    ada: String,
}

impl Stage {
    fn start() -> Self {
        let (app, other) = (Backend::start(ok), Backend::start(ok));
        let gateway = Gateway::start(&format!(
            r#"
[[upstream]]
name = "app"
servers = ["{}"]
[[route]]
path = "/public/**"
access = "public"
upstream = "app"
[[route]]
path = "/admin/**"
groups = ["admin"]
upstream = "app"
[[route]]
path = "/closed/**"
access = "deny"
[[route]]
path = "/other/**"
access = "public"
upstream = "http://{}"
[[route]]
path = "/dav/private/**"
access = "deny"
[[route]]
path = "/dav/dav/**"
access = "deny"
[[route]]
path = "/dav/**"
access = "public"
strip_prefix = "/dav"
upstream = "app"
[[route]]
path = "/only/**"
methods = ["DELETE"]
access = "deny"
[[route]]
path = "/only/**"
access = "public"
upstream = "app"
[[route]]
path = "/plain/**"
access = "public"
paths = "plain"
upstream = "app"
[[route]]
path = "/app/**"
upstream = "app"
"#,
            app.address, other.address
        ));
        let ada = gateway.first_account();
        gateway.add_user("bob@example.com", &[]);
        let bob = gateway.sign_in("bob@example.com");
        Self { gateway, app, other, bob, ada }
    }

    /// The statuses that a stranger, Bob and Ada get.
    fn ask(&self, line: &str, fields: &[(&str, &str)]) -> [u16; 3] {
        ["a=b", &self.bob, &self.ada].map(|who| {
            let fields = [&[("Cookie", who)], fields].concat();
            self.gateway.client().request(line, &fields, b"").status
        })
    }
}

const ALL: [u16; 3] = [200; 3];
const SIGNED_IN: [u16; 3] = [401, 200, 200];
const ADMINS: [u16; 3] = [401, 403, 200];
const DENIED: [u16; 3] = [403; 3];
const NO_ROUTE: [u16; 3] = [404; 3];
const BAD: [u16; 3] = [400; 3];

/// Path, what a stranger, Bob and Ada get, and what arrives where they are let through.
const TABLE: &[(&str, [u16; 3], &str)] = &[
    // what apps send: npm, RabbitMQ, LibreOffice, JupyterLab, MLflow, CalDAV, S3, Jenkins, TiddlyWiki, .NET, browsers of old
    ("/app/@scope%2fthing", SIGNED_IN, "/app/@scope%2fthing"),
    ("/app/-/package/@scope%2fthing/dist-tags", SIGNED_IN, "/app/-/package/@scope%2fthing/dist-tags"),
    ("/app/api/queues/%2F/q1", SIGNED_IN, "/app/api/queues/%2F/q1"),
    ("/app/.~lock.x.odt%23", SIGNED_IN, "/app/.~lock.x.odt%23"),
    ("/app/50%25%20%231%3Bv2%3F.txt", SIGNED_IN, "/app/50%25%20%231%3Bv2%3F.txt"),
    ("/app/what%3F.txt", SIGNED_IN, "/app/what%3F.txt"),
    ("/app/a;v=1/b;c", SIGNED_IN, "/app/a;v=1/b;c"),
    ("/app/ev%252F1.ics", SIGNED_IN, "/app/ev%252F1.ics"),
    ("/app/100%2525", SIGNED_IN, "/app/100%2525"),
    ("/app/a/%2E%2E/b/.%2e/c", SIGNED_IN, "/app/a/%2E%2E/b/.%2e/c"),
    ("/app/key//with/./dots", SIGNED_IN, "/app/key//with/./dots"),
    ("/app/a%5Cb\\c", SIGNED_IN, "/app/a%5Cb\\c"),
    ("/app/job/feature%252Fx/", SIGNED_IN, "/app/job/feature%252Fx/"),
    ("/app/%24%3A%2FStoryList", SIGNED_IN, "/app/%24%3A%2FStoryList"),
    ("/public/%7Eada/caf%c3%a9", ALL, "/public/%7Eada/caf%c3%a9"),
    ("/public/caf\u{e9}", ALL, "/public/caf\u{e9}"),
    ("/public/a/../b?x=../../admin", ALL, "/public/a/../b?x=../../admin"),
    ("/admin/a%2Fb", ADMINS, "/admin/a%2Fb"),
    ("/dav/a%2Fb;c", ALL, "/a%2Fb;c"),
    ("/dav//x", ALL, "//x"),
    ("/dav/a/../b", ALL, "/a/../b"),
    // one reading leads to what fewer people may see
    ("/public/../app/x", SIGNED_IN, "/public/../app/x"),
    ("/public/..;/app/x", SIGNED_IN, "/public/..;/app/x"),
    ("/public/..%2Fadmin/x", ADMINS, "/public/..%2Fadmin/x"),
    ("/public/..%5cadmin/x", ADMINS, "/public/..%5cadmin/x"),
    ("/public/%252e%252e/admin/x", ADMINS, "/public/%252e%252e/admin/x"),
    ("/app/../admin/x", ADMINS, "/app/../admin/x"),
    ("/public/x/..\\..\\admin\\x", ADMINS, "/public/x/..\\..\\admin\\x"),
    ("/public/..%2Fclosed/x", DENIED, ""),
    ("/app/..%2Fclosed/x", DENIED, ""),
    // one reading leads nowhere
    ("/public/..", NO_ROUTE, ""),
    ("/public%2Fx", NO_ROUTE, ""),
    ("/%70ublic/x", NO_ROUTE, ""),
    ("//public/x", NO_ROUTE, ""),
    ("/public;x/y", NO_ROUTE, ""),
    ("/admin/..%2Fnothing", NO_ROUTE, ""),
    // or to another server, or a prefix that would not be cut, or to a page of the gateway's own
    ("/public/../other/x", BAD, ""),
    ("/app/..%2Fother/x", [401, 400, 400], ""),
    ("/public/../dav/x", BAD, ""),
    ("/dav/../public/x", BAD, ""),
    ("/public/../.auth/login", BAD, ""),
    ("/.auth/..%2Fapp/x", BAD, ""),
    ("/.auth/login;x", BAD, ""),
    ("/%2eauth/login", BAD, ""),
    ("//.auth/login", BAD, ""),
    // behind a prefix the app reads the rest
    ("/dav//evil.test/private/x", DENIED, ""),
    ("/dav/x/../../dav/y", DENIED, ""),
    ("/dav/%2e%2e/dav/private/x", DENIED, ""),
    // where a route wants one reading, wherever it stands among them
    ("/plain/x", ALL, "/plain/x"),
    ("/plain/a%2Fb", BAD, ""),
    ("/plain/caf\u{e9}", BAD, ""),
    ("/public/../plain/x", BAD, ""),
    // what is no path
    ("/public/%00", BAD, ""),
    ("/public/%", BAD, ""),
    ("/public/%0d%0a", BAD, ""),
    ("/public/a b", BAD, ""),
    ("/public/a\u{1}b", BAD, ""),
    ("/public/a\u{7f}b", BAD, ""),
    ("/public/a#b", BAD, ""),
    ("/public/%7", BAD, ""),
    ("/public/%zz", BAD, ""),
    ("/public/%0A", BAD, ""),
    ("/public/%2500", BAD, ""),
    ("/public/%FF", BAD, ""),
    ("/public/%E2%28%A1", BAD, ""),
    ("/public/%C0%AE", BAD, ""),
    ("/public/%EF%BC%8F", BAD, ""),
    ("/public/\u{ff0e}", BAD, ""),
    ("/public/\u{ff3c}", BAD, ""),
    ("/public/%EF%BC%8E%EF%BC%8E/admin/x", BAD, ""),
    ("/public/%25EF%25BC%258F", BAD, ""),
    ("/public/%25C0%25AE", BAD, ""),
    ("/public/a;b/c%2Fd/%3Fe/f%23g\\h/%253Bi/..//j;k", BAD, ""),
];

#[test]
fn a_path_passes_if_every_reading_passes_and_arrives_as_it_came() {
    let stage = Stage::start();
    for (path, statuses, forwarded) in TABLE {
        assert_eq!(stage.ask(&format!("GET {path}"), &[]), *statuses, "{path}");
        let arrived: Vec<Received> = stage.app.all();
        assert_eq!(arrived.len(), statuses.iter().filter(|status| **status == 200).count(), "{path}");
        for request in arrived {
            assert_eq!(request.line, format!("GET {forwarded} HTTP/1.1"));
        }
    }
    assert!(stage.other.all().is_empty());
    assert_eq!(stage.ask("GET /other/x", &[]), ALL);
    still_serves(&stage.gateway);
}

#[test]
fn second_methods_second_paths_and_scopes_are_checked_under_every_reading() {
    let stage = Stage::start();
    let as_delete = [("X-HTTP-Method-Override", "DELETE")];
    assert_eq!(stage.ask("POST /public/a%2Fb", &as_delete), ALL);
    assert_eq!(stage.ask("POST /public/..%2Fadmin/b", &as_delete), ADMINS);
    // nor does one pass in what an app takes for the query
    for (path, statuses) in [
        ("/only/x%3Fa=b", ALL),
        ("/only/x%3F_method=DELETE", DENIED),
        ("/only/x%3Fa=b&_method=DELETE%23c", DENIED),
        ("/only/x%253F_method%253Ddelete", DENIED),
    ] {
        assert_eq!(stage.ask(&format!("POST {path}"), &[]), statuses, "{path}");
    }
    for (to, statuses) in [
        ("/public/a%2Fb%23", ALL),
        ("/public/..%2Fadmin/b", ADMINS),
        ("/public/x/..;/..;/admin/b", ADMINS),
        ("http://any.example.com/public/%2e%2e/closed/b", DENIED),
        ("/public/../nothing", NO_ROUTE),
        ("/plain/a%2Fb", BAD),
        ("/plain/b", ALL),
        ("/public/%zz", BAD),
    ] {
        assert_eq!(stage.ask("MOVE /public/a;b", &[("Destination", to)]), statuses, "{to}");
    }
    // a scope holds for each of them
    let scoped = ["token", "create", "ada@example.com", "--name", "x", "--scope", "GET /app/files/**"];
    let bearer = format!("Bearer {}", stage.gateway.cli(&scoped).trim());
    let ask = |path: &str| stage.gateway.client().get(path, &[("Authorization", &bearer)]).status;
    assert_eq!(["/app/files/a%2Fb", "/app/files/a//b;c", "/app/files/50%25%231"].map(ask), [200; 3]);
    assert_eq!(["/app/files/../other", "/app/files/..%2Fx", "/app/files/..;/x", "/app/%66iles/a"].map(ask), [403; 4]);
    still_serves(&stage.gateway);
}

/// `[server] paths = "plain"`: what has more than one reading is 400, unless a route says otherwise.
#[test]
fn with_plain_paths_only_normal_forms_pass() {
    let backend = Backend::start(mirror);
    let routes = format!(
        "paths = \"plain\"\n[[route]]\npath = \"/s3/**\"\npaths = \"all_readings\"\naccess = \"public\"\nupstream = \"http://{0}\"\n\
         [[route]]\naccess = \"public\"\nupstream = \"http://{0}\"\n",
        backend.address
    );
    let gateway = Gateway::start(&routes);
    for path in
        ["/a%2Fb", "/a;b", "//a", "/./a", "/a/..", "/%7Ea", "/%252f", "/caf%c3%a9", "/caf\u{e9}", "/s3/..%2Fx", "/a\\b"]
    {
        let mut client = gateway.client();
        assert_eq!(client.get(path, &[]).status, 400, "{path}");
        assert!(client.is_closed(), "{path}");
    }
    for path in ["/caf%C3%A9", "/@x/a%20b", "/s3/a%2Fb", "/s3/a//b;c"] {
        assert_eq!(gateway.client().get(path, &[]).json()["line"], format!("GET {path} HTTP/1.1"));
    }
    let text = gateway.cli(&["explain", "GET", "/a%2Fb"]);
    assert!(text.contains("the route has `paths = \"plain\"`"), "{text}");
    still_serves(&gateway);
}

/// What a live connection asked for is judged again under every reading.
#[test]
fn a_socket_ends_when_one_reading_of_its_path_may_not_be_used_any_more() {
    let mut gateway = Gateway::start(
        "[[route]]\npath = \"/staff/**\"\ngroups = [\"staff\"]\nupstream = \"builtin:whoami\"\n\
         [[route]]\nupstream = \"builtin:whoami\"\n",
    );
    let _ = gateway.first_account();
    gateway.add_user("bob@example.com", &["staff"]);
    let bob = gateway.sign_in("bob@example.com");
    let (mut both, mut one) = (open(&gateway, "/x/..%2Fstaff/y", &bob), open(&gateway, "/x;y", &bob));
    gateway.cli(&["user", "set", "bob@example.com", "--group", "ops"]);
    assert_eq!(close_code(&mut both), 4403);
    gateway.cli(&["user", "set", "bob@example.com", "--group", "staff"]);
    let mut both = open(&gateway, "/x/..%2Fstaff/y", &bob);
    gateway.reload("[[route]]\npath = \"/staff/**\"\naccess = \"deny\"\n[[route]]\nupstream = \"builtin:whoami\"\n");
    assert_eq!(close_code(&mut both), 4403);
    assert!(one.read().unwrap().is_text());
    crate::websockets::echo(&mut one, "still open");
}

/// A page of another origin reads only what all routes share with it.
#[test]
fn an_answer_is_shared_with_an_origin_only_if_every_reading_is() {
    let backend = Backend::start(ok);
    let gateway = Gateway::start(&format!(
        "[[route]]\npath = \"/shared/**\"\ncors = {{ origins = [\"https://pages.example.com\"] }}\nupstream = \"http://{0}\"\n\
         [[route]]\nupstream = \"http://{0}\"\n",
        backend.address
    ));
    let ada = gateway.first_account();
    let origin = ("Origin", "https://pages.example.com");
    let allowed = |path: &str| {
        let answer = gateway.client().get(path, &[("Cookie", &ada), origin]);
        assert_eq!(answer.status, 200, "{path}");
        answer.field("access-control-allow-origin").map(str::to_owned)
    };
    let shared = Some("https://pages.example.com".to_owned());
    assert_eq!([allowed("/shared/x"), allowed("/shared/a%2Fb")], [shared.clone(), shared]);
    assert_eq!([allowed("/shared/..%2Fx"), allowed("/x/..%2Fshared/x")], [None, None]);
    let preflight = [origin, ("Access-Control-Request-Method", "PUT")];
    let asked = |path: &str| gateway.client().request(&format!("OPTIONS {path}"), &preflight, b"").status;
    assert_eq!(["/shared/x", "/shared/a%2Fb", "/shared/..%2Fx"].map(asked), [204, 204, 401]);
    assert!(cors_is_untouched(&backend));
}

/// No preflight reached it.
fn cors_is_untouched(backend: &Backend) -> bool {
    backend.all().iter().all(|request| !request.line.starts_with("OPTIONS"))
}

/// An answer that one reading makes an account's is that account's.
#[test]
fn an_answer_belongs_to_an_account_if_one_reading_says_so() {
    let backend = Backend::start(ok);
    let gateway = Gateway::start(&format!(
        "[[route]]\npath = \"/open/**\"\ncache = \"app\"\nupstream = \"http://{0}\"\n[[route]]\nupstream = \"http://{0}\"\n",
        backend.address
    ));
    let ada = gateway.first_account();
    let cache = |path: &str| {
        let answer = gateway.client().get(path, &[("Cookie", &ada)]);
        assert_eq!(answer.status, 200, "{path}");
        answer.field("cache-control").map(str::to_owned)
    };
    assert_eq!(["/open/a%2Fb", "/open/x"].map(cache), [None, None]);
    assert_eq!(["/open/..%2Fx", "/x/..%2Fopen/x"].map(cache), [Some("private".to_owned()), Some("private".to_owned())]);
}

#[test]
fn the_smallest_body_that_a_reading_allows_is_the_limit() {
    let backend = Backend::start(ok);
    let gateway = Gateway::start(&format!(
        "[[route]]\npath = \"/small/**\"\nbody_max = \"10B\"\naccess = \"public\"\nupstream = \"http://{0}\"\n\
         [[route]]\naccess = \"public\"\nupstream = \"http://{0}\"\n",
        backend.address
    ));
    let send = |path: &str, chunked: bool| {
        let mut client = gateway.client();
        let length = if chunked { ("Transfer-Encoding", "chunked") } else { ("Content-Length", "20") };
        client.send(head(&format!("POST {path}"), &[("Host", "a"), length]).as_bytes());
        client.send(if chunked { b"14\r\n01234567890123456789\r\n0\r\n\r\n" } else { b"01234567890123456789" });
        client.answer().status
    };
    for chunked in [false, true] {
        assert_eq!(["/x/a%2Fb", "/x/..%2Fsmall/y", "/small/..%2Fy"].map(|path| send(path, chunked)), [200, 413, 413]);
    }
}

/// RFC 9113 knows no other letters in a path than HTTP/1.1 does.
#[test]
fn odd_paths_pass_over_http2_as_they_came() {
    let (address, seen) = h2::echo(None);
    let secure = Secure::start(&format!(
        "[[route]]\npath = \"/h2/**\"\naccess = \"public\"\nupstream = \"h2c://{address}\"\n\
         [[route]]\npath = \"/public/**\"\naccess = \"public\"\nupstream = \"builtin:whoami\"\n\
         [[route]]\nupstream = \"builtin:whoami\"\n"
    ));
    h2::run(async {
        let client = secure.h2().await;
        for path in ["/public/a%2Fb;c//d", "/public/caf\u{e9}", "/public/a/../b"] {
            let answer = h2::ask(&client, h2::request(&format!("GET {path}"), &[]), b"").await.unwrap();
            let (status, text, _) = h2::read(answer).await.unwrap();
            let seen: Value = serde_json::from_str(&text).unwrap();
            assert_eq!((status, &seen["path"]), (200, &json!(path)), "{text}");
        }
        for (path, status) in [("/public/..%2Fx", 401), ("/public/%00", 400), ("/public/\u{ff0f}x", 400)] {
            let answer = h2::ask(&client, h2::request(&format!("GET {path}"), &[]), b"").await.unwrap();
            assert_eq!(answer.status().as_u16(), status, "{path}");
        }
        for path in ["/h2/a%2Fb;c//d", "/h2/caf\u{e9}?x=\u{e9}"] {
            let answer = h2::ask(&client, h2::request(&format!("GET {path}"), &[]), b"").await.unwrap();
            assert_eq!(answer.status().as_u16(), 200, "{path}");
            assert_eq!(seen.recv().unwrap().uri().path_and_query().unwrap().as_str(), path);
        }
    });
}

/// Where people land after signing in is what they asked for, in letters that a header can hold.
#[test]
fn a_login_leads_back_to_an_odd_path() {
    let gateway = Gateway::whoami();
    let page = [("Sec-Fetch-Mode", "navigate"), ("Accept", "text/html")];
    for (path, back) in [
        ("/a%2Fb%23;c?x=%2F", "callbackUrl=/a%252Fb%2523%3Bc?x=%252F"),
        ("/caf\u{e9}?x=\u{e9}", "callbackUrl=/caf%25C3%25A9?x=%25C3%25A9"),
    ] {
        let answer = gateway.client().get(path, &page);
        let location = answer.field("location").unwrap();
        assert!(answer.status == 303 && location.ends_with(back), "{location}");
    }
}

#[test]
fn explain_shows_what_each_reading_comes_to() {
    let folder = configured(
        "[[route]]\npath = \"/public/**\"\naccess = \"public\"\nupstream = \"builtin:whoami\"\n\
         [[route]]\npath = \"/admin/**\"\naccess = \"deny\"\n[[route]]\nupstream = \"builtin:whoami\"\n",
    );
    let explain = |path: &str| {
        let output = crate::gateway::command(folder.path(), &["explain", "GET", path, "--json"]).output().unwrap();
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let told = explain("/public/..%2Fadmin/x");
    assert_eq!(
        (&told["verdict"], &told["readings"]),
        (
            &json!("403"),
            &json!([
                { "path": "/public/..%2Fadmin/x", "route": 1, "verdict": "forward builtin:whoami" },
                { "path": "/public/../admin/x", "route": 1, "verdict": "forward builtin:whoami" },
                { "path": "/admin/x", "route": 2, "verdict": "403" },
            ])
        )
    );
    assert!(explain("/public/x").get("readings").is_none());
    let output = crate::gateway::command(folder.path(), &["explain", "GET", "/public/caf\u{e9};x"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("possible readings of the path by a backend\n  /public/caf\u{e9};x (route 1)"), "{text}");
    // and its tests are judged alike
    let mut file = std::fs::OpenOptions::new().append(true).open(folder.path().join("gateway.toml")).unwrap();
    write!(file, "[[test]]\nrequest = \"GET /public/..%2Fadmin/x\"\nexpect = \"403\"\n").unwrap();
    let output = crate::gateway::command(folder.path(), &["check"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}
