//! F: HTTP/1 framing. No two readers of one stream of bytes see different messages in it (CWE-444).

use std::io::{Read, Write};
use std::net::TcpListener;

use super::{CHUNKED, both_ways, head, stage, still_serves};
use crate::backend::{Backend, accept, ok};
use crate::client::Client;
use crate::gateway::Gateway;
use crate::websockets::HANDSHAKE;

const SMUGGLED: &str = "GET /public/smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

/// 400, closed, and nothing of it forwarded: as nobody on an open path, and as Ada.
fn refuse_all(heads: &[(&str, &str)]) {
    let stage = stage();
    for (head, body) in heads {
        let head = head.replace("/x ", "/public/f-refused ");
        for cookie in ["", &format!("Cookie: {}\r\n", stage.ada)] {
            stage.refuses(format!("{head}\r\n{cookie}\r\n{body}").as_bytes(), 400);
        }
    }
    assert!(stage.arrived("f-refused").is_empty());
    assert!(stage.arrived("smuggled").is_empty());
    assert_eq!(stage.get("/public/x", &[]).status, 200);
}

/// One answer each, chosen by the number at the end of the path.
fn numbered(request: &crate::backend::Received, stream: &mut dyn Write, answers: &[&str]) -> bool {
    let path = request.line.split(' ').nth(1).unwrap();
    match path.rsplit('/').next().unwrap().parse::<usize>() {
        Ok(number) => stream.write_all(answers[number].as_bytes()).is_ok(),
        Err(_) => ok(request, stream),
    }
}

fn open(backend: &Backend) -> Gateway {
    Gateway::start(&format!("[[route]]\naccess = \"public\"\nupstream = \"http://{}\"\n", backend.address))
}

/// RFC 9112, 6.1.
#[test]
fn f1_a_length_beside_a_coding_is_refused() {
    let body = format!("0\r\n\r\n{SMUGGLED}");
    refuse_all(&[
        ("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked", &body),
        ("POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\ncontent-length: 5", &body),
        ("GET /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 0", &body),
    ]);
}

/// HTTP Garden.
#[test]
fn f2_a_length_that_reads_two_ways_is_refused() {
    refuse_all(&[
        ("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 5", "abcde"),
        ("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 4", "abcd"),
        ("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 4, 4", "abcd"),
        ("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: +4", "abcd"),
        ("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: -4", "abcd"),
        ("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0x4", "abcd"),
        ("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 4 4", "abcd"),
        ("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: ", "abcd"),
        ("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999", "abcd"),
    ]);
    let stage = stage();
    let seen = stage.gateway.client().request("POST /public/x", &[("Content-Length", "0000004")], b"");
    assert_eq!(seen.status, 400, "zeros in front are read as octal by some");
    assert_eq!(stage.gateway.client().request("POST /public/x", &[], b"abcd").json()["body"], "abcd");
}

