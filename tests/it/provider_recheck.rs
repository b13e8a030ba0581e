//! `recheck`: a session in use follows what its provider says of the person.

use std::time::Instant;

use serde_json::{Value, json};

use crate::gateway::{Gateway, PASSWORD, eventually};
use crate::provider::{CLIENT_ID, Provider};
use crate::providers::{Browser, ROUTE, serve, with_provider};
use crate::websockets::{close_code, open};

const RECHECKED: &str = "sign_up = \"open\"\nrecheck = \"5s\"\n";

fn sign_in(gateway: &Gateway, provider: &Provider) -> Browser {
    let mut browser = Browser::default();
    let answer = browser.through(gateway, provider, "/.auth/oauth/corp");
    assert_eq!(answer.status, 303, "{answer:?}");
    browser
}

fn start() -> Provider {
    let provider = Provider::start();
    provider.refresh.lock().unwrap().is_offered = true;
    provider
}

fn groups(gateway: &Gateway, browser: &Browser) -> Value {
    gateway.client().get("/.auth/me", &[("Cookie", &browser.cookies())]).json()["groups"].clone()
}

fn rows(gateway: &Gateway) -> u32 {
    let db = rusqlite::Connection::open(gateway.state().join("authgate.db")).unwrap();
    db.query_row("SELECT count(*) FROM sealed_token", [], |row| row.get(0)).unwrap()
}

/// The detail of the audit event in a log.
fn detail(log: &str, event: &str) -> Vec<String> {
    let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events.filter(|line| line["event"] == event).map(|line| line["detail"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn groups_follow_the_provider_while_the_session_is_in_use_and_it_is_not_asked_too_often() {
    let provider = start();
    let gateway = with_provider(&provider, &format!("{RECHECKED}groups = {{ platform = \"ops\" }}\n"));
    let began = Instant::now();
    let browser = sign_in(&gateway, &provider);
    assert_eq!(groups(&gateway, &browser), json!([]));
    provider.claims(|claims| claims["groups"] = json!(["platform", "admin"]));
    eventually("the new group", || groups(&gateway, &browser) == json!(["ops"]));
    provider.claims(|_| {});
    eventually("the group is gone", || groups(&gateway, &browser) == json!([]));
    let exchanged = provider.refresh.lock().unwrap().exchanged;
    let most = usize::try_from(began.elapsed().as_secs() / 5).unwrap();
    assert!((2..=most.max(2)).contains(&exchanged), "{exchanged} in {:?}", began.elapsed());
    let log = gateway.into_log();
    assert!(!log.contains("refresh-token-"), "{log}");
}

#[test]
fn a_person_whom_the_provider_refuses_is_out_with_their_sockets_and_no_one_else() {
    let provider = start();
    let gateway = with_provider(&provider, RECHECKED);
    let browser = sign_in(&gateway, &provider);
    gateway.add_user("bob@example.com", &[]);
    let bob = gateway.sign_in("bob@example.com");
    let mut socket = open(&gateway, "/x", &browser.cookies());
    socket.read().unwrap();
    provider.refresh.lock().unwrap().current.clear();
    eventually("the session has ended", || browser.who(&gateway).is_none());
    assert_eq!(close_code(&mut socket), 4403);
    assert_eq!(gateway.client().get("/.auth/me", &[("Cookie", &bob)]).status, 200);
    assert_eq!((gateway.login("bob@example.com", PASSWORD).status, rows(&gateway)), (200, 0));
    assert!(sign_in(&gateway, &provider).who(&gateway).is_some());
    assert_eq!(detail(&gateway.into_log(), "recheck_ended"), ["corp invalid_grant"]);
}

/// `allow` is asked again, and what fails it ends everywhere.
#[test]
fn a_person_who_is_not_allowed_any_more_loses_all_sessions_of_the_provider() {
    let provider = start();
    let allow = "allow = { groups = [\"staff\"] }\n";
    let gateway = with_provider(&provider, &format!("{RECHECKED}{allow}"));
    provider.claims(|claims| claims["groups"] = json!(["staff"]));
    let (used, unused) = (sign_in(&gateway, &provider), sign_in(&gateway, &provider));
    provider.claims(|_| {});
    eventually("the session has ended", || used.who(&gateway).is_none());
    assert!(unused.who(&gateway).is_none());
    assert_eq!(detail(&gateway.into_log(), "provider_refused"), ["corp group_not_allowed"]);
}

#[test]
fn a_provider_that_is_down_ends_nothing() {
    let provider = start();
    let mut gateway = with_provider(&provider, RECHECKED);
    let browser = sign_in(&gateway, &provider);
    provider.answer("/token", 503, "{}");
    eventually("it was asked", || {
        assert!(browser.who(&gateway).is_some());
        provider.requests.lock().unwrap().iter().filter(|target| *target == "/token").count() == 2
    });
    gateway.wait_for(|_, line| line.contains("recheck without an answer, session kept"));
    assert!(browser.who(&gateway).is_some());
    assert_eq!(rows(&gateway), 1, "the refresh token is still there");
}

/// Nothing can be asked without one: the person signs in again.
#[test]
fn a_session_without_a_refresh_token_ends_at_its_first_recheck() {
    let provider = Provider::start();
    let gateway = with_provider(&provider, RECHECKED);
    let browser = sign_in(&gateway, &provider);
    assert!(browser.who(&gateway).is_some());
    eventually("the session has ended", || browser.who(&gateway).is_none());
    assert_eq!(detail(&gateway.into_log(), "recheck_ended"), ["corp no_refresh_token"]);
}

/// As GitHub's: no ID token, no refresh token, and an access token that lasts until it is withdrawn.
#[test]
fn a_provider_without_refresh_tokens_is_asked_for_the_profile() {
    let provider = Provider::start();
    let issuer = &provider.issuer;
    let profile = |login: &str| json!({ "id": 7, "email": "ada@example.com", "login": login }).to_string();
    provider.answer("/user", 200, &profile("ada"));
    let gateway = serve(&format!(
        "[[provider]]\nname = \"corp\"\nkind = \"oauth2\"\nclient_id = \"{CLIENT_ID}\"\ndanger_trust_email = true\n\
         client_secret = {{ env = \"CLIENT_SECRET\" }}\ntoken_auth = \"basic\"\n{RECHECKED}endpoints = {{ authorize = \
         \"{issuer}/authorize\", token = \"{issuer}/token\", userinfo = \"{issuer}/user\" }}\n{ROUTE}"
    ));
    let mut browser = Browser::default();
    let started = browser.get(&gateway, "/.auth/oauth/corp");
    let callback = provider.agree_without_nonce(started.field("location").unwrap());
    let answer = browser.get(&gateway, &callback);
    assert_eq!(answer.status, 303, "{answer:?}");
    let asked = || provider.requests.lock().unwrap().iter().filter(|target| *target == "/user").count();
    assert_eq!((asked(), rows(&gateway)), (1, 1));
    eventually("it was asked again", || {
        assert!(browser.who(&gateway).is_some());
        asked() == 2
    });
    provider.answer("/user", 401, "{}");
    eventually("the session has ended", || browser.who(&gateway).is_none());
    let log = gateway.into_log();
    assert_eq!(detail(&log, "recheck_ended"), ["corp token_refused"]);
    assert!(!log.contains(crate::provider::ACCESS_TOKEN), "{log}");
}
