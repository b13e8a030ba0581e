//! Back-channel logout, end to end: what a provider ends, ends here, and nothing else does (OpenID Connect
//! Back-Channel Logout 1.0).

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{Answer, Client};
use crate::gateway::{Gateway, PASSWORD};
use crate::provider::{Provider, now};
use crate::providers::{Browser, ROUTE, serve, with_provider};
use crate::websockets::{Socket, close_code, echo, open};

const ENDPOINT: &str = "/.auth/oauth/corp/backchannel-logout";
const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

fn send_from(client: &mut Client, token: &str) -> Answer {
    client.post_form(ENDPOINT, &[], &format!("logout_token={token}"))
}

fn send(gateway: &Gateway, token: &str) -> Answer {
    send_from(&mut gateway.client(), token)
}

/// Signs in as this person, in this session of the provider.
fn sign_in(gateway: &Gateway, provider: &Provider, subject: &'static str, session: &'static str) -> Browser {
    provider.claims(move |claims| {
        claims["sub"] = subject.into();
        claims["email"] = format!("{subject}@example.com").into();
        claims["sid"] = session.into();
    });
    let mut browser = Browser::default();
    let answer = browser.through(gateway, provider, "/.auth/oauth/corp");
    assert_eq!(answer.status, 303, "{answer:?}");
    browser
}

fn is_signed_in(gateway: &Gateway, browser: &Browser) -> bool {
    browser.who(gateway).is_some()
}

fn socket(gateway: &Gateway, browser: &Browser) -> Socket {
    let mut socket = open(gateway, "/x", &browser.cookies());
    socket.read().unwrap();
    socket
}

#[test]
fn a_logout_token_ends_the_sessions_that_it_names_with_their_sockets_and_no_others() {
    let provider = Provider::start();
    let gateway = with_provider(&provider, "sign_up = \"open\"\n");
    let [one, two] = ["s-1", "s-2"].map(|session| sign_in(&gateway, &provider, "grace", session));
    let other = sign_in(&gateway, &provider, "alan", "s-3");
    gateway.add_user("ada@example.com", &[]);
    let by_password = gateway.sign_in("ada@example.com");
    let (mut ended, mut kept) = (socket(&gateway, &one), socket(&gateway, &other));
    let listed = gateway.cli(&["session", "list", "grace@example.com"]);
    assert_eq!(listed.matches("corp").count(), 2, "{listed}");

    let began = Instant::now();
    let answer = send(&gateway, &provider.logout_token(|_, claims| claims["sid"] = "s-1".into()));
    assert_eq!((answer.status, answer.text(), answer.field("cache-control")), (200, String::new(), Some("no-store")));
    assert!(!is_signed_in(&gateway, &one), "the next request is refused");
    assert_eq!(close_code(&mut ended), 4403);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert!(is_signed_in(&gateway, &two), "another session of this person at the provider");

    let of_another = |_: &mut Value, claims: &mut Value| (claims["sid"], claims["sub"]) = ("s-2".into(), "alan".into());
    assert_eq!(send(&gateway, &provider.logout_token(of_another)).status, 200);
    assert!(is_signed_in(&gateway, &two), "sid and sub must both fit");
    let both = |_: &mut Value, claims: &mut Value| (claims["sid"], claims["sub"]) = ("s-2".into(), "grace".into());
    assert_eq!(send(&gateway, &provider.logout_token(both)).status, 200);
    assert!(!is_signed_in(&gateway, &two));

    let again = ["s-4", "s-5"].map(|session| sign_in(&gateway, &provider, "grace", session));
    assert_eq!(send(&gateway, &provider.logout_token(|_, claims| claims["sub"] = "grace".into())).status, 200);
    assert!(again.iter().all(|browser| !is_signed_in(&gateway, browser)), "sub alone: all of this person");
    assert_eq!(send(&gateway, &provider.logout_token(|_, claims| claims["sub"] = "unknown".into())).status, 200);

    echo(&mut kept, "still here");
    assert!(is_signed_in(&gateway, &other));
    assert_eq!(gateway.client().get("/.auth/me", &[("Cookie", &by_password)]).status, 200);
    assert_eq!(gateway.login("ada@example.com", PASSWORD).status, 200);
    let log = gateway.into_log();
    let events: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let details: Vec<&str> = events
        .iter()
        .filter(|event| event["event"] == "backchannel_logout")
        .map(|event| {
            assert_eq!(event["user"], "grace@example.com");
            event["detail"].as_str().unwrap()
        })
        .collect();
    assert_eq!(details, ["corp 1 session", "corp 1 session", "corp 2 sessions"]);
    assert!(!log.contains("eyJ"), "no token is logged: {log}");
}

