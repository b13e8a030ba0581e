//! A provider that is down, comes back, or demands what few do.

use futures_util::future::{join, join_all};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use serde_json::json;
use tokio::net::TcpListener;

use super::op::{NOW, Op, World, provider};
use crate::account::provider::errors::Reason;
use crate::config::{ClientCredential, ProviderIssuer, ProviderKind, TokenAuth};
use crate::secret::Secret;

const DISCOVERY: &str = "/.well-known/openid-configuration";

fn break_discovery(world: &World) {
    world.change(|op| drop(op.raw.insert(DISCOVERY.to_owned(), (503, "application/json", "{}".to_owned()))));
}

fn mend_discovery(world: &World) {
    world.change(|op| drop(op.raw.remove(DISCOVERY)));
}

#[tokio::test]
async fn nothing_is_asked_before_someone_signs_in_and_a_failure_is_kept_for_five_seconds() {
    let world = World::new().await;
    break_discovery(&world);
    assert_eq!(world.op.requests.lock().len(), 0);
    for _ in 0..10 {
        assert_eq!(world.begin().await.err().unwrap().reason, Reason::Unavailable);
    }
    assert_eq!(world.op.count(DISCOVERY), 1);
    mend_discovery(&world);
    assert!(world.begin().await.is_err(), "within these five seconds");
    world.clock.advance(5);
    assert!(world.begin().await.is_ok());
}

#[tokio::test]
async fn sign_ins_that_wait_for_a_provider_that_hangs_share_its_failure_and_so_many_wait_at_most() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let issuer = format!("http://{}", listener.local_addr().unwrap());
    let world = World::of(Op::start().await, &[provider(ProviderKind::Oidc, ProviderIssuer::Exact(issuer))]);
    let hangs = async {
        let (held, _) = listener.accept().await.unwrap();
        world.clock.advance(10);
        drop(held);
    };
    let (results, ()) = join(join_all((0..40).map(|_| world.begin())), hangs).await;
    let reasons: Vec<Reason> = results.into_iter().map(|result| result.err().unwrap().reason).collect();
    let count = |wanted: Reason| reasons.iter().filter(|reason| **reason == wanted).count();
    assert_eq!((count(Reason::Unavailable), count(Reason::Busy)), (32, 8));
    assert!(listener.accept().now_or_never().is_none(), "the provider was asked once");
}

#[tokio::test]
async fn a_network_whose_callbacks_fail_waits_and_another_does_not() {
    let world = World::new().await;
    let made_up = |url: &url::Url| {
        let mut query = world.op.authorize(url);
        query.iter_mut().filter(|(name, _)| name == "code").for_each(|(_, code)| *code = "made-up".to_owned());
        query
    };
    let call_back = async |query: &[(String, String)], address: &str| {
        let failed = world.call_back_with(query, |callback| callback.address = address.parse().ok()).await;
        failed.err().map(|unfinished| unfinished.failure.reason)
    };
    for _ in 0..60 {
        let query = made_up(&world.begin().await.unwrap().url);
        assert_eq!(call_back(&query, "192.0.2.1").await, Some(Reason::CodeRefused));
    }
    let query = world.op.authorize(&world.begin().await.unwrap().url);
    let asked = world.op.count("/token");
    assert_eq!(call_back(&query, "192.0.2.1").await, Some(Reason::Throttled));
    assert_eq!(world.op.count("/token"), asked, "nothing was sent");
    assert_eq!(call_back(&query, "192.0.2.2").await, None);
    // behind a proxy that names no client everyone is one address: a stranger must not keep the others out
    for _ in 0..61 {
        let query = made_up(&world.begin().await.unwrap().url);
        assert_eq!(call_back(&query, "").await, Some(Reason::CodeRefused));
    }
    world.clock.advance(60);
    let query = world.op.authorize(&world.begin().await.unwrap().url);
    assert_eq!(call_back(&query, "192.0.2.1").await, None, "a minute later");
}

#[tokio::test]
async fn metadata_is_kept_for_an_hour_and_used_for_a_day_if_it_cannot_be_read() {
    let world = World::new().await;
    assert!(world.sign_in().await.is_ok() && world.begin().await.is_ok());
    assert_eq!(world.op.count(DISCOVERY), 1);
    break_discovery(&world);
    world.clock.advance(23 * 3600);
    assert!(world.begin().await.is_ok(), "old metadata is better than none");
    world.clock.advance(3600);
    assert_eq!(world.begin().await.err().unwrap().reason, Reason::Unavailable, "a day old");
    mend_discovery(&world);
    world.clock.advance(5);
    assert!(world.begin().await.is_ok());
}

#[tokio::test]
async fn keys_are_used_for_a_day_if_they_cannot_be_read() {
    let world = World::new().await;
    let sign_in_after = async |secs: u64| {
        let now = NOW + secs;
        world.change(|op| {
            op.claims = Box::new(move |claims| (claims["iat"], claims["exp"]) = (now.into(), (now + 300).into()));
        });
        world.sign_in().await.err().map(|failure| failure.reason)
    };
    assert_eq!(sign_in_after(0).await, None);
    world.change(|op| drop(op.raw.insert("/jwks".to_owned(), (503, "application/json", "{}".to_owned()))));
    world.clock.advance(23 * 3600);
    assert_eq!(sign_in_after(23 * 3600).await, None);
    world.clock.advance(2 * 3600);
    assert_eq!(sign_in_after(25 * 3600).await, Some(Reason::Unavailable), "more than a day old");
    world.change(|op| drop(op.raw.remove("/jwks")));
    world.clock.advance(60);
    assert_eq!(sign_in_after(25 * 3600 + 60).await, None);
}

