//! Upstreams: streaming, failures, retries, timeouts, Unix sockets, TLS.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::backend::{Backend, accept, nobody, ok, silent};
use crate::gateway::{Gateway, eventually};
use crate::known_attacks::both_ways;

fn public(upstream: &str, rest: &str) -> String {
    format!("[[route]]\naccess = \"public\"\nupstream = \"{upstream}\"\n{rest}")
}

#[test]
fn failures_say_nothing_about_the_inside_but_the_request_id() {
    let (listener, silent) = silent();
    let gateway = Gateway::start(&format!(
        "[[route]]\npath = \"/dead/**\"\naccess = \"public\"\nupstream = \"http://{}\"\n{}",
        nobody(),
        public(&format!("http://{silent}"), "timeout = \"500ms\"\n")
    ));
    for (path, status, word) in [("/dead/x", 502, "bad_gateway"), ("/slow", 504, "gateway_timeout")] {
        for method in ["GET", "POST"] {
            let began = Instant::now();
            let answer = gateway.client().request(&format!("{method} {path}"), &[], b"");
            let id = answer.field("x-request-id").unwrap();
            assert_eq!(
                (answer.status, answer.json()),
                (status, json!({ "error": word, "request_id": id })),
                "{method}"
            );
            assert!(began.elapsed() < Duration::from_secs(3));
        }
        let page = gateway.client().get(path, &[("Accept", "text/html")]);
        assert!(page.status == status);
        assert!(page.text().contains(page.field("x-request-id").unwrap()));
        assert!(!page.text().contains("127.0.0.1"), "{}", page.text());
    }
    drop(listener);
}

/// What clients are not told stands in the log, under the request's id: which server, and what was wrong.
#[test]
fn the_log_names_the_server_that_failed_and_how() {
    let backend = Backend::start(|request, stream| {
        let many = "X: 1\r\n".repeat(257);
        let answer = match request.line.split(' ').nth(1).unwrap() {
            "/fields" => format!("HTTP/1.1 200 OK\r\n{many}\r\n"),
            "/control" => "HTTP/1.1 200 OK\r\nX: a\u{1}b\r\n\r\n".to_owned(),
            "/name" => "HTTP/1.1 200 OK\r\nX y: a\r\n\r\n".to_owned(),
            "/version" => "HTTP/3 200\r\n\r\n".to_owned(),
            _ => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n".to_owned(),
        };
        stream.write_all(answer.as_bytes()).is_ok()
    });
    let ((listener, silent), dead, (tls, _)) = (silent(), nobody(), tls_server());
    let route = |path: &str, upstream: &str| {
        format!(
            "[[route]]\npath = \"{path}/**\"\naccess = \"public\"\ntimeout = \"500ms\"\nupstream = \"{upstream}\"\n"
        )
    };
    let gateway = Gateway::start(
        &[
            route("/dead", &format!("http://{dead}")),
            route("/silent", &format!("http://{silent}")),
            route("/tls", &format!("https://localhost:{}", tls.port())),
            route("/nobody", "http://nobody.invalid:80"),
            public(&format!("http://{}", backend.address), ""),
        ]
        .concat(),
    );
    let own = backend.address.to_string();
    let cases = [
        ("/dead/x", 502, dead.to_string(), "Connection refused"),
        ("/silent/x", 504, silent.to_string(), "no response within the route's timeout"),
        ("/tls/x", 502, format!("127.0.0.1:{}", tls.port()), "UnknownIssuer"),
        ("/nobody/x", 502, String::new(), "nobody.invalid: DNS lookup failed: failed to lookup address"),
        ("/fields", 502, own.clone(), "more than 256 fields"),
        ("/control", 502, own.clone(), "control character"),
        ("/name", 502, own.clone(), "invalid field name"),
        ("/version", 502, own.clone(), "not HTTP/1"),
        // nothing of it is passed on before its first chunk is read
        ("/chunk", 502, own, "bad chunk"),
    ];
    let ids: Vec<String> = cases
        .iter()
        .map(|(path, status, ..)| {
            let answer = gateway.client().get(path, &[]);
            assert_eq!(answer.status, *status, "{path}");
            answer.field("x-request-id").unwrap().to_owned()
        })
        .collect();
    let log = gateway.into_log();
    for ((path, _, server, cause), id) in cases.iter().zip(ids) {
        // a name stands before its address
        let server = if path.starts_with("/tls") {
            format!("localhost:{} ({server})", server.rsplit(':').next().unwrap())
        } else {
            (*server).clone()
        };
        let told = log.lines().find(|line| line.contains("upstream request failed") && line.contains(&id)).unwrap();
        assert!(told.contains(&format!("\"server\":\"{server}\"")) && told.contains(cause), "{path}: {told}");
    }
    drop(listener);
}

#[test]
fn an_answer_may_take_its_time_once_it_has_begun() {
    let backend = Backend::start(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab").unwrap();
        std::thread::sleep(Duration::from_millis(900));
        stream.write_all(b"cd").is_ok()
    });
    let gateway = Gateway::start(&public(&format!("http://{}", backend.address), "timeout = \"300ms\"\n"));
    let mut client = gateway.client();
    for _ in 0..2 {
        assert_eq!(client.get("/", &[]).text(), "abcd");
    }
}

