//! docs/http.md, "Finding a refusal": every refusal carries an id, and the log has one line with this id that says
//! what was decided and why.

use std::collections::HashMap;
use std::net::TcpListener;

use serde_json::Value;

use crate::gateway::Gateway;

const NAVIGATION: &[(&str, &str)] = &[("Sec-Fetch-Mode", "navigate"), ("Accept", "text/html")];
const GRPC: &[(&str, &str)] = &[("Content-Type", "application/grpc")];
const SOCKET: &[(&str, &str)] = &[
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="),
];
const FORM: &[(&str, &str)] = &[("Content-Type", "application/x-www-form-urlencoded")];

/// Status, outcome and reason that the access line of this id must tell.
type Told = HashMap<String, (u16, &'static str, &'static str)>;

#[test]
fn every_refusal_has_an_id_that_finds_its_line_in_the_log() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let gateway = Gateway::start(&format!(
        "[[route]]\npath = \"/dead\"\nupstream = \"http://127.0.0.1:9\"\n[[route]]\npath = \"/slow\"\ntimeout = \"50ms\"\nupstream = \"http://{}\"\n[[route]]\npath = \"/staff\"\ngroups = [\"staff\"]\nupstream = \"builtin:whoami\"\n[[route]]\npath = \"/small\"\nbody_max = \"10B\"\nupstream = \"builtin:whoami\"\n[[route]]\npath = \"/app\"\nupstream = \"builtin:whoami\"\n",
        silent.local_addr().unwrap()
    ));
    let cookie = gateway.first_account();
    let ada = [("Cookie", cookie.as_str())];
    let with = |fields: &[(&'static str, &'static str)]| -> Vec<(&str, &str)> { [&ada, fields].concat() };
    let mut told = Told::new();
    let long = "a".repeat(17_000);
    let fields: Vec<String> = (0..101).map(|n| format!("X-{n}")).collect();
    let many: Vec<(&str, &str)> = fields.iter().map(|name| (name.as_str(), "1")).collect();
    let signed_out = ("refused", "signed out");
    let forbidden = ("refused", "forbidden");
    for (line, fields, body, status, (outcome, why)) in [
        ("GET /app", NAVIGATION.to_vec(), "", 303, signed_out),
        ("GET /app", vec![], "", 401, signed_out),
        ("POST /app", NAVIGATION.to_vec(), "", 401, signed_out),
        ("GET /app", SOCKET.to_vec(), "", 401, signed_out),
        ("POST /app", GRPC.to_vec(), "", 200, signed_out),
        ("GET /app", vec![("Cookie", "authgate=x.y.z")], "", 401, ("refused", "invalid credential")),
        ("GET /staff", with(NAVIGATION), "", 403, forbidden),
        ("GET /staff", with(&[]), "", 403, forbidden),
        ("GET /staff", with(SOCKET), "", 403, forbidden),
        ("POST /staff", with(GRPC), "", 200, forbidden),
        ("POST /app", with(&[("Origin", "https://evil.test")]), "", 403, ("refused", "cross-origin")),
        ("GET /nothing", with(NAVIGATION), "", 404, ("no_route", "no route")),
        ("GET /app/%00", with(&[]), "", 400, ("bad_request", "path")),
        ("COPY /app", with(&[("Destination", "b")]), "", 400, ("bad_request", "destination")),
        ("GET /app/../nothing", with(&[]), "", 404, ("no_route", "no route")),
        ("TRACE /app", with(&[]), "", 405, ("bad_request", "method")),
        (&format!("GET /{long}"), with(&[]), "", 414, ("bad_request", "target")),
        ("GET /app", many, "", 431, ("bad_request", "head")),
        ("POST /small", with(&[]), "more than ten bytes", 413, ("refused", "body_max")),
        ("GET /dead", with(NAVIGATION), "", 502, ("bad_gateway", "bad_gateway")),
        ("GET /dead", with(SOCKET), "", 502, ("bad_gateway", "bad_gateway")),
        ("GET /slow", with(NAVIGATION), "", 504, ("timeout", "timeout")),
        ("GET /.auth/nothing", vec![], "", 404, ("page", "not_found")),
        ("GET /.auth/me", vec![], "", 401, ("page", "signed_out")),
        ("DELETE /.auth/login", NAVIGATION.to_vec(), "", 405, ("page", "method_not_allowed")),
        ("POST /.auth/login", FORM.to_vec(), "email=a%40example.com&password=wrong", 401, ("page", "signed_out")),
        ("POST /.auth/login", vec![("Content-Type", "a/b")], "x", 415, ("page", "unsupported_media_type")),
        ("POST /.auth/logout", with(&[("Origin", "https://evil.test")]), "", 403, ("page", "forbidden")),
    ] {
        let answer = gateway.client().request(line, &fields, body.as_bytes());
        assert_eq!(answer.status, status, "{line} {fields:?}: {answer:?}");
        let id = answer.field("x-request-id").unwrap().to_owned();
        let shown = answer.text().contains(&id);
        let page = answer.field("content-type").is_some_and(|kind| kind.starts_with("text/html"));
        // the login page shows none: what went wrong there is the person's to mend
        assert!(shown || !page || line.contains("/login"), "{line}: {}", answer.text());
        assert!(told.insert(id, (status, outcome, why)).is_none(), "{line}: its id stands twice");
    }
    // heads that no filter sees
    for (head, why) in
        [("GET /app HTTP/1.1\nHost: a\r\n\r\n", "line end"), ("GET /app HTTP/1.1\r\nX : a\r\n\r\n", "head")]
    {
        let mut client = gateway.client();
        client.send(head.as_bytes());
        let answer = client.answer();
        let id = answer.field("x-request-id").unwrap().to_owned();
        assert_eq!((answer.status, answer.json()["request_id"].as_str()), (400, Some(id.as_str())));
        told.insert(id, (400, "bad_request", why));
    }
    let log = gateway.into_log();
    let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    for (id, (status, outcome, why)) in &told {
        let access = lines.iter().filter(|line| line["target"] == "access" && line["request_id"] == id.as_str());
        let access: Vec<_> = access.collect();
        assert_eq!(access.len(), 1, "{id} {status} {outcome} {why}");
        let line = access[0];
        assert_eq!(
            (&line["status"], &line["outcome"], &line["why"]),
            (&(*status).into(), &(*outcome).into(), &(*why).into())
        );
    }
}
