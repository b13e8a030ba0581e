//! C: cookies and sessions.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Message, connect};

use super::{both_ways, stage, still_serves};
use crate::forge::{Token, now_secs, session_key};
use crate::gateway::{Gateway, PASSWORD, eventually};

const NAVIGATION: &[(&str, &str)] = &[("Sec-Fetch-Mode", "navigate"), ("Accept", "text/html")];

fn status(gateway: &Gateway, cookie: &str) -> u16 {
    gateway.client().get("/x", &[("Cookie", cookie)]).status
}

fn log_out(gateway: &Gateway, cookie: &str) -> crate::client::Answer {
    gateway.client().request("POST /.auth/logout", &[("Cookie", cookie)], b"")
}

/// Each of these is nobody, both ways; the one that they were made from is somebody.
fn all_are_nobody(gateway: &Gateway, good: &str, forged: &[String]) {
    for cookie in forged {
        for answer in both_ways(gateway, "/x", &[("Cookie", cookie)]) {
            assert_eq!(answer.status, 401, "{cookie}");
        }
    }
    assert_eq!(status(gateway, good), 200);
    still_serves(gateway);
}

/// 303, and our path.
#[test]
fn c1_a_navigation_without_a_session_goes_to_the_login_page_on_the_same_host() {
    let stage = stage();
    let refused = stage.get("/app/x?y=z", NAVIGATION);
    let place = "/.auth/login?callbackUrl=/app/x?y=z";
    assert_eq!((refused.status, refused.field("location")), (303, Some(place)));
    assert_eq!(refused.field("cache-control"), Some("no-store"));
    assert_eq!(stage.get_as_ada("/app/x?y=z", NAVIGATION).status, 200);
    still_serves(&stage.gateway);
}

/// OWASP ASVS 9.1.1. Every single byte, the last bits of the signature included.
#[test]
fn c2_a_token_with_one_byte_changed_is_invalid() {
    let stage = stage();
    let start = stage.ada.find('=').unwrap() + 1;
    let mut client = stage.gateway.client();
    for at in start..stage.ada.len() {
        for other in [b'A', b'B', b'.'] {
            let mut bytes = stage.ada.clone().into_bytes();
            if bytes[at] == other {
                continue;
            }
            bytes[at] = other;
            let changed = String::from_utf8(bytes).unwrap();
            assert_eq!(client.get("/app/x", &[("Cookie", &changed)]).status, 401, "{at}: {changed}");
        }
    }
    assert_eq!(client.get("/app/x", &[("Cookie", &stage.ada)]).status, 200);
    still_serves(&stage.gateway);
}

/// RFC 7519, 4.1.4; jsonwebtoken lets a minute pass, and a token without an end.
#[test]
fn c3_a_token_that_has_ended_is_invalid_though_the_key_is_right() {
    let gateway = Gateway::whoami();
    let cookie = gateway.first_account();
    let (token, key) = (Token::of(&cookie), session_key(&gateway));
    let ended: Vec<_> = [now_secs() - 6, now_secs() - 50, 0].map(|exp| token.claim("exp", exp).signed(&key)).into();
    all_are_nobody(&gateway, &cookie, &ended);
    all_are_nobody(
        &gateway,
        &cookie,
        &[token.without("exp").signed(&key), token.claim("exp", "4000000000").signed(&key)],
    );
    assert_eq!(status(&gateway, &token.claim("exp", now_secs() + 60).signed(&key)), 200, "the forger works");
}

/// RFC 7519, 4.1.5 and 4.1.6. A clock that was set back makes tokens of the future, which are ours all the same: a gateway that
/// refuses them signs everybody out. Whether there is a session says its row alone.
#[test]
fn c4_a_token_from_before_the_clock_was_set_back_is_good_as_long_as_its_session_is_active() {
    let gateway = Gateway::whoami();
    let cookie = gateway.first_account();
    let (token, key) = (Token::of(&cookie), session_key(&gateway));
    let later = now_secs() + 3600;
    let early: Vec<_> = ["nbf", "iat"].map(|name| token.claim(name, later).signed(&key)).into();
    for early in &early {
        assert_eq!(status(&gateway, early), 200);
    }
    gateway.cli(&["session", "revoke", "--all"]);
    for cookie in early.iter().chain([&cookie]) {
        assert_eq!(status(&gateway, cookie), 401);
    }
}

