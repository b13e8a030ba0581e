//! What is shown and passed on as it came: paths in the log, reasons in refusals, queries.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

use serde_json::Value;

use crate::backend::Backend;
use crate::gateway::Gateway;
use crate::known_attacks::mirror;

/// Operators take a path from the log and ask `explain` about it: it must be the one that was asked for.
#[test]
fn the_access_log_names_the_path_that_was_asked_for() {
    let gateway = Gateway::start("[[route]]\naccess = \"public\"\nupstream = \"builtin:whoami\"\n");
    let paths =
        ["/a;b", "/what%3F.txt", "/a%23b", "/x%3Bv=1", "/a%252Fb", "/a%00b", "/caf%C3%A9", "/caf\u{e9}", "/a/../b"];
    for path in paths {
        gateway.client().get(&format!("{path}?secret=canary"), &[]);
    }
    for link in [
        "/.auth/invite/canary",
        "/.auth/invite;canary",
        "/.auth/invite%3Fcanary",
        "/.auth/x/../reset/canary",
        "/.AUTH/%69nvite/canary",
    ] {
        gateway.client().get(link, &[]);
    }
    let log = gateway.into_log();
    let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    // lines of different connections come in any order
    let told: Vec<_> = lines.iter().filter_map(|line| line["path"].as_str()).collect();
    for path in paths {
        assert!(told.contains(&path), "{path}: {told:?}");
    }
    assert!(!log.contains("canary"), "{log}");
}

#[test]
fn a_400_in_json_says_what_it_is_about() {
    let gateway = Gateway::start("[[route]]\naccess = \"public\"\nupstream = \"builtin:whoami\"\n");
    let ask = |line: &str, fields: &[(&str, &str)]| {
        let answer = gateway.client().request(line, fields, b"");
        let id = answer.field("x-request-id").unwrap().to_owned();
        assert_eq!((answer.status, answer.json()["error"].as_str()), (400, Some("bad_request")), "{line}");
        assert_eq!(answer.json()["request_id"], id.as_str());
        answer.json()["reason"].as_str().unwrap().to_owned()
    };
    assert_eq!(ask("GET /a%00b", &[]), "path");
    assert_eq!(ask("get /", &[]), "method");
    assert_eq!(ask("GET /", &[("Host", "a b")]), "host");
    assert_eq!(ask("GET /", &[("Host", "a"), ("Content-Length", "+1")]), "content-length");
    assert_eq!(ask("GET /", &[("Host", "a"), ("Host", "a")]), "host");
    let page = gateway.client().get("/a%00b", &[("Accept", "text/html")]);
    assert!(page.status == 400 && page.text().contains("<html"), "{page:?}");
}

/// promtool and hand-written PromQL send quotes; RFC 3986 has no place for them, and all apps take them.
#[test]
fn a_query_arrives_as_it_came() {
    let backend = Backend::start(mirror);
    let gateway =
        Gateway::start(&format!("[[route]]\naccess = \"public\"\nupstream = \"http://{}\"\n", backend.address));
    for query in ["up{job=\"x\"}", "q=caf\u{e9}", "a=[]{}|^\\", "%00%0d%0a%23", "a=b?c=d;e//../f"] {
        let answer = gateway.client().get(&format!("/x?{query}"), &[]);
        assert_eq!(
            (answer.status, answer.json()["line"].as_str()),
            (200, Some(format!("GET /x?{query} HTTP/1.1").as_str()))
        );
    }
    for query in ["a\u{7f}", "a#b", "a\tb"] {
        assert_eq!(gateway.client().get(&format!("/x?{query}"), &[]).status, 400, "{query:?}");
    }
}

