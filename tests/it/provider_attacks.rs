//! Attacks on what a provider may do while a session lasts, and on what people and apps beside it may: each with the
//! honest use that goes on working.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::gateway::{Gateway, configured, eventually};
use crate::provider::{Provider, SECRET};
use crate::providers::{Browser, ROUTE, leads_to, serve, with_provider};
use crate::websockets::{close_code, open};
use crate::{client, provider_hosts};

const OPEN: &str = "sign_up = \"open\"\n";
const RECHECKED: &str = "sign_up = \"open\"\nrecheck = \"5s\"\n";

fn sign_in_at(gateway: &Gateway, provider: &Provider, name: &str) -> Browser {
    let mut browser = Browser::default();
    let answer = browser.through(gateway, provider, &format!("/.auth/oauth/{name}"));
    assert_eq!(answer.status, 303, "{answer:?}");
    browser
}

/// The details of the audit events of this name in a log.
fn details(log: &str, event: &str) -> Vec<String> {
    let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events.filter(|line| line["event"] == event).map(|line| line["detail"].as_str().unwrap().to_owned()).collect()
}

fn param(url: &str, wanted: &str) -> String {
    let query = url.split_once('?').unwrap().1;
    form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == wanted).unwrap().1.into_owned()
}

fn with_param(url: &str, wanted: &str, value: &str) -> String {
    let (page, query) = url.split_once('?').unwrap();
    let changed = form_urlencoded::parse(query.as_bytes())
        .map(|(name, own)| if name == wanted { (name, value.into()) } else { (name, own) });
    format!("{page}?{}", form_urlencoded::Serializer::new(String::new()).extend_pairs(changed).finish())
}

/// RFC 9700, 4.11: an app that reads addresses on its own host, by a service worker, must not get a code that another
/// host accepts. The attacker begins at both hosts, and sends someone to the provider with one request and the other's
/// `state`.
#[test]
fn a_code_that_is_passed_on_to_one_host_signs_no_one_in_at_another() {
    let provider = Provider::start();
    let routes = ["auth", "evil", "bank"]
        .map(|host| format!("[[route]]\nhost = \"{host}.example.com\"\nupstream = \"builtin:whoami\"\n"));
    let corp = provider.configured("corp", OPEN);
    let text = format!("public_url = \"http://auth.example.com\"\n{corp}{}", routes.concat());
    let gateway = Gateway::serve_with(configured(&text), &[("CLIENT_SECRET", SECRET)]);
    let (mut attacker, mut victim) = (provider_hosts::Browser::default(), provider_hosts::Browser::default());
    let mut begin = |host: &str| {
        let started = attacker.get(&gateway, host, "/.auth/oauth/corp");
        started.field("location").unwrap().to_owned()
    };
    let (at_bank, at_evil) = (begin("bank.example.com"), begin("evil.example.com"));
    let callback = provider.agree(&with_param(&at_bank, "state", &param(&at_evil, "state")));
    let passed_on = victim.get(&gateway, "auth.example.com", &callback);
    let seen_by_evil = passed_on.field("location").unwrap();
    assert!(seen_by_evil.starts_with("http://evil.example.com/"), "{seen_by_evil}");
    let code = param(seen_by_evil, "code");
    let own = with_param(&with_param(&callback, "code", &code), "state", &param(&at_bank, "state"));
    let relayed = attacker.get(&gateway, "auth.example.com", &own);
    attacker.follow(&gateway, &relayed);
    let direct = attacker.get(&gateway, "bank.example.com", &own);
    assert_ne!(direct.status, 303, "{direct:?}");
    assert!(!attacker.is_signed_in(&gateway, "bank.example.com"));
    // each on its own
    for host in ["bank.example.com", "evil.example.com"] {
        let started = victim.get(&gateway, host, "/.auth/oauth/corp");
        let callback = provider.agree(started.field("location").unwrap());
        let passed_on = victim.get(&gateway, "auth.example.com", &callback);
        let done = victim.follow(&gateway, &passed_on);
        assert_eq!(done.status, 303, "{done:?}");
        assert!(victim.is_signed_in(&gateway, host), "{host}");
    }
}

