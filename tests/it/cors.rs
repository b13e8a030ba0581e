//! Cross-origin resource sharing (WHATWG Fetch, 3.2).

use crate::backend::{Backend, ok};
use crate::client::Answer;
use crate::gateway::Gateway;

const APP: &str = "https://app.example.com";

fn shared(answer: &Answer) -> (Option<&str>, Option<&str>) {
    (answer.field("access-control-allow-origin"), answer.field("access-control-allow-credentials"))
}

fn preflight(gateway: &Gateway, path: &str, origin: &str, method: &str) -> Answer {
    let fields = [
        ("Origin", origin),
        ("Access-Control-Request-Method", method),
        ("Access-Control-Request-Headers", "content-type,x-own"),
    ];
    gateway.client().request(&format!("OPTIONS {path}"), &fields, b"")
}

/// A backend that has CORS of its own, as the guide's Express app does.
fn own_cors() -> Backend {
    Backend::start(|_, stream| {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nAccess-Control-Allow-Origin: *\r\nAccess-Control-Allow-Methods: GET\r\nAccess-Control-Expose-Headers: App\r\nVary: Accept\r\n\r\nok")
            .is_ok()
    })
}

#[test]
fn preflights_of_configured_origins_need_no_session_and_reach_no_backend() {
    let backend = Backend::start(ok);
    let gateway = Gateway::start(&format!(
        "[cors]\norigins = [\"{APP}\"]\n[[route]]\npath = \"/get/**\"\nmethods = [\"GET\"]\nupstream = \"http://{0}\"\n[[route]]\nupstream = \"http://{0}\"\n",
        backend.address
    ));
    for path in ["/x", "/get/x", "/.auth/me", "/.auth/login"] {
        let answer = preflight(&gateway, path, APP, "GET");
        assert_eq!((answer.status, shared(&answer)), (204, (Some(APP), Some("true"))), "{path}");
        assert_eq!(answer.field("access-control-allow-methods"), Some("GET"));
        assert_eq!(answer.field("access-control-allow-headers"), Some("content-type,x-own"));
        assert!(answer.all("vary").join(", ").contains("Origin"));
    }
    for origin in ["https://evil.test", "null", "https://app.example.com.evil.test", "http://app.example.com", ""] {
        let answer = preflight(&gateway, "/x", origin, "GET");
        assert_eq!((answer.status, shared(&answer)), (401, (None, None)), "{origin}");
    }
    // OPTIONS without what makes it a preflight is a request like any other
    assert_eq!(gateway.client().request("OPTIONS /x", &[("Origin", APP)], b"").status, 401);
    assert!(backend.all().is_empty());
    // the log tells the one from the other
    let log = gateway.into_log();
    let told = |why: &str| log.matches(&format!("\"why\":\"{why}\"")).count();
    assert_eq!((told("preflight not allowed"), told("signed out")), (5, 1), "{log}");
}

#[test]
fn answers_carry_one_origin_and_the_backends_own_fields_go() {
    let backend = own_cors();
    let gateway = Gateway::start(&format!(
        "[cors]\norigins = [\"{APP}\"]\n[[route]]\naccess = \"public\"\npath = \"/public/**\"\nupstream = \"http://{0}\"\n[[route]]\nupstream = \"http://{0}\"\n",
        backend.address
    ));
    let session = gateway.first_account();
    for (path, cookie) in [("/public/x", ""), ("/x", session.as_str())] {
        let ask = |origin: &str| gateway.client().get(path, &[("Origin", origin), ("Cookie", cookie)]);
        let answer = ask(APP);
        assert_eq!((answer.status, shared(&answer)), (200, (Some(APP), Some("true"))), "{path}");
        assert_eq!(answer.field("access-control-expose-headers"), Some("App"));
        assert_eq!(answer.field("access-control-allow-methods"), None);
        // an answer for an account varies by its cookie too, in one line
        let varies = if cookie.is_empty() { vec!["Accept", "Origin"] } else { vec!["Accept, Origin, Cookie"] };
        assert_eq!(answer.all("vary"), varies);
        assert_eq!(shared(&ask("https://evil.test")), (None, None), "{path}");
        assert_eq!(ask("https://evil.test").all("vary"), varies);
    }
    // without any configured origin nobody may read, whatever the backend says
    let closed =
        Gateway::start(&format!("[[route]]\naccess = \"public\"\nupstream = \"http://{}\"\n", backend.address));
    assert_eq!(shared(&closed.client().get("/x", &[("Origin", APP)])), (None, None));
}

