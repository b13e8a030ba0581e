//! Contract, section 4: what a backend receives. What a client sends in the place of ours stands in
//! `known_attacks::a_identity`.

use serde_json::json;

use crate::backend::{Backend, ok};
use crate::gateway::Gateway;

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
fn forwarded_fields_are_set_anew_and_believed_from_trusted_proxies_alone() {
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