/// OWASP ASVS 9.2.2 and 9.2.3, RFC 8725, 3.8 to 3.12: a token of another use is no session.
#[test]
fn c5_a_token_of_another_kind_is_no_session() {
    let gateway = Gateway::start(
        "[[upstream]]\nname = \"app\"\nservers = [\"builtin:whoami\"]\ntoken = { algorithm = \"EdDSA\", send = [\"bearer\"] }\n[[route]]\nupstream = \"app\"\n",
    );
    let cookie = gateway.first_account();
    let (token, key) = (Token::of(&cookie), session_key(&gateway));
    let mut others: Vec<String> = [
        token.header("typ", "JWT"),
        token.header("typ", "at+jwt"),
        token.header("typ", Value::Null),
        token.header("crit", json!(["exp"])),
        token.claim("aud", "reset"),
        token.claim("aud", json!(["other"])),
        token.claim("iss", "other"),
        token.claim("admin", true),
        token.without("aud"),
        token.without("iss"),
        token.without("sid"),
        token.without("sub"),
        token.without("jti"),
        token.without("iat"),
        token.claim("sub", "2"),
        token.claim("sid", "x"),
    ]
    .map(|token| token.signed(&key))
    .into();
    let seen = gateway.client().get("/x", &[("Cookie", &cookie)]).seen("authorization");
    let backends = seen[0].strip_prefix("Bearer ").unwrap().to_owned();
    let api = gateway.cli(&["token", "create", "ada@example.com", "--name", "ci"]);
    let api = api.split_whitespace().find(|word| word.starts_with("agt_")).unwrap().to_owned();
    let link = gateway.cli(&["invite"]);
    let link = link.trim().rsplit('/').next().unwrap().to_owned();
    let ticket = gateway.client().request("POST /.auth/ws-ticket", &[("Cookie", &cookie)], b"").json();
    let ticket = ticket["ticket"].as_str().unwrap().to_owned();
    let login = gateway.login("ada@example.com", PASSWORD);
    let device =
        login.all("set-cookie").into_iter().find_map(|cookie| cookie.strip_prefix("authgate-device=")).unwrap();
    let device = device.split(';').next().unwrap().to_owned();
    others.extend([&backends, &api, &link, &ticket, &device].map(|value| format!("authgate={value}")));
    all_are_nobody(&gateway, &cookie, &others);
    // the backend's token, presented as a credential of ours
    assert_eq!(gateway.client().get("/x", &[("Authorization", &format!("Bearer {backends}"))]).status, 401);
    assert_eq!(gateway.client().get("/x", &[("Authorization", &format!("Bearer {api}"))]).status, 200);
}

/// OWASP ASVS 7.4.2 and 8.3.2, Authelia GHSA-x883.
#[test]
fn c6_an_account_that_is_disabled_or_removed_is_out_within_a_second_sockets_too() {
    let gateway = Gateway::whoami();
    let ada = gateway.first_account();
    for end in ["disable", "remove"] {
        gateway.add_user("bob@example.com", &[]);
        let bob = gateway.sign_in("bob@example.com");
        let mut request = format!("ws://{}/x", gateway.address).into_client_request().unwrap();
        request.headers_mut().insert("cookie", bob.parse().unwrap());
        let (mut socket, _) = connect(request).unwrap();
        socket.read().unwrap();
        assert_eq!(status(&gateway, &bob), 200);
        gateway.cli(&["user", end, "bob@example.com"]);
        let began = Instant::now();
        eventually("bob is out", || status(&gateway, &bob) == 401);
        let close = std::iter::repeat_with(|| socket.read().unwrap()).find_map(|message| match message {
            Message::Close(frame) => Some(frame.map(|frame| u16::from(frame.code))),
            _ => None,
        });
        assert_eq!(close.unwrap(), Some(4403));
        assert!(began.elapsed() < Duration::from_secs(1), "{end}: {:?}", began.elapsed());
        assert_eq!((gateway.login("bob@example.com", PASSWORD).status, status(&gateway, &ada)), (401, 200));
        if end == "disable" {
            gateway.cli(&["user", "remove", "bob@example.com"]);
        }
    }
    still_serves(&gateway);
}

