//! WebSockets: the handshake's rules, the tunnel, and closing with the session. Attacks stand in
//! `known_attacks::h_websocket`.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::stream::MaybeTlsStream;
use tokio_tungstenite::tungstenite::{Message, WebSocket, connect};

use crate::backend::Backend;
use crate::client::Client;
use crate::gateway::Gateway;
use crate::known_attacks::{CHUNKED, head};

pub type Socket = WebSocket<MaybeTlsStream<TcpStream>>;

pub const HANDSHAKE: &[(&str, &str)] = &[
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

pub fn open(gateway: &Gateway, path: &str, cookie: &str) -> Socket {
    let mut request = format!("ws://{}{path}", gateway.address).into_client_request().unwrap();
    request.headers_mut().insert("cookie", cookie.parse().unwrap());
    let (mut socket, _) = connect(request).unwrap();
    if let MaybeTlsStream::Plain(stream) = socket.get_mut() {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    }
    socket
}

pub fn close_code(socket: &mut Socket) -> u16 {
    loop {
        match socket.read() {
            Ok(Message::Close(Some(frame))) => return frame.code.into(),
            Ok(Message::Close(None)) => return 1005,
            Ok(_) => {}
            Err(error) => panic!("no Close frame: {error}"),
        }
    }
}

pub fn echo(socket: &mut Socket, text: &str) {
    socket.send(Message::text(text)).unwrap();
    assert_eq!(socket.read().unwrap(), Message::text(text));
}

#[test]
fn frames_pass_both_ways_and_the_backend_sees_the_identity() {
    let gateway = Gateway::whoami();
    let cookie = gateway.first_account();
    let mut socket = open(&gateway, "/x", &cookie);
    let first = socket.read().unwrap().into_text().unwrap();
    assert!(first.to_lowercase().contains("\"remote-user\",\"ada@example.com\""), "{first}");
    assert!(!first.contains(&cookie), "{first}");
    echo(&mut socket, "hello");
    echo(&mut socket, &"long ".repeat(50_000));
    let bytes = Message::binary(vec![7; 300_000]);
    socket.send(bytes.clone()).unwrap();
    assert_eq!(socket.read().unwrap(), bytes);
    socket.close(None).unwrap();
    while socket.read().is_ok() {}
}

#[test]
fn an_event_stream_ends_with_its_session_and_passes_unbuffered() {
    let gateway = Gateway::whoami();
    let cookie = gateway.first_account();
    let mut client = gateway.client();
    client.send(format!("GET /events HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\n\r\n").as_bytes());
    let head = client.head();
    assert_eq!((head.status, head.field("content-type")), (200, Some("text/event-stream")));
    let first = client.take(4);
    assert!(!first.is_empty());
    gateway.cli(&["session", "revoke", "--all"]);
    let began = Instant::now();
    while !client.is_closed() {
        assert!(began.elapsed() < Duration::from_secs(5));
    }
}

#[test]
fn sockets_are_closed_when_the_gateway_stops() {
    let mut gateway = Gateway::whoami();
    let cookie = gateway.first_account();
    let mut socket = open(&gateway, "/x", &cookie);
    socket.read().unwrap();
    gateway.signal("TERM");
    assert_eq!(close_code(&mut socket), 1001);
    gateway.terminate();
}

#[test]
fn no_spelling_of_an_identity_header_passes_a_handshake() {
    let gateway = Gateway::whoami();
    let cookie = gateway.first_account();
    let mut request = format!("ws://{}/x", gateway.address).into_client_request().unwrap();
    for name in
        ["remote-user", "remote_user", "remote.user", "x-authgate-jwt-assertion", "x-real-ip", "x_forwarded_user"]
    {
        request.headers_mut().append(name, "evil".parse().unwrap());
    }
    request.headers_mut().append("x-harmless", "kept".parse().unwrap());
    request.headers_mut().append("cookie", format!("a=1; {cookie}").parse().unwrap());
    let (mut socket, _) = connect(request).unwrap();
    let first = socket.read().unwrap().into_text().unwrap().to_lowercase();
    assert!(!first.contains("evil") && first.contains("kept"), "{first}");
    assert!(first.contains("\"remote-user\",\"ada@example.com\"") && first.contains("\"a=1\""), "{first}");
}

#[test]
fn an_idle_socket_is_closed_and_one_with_traffic_in_one_direction_is_kept() {
    let gateway = Gateway::start("[limits]\nidle = \"2s\"\n[[route]]\nupstream = \"builtin:whoami\"\n");
    let cookie = gateway.first_account();
    let (mut idle, mut used) = (open(&gateway, "/x", &cookie), open(&gateway, "/x", &cookie));
    idle.read().unwrap();
    used.read().unwrap();
    let began = Instant::now();
    let closed = std::thread::spawn(move || {
        assert_eq!(close_code(&mut idle), 1001);
        while idle.read().is_ok() {}
        began.elapsed()
    });
    while began.elapsed() < Duration::from_secs(4) {
        echo(&mut used, "still here");
    }
    let closed = closed.join().unwrap();
    assert!(closed > Duration::from_millis(1500) && closed < Duration::from_secs(5), "{closed:?}");
    echo(&mut used, "still here");
    assert!(gateway.into_log().contains("\"why\":\"idle timeout\""));
}

/// RFC 6455, 7.1.1: a browser that meets the end of the connection before it could answer a Close tells its page of a failure
/// (`wasClean: false`).
#[test]
fn the_answer_to_a_close_of_ours_is_awaited() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let gateway = Gateway::start(&format!("[[route]]\nupstream = \"http://{}\"\n", listener.local_addr().unwrap()));
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.read(&mut [0; 4096]);
            let answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
            let _ = stream.write_all(answer.as_bytes());
            // ends as soon as it is told to
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(&[0x88, 2, 0x11, 0x33]);
        }
    });
    let cookie = gateway.first_account();
    for answers in [true, false] {
        let cookie = gateway.sign_in("ada@example.com");
        let mut stream = TcpStream::connect(gateway.address).unwrap();
        let fields = [HANDSHAKE, &[("Host", "a"), ("Cookie", cookie.as_str())]].concat();
        stream.write_all(head("GET /x", &fields).as_bytes()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut byte = [0];
        let mut said = Vec::new();
        while !said.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).unwrap();
            said.push(byte[0]);
        }
        assert_eq!(gateway.client().request("POST /.auth/logout", &[("Cookie", &cookie)], b"").status, 303);
        let mut close = [0; 19];
        stream.read_exact(&mut close).unwrap();
        assert_eq!(close[..4], [0x88, 17, 0x11, 0x33]);
        stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        assert!(stream.read(&mut byte).is_err(), "it waits");
        if answers {
            stream.write_all(&[0x88, 0x82, 0, 0, 0, 0, 0x11, 0x33]).unwrap();
        }
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        assert_eq!(stream.read(&mut byte).unwrap(), 0, "and not for ever");
    }
    assert_eq!(gateway.client().get("/.auth/me", &[("Cookie", &cookie)]).status, 200);
}

