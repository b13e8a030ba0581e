//! `upgrade`: protocols besides WebSockets that a connection may be switched to (RFC 9110, 7.8), as kubectl's SPDY and
//! Docker's `tcp`: passed as bytes, ended with the session, and to be asked for and granted by name.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use crate::backend::Backend;
use crate::client::Client;
use crate::gateway::Gateway;
use crate::known_attacks::{head, mirror};

/// Switches to what it is asked for (`/as/NAME`: to that), and sends back what it gets.
fn switching() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                while !bytes.windows(4).any(|four| four == b"\r\n\r\n") {
                    let mut piece = [0; 4096];
                    let count = stream.read(&mut piece).unwrap();
                    if count == 0 {
                        return;
                    }
                    bytes.extend_from_slice(&piece[..count]);
                }
                let request = String::from_utf8_lossy(&bytes).into_owned();
                let asked = request.lines().find_map(|line| line.strip_prefix("Upgrade: "));
                let line = request.lines().next().unwrap();
                let protocol = line.split(' ').nth(1).unwrap().strip_prefix("/as/").or(asked).unwrap_or("none");
                let user = request.lines().find_map(|line| line.strip_prefix("Remote-User: ")).unwrap_or("nobody");
                let answer = format!(
                    "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\nApp: {user}\r\n\r\n"
                );
                let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
                stream.write_all(&[answer.as_bytes(), &bytes[end..]].concat()).unwrap();
                let mut piece = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut piece) {
                    if stream.write_all(&piece[..count]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// Asks to switch; gives the client and the status.
fn ask(gateway: &Gateway, line: &str, protocol: &str, fields: &[(&str, &str)], body: &str) -> (Client, u16, String) {
    let mut client = gateway.client();
    let own = [("Host", "a"), ("Connection", "Upgrade"), ("Upgrade", protocol)];
    client.send(head(line, &[&own, fields].concat()).as_bytes());
    client.send(body.as_bytes());
    let answer = client.head();
    let user = answer.field("app").unwrap_or_default().to_owned();
    (client, answer.status, user)
}

#[test]
fn a_protocol_that_the_route_names_is_switched_to_and_ends_with_its_session() {
    let address = switching();
    let gateway =
        Gateway::start(&format!("[[route]]\nupgrade = [\"spdy/3.1\", \"tcp\"]\nupstream = \"http://{address}\"\n"));
    let stays = gateway.first_account();
    let goes = gateway.sign_in("ada@example.com");
    let open = |line: &str, protocol: &str, cookie: &str, body: &str| {
        let length = body.len().to_string();
        let (mut client, status, user) =
            ask(&gateway, line, protocol, &[("Cookie", cookie), ("Content-Length", &length)], body);
        assert_eq!((status, user.as_str()), (101, "ada@example.com"), "{line} {protocol}");
        // Docker's exec sends its request's body first
        assert_eq!(client.take(body.len()), body.as_bytes());
        client
    };
    let mut ended = [
        open("POST /api/v1/namespaces/a/pods/b/exec", "SPDY/3.1", &goes, ""),
        open("POST /exec/1/start", "tcp", &goes, "{\"Tty\":true}"),
        open("GET /x", "TCP", &goes, ""),
    ];
    let mut kept = open("GET /x", "tcp", &stays, "");
    for client in ended.iter_mut().chain([&mut kept]) {
        // no frames of a WebSocket, and no requests
        let bytes = b"\x88\x82\0\0\0\0GET / HTTP/1.1\r\nHost: a\r\n\r\n\x80\x03\0\x01";
        client.send(bytes);
        assert_eq!(client.take(bytes.len()), bytes);
    }
    assert_eq!(gateway.client().request("POST /.auth/logout", &[("Cookie", &goes)], b"").status, 303);
    let began = std::time::Instant::now();
    for client in &mut ended {
        assert!(client.is_closed());
    }
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    kept.send(b"still here");
    assert_eq!(kept.take(10), b"still here");
    assert_eq!(ask(&gateway, "POST /x", "tcp", &[("Content-Length", "0")], "").1, 401, "nobody");
}

/// What it is not is a plain request, and what an app answers otherwise is no tunnel.
#[test]
fn other_protocols_are_not_switched_to() {
    let (address, plain) = (switching(), Backend::start(mirror));
    let gateway = Gateway::start(&format!(
        "[[route]]\npath = \"/plain/**\"\naccess = \"public\"\nupgrade = [\"tcp\"]\nupstream = \"http://{}\"\n[[route]]\npath = \"/none/**\"\naccess = \"public\"\nupstream = \"http://{0}\"\n[[route]]\naccess = \"public\"\nupgrade = [\"tcp\", \"DERP\"]\nupstream = \"http://{address}\"\n",
        plain.address
    ));
    for (path, protocol) in
        [("/none/x", "tcp"), ("/plain/x", "spdy/3.1"), ("/plain/x", "tcp, h2c"), ("/plain/x", "h2c"), ("/plain/x", "")]
    {
        let (_, status, _) = ask(&gateway, &format!("GET {path}"), protocol, &[], "");
        assert_eq!(status, 200, "{path} {protocol}");
        assert_eq!((plain.next().field("upgrade"), plain.all().len()), (None, 0), "{path} {protocol}");
    }
    // a body that is still on its way would be what is passed behind the answer
    let chunked = [("Transfer-Encoding", "chunked")];
    assert_eq!(ask(&gateway, "POST /plain/x", "tcp", &chunked, "2\r\nhi\r\n0\r\n\r\n").1, 200);
    assert_eq!(plain.next().field("upgrade"), None);
    let mut old = gateway.client();
    old.send(b"GET /plain/x HTTP/1.0\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n");
    assert_eq!(old.head().status, 200);
    assert_eq!(plain.next().field("upgrade"), None);
    for (path, status) in [("/x", 101), ("/as/DERP", 502), ("/as/websocket", 502), ("/as/tcp", 101), ("/as/TCP", 101)] {
        assert_eq!(ask(&gateway, &format!("GET {path}"), "tcp", &[], "").1, status, "{path}");
    }
}

#[test]
fn protocols_that_would_be_a_way_past_the_rules_cannot_be_named() {
    for protocol in ["h2", "h2c", "h3", "TLS/1.3", "HTTP/2.0", "websocket", "a b", "", "a/", "a/b/c"] {
        let folder = crate::gateway::configured(&format!(
            "[[route]]\nupgrade = [\"{protocol}\"]\nupstream = \"builtin:whoami\"\n"
        ));
        let (code, told) = crate::gateway::refused_start(folder.path());
        assert_eq!(code, 64, "{protocol}: {told}");
    }
}