/// Each is right but for the one thing named; the last one is right.
#[test]
fn a_token_that_does_not_hold_ends_nothing() {
    type Change = fn(&mut Value, &mut Value);
    let wrong: [(&str, Change); 25] = [
        ("a nonce", |_, claims| claims["nonce"] = "x".into()),
        ("a nonce that is null", |_, claims| claims["nonce"] = Value::Null),
        ("no events", |_, claims| drop(claims.as_object_mut().unwrap().remove("events"))),
        ("events that are a text", |_, claims| claims["events"] = EVENT.into()),
        ("another event", |_, claims| claims["events"] = json!({ "http://schemas.openid.net/event/other": {} })),
        ("an event that is a text", |_, claims| claims["events"] = json!({ EVENT: "" })),
        ("typ at+jwt", |head, _| head["typ"] = "at+jwt".into()),
        ("typ secevent+jwt", |head, _| head["typ"] = "secevent+jwt".into()),
        ("typ that is no text", |head, _| head["typ"] = json!(1)),
        ("no jti", |_, claims| drop(claims.as_object_mut().unwrap().remove("jti"))),
        ("an empty jti", |_, claims| claims["jti"] = "".into()),
        ("no iat", |_, claims| drop(claims.as_object_mut().unwrap().remove("iat"))),
        ("iat three minutes ago", |_, claims| claims["iat"] = (now() - 180).into()),
        ("iat in a minute", |_, claims| claims["iat"] = (now() + 60).into()),
        ("expired", |_, claims| claims["exp"] = (now() - 60).into()),
        ("another audience", |_, claims| claims["aud"] = "other".into()),
        ("several audiences", |_, claims| claims["aud"] = json!([crate::provider::CLIENT_ID, "other"])),
        ("another issuer", |_, claims| claims["iss"] = "http://127.0.0.1:9".into()),
        ("an issuer with a slash", |_, claims| {
            claims["iss"] = format!("{}/", claims["iss"].as_str().unwrap()).into();
        }),
        ("alg none", |head, _| head["alg"] = "none".into()),
        ("alg HS256", |head, _| head["alg"] = "HS256".into()),
        ("critical extensions", |head, _| head["crit"] = json!(["b64"])),
        ("neither sub nor sid", |_, claims| drop(claims.as_object_mut().unwrap().remove("sid"))),
        ("a sid that is a number", |_, claims| claims["sid"] = json!(1)),
        ("a sub that is no subject", |_, claims| claims["sub"] = "ä".into()),
    ];
    let provider = Provider::start();
    let gateway = with_provider(&provider, "sign_up = \"open\"\n");
    let grace = sign_in(&gateway, &provider, "grace", "s-1");
    for (what, change) in wrong {
        let token = provider.logout_token(|head, claims| {
            claims["sid"] = "s-1".into();
            change(head, claims);
        });
        let answer = send(&gateway, &token);
        assert_eq!((answer.status, answer.json()), (400, json!({ "error": "invalid_request" })), "{what}");
        assert_eq!(answer.field("cache-control"), Some("no-store"));
    }
    let right = provider.logout_token(|head, claims| {
        claims["sid"] = "s-1".into();
        // providers from before the specification say nothing of the type
        head.as_object_mut().unwrap().remove("typ");
    });
    let mut altered = right.clone().into_bytes();
    let last = altered.len() - 10;
    altered[last] = if altered[last] == b'A' { b'B' } else { b'A' };
    assert_eq!(send(&gateway, std::str::from_utf8(&altered).unwrap()).status, 400, "another signature");
    assert_eq!(send(&gateway, "").status, 400);
    assert_eq!(gateway.client().post_form(ENDPOINT, &[], "").status, 400);
    let twice = format!("logout_token={right}&logout_token={right}");
    assert_eq!(gateway.client().post_form(ENDPOINT, &[], &twice).status, 400);
    let json = json!({ "logout_token": right });
    assert_eq!(gateway.client().post_json(ENDPOINT, &[], &json).status, 400, "a form, not JSON");
    let other = provider.logout_token(|_, claims| claims["sid"] = "s-1".into());
    assert_eq!(gateway.client().post_form("/.auth/oauth/nope/backchannel-logout", &[], &other).status, 404);
    assert_eq!(gateway.client().get(ENDPOINT, &[]).status, 405);
    assert!(is_signed_in(&gateway, &grace));
    assert_eq!(send(&gateway, &right).status, 200);
    assert!(!is_signed_in(&gateway, &grace));
    assert_eq!(send(&gateway, &right).status, 400, "a token is used once");
}

/// Another provider's token is none of this one's, whatever session it names.
#[test]
fn a_provider_ends_sessions_of_its_own_alone() {
    let (provider, evil) = (Provider::start(), Provider::start());
    let configured =
        [("corp", &provider), ("hub", &evil)].map(|(name, own)| own.configured(name, "sign_up = \"open\"\n"));
    let gateway = serve(&format!("{}{ROUTE}", configured.concat()));
    let grace = sign_in(&gateway, &provider, "grace", "s-1");
    let token = |by: &Provider| by.logout_token(|_, claims| claims["sid"] = "s-1".into());
    assert_eq!(send(&gateway, &token(&evil)).status, 400, "at another provider's endpoint");
    let at_its_own = gateway.client().post_form(
        "/.auth/oauth/hub/backchannel-logout",
        &[],
        &format!("logout_token={}", token(&evil)),
    );
    assert_eq!(at_its_own.status, 200);
    assert!(is_signed_in(&gateway, &grace));
    assert_eq!(send(&gateway, &token(&provider)).status, 200);
    assert!(!is_signed_in(&gateway, &grace));
}