/// A backend that takes a handshake and chooses the last protocol that is offered to it.
pub fn choosing() -> Backend {
    Backend::start(|request, stream| {
        let protocol = request.field("sec-websocket-protocol").and_then(|list| list.rsplit(',').next());
        let chosen = protocol.map(|name| format!("Sec-WebSocket-Protocol: {}\r\n", name.trim())).unwrap_or_default();
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n{chosen}\r\n"
        );
        stream.write_all(answer.as_bytes()).is_ok()
    })
}

#[test]
fn a_ticket_opens_one_socket_once() {
    let backend = choosing();
    let gateway = Gateway::start(&format!(
        "[[route]]\nwebsocket = {{ token = [\"query:ticket\", \"subprotocol\"] }}\nupstream = \"http://{}\"\n",
        backend.address
    ));
    let cookie = gateway.first_account();
    let ticket = |fields: &[(&str, &str)]| gateway.client().request("POST /.auth/ws-ticket", fields, b"");
    assert_eq!(ticket(&[]).status, 401);
    assert_eq!(ticket(&[("Cookie", &cookie), ("Origin", "https://evil.test")]).status, 403);
    assert_eq!(gateway.client().get("/.auth/ws-ticket", &[("Cookie", &cookie)]).status, 405);
    let fresh = || {
        let answer = ticket(&[("Cookie", &cookie)]).json();
        assert_eq!(answer["expires_in"], 30);
        answer["ticket"].as_str().unwrap().to_owned()
    };
    let open = |target: &str, protocol: Option<&str>| {
        let mut fields = HANDSHAKE.to_vec();
        fields.extend(protocol.map(|line| ("Sec-WebSocket-Protocol", line)));
        gateway.client().request(&format!("GET {target}"), &fields, b"").status
    };
    let one = format!("/x?ticket={}", fresh());
    assert_eq!((open(&one, None), open(&one, None)), (101, 401));
    assert_eq!(backend.next().line, "GET /x HTTP/1.1");
    let two = format!("bearer, {}", fresh());
    assert_eq!((open("/x", Some(&two)), open("/x", Some(&two))), (101, 401));
    backend.next();
    // it is no other credential, and ends with its session
    let three = fresh();
    assert_eq!(gateway.client().get("/x", &[("Authorization", &format!("Bearer {three}"))]).status, 401);
    gateway.cli(&["session", "revoke", "--all"]);
    assert_eq!(open(&format!("/x?ticket={three}"), None), 401);
    assert!(backend.all().is_empty());
}