#[test]
fn the_gateways_own_refusals_can_be_read_by_configured_origins() {
    let backend = Backend::start(ok);
    let gateway = Gateway::start(&format!(
        "[throttle]\nmax_retries = 1\n[cors]\norigins = [\"{APP}\"]\n[[route]]\npath = \"/staff\"\ngroups = [\"staff\"]\nupstream = \"http://{0}\"\n[[route]]\nupstream = \"http://{0}\"\n",
        backend.address
    ));
    let session = gateway.first_account();
    let ask = |path: &str, cookie: &str| gateway.client().get(path, &[("Origin", APP), ("Cookie", cookie)]);
    let wrong = serde_json::json!({ "email": "eve@example.com", "password": "wrong" });
    let try_once = || gateway.client().post_json("/.auth/login", &[("Origin", APP)], &wrong);
    assert_eq!(try_once().status, 401);
    let throttled = try_once();
    for (answer, status) in [
        (ask("/x", ""), 401),
        (ask("/staff", &session), 403),
        (throttled, 429),
        (ask("/.auth/me", &session), 200),
        (ask("/.auth/me", ""), 401),
    ] {
        assert_eq!((answer.status, shared(&answer)), (status, (Some(APP), Some("true"))));
        assert!(answer.field("access-control-expose-headers").unwrap().contains("WWW-Authenticate"));
    }
    for path in ["/x", "/.auth/me"] {
        let answer = gateway.client().get(path, &[("Origin", "https://evil.test")]);
        assert_eq!((answer.status, shared(&answer)), (401, (None, None)));
    }
}

#[test]
fn configured_origins_may_use_unsafe_methods_and_others_may_not() {
    let backend = Backend::start(ok);
    let gateway = Gateway::start(&format!(
        "[cors]\norigins = [\"{APP}\"]\n[[route]]\npath = \"/own/**\"\ncors = {{ origins = [\"https://other.example.com\"] }}\nupstream = \"http://{0}\"\n[[route]]\nupstream = \"http://{0}\"\n",
        backend.address
    ));
    let session = gateway.first_account();
    for (path, origin, status) in [
        ("/x", APP, 200),
        ("/x", "https://other.example.com", 403),
        ("/own/x", "https://other.example.com", 200),
        ("/own/x", APP, 403),
        ("/x", "https://evil.test", 403),
    ] {
        for site in [None, Some(("Sec-Fetch-Site", "cross-site"))] {
            let mut fields = vec![("Cookie", session.as_str()), ("Origin", origin)];
            fields.extend(site);
            let answer = gateway.client().request(&format!("POST {path}"), &fields, b"x");
            assert_eq!(answer.status, status, "{path} {origin}");
        }
    }
    let logout = |origin: &str| {
        gateway.client().request("POST /.auth/logout", &[("Cookie", session.as_str()), ("Origin", origin)], b"").status
    };
    assert_eq!((logout("https://evil.test"), logout(APP)), (403, 303));
}

#[test]
fn an_app_may_keep_its_own_cors() {
    let backend = own_cors();
    let gateway = Gateway::start(&format!(
        "[cors]\norigins = [\"{APP}\"]\n[[route]]\npath = \"/closed/**\"\naccess = \"deny\"\ncors = \"app\"\n[[route]]\ncors = \"app\"\nupstream = \"http://{}\"\n",
        backend.address
    ));
    let session = gateway.first_account();
    let answer = gateway.client().get("/x", &[("Origin", APP), ("Cookie", &session)]);
    assert_eq!((shared(&answer), answer.all("vary")), ((Some("*"), None), vec!["Accept, Cookie"]));
    backend.next();
    let answer = preflight(&gateway, "/x", "https://anybody.test", "POST");
    assert_eq!((answer.status, shared(&answer)), (200, (Some("*"), None)));
    let forwarded = backend.next();
    assert_eq!((forwarded.line.as_str(), forwarded.field("remote-user")), ("OPTIONS /x HTTP/1.1", None));
    // nothing but a preflight gets through, and not where everything is closed
    assert_eq!(gateway.client().request("OPTIONS /x", &[("Origin", APP)], b"").status, 401);
    assert_eq!(gateway.client().get("/x", &[("Origin", APP), ("Access-Control-Request-Method", "GET")]).status, 401);
    assert_eq!(preflight(&gateway, "/closed/x", APP, "GET").status, 403);
    assert!(backend.all().is_empty());
}

/// A preflight is answered for the route that would take the request itself.
#[test]
fn one_route_does_not_answer_preflights_for_another() {
    let gateway = Gateway::start(&format!(
        "[[route]]\npath = \"/x\"\nmethods = [\"POST\"]\naccess = \"public\"\nupstream = \"builtin:whoami\"\n[[route]]\ncors = {{ origins = [\"{APP}\"] }}\nupstream = \"builtin:whoami\"\n"
    ));
    assert_eq!(preflight(&gateway, "/x", APP, "POST").status, 401);
    assert_eq!(preflight(&gateway, "/x", APP, "GET").status, 204);
    assert_eq!(preflight(&gateway, "/y", APP, "POST").status, 204);
}