/// OWASP ASVS 7.4.3.
#[test]
fn c7_a_new_password_ends_every_other_session() {
    let gateway = Gateway::whoami();
    let others = [gateway.first_account(), gateway.sign_in("ada@example.com")];
    let own = gateway.sign_in("ada@example.com");
    let new = json!({ "current_password": PASSWORD, "password": "quite another long sentence" });
    let wrong = json!({ "current_password": "wrong wrong wrong", "password": "quite another long sentence" });
    let change = |body: &Value| gateway.client().post_json("/.auth/account/password", &[("Cookie", &own)], body).status;
    assert!((400..=403).contains(&change(&wrong)));
    assert_eq!(others.each_ref().map(|cookie| status(&gateway, cookie)), [200, 200]);
    assert_eq!(change(&new), 200);
    assert_eq!(others.each_ref().map(|cookie| status(&gateway, cookie)), [401, 401]);
    assert_eq!(status(&gateway, &own), 200);
    assert_eq!(gateway.login("ada@example.com", PASSWORD).status, 401);
    assert_eq!(gateway.login("ada@example.com", "quite another long sentence").status, 200);
    still_serves(&gateway);
}

/// OWASP ASVS 8.3.2: what somebody may do is read at each request, not from the token.
#[test]
fn c8_a_changed_group_is_forwarded_and_checked_at_once() {
    let gateway = Gateway::start(
        "[[route]]\npath = \"/admin/**\"\ngroups = [\"admin\"]\nupstream = \"builtin:whoami\"\n[[route]]\nupstream = \"builtin:whoami\"\n",
    );
    let ada = gateway.first_account();
    let mut client = gateway.client();
    assert_eq!(client.get("/admin/x", &[("Cookie", &ada)]).status, 200);
    gateway.cli(&["user", "set", "ada@example.com", "--group", "staff", "--name", "Countess"]);
    assert_eq!(client.get("/admin/x", &[("Cookie", &ada)]).status, 403);
    let told = client.get("/x", &[("Cookie", &ada)]);
    assert_eq!((told.seen("remote-groups"), told.seen("remote-name")), (vec!["staff".into()], vec!["Countess".into()]));
    still_serves(&gateway);
}

/// OWASP ASVS 3.3.1 to 3.3.5.
#[test]
fn c9_on_https_every_cookie_of_ours_is_bound_to_its_host_and_out_of_scripts_reach() {
    let gateway = Gateway::start(
        "public_url = \"https://app.example.com\"\ntrusted_proxies = [\"127.0.0.1\"]\n[authjs]\nbase_path = \"/api/auth\"\n[[route]]\nupstream = \"builtin:whoami\"\n",
    );
    let host = [("Host", "app.example.com"), ("X-Forwarded-Proto", "https")];
    let path = gateway.invite.clone().unwrap();
    let body = json!({ "email": "ada@example.com", "password": PASSWORD });
    let joined = gateway.client().post_json(&path, &host, &body);
    let login = gateway.client().post_json("/.auth/login", &host, &body);
    let csrf = gateway.client().get("/api/auth/csrf", &host);
    let mut names: Vec<String> = Vec::new();
    for cookie in [&joined, &login, &csrf].into_iter().flat_map(|answer| answer.all("set-cookie")) {
        let (name, rest) = cookie.split_once('=').unwrap();
        names.push(name.to_owned());
        assert!(name.starts_with("__Host-authgate"), "{cookie}");
        assert!(rest.contains("; HttpOnly; SameSite=Lax; Secure; Path=/"), "{cookie}");
        assert!(!rest.contains("Domain") && cookie.len() < 1024, "{cookie}");
    }
    for name in ["__Host-authgate", "__Host-authgate-device", "__Host-authgate-csrf"] {
        assert!(names.iter().any(|own| own == name), "{names:?}");
    }
    // a cookie that plain http, or a neighbour's host, could have planted is none of ours
    let token = joined.session_cookie().split_once('=').unwrap().1.to_owned();
    let ask = |cookie: &str| gateway.client().get("/x", &[&host[..], &[("Cookie", cookie)]].concat()).status;
    for name in ["authgate", "__Secure-authgate", "__host-authgate"] {
        assert_eq!(ask(&format!("{name}={token}")), 401, "{name}");
    }
    assert_eq!(ask(&format!("__Host-authgate={token}")), 200);
}