/// Old programs send their own encoding; over HTTP/2, which its library has no place for that in, the bytes come escaped.
#[test]
fn a_query_that_is_no_utf8_is_forwarded_byte_for_byte() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, lines) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut stream = BufReader::new(stream);
            let (mut line, mut rest) = (Vec::new(), String::new());
            stream.read_until(b'\n', &mut line).unwrap();
            while rest != "\r\n" {
                rest.clear();
                stream.read_line(&mut rest).unwrap();
            }
            sender.send(line).unwrap();
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            stream.get_mut().write_all(answer).unwrap();
        }
    });
    let gateway = Gateway::start(&format!(
        "[[route]]\npath = \"/only/**\"\nmethods = [\"DELETE\"]\naccess = \"deny\"\n[[route]]\naccess = \"public\"\nupstream = \"http://{address}\"\n"
    ));
    let ask = |target: &[u8], accept: &str| {
        let mut client = gateway.client();
        client
            .send(&[b"GET ", target, format!(" HTTP/1.1\r\nHost: a\r\nAccept: {accept}\r\n\r\n").as_bytes()].concat());
        client.answer()
    };
    for target in [&b"/x?q=caf\xe9"[..], b"/x?\xff=\"\xfe\"", b"/x?q=caf\xe9&r=caf\xc3\xa9"] {
        assert_eq!(ask(target, "*/*").status, 200);
        assert_eq!(lines.recv().unwrap(), [b"GET ", target, b" HTTP/1.1\r\n"].concat());
    }
    // what stands in it is judged all the same, and a path is UTF-8
    assert_eq!(ask(b"/only/x?\xe9=1&_method=DELETE", "*/*").status, 403);
    for target in [&b"/caf\xe9"[..], b"/caf\xe9?q=1", b"/x?\xe9#", b"/x?\xe9 y"] {
        assert_eq!(ask(target, "*/*").status, 400, "{}", String::from_utf8_lossy(target));
    }
    let signed_in = Gateway::start(&format!("[[route]]\nupstream = \"http://{address}\"\n"));
    let mut client = signed_in.client();
    client.send(b"GET /x?q=caf\xe9 HTTP/1.1\r\nHost: a\r\nAccept: text/html\r\n\r\n");
    let login = client.answer();
    assert_eq!((login.status, login.field("location")), (303, Some("/.auth/login?callbackUrl=/x?q=caf%25E9")));
    assert!(lines.try_recv().is_err());
}

/// Password managers ask for it (W3C, "A Well-Known URL for Changing Passwords").
#[test]
fn change_password_leads_to_the_account_page_where_no_route_takes_it() {
    const PATH: &str = "/.well-known/change-password";
    let app = "[[route]]\nhost = \"a.test\"\npath = \"/app/**\"\nupstream = \"builtin:whoami\"\n";
    let gateway = Gateway::start(app);
    let ask = |gateway: &Gateway, line: &str, host: &str| gateway.client().request(line, &[("Host", host)], b"");
    let answer = ask(&gateway, &format!("GET {PATH}"), "a.test");
    assert_eq!((answer.status, answer.field("location")), (303, Some("/.auth/account")));
    assert_eq!(ask(&gateway, &format!("POST {PATH}"), "a.test").status, 405);
    assert_eq!(ask(&gateway, &format!("GET {PATH}/x"), "a.test").status, 404);
    assert_eq!(ask(&gateway, &format!("GET {PATH}"), "b.test").status, 404, "no host of ours");
    let taken = Gateway::start(&format!(
        "{app}[[route]]\npath = \"/.well-known/**\"\naccess = \"public\"\nupstream = \"builtin:whoami\"\n"
    ));
    assert_eq!(ask(&taken, &format!("GET {PATH}"), "a.test").json()["path"], PATH);
}

#[test]
fn pages_ask_not_to_be_indexed_and_apps_answers_are_left_alone() {
    let gateway = Gateway::start("[[route]]\naccess = \"public\"\nupstream = \"builtin:whoami\"\n");
    let page = gateway.client().get("/.auth/login", &[("Accept", "text/html")]);
    assert_eq!((page.status, page.field("x-robots-tag")), (200, Some("noindex")));
    assert_eq!(gateway.client().get("/x", &[]).field("x-robots-tag"), None);
}
