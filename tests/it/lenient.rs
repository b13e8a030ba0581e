//! What servers send that is a little off, and harmless: taken, and framed anew for the client (RFC 9110, 5.5 and 8.6; RFC
//! 9112, 5.1, 6.3 and 7.1). The same of a client is refused, and so is what two readers could frame differently.

use crate::backend::{Backend, ok};
use crate::gateway::Gateway;
use crate::known_attacks::{CHUNKED, both_ways, head, still_serves};

/// The answer of `/N`, by its number: what stands behind the status line, and what becomes of it.
const ANSWERS: &[(&str, u16)] = &[
    ("Transfer-Encoding: chunked\r\n\r\n2  \r\nok\r\n0\r\n\r\n", 200),
    ("Transfer-Encoding: chunked\r\n\r\n2\t; a=b\r\nok\r\n0   \r\n\r\n", 200),
    ("Transfer-Encoding: chunked\r\n\r\n2\nok\n0\n\n", 200),
    ("Transfer-Encoding: chunked\r\n\r\n2;a\nok\r\n0\nApp: 1\n\r\n", 200),
    ("Content-Length: 2\r\nContent-Length: 2\r\n\r\nok", 200),
    ("Content-Length: 2, 2\r\nApp: 1\r\n\r\nok", 200),
    ("App : kept\r\nContent-Length: 2\r\n\r\nok", 200),
    ("Transfer-Encoding: identity\r\nContent-Length: 2\r\n\r\nok", 200),
    ("Content-Length: 2\r\nContent-Length: 3\r\n\r\nok", 502),
    ("Content-Length: 2\r\nContent-Length: 02\r\n\r\nok", 502),
    ("Content-Length: 2, 3\r\n\r\nok", 502),
    ("Content-Length: 2,\r\n\r\nok", 502),
    ("Content-Length: +2\r\n\r\nok", 502),
    ("Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n", 502),
    ("Transfer-Encoding: chunked, identity\r\nContent-Length: 2\r\n\r\nok", 502),
    ("Transfer-Encoding: gzip\r\nContent-Length: 2\r\n\r\nok", 502),
    ("Transfer-Encoding: chunked\r\n\r\n 2\r\nok\r\n0\r\n\r\n", 502),
    ("Transfer-Encoding: chunked\r\n\r\n2 0\r\nok\r\n0\r\n\r\n", 502),
    ("Transfer-Encoding: chunked\r\n\r\n\r\n2\r\nok\r\n0\r\n\r\n", 502),
    ("App: a\u{1}b\r\nContent-Length: 2\r\n\r\nok", 502),
    ("Ap p: a\r\nContent-Length: 2\r\n\r\nok", 502),
];

#[test]
fn what_is_harmless_in_a_servers_answer_is_taken_and_framed_anew() {
    let backend = Backend::start(|request, stream| {
        let Ok(number) = request.line.split(['/', ' ']).nth(2).unwrap().parse::<usize>() else {
            return ok(request, stream);
        };
        let bytes = format!("HTTP/1.1 200 OK\r\n{}", ANSWERS[number].0);
        stream.write_all(bytes.as_bytes()).is_ok()
    });
    let gateway =
        Gateway::start(&format!("[[route]]\naccess = \"public\"\nupstream = \"http://{}\"\n", backend.address));
    for (number, (sent, status)) in ANSWERS.iter().enumerate() {
        let path = format!("/{number}");
        if *status == 200 {
            for answer in both_ways(&gateway, &path, &[]) {
                let framed = (answer.field("content-length"), answer.field("transfer-encoding"));
                let own = if sent.contains("Length") { (Some("2"), None) } else { (None, Some("chunked")) };
                assert_eq!((answer.status, answer.text().as_str(), framed), (200, "ok", own), "{sent:?}");
                assert!(!sent.contains("kept") || answer.field("app") == Some("kept"));
            }
        } else {
            assert_eq!(gateway.client().get(&path, &[]).status, *status, "{sent:?}");
            let mut client = gateway.client();
            client.send(head(&format!("POST {path}"), &[&[("Host", "a")], CHUNKED].concat()).as_bytes());
            client.send(b"2\r\nhi\r\n0\r\n\r\n");
            // a streamed one may have begun before its first chunk is found to be none
            assert!(
                [200, *status].contains(&client.head().status) && !client.rest().ends_with(b"0\r\n\r\n"),
                "{sent:?}"
            );
        }
        // whatever it was, the next one is its own
        assert_eq!(gateway.client().get("/plain", &[]).text(), "ok");
    }
    still_serves(&gateway);
}

/// What is wrong with an answer's version stands in the log.
#[test]
fn an_answer_in_a_version_that_is_none_is_502() {
    let backend =
        Backend::start(|_, stream| stream.write_all(b"HTTP/1.2 200 OK\r\nContent-Length: 2\r\n\r\nok").is_ok());
    let gateway =
        Gateway::start(&format!("[[route]]\naccess = \"public\"\nupstream = \"http://{}\"\n", backend.address));
    assert_eq!(gateway.client().get("/", &[]).status, 502);
    assert!(gateway.into_log().contains("malformed response head: not HTTP/1"));
}

/// CWE-444: of clients nothing of that kind is taken.
#[test]
fn chunks_of_a_client_are_framed_exactly_or_refused() {
    let backend = Backend::start(ok);
    let gateway =
        Gateway::start(&format!("[[route]]\naccess = \"public\"\nupstream = \"http://{}\"\n", backend.address));
    for (body, status) in [
        ("2\r\nhi\r\n0\r\n\r\n", 200),
        ("2;a=b;c=\"d e\"\r\nhi\r\n0;a\r\n\r\n", 200),
        ("2\r\nhi\r\n0\r\nX-Checksum: 1\r\nX-Other:\r\n\r\n", 200),
        ("2 \r\nhi\r\n0\r\n\r\n", 400),
        ("2 ;a=b\r\nhi\r\n0\r\n\r\n", 400),
        ("2\nhi\r\n0\r\n\r\n", 400),
        ("2\r\nhi\n0\r\n\r\n", 400),
        ("2\r\nhi\r\n0\n\r\n", 400),
        ("2\r\nhi\r\n0\r\n\n", 400),
        ("2;a\0b\r\nhi\r\n0\r\n\r\n", 400),
        ("2;a\u{1}\r\nhi\r\n0\r\n\r\n", 400),
        ("2\r\nhi\r\n0\r\nXXGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("2\r\nhi\r\n0\r\nX-Checksum : 1\r\n\r\n", 400),
        ("2\r\nhi\r\n0\r\n: 1\r\n\r\n", 400),
        ("2\r\nhi\r\n0\r\nX-Checksum: 1\r\n folded\r\n\r\n", 400),
        ("2\r\nhi\r\n0\r\nX-Checksum: \0\r\n\r\n", 400),
    ] {
        let mut client = gateway.client();
        client.send(head("POST /", &[&[("Host", "a")], CHUNKED].concat()).as_bytes());
        client.send(body.as_bytes());
        let answer = client.answer();
        assert_eq!(answer.status, status, "{body:?}");
        assert!(status == 200 || client.is_closed(), "{body:?}");
    }
    still_serves(&gateway);
}