/// OWASP ASVS 7.4.1, caddy-security CVE-2024-21492. `Clear-Site-Data` is not sent: it would take the app's
/// cookies and the device's with it, by which a known browser is recognized.
#[test]
fn c10_signing_out_ends_the_session_itself_and_takes_the_cookie_back() {
    let gateway = Gateway::whoami();
    let ada = gateway.first_account();
    let renewed = gateway.sign_in("ada@example.com");
    let asked = gateway.client().get("/.auth/logout", &[("Cookie", &ada), ("Accept", "text/html")]);
    assert_eq!((asked.status, status(&gateway, &ada)), (200, 200), "a link signs nobody out");
    let left = log_out(&gateway, &ada);
    assert_eq!((left.status, left.field("location")), (303, Some("/.auth/signed-out")));
    assert_eq!(left.all("set-cookie"), ["authgate=; HttpOnly; SameSite=Lax; Path=/; Max-Age=0"]);
    for answer in both_ways(&gateway, "/x", &[("Cookie", &ada)]) {
        assert_eq!(answer.status, 401, "the token that was kept");
    }
    let bearer = format!("Bearer {}", ada.split_once('=').unwrap().1);
    assert_eq!(gateway.client().get("/x", &[("Authorization", &bearer)]).status, 401);
    assert_eq!(status(&gateway, &renewed), 200, "another session goes on");
    still_serves(&gateway);
}

/// OWASP ASVS 7.3.1 and 7.3.2.
#[test]
fn c11_absolute_and_idle_limits_end_a_session_and_requests_keep_it() {
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
    assert_eq!((status(&gateway, &renewed), status(&gateway, &idle)), (401, 401));
    still_serves(&gateway);
}

/// OWASP ASVS 13.3.4.
#[test]
fn c12_a_rotated_key_signs_no_one_out_and_a_removed_one_everyone() {
    let gateway = Gateway::whoami();
    let old = gateway.first_account();
    let before = session_key(&gateway);
    gateway.cli(&["key", "rotate"]);
    eventually("the new key signs", || {
        Token::of(&gateway.sign_in("ada@example.com")).header["kid"] != Token::of(&old).header["kid"]
    });
    let new = gateway.sign_in("ada@example.com");
    assert_ne!(session_key(&gateway), before);
    assert_eq!((status(&gateway, &old), status(&gateway, &new)), (200, 200));
    let folder = gateway.into_folder();
    let database = rusqlite::Connection::open(folder.path().join("state/authgate.db")).unwrap();
    let kid = Token::of(&old).header["kid"].as_str().unwrap().to_owned();
    assert_eq!(database.execute("DELETE FROM signing_key WHERE kid = ?1", [kid]).unwrap(), 1);
    drop(database);
    let gateway = Gateway::serve(folder);
    all_are_nobody(&gateway, &new, &[old]);
}

