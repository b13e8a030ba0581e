//! Requests that parsers frame differently, and what a head may cost (security cases F and R).

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::backend::{Backend, ok};
use crate::gateway::{Gateway, eventually};

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
    assert_eq!(client.answer().status, 408);
    assert!(client.is_closed());
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(gateway.client().get("/", &[]).status, 200);
}

/// RFC 9113, 3.3: a proxy that ends TLS may speak HTTP/2 from the first byte on (nginx: `grpc_pass grpc://`); nobody else.
#[test]
fn a_trusted_proxy_may_speak_http2_with_prior_knowledge() {
    let rest = "[[route]]\naccess = \"public\"\nupstream = \"builtin:whoami\"\n";
    let gateway = Gateway::start(&format!("trusted_proxies = [\"127.0.0.1\"]\n{rest}"));
    crate::h2::run(async {
        let stream = tokio::net::TcpStream::connect(gateway.address).await.unwrap();
        let (send, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let fields = [("x-forwarded-proto", "https"), ("x-forwarded-for", "192.0.2.7")];
        for _ in 0..3 {
            let mut send = send.clone().ready().await.unwrap();
            let (answer, _) = send.send_request(crate::h2::request("GET /x", &fields), true).unwrap();
            let (status, text, _) = crate::h2::read(answer.await.unwrap()).await.unwrap();
            let text = text.to_lowercase();
            assert!(status == 200 && text.contains("[\"x-forwarded-proto\",\"https\"]"), "{text}");
            assert!(text.contains("[\"x-forwarded-for\",\"192.0.2.7, 127.0.0.1\"]"), "{text}");
        }
    });
    // one that has begun otherwise goes on otherwise
    let mut client = gateway.client();
    assert_eq!(client.get("/", &[]).status, 200);
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert_eq!(client.answer().status, 400);
}

/// Whether the gateway has read all that was sent over the connection with this port at the client's end.
fn has_read(client: &TcpStream) -> bool {
    let own = format!(":{:04X}", client.local_addr().unwrap().port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let ours = rows.filter(|row| row[2].ends_with(&own) && row[3] == "01");
    ours.map(|row| row[4].ends_with(":00000000")).next() == Some(true)
}

/// RFC 9112, 2.2: an empty line before a request is let through, however it is cut.
#[test]
fn an_empty_line_before_a_request_may_come_in_two_packets() {
    let backend = Backend::start(ok);
    let gateway = gateway(&backend);
    let mut stream = TcpStream::connect(gateway.address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    for part in ["\r", "\n", "\r"] {
        stream.write_all(part.as_bytes()).unwrap();
        eventually("it is read", || has_read(&stream));
    }
    stream.write_all(b"\n\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    for bytes in ["\r\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"] {
        let mut client = gateway.client();
        client.send(bytes.as_bytes());
        assert_eq!(client.answer().status, 400, "{bytes:?}");
    }
}

/// They begin a head all the same: whoever sends nothing else holds the connection no longer than `head_time`.
#[test]
fn empty_lines_alone_are_given_up_when_a_head_would_be() {
    let gateway =
        Gateway::start("[limits]\nhead_time = \"1s\"\n[[route]]\naccess = \"public\"\nupstream = \"builtin:whoami\"\n");
    for behind in [false, true] {
        let mut client = gateway.client();
        if behind {
            assert_eq!(client.get("/", &[]).status, 200);
        }
        client.send(b"\r\n");
        assert!(client.is_closed(), "without a word: nothing was asked");
    }
    let mut client = gateway.client();
    client.send(b"\r\nGET / ");
    assert_eq!(client.answer().status, 408);
}

#[test]
fn an_idle_connection_is_closed_and_a_used_one_is_kept() {
    let gateway = Gateway::start(
        "[limits]\nkeep_alive = \"1s\"\n[[route]]\naccess = \"public\"\nupstream = \"builtin:whoami\"\n",
    );
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
        "GET /a%00b HTTP/1.1\r\nHost: a",
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
    for (path, status) in [("/a%00b", 400), ("/traced", 405), ("/two", 400), ("", 400)] {
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

/// What each of these paths is answered with.
fn told(request: &crate::backend::Received, stream: &mut dyn Write) -> bool {
    let answer = match request.line.split(' ').nth(1).unwrap() {
        "/chunked" => {
            "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n\
             HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n3;x=y\r\nyes\r\n0\r\n\r\n"
        }
        "/old" => "HTTP/1.0 200 Fine\r\nContent-Length: 2\r\n\r\nok",
        "/none" => "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
        "/none-with-length" => "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
        "/none-with-chunks" => "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
        "/not-modified" => "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
        "/hints-with-length" => {
            "HTTP/1.1 103 Early Hints\r\nContent-Length: 38\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        }
        "/hints-with-chunks" => "HTTP/1.1 100 Continue\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        _ => return ok(request, stream),
    };
    stream.write_all(answer.as_bytes()).is_ok()
}

/// RFC 9112, 6.1: no coding for HTTP/1.0; 9.3: a proxy keeps no such connection. RFC 9110, 15.2: no interim answer.
#[test]
fn an_http_1_0_client_gets_a_body_without_chunks_that_ends_with_the_connection() {
    let backend = Backend::start(told);
    let gateway = gateway(&backend);
    for fields in ["", "Connection: keep-alive\r\n"] {
        for _ in 0..2 {
            let mut client = gateway.client();
            client.send(format!("GET /chunked HTTP/1.0\r\nHost: a\r\n{fields}\r\n").as_bytes());
            let answer = client.head();
            assert_eq!((answer.status, answer.field("connection")), (200, Some("close")), "{answer:?}");
            assert_eq!((answer.field("transfer-encoding"), answer.field("content-length")), (None, None));
            assert_eq!(client.rest(), b"okyes");
            assert_eq!(backend.next().line, "GET /chunked HTTP/1.1", "we speak for ourselves (RFC 9110, 2.5)");
        }
    }
    let mut client = gateway.client();
    for _ in 0..2 {
        client.send(b"GET /chunked HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.head().status, 103);
        let answer = client.answer();
        assert_eq!((answer.field("transfer-encoding"), answer.text()), (Some("chunked"), "okyes".to_owned()));
    }
}

/// RFC 9110, 6.2: an intermediary says its own version.
#[test]
fn an_answer_in_http_1_0_is_passed_on_in_ours_and_its_connection_is_not_used_again() {
    let backend = Backend::start(told);
    let gateway = gateway(&backend);
    for (number, line) in ["GET /old HTTP/1.1", "GET /old HTTP/1.0", "POST /old HTTP/1.1"].iter().enumerate() {
        let mut client = gateway.client();
        let body = if line.starts_with('P') { "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n" } else { "\r\n" };
        client.send(format!("{line}\r\nHost: a\r\nConnection: close\r\n{body}").as_bytes());
        let said = String::from_utf8(client.rest()).unwrap();
        assert!(said.starts_with("HTTP/1.1 200 Fine\r\n"), "{line}: {said}");
        assert!(said.ends_with("\r\n\r\nok"), "{said}");
        assert_eq!(backend.next().connection, number);
    }
}

/// RFC 9110, 8.6 and 15.3.5; RFC 9112, 6.1. A server that announces a body where there is none may send it late:
/// it would be the next answer.
#[test]
fn an_answer_that_has_no_body_announces_none_and_its_connection_is_not_used_again_if_it_did() {
    let backend = Backend::start(told);
    let gateway = gateway(&backend);
    let mut connections = std::collections::HashMap::new();
    for (path, framing) in
        [("/none", None), ("/none-with-length", None), ("/none-with-chunks", None), ("/not-modified", Some("5"))]
    {
        for (line, body) in [("GET", "\r\n"), ("POST", "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n")] {
            let mut client = gateway.client();
            client.send(format!("{line} {path} HTTP/1.1\r\nHost: a\r\n{body}").as_bytes());
            let answer = client.head();
            assert!(matches!(answer.status, 204 | 304), "{answer:?}");
            let told = (answer.field("content-length"), answer.field("transfer-encoding"));
            assert_eq!(told, (framing, None), "{line} {path}");
            assert_eq!(client.get("/after", &[]).text(), "ok", "{line} {path}");
            connections.insert((path, line), backend.next().connection == backend.next().connection);
        }
    }
    for (path, kept) in
        [("/none", true), ("/not-modified", true), ("/none-with-length", false), ("/none-with-chunks", false)]
    {
        assert_eq!(connections[&(path, "GET")], kept, "{path}");
        assert_eq!(connections[&(path, "POST")], kept, "{path}");
    }
    for path in ["/hints-with-length", "/hints-with-chunks"] {
        for (line, body) in [("GET", "\r\n"), ("POST", "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n")] {
            let mut client = gateway.client();
            client.send(format!("{line} {path} HTTP/1.1\r\nHost: a\r\n{body}").as_bytes());
            assert_eq!(client.answer().status, 502, "{line} {path}");
        }
    }
}

/// RFC 9110, 7.6.1: what `Connection` names is the connection's; never what frames the message or says where it goes.
#[test]
fn fields_that_connection_names_do_not_arrive_and_framing_does() {
    let backend = Backend::start(ok);
    let gateway = gateway(&backend);
    let body = "Content-Length: 2\r\n\r\nhi";
    for (framing, more) in
        [(body, ""), (body, "Expect: 100-continue\r\n"), ("Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", "")]
    {
        let mut client = gateway.client();
        client.send(
            format!(
                "POST / HTTP/1.1\r\nHost: a\r\nConnection: Foo, host,content-length, Transfer-Encoding,X-Forwarded-For, bar\r\n\
                 Connection: \tBAZ\t\r\nFoo: 1\r\nBaz: 2\r\nStays: 3\r\n{more}{framing}"
            )
            .as_bytes(),
        );
        assert_eq!(client.answer().status, 200);
        let seen = backend.next();
        assert_eq!(
            (seen.field("host"), seen.field("stays"), seen.field("x-forwarded-for"), seen.body.as_slice()),
            (Some("a"), Some("3"), Some("127.0.0.1"), &b"hi"[..])
        );
        assert_eq!((seen.field("foo"), seen.field("baz"), seen.field("connection")), (None, None, None), "{seen:?}");
    }
}

/// Each name is looked up in the head: thousands of them in one head would be a lot of work for little.
#[test]
fn connection_names_no_more_than_512_bytes_of_fields() {
    let backend = Backend::start(ok);
    let gateway = gateway(&backend);
    for (lines, length, status) in [(1, 512, 200), (1, 513, 431), (1, 12_000, 431), (2, 256, 200), (2, 257, 431)] {
        let line = format!("foo,{}", "a,".repeat(length / 2));
        let fields: Vec<_> = (0..lines).map(|_| ("Connection", &line[..length])).chain([("Foo", "1")]).collect();
        let mut client = gateway.client();
        assert_eq!(client.get("/", &fields).status, status, "{lines} lines of {length}");
        if status == 200 {
            assert_eq!(backend.next().field("foo"), None);
        } else {
            assert!(client.is_closed());
        }
    }
    assert!(backend.all().is_empty());
}

/// RFC 9110, 7.8: an upgrade that we do not know is a plain request, and what follows it no tunnel.
#[test]
fn an_unknown_upgrade_is_not_passed_on_and_nothing_behind_it_is_read() {
    let backend = Backend::start(ok);
    let gateway = gateway(&backend);
    for fields in [
        "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk\r\n",
        "Upgrade: websocket\r\n",
    ] {
        let mut client = gateway.client();
        client.send(
            format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes(),
        );
        assert_eq!(client.answer().status, 200);
        assert!(client.is_closed());
        let seen = backend.next();
        assert_eq!((seen.field("upgrade"), seen.field("connection"), seen.field("http2-settings")), (None, None, None));
    }
    assert!(backend.all().is_empty());
}

/// Our own forms come in every framing, too: chunked, held back, and in HTTP/1.0.
#[test]
fn forms_of_our_own_are_read_however_they_are_framed() {
    let gateway = Gateway::whoami();
    gateway.first_account();
    let form = format!("email=ada%40example.com&password={}", crate::gateway::PASSWORD.replace(' ', "+"));
    let length = form.len();
    let chunked = format!("Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{form}\r\n0\r\n\r\n");
    let large = format!("Transfer-Encoding: chunked\r\n\r\n2329\r\n{}\r\n0\r\n\r\n", "a".repeat(0x2329));
    for (version, fields, asked, status, goes_on) in [
        ("1.1", &*chunked, false, 303, true),
        ("1.1", &*format!("Expect: 100-continue\r\nContent-Length: {length}\r\n\r\n{form}"), true, 303, true),
        ("1.0", &*format!("Expect: 100-continue\r\nContent-Length: {length}\r\n\r\n{form}"), false, 303, false),
        ("1.1", &*large, false, 413, false),
        ("1.1", "Transfer-Encoding: chunked\r\n\r\nzz\r\n", false, 400, false),
        ("1.1", "Expect: 100-continue\r\nContent-Length: 9000\r\n\r\n", false, 413, false),
    ] {
        let mut client = gateway.client();
        let kind = "Content-Type: application/x-www-form-urlencoded";
        client.send(format!("POST /.auth/login HTTP/{version}\r\nHost: a\r\n{kind}\r\n{fields}").as_bytes());
        if asked {
            assert_eq!(client.head().status, 100);
        }
        // nobody else hears of 100
        let answer = client.head();
        assert_eq!(answer.status, status, "{version} {fields:.60}");
        client.take(answer.field("content-length").unwrap().parse().unwrap());
        if goes_on {
            assert_eq!(client.get("/.auth/me", &[]).status, 401);
        } else {
            assert!(client.is_closed(), "{version} {fields:.60}");
        }
    }
}
