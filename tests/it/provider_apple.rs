//! Sign in with Apple: a client secret that is signed for each request, an answer that the browser posts, and a name that
//! comes once.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use data_encoding::BASE64;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::gateway::{Gateway, command, configured};
use crate::provider::Provider;
use crate::providers::{Browser, ROUTE};

const ISSUER: &str = "https://appleid.apple.com";
const DISCOVERY: &str = "/.well-known/openid-configuration";

/// A key as Apple gives it out, and what Apple keeps.
pub fn new_key() -> (String, Vec<u8>) {
    let random = ring::rand::SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random).unwrap();
    let body = BASE64.encode(document.as_ref());
    (format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n"), pair.public_key().as_ref().to_vec())
}

/// Apple, played by the tests' provider; it issues ID tokens for `subject`.
fn apple(key: &[u8], subject: &'static str) -> Provider {
    let provider = Provider::start();
    let base = &provider.issuer;
    let metadata = json!({
        "issuer": ISSUER,
        "authorization_endpoint": format!("{base}/authorize"),
        "token_endpoint": format!("{base}/token"),
        "jwks_uri": format!("{base}/jwks"),
        "response_modes_supported": ["query", "fragment", "form_post"],
        "token_endpoint_auth_methods_supported": ["client_secret_post"],
        "id_token_signing_alg_values_supported": ["EdDSA"],
    });
    provider.answer(DISCOVERY, 200, &metadata.to_string());
    *provider.apple_client.lock().unwrap() = Some(key.to_vec());
    provider.claims(move |claims| {
        claims["iss"] = ISSUER.into();
        claims["sub"] = subject.into();
        claims["email"] = format!("{subject}@example.com").into();
        claims["email_verified"] = "true".into();
        claims.as_object_mut().unwrap().remove("name");
    });
    provider
}

fn gateway(provider: &Provider, pem: &str) -> Gateway {
    Gateway::serve(folder(provider, pem))
}

fn folder(provider: &Provider, pem: &str) -> TempDir {
    let folder = configured(&format!(
        "[[provider]]\nname = \"apple\"\nkind = \"apple\"\nclient_id = \"gateway\"\nteam_id = \"TEAM123456\"\n\
         key_id = \"KEY1234567\"\nprivate_key = {{ file = \"AuthKey_KEY1234567.p8\" }}\nsign_up = \"open\"\n\
         endpoints = {{ discovery = \"{}{DISCOVERY}\" }}\n{ROUTE}",
        provider.issuer
    ));
    let file = folder.path().join("AuthKey_KEY1234567.p8");
    std::fs::write(&file, pem).unwrap();
    std::fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    folder
}

/// Goes to Apple and back; `user` is what Apple's page posts beside code and state. Returns where the browser ends.
fn sign_in(browser: &mut Browser, gateway: &Gateway, provider: &Provider, user: Option<&str>) -> String {
    let started = browser.get(gateway, "/.auth/oauth/apple?callbackUrl=/app");
    let url = started.field("location").unwrap();
    assert!(url.contains("response_mode=form_post") && url.contains("scope=openid+name+email"), "{url}");
    let callback = provider.agree(url);
    let (path, query) = callback.split_once('?').unwrap();
    let fields: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let form = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(fields.iter().filter(|(name, _)| name != "iss"))
        .extend_pairs(user.map(|user| ("user", user)))
        .finish();
    let fields =
        [("Accept", "text/html"), ("Origin", ISSUER), ("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Site", "cross-site")];
    let posted = gateway.client().post_form(path, &fields, &form);
    assert_eq!(posted.status, 303, "{posted:?}");
    browser.get(gateway, posted.field("location").unwrap()).field("location").unwrap_or_default().to_owned()
}

fn me(browser: &mut Browser, gateway: &Gateway) -> Value {
    serde_json::from_slice(&browser.get(gateway, "/.auth/me").body).unwrap()
}

#[test]
fn the_name_that_apple_says_once_is_the_accounts_and_no_other_field_of_it_is_believed() {
    let (pem, public) = new_key();
    let provider = apple(&public, "000123.grace");
    let gateway = gateway(&provider, &pem);
    let mut browser = Browser::default();
    let user =
        json!({ "name": { "firstName": "Grace", "lastName": "Hopper" }, "email": "ada@example.com" }).to_string();
    assert_eq!(sign_in(&mut browser, &gateway, &provider, Some(&user)), "/app");
    // each session expires at its own time
    let who = |browser: &mut Browser| {
        let mut who = me(browser, &gateway);
        who["expires"].take();
        who
    };
    let first = who(&mut browser);
    assert_eq!(
        (first["name"].as_str(), first["email"].as_str()),
        (Some("Grace Hopper"), Some("000123.grace@example.com"))
    );
    // Apple's later answers have no such field, and a made-up one changes nothing
    let mut again = Browser::default();
    assert_eq!(sign_in(&mut again, &gateway, &provider, None), "/app");
    let user = json!({ "name": { "firstName": "Eve" } }).to_string();
    assert_eq!(sign_in(&mut again, &gateway, &provider, Some(&user)), "/app");
    assert_eq!(who(&mut again), first);
}

#[test]
fn what_is_no_name_in_that_field_is_left_out() {
    for (subject, user) in [
        ("a1", "no JSON".to_owned()),
        ("a2", json!({ "name": ["x"] }).to_string()),
        ("a3", json!({ "name": { "firstName": "x".repeat(1024) } }).to_string()),
        ("a4", json!({ "name": { "firstName": "Eve\r\nRemote-User: admin" } }).to_string()),
    ] {
        let (pem, public) = new_key();
        let provider = apple(&public, subject);
        let gateway = gateway(&provider, &pem);
        let mut browser = Browser::default();
        assert_eq!(sign_in(&mut browser, &gateway, &provider, Some(&user)), "/app", "{user}");
        let name = me(&mut browser, &gateway)["name"].as_str().unwrap_or_default().to_owned();
        assert!(name.len() < 64 && !name.contains(['\r', '\n']), "{name:?}");
    }
}

#[test]
fn apple_refuses_a_secret_that_another_key_signed_and_no_one_is_signed_in() {
    let (pem, _) = new_key();
    let (_, other) = new_key();
    let provider = apple(&other, "000123.grace");
    let gateway = gateway(&provider, &pem);
    let mut browser = Browser::default();
    assert_eq!(sign_in(&mut browser, &gateway, &provider, None), "/.auth/login?callbackUrl=/app&error=OAuthCallback");
    assert_eq!(browser.who(&gateway), None);
    let log = gateway.into_log();
    assert!(log.contains("invalid_client") && !log.contains("eyJ"), "{log}");
}

#[test]
fn provider_check_says_that_a_key_cannot_sign_before_anyone_signs_in() {
    let (pem, public) = new_key();
    let provider = apple(&public, "000123.grace");
    for (pem, code, expected) in
        [(pem.clone(), 0, "client_secret_post"), (pem.replace("MIG", "MIH"), 1, "the private key is not a P-256 key")]
    {
        let output = command(folder(&provider, &pem).path(), &["provider", "check", "apple"]).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(expected), "{said}");
    }
}
