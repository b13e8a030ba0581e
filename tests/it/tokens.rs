//! Backends' own tokens: who gets them, in which form, and that exactly one
//! arrives.

use data_encoding::BASE64URL_NOPAD as B64;
use ring::{hmac, signature};
use serde_json::Value;

use crate::backend::{Backend, Received, ok};
use crate::gateway::{Gateway, configured};

const SECRET: &str = "shared-secret-of-at-least-32-bytes-for-tests";

fn upstream(name: &str, backend: &Backend, token: &str) -> String {
    format!(
        "[[upstream]]\nname = \"{name}\"\nservers = [\"{}\"]\n{token}\n[[route]]\npath = \"/{name}/**\"\nupstream = \"{name}\"\n[[route]]\npath = \"/open/{name}/**\"\naccess = \"public\"\nupstream = \"{name}\"\n",
        backend.address
    )
}

fn gateway(rest: &str) -> Gateway {
    Gateway::serve_with(configured(rest), &[("BACKEND_SECRET", SECRET)])
}

fn claims(token: &str) -> Value {
    serde_json::from_slice(&B64.decode(token.split('.').nth(1).unwrap().as_bytes()).unwrap()).unwrap()
}

fn header(token: &str) -> Value {
    serde_json::from_slice(&B64.decode(token.split('.').next().unwrap().as_bytes()).unwrap()).unwrap()
}

fn signed_part(token: &str) -> (&str, Vec<u8>) {
    let (message, tag) = token.rsplit_once('.').unwrap();
    (message, B64.decode(tag.as_bytes()).unwrap())
}

fn bearer(request: &Received) -> String {
    let all: Vec<_> = request.fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case("authorization")).collect();
    assert_eq!(all.len(), 1, "{request:?}");
    all[0].1.strip_prefix("Bearer ").unwrap().to_owned()
}

#[test]
fn a_backend_gets_its_own_hs256_token_in_every_way_that_is_named() {
    let backend = Backend::start(ok);
    let token = "token = { secret = { env = \"BACKEND_SECRET\" }, send = [\"bearer\", \"cookie:next-auth.session-token\", \"assertion\"] }";
    let gateway = gateway(&upstream("api", &backend, token));
    let cookie = gateway.first_account();
    let mut client = gateway.client();
    assert_eq!(client.get("/api/x", &[("Cookie", &format!("a=1; {cookie}; b=2"))]).status, 200);
    let request = backend.next();
    let token = bearer(&request);
    assert_eq!(request.field("x-authgate-jwt-assertion"), Some(token.as_str()));
    assert_eq!(request.field("cookie"), Some(format!("a=1; b=2; next-auth.session-token={token}").as_str()));
    let (message, tag) = signed_part(&token);
    hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()), message.as_bytes(), &tag).unwrap();
    assert_eq!(header(&token)["alg"], "HS256");
    let said = claims(&token);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    for (name, value) in [
        ("iss", Value::from("authgate")),
        ("aud", "api".into()),
        ("sub", "1".into()),
        ("id", "1".into()),
        ("email", "ada@example.com".into()),
        ("name", "Ada".into()),
        ("picture", "".into()),
        ("groups", serde_json::json!(["admin"])),
    ] {
        assert_eq!(said[name], value, "{name}");
    }
    let (iat, nbf, exp) = (said["iat"].as_u64().unwrap(), said["nbf"].as_u64().unwrap(), said["exp"].as_u64().unwrap());
    assert!(iat.abs_diff(now) < 10 && nbf <= iat && exp == iat + 300, "{said}");
    assert!(!said["sid"].as_str().unwrap().is_empty());
    // kept until near its end, and made anew when what it says has changed
    client.get("/api/x", &[("Cookie", &cookie)]);
    assert_eq!(bearer(&backend.next()), token);
    gateway.cli(&["user", "set", "ada@example.com", "--name", "Countess"]);
    client.get("/api/x", &[("Cookie", &cookie)]);
    let renewed = bearer(&backend.next());
    assert_eq!(claims(&renewed)["name"], "Countess");
    let other = gateway.sign_in("ada@example.com");
    client.get("/api/x", &[("Cookie", &other)]);
    assert_ne!(claims(&bearer(&backend.next()))["sid"], claims(&renewed)["sid"]);
}

