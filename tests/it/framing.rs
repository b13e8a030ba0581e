//! Requests that parsers frame differently, and what a head may cost (security cases F and R).

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::backend::{Backend, ok};
use crate::gateway::Gateway;

fn gateway(backend: &Backend) -> Gateway {
    Gateway::start(&format!("[[route]]\naccess = \"public\"\nupstream = \"http://{}\"\n", backend.address))
}

#[test]
fn keep_alive_follows_what_the_client_says() {
    let backend = Backend::start(ok);
    let gateway = gateway(&backend);
    let mut client = gateway.client();
    for _ in 0..3 {
        assert_eq!(client.get("/", &[]).status, 200);
    }
    assert_eq!(client.get("/", &[("Connection", "close")]).status, 200);
    assert!(client.is_closed());
    let mut client = gateway.client();
    client.send(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer().status, 200);
    assert!(client.is_closed());
}

/// No cleartext HTTP/2: its preface could be held half-sent without any deadline.
#[test]
fn an_http2_preface_is_refused_and_half_of_one_is_not_waited_for() {
    let gateway =
        Gateway::start("[limits]\nhead_time = \"1s\"\n[[route]]\naccess = \"public\"\nupstream = \"builtin:whoami\"\n");
    let mut client = gateway.client();
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert_eq!(client.answer().status, 400);
    assert!(client.is_closed());
    let mut client = gateway.client();
    let began = Instant::now();
    client.send(b"PRI * HT");
    assert!(client.is_closed());
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(gateway.client().get("/", &[]).status, 200);
}

#[test]
fn an_idle_connection_is_closed_and_a_used_one_is_kept() {
    let gateway =
        Gateway::start("[limits]\nidle = \"1s\"\n[[route]]\naccess = \"public\"\nupstream = \"builtin:whoami\"\n");
    let (mut idle, mut used) = (gateway.client(), gateway.client());
    assert_eq!(idle.get("/", &[]).status, 200);
    let began = Instant::now();
    let closed = std::thread::spawn(move || idle.is_closed());
    while began.elapsed() < Duration::from_secs(2) {
        assert_eq!(used.get("/", &[]).status, 200);
    }
    assert!(closed.join().unwrap());
    assert!(began.elapsed() < Duration::from_secs(5));
}

/// What the parser refuses is counted and logged like everything else.
#[test]
fn refused_heads_have_an_access_line_too() {
    let gateway = Gateway::whoami();
    for head in [
        "GET /a%2Fb HTTP/1.1\r\nHost: a",
        "TRACE /traced HTTP/1.1\r\nHost: a",
        "GET /two HTTP/1.1\r\nHost: a\r\nHost: b",
        "GET /folded HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2",
    ] {
        let mut client = gateway.client();
        client.send(format!("{head}\r\n\r\n").as_bytes());
        assert!((400..=405).contains(&client.answer().status));
        assert!(client.is_closed());
    }
    let log = gateway.into_log();
    let lines: Vec<serde_json::Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    for (path, status) in [("/a%2Fb", 400), ("/traced", 405), ("/two", 400), ("", 400)] {
        assert!(lines.iter().any(|line| line["path"] == path && line["status"] == status), "{path}: {log}");
    }
}

/// Bytes behind a request whose answer comes in pieces wait in the client's own socket: they are never answered
/// (CWE-770).
#[test]
fn what_a_client_sends_behind_a_streamed_answer_is_not_gathered() {
    const ROUNDS: usize = 100;
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = upstream.local_addr().unwrap();
    let (next, wanted) = std::sync::mpsc::channel::<()>();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = upstream.accept().unwrap();
        let mut head = [0; 4096];
        let _ = stream.read(&mut head).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
        for () in wanted {
            if stream.write_all(b"1\r\nx\r\n").is_err() {
                return;
            }
        }
    });
    let gateway = Gateway::start(&format!("[[route]]\naccess = \"public\"\nupstream = \"http://{address}\"\n"));
    let mut client = TcpStream::connect(gateway.address).unwrap();
    write!(client, "GET /x HTTP/1.1\r\nHost: {}\r\n\r\n", gateway.address).unwrap();
    let mut sent = 0;
    let junk = vec![b'A'; 1 << 20];
    for _ in 0..ROUNDS {
        next.send(()).unwrap();
        let mut piece = [0; 1024];
        assert!(client.read(&mut piece).unwrap() > 0);
        client.set_nonblocking(true).unwrap();
        while let Ok(more) = client.write(&junk) {
            sent += more;
        }
        client.set_nonblocking(false).unwrap();
    }
    assert!(sent < 64 << 20, "{sent} bytes were taken");
    assert!(sent > 0);
    assert_eq!(gateway.client().get("/.auth/login", &[("Accept", "text/html")]).status, 200);
    drop((next, client));
    server.join().unwrap();
}