#[test]
fn a_configured_origin_may_open_sockets() {
    let gateway =
        Gateway::start("[cors]\norigins = [\"https://app.example.com\"]\n[[route]]\nupstream = \"builtin:whoami\"\n");
    let cookie = gateway.first_account();
    let ask = |origin: &str| {
        let fields = [HANDSHAKE, &[("Cookie", cookie.as_str()), ("Origin", origin)]].concat();
        gateway.client().request("GET /x", &fields, b"").status
    };
    assert_eq!((ask("https://app.example.com"), ask("https://evil.test")), (101, 403));
}

/// Exactly the sockets of the session that ends are closed, and soon.
#[test]
fn revoking_one_session_of_twenty_closes_its_ten_sockets_and_no_other() {
    let gateway = Gateway::start("[limits]\nsockets_per_user = 200\n[[route]]\nupstream = \"builtin:whoami\"\n");
    let first = gateway.first_account();
    let cookies: Vec<_> = std::iter::once(first).chain((1..20).map(|_| gateway.sign_in("ada@example.com"))).collect();
    let mut sockets: Vec<Vec<Socket>> =
        cookies.iter().map(|cookie| (0..10).map(|_| open(&gateway, "/x", cookie)).collect()).collect();
    for socket in sockets.iter_mut().flatten() {
        socket.read().unwrap();
    }
    let refused = [HANDSHAKE, &[("Cookie", cookies[0].as_str())]].concat();
    assert_eq!(gateway.client().request("GET /x", &refused, b"").status, 429);
    let mut ended = sockets.remove(7);
    assert_eq!(gateway.client().request("POST /.auth/logout", &[("Cookie", &cookies[7])], b"").status, 303);
    let began = Instant::now();
    for socket in &mut ended {
        assert_eq!(close_code(socket), 4403);
    }
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    for socket in sockets.iter_mut().flatten() {
        echo(socket, "still open");
    }
}

/// Speaks in the middle of things: `/fragment` one fragment and no more, `/large` one frame of 1 MB after
/// the other.
fn talking() -> Backend {
    Backend::start(|request, stream| {
        let answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        let _ = stream.write_all(answer.as_bytes());
        if request.line.contains("/fragment") {
            let _ = stream.write_all(&[1, 1, b'a']);
        }
        let large = [&[0x82, 127, 0, 0, 0, 0, 0, 0x0f, 0x42, 0x40][..], &vec![7; 1_000_000]].concat();
        while request.line.contains("/large") && stream.write_all(&large).is_ok() {}
        true
    })
}

/// Reads a frame as a server sends it: first byte and payload.
fn frame(client: &mut crate::client::Client) -> (u8, Vec<u8>) {
    let head = client.take(2);
    let length = match head[1] {
        126 => client.take(2).iter().fold(0, |sum, &byte| sum << 8 | usize::from(byte)),
        127 => client.take(8).iter().fold(0, |sum, &byte| sum << 8 | usize::from(byte)),
        short => usize::from(short),
    };
    (head[0], client.take(length))
}

/// RFC 6455, 5.4: a Close may stand between the fragments of a message, never inside a frame.
#[test]
fn a_close_is_between_frames_also_in_the_middle_of_messages() {
    let backend = talking();
    let gateway = Gateway::start(&format!("[[route]]\nupstream = \"http://{}\"\n", backend.address));
    let cookie = gateway.first_account();
    let opened = |path: &str| {
        let mut client = gateway.client();
        let fields = [HANDSHAKE, &[("Cookie", cookie.as_str())]].concat();
        let fields: Vec<_> = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{}\r\n", gateway.host(), fields.concat()).as_bytes());
        assert_eq!(client.head().status, 101);
        client
    };
    let (mut fragment, mut large, mut sending) = (opened("/fragment"), opened("/large"), opened("/quiet"));
    assert_eq!(frame(&mut fragment), (1, b"a".to_vec()));
    assert_eq!(frame(&mut large).1.len(), 1_000_000);
    let half = [&[0x82, 0xff, 0, 0, 0, 0, 0, 0x0f, 0x42, 0x40, 0, 0, 0, 0][..], &vec![7; 500_000]].concat();
    sending.send(&half);
    gateway.cli(&["session", "revoke", "--all"]);
    let goodbye = [&4403_u16.to_be_bytes()[..], b"session revoked"].concat();
    let began = Instant::now();
    let last = std::iter::repeat_with(|| frame(&mut large)).find(|(first, payload)| {
        let whole = *first == 0x82 && payload.len() == 1_000_000 && payload.iter().all(|&byte| byte == 7);
        assert!(whole || *first == 0x88);
        !whole
    });
    assert_eq!(last, Some((0x88, goodbye.clone())));
    for client in [&mut fragment, &mut sending] {
        assert_eq!(frame(client), (0x88, goodbye.clone()));
    }
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    for client in [&mut fragment, &mut large, &mut sending] {
        assert!(client.is_closed());
    }
}