/// RFC 8725, 3.5 and 3.10: the key is one of ours, named exactly, and nothing is looked up.
#[test]
fn c13_a_key_that_is_not_ours_is_invalid_by_any_name() {
    let gateway = Gateway::whoami();
    let cookie = gateway.first_account();
    let (token, key) = (Token::of(&cookie), session_key(&gateway));
    let mut forged: Vec<String> =
        [json!("unknown"), json!(""), json!("../../../dev/null"), json!("x' OR 1=1 --"), Value::Null, json!(1)]
            .map(|kid| token.header("kid", kid).signed(&key))
            .into();
    forged.push(token.header("kid", "unknown").signed(b""));
    forged.push(token.signed(&[0; 32]));
    all_are_nobody(&gateway, &cookie, &forged);
}

/// OWASP ASVS 7.2.4.
#[test]
fn c14_every_sign_in_makes_a_session_of_its_own() {
    let gateway = Gateway::whoami();
    gateway.first_account();
    let tokens: Vec<_> = (0..4).map(|_| gateway.sign_in("ada@example.com")).collect();
    let mut ids: Vec<String> = tokens.iter().map(|cookie| Token::of(cookie).claims["sid"].to_string()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 4);
    // one that the browser already had ends: a fixed session would go on (session fixation)
    let body = json!({ "email": "ada@example.com", "password": PASSWORD });
    let fresh = gateway.client().post_json("/.auth/login", &[("Cookie", &tokens[0])], &body).session_cookie();
    assert_eq!((status(&gateway, &tokens[0]), status(&gateway, &fresh), status(&gateway, &tokens[1])), (401, 200, 200));
    still_serves(&gateway);
}

/// OWASP ASVS 7.4.5 and 7.5.2.
#[test]
fn c15_an_account_sees_its_sessions_and_ends_one_or_all() {
    let gateway = Gateway::whoami();
    let [first, second, third] =
        [gateway.first_account(), gateway.sign_in("ada@example.com"), gateway.sign_in("ada@example.com")];
    gateway.add_user("bob@example.com", &[]);
    let bob = gateway.sign_in("bob@example.com");
    let sessions = |cookie: &str| gateway.client().get("/.auth/account/sessions", &[("Cookie", cookie)]).json();
    assert_eq!(sessions(&first)["sessions"].as_array().unwrap().len(), 3);
    let end = |cookie: &str, body: &Value| {
        gateway.client().post_json("/.auth/account/sessions", &[("Cookie", cookie)], body).status
    };
    let id = json!({ "id": sessions(&second)["current"] });
    assert_eq!(end(&bob, &id), 404, "somebody else's");
    assert_eq!((status(&gateway, &second), end(&first, &id), status(&gateway, &second)), (200, 204, 401));
    for (no, expected) in [(json!("false"), 404), (json!(false), 404), (json!(1), 400)] {
        assert_eq!(end(&first, &json!({ "everywhere": no, "id": true })), 400, "an id is a text");
        assert_eq!(end(&first, &json!({ "everywhere": no })), expected, "{no}");
    }
    assert_eq!(end(&first, &json!({ "everywhere": true })), 204);
    assert_eq!([&first, &third, &bob].map(|cookie| status(&gateway, cookie)), [401, 401, 200]);
    still_serves(&gateway);
}

/// OWASP ASVS 7.3.2: not at a sign-in, and not by renewal.
#[test]
fn c16_no_token_outlives_its_sessions_absolute_end() {
    let gateway =
        Gateway::start("[session]\nmax_age = \"1h\"\nrenew_after = \"1s\"\n[[route]]\nupstream = \"builtin:whoami\"\n");
    let began = now_secs();
    let first = gateway.first_account();
    let end = Token::of(&first).claims["exp"].as_u64().unwrap();
    assert!((began + 3600..=now_secs() + 3600).contains(&end));
    let mut renewed = None;
    eventually("it is renewed", || {
        let answer = gateway.client().get("/x", &[("Cookie", &first)]);
        renewed = (!answer.all("set-cookie").is_empty()).then(|| answer.session_cookie());
        renewed.is_some()
    });
    let renewed = Token::of(&renewed.unwrap()).claims;
    assert_eq!(renewed["exp"], end);
    assert_ne!(renewed["jti"], Token::of(&first).claims["jti"]);
    still_serves(&gateway);
}

