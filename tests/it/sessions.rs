//! Sessions: cookies, tokens, renewal, revocation, restarts (security cases C and D).

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::backend::Backend;
use crate::client::Answer;
use crate::forge::Token;
use crate::gateway::{Gateway, PASSWORD, eventually};
use crate::known_attacks::both_ways;
use crate::websockets::{close_code, echo, open};

fn status(gateway: &Gateway, cookie: &str) -> u16 {
    gateway.client().get("/x", &[("Cookie", cookie)]).status
}

/// "With a domain, login is at public_url", and one session serves every host below it.
#[test]
fn with_a_domain_one_session_serves_all_hosts_below_it_and_people_come_back_to_theirs() {
    let gateway = Gateway::start(
        "public_url = \"https://login.example.com\"\ntrusted_proxies = [\"127.0.0.1\"]\n[session]\ndomain = \"example.com\"\n\
         [[route]]\nhost = \"*.example.com\"\nupstream = \"builtin:whoami\"\n",
    );
    let at = |host: &'static str| [("Host", host), ("X-Forwarded-Proto", "https")];
    let body =
        json!({ "email": "ada@example.com", "password": PASSWORD, "callbackUrl": "https://app.example.com/x?y#z" });
    let joined = gateway.client().post_json(&gateway.invite.clone().unwrap(), &at("login.example.com"), &body);
    assert_eq!((joined.status, &joined.json()["callbackUrl"]), (200, &json!("https://app.example.com/x?y#z")));
    let cookie = joined.all("set-cookie")[0];
    assert!(cookie.starts_with("__Secure-authgate="), "{cookie}");
    assert!(cookie.contains("; HttpOnly; SameSite=Lax; Secure; Path=/; Domain=example.com; Max-Age="), "{cookie}");
    let cookie = joined.session_cookie();
    for host in ["login.example.com", "app.example.com", "a.b.example.com"] {
        let fields = [&at(host)[..], &[("Cookie", cookie.as_str())]].concat();
        assert_eq!(gateway.client().get("/x", &fields).status, 200, "{host}");
        assert_eq!(gateway.client().get("/.auth/me", &fields).status, 200, "{host}");
        let signed_out = gateway.client().get("/x", &at(host));
        let login = if host == "login.example.com" { "" } else { "https://login.example.com" };
        let told = json!({ "error": "signed_out", "login": format!("{login}/.auth/login") });
        assert_eq!((signed_out.status, signed_out.json()), (401, told), "{host}");
    }
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
fn forged_changed_and_foreign_tokens_are_anonymous() {
    let gateway = Gateway::whoami();
    let cookie = gateway.first_account();
    let token = cookie.split_once('=').unwrap().1.to_owned();
    let parts: Vec<&str> = token.split('.').collect();
    let taken = Token::of(&cookie);
    let header = |name: &str, value: &str| taken.header(name, value).message().split_once('.').unwrap().0.to_owned();
    let (none, hs512) = (header("alg", "none"), header("alg", "HS512"));
    let path = header("kid", "../../etc/passwd\0' OR 1=1 --");
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
        format!("{none}.{}.", parts[1]),
        format!("{none}.{}.{}", parts[1], parts[2]),
        format!("{hs512}.{}.{}", parts[1], parts[2]),
        format!("{path}.{}.{}", parts[1], parts[2]),
        "a".repeat(8000),
    ];
    for secret in [&b""[..], b"secret", b"changeme", &[0; 32]] {
        forged.push(taken.signed(secret).split_once('=').unwrap().1.to_owned());
    }
    for (name, value) in
        [("exp", json!(4_000_000_000_u64)), ("sub", json!("2")), ("sid", json!("x")), ("aud", json!("other"))]
    {
        forged.push(format!("{}.{}", taken.claim(name, value).message(), parts[2]));
    }
    for forged in forged {
        assert_eq!(status(&gateway, &format!("authgate={forged}")), 401, "{forged}");
    }
    assert_eq!(status(&gateway, &cookie), 200);
}

#[test]
fn what_the_command_line_changes_is_in_effect_within_a_second() {
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

/// docs/security.md: 500 sessions of an account stand at once.
#[test]
fn beyond_500_sessions_the_one_used_longest_ago_ends_with_its_socket_and_no_other() {
    let gateway = Gateway::whoami();
    let oldest = gateway.first_account();
    gateway.add_user("bob@example.com", &[]);
    let (older, bob) = (gateway.sign_in("ada@example.com"), gateway.sign_in("bob@example.com"));
    let mut sockets = [&oldest, &older, &bob].map(|cookie| open(&gateway, "/x", cookie));
    for socket in &mut sockets {
        socket.read().unwrap();
    }
    // 498 more, and all but the first two used later
    let database = rusqlite::Connection::open(gateway.state().join("authgate.db")).unwrap();
    let id = Token::of(&oldest).claims["sid"].as_str().unwrap().to_owned();
    let fill = format!(
        "BEGIN; UPDATE counter SET value = value + 1 WHERE name = 'rev';
         UPDATE session SET seen = seen - 60 WHERE id = '{id}';
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 498)
         INSERT INTO session (id, user_id, created, expires, seen, remember, address, user_agent, rev)
           SELECT 's' || i, user_id, created, expires, seen + 90, 1, '', '', counter.value
           FROM n, session, counter WHERE id = '{id}' AND counter.name = 'rev';
         COMMIT;"
    );
    database.execute_batch(&fill).unwrap();
    let list = || gateway.cli(&["session", "list", "ada@example.com", "--json"]);
    let list = || serde_json::from_str::<Value>(&list()).unwrap().as_array().unwrap().len();
    assert_eq!(list(), 500);
    let newest = gateway.sign_in("ada@example.com");
    let began = Instant::now();
    let [ended, kept, bobs] = &mut sockets;
    assert_eq!(close_code(ended), 4403);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    echo(kept, "still open");
    echo(bobs, "still open");
    assert_eq!([&oldest, &older, &bob, &newest].map(|cookie| status(&gateway, cookie)), [401, 200, 200, 200]);
    assert_eq!(list(), 500);
    let page = gateway.client().get("/.auth/account", &[("Cookie", &newest), ("Accept", "text/html")]);
    assert_eq!((page.status, page.text().matches("name=\"id\"").count()), (200, 500));
    assert!(gateway.into_log().contains("1 beyond 500"));
}