#[test]
fn a_dead_server_is_passed_over_and_the_living_take_turns() {
    let (one, two) = (Backend::start(ok), Backend::start(ok));
    let gateway = Gateway::start(&format!(
        "[[upstream]]\nname = \"app\"\nservers = [\"{}\", \"{}\", \"{}\"]\n{}",
        one.address,
        nobody(),
        two.address,
        public("app", "")
    ));
    for number in 0..12 {
        let method = if number % 2 == 0 { "POST" } else { "GET" };
        assert_eq!(gateway.client().request(&format!("{method} /{number}"), &[], b"body").status, 200);
    }
    let (one, two) = (one.all().len(), two.all().len());
    assert_eq!(one + two, 12);
    assert!(one >= 4 && two >= 4, "{one} {two}");
}

#[test]
fn a_post_never_runs_twice_and_a_get_is_repeated_once_on_a_connection_that_was_just_closed() {
    // the first request of a connection is answered, the second one only read
    fn once(request: &crate::backend::Received, stream: &mut dyn Write) -> bool {
        if request.line.contains("/first") {
            return ok(request, stream);
        }
        false
    }
    for (method, answered) in [("POST", 502), ("GET", 502)] {
        let backend = Backend::start(once);
        let gateway = Gateway::start(&public(&format!("http://{}", backend.address), ""));
        // one connection, so that both requests find the same idle upstream connection
        let mut client = gateway.client();
        assert_eq!(client.get("/first", &[]).status, 200);
        let body: &[u8] = if method == "POST" { b"x" } else { b"" };
        assert_eq!(client.request(&format!("{method} /second"), &[], body).status, answered);
        let seen = backend.all().into_iter().filter(|request| request.line.contains("/second")).count();
        assert_eq!(seen, if method == "POST" { 1 } else { 2 }, "{method}");
    }
}

#[test]
fn bodies_stream_both_ways_in_constant_memory() {
    let megabytes: usize = std::env::var("STREAM_MEGABYTES").ok().and_then(|text| text.parse().ok()).unwrap_or(256);
    let gateway = Gateway::start(&public("builtin:whoami", ""));
    let mut client = gateway.client();
    let block = vec![b'x'; 1 << 20];
    client.send(format!("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", megabytes << 20).as_bytes());
    for _ in 0..megabytes {
        client.send(&block);
    }
    assert_eq!(client.answer().json()["body_bytes"], megabytes << 20);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut stream = accept(&listener);
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", megabytes << 20).as_bytes());
        for _ in 0..megabytes {
            let _ = stream.write_all(&vec![b'y'; 1 << 20]);
        }
    });
    let down = Gateway::start(&public(&format!("http://{address}"), ""));
    let mut client = down.client();
    client.send(b"GET /down HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.head().status, 200);
    for _ in 0..megabytes {
        assert!(client.take(1 << 20).iter().all(|&byte| byte == b'y'));
    }
    for gateway in [&gateway, &down] {
        let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
        let peak = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        let kib: usize = peak.split_whitespace().nth(1).unwrap().parse().unwrap();
        assert!(kib < 128 << 10, "{peak}");
    }
}

#[test]
fn expect_100_continue_is_passed_on_and_answered() {
    let backend = Backend::start(ok);
    let gateway = Gateway::start(&public(&format!("http://{}", backend.address), ""));
    let mut client = gateway.client();
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.head().status, 100);
    client.send(b"body");
    assert_eq!(client.answer().status, 200);
    assert_eq!(backend.next().body, b"body");
}

#[test]
fn unix_sockets_serve_on_both_sides() {
    let folder = tempfile::TempDir::new().unwrap();
    let (front, back) = (folder.path().join("front.sock"), folder.path().join("back.sock"));
    let backend = Backend::unix(&back, ok);
    let config = crate::gateway::configured(&public(&format!("unix:{}", back.display()), ""));
    let file = config.path().join("gateway.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let text = text.replace("\"127.0.0.1:0\"]", &format!("\"127.0.0.1:0\", \"unix:{}\"]", front.display()));
    std::fs::write(&file, text).unwrap();
    // what a process that was killed leaves behind is no hindrance
    drop(std::os::unix::net::UnixListener::bind(&front).unwrap());
    let mut gateway = Gateway::serve(config);
    let mut stream = std::os::unix::net::UnixStream::connect(&front).unwrap();
    stream.write_all(b"GET /unix HTTP/1.1\r\nHost: app.example.com\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("ok"), "{answer}");
    let received = backend.next();
    assert_eq!(
        (received.line.as_str(), received.field("host"), received.field("x-forwarded-for")),
        ("GET /unix HTTP/1.1", Some("app.example.com"), None)
    );
    gateway.terminate();
    assert!(!front.exists());
}

#[test]
fn the_host_is_kept_or_replaced_by_the_servers_own() {
    let backend = Backend::start(ok);
    let gateway = Gateway::start(&format!(
        "[[upstream]]\nname = \"own\"\nhost = \"upstream\"\nservers = [\"http://localhost:{0}\"]\n[[route]]\npath = \"/own\"\naccess = \"public\"\nupstream = \"own\"\n{1}",
        backend.address.port(),
        public(&format!("http://{}", backend.address), "")
    ));
    for (path, host) in
        [("/own", format!("localhost:{}", backend.address.port())), ("/kept", "app.example.com".to_owned())]
    {
        assert_eq!(gateway.client().get(path, &[("Host", "app.example.com")]).status, 200, "{path}");
        let received = backend.next();
        assert_eq!(
            (received.field("host"), received.field("x-forwarded-host")),
            (Some(host.as_str()), Some("app.example.com")),
            "{path}"
        );
    }
}

#[test]
fn a_gateway_that_leads_to_itself_says_so_once() {
    // the way round leads over a proxy, which no look at the configuration could find
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = listener.local_addr().unwrap();
    let gateway = Gateway::start(&public(&format!("http://{proxy}"), ""));
    let address = gateway.address;
    std::thread::spawn(move || {
        for mut inbound in listener.incoming().map_while(Result::ok) {
            let mut outbound = std::net::TcpStream::connect(address).unwrap();
            let (mut back_in, mut back_out) = (outbound.try_clone().unwrap(), inbound.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut back_in, &mut back_out));
            std::thread::spawn(move || std::io::copy(&mut inbound, &mut outbound));
        }
    });
    assert_eq!(gateway.client().get("/x", &[]).status, 508);
}