/// OWASP ASVS 14.2.1.
#[test]
fn c17_a_token_in_the_address_is_no_credential_and_is_not_logged() {
    let gateway = Gateway::whoami();
    let cookie = gateway.first_account();
    let token = cookie.split_once('=').unwrap().1;
    for target in ["/x?token=", "/x?access_token=", "/x?authgate=", "/x?Authorization=Bearer%20", "/x?"] {
        for answer in both_ways(&gateway, &format!("{target}{token}"), &[]) {
            assert_eq!(answer.status, 401, "{target}");
        }
    }
    for (name, value) in
        [("X-Authgate", token), ("Token", token), ("X-Authorization", token), ("Proxy-Authorization", token)]
    {
        assert_eq!(gateway.client().get("/x", &[(name, value)]).status, 401, "{name}");
    }
    assert_eq!(status(&gateway, &cookie), 200);
    still_serves(&gateway);
    let log = gateway.into_log();
    assert!(log.contains("\"/x\""));
    assert!(!log.contains(token));
}

/// PortSwigger, "Cookie Chaos" (2025): servers that trim more than browsers do.
#[test]
fn c18_only_the_exact_name_is_the_session_cookie_and_two_sessions_are_none() {
    let gateway = Gateway::whoami();
    let cookie = gateway.first_account();
    let token = cookie.split_once('=').unwrap().1;
    let another = gateway.sign_in("ada@example.com");
    let odd: Vec<String> = [
        format!("{cookie}; {another}"),
        format!("{another}; authgate=x; {cookie}"),
        format!("Authgate={token}"),
        format!("\u{a0}{cookie}"),
        format!("\u{2000}{cookie}"),
        format!("authgate\u{a0}={token}"),
        format!("%61uthgate={token}"),
        format!("$Version=1, {cookie}"),
        format!("a=1, {cookie}"),
        format!("authgate=\"{token}\""),
        format!("authgate={token}\u{a0}"),
        format!("authgate={token},"),
    ]
    .into();
    all_are_nobody(&gateway, &cookie, &odd);
    for line in [
        format!("a=1; {cookie}"),
        format!("authgate=x; {cookie}"),
        format!("{cookie};b=2"),
        format!("{cookie}; {cookie}"),
        format!("a;;\t{cookie} ;=;"),
    ] {
        assert_eq!(status(&gateway, &line), 200, "{line}");
    }
}

/// An answer that was asked for before its session ended may come after the next one has begun: it must not put the old
/// cookie in the place of the new one.
#[test]
fn c19_a_late_answer_renews_no_session_that_has_ended() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let gateway = Gateway::start(&format!(
        "[session]\nrenew_after = \"1s\"\n[[route]]\nupstream = \"http://{}\"\n",
        listener.local_addr().unwrap()
    ));
    let (ended, standing) = (gateway.first_account(), gateway.sign_in("ada@example.com"));
    eventually("both are to be renewed", || {
        [&ended, &standing].iter().all(|cookie| now_secs() > Token::of(cookie).claims["iat"].as_u64().unwrap() + 1)
    });
    let host = gateway.host();
    let ask = |cookie: &str, line: &str, more: &[(&str, &str)], body: &str| {
        let mut client = gateway.client();
        let fields = [&[("Host", host.as_str()), ("Cookie", cookie)], more].concat();
        client.send(format!("{}{body}", super::head(line, &fields)).as_bytes());
        (client, crate::backend::accept(&listener))
    };
    let mut held = Vec::new();
    for cookie in [&ended, &standing] {
        held.push((cookie, ask(cookie, "GET /x", &[], "")));
        held.push((cookie, ask(cookie, "POST /x", super::CHUNKED, "0\r\n\r\n")));
    }
    assert_eq!(log_out(&gateway, &ended).status, 303);
    for (cookie, (mut client, mut server)) in held {
        std::io::Write::write_all(&mut server, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
        let answer = client.answer();
        assert_eq!(answer.status, 200);
        assert_eq!(answer.all("set-cookie").len(), usize::from(*cookie == standing), "{answer:?}");
    }
    still_serves(&gateway);
}
