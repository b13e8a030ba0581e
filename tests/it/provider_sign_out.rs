//! `sign_out = "provider"`: the session ends here, then at the provider, and no one is signed in again by that
//! (OpenID Connect RP-Initiated Logout 1.0).

use std::collections::HashMap;

use crate::gateway::Gateway;
use crate::provider::{CLIENT_ID, Provider, SECRET};
use crate::providers::{Browser, ROUTE, leads_to, serve, with_provider};

const KEPT: &str = "sign_up = \"open\"\nsign_out = \"provider\"\n";

fn sign_in(gateway: &Gateway, provider: &Provider) -> Browser {
    let mut browser = Browser::default();
    let answer = browser.through(gateway, provider, "/.auth/oauth/corp");
    assert_eq!(answer.status, 303, "{answer:?}");
    browser
}

fn params(url: &str) -> HashMap<String, String> {
    form_urlencoded::parse(url.split_once('?').unwrap().1.as_bytes()).into_owned().collect()
}

/// Everything in the state folder as one heap of bytes.
fn state_bytes(gateway: &Gateway) -> Vec<u8> {
    let files = std::fs::read_dir(gateway.state()).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.is_file()).flat_map(|path| std::fs::read(path).unwrap()).collect()
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn signing_out_ends_the_session_here_then_at_the_provider_and_starts_no_sign_in() {
    let provider = Provider::start();
    let gateway = with_provider(&provider, KEPT);
    let mut browser = sign_in(&gateway, &provider);
    let id_token = provider.last_id_token();
    let cookies = browser.cookies();
    let answer = browser.post(&gateway, "/.auth/logout", "");
    assert_eq!((answer.status, answer.field("location")), (200, None), "no redirect of a form: {answer:?}");
    let seen = gateway.client().get("/.auth/me", &[("Cookie", &cookies)]);
    assert_eq!(seen.status, 401, "it has ended before the provider is asked");
    assert!(browser.who(&gateway).is_none());
    let url = leads_to(&answer.text());
    assert!(url.starts_with(&format!("{}/end?", provider.issuer)), "{url}");
    let params = params(&url);
    assert_eq!(params["client_id"], CLIENT_ID);
    assert_eq!(params["post_logout_redirect_uri"], "http://127.0.0.1/.auth/signed-out");
    assert_eq!(params["id_token_hint"], id_token);
    assert_eq!(params["state"].len(), 22);
    let back = browser.get(&gateway, &format!("/.auth/signed-out?state={}", params["state"]));
    assert_eq!(back.status, 200);
    let text = back.text();
    assert!(text.contains("You are signed out on this device.") && !text.contains("http-equiv"), "{text}");
    assert!(browser.who(&gateway).is_none());
    let log = gateway.into_log();
    assert!(!log.contains(&id_token) && !log.contains("eyJ") && !log.contains(&params["state"]), "{log}");
}

/// What is kept is sealed, and gone with its session.
#[test]
fn the_id_token_is_in_no_file_in_clear_and_only_where_sign_out_asks_for_it() {
    let provider = Provider::start();
    let gateway = with_provider(&provider, KEPT);
    let rows = |gateway: &Gateway| -> u32 {
        let db = rusqlite::Connection::open(gateway.state().join("authgate.db")).unwrap();
        db.query_row("SELECT count(*) FROM sealed_token", [], |row| row.get(0)).unwrap()
    };
    let mut browser = sign_in(&gateway, &provider);
    let id_token = provider.last_id_token();
    assert_eq!(rows(&gateway), 1);
    let signature = id_token.rsplit('.').next().unwrap();
    let bytes = state_bytes(&gateway);
    assert!(holds(&bytes, "ada@example.com") && !holds(&bytes, signature) && !holds(&bytes, "eyJ"));
    let page = browser.get(&gateway, "/.auth/account").text();
    let me = gateway.client().get("/.auth/me", &[("Cookie", &browser.cookies())]).text();
    assert!(!page.contains(signature) && !me.contains(signature));
    let backup = gateway.folder().join("backup.db");
    gateway.cli(&["backup", backup.to_str().unwrap()]);
    assert!(!holds(&std::fs::read(&backup).unwrap(), signature));
    gateway.cli(&["session", "revoke", "--all"]);
    assert_eq!(rows(&gateway), 0, "deleted with the session, whatever ends it");
    drop(gateway);
    let without = with_provider(&provider, "sign_up = \"open\"\n");
    let mut browser = sign_in(&without, &provider);
    assert_eq!(rows(&without), 0);
    let answer = browser.post(&without, "/.auth/logout", "");
    assert_eq!((answer.status, answer.field("location")), (303, Some("/.auth/signed-out")));
}

