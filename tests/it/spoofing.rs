//! What a backend receives. What a client sends in the place of ours stands in
//! `known_attacks::a_identity`.

use serde_json::json;

use crate::backend::{Backend, Received, ok};
use crate::gateway::Gateway;
use crate::h2::{ask, read, request, run};
use crate::tls::Secure;

#[test]
fn headers_with_other_bytes_in_their_names_pass_only_where_the_upstream_allows_them() {
    let backend = Backend::start(ok);
    let gateway = Gateway::start(&format!(
        "[[upstream]]\nname = \"app\"\nservers = [\"{}\"]\nallow_headers = [\"my_header\", \"remote_user\"]\n[[route]]\naccess = \"public\"\nupstream = \"app\"\n",
        backend.address
    ));
    gateway.client().get("/", &[("My_Header", "1"), ("Other_Header", "2"), ("Remote_User", "evil"), ("a.b", "3")]);
    let received = backend.next();
    assert_eq!(received.field("my_header"), Some("1"));
    assert_eq!(
        (received.field("other_header"), received.field("remote_user"), received.field("a.b")),
        (None, None, None)
    );
}

/// HTTP does not care, but there are apps that look for the letters that are written down.
#[test]
fn identity_headers_are_spelled_as_they_are_written_down() {
    let backend = Backend::start(ok);
    let upstream = |name: &str, identity: &str| {
        format!(
            "[[upstream]]\nname = \"{name}\"\nservers = [\"{}\"]\nidentity = {identity}\n[[route]]\npath = \"/{name}/**\"\nupstream = \"{name}\"\n",
            backend.address
        )
    };
    let gateway =
        Gateway::start(&upstream("remote", "\"remote\"").add(&upstream("own", "{ \"X-UserID\" = \"{id}\" }")));
    let cookie = gateway.first_account();
    for (path, names) in [
        ("/remote/x", &["Remote-User", "Remote-Email", "Remote-Name", "Remote-Groups", "Remote-Id"][..]),
        ("/own/x", &["X-UserID"]),
    ] {
        gateway.client().get(path, &[("Cookie", &cookie), ("remote-user", "evil"), ("x-userid", "evil")]);
        let received = backend.next();
        for name in names {
            assert_eq!(received.fields.iter().filter(|(own, _)| own == name).count(), 1, "{name}: {received:?}");
        }
        assert!(!received.fields.iter().any(|(_, value)| value == "evil"), "{received:?}");
    }
}

/// A body of a request: its name, its bytes, and whether the head says how long it is.
const BODIES: [(&str, usize, bool); 4] =
    [("none", 0, false), ("small", 5, true), ("100 KiB", 100 << 10, true), ("without a length", 5, false)];

/// What the server got with each of them, from clients in HTTP/1.1 and HTTP/2.
fn received_with_each_body(secure: &Secure, backend: &Backend, cookie: &str) -> Vec<(String, Received)> {
    let cookie = format!("{cookie}; theme=dark");
    let sent =
        [("remote-user", "evil"), ("x-request-id", "evil"), ("TE", "trailers"), ("X-oDD", "1"), ("Cookie", &*cookie)];
    let fields = |length: Option<usize>, names: fn(&str) -> String| {
        let length = length.map(|length| ("Content-Length", length.to_string()));
        sent.iter()
            .map(|(name, value)| (*name, (*value).to_owned()))
            .chain(length)
            .map(|(name, value)| (names(name), value))
            .collect::<Vec<_>>()
    };
    let mut received = Vec::new();
    for (name, bytes, says_length) in BODIES {
        let (method, body) = (if bytes == 0 { "GET" } else { "POST" }, vec![b'x'; bytes]);
        let length = says_length.then_some(bytes);
        let mut client = secure.client("a.example.com");
        let lines = fields(length, str::to_owned)
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect::<Vec<_>>();
        let lines = lines.concat();
        let head = format!("{method} /x HTTP/1.1\r\nHost: a.example.com\r\n{lines}");
        if bytes > 0 && !says_length {
            let chunk = format!("Transfer-Encoding: chunked\r\n\r\n{bytes:x}\r\n");
            client.send(&[head.as_bytes(), chunk.as_bytes(), &body, b"\r\n0\r\n\r\n"].concat());
        } else {
            client.send(&[head.as_bytes(), b"\r\n", &body].concat());
        }
        assert_eq!(client.answer().status, 200, "{name}");
        received.push((format!("HTTP/1.1, {name}"), backend.next()));
        let fields = fields(length, str::to_lowercase);
        let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let status = run(async {
            let answer = ask(&secure.h2().await, request(&format!("{method} /x"), &fields), &body).await.unwrap();
            read(answer).await.unwrap().0
        });
        assert_eq!(status, 200, "{name}");
        received.push((format!("HTTP/2, {name}"), backend.next()));
    }
    received
}

