//! The end of a body (RFC 9112, 6.3 and 8; RFC 9113, 8.1): what was cut is never passed on as whole, and what is whole has
//! one end.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::channel;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response};

use crate::backend::{accept, silent};
use crate::client::Client;
use crate::gateway::Gateway;
use crate::h2::{ask, ends, read, request, run, serve};
use crate::tls::Secure;

const BEGUN: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\npart";

fn public(address: SocketAddr) -> String {
    format!("[limits]\nidle = \"1s\"\n[[route]]\naccess = \"public\"\nupstream = \"http://{address}\"\n")
}

/// Reads up to the end of a head, and what stands behind it as far as `end`.
fn read_to(stream: &mut TcpStream, end: &[u8]) {
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut bytes = Vec::new();
    while !bytes.ends_with(end) {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        bytes.push(byte[0]);
    }
}

/// Ends a connection so that its other end is told that something went wrong.
fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
}

/// How a server ends what only the end of its connection delimits, and whether it was whole.
const ENDS: [(&str, bool); 3] = [("closes", true), ("resets", false), ("stalls", false)];

/// The same request as a plain exchange and as a streamed one, and what its server has to read of it.
const WAYS: [(&str, &[u8]); 2] = [
    ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"\r\n\r\n"),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", b"0\r\n\r\n"),
];

#[test]
fn an_answer_that_ends_with_its_connection_is_chunked_and_has_a_last_chunk_only_if_it_was_whole() {
    let (listener, address) = silent();
    let gateway = Gateway::start(&public(address));
    for (way, end) in WAYS {
        for (how, whole) in ENDS {
            let mut client = gateway.client();
            client.send(way.as_bytes());
            let mut server = accept(&listener);
            read_to(&mut server, end);
            server.write_all(BEGUN).unwrap();
            let head = client.head();
            let framed = (head.field("transfer-encoding"), head.field("content-length"), head.field("connection"));
            assert_eq!(framed, (Some("chunked"), None, None), "{way} {how}");
            assert_eq!(client.chunk(), b"part");
            let mut held = None;
            match how {
                "closes" => drop(server),
                "resets" => reset(server),
                _ => held = Some(server),
            }
            if whole {
                assert_eq!(client.chunk(), b"", "{way}");
                // and another request may follow
                client.send(WAYS[0].0.as_bytes());
                let mut server = accept(&listener);
                read_to(&mut server, b"\r\n\r\n");
                server.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").unwrap();
                assert_eq!(client.answer().text(), "ok");
            } else {
                assert_eq!(client.rest(), b"", "{way} {how}");
            }
            drop(held);
        }
    }
}

/// HTTP/1.0 has no chunks: such a body ends with the connection, and one that was cut with an error.
#[test]
fn a_client_in_http_1_0_sees_a_cut_response_as_a_reset() {
    let (listener, address) = silent();
    let gateway = Gateway::start(&public(address));
    let ways = ["GET / HTTP/1.0\r\nHost: a\r\n\r\n", "POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 70000\r\n\r\n"];
    for (way, body) in ways.iter().zip([0, 70_000]) {
        for (how, whole) in ENDS {
            let mut client = TcpStream::connect(gateway.address).unwrap();
            client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            client.write_all(&[way.as_bytes(), &vec![b'x'; body]].concat()).unwrap();
            let mut server = accept(&listener);
            read_to(&mut server, &[&b"\r\n\r\n"[..], &vec![b'x'; body]].concat());
            server.write_all(BEGUN).unwrap();
            read_to(&mut client, b"\r\n\r\npart");
            let mut held = None;
            match how {
                "closes" => drop(server),
                "resets" => reset(server),
                _ => held = Some(server),
            }
            let end = client.read(&mut [0; 16]).map_err(|e| e.kind());
            assert_eq!(end, if whole { Ok(0) } else { Err(std::io::ErrorKind::ConnectionReset) }, "{way} {how}");
            drop(held);
        }
    }
}