#[test]
fn a_circle_of_two_gateways_is_noticed_and_a_line_of_two_is_none() {
    let place = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let first = Gateway::start(&format!(
        "[[route]]\npath = \"/round/**\"\naccess = \"public\"\nupstream = \"http://{}\"\n[[route]]\naccess = \"public\"\nupstream = \"builtin:whoami\"\n",
        place.local_addr().unwrap()
    ));
    let second = Gateway::start(&public(&format!("http://{}", first.address), ""));
    let address = second.address;
    std::thread::spawn(move || {
        for mut inbound in place.incoming().map_while(Result::ok) {
            let mut outbound = std::net::TcpStream::connect(address).unwrap();
            let (mut back_in, mut back_out) = (outbound.try_clone().unwrap(), inbound.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut back_in, &mut back_out));
            std::thread::spawn(move || std::io::copy(&mut inbound, &mut outbound));
        }
    });
    for gateway in [&first, &second] {
        assert_eq!(gateway.client().get("/round/x", &[]).status, 508);
        // at once, and not when connections have run out
        assert!(gateway.metric("authgate_connections") < 10);
    }
    let through =
        second.client().get("/x", &[("X-Authgate-Via", "evil"), ("X-Authgate-Via", "0123456789abcdef, evil")]);
    let told = through.seen("x-authgate-via");
    let names: Vec<&str> = told[0].split(", ").collect();
    assert_eq!((through.status, told.len(), names.len(), names[0]), (200, 1, 3, "0123456789abcdef"));
    assert!(names.iter().all(|name| name.len() == 16));
    let many = ["0123456789abcdef"; 9].join(",");
    assert_eq!(first.client().get("/x", &[("X-Authgate-Via", &many)]).status, 508);
}

/// A TLS server for `localhost` that answers every request with `ok`; gives its address and the
/// certificate of the authority that signed it.
fn tls_server() -> (std::net::SocketAddr, String) {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let own = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.der().clone()], key)
        .unwrap();
    let config = std::sync::Arc::new(config);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let connection = rustls::ServerConnection::new(config.clone()).unwrap();
            let mut stream = rustls::StreamOwned::new(connection, stream);
            let mut head = [0; 4096];
            if stream.read(&mut head).is_ok_and(|count| count > 0) {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        }
    });
    (address, authority.pem())
}

#[test]
fn https_upstreams_are_verified() {
    let (address, authority) = tls_server();
    let (_, stranger) = tls_server();
    for (trusted, name, status, told) in [
        (&authority, "localhost", 200, "\"outcome\":\"forward\""),
        (&stranger, "localhost", 502, "invalid peer certificate: BadSignature"),
        (&authority, "127.0.0.1", 502, "invalid peer certificate: certificate not valid for name"),
    ] {
        let folder = crate::gateway::configured(&public(&format!("https://{name}:{}", address.port()), ""));
        let roots = folder.path().join("roots.pem");
        std::fs::write(&roots, trusted).unwrap();
        let gateway = Gateway::serve_with(folder, &[("SSL_CERT_FILE", roots.to_str().unwrap())]);
        assert_eq!(gateway.client().get("/", &[]).status, status, "{name}");
        let log = gateway.into_log();
        assert!(log.contains(told), "{log}");
    }
    // a server that speaks no TLS at all: nothing is sent in the clear
    let backend = Backend::start(ok);
    let gateway = Gateway::start(&public(&format!("https://localhost:{}", backend.address.port()), ""));
    assert_eq!(gateway.client().get("/secret", &[]).status, 502);
    assert!(backend.all().iter().all(|request| !request.line.contains("/secret")));
    let log = gateway.into_log();
    assert!(log.contains("TLSHandshakeFailure\",\"cause\":\"tls handshake eof"), "{log}");
}

/// An image with the binary alone has no certificate authorities: that is told, and hurts who needs them.
#[test]
fn without_certificate_authorities_https_servers_are_502_and_all_else_is_served() {
    let (address, _) = tls_server();
    let backend = Backend::start(ok);
    let https = format!("https://localhost:{}", address.port());
    let config = format!(
        "[[route]]\npath = \"/plain\"\naccess = \"public\"\nupstream = \"http://{}\"\n{}",
        backend.address,
        public(&https, "")
    );
    let nowhere = [("SSL_CERT_FILE", "/nowhere/authorities.pem"), ("SSL_CERT_DIR", "/nowhere")];
    let gateway = Gateway::serve_with(crate::gateway::configured(&config), &nowhere);
    assert_eq!(gateway.client().get("/plain", &[]).status, 200);
    assert_eq!(gateway.client().get("/", &[]).status, 502);
    let log = gateway.into_log();
    let told = log.lines().find(|line| line.contains("https upstreams cannot be verified")).unwrap();
    assert!(told.contains(&https) && told.contains("SSL_CERT_FILE"), "{told}");
    assert!(log.contains("\"cause\":\"no CA certificates on this machine\""), "{log}");
}

