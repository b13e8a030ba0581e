//! The path that rules match is byte for byte the path that is forwarded (security cases B).

use crate::backend::{Backend, ok};
use crate::gateway::Gateway;

#[test]
fn a_path_that_reads_two_ways_is_400_for_everybody_and_never_forwarded() {
    let backend = Backend::start(ok);
    let gateway = Gateway::start(&format!(
        "[[route]]\npath = \"/public/**\"\naccess = \"public\"\nupstream = \"http://{0}\"\n[[route]]\nupstream = \"http://{0}\"\n",
        backend.address
    ));
    let cookie = gateway.first_account();
    for path in [
        "/public/../app",
        "/public/..",
        "/public/./x",
        "/.",
        "/..",
        "//app",
        "/public//app",
        "///",
        "/public/%2e%2e/app",
        "/public/%2E%2e/app",
        "/public/.%2e/app",
        "/public%2f..%2fapp",
        "/public%2Fapp",
        "/public/..%2fapp",
        "/public\\..\\app",
        "/public%5c..%5capp",
        "/public/..;/app",
        "/public;x/app",
        "/public/%3bx",
        "/%61pp",
        "/%41pp",
        "/app%00",
        "/app%0d%0aX:1",
        "/app%7f",
        "/app%zz",
        "/app%",
        "/app%2",
        "/app%u0041",
        "/app%252e",
        "/app%252fx",
        "/app%23x",
        "/app%3fx",
        "/app#x",
        "/app%20x/../y",
        "app",
        "\\app",
        "*",
        "foo:/app",
        "ftp://a/app",
        "http:///app",
        "?x",
    ] {
        for cookie in ["", cookie.as_str()] {
            let fields: &[_] = if cookie.is_empty() { &[] } else { &[("Cookie", cookie)] };
            let mut client = gateway.client();
            let answer = client.request(&format!("GET {path}"), fields, b"");
            assert_eq!(answer.status, 400, "{path}");
            assert!(client.is_closed(), "{path}");
        }
    }
    assert!(backend.all().is_empty());
    for path in [
        "/public",
        "/public/",
        "/public/a.b",
        "/public/caf%C3%A9?a=%2F&b=x+y&c=../..",
        "/public/%20x",
        "/public/100%25",
        "/public/@scope/x:y,z=(1)!$&'*+~",
        "/public/%5Bslug%5D",
        "/public/[x]",
        "/public/...",
        "/public/.x",
        "/public/?",
        "/public/?a=//../;%00#".trim_end_matches('#'),
    ] {
        assert_eq!(gateway.client().get(path, &[]).status, 200, "{path}");
        assert_eq!(backend.next().line, format!("GET {path} HTTP/1.1"));
    }
}

#[test]
fn rules_end_at_segment_borders_and_never_look_at_the_query() {
    let gateway = Gateway::start(
        "[[route]]\npath = \"/public/**\"\naccess = \"public\"\nupstream = \"builtin:whoami\"\n[[route]]\npath = \"/*.css\"\naccess = \"public\"\nupstream = \"builtin:whoami\"\n[[route]]\nupstream = \"builtin:whoami\"\n",
    );
    for (path, status) in [
        ("/public", 200),
        ("/public/x", 200),
        ("/x.css", 200),
        ("/publicity", 401),
        ("/public-admin", 401),
        ("/public.json", 401),
        ("/PUBLIC/x", 401),
        ("/app?x=/public/", 401),
        ("/app?x=a.css", 401),
        ("/app/x.css", 401),
        ("/x.css/app", 401),
    ] {
        assert_eq!(gateway.client().get(path, &[]).status, status, "{path}");
    }
}

#[test]
fn methods_hosts_and_order_choose_the_route() {
    let gateway = Gateway::start(
        r#"
[[route]]
host = "app.example.com"
methods = ["GET"]
access = "public"
upstream = "builtin:whoami"
[[route]]
host = "*.example.com"
access = "deny"
[[route]]
host = "other.test"
path = "/x/**"
access = "public"
upstream = "builtin:whoami"
"#,
    );
    for (line, host, status) in [
        ("GET /", "app.example.com", 200),
        ("HEAD /", "APP.Example.COM.:8080", 200),
        ("POST /", "app.example.com", 403),
        ("get /", "app.example.com", 403),
        ("GET /", "b.example.com", 403),
        ("GET /", "a.b.example.com", 403),
        ("GET /", "example.com", 404),
        ("GET /x", "other.test", 200),
        ("GET /y", "other.test", 404),
        ("GET /", "evil.test", 404),
        ("GET /.auth/login", "app.example.com", 200),
        ("GET /.auth/login", "evil.test", 404),
    ] {
        assert_eq!(gateway.client().request(line, &[("Host", host)], b"").status, status, "{line} {host}");
    }
}

#[test]
fn hosts_that_read_two_ways_are_400() {
    let gateway = Gateway::start("[[route]]\naccess = \"public\"\nupstream = \"builtin:whoami\"\n");
    for host in ["a, b", "a b", "a/x", "a?x", "a#x", "a\\x", "<script>", ":99999", "a:x", "a:", "u@a", "", "a..b"] {
        let mut client = gateway.client();
        assert_eq!(client.get("/", &[("Host", host)]).status, 400, "{host}");
        assert!(client.is_closed(), "{host}");
    }
    assert_eq!(gateway.client().get("/", &[("Host", "[::1]:8080")]).status, 200);
}

#[test]
fn a_prefix_is_cut_at_a_segment_border_and_told() {
    let backend = Backend::start(ok);
    let gateway = Gateway::start(&format!(
        "[[route]]\npath = \"/api/**\"\nstrip_prefix = \"/api\"\naccess = \"public\"\nupstream = \"http://{}\"\n",
        backend.address
    ));
    for (path, forwarded) in
        [("/api/x?y", "/x?y"), ("/api", "/"), ("/api/", "/"), ("/api?x", "/?x"), ("/api/api", "/api")]
    {
        assert_eq!(gateway.client().get(path, &[]).status, 200);
        let received = backend.next();
        assert_eq!(
            (received.line.as_str(), received.field("x-forwarded-prefix")),
            (format!("GET {forwarded} HTTP/1.1").as_str(), Some("/api"))
        );
    }
    for path in ["/api../x", "/api./x", "/apix"] {
        assert_eq!(gateway.client().get(path, &[]).status, 404, "{path}");
    }
    assert_eq!(gateway.client().get("/%40pi/x", &[]).status, 404);
}