#[tokio::test]
async fn a_provider_that_cannot_be_reached_is_named_as_the_reason() {
    let gone = provider(ProviderKind::Oidc, ProviderIssuer::Exact("http://127.0.0.1:1".to_owned()));
    let world = World::of(Op::start().await, &[gone]);
    let failure = world.begin().await.err().unwrap();
    assert_eq!(failure.reason, Reason::Unavailable);
    assert!(failure.detail.starts_with("discovery: unreachable"), "{}", failure.detail);
}

#[tokio::test]
async fn a_reload_keeps_what_was_learned_of_a_provider_that_did_not_change() {
    let world = World::new().await;
    let query = world.op.authorize(&world.begin().await.unwrap().url);
    let configured: Vec<_> = world.providers.list().cloned().collect();
    let mut changed = configured.clone();
    changed[0].label = "other".to_owned();
    let World { op, providers, clock, browser } = world;
    let world = World { providers: providers.reconfigured(&configured), op, clock, browser };
    assert!(world.call_back(&query).await.is_ok(), "an attempt outlives a reload");
    assert_eq!(world.op.count(DISCOVERY), 1);
    let World { op, providers, clock, browser } = world;
    let world = World { providers: providers.reconfigured(&changed), op, clock, browser };
    assert!(world.begin().await.is_ok());
    assert_eq!(world.op.count(DISCOVERY), 2);
    let none = world.providers.reconfigured(&[]);
    let world = World { providers: none, ..world };
    assert_eq!(world.begin().await.err().unwrap().reason, Reason::UnknownProvider);
}

#[tokio::test]
async fn requests_are_pushed_where_the_provider_demands_it() {
    let world = World::new().await;
    let endpoint = format!("{}/par", world.op.issuer);
    world.change(|op| {
        op.discovery = Box::new(move |metadata| {
            metadata["require_pushed_authorization_requests"] = true.into();
            metadata["pushed_authorization_request_endpoint"] = endpoint.clone().into();
        });
        let pushed = json!({ "request_uri": "urn:x:1", "expires_in": 60 }).to_string();
        op.raw.insert("/par".to_owned(), (201, "application/json", pushed));
    });
    let started = world.begin().await.unwrap();
    assert_eq!(started.url.query(), Some("client_id=client+one&request_uri=urn%3Ax%3A1"));
    let refused = json!({ "error": "invalid_request" }).to_string();
    world.change(|op| drop(op.raw.insert("/par".to_owned(), (400, "application/json", refused))));
    let failure = world.begin().await.err().unwrap();
    assert_eq!((failure.reason, failure.detail.contains("invalid_request")), (Reason::Unavailable, true));
}

// an assertion is for the issuer alone
#[tokio::test]
async fn an_assertion_proves_the_client_to_its_own_issuer_alone() {
    use data_encoding::{BASE64, BASE64URL_NOPAD as B64};

    use crate::account::provider::token_request::proof;

    let keys = super::op::new_keys();
    for (document, algorithm) in [(keys.ed25519, "EdDSA"), (keys.p256, "ES256"), (keys.rsa, "RS256")] {
        let body = BASE64.encode(&document);
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n");
        let mut configured = provider(ProviderKind::Oidc, ProviderIssuer::Exact("https://a.example.com".to_owned()));
        configured.credential = ClientCredential::PrivateKey(Secret::new(pem));
        let proof = proof(&configured, TokenAuth::PrivateKey, "https://a.example.com", NOW).unwrap();
        assert!(proof.authorization.is_none());
        let fields: std::collections::HashMap<_, _> = proof.fields.into_iter().collect();
        let parts: Vec<_> = fields["client_assertion"].split('.').collect();
        let read = |part: &str| -> serde_json::Value {
            serde_json::from_slice(&B64.decode(part.as_bytes()).unwrap()).unwrap()
        };
        let (head, claims) = (read(parts[0]), read(parts[1]));
        assert_eq!((head["alg"].as_str(), claims["aud"].as_str()), (Some(algorithm), Some("https://a.example.com")));
        assert_eq!((&claims["iss"], &claims["sub"]), (&json!("client one"), &json!("client one")));
        assert_eq!((claims["exp"].as_u64(), claims["iat"].as_u64()), (Some(NOW + 60), Some(NOW)));
        assert!(claims["jti"].as_str().is_some_and(|id| id.len() == 22));
    }
}

// a crowd that comes back from a provider whose token endpoint hangs
#[tokio::test]
async fn two_hundred_sign_ins_at_the_same_time_make_sixteen_connections() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}/token", listener.local_addr().unwrap());
    let world = World::new().await;
    world.change(|op| op.discovery = Box::new(move |metadata| metadata["token_endpoint"] = endpoint.clone().into()));
    let mut queries = Vec::new();
    for _ in 0..200 {
        queries.push(world.op.authorize(&world.begin().await.unwrap().url));
    }
    let mut all: FuturesUnordered<_> = queries.iter().map(|query| world.call_back(query)).collect();
    let mut refused = 0;
    while refused < 184 {
        let failure = all.next().await.unwrap().err().unwrap().failure;
        assert_eq!(failure.reason, Reason::Busy, "{}", failure.detail);
        refused += 1;
    }
    let mut held = Vec::new();
    for _ in 0..16 {
        held.push(listener.accept().await.unwrap());
    }
    drop(held);
    for _ in 0..16 {
        assert_eq!(all.next().await.unwrap().err().unwrap().failure.reason, Reason::Unavailable);
    }
    assert!(all.next().await.is_none());
}