/// Cameras and rows of JSON texts go on as long as event streams do. What says how long it is, is sent to its end.
#[test]
fn streams_of_other_kinds_end_with_their_session_too_and_rows_of_texts_are_finished_at_a_stop() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut gateway = Gateway::start(&format!("[[route]]\nupstream = \"http://{}\"\n", listener.local_addr().unwrap()));
    let stays = gateway.first_account();
    let open = |kind: &str, cookie: &str| {
        let mut client = gateway.client();
        client.send(head("GET /", &[("Host", "a"), ("Connection", "close"), ("Cookie", cookie)]).as_bytes());
        let (mut server, _) = listener.accept().unwrap();
        let _ = server.read(&mut [0; 4096]).unwrap();
        write!(server, "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
            .unwrap();
        assert_eq!(client.head().status, 200);
        (client, server)
    };
    let finish = |(mut client, mut server): (Client, TcpStream)| {
        server.write_all(b"4\r\nlast\r\n0\r\n\r\n").unwrap();
        assert!(client.rest().ends_with(b"4\r\nlast\r\n0\r\n\r\n"));
    };
    let kinds = ["multipart/x-mixed-replace; boundary=a", "application/X-NDJSON", "application/json-seq"];
    let goes = gateway.sign_in("ada@example.com");
    let ended = kinds.map(|kind| open(kind, &goes));
    let kept = kinds.map(|kind| open(kind, &stays));
    assert_eq!(gateway.client().request("POST /.auth/logout", &[("Cookie", &goes)], b"").status, 303);
    for (mut client, _server) in ended {
        assert!(!client.rest().ends_with(b"0\r\n\r\n"), "cut off, not complete");
    }
    gateway.signal("TERM");
    let [(mut camera, _server), first, second] = kept;
    assert!(!camera.rest().ends_with(b"0\r\n\r\n"));
    finish(first);
    finish(second);
    gateway.terminate();
}

/// The end of a session ends its event streams: a client that takes nothing off its socket is no exception.
#[test]
fn an_event_stream_that_no_one_reads_ends_with_its_session_and_another_ones_continues() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let route = format!("[[route]]\nupstream = \"http://{}\"\n", listener.local_addr().unwrap());
    let (sender, told) = channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let sender = sender.clone();
            std::thread::spawn(move || {
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n");
                let events = b"data: more\n\n".repeat(1000);
                stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
                while stream.write(&events).is_ok() {}
                let _ = sender.send("stuck");
                stream.set_write_timeout(None).unwrap();
                while stream.write(&events).is_ok() {}
                let _ = sender.send("ended");
            });
        }
    });
    let next = || told.recv_timeout(Duration::from_secs(20));
    let gateway = Gateway::start(&route);
    let stays = gateway.first_account();
    for way in ["GET /", "POST /"] {
        let goes = gateway.sign_in("ada@example.com");
        let open = |cookie: &str| {
            let mut client = gateway.client();
            let (fields, body) = if way == "GET /" { (&[][..], "") } else { (CHUNKED, "0\r\n\r\n") };
            client.send(head(way, &[&[("Host", "a"), ("Cookie", cookie)], fields].concat()).as_bytes());
            client.send(body.as_bytes());
            assert_eq!(client.head().status, 200);
            assert_eq!(next(), Ok("stuck"), "{way}");
            client
        };
        let (mut other, _deaf) = (open(&stays), open(&goes));
        assert_eq!(gateway.client().request("POST /.auth/logout", &[("Cookie", &goes)], b"").status, 303);
        assert_eq!(next(), Ok("ended"), "{way}");
        // what lies in the buffers of three sockets, and more
        assert_eq!(other.take(32 << 20).len(), 32 << 20, "{way}");
        drop(other);
        assert_eq!(next(), Ok("ended"), "{way}");
    }
}