/// Goes away for good: a close could also mean that nothing more is sent (RFC 9112, 9.6).
fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
}

/// RFC 9112, 9.6: whoever has sent its request may shut down its sending side.
#[test]
fn a_client_that_sends_no_more_is_answered() {
    let (listener, address) = silent();
    let gateway = Gateway::start(&public(&format!("http://{address}"), ""));
    for (request, end) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 0),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", 12),
    ] {
        let mut client = TcpStream::connect(gateway.address).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        client.write_all(request.as_bytes()).unwrap();
        let mut server = accept(&listener);
        read_request(&mut server, end);
        client.shutdown(std::net::Shutdown::Write).unwrap();
        // it has been seen: whoever takes it for the end closes here at once
        server.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        assert!(server.read(&mut [0; 1]).is_err(), "{request}");
        server.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n").unwrap();
        assert!(server.read(&mut [0; 1]).is_err(), "{request}");
        server.write_all(b"3\r\ntwo\r\n0\r\n\r\n").unwrap();
        let mut said = String::new();
        client.read_to_string(&mut said).unwrap();
        assert!(said.starts_with("HTTP/1.1 200") && said.ends_with("3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"), "{said}");
    }
}

/// RFC 9110, 9.2.2: a connection that was just being closed loses no request whose second time changes nothing.
#[test]
fn an_idempotent_request_with_a_body_is_repeated_once_on_a_connection_that_was_just_closed() {
    static SEEN: std::sync::Mutex<Vec<usize>> = std::sync::Mutex::new(Vec::new());
    let backend = Backend::start(|request, stream| {
        if request.line.contains("/first") {
            SEEN.lock().unwrap().push(request.connection);
            return ok(request, stream);
        }
        // the second request of a connection is read, and not answered
        if !SEEN.lock().unwrap().contains(&request.connection) {
            stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok").unwrap();
        }
        false
    });
    let gateway = Gateway::start(&public(&format!("http://{}", backend.address), ""));
    for (line, body, status) in [
        ("PUT /x", &b"body"[..], 200),
        ("DELETE /x", b"", 200),
        ("DELETE /x", b"body", 200),
        ("GET /x", b"body", 200),
        ("POST /x", b"body", 502),
        ("PATCH /x", b"body", 502),
    ] {
        let mut client = gateway.client();
        assert_eq!(client.get("/first", &[]).status, 200);
        let first = backend.next().connection;
        assert_eq!(client.request(line, &[], body).status, status, "{line}");
        assert_eq!(backend.next().connection, first);
        assert_eq!(
            backend.all().iter().map(|again| again.body.as_slice()).collect::<Vec<_>>(),
            if status == 200 { vec![body] } else { vec![] }
        );
        let overrides = [("X-HTTP-Method-Override", "POST")];
        let mut client = gateway.client();
        assert_eq!(client.get("/first", &[]).status, 200);
        assert_eq!(client.request(line, &overrides, body).status, 502, "{line}, which an app may take for a POST");
        backend.all();
    }
}

/// RFC 9110, 7.2 and RFC 3986, 3.2.3: a port may be empty.
#[test]
fn a_host_may_have_an_empty_port() {
    let backend = Backend::start(ok);
    let gateway = Gateway::start(&public(&format!("http://{}", backend.address), ""));
    for (host, sent) in [("[::1]:", "[::1]"), ("app.example.com:", "app.example.com")] {
        assert_eq!(gateway.client().get("/", &[("Host", host)]).status, 200, "{host}");
        assert_eq!(backend.next().field("x-forwarded-host"), Some(sent));
    }
}

/// nginx: `proxy_redirect default`. An app that is told its own name leads to itself by it.
#[test]
fn a_location_at_the_servers_own_name_leads_home_and_any_other_one_where_it_says() {
    let backend = Backend::start(|request, stream| {
        let location = request.field("x-leads-to").unwrap();
        write!(stream, "HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n").is_ok()
    });
    let own = format!("localhost:{}", backend.address.port());
    let gateway = Gateway::start(&format!(
        "[[upstream]]\nname = \"own\"\nhost = \"upstream\"\nservers = [\"http://{own}\"]\n[[route]]\npath = \"/app/**\"\nstrip_prefix = \"/app\"\naccess = \"public\"\nupstream = \"own\"\n[[route]]\npath = \"/kept\"\naccess = \"public\"\nupstream = \"http://{own}\"\n[[route]]\naccess = \"public\"\nupstream = \"own\"\n"
    ));
    for (path, told, location) in [
        ("/x", format!("http://{own}/login?a=b#c"), "/login?a=b#c"),
        ("/x", format!("http://{own}"), "/"),
        ("/x", format!("http://{}?a", own.to_uppercase()), "/?a"),
        ("/app/x", format!("http://{own}/login"), "/app/login"),
        ("/app/x", format!("http://{own}/app/login"), "/app/login"),
        ("/app/x", format!("http://{own}/apple"), "/app/apple"),
        ("/x", "/login".into(), "/login"),
        ("/app/x", "/login".into(), "/login"),
    ] {
        for answer in both_ways(&gateway, path, &[("X-Leads-To", &told)]) {
            assert_eq!((answer.status, answer.field("location")), (302, Some(location)), "{path} {told}");
        }
    }
    for told in [
        format!("https://{own}/x"),
        format!("http://{own}.evil.test/x"),
        format!("http://user@{own}/x"),
        "http://localhost:1/x".to_owned(),
        // what would be another origin without its own
        format!("http://{own}//evil.test/x"),
        format!("http://{own}/\\evil.test/x"),
        format!("http://{own}\\@evil.test/x"),
    ] {
        let answer = gateway.client().get("/x", &[("X-Leads-To", &told)]);
        assert_eq!(answer.field("location"), Some(told.as_str()));
    }
    let told = format!("http://{own}/x");
    assert_eq!(gateway.client().get("/kept", &[("X-Leads-To", &told)]).field("location"), Some(told.as_str()));
}

