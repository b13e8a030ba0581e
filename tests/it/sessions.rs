//! Sessions: cookies, tokens, renewal, revocation, restarts (security cases C and D).

use std::time::{Duration, Instant};

use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};

use crate::gateway::{Gateway, PASSWORD, eventually};

fn status(gateway: &Gateway, cookie: &str) -> u16 {
    gateway.client().get("/x", &[("Cookie", cookie)]).status
}

#[test]
fn the_session_cookie_is_bounded_and_http_only() {
    let gateway = Gateway::whoami();
    gateway.first_account();
    let answer = gateway.login("ada@example.com", PASSWORD);
    let cookie = answer.all("set-cookie")[0];
    assert!(cookie.starts_with("authgate=") && cookie.len() < 1024, "{cookie}");
    let (attributes, age) = cookie.rsplit_once("; Max-Age=").unwrap();
    assert!(attributes.ends_with("; HttpOnly; SameSite=Lax; Path=/"), "{cookie}");
    // what remains of twenty days: the second may have turned since the session was made
    assert!((1_727_990..=1_728_000).contains(&age.parse().unwrap()), "{cookie}");
    let body = json!({ "email": "ada@example.com", "password": PASSWORD, "remember": false });
    let brief = gateway.client().post_json("/.auth/login", &[], &body);
    assert!(brief.all("set-cookie")[0].ends_with("; HttpOnly; SameSite=Lax; Path=/"), "{brief:?}");
    assert_ne!(answer.session_cookie(), brief.session_cookie());
}

#[test]
fn forged_changed_and_foreign_tokens_are_nobody() {
    let gateway = Gateway::whoami();
    let cookie = gateway.first_account();
    let token = cookie.split_once('=').unwrap().1.to_owned();
    let parts: Vec<&str> = token.split('.').collect();
    let part = |number: usize| -> Value {
        serde_json::from_slice(&BASE64URL_NOPAD.decode(parts[number].as_bytes()).unwrap()).unwrap()
    };
    let encode = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let signed = |header: &Value, claims: &Value, secret: &[u8]| {
        let message = format!("{}.{}", encode(header), encode(claims));
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
        format!("{message}.{}", BASE64URL_NOPAD.encode(ring::hmac::sign(&key, message.as_bytes()).as_ref()))
    };
    let (header, claims) = (part(0), part(1));
    let mut none = header.clone();
    none["alg"] = json!("none");
    let mut hs512 = header.clone();
    hs512["alg"] = json!("HS512");
    let mut path = header.clone();
    path["kid"] = json!("../../etc/passwd\0' OR 1=1 --");
    let mut forged = vec![
        String::new(),
        "x".into(),
        "..".into(),
        "a.b.c".into(),
        token[..token.len() - 4].into(),
        format!("{token}."),
        format!("{token}A"),
        format!("{}.{}.", parts[0], parts[1]),
        format!("{}..{}", parts[0], parts[2]),
        format!("{}.{}.", encode(&none), parts[1]),
        format!("{}.{}.{}", encode(&none), parts[1], parts[2]),
        format!("{}.{}.{}", encode(&hs512), parts[1], parts[2]),
        format!("{}.{}.{}", encode(&path), parts[1], parts[2]),
        "a".repeat(8000),
    ];
    for secret in [&b""[..], b"secret", b"changeme", &[0; 32]] {
        forged.push(signed(&header, &claims, secret));
    }
    for (name, value) in
        [("exp", json!(4_000_000_000_u64)), ("sub", json!("2")), ("sid", json!("x")), ("aud", json!("other"))]
    {
        let mut changed = claims.clone();
        changed[name] = value;
        forged.push(format!("{}.{}.{}", parts[0], encode(&changed), parts[2]));
    }
    for at in [0, parts[0].len() + 5, token.len() - 1] {
        let mut bytes = token.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        forged.push(String::from_utf8(bytes).unwrap());
    }
    for forged in forged {
        assert_eq!(status(&gateway, &format!("authgate={forged}")), 401, "{forged}");
    }
    for line in [
        format!("{cookie}; authgate=x"),
        format!("authgate=x; {cookie}"),
        format!("Authgate={token}"),
        format!("\u{a0}{cookie}"),
    ] {
        assert_eq!(status(&gateway, &line), 401, "{line}");
    }
    for line in [cookie.clone(), format!("a=1; {cookie}"), format!("{cookie};b=2"), format!("{cookie}; {cookie}")] {
        assert_eq!(status(&gateway, &line), 200, "{line}");
    }
}