/// A server that resets its connection while the body still comes: whoever writes to it hears of that, and then whoever
/// reads finds an end that looks like a clean one.
#[test]
fn an_answer_whose_upload_failed_is_never_marked_whole() {
    let (listener, address) = silent();
    let gateway = Gateway::start(&public(address));
    for _ in 0..20 {
        let mut client = gateway.client();
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n");
        let mut server = accept(&listener);
        read_to(&mut server, b"1\r\nx\r\n");
        server.write_all(BEGUN).unwrap();
        assert_eq!((client.head().status, client.chunk()), (200, b"part".to_vec()));
        client.send(&b"400\r\n".iter().chain(&[b'x'; 1024]).chain(b"\r\n").copied().collect::<Vec<_>>().repeat(100));
        reset(server);
        assert_eq!(client.rest(), b"");
    }
}

#[test]
fn a_client_in_http2_sees_a_cut_response_as_a_reset() {
    let (listener, address) = silent();
    let secure = Secure::start(&public(address));
    run(async {
        let send = secure.h2().await;
        for (how, whole) in ENDS {
            let mut own = send.clone();
            let (answer, _) = own.send_request(request("GET /", &[]), true).unwrap();
            let mut server = accept(&listener);
            read_to(&mut server, b"\r\n\r\n");
            server.write_all(BEGUN).unwrap();
            let mut body = answer.await.unwrap().into_body();
            assert_eq!(body.data().await.unwrap().unwrap(), "part");
            let mut held = None;
            match how {
                "closes" => drop(server),
                "resets" => reset(server),
                _ => held = Some(server),
            }
            assert_eq!(ends(&mut body).await, whole, "{how}");
            drop(held);
        }
    });
}

/// Servers in HTTP/2 that end a body in a frame of its own, which is empty: Go's after a flush, Node's.
fn ending_apart() -> SocketAddr {
    serve(|stream| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            let mut body = respond.send_response(Response::new(()), false).unwrap();
            for piece in ["", "one", "", "two"] {
                body.send_data(Bytes::from(piece), false).unwrap();
            }
            body.send_data(Bytes::new(), true).unwrap();
        }
    })
}

/// CWE-444: a second last chunk would be read as the head of the next answer.
#[test]
fn a_body_has_one_last_chunk_also_where_its_last_frame_is_empty() {
    let address = ending_apart();
    let gateway = Gateway::start(&format!("[[route]]\naccess = \"public\"\nupstream = \"h2c://{address}\"\n"));
    let mut client = gateway.client();
    for _ in 0..20 {
        client.send(WAYS[0].0.as_bytes());
        let answer = client.answer();
        assert_eq!((answer.field("transfer-encoding"), answer.text().as_str()), (Some("chunked"), "onetwo"));
    }
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_eq!(client.head().status, 200);
    let rest = String::from_utf8(client.rest()).unwrap();
    assert_eq!((rest.matches("0\r\n\r\n").count(), rest.ends_with("0\r\n\r\n")), (1, true), "{rest:?}");
}

#[test]
fn answers_of_a_node_server_in_http2_follow_each_other_on_one_connection() {
    let Some(server) = crate::peers::node(&["h2c"]) else { return };
    let gateway = Gateway::start(&format!("[[route]]\naccess = \"public\"\nupstream = \"h2c://{}\"\n", server.address));
    let mut client = gateway.client();
    for number in 0..50 {
        let answer = client.get(&format!("/flushed?{number}"), &[]);
        assert_eq!((answer.status, answer.text().as_str()), (200, "flushed"));
    }
}

