//! What every answer of the gateway's own carries.

use crate::client::Client;
use crate::gateway::Gateway;
use crate::h2;
use crate::tls::Secure;
use crate::websockets::HANDSHAKE;

/// ASVS 5.0, 3.4.4 (WHATWG Fetch, 3.6): what is JSON or text is never run as a script or shown as a page.
#[test]
fn every_reply_says_nosniff_once() {
    let gateway = Gateway::start(
        "[cors]\norigins = [\"https://app.example.com\"]\n[authjs]\nbase_path = \"/api/auth\"\n[[route]]\npath = \"/dead\"\naccess = \"public\"\nupstream = \"http://127.0.0.1:9\"\n[[route]]\nupstream = \"builtin:whoami\"\n",
    );
    let cookie = gateway.first_account();
    let ada = ("Cookie", cookie.as_str());
    let page = ("Accept", "text/html");
    let preflight = [("Origin", "https://app.example.com"), ("Access-Control-Request-Method", "GET")];
    for (line, fields, status) in [
        ("GET /.auth/me", &[ada][..], 200),
        ("GET /.auth/me", &[], 401),
        ("GET /.auth/jwks.json", &[], 200),
        ("POST /.auth/ws-ticket", &[ada], 200),
        ("GET /.auth/account/sessions", &[ada], 200),
        ("POST /.auth/login", &[("Content-Type", "application/json")], 400),
        ("GET /api/auth/session", &[ada], 200),
        ("GET /api/auth/csrf", &[], 200),
        ("GET /.auth/login", &[page], 200),
        ("GET /x", &[page], 303),
        ("GET /x", &[], 401),
        ("GET /x", HANDSHAKE, 401),
        ("POST /x", &[("Content-Type", "application/grpc")], 200),
        ("OPTIONS /x", &preflight, 204),
        ("GET /a%00b", &[], 400),
        ("GET /a%00b", &[page], 400),
        ("TRACE /", &[], 405),
        ("GET /dead", &[], 502),
        ("GET /.auth/nothing", &[], 404),
    ] {
        let answer = gateway.client().request(line, fields, b"");
        let said = (answer.status, answer.field("x-content-type-options"));
        assert_eq!(said, (status, Some("nosniff")), "{line} {fields:?}");
    }
    let mut unread = gateway.client();
    unread.send(b"GET / HTTP/1.1\nHost: a\r\n\r\n");
    assert_eq!(unread.answer().field("x-content-type-options"), Some("nosniff"));
    // an app's own answers are its own
    assert_eq!(gateway.client().get("/x", &[ada]).field("x-content-type-options"), None);
    for path in ["/healthz", "/metrics", "/nothing"] {
        assert_eq!(Client::connect(gateway.admin).get(path, &[]).field("x-content-type-options"), Some("nosniff"));
    }
}

#[test]
fn replies_over_http2_say_nosniff_too() {
    let secure = Secure::whoami();
    h2::run(async {
        let send = secure.h2().await;
        for (line, status) in [("GET /.auth/me", 401), ("GET /x", 401), ("GET /a%00b", 400)] {
            let answer = h2::ask(&send, h2::request(line, &[]), b"").await.unwrap();
            assert_eq!(
                (answer.status().as_u16(), &answer.headers()["x-content-type-options"]),
                (status, &"nosniff".parse().unwrap())
            );
        }
    });
}