#[test]
fn a_sign_in_that_its_logout_has_overtaken_begins_no_session() {
    let provider = Provider::start();
    let gateway = with_provider(&provider, "sign_up = \"open\"\n");
    provider.claims(|claims| claims["sid"] = "s-1".into());
    let mut browser = Browser::default();
    let started = browser.get(&gateway, "/.auth/oauth/corp");
    let callback = provider.agree(started.field("location").unwrap());
    assert_eq!(send(&gateway, &provider.logout_token(|_, claims| claims["sid"] = "s-1".into())).status, 200);
    let refused = browser.get(&gateway, &callback);
    assert_eq!(refused.status, 403);
    assert!(refused.text().contains("You were signed out at the provider in the meantime."), "{}", refused.text());
    assert!(!is_signed_in(&gateway, &browser));
    let again = sign_in(&gateway, &provider, "grace", "s-2");
    assert!(is_signed_in(&gateway, &again), "a new session there is one here");
}

/// Whoever sends what does not hold waits alone, and keys are read again once.
#[test]
fn a_flood_with_unknown_keys_asks_the_provider_once_and_keeps_no_one_else_out() {
    let provider = Provider::start();
    let gateway = with_provider(&provider, "sign_up = \"open\"\n");
    let grace = sign_in(&gateway, &provider, "grace", "s-1");
    let tokens: Vec<String> = (0..60)
        .map(|n| {
            provider.logout_token(|head, claims| {
                head["kid"] = format!("unknown-{n}").into();
                claims["sid"] = "s-1".into();
            })
        })
        .collect();
    std::thread::scope(|scope| {
        for part in tokens.chunks(10) {
            let gateway = &gateway;
            scope.spawn(move || {
                let mut client = Client::connect_from("127.0.0.2", gateway.address);
                for token in part {
                    assert_eq!(send_from(&mut client, token).status, 400);
                }
            });
        }
    });
    let keys = provider.requests.lock().unwrap().iter().filter(|target| *target == "/jwks").count();
    assert_eq!(keys, 2, "at the sign-in, and once for all of these");
    let token = provider.logout_token(|_, claims| claims["sid"] = "s-1".into());
    let throttled = send_from(&mut Client::connect_from("127.0.0.2", gateway.address), &tokens[0]);
    assert_eq!(throttled.status, 429);
    assert!(throttled.field("retry-after").unwrap().parse::<u64>().unwrap() <= 60);
    assert!(is_signed_in(&gateway, &grace));
    assert!(is_signed_in(&gateway, &sign_in(&gateway, &provider, "alan", "s-2")));
    assert_eq!(send(&gateway, &token).status, 200, "the provider's own call");
    assert!(!is_signed_in(&gateway, &grace));
}

/// The call comes from a server: the token in it is all that counts.
#[test]
fn cookies_and_the_origin_of_a_logout_call_mean_nothing_there_and_still_do_elsewhere() {
    let provider = Provider::start();
    let gateway = with_provider(&provider, "sign_up = \"open\"\n");
    let (grace, alan) = (sign_in(&gateway, &provider, "grace", "s-1"), sign_in(&gateway, &provider, "alan", "s-2"));
    let cookies = alan.cookies();
    let fields = [
        ("Cookie", cookies.as_str()),
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Mode", "navigate"),
        ("Accept", "text/html"),
        ("Origin", "https://evil.example.com"),
    ];
    let form = format!("logout_token={}", provider.logout_token(|_, claims| claims["sid"] = "s-1".into()));
    let answer = gateway.client().post_form(ENDPOINT, &fields, &form);
    assert_eq!((answer.status, answer.all("set-cookie").len()), (200, 0), "{answer:?}");
    assert!(!is_signed_in(&gateway, &grace) && is_signed_in(&gateway, &alan));
    for path in ["/.auth/logout", "/.auth/oauth/link", "/.auth/oauth/corp"] {
        assert_eq!(gateway.client().post_form(path, &fields, &form).status, 403, "{path}");
    }
    assert!(is_signed_in(&gateway, &alan));
}

/// A provider that is down cannot vouch for its token: it is asked to send it again, and may.
#[test]
fn a_token_that_cannot_be_verified_now_may_be_sent_again() {
    let provider = Provider::start();
    let gateway = with_provider(&provider, "sign_up = \"open\"\n");
    let grace = sign_in(&gateway, &provider, "grace", "s-1");
    let gateway = Gateway::serve_with(gateway.into_folder(), &[("CLIENT_SECRET", crate::provider::SECRET)]);
    provider.answer("/jwks", 503, "{}");
    let token = provider.logout_token(|_, claims| claims["sid"] = "s-1".into());
    let answer = send(&gateway, &token);
    assert_eq!((answer.status, answer.field("retry-after")), (503, Some("2")), "{answer:?}");
    assert!(is_signed_in(&gateway, &grace));
    provider.restore("/jwks");
    assert_eq!(send(&gateway, &token).status, 200);
    assert!(!is_signed_in(&gateway, &grace));
}
