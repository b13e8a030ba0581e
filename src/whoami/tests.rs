//! Facts about the built-in backend, proved on a pipe in memory.

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::serve;

/// Everything that is answered to these bytes until the server ends.
async fn answers(request: &[u8]) -> String {
    let (mut client, server) = duplex(1 << 20);
    client.write_all(request).await.unwrap();
    client.shutdown().await.unwrap();
    serve(server).await;
    let mut all = Vec::new();
    client.read_to_end(&mut all).await.unwrap();
    String::from_utf8(all).unwrap()
}

fn json_answer(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nCache-Control: no-store\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn a_program_is_told_what_was_received_in_order_and_in_its_own_case() {
    let seen = answers(b"GET /a?b=c HTTP/1.1\r\nHost: x\r\nX-B: 2\r\nx-a: 1\r\nX-B: \xff\r\n\r\n").await;
    let body = r#"{"method":"GET","path":"/a?b=c","headers":[["Host","x"],["X-B","2"],["x-a","1"],["X-B","�"]],"body_bytes":0}"#;
    assert_eq!(seen, json_answer(body));
}

#[tokio::test]
async fn requests_follow_each_other_on_one_connection_and_bodies_are_counted() {
    let seen = answers(
        b"POST /1 HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello\
          PUT /2 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\nT: v\r\n\r\n\
          HEAD /3 HTTP/1.1\r\n\r\n",
    )
    .await;
    let one = r#"{"method":"POST","path":"/1","headers":[["Content-Length","5"]],"body_bytes":5}"#;
    let two = r#"{"method":"PUT","path":"/2","headers":[["Transfer-Encoding","chunked"]],"body_bytes":13}"#;
    let three = r#"{"method":"HEAD","path":"/3","headers":[],"body_bytes":0}"#;
    let head_alone = json_answer(three).replace(three, "");
    assert_eq!(seen, [json_answer(one), json_answer(two), head_alone].concat());
}

/// hyper parses the head; what is shown comes from a copy of its bytes, which must begin where the head begins.
#[tokio::test]
async fn every_head_is_shown_as_sent_however_requests_and_reads_are_cut() {
    let sent: &[u8] = b"\r\nPOST /1 HTTP/1.1\nHOST: a\nTransfer-Encoding: chunked\n\n\
          1a\r\nGET /no HTTP/1.1\r\nX: 1\r\n\r\n\r\n2\r\n\n\n\r\n0\r\nT: v\r\n\r\n\
          POST /2 HTTP/1.1\r\nx-A: 1\r\nContent-Length: 22\r\n\r\nGET /no HTTP/1.1\r\n\r\n\r\n\
          GET /3 HTTP/1.1\r\nX-a: 2\r\n\r\n";
    let expected = [
        json_answer(
            r#"{"method":"POST","path":"/1","headers":[["HOST","a"],["Transfer-Encoding","chunked"]],"body_bytes":28}"#,
        ),
        json_answer(r#"{"method":"POST","path":"/2","headers":[["x-A","1"],["Content-Length","22"]],"body_bytes":22}"#),
        json_answer(r#"{"method":"GET","path":"/3","headers":[["X-a","2"]],"body_bytes":0}"#),
    ]
    .concat();
    assert_eq!(answers(sent).await, expected);
    for piece_bytes in [1, 2, 3, 7, 50] {
        let (mut client, server) = duplex(piece_bytes);
        let (server, mut seen) = (tokio::spawn(serve(server)), Vec::new());
        let (mut from, mut to) = tokio::io::split(&mut client);
        let send = async {
            to.write_all(sent).await.unwrap();
            to.shutdown().await.unwrap();
        };
        tokio::join!(send, async { from.read_to_end(&mut seen).await.unwrap() });
        assert_eq!(String::from_utf8(seen).unwrap(), expected, "{piece_bytes} bytes at a time");
        server.await.unwrap();
    }
}

#[tokio::test]
async fn a_target_that_is_no_uri_is_shown_as_sent() {
    for target in ["/<b>`\"{}|^[]\\", "/caf\u{e9}?\u{e9}#x", "*", "http://a.test:80/x?y", "//x"] {
        let seen = answers(format!("OPTIONS {target} HTTP/1.1\r\n\r\n").as_bytes()).await;
        let shown = serde_json::to_string(target).unwrap();
        assert!(
            seen.ends_with(&format!("{{\"method\":\"OPTIONS\",\"path\":{shown},\"headers\":[],\"body_bytes\":0}}")),
            "{seen}"
        );
    }
    assert!(answers(b"GET /\xe9 HTTP/1.1\r\n\r\n").await.contains("\"path\":\"/\u{fffd}\""));
}

#[tokio::test]
async fn a_browser_gets_a_page_on_which_nothing_of_the_request_is_markup() {
    let seen = answers(
        b"GET /<b> HTTP/1.1\r\nAccept: text/html\r\nRemote-User: ada%2B@example.com\r\nRemote-Name: A%C3%A9 <i>\r\n\r\n",
    )
    .await;
    assert!(seen.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nCache-Control: no-store\r\nContent-Security-Policy: default-src 'none'; style-src 'sha256-"));
    for markup in ["<b>", "<i>"] {
        assert!(!seen.contains(markup), "{markup} in {seen}");
    }
    assert!(seen.contains("You are <strong>Aé &#60;i&#62; (ada+@example.com)</strong>."), "{seen}");
    assert!(seen.contains("<th scope=\"row\">Remote-Name<td>A%C3%A9 &#60;i&#62;"), "{seen}");
    let nobody = answers(b"GET / HTTP/1.1\r\nAccept: text/html\r\n\r\n").await;
    assert!(nobody.contains("You are not signed in."));
}

#[tokio::test]
async fn who_waits_for_100_continue_gets_it_before_the_body() {
    let (mut client, server) = duplex(1 << 16);
    let server = tokio::spawn(serve(server));
    client
        .write_all(b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut interim = [0; 25];
    client.read_exact(&mut interim).await.unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    client.write_all(b"ok").await.unwrap();
    let mut rest = String::new();
    client.read_to_string(&mut rest).await.unwrap();
    assert!(rest.starts_with("HTTP/1.1 200 OK\r\n") && rest.contains("\"body_bytes\":2"), "{rest}");
    server.await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_read_is_answered_400_or_431_and_the_connection_ends() {
    let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(70_000));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: a\r\n".repeat(201));
    for (request, status) in [
        (b"\x00\x01\x02\r\n\r\n".as_slice(), "400 Bad Request"),
        (b"GET /\r\n\r\n", "400 Bad Request"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", "400 Bad Request"),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400 Bad Request"),
        (b"POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\na", "400 Bad Request"),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\na", "400 Bad Request"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "400 Bad Request"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n", "400 Bad Request"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n", "400 Bad Request"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\n\n", "400 Bad Request"),
        (b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "400 Bad Request"),
        (long.as_bytes(), "431 Request Header Fields Too Large"),
        (many.as_bytes(), "431 Request Header Fields Too Large"),
    ] {
        let seen = answers(request).await;
        assert!(
            seen.starts_with(&format!("HTTP/1.1 {status}\r\n")),
            "{:?} got {seen}",
            String::from_utf8_lossy(request)
        );
        assert!(seen.contains("\r\nConnection: close\r\n"), "{seen}");
    }
    for cut in [b"".as_slice(), b"GET / HT", b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nab"] {
        assert_eq!(answers(cut).await, "", "{cut:?}");
    }
}

#[tokio::test]
async fn no_prefix_and_no_mutation_of_a_request_makes_it_panic() {
    let whole = b"POST /x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n";
    for cut in 0..whole.len() {
        answers(&whole[..cut]).await;
        for byte in [0, b'\n', b':', 0xff] {
            let mut changed = whole.to_vec();
            changed[cut] = byte;
            answers(&changed).await;
        }
    }
}

#[tokio::test]
async fn a_body_of_64_mib_passes_through_a_small_pipe() {
    let (mut client, server) = duplex(1 << 14);
    let server = tokio::spawn(serve(server));
    let bytes = 64 << 20;
    client
        .write_all(format!("POST / HTTP/1.1\r\nConnection: close\r\nContent-Length: {bytes}\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let block = vec![7; 1 << 16];
    for _ in 0..bytes / block.len() {
        client.write_all(&block).await.unwrap();
    }
    let mut seen = String::new();
    client.read_to_string(&mut seen).await.unwrap();
    assert!(seen.contains("\"body_bytes\":67108864"), "{seen}");
    server.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_event_stream_counts_until_the_client_goes() {
    let (mut client, server) = duplex(1 << 12);
    let server = tokio::spawn(serve(server));
    client.write_all(b"GET /x/events?y HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let expected = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: 0\n\n\r\n9\r\ndata: 1\n\n\r\n9\r\ndata: 2\n\n\r\n";
    let mut seen = vec![0; expected.len()];
    client.read_exact(&mut seen).await.unwrap();
    assert_eq!(String::from_utf8(seen).unwrap(), expected);
    drop(client);
    server.await.unwrap();
}

/// A handshake whose answer and first message have been read.
async fn open_socket() -> DuplexStream {
    let (mut client, server) = duplex(1 << 22);
    tokio::spawn(serve(server));
    // the key and its answer are those of RFC 6455, 1.3
    client
        .write_all(b"GET /ws HTTP/1.1\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
        .await
        .unwrap();
    let expected = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-Websocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    let mut seen = vec![0; expected.len()];
    client.read_exact(&mut seen).await.unwrap();
    assert_eq!(String::from_utf8(seen).unwrap(), expected);
    let mut start = [0; 4];
    client.read_exact(&mut start).await.unwrap();
    assert_eq!(start[..2], [0x81, 126]);
    let mut first = vec![0; usize::from(u16::from_be_bytes([start[2], start[3]]))];
    client.read_exact(&mut first).await.unwrap();
    assert_eq!(
        String::from_utf8(first).unwrap(),
        r#"{"method":"GET","path":"/ws","headers":[["Connection","keep-alive, Upgrade"],["Upgrade","websocket"],["Sec-WebSocket-Version","13"],["Sec-WebSocket-Key","dGhlIHNhbXBsZSBub25jZQ=="]],"body_bytes":0}"#
    );
    client
}

/// A masked frame as a client sends it.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        short @ ..126 => bytes.push(0x80 | u8::try_from(short).unwrap()),
        middle @ 126..65536 => {
            bytes.push(0xfe);
            bytes.extend_from_slice(&u16::try_from(middle).unwrap().to_be_bytes());
        }
        long => {
            bytes.push(0xff);
            bytes.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    let mask = [1, 2, 3, 4];
    bytes.extend_from_slice(&mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// What is sent to these bytes until the socket ends.
async fn to_the_end(frames: &[u8]) -> Vec<u8> {
    let mut client = open_socket().await;
    client.write_all(frames).await.unwrap();
    let mut seen = Vec::new();
    client.read_to_end(&mut seen).await.unwrap();
    seen
}

#[tokio::test]
async fn messages_come_back_whole_and_control_frames_may_stand_between_their_parts() {
    let sent = [
        frame(0x81, b"hello"),
        frame(0x02, b"ab"),
        frame(0x89, b"ping"),
        frame(0x8a, b"unasked"),
        frame(0x80, b"cd"),
        frame(0x88, b"\x03\xe8bye"),
    ]
    .concat();
    let expected = [b"\x81\x05hello".as_slice(), b"\x8a\x04ping", b"\x82\x04abcd", b"\x88\x05\x03\xe8bye"].concat();
    assert_eq!(to_the_end(&sent).await, expected);
}

#[tokio::test]
async fn a_message_of_1_mib_comes_back_and_one_byte_more_is_closed_1009() {
    let big = vec![b'x'; 1 << 20];
    let seen = to_the_end(&[frame(0x82, &big), frame(0x88, b"")].concat()).await;
    let expected = [b"\x82\x7f\x00\x00\x00\x00\x00\x10\x00\x00".as_slice(), &big, b"\x88\x00"].concat();
    assert!(seen == expected, "{} bytes", seen.len());
    let parts = [frame(0x02, &big), frame(0x80, b"x")].concat();
    assert_eq!(to_the_end(&parts).await, b"\x88\x02\x03\xf1");
    let huge = [b"\x82\xff".as_slice(), &u64::MAX.to_be_bytes(), &[0; 4]].concat();
    assert_eq!(to_the_end(&huge).await, b"\x88\x02\x03\xf1");
}

#[tokio::test]
async fn what_the_rfc_forbids_is_closed_1002_and_bad_text_1007() {
    for (what, sent) in [
        ("an unmasked frame", b"\x81\x05hello".to_vec()),
        ("a reserved bit", frame(0xc1, b"x")),
        ("an unknown opcode", frame(0x83, b"x")),
        ("an unknown control opcode", frame(0x8b, b"x")),
        ("a continuation of nothing", frame(0x80, b"x")),
        ("a message within a message", [frame(0x01, b"x"), frame(0x81, b"y")].concat()),
        ("a long ping", frame(0x89, &[0; 126])),
        ("a ping in parts", frame(0x09, b"x")),
        ("a close code of one byte", frame(0x88, b"x")),
        ("a close code that is never sent", frame(0x88, b"\x03\xed")),
    ] {
        let seen = to_the_end(&sent).await;
        assert_eq!((seen[0], &seen[2..4]), (0x88, [3, 0xea].as_slice()), "{what}");
    }
    for bad_text in [frame(0x81, b"\xff"), frame(0x88, b"\x03\xe8\xff")] {
        assert_eq!(to_the_end(&bad_text).await, b"\x88\x02\x03\xef");
    }
}
