//! Ordinary crowds: many connections of one address, peers that pause, a restart while others still come. Each limit
//! makes room where it can, and what it was made against is still held.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::backend::{Backend, accept, ok, silent};
use crate::client::Client;
use crate::gateway::{Gateway, eventually};
use crate::websockets::HANDSHAKE;

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
    const LENGTH: usize = 30_000_000;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut head = [0; 4096];
                while let Ok(read @ 1..) = stream.read(&mut head) {
                    let small = head[..read].starts_with(b"GET / ");
                    let length = if small { 2 } else { LENGTH };
                    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").unwrap();
                    if stream.write_all(&vec![b'x'; length]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    let gateway = to(address, "[limits]\nconnections_per_address = 8\n");
    let mut reader = gateway.client();
    reader.send(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = reader.head();
    assert_eq!(head.status, 200);
    let reading = AtomicBool::new(true);
    std::thread::scope(|scope| {
        let whole = scope.spawn(|| {
            // a little now and then, and the rest in the end
            let mut taken = 0;
            while reading.load(Ordering::Relaxed) && taken < LENGTH / 2 {
                taken += reader.take(64 << 10).len();
                std::thread::yield_now();
            }
            reader.take(LENGTH - taken);
        });
        let mut slow: Vec<Client> = (0..7).map(|_| gateway.client()).collect();
        for client in &mut slow {
            client.send(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(client.head().status, 200);
        }
        let newcomer = || {
            let mut client = gateway.client();
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            (!client.is_closed()).then_some(client)
        };
        eventually("there is room for a newcomer", || newcomer().is_some());
        reading.store(false, Ordering::Relaxed);
        whole.join().unwrap();
        assert!(gateway.metric("authgate_connections") <= 8);
    });
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
