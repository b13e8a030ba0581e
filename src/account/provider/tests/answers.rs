//! What the browser brings back, and the exchange of the code.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::op::{NOW, ORIGIN, Op, World, provider};
use crate::account::provider::attempt::Browser;
use crate::account::provider::errors::Reason;
use crate::account::provider::finish::{Callback, Unfinished};
use crate::account::provider::identity::{Intent, ProviderEmail};
use crate::config::{ClientCredential, ProviderIssuer, ProviderKind, TokenAuth};
use crate::secret::Secret;

fn with(query: &[(String, String)], name: &str, value: &str) -> Vec<(String, String)> {
    let mut query: Vec<_> = query.iter().filter(|(own, _)| own != name).cloned().collect();
    query.push((name.to_owned(), value.to_owned()));
    query
}

fn without(query: &[(String, String)], name: &str) -> Vec<(String, String)> {
    query.iter().filter(|(own, _)| own != name).cloned().collect()
}

fn reason<T>(result: Result<T, Unfinished>) -> Reason {
    match result {
        Ok(_) => panic!("signed in"),
        Err(unfinished) => unfinished.failure.reason,
    }
}

#[tokio::test]
async fn an_honest_provider_signs_people_in() {
    let world = World::new().await;
    let started = world.begin().await.unwrap();
    assert_eq!(started.browser.cookie(), world.browser.cookie(), "all tabs share one cookie");
    let params: HashMap<String, String> = started.url.query_pairs().into_owned().collect();
    for (name, value) in [
        ("response_type", "code"),
        ("client_id", "client one"),
        ("redirect_uri", "https://app.example.com/.auth/oauth/op/callback"),
        ("scope", "openid email"),
        ("code_challenge_method", "S256"),
    ] {
        assert_eq!(params[name], value);
    }
    assert!(params.contains_key("state") && params.contains_key("nonce") && params.contains_key("code_challenge"));
    assert_eq!(params.len(), 8, "{params:?}");
    assert!(started.url.as_str().len() < 1500);
    let finished = world.call_back(&world.op.authorize(&started.url)).await.map_err(|e| e.failure).unwrap();
    let identity = finished.identity;
    assert_eq!((identity.provider.as_str(), identity.subject.as_str()), ("op", "ann"));
    assert_eq!(identity.issuer.as_deref(), Some(world.op.issuer.as_str()));
    let email = ProviderEmail { address: "ann@example.com".to_owned(), is_verified: true };
    assert_eq!((identity.email, identity.name.as_deref()), (Some(email), Some("Ann")));
    assert_eq!(identity.session_id.as_deref(), Some("their session"));
    assert_eq!((finished.intent, finished.return_to.as_deref()), (Intent::SignIn, Some("/app")));
    assert_eq!(world.op.count("/userinfo"), 0, "nothing was missing");
}