#[test]
fn a_tokens_cookie_takes_no_other_cookies_from_apps() {
    let backend = Backend::start(ok);
    let token = "token = { secret = { env = \"BACKEND_SECRET\" }, send = [\"cookie:_t\"] }";
    let gateway = gateway(&upstream("api", &backend, token));
    let cookies = "theme=dark; _t=x; Tz=1; _t.0=x; t=2; _T=x; .t=x; $_t=x; %5ft=x; _time=3; -T-0=x; __Host-_t=x; a=b";
    assert_eq!(gateway.client().get("/open/api/x", &[("Cookie", cookies)]).status, 200);
    assert_eq!(backend.next().field("cookie"), Some("theme=dark; Tz=1; t=2; _time=3; a=b"));
}

#[test]
fn what_a_client_sends_in_a_tokens_place_never_arrives() {
    let backend = Backend::start(ok);
    let token =
        "token = { secret = { env = \"BACKEND_SECRET\" }, send = [\"bearer\", \"cookie:next-auth.session-token\"] }";
    let plain = upstream("plain", &backend, "");
    let gateway = gateway(&format!("{}{plain}", upstream("api", &backend, token)));
    let session = gateway.first_account();
    let planted = [
        "next-auth.session-token=evil",
        "__Secure-next-auth.session-token=evil",
        "__Host-next-auth.session-token=evil",
        "next-auth.session-token.0=evil",
        "next-auth.session-token=evil; next-auth.session-token=evil2",
        "\u{a0}next-auth.session-token=evil",
        "next-auth.session-token\t=evil",
        // names that PHP, ASP.NET and others fold onto it
        "NEXT-AUTH.Session-Token=evil",
        "next-auth_session-token=evil",
        "next-auth session-token=evil",
        "next-auth[session-token=evil",
        "next%2Dauth%2esession-token=evil",
        "__secure-next-auth.session-token=evil",
        "\"next-auth.session-token\"=evil",
        "$next-auth.session-token=evil",
        "%24next-auth.session-token=evil",
        // and what others than `;` separate for some (RFC 2109, 4.3.4; Python's SimpleCookie)
        "b=2, next-auth.session-token=evil",
        "b=2,next-auth.session-token=evil",
        "b=2 next-auth.session-token=evil",
        "b=\"2\"\tnext-auth.session-token=evil",
    ];
    for path in ["/api/x", "/open/api/x", "/plain/x", "/open/plain/x"] {
        for cookies in planted {
            for signed_in in [true, false] {
                let line = if signed_in { format!("{cookies}; {session}; app=1") } else { format!("{cookies}; app=1") };
                let fields =
                    [("Cookie", line.as_str()), ("Authorization", "Bearer evil"), ("X-Authgate-Jwt-Assertion", "evil")];
                let status = gateway.client().get(path, &fields).status;
                if !signed_in && !path.starts_with("/open") {
                    assert_eq!(status, 401);
                    continue;
                }
                assert_eq!(status, 200, "{path} {line}");
                let request = backend.next();
                let seen = request.field("cookie").unwrap().to_owned();
                assert!(!seen.contains("evil") && seen.starts_with("app=1"), "{path} {line}: {seen}");
                assert_eq!(request.field("x-authgate-jwt-assertion"), None);
                let authorization = request.field("authorization");
                match (path.contains("/api"), signed_in) {
                    (true, true) => {
                        let token = bearer(&request);
                        assert_eq!(seen, format!("app=1; next-auth.session-token={token}"));
                        assert_eq!(claims(&token)["email"], "ada@example.com");
                    }
                    (true, false) => assert_eq!((authorization, seen.as_str()), (None, "app=1")),
                    (false, _) => assert_eq!((authorization, seen.as_str()), (Some("Bearer evil"), "app=1")),
                }
            }
        }
    }
    // and the browser's own token reaches nobody, whatever it is sent as
    let own = format!("Bearer {}", session.split_once('=').unwrap().1);
    gateway.client().get("/plain/x", &[("Authorization", &own)]);
    assert_eq!(backend.next().field("authorization"), None);
}