/// A name that leads elsewhere is looked up as soon as nobody is found where it led before.
#[test]
fn a_server_that_has_moved_is_found_at_once() {
    let backend = Backend::start(ok);
    let folder = crate::gateway::configured(&public(&format!("http://moved.test:{}", backend.address.port()), ""));
    let hosts = folder.path().join("hosts");
    std::fs::write(&hosts, "127.0.0.9 moved.test\n").unwrap();
    let own = crate::gateway::command(folder.path(), &["run"]);
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "sh", "-c", "mount --bind \"$0\" /etc/hosts && exec \"$@\""]).arg(&hosts);
    command.arg(own.get_program()).args(own.get_args()).env_remove("RUST_LOG");
    let may = std::process::Command::new("unshare").args(["--mount", "true"]).status();
    if !may.is_ok_and(|status| status.success()) {
        return crate::gateway::not_here("no mount namespaces");
    }
    let gateway = Gateway::spawn(command, folder);
    assert_eq!(gateway.client().get("/", &[]).status, 502);
    std::fs::write(&hosts, "127.0.0.1 moved.test\n").unwrap();
    let began = Instant::now();
    eventually("it is found", || gateway.client().get("/", &[]).status == 200);
    assert!(began.elapsed() < Duration::from_secs(8), "names are looked up every 15 s anyway");
}

#[test]
fn a_client_that_goes_away_frees_the_upstream() {
    let (listener, address) = silent();
    let gateway = Gateway::start(&public(&format!("http://{address}"), ""));
    let mut client = TcpStream::connect(gateway.address).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut upstream = accept(&listener);
    let read = upstream.read(&mut [0; 4096]).unwrap();
    assert!(read > 0);
    reset(client);
    assert_eq!(upstream.read(&mut [0; 1]).unwrap_or(0), 0);
    eventually("nothing is open", || {
        let mut admin = std::net::TcpStream::connect(gateway.admin).unwrap();
        admin.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut text = String::new();
        admin.read_to_string(&mut text).unwrap();
        text.contains("authgate_connections 0\n")
    });
}

#[test]
fn a_name_that_no_one_knows_is_502_and_others_continue() {
    let backend = Backend::start(ok);
    let gateway = Gateway::start(&format!(
        "[[route]]\npath = \"/unknown/**\"\naccess = \"public\"\nupstream = \"http://nobody.invalid:80\"\n{}",
        public(&format!("http://localhost:{}", backend.address.port()), "")
    ));
    assert_eq!(gateway.client().get("/unknown/x", &[]).status, 502);
    assert_eq!(gateway.client().get("/known", &[]).status, 200);
}

/// Two upstreams may differ in what they trust: a connection of one is never used for the other.
#[test]
fn upstreams_do_not_share_connections_even_at_one_address() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, opened) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            sender.send(()).unwrap();
            std::thread::spawn(move || {
                while stream.read(&mut [0; 4096]).is_ok_and(|count| count > 0) {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
                }
            });
        }
    });
    let upstream = |name: &str| {
        format!(
            "[[upstream]]\nname = \"{name}\"\nservers = [\"{address}\"]\n[[route]]\npath = \"/{name}\"\naccess = \"public\"\nupstream = \"{name}\"\n"
        )
    };
    let gateway = Gateway::start(&(upstream("one") + &upstream("two")));
    let mut client = gateway.client();
    for path in ["/one", "/one", "/two", "/two", "/one"] {
        assert_eq!(client.get(path, &[]).status, 200);
    }
    assert_eq!(opened.try_iter().count(), 2);
}

/// A listener whose queue is full: connecting to it hangs, as to an address that swallows everything.
fn black_hole() -> (tokio::net::TcpListener, SocketAddr, Vec<TcpStream>) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut filling = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
        filling.push(stream);
    }
    (listener, address, filling)
}

/// Reliability goal G-8: refused is 502 at once, a black hole 504 when connecting has taken 3 s.
#[tokio::test]
async fn a_black_hole_is_504_when_the_time_to_connect_is_over() {
    let (_listener, hole, _filling) = black_hole();
    let gateway = Gateway::start(&public(&format!("http://{hole}"), ""));
    for request in ["GET /x HTTP/1.1\r\nHost: a\r\n\r\n", "GET /x HTTP/1.0\r\nHost: a\r\n\r\n"] {
        let (mut client, began) = (gateway.client(), Instant::now());
        client.send(request.as_bytes());
        assert_eq!(client.answer().status, 504, "{request}");
        assert!(began.elapsed() >= Duration::from_millis(2900), "{:?}", began.elapsed());
    }
}