/// What an application says to caches, and what they are told in its place once the cookie lies on the answer.
const MADE_PRIVATE: &[(&str, &str)] = &[
    ("", "private"),
    ("Cache-Control: no-store", "no-store"),
    ("Cache-Control: no-cache", "private, no-cache"),
    ("Cache-Control: Private", "Private"),
    ("Cache-Control: private=\"x\"", "private"),
    ("Cache-Control: max-age=3600", "private, max-age=3600"),
    ("Cache-Control: max-age=60\r\nCache-Control: immutable", "private, max-age=60, immutable"),
    ("Cache-Control: x=\"a, private, b\", max-age=5", "private, x=\"a, private, b\", max-age=5"),
    ("Cache-Control: no-store=0, max-age=5", "private, no-store=0, max-age=5"),
    ("Expires: Sat, 01 Jan 2101 00:00:00 GMT", "private"),
    ("Last-Modified: Sat, 01 Jan 2000 00:00:00 GMT", "private"),
    ("Surrogate-Control: max-age=60", "private"),
    ("CDN-Cache-Control: max-age=3600", "private"),
    ("X-LiteSpeed-Cache-Control: public, max-age=3600", "private"),
];
const FOR_EVERYBODY: &[&str] = &["Cache-Control: public, max-age=60", "Cache-Control: max-age=0, S-MaxAge=9"];

fn sets_the_cookie(answer: &Answer) -> bool {
    answer.all("set-cookie").iter().any(|cookie| cookie.starts_with("authgate="))
}

/// RFC 9111, 3: a shared cache may store what says `max-age`, `Expires`, or nothing, cookies included. Its next
/// visitor would be somebody else.
#[test]
fn a_renewed_cookie_lies_on_no_answer_that_a_shared_cache_may_store() {
    let backend = Backend::start(|request, stream| {
        let path = request.line.split(' ').nth(1).unwrap();
        let (kind, number) = path[1..].split_once('/').unwrap();
        let number: usize = number.parse().unwrap();
        let (status, fields) = match kind {
            "private" => ("200 OK", MADE_PRIVATE[number].0),
            "public" => ("200 OK", FOR_EVERYBODY[number]),
            _ => ("304 Not Modified", ""),
        };
        let fields = if fields.is_empty() { String::new() } else { format!("{fields}\r\n") };
        let body = if status.starts_with("304") { "" } else { "Content-Length: 2\r\n\r\nok" };
        let end = if body.is_empty() { "\r\n" } else { "" };
        stream.write_all(format!("HTTP/1.1 {status}\r\n{fields}{body}{end}").as_bytes()).is_ok()
    });
    let config = "[session]\nrenew_after = \"1s\"\n[[route]]\ncache = \"app\"\nupstream =";
    let gateway = Gateway::start(&format!("{config} \"http://{}\"\n", backend.address));
    let cookie = gateway.first_account();
    let fresh = gateway.client().get("/private/5", &[("Cookie", &cookie)]);
    if !sets_the_cookie(&fresh) {
        assert_eq!(fresh.all("cache-control"), ["max-age=3600"], "nothing is changed where nothing is laid");
    }
    let ask = |path: &str| both_ways(&gateway, path, &[("Cookie", &cookie)]);
    eventually("an application that says nothing renews", || ask("/private/0").iter().all(sets_the_cookie));
    for (number, (told, instead)) in MADE_PRIVATE.iter().enumerate() {
        for answer in ask(&format!("/private/{number}")) {
            assert!(sets_the_cookie(&answer), "{told}: {answer:?}");
            assert_eq!(answer.all("cache-control"), [*instead], "{told}");
            let others = ["cdn-cache-control", "surrogate-control", "x-litespeed-cache-control"];
            let others = others.map(|name| answer.all(name));
            assert!(others.iter().all(Vec::is_empty), "{told}: {answer:?}");
        }
    }
    for (number, told) in FOR_EVERYBODY.iter().enumerate() {
        for answer in ask(&format!("/public/{number}")) {
            assert!(!sets_the_cookie(&answer), "{told}: {answer:?}");
            assert_eq!(answer.all("cache-control"), [told.split_once(": ").unwrap().1]);
        }
    }
    for answer in ask("/unchanged/0") {
        assert_eq!((answer.status, sets_the_cookie(&answer)), (304, false), "it freshens what a cache has stored");
    }
}