/// RUSTSEC-2026-0034.
#[test]
fn f3_a_coding_other_than_chunked_is_refused() {
    let body = format!("0\r\n\r\n{SMUGGLED}");
    refuse_all(&[
        ("POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity", &body),
        ("POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity, chunked", &body),
        ("POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked", &body),
        ("POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked", &body),
        ("POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked", &body),
        ("POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity", &body),
        ("POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1", &body),
        ("POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"", &body),
        ("POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \u{b}chunked", &body),
        ("POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked,", &body),
        ("POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:", &body),
    ]);
    // an alias that some backend folds onto it does not arrive, and what stands behind is no request
    let stage = stage();
    let mut client = stage.gateway.client();
    client.send(format!("POST /public/x HTTP/1.1\r\nHost: a\r\nTransfer_Encoding: chunked\r\n\r\n{body}").as_bytes());
    let answer = client.answer();
    assert_eq!((answer.status, answer.seen("transfer-encoding").len()), (200, 0));
    assert!(client.is_closed());
    assert!(stage.arrived("smuggled").is_empty());
}

/// RUSTSEC-2026-0034.
#[test]
fn f4_http_1_0_has_no_chunks() {
    refuse_all(&[("POST /x HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked", &format!("0\r\n\r\n{SMUGGLED}"))]);
    let stage = stage();
    let mut client = stage.gateway.client();
    client.send(b"POST /public/x HTTP/1.0\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
    assert_eq!(client.answer().json()["body"], "hi");
}

/// RFC 9112, 5.
#[test]
fn f5_fields_that_parsers_split_differently_are_refused() {
    refuse_all(&[
        ("GET /x HTTP/1.1\r\nHost : a", ""),
        ("GET /x HTTP/1.1\r\nHost: a\r\nContent-Length : 5", "abcde"),
        ("GET /x HTTP/1.1\r\nHost: a\r\nX: 1\r\n folded", ""),
        ("GET /x HTTP/1.1\r\nHost: a\r\nX: 1\r\n\tTransfer-Encoding: chunked", ""),
        ("GET /x HTTP/1.1\r\n Host: a", ""),
        ("GET /x HTTP/1.1\r\nHost: a\r\nX: a\0b", ""),
        ("GET /x HTTP/1.1\r\nHost: a\r\nX: a\rTransfer-Encoding: chunked", ""),
        ("GET /x HTTP/1.1\r\nHost: a\r\nX-No-Colon", ""),
        ("GET /x HTTP/1.1\r\nHost: a\r\n: nameless", ""),
        ("GET /x HTTP/1.1\r\nHost: a\r\nX(y): 1", ""),
        ("GET /x HTTP/1.1\r\nHost: a\r\nX\u{e9}: 1", ""),
        ("GET /x HTTP/1.1\r\nHost: a\r\nX\0: 1", ""),
    ]);
    assert_eq!(stage().get("/public/x", &[("X", "a:b \t c")]).seen("x"), ["a:b \t c"]);
}

/// RFC 9112, 2.2.
#[test]
fn f6_bare_line_feeds_and_returns_are_refused() {
    refuse_all(&[
        ("GET /x HTTP/1.1\nHost: a", ""),
        ("GET /x HTTP/1.1\r\nHost: a\nTransfer-Encoding: chunked", ""),
        ("GET /x HTTP/1.1\r\nHost: a\n", ""),
        ("GET /x HTTP/1.1\rHost: a", ""),
        ("\nGET /x HTTP/1.1\r\nHost: a", ""),
    ]);
    let stage = stage();
    let mut client = stage.gateway.client();
    client.send(b"\r\n\r\nGET /public/x HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer().status, 200, "empty lines in front are let through");
}

/// RFC 9112, 3.2.
#[test]
fn f7_a_request_has_one_host() {
    refuse_all(&[
        ("GET /x HTTP/1.1", ""),
        ("GET /x HTTP/1.1\r\nHost:", ""),
        ("GET /x HTTP/1.1\r\nHost: a\r\nHost: b", ""),
        ("GET /x HTTP/1.1\r\nHost: a\r\nhost: a", ""),
        ("GET http://a/x HTTP/1.1", ""),
    ]);
}

/// RFC 9112, 3.2.2: an absolute target and a Host that differ.
#[test]
fn f8_an_absolute_target_names_the_same_host() {
    refuse_all(&[
        ("GET http://other/x HTTP/1.1\r\nHost: a", ""),
        ("GET http://a@other/x HTTP/1.1\r\nHost: a", ""),
        ("GET http://a:81/x HTTP/1.1\r\nHost: a", ""),
        ("GET gopher://a/x HTTP/1.1\r\nHost: a", ""),
    ]);
    let stage = stage();
    let mut client = stage.gateway.client();
    client.send(b"GET http://a/public/abs?x HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer().json()["line"], "GET /public/abs?x HTTP/1.1");
    let mut client = stage.gateway.client();
    client.send(b"GET http://a/public/%00app HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer().status, 400);
    // read in other ways, it is what only the signed in may see
    for target in ["http://a/public/../app", "//a/public/x"] {
        let mut client = stage.gateway.client();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        assert_eq!(client.answer().status, 401, "{target}");
    }
}

/// RFC 9112, 3: a request line is never repaired. sozu's HTTP/1 attack suite.
#[test]
fn f9_a_request_line_that_is_none_is_refused() {
    refuse_all(&[
        ("GET /x ", ""),
        ("GET /x HTTP/2.0\r\nHost: a", ""),
        ("GET /x HTTP/1.2\r\nHost: a", ""),
        ("GET /x http/1.1\r\nHost: a", ""),
        ("GET /x HTTP/1.1 \r\nHost: a", ""),
        ("GET  /x HTTP/1.1\r\nHost: a", ""),
        ("GET\t/x HTTP/1.1\r\nHost: a", ""),
        ("GET /x /x HTTP/1.1\r\nHost: a", ""),
        ("GET /x\u{1} HTTP/1.1\r\nHost: a", ""),
        ("G\0T /x HTTP/1.1\r\nHost: a", ""),
        ("\u{16}\u{3}\u{1}", ""),
        ("PRI * HTTP/2.0\r\n", "SM\r\n\r\n"),
    ]);
}

/// hyper CVE-2021-32714, and what other readers take for a number.
#[test]
fn f10_a_chunk_size_that_reads_two_ways_ends_the_request() {
    let stage = stage();
    for body in [
        "ffffffffffffffff1\r\nhello\r\n0\r\n\r\n",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "5_0\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\rhello\r\n0\r\n\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        ";5\r\nhello\r\n0\r\n\r\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "\u{0}5\r\nhello\r\n0\r\n\r\n",
        "\r\n\r\n",
    ] {
        let mut client = stage.gateway.client();
        client.send(head("POST /public/f10", &[&[("Host", "a")], CHUNKED].concat()).as_bytes());
        client.send(format!("{body}{SMUGGLED}").as_bytes());
        let said = String::from_utf8_lossy(&client.rest()).into_owned();
        assert!(said.starts_with("HTTP/1.1 400"), "{body:?}: {said}");
        assert_eq!(said.matches("HTTP/1.1 ").count(), 1, "{body:?}: {said}");
        still_serves(&stage.gateway);
    }
    assert!(stage.arrived("/public/f10").is_empty());
    assert!(stage.arrived("smuggled").is_empty());
    let mut client = stage.gateway.client();
    client.send(head("POST /public/x", &[&[("Host", "a")], CHUNKED].concat()).as_bytes());
    client.send(b"0005;a=\"b\"\r\nhello\r\n1\r\n!\r\n00\r\nTrailer: x\r\n\r\n");
    let answer = client.answer();
    assert_eq!((answer.status, &answer.json()["body"]), (200, &"hello!".into()));
    assert!(answer.seen("trailer").is_empty());
}

/// RFC 9112, 9.3.2. What stands behind a request in the same packet could have been put there by somebody
/// else: it is never answered. Two requests one after the other are.
#[test]
fn f11_bytes_behind_a_request_are_never_taken_for_another_one() {
    let stage = stage();
    for first in [
        "GET /public/x HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /public/x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab",
        "POST /public/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
        "GET /.auth/me HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        let mut client = stage.gateway.client();
        client.send(format!("{first}{SMUGGLED}").as_bytes());
        let expected = if first.contains("/me") { 401 } else { 200 };
        assert_eq!(client.answer().status, expected, "{first}");
        assert!(client.is_closed(), "{first}");
        let mut client = stage.gateway.client();
        for request in [first, first] {
            client.send(request.as_bytes());
            assert_eq!(client.answer().status, expected, "{first}");
        }
    }
    assert!(stage.arrived("smuggled").is_empty());
    still_serves(&stage.gateway);
}

/// Heads of answers that frame two ways, or not at all.
const BAD_HEADS: &[&str] = &[
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
    "HTTP/1.1 099 Odd\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nApp: a\r\n folded\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nApp: a\0b\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/2 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "nonsense\r\n\r\n",
];

/// Bodies that break off, or are framed by nobody's rules.
const BAD_BODIES: &[&str] = &[
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x2\r\nok\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nokX\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff1\r\nok\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
];

/// RUSTSEC-2025-0037, RFC 9112, 6.3.
#[test]
fn f12_an_answer_that_frames_two_ways_is_a_bad_gateway_and_its_connection_is_not_used_again() {
    let backend = Backend::start(|request, stream| {
        numbered(request, stream, &[BAD_HEADS, BAD_BODIES].concat()) && request.line.contains("/good")
    });
    let gateway = open(&backend);
    let mut used = Vec::new();
    for (number, sent) in BAD_HEADS.iter().enumerate() {
        let [plain, streamed] = both_ways(&gateway, &format!("/{number}"), &[]);
        assert_eq!((plain.status, streamed.status), (502, 502), "{sent}: {streamed:?}");
        used.extend([backend.next().connection, backend.next().connection]);
    }
    for (number, sent) in BAD_BODIES.iter().enumerate() {
        let path = format!("/{}", BAD_HEADS.len() + number);
        for (line, fields, body) in [("GET", &[][..], ""), ("POST", CHUNKED, "2\r\nhi\r\n0\r\n\r\n")] {
            let mut client = gateway.client();
            client.send(head(&format!("{line} {path}"), &[&[("Host", "a")], fields].concat()).as_bytes());
            client.send(body.as_bytes());
            let said = String::from_utf8_lossy(&client.rest()).into_owned();
            let broken =
                said.starts_with("HTTP/1.1 502") || !(said.ends_with("0\r\n\r\n") || said.contains("length: 2"));
            assert!(broken, "{line} {sent}: {said}");
            used.push(backend.next().connection);
        }
    }
    assert_eq!(used.len(), used.iter().collect::<std::collections::HashSet<_>>().len(), "{used:?}");
    assert_eq!(gateway.client().get("/good", &[]).text(), "ok");
    still_serves(&gateway);
}

/// Response-queue poisoning: what stands behind an answer would be the next one's.
#[test]
fn f13_what_an_upstream_sends_behind_its_answer_reaches_no_one() {
    let backend = Backend::start(|_, stream| {
        let evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
        stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok{evil}").as_bytes()).is_ok()
    });
    let gateway = open(&backend);
    let mut client = gateway.client();
    for _ in 0..4 {
        assert_eq!(client.get("/", &[]).text(), "ok");
        for answer in both_ways(&gateway, "/", &[]) {
            assert_eq!(answer.text(), "ok");
        }
    }
    still_serves(&gateway);
}

/// A 101 that nobody asked for would turn requests into a tunnel; heads without end hold a connection.
#[test]
fn f14_interim_answers_are_bounded_and_an_upgrade_must_have_been_asked_for() {
    let backend = Backend::start(|request, stream| {
        let interim = |count: usize| "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n".repeat(count);
        let done = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        let sent = match request.line.split(' ').nth(1).unwrap() {
            "/upgrade" => {
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nframes".into()
            }
            "/many" => interim(200) + done,
            "/continue" => "HTTP/1.1 100 Continue\r\n\r\n".repeat(200) + done,
            "/few" => interim(1) + done,
            "/one" => format!("HTTP/1.1 100 Continue\r\n\r\n{done}"),
            _ => done.into(),
        };
        stream.write_all(sent.as_bytes()).is_ok()
    });
    let gateway = open(&backend);
    for path in ["/upgrade", "/many", "/continue"] {
        for (line, fields, body) in [("GET", &[][..], ""), ("POST", CHUNKED, "2\r\nhi\r\n0\r\n\r\n")] {
            let mut client = gateway.client();
            client.send(head(&format!("{line} {path}"), &[&[("Host", "a")], fields].concat()).as_bytes());
            client.send(body.as_bytes());
            let said = String::from_utf8_lossy(&client.rest()).into_owned();
            let interims = said.matches("HTTP/1.1 1").count();
            assert!(
                said.contains("HTTP/1.1 502") && interims <= 10 && !said.contains(" 200 "),
                "{line} {path}: {said}"
            );
        }
    }
    // beside a server that speaks HTTP/2 alone there is no tunnel, whatever a client asks for
    let mixed = Gateway::start(&format!(
        "[[upstream]]\nname = \"mixed\"\nservers = [\"{}\", \"h2c://127.0.0.1:9\"]\n[[route]]\naccess = \"public\"\nupstream = \"mixed\"\n",
        backend.address
    ));
    assert_eq!(mixed.client().get("/upgrade", HANDSHAKE).status, 502);
    assert_eq!(mixed.client().get("/one", HANDSHAKE).status, 200);
    let mut client = gateway.client();
    assert_eq!(client.get("/one", &[]).text(), "ok");
    client.send(b"GET /few HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((client.head().status, client.head().status), (103, 200));
    still_serves(&gateway);
}

/// RFC 9112, 6.3: answers without a body, and a body behind them all the same.
#[test]
fn f15_a_body_where_none_may_be_is_not_passed_on_and_shifts_no_answer() {
    let backend = Backend::start(|request, stream| {
        let evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
        let sent = match request.line.split(' ').nth(1).unwrap() {
            "/head" => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{evil}", evil.len()),
            "/204" => format!("HTTP/1.1 204 No Content\r\n\r\n{evil}"),
            "/204-length" => format!("HTTP/1.1 204 No Content\r\nContent-Length: {}\r\n\r\n{evil}", evil.len()),
            "/304" => format!("HTTP/1.1 304 Not Modified\r\nContent-Length: {}\r\n\r\n{evil}", evil.len()),
            _ => return ok(request, stream),
        };
        stream.write_all(sent.as_bytes()).is_ok()
    });
    let gateway = open(&backend);
    for (line, path, status) in
        [("HEAD", "/head", 200), ("GET", "/204", 204), ("GET", "/204-length", 204), ("GET", "/304", 304)]
    {
        for version in ["1.1", "1.0"] {
            let mut client = gateway.client();
            client.send(format!("{line} {path} HTTP/{version}\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes());
            assert_eq!(client.head().status, status);
            assert_eq!(client.rest(), b"", "{path}");
            for answer in both_ways(&gateway, "/next", &[]) {
                assert_eq!(answer.text(), "ok", "{path}");
            }
        }
    }
    still_serves(&gateway);
}

/// RFC 9112, 6.3: a message that was cut off is none, and its connection is not for another request.
#[test]
fn f16_a_client_that_goes_away_in_its_body_leaves_nothing_behind() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let gateway = Gateway::start(&format!("[[route]]\naccess = \"public\"\nupstream = \"http://{address}\"\n"));
    // streamed: the upstream has a part of it, and then the end
    let mut client = gateway.client();
    client.send(b"POST /large HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\npart");
    let mut upstream = accept(&listener);
    let mut bytes = [0; 4096];
    let mut got = String::new();
    while !got.ends_with("part") {
        let count = upstream.read(&mut bytes).unwrap();
        assert!(count > 0, "{got}");
        got.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
    drop(client);
    assert_eq!(upstream.read(&mut bytes).unwrap_or(0), 0);
    // read whole before it is sent on: nothing arrives, and the next request is the first one there
    let mut client = gateway.client();
    client.send(b"POST /small HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\npart");
    drop(client);
    let mut client: Client = gateway.client();
    client.send(b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut upstream = accept(&listener);
    let count = upstream.read(&mut bytes).unwrap();
    assert!(bytes[..count].starts_with(b"GET /next HTTP/1.1\r\n"));
    upstream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
    assert_eq!(client.answer().text(), "ok");
    still_serves(&gateway);
}

/// RFC 9110, 10.1.1: a body that will be refused is not asked for.
#[test]
fn f17_a_body_over_the_limit_is_refused_before_it_is_sent() {
    let backend = Backend::start(ok);
    let gateway = Gateway::start(&format!(
        "[[route]]\naccess = \"public\"\nbody_max = \"1KiB\"\nupstream = \"http://{}\"\n",
        backend.address
    ));
    let asks = |path: &str, length: &str| {
        let mut client = gateway.client();
        let fields = [
            ("Host", "a"),
            ("Content-Length", length),
            ("Expect", "100-continue"),
            ("Content-Type", "application/json"),
        ];
        client.send(head(&format!("POST {path}"), &fields).as_bytes());
        (client.head().status, client)
    };
    assert_eq!(asks("/", "1025").0, 413);
    assert_eq!(asks("/", "99999999999").0, 413);
    assert_eq!(asks("/.auth/login", "8193").0, 413);
    assert!(backend.all().is_empty());
    let (status, mut client) = asks("/", "4");
    assert_eq!(status, 100);
    client.send(b"body");
    assert_eq!((client.answer().status, backend.next().body), (200, b"body".to_vec()));
    still_serves(&gateway);
}

/// Traefik CVE-2026-71324 (CONNECT poisoned the kept connections), OWASP ASVS 13.4.4.
#[test]
fn f18_connect_trace_and_track_are_405_and_every_other_method_passes() {
    let stage = stage();
    for method in ["TRACE", "TRACK"] {
        stage.refuses(head(&format!("{method} /public/x"), &[("Host", "a"), ("X-Mark", "f-traced")]).as_bytes(), 405);
    }
    for target in ["a:443", "http://a/x", "/public/x"] {
        stage.refuses(head(&format!("CONNECT {target}"), &[("Host", "a:443"), ("X-Mark", "f-traced")]).as_bytes(), 405);
    }
    assert!(stage.arrived("f-traced").is_empty());
    for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "MKCALENDAR", "M-SEARCH"] {
        assert_eq!(stage.gateway.client().request(&format!("{method} /public/f18-{method}"), &[], b"").status, 200);
        assert_eq!(stage.arrived(&format!("f18-{method} "))[0].line, format!("{method} /public/f18-{method} HTTP/1.1"));
    }
}

/// Where an answer has no body by its status, data that come all the same in HTTP/2 are no answer to the next request
/// (RFC 9110, 15.3.5 and 15.4.5): whoever keeps the connection would take them for one.
#[test]
fn f19_data_behind_a_204_or_304_of_a_server_in_http2_reach_no_one() {
    use crate::h2::serve;
    let address = serve(|stream| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let path = request.uri().path().trim_matches('/');
            let (status, data) = path.split_once('/').unwrap();
            let head = http::Response::builder().status(status).body(()).unwrap();
            let Ok(mut body) = respond.send_response(head, false) else { return };
            let data = if data == "evil" { SMUGGLED_ANSWER } else { "" };
            let _ = body.send_data(bytes::Bytes::from_static(data.as_bytes()), true);
        }
    });
    let gateway = Gateway::start(&format!("[[route]]\naccess = \"public\"\nupstream = \"h2c://{address}\"\n"));
    for line in ["GET /204/", "GET /304/", "HEAD /200/"] {
        let mut client = gateway.client();
        for data in ["none", "none", "evil", "none"] {
            assert_eq!(
                client.request(&format!("{line}{data}"), &[], b"").status,
                line[line.len() - 4..line.len() - 1].parse::<u16>().unwrap()
            );
        }
        client.request(&format!("{line}evil"), &[("Connection", "close")], b"");
        assert_eq!(client.rest(), b"", "{line}");
    }
    still_serves(&gateway);
}

const SMUGGLED_ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