/// Whichever way a request takes through the gateway, an app sees the same names. Those of the client keep their case where it
/// is known: HTTP/2 has lower case only (RFC 9113, 8.2).
#[test]
fn fields_are_spelled_alike_for_every_body_and_every_version_of_http() {
    let backend = Backend::start(ok);
    let secure = Secure::start(&format!(
        "[[upstream]]\nname = \"app\"\nservers = [\"{}\"]\nidentity = \"remote\"\n[[route]]\nupstream = \"app\"\n",
        backend.address
    ));
    let cookie = secure.first_account();
    let added = [
        "Remote-User",
        "Remote-Email",
        "Remote-Name",
        "Remote-Groups",
        "Remote-Id",
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "X-Forwarded-Host",
        "X-Forwarded-Port",
        "X-Request-Id",
        "X-Authgate-Via",
        "Cookie",
    ];
    let seen = received_with_each_body(&secure, &backend, &cookie);
    assert_eq!(seen.len(), 2 * BODIES.len());
    for ((what, received), (_, bytes, says_length)) in seen.iter().zip(BODIES.iter().flat_map(|body| [body, body])) {
        let mut names: Vec<&str> = received.fields.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        let own = |name: &'static str, lower: &'static str| if what.starts_with("HTTP/2") { lower } else { name };
        let framing = match (*bytes > 0, *says_length) {
            (false, _) => None,
            (true, true) => Some(own("Content-Length", "content-length")),
            (true, false) => Some("Transfer-Encoding"),
        };
        let mut expected: Vec<&str> = added.into_iter().chain(framing).collect();
        expected.extend(["Host", own("X-oDD", "x-odd")]);
        expected.sort_unstable();
        assert_eq!(names, expected, "{what}");
        assert_eq!(received.body.len(), *bytes, "{what}");
        assert!(!received.fields.iter().any(|(_, value)| value == "evil"), "{what}: {received:?}");
        assert_eq!(received.field("cookie"), Some("theme=dark"), "{what}");
    }
}

#[test]
fn identity_is_stated_in_every_preset_and_template_percent_encoded() {
    let preset = |name: &str| {
        format!(
            "[[upstream]]\nname = \"{name}\"\nservers = [\"builtin:whoami\"]\nidentity = \"{name}\"\n[[route]]\npath = \"/{name}/**\"\nupstream = \"{name}\"\n"
        )
    };
    let own = "[[upstream]]\nname = \"own\"\nservers = [\"builtin:whoami\"]\nidentity = { \"X-User\" = \"{id}:{email}\", \"X-Picture\" = \"{picture}\" }\n[[route]]\npath = \"/own/**\"\nupstream = \"own\"\n";
    let gateway = Gateway::start(&["remote", "x-auth-request", "x-forwarded", "none"].map(preset).concat().add(own));
    let path = gateway.invite.clone().unwrap();
    let body = json!({ "email": "ada@example.com", "name": "Zoë 100%", "password": crate::gateway::PASSWORD });
    let cookie = gateway.client().post_json(&path, &[], &body).session_cookie();
    gateway.cli(&[
        "user",
        "set",
        "ada@example.com",
        "--group",
        "staff",
        "--group",
        "admin",
        "--picture",
        "https://example.com/a.png",
    ]);
    let ask = |path: &str| gateway.client().get(path, &[("Cookie", &cookie)]);
    let one = |text: &str| vec![text.to_owned()];
    let remote = ask("/remote/x");
    for (name, value) in [
        ("remote-user", "ada@example.com"),
        ("remote-email", "ada@example.com"),
        ("remote-name", "Zo%C3%AB 100%25"),
        ("remote-groups", "admin,staff"),
        ("remote-id", "1"),
    ] {
        assert_eq!(remote.seen(name), one(value), "{name}");
    }
    let request = ask("/x-auth-request/x");
    assert_eq!(
        (request.seen("x-auth-request-email"), request.seen("x-auth-request-groups")),
        (one("ada@example.com"), one("admin,staff"))
    );
    assert_eq!(request.seen("remote-user"), Vec::<String>::new());
    assert_eq!(ask("/x-forwarded/x").seen("x-forwarded-email"), one("ada@example.com"));
    assert!(!ask("/none/x").text().contains("ada@example.com"));
    let own = ask("/own/x");
    assert_eq!(
        (own.seen("x-user"), own.seen("x-picture")),
        (one("1:ada@example.com"), one("https://example.com/a.png"))
    );
}