/// Two tabs, and between them the person signed out and in again at the provider: its logout must find the session.
#[test]
fn a_second_tab_with_another_session_at_the_provider_is_ended_by_that_ones_logout() {
    let provider = Provider::start();
    let gateway = with_provider(&provider, OPEN);
    let sessions = |gateway: &Gateway| gateway.cli(&["session", "list", "ada@example.com"]).matches("corp").count();
    let end = |session: &'static str| {
        let token = provider.logout_token(|_, claims| claims["sid"] = session.into());
        let answer =
            gateway.client().post_form("/.auth/oauth/corp/backchannel-logout", &[], &format!("logout_token={token}"));
        assert_eq!(answer.status, 200);
    };
    provider.claims(|claims| claims["sid"] = "s-1".into());
    let mut browser = sign_in_at(&gateway, &provider, "corp");
    let listed = gateway.cli(&["session", "list", "ada@example.com"]);
    browser.through(&gateway, &provider, "/.auth/oauth/corp");
    let again = gateway.cli(&["session", "list", "ada@example.com"]);
    assert_eq!((again, sessions(&gateway)), (listed, 1), "the same session there: the first one is kept");
    provider.claims(|claims| claims["sid"] = "s-2".into());
    browser.through(&gateway, &provider, "/.auth/oauth/corp");
    assert_eq!(sessions(&gateway), 1);
    end("s-1");
    assert!(browser.who(&gateway).is_some());
    end("s-2");
    assert_eq!(browser.who(&gateway), None);
}

/// A provider that does not answer must not keep another one's people from being asked about.
#[test]
fn rechecks_at_a_provider_that_hangs_hold_up_no_others() {
    let (hub, corp) = (Provider::start(), Provider::start());
    for provider in [&hub, &corp] {
        provider.refresh.lock().unwrap().is_offered = true;
    }
    let configured = [hub.configured("hub", RECHECKED), corp.configured("corp", RECHECKED)];
    let gateway = serve(&format!("{}{ROUTE}", configured.concat()));
    hub.person("grace", "grace@example.com", true);
    let hanging: Vec<Browser> = (0..12).map(|_| sign_in_at(&gateway, &hub, "hub")).collect();
    hub.hang("/token");
    let asked = hub.count("/token");
    eventually("as many rechecks as may be in progress", || {
        for browser in &hanging {
            assert!(browser.who(&gateway).is_some());
        }
        hub.count("/token") == asked + 8
    });
    let began = Instant::now();
    let browser = sign_in_at(&gateway, &corp, "corp");
    corp.refresh.lock().unwrap().current.clear();
    eventually("the session has ended", || browser.who(&gateway).is_none());
    assert!(began.elapsed() < Duration::from_secs(9), "before the other provider's requests have timed out");
    assert!(hanging.iter().all(|browser| browser.who(&gateway).is_some()), "what cannot be asked ends nothing");
}

/// A socket needs no further request, and its person is asked about all the same.
#[test]
fn a_session_with_an_open_socket_alone_is_rechecked() {
    let provider = Provider::start();
    provider.refresh.lock().unwrap().is_offered = true;
    let gateway = with_provider(&provider, RECHECKED);
    let browser = sign_in_at(&gateway, &provider, "corp");
    let mut socket = open(&gateway, "/x", &browser.cookies());
    socket.read().unwrap();
    eventually("it is asked about", || provider.refresh.lock().unwrap().exchanged > 0);
    eventually("and again", || provider.refresh.lock().unwrap().exchanged > 1);
    eventually("the next token is there", || !provider.refresh.lock().unwrap().current.is_empty());
    provider.refresh.lock().unwrap().current.clear();
    assert_eq!(close_code(&mut socket), 4403);
}

/// What was given for one issuer goes to no other, even if the operator puts another one in its place.
#[test]
fn tokens_of_one_issuer_are_sent_to_no_other_under_the_same_name() {
    const KEPT: &str = "sign_up = \"open\"\nrecheck = \"5s\"\nsign_out = \"provider\"\n";
    let (old, new) = (Provider::start(), Provider::start());
    old.refresh.lock().unwrap().is_offered = true;
    let mut gateway = with_provider(&old, KEPT);
    let (browser, mut leaving) = (sign_in_at(&gateway, &old, "corp"), sign_in_at(&gateway, &old, "corp"));
    let (refresh, id_token) = ("refresh-token-", old.last_id_token());
    gateway.reload(&format!("{}{ROUTE}", new.configured("corp", KEPT)));
    let answer = leaving.post(&gateway, "/.auth/logout", "");
    assert!(!answer.text().contains(&id_token), "{}", answer.text());
    eventually("the session has ended", || browser.who(&gateway).is_none());
    assert_eq!(new.count("/token"), 0);
    // the same one again
    gateway.reload(&format!("{}{ROUTE}", old.configured("corp", KEPT)));
    let exchanged = old.refresh.lock().unwrap().exchanged;
    let mut browser = sign_in_at(&gateway, &old, "corp");
    eventually("its own is asked", || {
        assert!(browser.who(&gateway).is_some());
        old.refresh.lock().unwrap().exchanged > exchanged
    });
    let answer = browser.post(&gateway, "/.auth/logout", "");
    assert!(leads_to(&answer.text()).starts_with(&format!("{}/end?", old.issuer)));
    let log = gateway.into_log();
    assert_eq!(details(&log, "recheck_ended"), ["corp other_issuer"]);
    assert!(!log.contains(refresh), "{log}");
}

