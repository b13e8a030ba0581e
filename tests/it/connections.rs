//! Ordinary crowds: many connections of one address, peers that pause, a restart while others still come. Each limit
//! makes room where it can, and what it was made against is still held.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::backend::{Backend, accept, ok, silent};
use crate::client::Client;
use crate::gateway::{Gateway, eventually};
use crate::websockets::{HANDSHAKE, close_code, echo, open};

fn to(address: std::net::SocketAddr, rest: &str) -> Gateway {
    Gateway::start(&format!("{rest}[[route]]\naccess = \"public\"\nupstream = \"http://{address}\"\n"))
}

fn is_served(client: &mut Client) -> bool {
    client.get("/", &[]).status == 200
}

/// An office behind one address keeps more connections than it uses.
#[test]
fn an_idle_connection_makes_room_for_a_new_one_of_its_address() {
    let backend = Backend::start(ok);
    let mut gateway = to(backend.address, "[limits]\nconnections_per_address = 3\n");
    let [mut first, mut second, mut third] = [(); 3].map(|()| gateway.client());
    for client in [&mut first, &mut second, &mut third] {
        assert!(is_served(client));
    }
    assert!(is_served(&mut first));
    let mut newcomer = gateway.client();
    assert!(is_served(&mut newcomer));
    eventually("one of the others has gone", || gateway.metric("authgate_connections") == 3);
    assert!(is_served(&mut newcomer));
    let mut line = String::new();
    gateway.wait_for(|_, seen| {
        line = seen.to_owned();
        seen.contains("limit reached")
    });
    for part in ["\"limit\":\"limits.connections_per_address\"", "\"who\":\"127.0.0.1\"", "\"closed\":\"1\""] {
        assert!(line.contains(part), "{line}");
    }
}

/// Slow readers are the ones that go, however many there are: after a second in which their client took nothing. One
/// that reads is left alone, and so is a socket.
#[test]
fn a_flood_of_slow_readers_of_one_address_leaves_room_for_a_newcomer() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut head = [0; 4096];
                while let Ok(read @ 1..) = stream.read(&mut head) {
                    if head[..read].starts_with(b"GET / ") {
                        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
                        continue;
                    }
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\n").unwrap();
                    let piece = vec![b'x'; 65_536];
                    while stream.write_all(&piece).is_ok() {}
                    return;
                }
            });
        }
    });
    let gateway = to(address, "[limits]\nconnections_per_address = 8\n");
    let large = || {
        let mut client = gateway.client();
        client.send(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.head().status, 200);
        client
    };
    let (mut reader, reading) = (large(), AtomicBool::new(true));
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            while reading.load(Ordering::Relaxed) {
                reader.take(64 << 10);
            }
        });
        let _slow: Vec<Client> = (0..7).map(|_| large()).collect();
        let newcomer = || {
            let mut client = gateway.client();
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            !client.is_closed()
        };
        eventually("there is room for a newcomer", newcomer);
        reading.store(false, Ordering::Relaxed);
        reader.join().expect("who reads is left alone");
        assert!(gateway.metric("authgate_connections") <= 8);
    });
    drop(reader);
    let log = gateway.into_log();
    let line = log.lines().find(|line| line.contains("\"why\":\"connections\""));
    let line = line.unwrap_or_else(|| panic!("no access line: {log}"));
    for part in ["\"path\":\"/large\"", "\"outcome\":\"client_gone\"", "\"status\":200"] {
        assert!(line.contains(part), "{line}");
    }
}

/// One request over a connection that may have been closed: `false` where it ended before a byte of the answer.
fn is_answered(stream: &mut TcpStream) -> bool {
    if stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").is_err() {
        return false;
    }
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\nok") {
        let mut piece = [0; 4096];
        match stream.read(&mut piece) {
            Ok(read @ 1..) => answer.extend_from_slice(&piece[..read]),
            end => {
                assert!(answer.is_empty(), "an answer was cut: {end:?}");
                return false;
            }
        }
    }
    answer.starts_with(b"HTTP/1.1 200 ")
}