use std::ops::Add;

#[test]
fn our_cookies_never_reach_a_backend_and_the_apps_do() {
    let backend = Backend::start(ok);
    let gateway = Gateway::start(&format!("[[route]]\nupstream = \"http://{}\"\n", backend.address));
    let session = gateway.first_account();
    for cookies in [
        vec![format!("a=1; {session}; b=2")],
        vec!["a=1".to_owned(), session.clone(), "b=2".to_owned()],
        vec![format!("a=1;{session};\tb=2")],
        vec![format!("a=1; {session}; authgate-device=x; __Host-authgate=y; __Secure-authgate=z; b=2")],
    ] {
        let fields: Vec<_> = cookies.iter().map(|line| ("Cookie", line.as_str())).collect();
        assert_eq!(gateway.client().get("/", &fields).status, 200, "{cookies:?}");
        let received = backend.next();
        let seen: Vec<_> = received.fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case("cookie")).collect();
        assert_eq!(seen.len(), 1, "{cookies:?}");
        assert_eq!(seen[0].1, "a=1; b=2", "{cookies:?}");
    }
    gateway.client().get("/", &[("Cookie", &session)]);
    assert_eq!(backend.next().field("cookie"), None);
}

#[test]
fn forwarded_fields_are_set_anew_and_trusted_from_trusted_proxies_alone() {
    let told = [
        ("X-Forwarded-For", "203.0.113.7"),
        ("X-Forwarded-Host", "other.example.com"),
        ("X-Forwarded-Proto", "https"),
        ("X-Request-Id", "told-1"),
        ("X-Real-IP", "203.0.113.7"),
    ];
    let route = "[[route]]\naccess = \"public\"\nupstream = \"builtin:whoami\"\n";
    let one = |text: &str| vec![text.to_owned()];
    let stranger = Gateway::start(route);
    let answer = stranger.client().get("/", &told);
    assert_eq!(answer.seen("x-forwarded-for"), one("127.0.0.1"));
    assert_eq!(answer.seen("x-forwarded-host"), one(&stranger.host()));
    assert_eq!(answer.seen("x-forwarded-proto"), one("http"));
    assert_eq!(answer.seen("x-real-ip"), Vec::<String>::new());
    assert_ne!(answer.seen("x-request-id"), one("told-1"));
    let proxied = Gateway::start(&format!(
        "trusted_proxies = [\"127.0.0.0/8\", \"10.0.0.0/8\"]\ntrusted_headers = [\"x-real-ip\"]\n{route}"
    ));
    let answer = proxied.client().get("/", &told);
    assert_eq!(answer.seen("x-forwarded-for"), one("203.0.113.7, 127.0.0.1"));
    assert_eq!(answer.seen("x-forwarded-host"), one("other.example.com"));
    assert_eq!(answer.seen("x-forwarded-proto"), one("https"));
    assert_eq!(answer.seen("x-real-ip"), one("203.0.113.7"));
    assert_eq!(answer.seen("x-request-id"), one("told-1"));
    // what rules were judged by
    assert_eq!(answer.seen("host"), one("other.example.com"));
    assert_eq!(stranger.client().get("/", &told).seen("host"), one(&stranger.host()));
}