/// A provider that has another one's name has no say over its people.
#[test]
fn another_issuer_that_refuses_a_person_ends_no_session_of_the_pinned_one() {
    let (old, new) = (Provider::start(), Provider::start());
    let allow = "sign_up = \"open\"\nallow = { emails = [\"ada@example.com\"] }\n";
    let mut gateway = with_provider(&old, allow);
    let browser = sign_in_at(&gateway, &old, "corp");
    for provider in [&old, &new] {
        provider.person("ada-at-corp", "eve@example.com", true);
    }
    gateway.reload(&format!("{}{ROUTE}", new.configured("corp", allow)));
    assert_eq!(Browser::default().through(&gateway, &new, "/.auth/oauth/corp").status, 403);
    assert!(browser.who(&gateway).is_some());
    gateway.reload(&format!("{}{ROUTE}", old.configured("corp", allow)));
    assert_eq!(Browser::default().through(&gateway, &old, "/.auth/oauth/corp").status, 403);
    eventually("the session has ended", || browser.who(&gateway).is_none());
}

/// An app on the same host can send requests as its page, and read what they answer. The ID token is for the browser's
/// address bar alone.
#[test]
fn a_script_that_signs_out_gets_no_id_token() {
    const KEPT: &str = "sign_up = \"open\"\nsign_out = \"provider\"\n";
    let provider = Provider::start();
    let gateway = serve(&format!("[authjs]\nbase_path = \"/api/auth\"\n{}{ROUTE}", provider.configured("corp", KEPT)));
    let script = |browser: &Browser, line: &str, body: &str| -> client::Answer {
        let cookies = browser.cookies();
        let fields = [
            ("Cookie", cookies.as_str()),
            ("Accept", "text/html"),
            ("Content-Type", "application/x-www-form-urlencoded"),
            ("Sec-Fetch-Mode", "cors"),
            ("Sec-Fetch-Dest", "empty"),
            ("Sec-Fetch-Site", "same-origin"),
        ];
        gateway.client().request(line, &fields, body.as_bytes())
    };
    let browser = sign_in_at(&gateway, &provider, "corp");
    let answer = script(&browser, "POST /.auth/logout", "");
    assert_eq!((answer.status, answer.field("location")), (303, Some("/.auth/signed-out")), "{answer:?}");
    assert!(browser.who(&gateway).is_none(), "it has signed out");
    // next-auth's signOut() opens the address that it gets
    let mut browser = sign_in_at(&gateway, &provider, "corp");
    let id_token = provider.last_id_token();
    browser.keep(&gateway.client().get("/api/auth/csrf", &[("Cookie", &browser.cookies())]));
    let cookie = browser.0.iter().find(|(name, _)| name.ends_with("csrf")).unwrap().1.clone();
    let form = format!("csrfToken={}&callbackUrl=%2F&json=true", cookie.split(['.', '%']).next().unwrap());
    let answer = script(&browser, "POST /api/auth/signout", &form);
    let url = answer.json()["url"].as_str().unwrap().to_owned();
    let path = url.strip_prefix(&format!("http://{}", gateway.host())).unwrap();
    let read = script(&browser, &format!("GET {path}"), "");
    assert!(!read.text().contains(&id_token), "{}", read.text());
    let page = browser.get(&gateway, path);
    assert!(leads_to(&page.text()).contains(&id_token), "the page itself leads on");
}

/// Logout tokens of strangers are counted by the network that they come from, which providers that serve many share.
#[test]
fn a_network_that_sent_too_many_bad_logout_tokens_still_delivers_a_good_one() {
    let provider = Provider::start();
    let gateway = with_provider(&provider, OPEN);
    provider.claims(|claims| claims["sid"] = "s-1".into());
    let browser = sign_in_at(&gateway, &provider, "corp");
    let mut client = client::Client::connect_from("127.0.0.2", gateway.address);
    let mut send = |token: &str| {
        client.post_form("/.auth/oauth/corp/backchannel-logout", &[], &format!("logout_token={token}")).status
    };
    let bad = provider.logout_token(|_, claims| claims["aud"] = "another client".into());
    for _ in 0..60 {
        assert_eq!(send(&bad), 400);
    }
    assert_eq!(send(&bad), 429);
    let keys = provider.count("/jwks");
    let unknown = provider.logout_token(|head, claims| {
        head["kid"] = "unknown".into();
        claims["sid"] = "s-1".into();
    });
    assert_eq!((send(&unknown), provider.count("/jwks")), (429, keys), "nothing is asked for it");
    assert!(browser.who(&gateway).is_some());
    let good = provider.logout_token(|_, claims| claims["sid"] = "s-1".into());
    assert_eq!(send(&good), 200);
    assert!(browser.who(&gateway).is_none());
    assert_eq!(send(&good), 429, "once");
}