/// RFC 9110, 15.4.5: a 304 tells the length that the answer would have had, and ends with its head, whatever frames its
/// server says that in.
#[test]
fn a_304_with_a_length_of_a_server_in_http2_is_whole() {
    let address = serve(|stream| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let apart = request.uri().path() == "/apart";
            let head = Response::builder().status(304).header("content-length", "5").body(()).unwrap();
            let mut body = respond.send_response(head, !apart).unwrap();
            if apart {
                body.send_data(Bytes::new(), true).unwrap();
            }
        }
    });
    let secure = Secure::start(&format!("[[route]]\naccess = \"public\"\nupstream = \"h2c://{address}\"\n"));
    let mut client = secure.client("a.example.com");
    run(async {
        let send = secure.h2().await;
        for path in ["/at-once", "/apart", "/at-once", "/apart"] {
            let answer = client.get(path, &[]);
            assert_eq!((answer.status, answer.field("content-length")), (304, Some("5")), "{path}");
            let answer = ask(&send, request(&format!("GET {path}"), &[]), b"").await.unwrap();
            assert_eq!(answer.headers()["content-length"], "5");
            assert_eq!(read(answer).await.unwrap().0, 304, "{path}");
        }
    });
}

/// A server that has answered and forgotten a stream may end the whole connection over trailers that come late (Go does).
#[test]
fn trailers_of_a_request_are_not_sent_once_its_answer_has_begun() {
    let (sender, told) = channel();
    let address = serve(move |stream| {
        let sender = sender.clone();
        async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let sender = sender.clone();
                let at_once = request.uri().path() == "/at-once";
                tokio::spawn(async move {
                    let mut body = request.into_body();
                    let mut answer = at_once.then(|| respond.send_response(Response::new(()), false).unwrap());
                    while let Some(Ok(data)) = body.data().await {
                        let _ = body.flow_control().release_capacity(data.len());
                    }
                    sender.send(body.trailers().await.map_err(|e| e.to_string())).unwrap();
                    let answer = answer.get_or_insert_with(|| respond.send_response(Response::new(()), false).unwrap());
                    answer.send_data(Bytes::from("done"), true).unwrap();
                });
            }
        }
    });
    let secure = Secure::start(&format!("[[route]]\naccess = \"public\"\nupstream = \"h2c://{address}\"\n"));
    run(async {
        let mut send = secure.h2().await;
        for (path, passes) in [("/at-once", false), ("/later", true)] {
            let (answer, mut up) = send.send_request(request(&format!("POST {path}"), &[]), false).unwrap();
            up.send_data(Bytes::from("body"), false).unwrap();
            let mut trailers = HeaderMap::new();
            trailers.insert("x-checksum", "1".parse().unwrap());
            let answer = if passes {
                up.send_trailers(trailers).unwrap();
                answer.await.unwrap()
            } else {
                let answer = answer.await.unwrap();
                up.send_trailers(trailers).unwrap();
                answer
            };
            assert_eq!(read(answer).await.unwrap().1, "done");
            let got = told.recv_timeout(Duration::from_secs(20)).unwrap().unwrap();
            assert_eq!(got.is_some_and(|got| got.contains_key("x-checksum")), passes, "{path}");
        }
    });
}

/// The other direction: a server never takes half a body for a whole one.
#[test]
fn a_request_whose_client_breaks_off_has_no_last_chunk() {
    let (listener, address) = silent();
    let gateway = Gateway::start(&public(address));
    for how in ["closes", "resets", "stalls", "is malformed"] {
        let mut stream = TcpStream::connect(gateway.address).unwrap();
        stream.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n").unwrap();
        let mut server = accept(&listener);
        read_to(&mut server, b"2\r\nhi\r\n");
        let mut held = None;
        match how {
            "closes" => drop(stream),
            "resets" => reset(stream),
            "stalls" => held = Some(stream),
            _ => stream.write_all(b"zz\r\n").unwrap(),
        }
        let mut rest = Vec::new();
        let _ = server.read_to_end(&mut rest);
        assert_eq!(rest, b"", "{how}");
        drop(held);
    }
    let mut client: Client = gateway.client();
    client.send(WAYS[1].0.as_bytes());
    let mut server = accept(&listener);
    read_to(&mut server, b"2\r\nhi\r\n0\r\n\r\n");
    server.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
    assert_eq!(client.answer().text(), "ok");
}