#[test]
fn absolute_and_idle_limits_end_a_session_and_requests_keep_it() {
    let gateway = Gateway::start(
        "[session]\nmax_age = \"6s\"\nidle = \"3s\"\nrenew_after = \"2s\"\n[[route]]\nupstream = \"builtin:whoami\"\n",
    );
    let began = Instant::now();
    let cookie = gateway.first_account();
    let idle = gateway.sign_in("ada@example.com");
    let mut renewed = None;
    let mut ended = None;
    let mut client = gateway.client();
    while ended.is_none() {
        let answer = client.get("/x", &[("Cookie", &cookie)]);
        if answer.status != 200 {
            ended = Some(began.elapsed());
        } else if renewed.is_none() && !answer.all("set-cookie").is_empty() {
            let max_age = answer.all("set-cookie")[0].rsplit("Max-Age=").next().unwrap().parse::<u64>().unwrap();
            assert!(max_age <= 5, "the cookie's life is what remains: {max_age}");
            renewed = Some((began.elapsed(), answer.session_cookie()));
        }
        assert!(began.elapsed() < Duration::from_secs(20));
    }
    let (when, renewed) = renewed.unwrap();
    // a token's times are whole seconds
    assert!(when >= Duration::from_secs(1), "{when:?}");
    assert_ne!(renewed, cookie);
    let ended = ended.unwrap();
    assert!(ended > Duration::from_secs(4) && ended < Duration::from_secs(9), "{ended:?}");
    assert_eq!(status(&gateway, &renewed), 401);
    assert_eq!(status(&gateway, &idle), 401);
}

#[test]
fn what_the_command_line_changes_is_in_force_within_a_second() {
    let gateway = Gateway::start(
        "[[route]]\npath = \"/staff/**\"\ngroups = [\"staff\"]\nupstream = \"builtin:whoami\"\n[[route]]\nupstream = \"builtin:whoami\"\n",
    );
    gateway.first_account();
    gateway.add_user("bob@example.com", &[]);
    let bob = gateway.sign_in("bob@example.com");
    let other = gateway.sign_in("bob@example.com");
    let in_time = |what: &str, holds: &mut dyn FnMut() -> bool| {
        let began = Instant::now();
        eventually(what, holds);
        assert!(began.elapsed() < Duration::from_secs(1), "{what}: {:?}", began.elapsed());
    };
    assert_eq!(gateway.client().get("/staff/x", &[("Cookie", &bob)]).status, 403);
    gateway.cli(&["user", "set", "bob@example.com", "--group", "staff"]);
    assert_eq!(gateway.client().get("/staff/x", &[("Cookie", &bob)]).status, 200, "`set` returns once it is in force");
    let list: Value = serde_json::from_str(&gateway.cli(&["session", "list", "bob@example.com", "--json"])).unwrap();
    let id = list[0]["id"].as_str().unwrap();
    gateway.cli(&["session", "revoke", id]);
    in_time("one session is revoked", &mut || status(&gateway, &bob) + status(&gateway, &other) == 601);
    let bob = gateway.sign_in("bob@example.com");
    gateway.cli(&["user", "disable", "bob@example.com"]);
    in_time("a disabled user is out", &mut || status(&gateway, &bob) == 401);
    assert_eq!(gateway.login("bob@example.com", PASSWORD).status, 401);
    gateway.cli(&["user", "enable", "bob@example.com"]);
    let bob = gateway.sign_in("bob@example.com");
    gateway.cli(&["key", "rotate"]);
    assert_eq!(status(&gateway, &bob), 200, "rotation signs nobody out");
    let ada = gateway.sign_in("ada@example.com");
    gateway.cli(&["user", "remove", "bob@example.com"]);
    in_time("a removed user is out", &mut || status(&gateway, &bob) == 401);
    gateway.cli(&["session", "revoke", "--all"]);
    in_time("all are out", &mut || status(&gateway, &ada) == 401);
}

#[test]
fn sessions_and_revocations_survive_kill_9() {
    let gateway = Gateway::whoami();
    let kept = gateway.first_account();
    let ended = gateway.sign_in("ada@example.com");
    let left =
        gateway.client().request("POST /.auth/logout", &[("Cookie", &ended), ("Accept", "application/json")], b"");
    assert_eq!(left.status, 204);
    assert_eq!(left.all("set-cookie"), ["authgate=; HttpOnly; SameSite=Lax; Path=/; Max-Age=0"]);
    let gateway = gateway.kill_and_restart();
    assert_eq!((status(&gateway, &kept), status(&gateway, &ended)), (200, 401));
    assert_eq!(gateway.invite, None, "the first link is void once a user exists");
}

#[test]
fn signing_in_ends_the_presented_session_and_a_new_password_all_others() {
    let gateway = Gateway::whoami();
    let first = gateway.first_account();
    let body = json!({ "email": "ada@example.com", "password": PASSWORD });
    let second = gateway.client().post_json("/.auth/login", &[("Cookie", &first)], &body).session_cookie();
    assert_eq!((status(&gateway, &first), status(&gateway, &second)), (401, 200));
    let third = gateway.sign_in("ada@example.com");
    let new = json!({ "current_password": PASSWORD, "password": "quite another long sentence" });
    let changed = gateway.client().post_json("/.auth/account/password", &[("Cookie", &third)], &new);
    assert_eq!(changed.status, 200, "{changed:?}");
    assert_eq!((status(&gateway, &second), status(&gateway, &third)), (401, 200));
    assert_eq!(gateway.login("ada@example.com", PASSWORD).status, 401);
    assert_eq!(gateway.login("ada@example.com", "quite another long sentence").status, 200);
}