#[tokio::test]
async fn an_answer_is_only_taken_in_its_own_browser_at_its_own_place_and_once_said() {
    let world = World::new().await;
    let query = world.op.authorize(&world.begin().await.unwrap().url);
    let with_callback = |change: fn(&mut Callback<'_>)| world.call_back_with(&query, change);
    assert_eq!(reason(world.call_back(&without(&query, "state")).await), Reason::NoState);
    assert_eq!(reason(with_callback(|callback| callback.browser = None).await), Reason::NoCookie);
    assert_eq!(reason(with_callback(|callback| callback.browser = Browser::new().ok()).await), Reason::BadState);
    assert_eq!(reason(with_callback(|callback| callback.path = "/api/auth/callback/op").await), Reason::BadState);
    assert_eq!(reason(with_callback(|callback| callback.provider = "other").await), Reason::UnknownProvider);
    for name in ["code", "state", "iss", "error"] {
        let mut twice = query.clone();
        twice.extend([(name.to_owned(), "x".to_owned()), (name.to_owned(), "x".to_owned())]);
        assert_eq!(reason(world.call_back(&twice).await), Reason::RepeatedParameter, "{name}");
    }
    assert_eq!(reason(world.call_back(&without(&query, "code")).await), Reason::NoCode);
    world.clock.advance(901);
    assert_eq!(reason(world.call_back(&query).await), Reason::BadState, "16 minutes old");
    world.clock.set(NOW);
    assert!(world.call_back(&query).await.is_ok(), "nothing of this used the attempt up");
    assert_eq!(world.op.count("/token"), 1, "no refused answer reached the provider");
}

// one of two providers leads the browser on to the other, whose code comes back with the first one's state
#[tokio::test]
async fn state_of_one_provider_is_nothing_at_anothers_callback() {
    let (op, other) = (Op::start().await, Op::start().await);
    let mut second = provider(ProviderKind::Oidc, ProviderIssuer::Exact(other.issuer.clone()));
    second.name = "other".to_owned();
    second.callback = "/.auth/oauth/other/callback".to_owned();
    let first = provider(ProviderKind::Oidc, ProviderIssuer::Exact(op.issuer.clone()));
    let world = World::of(op, &[first, second]);
    let query = world.op.authorize(&world.begin().await.unwrap().url);
    let mixed = world
        .call_back_with(&query, |callback| {
            callback.provider = "other";
            callback.path = "/.auth/oauth/other/callback";
        })
        .await;
    assert_eq!(reason(mixed), Reason::BadState);
    let mut led_on = other.authorize(&world.begin().await.unwrap().url);
    led_on.push(("iss".to_owned(), other.issuer.clone()));
    let at_the_others = world
        .call_back_with(&led_on, |callback| {
            callback.provider = "other";
            callback.path = "/.auth/oauth/other/callback";
        })
        .await;
    assert_eq!(reason(at_the_others), Reason::BadState);
    assert_eq!(reason(world.call_back(&led_on).await), Reason::WrongIssuer);
    assert_eq!(world.op.count("/token"), 0, "nor did the other's code reach the first provider");
    assert!(other.requests.lock().is_empty(), "the code never reached the other provider");
    assert!(world.call_back(&query).await.is_ok());
}

// a double click, and the back button
#[tokio::test]
async fn the_second_arrival_of_one_answer_is_known_with_the_session_it_began() {
    let world = World::new().await;
    let query = world.op.authorize(&world.begin().await.unwrap().url);
    let finished = world.call_back(&query).await.map_err(|e| e.failure).unwrap();
    world.providers.began(&finished.attempt, "session-1");
    let again = world.call_back(&query).await.err().unwrap();
    let known = again.known.unwrap();
    assert_eq!(again.failure.reason, Reason::AlreadyUsed);
    assert_eq!((known.began_session.as_deref(), known.return_to.as_deref()), (Some("session-1"), Some("/app")));
    assert_eq!(world.op.count("/token"), 1);
}

#[tokio::test]
async fn twelve_tabs_and_a_restart_are_all_one_browser() {
    let world = World::new().await;
    let mut answers = Vec::new();
    for tab in 0..12 {
        let started = world.begin_with(|start| start.return_to = Some(format!("/tab/{tab}"))).await.unwrap();
        answers.push(world.op.authorize(&started.url));
    }
    let restarted = World::of(world.op.clone(), &world.providers.list().cloned().collect::<Vec<_>>());
    for (tab, query) in answers.iter().enumerate() {
        let with_cookie = |callback: &mut Callback<'_>| callback.browser = Some(world.browser.clone());
        let finished = restarted.call_back_with(query, with_cookie).await.map_err(|e| e.failure).unwrap();
        assert_eq!(finished.return_to, Some(format!("/tab/{tab}")));
    }
}

#[tokio::test]
async fn a_long_return_address_comes_back_and_is_lost_by_a_restart_alone() {
    let world = World::new().await;
    let long = format!("/{}", "x".repeat(3000));
    let started = world.begin_with(|start| start.return_to = Some(long.clone())).await.unwrap();
    assert!(started.url.as_str().len() < 1000, "{}", started.url.as_str().len());
    let query = world.op.authorize(&started.url);
    let finished = world.call_back(&query).await.map_err(|e| e.failure).unwrap();
    assert_eq!(finished.return_to, Some(long));
}

#[tokio::test]
async fn an_answer_of_another_issuer_is_refused_error_answers_too() {
    let world = World::new().await;
    let own = world.op.issuer.clone();
    for other in ["https://evil.example.com".to_owned(), format!("{own}/"), String::new(), own.to_uppercase()] {
        let query = world.op.authorize(&world.begin().await.unwrap().url);
        assert_eq!(reason(world.call_back(&with(&query, "iss", &other)).await), Reason::WrongIssuer, "{other}");
        let error = with(&with(&without(&query, "code"), "error", "access_denied"), "iss", &other);
        assert_eq!(reason(world.call_back(&error).await), Reason::WrongIssuer, "{other}");
        assert!(world.call_back(&with(&query, "iss", &own)).await.is_ok());
    }
    let promising = World::new().await;
    promising.change(|op| {
        op.discovery = Box::new(|metadata| metadata["authorization_response_iss_parameter_supported"] = true.into());
    });
    let query = promising.op.authorize(&promising.begin().await.unwrap().url);
    assert_eq!(reason(promising.call_back(&query).await), Reason::WrongIssuer, "promised and missing");
    let issuer = promising.op.issuer.clone();
    assert!(promising.call_back(&with(&query, "iss", &issuer)).await.is_ok());
}

#[tokio::test]
async fn the_providers_error_becomes_a_reason_and_its_text_stays_short() {
    let world = World::new().await;
    let query = without(&world.op.authorize(&world.begin().await.unwrap().url), "code");
    let text = format!("<b>pay\r\nme</b>{}", "ä".repeat(500));
    let query = with(&with(&query, "error", "access_denied"), "error_description", &text);
    let denied = world.call_back(&query).await.err().unwrap();
    assert_eq!(denied.failure.reason, Reason::Denied);
    assert!(denied.failure.detail.len() < 230 && !denied.failure.detail.contains(['\r', '\n']));
    assert_eq!(denied.known.unwrap().return_to.as_deref(), Some("/app"));
    let other = with(&query, "error", "server_error<script>");
    let failure = world.call_back(&other).await.err().unwrap().failure;
    assert_eq!((failure.reason, failure.detail.contains('>')), (Reason::ProviderError, true));
    assert!(failure.detail.starts_with("server_errorscript ("), "{}", failure.detail);
}

#[tokio::test]
async fn metadata_of_another_issuer_or_with_one_slash_more_starts_nothing() {
    for change in ["https://evil.example.com", "slash", "missing", "number"] {
        let world = World::new().await;
        let slash = format!("{}/", world.op.issuer);
        world.change(|op| {
            op.discovery = Box::new(move |metadata| match change {
                "slash" => metadata["issuer"] = slash.clone().into(),
                "missing" => drop(metadata.as_object_mut().unwrap().remove("issuer")),
                "number" => metadata["issuer"] = 1.into(),
                other => metadata["issuer"] = other.into(),
            });
        });
        let failure = world.begin().await.err().unwrap();
        assert_eq!(failure.reason, Reason::Unavailable, "{change}");
        if change == "slash" {
            // both strings are shown
            let own = &world.op.issuer;
            assert!(failure.detail.contains(&format!("\"{own}/\", configured is \"{own}\"")), "{}", failure.detail);
        }
    }
}

// metadata that names other places
#[tokio::test]
async fn endpoints_out_of_metadata_are_https_or_on_this_machine() {
    for (endpoint, is_good) in [
        ("http://id.example.com/token", false),
        ("ftp://127.0.0.1/token", false),
        ("file:///etc/passwd", false),
        ("https://user:pass@id.example.com/token", false),
        ("https://id.example.com/token#x", false),
        ("token", false),
        ("https://id.example.com/token", true),
        ("http://localhost:1/token", true),
    ] {
        let world = World::new().await;
        world.change(|op| op.discovery = Box::new(move |metadata| metadata["token_endpoint"] = endpoint.into()));
        assert_eq!(world.begin().await.is_ok(), is_good, "{endpoint}");
    }
}

#[tokio::test]
async fn a_code_that_the_provider_refuses_signs_no_one_in() {
    let world = World::new().await;
    let query = world.op.authorize(&world.begin().await.unwrap().url);
    assert_eq!(reason(world.call_back(&with(&query, "code", "of another client")).await), Reason::CodeRefused);
    // the code of one attempt in another: the verifier is another
    let (one, two) = (world.begin().await.unwrap(), world.begin().await.unwrap());
    let (one, two) = (world.op.authorize(&one.url), world.op.authorize(&two.url));
    let swapped = with(&two, "code", &one[0].1);
    assert_eq!(reason(world.call_back(&swapped).await), Reason::CodeRefused);
    assert!(world.sign_in().await.is_ok());
}

// the victim's browser is led to the answer that the attacker got
#[tokio::test]
async fn an_answer_to_somebody_elses_attempt_signs_no_one_in() {
    let world = World::new().await;
    let attackers = Browser::new().unwrap();
    let started = world.begin_with(|start| start.browser = Some(attackers.clone())).await.unwrap();
    let query = world.op.authorize(&started.url);
    // the victim has begun an attempt too, or several
    world.begin().await.unwrap();
    assert_eq!(reason(world.call_back(&query).await), Reason::BadState);
    let without_cookie = world.call_back_with(&query, |callback| callback.browser = None).await;
    assert_eq!(reason(without_cookie), Reason::NoCookie);
    assert_eq!(world.op.count("/token"), 0, "the code was not used");
    assert!(world.call_back_with(&query, |callback| callback.browser = Some(attackers)).await.is_ok(), "it is honest");
}

// where the provider does not look at PKCE, the nonce still ties a code to its attempt
#[tokio::test]
async fn the_nonce_binds_the_code_where_the_provider_ignores_pkce() {
    for sends in [true, false] {
        let world = World::with(|provider| provider.danger_no_pkce = !sends).await;
        world.change(|op| op.has_pkce = false);
        let (own, stolen) = (world.begin().await.unwrap(), world.begin().await.unwrap());
        assert_eq!(own.url.as_str().contains("code_challenge_method=S256"), sends);
        let (own, stolen) = (world.op.authorize(&own.url), world.op.authorize(&stolen.url));
        let failure = world.call_back(&with(&own, "code", &stolen[0].1)).await.err().unwrap().failure;
        assert_eq!(failure.reason, Reason::BadIdentity, "{}", failure.detail);
        assert_eq!(world.op.count("/token"), 1, "the provider gave a token");
        assert!(world.sign_in().await.is_ok());
    }
    // and one that demands PKCE gives none without
    let world = World::with(|provider| provider.danger_no_pkce = true).await;
    assert_eq!(world.refusal().await.0, Reason::CodeRefused);
}

// metadata of one provider that names the token endpoint of another
#[tokio::test]
async fn what_is_sent_to_a_token_endpoint_of_another_is_of_no_use_there() {
    let (op, other) = (Op::start().await, Op::start().await);
    let mut configured = provider(ProviderKind::Oidc, ProviderIssuer::Exact(op.issuer.clone()));
    let body = data_encoding::BASE64.encode(&super::op::new_keys().ed25519);
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n");
    configured.credential = ClientCredential::PrivateKey(Secret::new(pem));
    let world = World::of(op, &[configured]);
    let endpoint = format!("{}/token", other.issuer);
    world.change(|op| op.discovery = Box::new(move |metadata| metadata["token_endpoint"] = endpoint.clone().into()));
    let query = world.op.authorize(&world.begin().await.unwrap().url);
    assert_eq!(reason(world.call_back(&query).await), Reason::ClientRefused);
    let sent = other.bodies.lock().concat();
    let form: std::collections::HashMap<String, String> =
        form_urlencoded::parse(sent.as_bytes()).into_owned().collect();
    let claims = form["client_assertion"].split('.').nth(1).unwrap();
    let claims: Value =
        serde_json::from_slice(&data_encoding::BASE64URL_NOPAD.decode(claims.as_bytes()).unwrap()).unwrap();
    assert_eq!(claims["aud"], world.op.issuer.as_str(), "not the server that it was sent to");
    assert!(!form.contains_key("client_secret"));
}

// the content of token responses; the client's tests have the rest
#[tokio::test]
async fn a_token_answer_that_is_not_one_is_refused() {
    const LEADING_AWAY: &str = "application/json\r\nlocation: http://169.254.169.254/latest/meta-data";
    let good = r#"{"access_token":"x","token_type":"bearer","id_token":"a.b.c"}"#.to_owned();
    for (status, kind, body, expected) in [
        (200, "application/json", r#"{"error":"bad_verification_code"}"#.to_owned(), Reason::CodeRefused),
        (200, "application/json", r#"{"error":"incorrect_client_credentials"}"#.to_owned(), Reason::ClientRefused),
        (401, "application/json", r#"{"error":"invalid_client"}"#.to_owned(), Reason::ClientRefused),
        (500, "application/json", "{}".to_owned(), Reason::CodeRefused),
        (200, "application/json", "{}".to_owned(), Reason::BadIdentity),
        (200, "application/json", r#"{"access_token":"x","token_type":"mac"}"#.to_owned(), Reason::BadIdentity),
        (200, "application/json", r#"{"access_token":"x"}"#.to_owned(), Reason::BadIdentity),
        (200, "application/json", r#"{"access_token":"x","token_type":"bearer"}"#.to_owned(), Reason::BadIdentity),
        (200, "application/json", r#"{"access_token":"a b","token_type":"bearer"}"#.to_owned(), Reason::BadIdentity),
        (200, "application/json", r#"{"token_type":"bearer","token_type":"bearer"}"#.to_owned(), Reason::Unavailable),
        (200, "text/html", "<html>secret</html>".to_owned(), Reason::Unavailable),
        (200, "application/json; charset=utf-16", good.clone(), Reason::Unavailable),
        (200, "application/json\r\ncontent-encoding: gzip", good.clone(), Reason::Unavailable),
        (200, "application/json", format!("{{\"x\":\"{}\",{}", "x".repeat(70 << 10), &good[1..]), Reason::Unavailable),
        (200, "application/json", format!("{good}{good}"), Reason::Unavailable),
        (302, "application/json", "{}".to_owned(), Reason::Unavailable),
        (302, LEADING_AWAY, good.clone(), Reason::Unavailable),
    ] {
        let world = World::new().await;
        world.change(|op| drop(op.raw.insert("/token".to_owned(), (status, kind, body.clone()))));
        let (reason, detail) = world.refusal().await;
        assert_eq!(reason, expected, "{status} {body}: {detail}");
        assert!(!detail.contains("secret</html>"), "{detail}");
    }
}

#[tokio::test]
async fn the_client_proves_itself_as_configured_or_as_the_metadata_lists() {
    for (listed, chosen, sends) in [
        (Some(json!(["client_secret_post", "client_secret_basic"])), TokenAuth::Auto, "basic"),
        (Some(json!(["client_secret_post"])), TokenAuth::Auto, "post"),
        (None, TokenAuth::Auto, "basic"),
        (Some(json!(["client_secret_basic"])), TokenAuth::Post, "post"),
        (Some(json!(["client_secret_post"])), TokenAuth::Basic, "basic"),
    ] {
        let world = World::with(|provider| provider.token_auth = chosen).await;
        let said = listed.clone();
        world.change(|op| {
            op.discovery = Box::new(move |metadata| match &said {
                Some(list) => metadata["token_endpoint_auth_methods_supported"] = list.clone(),
                None => drop(metadata.as_object_mut().unwrap().remove("token_endpoint_auth_methods_supported")),
            });
        });
        assert!(world.sign_in().await.is_ok(), "{listed:?} {sends}");
    }
    let wrong = World::with(|provider| {
        provider.credential = ClientCredential::Secret(Secret::new("wrong".to_owned()));
    })
    .await;
    let (reason, detail) = wrong.refusal().await;
    assert_eq!(reason, Reason::ClientRefused);
    assert!(detail.contains("try token_auth = \"post\"") && !detail.contains("wrong"), "{detail}");
}

#[tokio::test]
async fn a_client_cannot_replace_parameters_of_the_protocol_or_of_the_operator() {
    let world =
        World::with(|provider| provider.params = vec![("prompt".to_owned(), "select_account".to_owned())]).await;
    let sent: Vec<(String, String)> = [
        ("prompt", "none"),
        ("login_hint", "ann@example.com"),
        ("redirect_uri", "https://evil.example.com/"),
        ("scope", "admin"),
        ("client_id", "x"),
        ("state", "x"),
        ("response_mode", "fragment"),
        ("request_uri", "x"),
        ("hd", &"x".repeat(257)),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec();
    let started = world.begin_with(|start| start.params = &sent).await.unwrap();
    let of = |name: &str| started.url.query_pairs().filter(|(own, _)| own == name).count();
    assert_eq!((of("prompt"), of("login_hint"), of("redirect_uri"), of("scope")), (1, 1, 1, 1));
    assert_eq!((of("response_mode"), of("request_uri"), of("hd")), (0, 0, 0));
    let value = |name: &str| started.url.query_pairs().find(|(own, _)| own == name).unwrap().1.into_owned();
    assert_eq!((value("prompt"), value("client_id")), ("select_account".to_owned(), "client one".to_owned()));
    assert!(value("redirect_uri").starts_with(ORIGIN));
}

#[tokio::test]
async fn a_fresh_sign_in_is_asked_for_and_proved() {
    let world = World::new().await;
    let fresh = || world.begin_with(|start| start.is_fresh = true);
    let started = fresh().await.unwrap();
    assert!(started.url.query_pairs().any(|(name, value)| name == "max_age" && value == "0"));
    let missing = world.call_back(&world.op.authorize(&started.url)).await;
    assert_eq!(reason(missing), Reason::BadIdentity, "no auth_time");
    for (at, is_good) in [(NOW - 31, false), (NOW - 30, true), (NOW + 5, true)] {
        world.change(|op| op.claims = Box::new(move |claims| claims["auth_time"] = at.into()));
        let result = world.call_back(&world.op.authorize(&fresh().await.unwrap().url)).await;
        assert_eq!(result.is_ok(), is_good, "{at}");
    }
}