/// An office: more browsers than there are places for what they keep. The longest idle connections go, a browser that
/// finds its own closed makes a new one and is served, and nobody's WebSocket goes for anybody.
#[test]
fn a_hundred_browsers_of_one_address_are_all_served_with_fewer_places_than_they_keep_connections() {
    const BROWSERS: usize = 100;
    const PLACES: u64 = 600;
    let backend = Backend::start(ok);
    let places = format!("[limits]\nconnections_per_address = {PLACES}\n");
    let sockets = "[[route]]\naccess = \"public\"\npath = \"/ws\"\nupstream = \"builtin:whoami\"\n";
    let mut gateway = to(backend.address, &format!("{places}{sockets}"));
    let connect = |gateway: &Gateway| {
        let stream = TcpStream::connect(gateway.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    };
    let mut sockets: Vec<_> = (0..BROWSERS).map(|_| open(&gateway, "/ws", "")).collect();
    let mut kept: Vec<_> = (0..6 * BROWSERS).map(|_| connect(&gateway)).collect();
    let mut made_anew = 0;
    for _ in 0..3 {
        for stream in &mut kept {
            if !is_answered(stream) {
                made_anew += 1;
                *stream = connect(&gateway);
                assert!(is_answered(stream), "a new connection is served");
            }
        }
    }
    for socket in &mut sockets {
        socket.read().unwrap();
        echo(socket, "still here");
    }
    assert!(made_anew >= BROWSERS, "{made_anew}");
    assert!(gateway.metric("authgate_connections") <= PLACES);
    gateway.wait_for(|_, line| line.contains("limit reached") && line.contains("\"refused\":\"0\""));
}

/// A balancer that still connects must see at once that nobody answers here, and nobody whom the kernel accepted is
/// left without an answer.
#[test]
fn a_stopping_gateway_refuses_newcomers_at_once_and_resets_none_that_it_accepted() {
    let (listener, address) = silent();
    let gateway = to(address, "[[route]]\npath = \"/ok\"\naccess = \"public\"\nupstream = \"builtin:whoami\"\n");
    let mut long = gateway.client();
    long.send(b"GET /long HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut app = accept(&listener);
    assert!(app.read(&mut [0; 4096]).unwrap() > 0);
    let newcomers: Vec<_> = (0..4)
        .map(|_| {
            let address = gateway.address;
            std::thread::spawn(move || {
                let mut served = 0;
                loop {
                    let mut stream = match TcpStream::connect(address) {
                        Ok(stream) => stream,
                        Err(error) if error.kind() == ErrorKind::ConnectionRefused => return served,
                        Err(error) => panic!("{error}"),
                    };
                    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                    stream.write_all(b"GET /ok HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
                    let mut answer = Vec::new();
                    stream.read_to_end(&mut answer).unwrap();
                    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
                    served += 1;
                }
            })
        })
        .collect();
    eventually("many have been served", || gateway.metric("authgate_connections") > 0);
    gateway.signal("TERM");
    let served: usize = newcomers.into_iter().map(|newcomer| newcomer.join().unwrap()).sum();
    assert!(served > 0);
    let ready = Client::connect(gateway.admin).get("/readyz", &[]);
    assert_eq!((ready.status, ready.text().as_str()), (503, "draining\n"));
    app.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate").unwrap();
    assert_eq!(long.answer().text(), "late");
}

/// A deployment at noon: nobody who was let in is cut off, and all are back once the new process is there.
#[test]
fn a_restart_under_a_thousand_clients_and_five_hundred_sockets_cuts_no_one_off() {
    let (listener, address) = silent();
    let routes = "[[route]]\naccess = \"public\"\npath = \"/ws\"\nupstream = \"builtin:whoami\"\n[[route]]\naccess = \"public\"\npath = \"/me\"\nupstream = \"builtin:whoami\"\n";
    let gateway = to(address, routes);
    let mut clients: Vec<_> = (0..1000).map(|_| gateway.client()).collect();
    let all_are_served = |clients: &mut [Client]| {
        for client in clients {
            assert_eq!(client.get("/me", &[]).status, 200);
        }
    };
    all_are_served(&mut clients);
    let mut sockets: Vec<_> = (0..500).map(|_| open(&gateway, "/ws", "")).collect();
    let mut long = gateway.client();
    long.send(b"GET /long HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut app = accept(&listener);
    assert!(app.read(&mut [0; 4096]).unwrap() > 0);
    app.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf").unwrap();
    assert_eq!(long.head().status, 200);
    gateway.signal("TERM");
    for socket in &mut sockets {
        assert_eq!(close_code(socket), 1001);
    }
    for client in &mut clients {
        assert!(client.is_ended(), "closed cleanly");
    }
    let refused = TcpStream::connect(gateway.address).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    app.write_all(b"half").unwrap();
    assert_eq!(long.take(8), b"halfhalf");
    let gateway = Gateway::serve(gateway.into_folder());
    let mut clients: Vec<_> = clients.iter().map(|_| gateway.client()).collect();
    all_are_served(&mut clients);
    for socket in &mut sockets {
        *socket = open(&gateway, "/ws", "");
        socket.read().unwrap();
        echo(socket, "back");
    }
}

/// A player, a tab in the background, an app that is busy: nothing moves for a while, and goes on. `PAUSE_SECS` says how
/// long: `cargo test --test it -- --ignored pauses`.
#[test]
#[ignore = "takes longer than any timer of the kernel's that could be in the way"]
fn pauses_of_a_client_a_server_and_a_socket_cut_nothing() {
    const LENGTH: usize = 30_000_000;
    let pause = Duration::from_secs(std::env::var("PAUSE_SECS").map_or(45, |secs| secs.parse().unwrap()));
    let (listener, address) = silent();
    let gateway = to(address, "");
    let mut clients = Vec::new();
    // a download, an upload, and a socket
    let mut down = gateway.client();
    down.send(b"GET /down HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut app = accept(&listener);
    assert!(app.read(&mut [0; 4096]).unwrap() > 0);
    clients.push(std::thread::spawn(move || {
        write!(app, "HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n").unwrap();
        app.write_all(&vec![b'x'; LENGTH]).unwrap();
    }));
    let mut up = gateway.client();
    up.send(format!("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: {LENGTH}\r\n\r\n").as_bytes());
    let mut slow_app = accept(&listener);
    clients.push(std::thread::spawn(move || {
        up.send(&vec![b'x'; LENGTH]);
        assert_eq!(up.answer().status, 204);
    }));
    let mut socket = gateway.client();
    socket.send(b"GET /socket HTTP/1.1\r\nHost: a\r\n");
    for (name, value) in HANDSHAKE {
        socket.send(format!("{name}: {value}\r\n").as_bytes());
    }
    socket.send(b"\r\n");
    let mut talking = accept(&listener);
    assert!(talking.read(&mut [0; 4096]).unwrap() > 0);
    clients.push(std::thread::spawn(move || {
        let grants = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        talking.write_all(grants.as_bytes()).unwrap();
        // one frame of 30 MB
        talking.write_all(&[0x82, 127]).unwrap();
        talking.write_all(&(LENGTH as u64).to_be_bytes()).unwrap();
        talking.write_all(&vec![b'x'; LENGTH]).unwrap();
    }));
    assert_eq!(socket.head().status, 101);
    std::thread::sleep(pause);
    assert_eq!(down.head().status, 200);
    assert_eq!(down.take(LENGTH).len(), LENGTH);
    let mut read = 0;
    let mut piece = vec![0; 65_536];
    while read < LENGTH {
        read += slow_app.read(&mut piece).unwrap();
    }
    slow_app.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
    assert_eq!(socket.take(10 + LENGTH).len(), 10 + LENGTH);
    for client in clients {
        client.join().unwrap();
    }
}

/// Many apps under one domain: their cookies together are more than a head may have, at the login page too. The page
/// that says so names the largest, and its form works although it carries them all.
#[test]
fn too_many_cookies_are_named_on_a_page_whose_form_clears_them() {
    let gateway = Gateway::whoami();
    let cookies = format!("theme=dark; app_state={}; own=1", "x".repeat(40_000));
    let navigates = [
        ("Accept", "text/html"),
        ("Sec-Fetch-Mode", "navigate"),
        ("Sec-Fetch-Site", "same-origin"),
        ("Cookie", &cookies),
    ];
    let page = gateway.client().get("/.auth/login", &navigates);
    assert_eq!((page.status, page.field("content-type")), (431, Some("text/html; charset=utf-8")));
    let text = page.text();
    assert!(text.contains("<code>app_state</code>") && text.contains("action=\"/.auth/clear-cookies\""), "{text}");
    let cleared = gateway.client().request("POST /.auth/clear-cookies", &navigates, b"");
    assert_eq!((cleared.status, cleared.field("clear-site-data")), (303, Some("\"cookies\"")));
    // another site's page signs nobody out
    let elsewhere = [("Accept", "text/html"), ("Sec-Fetch-Site", "cross-site"), ("Cookie", &cookies)];
    let refused = gateway.client().request("POST /.auth/clear-cookies", &elsewhere, b"");
    assert_eq!((refused.status, refused.field("clear-site-data")), (431, None));
    let log = gateway.into_log();
    let line = log.lines().find(|line| line.contains("\"status\":431")).unwrap();
    assert!(line.contains("\"host\":\"127.0.0.1:"), "{line}");
}

/// A server in HTTP/2 may say in a frame of its own, and later, that its answer is over: a client in HTTP/1.1 knows it by
/// the length, and asks again on the same connection.
#[test]
fn a_client_that_has_its_whole_answer_asks_again_before_the_server_has_ended_it() {
    let (ended, ends) = std::sync::mpsc::channel::<()>();
    let ends = std::sync::Arc::new(std::sync::Mutex::new(Some(ends)));
    let address = crate::h2::serve(move |stream| {
        let ends = ends.clone();
        async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                let first = ends.lock().unwrap().take();
                tokio::spawn(async move {
                    let head = http::Response::builder().header("content-length", 5).body(()).unwrap();
                    let mut answer = respond.send_response(head, false).unwrap();
                    answer.send_data(bytes::Bytes::from_static(b"whole"), false).unwrap();
                    if let Some(ends) = first {
                        tokio::task::spawn_blocking(move || ends.recv().unwrap()).await.unwrap();
                    }
                    answer.send_data(bytes::Bytes::new(), true).unwrap();
                });
            }
        }
    });
    let gateway = Gateway::start(&format!("[[route]]\naccess = \"public\"\nupstream = \"h2c://{address}\"\n"));
    let mut client = gateway.client();
    assert_eq!(client.get("/", &[]).text(), "whole");
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    // the gateway has read it by then
    assert_eq!(gateway.client().get("/", &[]).text(), "whole");
    ended.send(()).unwrap();
    assert_eq!(client.answer().text(), "whole");
}
