//! Answers that still flow when their session ends: all are cut within a second, but for downloads that
//! say how long they are. Event streams are told of it by a clean end.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use crate::backend::accept;
use crate::client::Client;
use crate::gateway::Gateway;
use crate::h2::{ends, request, run};
use crate::known_attacks::{CHUNKED, head};
use crate::tls::Secure;

/// Kinds of answers that programs read piece by piece, whatever they are called.
const KINDS: [&str; 5] =
    ["text/plain", "application/ndjson", "application/connect+json", "multipart/mixed; boundary=a", "application/zip"];

/// Sends a request as Ada; gives both ends once the answer has begun.
fn open(gateway: &Gateway, listener: &TcpListener, line: &str, framing: &str, cookie: &str) -> (Client, TcpStream) {
    let mut client = gateway.client();
    let (fields, body) = if line.starts_with("GET") { (&[][..], "") } else { (CHUNKED, "0\r\n\r\n") };
    client.send(head(line, &[&[("Host", "a"), ("Cookie", cookie)], fields].concat()).as_bytes());
    client.send(body.as_bytes());
    let mut server = accept(listener);
    server.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let _ = std::io::Read::read(&mut server, &mut [0; 4096]).unwrap();
    server.write_all(format!("HTTP/1.1 200 OK\r\n{framing}").as_bytes()).unwrap();
    assert_eq!(client.head().status, 200);
    (client, server)
}

fn sign_out(gateway: &Gateway, cookie: &str) {
    assert_eq!(gateway.client().request("POST /.auth/logout", &[("Cookie", cookie)], b"").status, 303);
}

#[test]
fn every_answer_that_says_no_length_is_cut_when_its_session_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let gateway = Gateway::start(&format!(
        "[[route]]\npath = \"/public\"\naccess = \"public\"\nupstream = \"http://{address}\"\n[[route]]\nupstream = \"http://{address}\"\n"
    ));
    let stays = gateway.first_account();
    for line in ["GET /", "POST /"] {
        let goes = gateway.sign_in("ada@example.com");
        let chunked = |kind: &str| format!("Content-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
        let ended = KINDS.map(|kind| open(&gateway, &listener, line, &chunked(kind), &goes));
        let nameless = open(&gateway, &listener, line, "\r\nfirst", &goes);
        let own = open(&gateway, &listener, line, &chunked(KINDS[0]), &stays);
        let public = open(&gateway, &listener, &line.replace(" /", " /public"), &chunked(KINDS[0]), "app=1");
        let file = open(&gateway, &listener, line, "Content-Length: 9\r\n\r\nfirst", &goes);
        sign_out(&gateway, &goes);
        for (mut client, server) in ended.into_iter().chain([nameless]) {
            assert_eq!((client.chunk(), client.rest()), (b"first".to_vec(), Vec::new()), "cut off, not complete");
            drop(server);
        }
        for (mut client, mut server) in [own, public] {
            server.write_all(b"4\r\nlast\r\n0\r\n\r\n").unwrap();
            assert_eq!((client.chunk(), client.chunk(), client.chunk()), (b"first".to_vec(), b"last".to_vec(), vec![]));
        }
        let (mut client, mut server) = file;
        server.write_all(b"last").unwrap();
        assert_eq!(client.take(9), b"firstlast");
    }
}

/// It need not rest for that, and whoever sends faster than its client reads is no exception either.
#[test]
fn an_answer_without_a_length_that_never_rests_is_cut_too() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let gateway = Gateway::start(&format!("[[route]]\nupstream = \"http://{}\"\n", listener.local_addr().unwrap()));
    let stays = gateway.first_account();
    for line in ["GET /", "POST /"] {
        for reads in [true, false] {
            let goes = gateway.sign_in("ada@example.com");
            let framing = "Content-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n";
            let flows = |cookie: &str| {
                let (client, mut server) = open(&gateway, &listener, line, framing, cookie);
                let sent = std::thread::spawn(move || {
                    let piece = [b"2000\r\n", &[b'x'; 8192][..], b"\r\n"].concat();
                    while server.write_all(&piece).is_ok() {}
                });
                (client, sent)
            };
            let ((mut client, sent), (mut other, others)) = (flows(&goes), flows(&stays));
            let read = std::thread::spawn(move || {
                if reads {
                    client.rest();
                }
                client
            });
            sign_out(&gateway, &goes);
            sent.join().unwrap();
            assert!(!read.join().unwrap().rest().ends_with(b"0\r\n\r\n"));
            // more than lies in the buffers of all sockets
            assert_eq!(other.take(32 << 20).len(), 32 << 20);
            drop(other);
            others.join().unwrap();
        }
    }
}

#[test]
fn an_event_stream_has_a_clean_end_when_its_session_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let gateway = Gateway::start(&format!("[[route]]\nupstream = \"http://{}\"\n", listener.local_addr().unwrap()));
    gateway.first_account();
    for line in ["GET /", "POST /"] {
        let goes = gateway.sign_in("ada@example.com");
        let kind = "Content-Type: text/event-stream; charset=utf-8\r\n";
        let close = open(&gateway, &listener, line, &format!("{kind}\r\ndata: one\n\n"), &goes);
        let chunked = open(
            &gateway,
            &listener,
            line,
            &format!("{kind}Transfer-Encoding: chunked\r\n\r\nb\r\ndata: one\n\n\r\n"),
            &goes,
        );
        // one whose server is in the middle of a piece
        let half = open(
            &gateway,
            &listener,
            line,
            &format!("{kind}Transfer-Encoding: chunked\r\n\r\nff\r\ndata: one\n\n"),
            &goes,
        );
        let mut streams = [close, chunked, half];
        for (client, _) in &mut streams {
            assert_eq!(client.chunk(), b"data: one\n\n");
        }
        sign_out(&gateway, &goes);
        for (mut client, _server) in streams {
            assert_eq!(client.rest(), b"0\r\n\r\n", "{line}");
        }
    }
}

#[test]
fn streams_in_http2_end_with_their_session_as_well() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let secure = Secure::start(&format!("[[route]]\nupstream = \"http://{}\"\n", listener.local_addr().unwrap()));
    let cookie = secure.first_account();
    run(async {
        let send = secure.h2().await;
        let mut streams = Vec::new();
        for framing in [
            "Content-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n",
            "\r\nfirst",
            "Content-Type: text/event-stream\r\n\r\nfirst",
            "Content-Type: text/plain\r\nContent-Length: 9\r\n\r\nfirst",
        ] {
            let mut send = send.clone().ready().await.unwrap();
            let (answer, _) = send.send_request(request("GET /", &[("cookie", &cookie)]), true).unwrap();
            let mut server = accept(&listener);
            let _ = std::io::Read::read(&mut server, &mut [0; 4096]).unwrap();
            server.write_all(format!("HTTP/1.1 200 OK\r\n{framing}").as_bytes()).unwrap();
            let mut body = answer.await.unwrap().into_body();
            assert_eq!(body.data().await.unwrap().unwrap(), "first");
            streams.push((body, server));
        }
        secure.gateway.cli(&["session", "revoke", "--all"]);
        let (mut file, mut server) = streams.pop().unwrap();
        let (mut events, _events) = streams.pop().unwrap();
        assert!(ends(&mut events).await, "a clean end");
        for (mut body, _server) in streams {
            assert!(body.data().await.unwrap().unwrap_err().is_reset());
        }
        server.write_all(b"last").unwrap();
        assert_eq!(file.data().await.unwrap().unwrap(), "last");
        assert!(ends(&mut file).await);
    });
}
