//! The admin listener, asked as load balancers and scrapers ask.

use crate::client::Client;
use crate::gateway::Gateway;

const ROUTE: &str = "[[route]]\nupstream = \"builtin:whoami\"\n";

fn status(gateway: &Gateway, request: &str) -> u16 {
    let mut client = Client::connect(gateway.admin);
    client.send(request.as_bytes());
    client.answer().status
}

/// HAProxy's `option httpchk GET /healthz` (its issue 1225), node-http-proxy 1050: RFC 9112, 3.2 asks HTTP/1.1 alone for a Host.
#[test]
fn a_health_check_in_http10_needs_no_host() {
    let gateway = Gateway::start(ROUTE);
    for (request, code) in [
        ("GET /healthz HTTP/1.0\r\n\r\n", 200),
        ("GET /readyz HTTP/1.0\r\nUser-Agent: check\r\n\r\n", 200),
        ("HEAD /healthz HTTP/1.0\r\n\r\n", 200),
        ("GET /healthz HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n", 200),
        ("GET /metrics HTTP/1.0\r\n\r\n", 200),
        // what names a host is held to it, and HTTP/1.1 must
        ("GET /metrics HTTP/1.0\r\nHost: evil.test\r\n\r\n", 421),
        ("GET /metrics HTTP/1.0\r\nHost:\r\n\r\n", 421),
        ("GET /metrics HTTP/1.0\r\nHost: \u{e9}\r\n\r\n", 421),
        ("GET /healthz HTTP/1.1\r\n\r\n", 421),
        ("GET /metrics HTTP/1.1\r\nHost: evil.test\r\n\r\n", 421),
    ] {
        if request.starts_with("HEAD") {
            let mut client = Client::connect(gateway.admin);
            client.send(request.as_bytes());
            assert_eq!(client.head().status, code);
            continue;
        }
        assert_eq!(status(&gateway, request), code, "{request:?}");
    }
}

/// Prometheus scrapes by service name (besu 615, teku 1739).
#[test]
fn admin_hosts_are_answered_and_no_other_name_is() {
    let mut gateway = Gateway::start(&format!("admin_hosts = [\"authgate\", \"Gate.internal.\"]\n{ROUTE}"));
    let ask =
        |gateway: &Gateway, host: &str| status(gateway, &format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    for (host, code) in [
        ("authgate", 200),
        ("authgate:9180", 200),
        ("AUTHGATE", 200),
        ("gate.internal", 200),
        ("localhost:9180", 200),
        ("[::1]:9180", 200),
        ("authgate.evil.test", 421),
        ("evil.test", 421),
        ("", 421),
    ] {
        assert_eq!(ask(&gateway, host), code, "{host}");
    }
    gateway.reload(ROUTE);
    assert_eq!([ask(&gateway, "authgate"), ask(&gateway, "localhost")], [421, 200]);
}

/// Local processes cannot use up its memory, nor its 32 connections for longer than a head may take.
#[test]
fn a_head_has_limits_in_size_and_time_and_a_connection_serves_one_request() {
    let gateway = Gateway::start(ROUTE);
    let large = format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "a".repeat(9000));
    let many = format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "X: a\r\n".repeat(64));
    for (request, code) in [
        (large.as_str(), 431),
        (&many, 431),
        ("GET /healthz\r\n\r\n", 400),
        ("\u{16}\u{3}\u{1}\r\n\r\n", 400),
        ("POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", 405),
        ("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
    ] {
        assert_eq!(status(&gateway, request), code, "{request:?}");
    }
    let mut twice = Client::connect(gateway.admin);
    twice.send(&b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(2));
    assert_eq!(twice.answer().status, 200);
    assert!(twice.is_closed(), "the second request is not answered");
    // it waits behind 32 connections that send no head
    let silent: Vec<Client> = std::iter::repeat_with(|| Client::connect(gateway.admin)).take(32).collect();
    let asked = std::time::Instant::now();
    assert_eq!(status(&gateway, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"), 200);
    assert!(asked.elapsed().as_secs() >= 3, "answered after {:?}", asked.elapsed());
    drop(silent);
}