/// What another server was waited for is not taken from the time that the next one has.
#[tokio::test]
async fn a_server_has_the_whole_timeout_however_long_the_one_before_was_dialled() {
    let living = Backend::start(ok);
    let (_listener, hole, _filling) = black_hole();
    let gateway = Gateway::start(&format!(
        "[[upstream]]\nname = \"app\"\nservers = [\"{}\", \"{hole}\"]\n{}",
        living.address,
        public("app", "timeout = \"2s\"\n")
    ));
    let mut client = gateway.client();
    let mut ask = || {
        let began = Instant::now();
        client.send(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
        (client.answer().status, began.elapsed() >= Duration::from_millis(2900))
    };
    // one of the first two meets the black hole, and then the connection that the other one left
    let both = [ask(), ask()];
    assert_eq!(both, [(200, false), (200, true)]);
}

fn up(gateway: &Gateway, server: SocketAddr, value: u8) -> bool {
    let line = format!("authgate_upstream_up{{upstream=\"app\",server=\"{server}\"}} {value}\n");
    crate::metrics::ask(gateway.admin, "/metrics", "").1.contains(&line)
}

/// Issue 5, item 4. A server that is down costs one request one try; it is back by a connection of the gateway's own.
#[test]
fn a_server_that_is_down_comes_back_without_costing_a_request() {
    let living = Backend::start(ok);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let gateway = Gateway::start(&format!(
        "[[upstream]]\nname = \"app\"\nservers = [\"{}\", \"{address}\"]\n{}",
        living.address,
        public("app", "")
    ));
    for _ in 0..4 {
        assert_eq!(gateway.client().request("POST /x", &[], b"body").status, 200);
    }
    assert!(up(&gateway, address, 0));
    assert!(up(&gateway, living.address, 1));
    assert_eq!(living.all().len(), 4);
    // one connection comes, with nothing on it: that of whoever asks
    let listener = TcpListener::bind(address).unwrap();
    let mut asking = accept(&listener);
    assert_eq!(asking.read(&mut [0; 1]).unwrap(), 0);
    eventually("it is up again", || up(&gateway, address, 1));
}

/// The health of a server is what it says itself: one that can be reached and answers 503 is passed over.
#[test]
fn a_server_that_says_that_it_is_not_well_is_passed_over_until_it_is() {
    static WELL: AtomicBool = AtomicBool::new(true);
    fn moody(request: &crate::backend::Received, stream: &mut dyn Write) -> bool {
        if request.line.starts_with("GET /healthz?deep=1 ") && !WELL.load(Ordering::SeqCst) {
            return stream.write_all(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n").is_ok();
        }
        ok(request, stream)
    }
    let (one, two) = (Backend::start(moody), Backend::start(ok));
    let gateway = Gateway::start(&format!(
        "[[upstream]]\nname = \"app\"\nservers = [\"{}\", \"{}\"]\nhealth = {{ path = \"/healthz?deep=1\", interval = \"1s\" }}\n{}",
        one.address,
        two.address,
        public("app", "")
    ));
    let asked = one.next();
    assert_eq!(
        (asked.line.as_str(), asked.field("host")),
        ("GET /healthz?deep=1 HTTP/1.1", Some(&*one.address.to_string()))
    );
    assert!(asked.field("remote-user").is_none());
    assert!(asked.field("cookie").is_none());
    WELL.store(false, Ordering::SeqCst);
    eventually("it is passed over", || up(&gateway, one.address, 0));
    one.all();
    for number in 0..6 {
        assert_eq!(gateway.client().get(&format!("/{number}"), &[]).status, 200);
    }
    assert!(one.all().iter().all(|request| request.line.starts_with("GET /healthz")));
    WELL.store(true, Ordering::SeqCst);
    eventually("it is back", || up(&gateway, one.address, 1));
    for number in 0..2 {
        assert_eq!(gateway.client().get(&format!("/{number}"), &[]).status, 200);
    }
    assert!(one.all().iter().any(|request| !request.line.starts_with("GET /healthz")));
    let mut gateway = gateway;
    gateway.wait_for(|_, line| {
        line.contains("upstream server unhealthy") && line.contains("GET /healthz?deep=1 returned 503")
    });
    gateway.wait_for(|_, line| line.contains("upstream server healthy, back in rotation"));
}

/// Reliability goal G-9: a server that took a POST and broke off may have done it; no other gets it.
#[test]
fn a_post_that_a_server_broke_off_goes_to_no_other() {
    let (one, two) = (Backend::start(|_, _| false), Backend::start(|_, _| false));
    let gateway = Gateway::start(&format!(
        "[[upstream]]\nname = \"app\"\nservers = [\"{}\", \"{}\"]\n{}",
        one.address,
        two.address,
        public("app", "")
    ));
    let large = vec![b'x'; 100 << 10];
    for (number, body) in [b"x".as_slice(), b"", large.as_slice(), b"x"].into_iter().enumerate() {
        assert_eq!(gateway.client().request(&format!("POST /{number}"), &[], body).status, 502);
    }
    let mut seen: Vec<String> = one.all().into_iter().chain(two.all()).map(|request| request.line).collect();
    seen.sort();
    assert_eq!(seen, [0, 1, 2, 3].map(|number| format!("POST /{number} HTTP/1.1")));
}

/// Reads up to the end of a head and as many bytes behind it.
fn read_request(stream: &mut TcpStream, behind: usize) -> String {
    let mut bytes = Vec::new();
    let end = |bytes: &[u8]| bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4 + behind);
    while end(&bytes).is_none_or(|end| bytes.len() < end) {
        let mut piece = [0; 4096];
        let count = stream.read(&mut piece).unwrap();
        assert!(count > 0, "{}", String::from_utf8_lossy(&bytes));
        bytes.extend(&piece[..count]);
    }
    String::from_utf8(bytes).unwrap()
}

/// RFC 9110, 10.1.1: who holds its body back sends it when the server asks, and never if that answers at once.
#[test]
fn a_body_that_is_held_back_waits_for_the_server_and_a_final_answer_spares_it() {
    let (listener, address) = silent();
    let gateway = Gateway::start(&public(&format!("http://{address}"), ""));
    for refused in [true, false] {
        let mut client = gateway.client();
        client.send(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
        let mut server = accept(&listener);
        let head = read_request(&mut server, 0).to_lowercase();
        assert!(head.contains("expect: 100-continue\r\n") && head.ends_with("\r\n\r\n"), "{head}");
        if refused {
            server.write_all(b"HTTP/1.1 417 No\r\nContent-Length: 2\r\n\r\nno").unwrap();
            let answer = client.answer();
            assert_eq!((answer.status, answer.field("connection")), (417, Some("close")));
            // what comes now is no body, and no request either
            client.send(b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
            assert!(client.is_closed());
            assert_eq!(server.read(&mut [0; 1]).unwrap(), 0);
        } else {
            server.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
            assert_eq!(client.head().status, 100);
            client.send(b"body");
            let mut body = [0; 4];
            server.read_exact(&mut body).unwrap();
            server.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
            let answer = client.answer();
            assert_eq!((answer.status, answer.field("connection"), &body), (200, None, b"body"));
            client.send(b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
            assert!(read_request(&mut server, 0).starts_with("GET /next "));
        }
    }
}

/// An answer that comes before the body is whole reaches the client, both go on at once, and neither connection is
/// used again.
#[test]
fn an_answer_may_overtake_the_body_and_then_ends_the_connection() {
    let (listener, address) = silent();
    let gateway = Gateway::start(&public(&format!("http://{address}"), ""));
    let mut client = gateway.client();
    client.send(b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n");
    let mut server = accept(&listener);
    assert!(read_request(&mut server, 8).ends_with("3\r\none\r\n"));
    server.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nONE\r\n").unwrap();
    let head = client.head();
    assert_eq!((head.status, head.field("connection")), (200, Some("close")));
    assert_eq!(client.chunk(), b"ONE");
    client.send(b"3\r\ntwo\r\n");
    let mut piece = [0; 8];
    server.read_exact(&mut piece).unwrap();
    assert_eq!(&piece, b"3\r\ntwo\r\n");
    server.write_all(b"3\r\nTWO\r\n0\r\n\r\n").unwrap();
    assert_eq!((client.chunk(), client.chunk()), (b"TWO".to_vec(), Vec::new()));
    assert!(client.is_closed());
    assert_eq!(server.read(&mut [0; 1]).unwrap(), 0, "half a body is no whole request");
}

/// The time for an answer begins when the body is sent; a client that goes away meanwhile frees the server.
#[test]
fn a_streamed_request_is_504_when_its_answer_is_late_and_ends_with_its_client() {
    let (listener, address) = silent();
    let gateway = Gateway::start(&public(&format!("http://{address}"), "timeout = \"500ms\"\n"));
    let mut client = gateway.client();
    let began = Instant::now();
    client.send(b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    let mut server = accept(&listener);
    read_request(&mut server, 0);
    while began.elapsed() < Duration::from_millis(700) {
        client.send(b"1\r\nx\r\n");
        server.read_exact(&mut [0; 6]).unwrap();
    }
    client.send(b"0\r\n\r\n");
    assert_eq!(client.answer().status, 504);
    assert!(client.is_closed());
    assert!(began.elapsed() >= Duration::from_millis(1200));
    let gateway = Gateway::start(&public(&format!("http://{address}"), ""));
    for body in ["0\r\n\r\n", "5\r\nhal"] {
        let mut client = TcpStream::connect(gateway.address).unwrap();
        write!(client, "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}").unwrap();
        let mut server = accept(&listener);
        read_request(&mut server, 5);
        reset(client);
        assert_eq!(server.read(&mut [0; 1]).unwrap(), 0, "{body}");
    }
}

/// RFC 9112, 8: what ends before its length or its last chunk is incomplete, and no client may take it for whole.
#[test]
fn an_answer_that_breaks_off_is_passed_on_as_one_that_broke_off() {
    let backend = Backend::start(|request, stream| {
        let (answer, goes_on): (&[u8], bool) = match request.line.split(' ').nth(1).unwrap() {
            "/length" => (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfour", false),
            "/chunks" => (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n", false),
            "/chunk" => (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\nfour", false),
            _ => (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n0\r\n\r\n", true),
        };
        stream.write_all(answer).is_ok() && goes_on
    });
    let gateway = Gateway::start(&public(&format!("http://{}", backend.address), ""));
    for path in ["/length", "/chunks", "/chunk", "/whole"] {
        let mut client = gateway.client();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes());
        assert_eq!(client.head().status, 200);
        let rest = String::from_utf8(client.rest()).unwrap();
        assert!(rest.contains("four"), "{path}: {rest:?}");
        assert_eq!(rest.ends_with("0\r\n\r\n"), path == "/whole", "{path}: {rest:?}");
    }
}

/// Whether all that a server at this port has written is acknowledged: under load it is not there at once.
fn nothing_is_under_way(port: u16) -> bool {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let of_server =
        |line: &&str| line.split_whitespace().nth(1).is_some_and(|own| own.ends_with(&format!(":{port:04X}")));
    table.lines().filter(of_server).all(|line| line.split_whitespace().nth(4).unwrap().starts_with("00000000:"))
}

/// CWE-444: a server that takes a body for one more request, or sends one behind the head that HEAD asked for, has sent
/// a second answer by the time that its connection is used again.
#[test]
fn a_second_answer_is_discarded() {
    static STEP: Barrier = Barrier::new(2);
    let backend = Backend::start(|request, stream| {
        let body = if request.line.starts_with("HEAD ") { "" } else { "own" };
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{body}").unwrap();
        if !request.line.starts_with("GET ") {
            STEP.wait();
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nplanted");
            STEP.wait();
        }
        true
    });
    let gateway = Gateway::start(&public(&format!("http://{}", backend.address), ""));
    for (line, body) in [("GET /", &b""[..]), ("POST /", b"GET /x HTTP/1.1\r\n\r\n"), ("HEAD /", b"")] {
        assert_eq!(gateway.client().request(line, &[], body).status, 200, "{line}");
        if !line.starts_with("GET") {
            // the first answer has come; the second one is sent
            STEP.wait();
            STEP.wait();
            eventually("it lies before the gateway", || nothing_is_under_way(backend.address.port()));
        }
        for _ in 0..4 {
            let answer = gateway.client().request("GET /", &[], b"");
            assert_eq!((answer.status, answer.text().as_str()), (200, "own"), "behind {line}");
        }
    }
}

/// Late extra answers reach other people in every proxy that goes on trusting such a server.
#[test]
fn connections_of_a_server_that_sends_unsolicited_bytes_are_not_used_again() {
    static STEP: Barrier = Barrier::new(2);
    let play = |request: &crate::backend::Received, stream: &mut dyn Write| {
        let planted = "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nplanted";
        let own = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nown";
        match request.line.split(' ').nth(1).unwrap() {
            // in one packet
            "/behind" => stream.write_all([own, planted].concat().as_bytes()).is_ok(),
            "/late" => {
                stream.write_all(own.as_bytes()).unwrap();
                STEP.wait();
                stream.write_all(planted.as_bytes()).unwrap();
                STEP.wait();
                true
            }
            _ => stream.write_all(own.as_bytes()).is_ok(),
        }
    };
    for how in ["GET /behind", "POST /behind", "GET /late"] {
        let (odd, sound) = (Backend::start(play), Backend::start(ok));
        let mut gateway = Gateway::start(&format!(
            "[[route]]\npath = \"/sound\"\naccess = \"public\"\nupstream = \"http://{}\"\n{}",
            sound.address,
            public(&format!("http://{}", odd.address), "")
        ));
        // one thread serves a connection, and has the servers' connections that it used
        let mut client = gateway.client();
        let connection = |client: &mut crate::client::Client, backend: &Backend, path: &str| {
            assert_eq!(client.get(path, &[]).status, 200);
            backend.next().connection
        };
        assert_eq!([(); 3].map(|()| connection(&mut client, &odd, "/")), [0; 3], "a server is trusted before");
        if how.starts_with("GET") {
            assert_eq!(client.request(how, &[], b"").text(), "own");
        } else {
            client.send(
                format!("{how} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n")
                    .as_bytes(),
            );
            assert_eq!(client.answer().text(), "own");
        }
        odd.next();
        if how == "GET /late" {
            STEP.wait();
            STEP.wait();
            eventually("it lies before the gateway", || nothing_is_under_way(odd.address.port()));
            assert_eq!(client.get("/", &[]).text(), "own");
            odd.next();
        }
        gateway.wait_for(|_, line| line.contains("unsolicited bytes from upstream server"));
        let used = [(); 3].map(|()| connection(&mut client, &odd, "/"));
        assert!(used[0] < used[1] && used[1] < used[2], "{how}: {used:?}");
        assert_eq!([(); 3].map(|()| connection(&mut client, &sound, "/sound")), [0; 3], "others are trusted");
    }
}

/// EMFILE on our side is no fault of a server's: it is asked again at once when there are descriptors.
#[test]
fn a_server_is_not_passed_over_because_the_gateway_has_no_descriptors_left() {
    let once = |_: &crate::backend::Received, stream: &mut dyn Write| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").unwrap();
        false
    };
    let servers = [Backend::start(once), Backend::start(once)];
    let gateway = Gateway::start(&format!(
        "[[upstream]]\nname = \"two\"\nservers = [\"{}\", \"{}\"]\n{}",
        servers[0].address,
        servers[1].address,
        public("two", "")
    ));
    let mut clients: Vec<_> = (0..4).map(|_| gateway.client()).collect();
    for client in &mut clients {
        assert_eq!(client.get("/", &[]).text(), "ok");
    }
    let limited = |count: usize| {
        let limit = format!("--nofile={count}:4096");
        let set = std::process::Command::new("prlimit").args(["--pid", &gateway.pid().to_string(), &limit]).status();
        assert!(set.unwrap().success());
    };
    // no more than are open
    limited(3);
    let mut last = clients.pop().unwrap();
    assert_eq!(last.get("/", &[]).status, 502);
    limited(4096);
    for client in &mut clients {
        assert_eq!(client.get("/", &[]).text(), "ok");
    }
    let log = gateway.into_log();
    assert!(log.contains("Too many open files"), "{log}");
    assert!(!log.contains("removed from rotation"), "{log}");
}