/// A new sealing key signs no one out, at the provider neither.
#[test]
fn the_id_token_is_sealed_again_with_a_new_key() {
    let provider = Provider::start();
    let gateway = with_provider(&provider, KEPT);
    let mut browser = sign_in(&gateway, &provider);
    let id_token = provider.last_id_token();
    gateway.cli(&["key", "rotate", "--secrets"]);
    let answer = browser.post(&gateway, "/.auth/logout", "");
    assert_eq!(params(&leads_to(&answer.text()))["id_token_hint"], id_token);
}

/// Some servers take no longer address, and the hint is not needed to sign out.
#[test]
fn an_id_token_that_makes_the_address_too_long_is_left_out() {
    let provider = Provider::start();
    let gateway = with_provider(&provider, KEPT);
    provider.claims(|claims| claims["filler"] = "x".repeat(4000).into());
    let mut browser = sign_in(&gateway, &provider);
    let answer = browser.post(&gateway, "/.auth/logout", "");
    let params = params(&leads_to(&answer.text()));
    assert_eq!((params["client_id"].as_str(), params.contains_key("id_token_hint")), (CLIENT_ID, false));
}

#[test]
fn a_provider_that_is_down_keeps_no_one_signed_in_and_passwords_sign_out_here() {
    let provider = Provider::start();
    let gateway = with_provider(&provider, KEPT);
    // programs get no page
    let browser = sign_in(&gateway, &provider);
    let answer = gateway.client().post_json("/.auth/logout", &[("Cookie", &browser.cookies())], &serde_json::json!({}));
    assert_eq!(answer.status, 204);
    assert!(browser.who(&gateway).is_none());
    gateway.add_user("bob@example.com", &[]);
    let mut bob = Browser::default();
    bob.keep(&gateway.login("bob@example.com", crate::gateway::PASSWORD));
    let answer = bob.post(&gateway, "/.auth/logout", "");
    assert_eq!((answer.status, answer.field("location")), (303, Some("/.auth/signed-out")), "{answer:?}");
    let mut browser = sign_in(&gateway, &provider);
    provider.answer("/.well-known/openid-configuration", 503, "{}");
    let gateway = Gateway::serve_with(gateway.into_folder(), &[("CLIENT_SECRET", SECRET)]);
    let answer = browser.post(&gateway, "/.auth/logout", "");
    assert_eq!((answer.status, answer.field("location")), (303, Some("/.auth/signed-out")), "{answer:?}");
    assert!(browser.who(&gateway).is_none());
}

/// What `signOut()` of next-auth gets: a page of ours, once, and no token.
#[test]
fn clients_of_auth_js_are_led_to_the_provider_by_a_page_of_the_gateway() {
    let provider = Provider::start();
    let gateway = serve(&format!("[authjs]\nbase_path = \"/api/auth\"\n{}{ROUTE}", provider.configured("corp", KEPT)));
    let mut browser = sign_in(&gateway, &provider);
    let id_token = provider.last_id_token();
    let csrf = gateway.client().get("/api/auth/csrf", &[("Cookie", &browser.cookies())]);
    browser.keep(&csrf);
    let token = csrf.json()["csrfToken"].as_str().unwrap().to_owned();
    let form = format!("csrfToken={token}&callbackUrl=%2Fbye&json=true");
    let answer = browser.post(&gateway, "/api/auth/signout", &form);
    assert!(browser.who(&gateway).is_none());
    let url = answer.json()["url"].as_str().unwrap().to_owned();
    let path = url.strip_prefix(&format!("http://{}", gateway.host())).unwrap();
    assert!(path.starts_with("/.auth/signed-out?ticket=") && !answer.text().contains(&id_token), "{url}");
    let page = browser.get(&gateway, path);
    assert_eq!(params(&leads_to(&page.text()))["id_token_hint"], id_token);
    let again = browser.get(&gateway, path);
    assert!(again.status == 200 && again.text().contains("You are signed out") && !again.text().contains("http-equiv"));
    // a session that began with a password goes where the script wants
    gateway.add_user("bob@example.com", &[]);
    let mut bob = Browser::default();
    bob.keep(&gateway.login("bob@example.com", crate::gateway::PASSWORD));
    bob.keep(&csrf);
    let answer = bob.post(&gateway, "/api/auth/signout", &form);
    assert!(answer.json()["url"].as_str().unwrap().ends_with("/bye"), "{answer:?}");
}