/// Server-side `getSession({ req })` of next-auth asks `/api/auth/session` with the cookies that the app received.
#[test]
fn an_app_may_ask_for_the_session_with_the_cookie_that_it_was_handed_and_for_nothing_else() {
    let backend = Backend::start(ok);
    let token = "token = { format = \"next-auth-v4\", secret = { env = \"BACKEND_SECRET\" } }";
    let gateway = gateway(&format!("[authjs]\nbase_path = \"/api/auth\"\n{}", upstream("web", &backend, token)));
    let cookie = gateway.first_account();
    gateway.client().get("/web/x", &[("Cookie", &cookie)]);
    let handed = backend.next().field("cookie").unwrap().to_owned();
    assert!(handed.starts_with("next-auth.session-token=eyJ") && !handed.contains("; "), "{handed}");
    let session = |cookie: &str| gateway.client().get("/api/auth/session", &[("Cookie", cookie)]).json();
    assert_eq!(session(&handed)["user"]["email"], "ada@example.com");
    assert_eq!(session(&format!("{handed}x")), Value::from(false));
    assert_eq!(session(&handed.replace("next-auth.session-token", "other")), Value::from(false));
    for line in ["GET /.auth/me", "GET /web/x", "POST /.auth/ws-ticket", "GET /.auth/account"] {
        assert_eq!(gateway.client().request(line, &[("Cookie", &handed)], b"").status, 401, "{line}");
    }
    gateway.cli(&["session", "revoke", "--all"]);
    assert_eq!(session(&handed), Value::from(false));
}

#[test]
fn a_backend_cannot_set_the_cookie_of_its_token() {
    let backend = Backend::start(|_, stream| {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nSet-Cookie: next-auth.session-token=x; Path=/\r\nSet-Cookie: __Secure-next-auth.session-token.0=x\r\nSet-Cookie: app=1\r\n\r\n";
        stream.write_all(answer).is_ok()
    });
    let token = "token = { secret = { env = \"BACKEND_SECRET\" }, send = [\"cookie:next-auth.session-token\"] }";
    let gateway = gateway(&upstream("api", &backend, token));
    let cookie = gateway.first_account();
    let answer = gateway.client().get("/api/x", &[("Cookie", &cookie)]);
    let set: Vec<_> = answer.all("set-cookie").into_iter().filter(|line| !line.starts_with("authgate-apps=")).collect();
    assert_eq!(set, ["app=1"]);
}

#[test]
fn tokens_of_the_gateways_own_keys_are_verified_by_jwks_and_survive_rotation() {
    let backend = Backend::start(ok);
    let gateway = gateway(&format!(
        "{}{}",
        upstream("ed", &backend, "token = { algorithm = \"EdDSA\" }"),
        upstream("ec", &backend, "token = { algorithm = \"ES256\", send = [\"assertion\"] }")
    ));
    let cookie = gateway.first_account();
    let ask = |path: &str| {
        gateway.client().get(path, &[("Cookie", &cookie)]);
        let request = backend.next();
        request.field("x-authgate-jwt-assertion").map_or_else(|| bearer(&request), str::to_owned)
    };
    let verify = |token: &str| {
        let jwks = gateway.client().get("/.auth/jwks.json", &[]);
        assert_eq!(jwks.field("cache-control"), Some("public, max-age=60"));
        let (jwks, kid) = (jwks.json(), header(token)["kid"].clone());
        let key = jwks["keys"].as_array().unwrap().iter().find(|key| key["kid"] == kid).unwrap().clone();
        assert!(key.get("d").is_none());
        let part = |name: &str| B64.decode(key[name].as_str().unwrap().as_bytes()).unwrap();
        let (message, tag) = signed_part(token);
        if key["kty"] == "OKP" {
            signature::UnparsedPublicKey::new(&signature::ED25519, part("x")).verify(message.as_bytes(), &tag).unwrap();
        } else {
            let public = [vec![4], part("x"), part("y")].concat();
            signature::UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, public)
                .verify(message.as_bytes(), &tag)
                .unwrap();
        }
        kid
    };
    let (ed, ec) = (ask("/ed/x"), ask("/ec/x"));
    let before = (verify(&ed), verify(&ec));
    gateway.cli(&["key", "rotate"]);
    let after = (verify(&ask("/ed/x")), verify(&ask("/ec/x")));
    assert!(before.0 != after.0);
    assert!(before.1 != after.1);
    assert_eq!((verify(&ed), verify(&ec)), before, "what was signed before is still verified");
    assert_eq!(gateway.client().get("/.auth/me", &[("Cookie", &cookie)]).status, 200);
}
