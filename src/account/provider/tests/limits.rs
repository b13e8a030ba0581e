//! What one network, one provider or one server may take of what is there for all.

use std::net::IpAddr;

use futures_util::FutureExt as _;
use futures_util::StreamExt as _;
use futures_util::future::{Either, join_all, select};
use futures_util::stream::FuturesUnordered;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::kinds::{TENANT, github, put, tenants};
use super::op::{CLIENT_ID, NOW, Op, Signing, World, provider};
use crate::account::provider::errors::{Failure, Reason};
use crate::account::provider::refresh::{self, NoAnswer, PersonOf, Refreshed};
use crate::config::{ProviderIssuer, ProviderKind};
use crate::secret::Secret;

fn address(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

/// A pushed request costs the provider one before the person has done anything.
#[tokio::test]
async fn a_network_that_pushes_requests_without_end_waits_for_as_long_as_it_is_told() {
    let world = World::new().await;
    let endpoint = format!("{}/par", world.op.issuer);
    world.change(|op| {
        op.discovery = Box::new(move |metadata| {
            metadata["require_pushed_authorization_requests"] = true.into();
            metadata["pushed_authorization_request_endpoint"] = endpoint.clone().into();
        });
    });
    world.change(|op| {
        let pushed = json!({ "request_uri": "urn:x:1" }).to_string();
        op.raw.insert("/par".to_owned(), (201, "application/json", pushed));
    });
    let begin = async |caller| world.begin_with(|start| start.caller = caller).await.err();
    for _ in 0..240 {
        assert_eq!(begin(Some(address(1))).await, None);
    }
    world.clock.advance(20);
    let throttled = Failure::throttled("too many sign-ins of this network have begun", 40);
    assert_eq!((begin(Some(address(1))).await, world.op.count("/par")), (Some(throttled), 240));
    assert_eq!(begin(Some(address(2))).await, None);
    assert_eq!(begin(None).await, None, "where everyone is one address no one waits for another");
    world.clock.advance(40);
    assert_eq!(begin(Some(address(1))).await, None, "a minute later");
}

/// Most providers need no request to begin.
#[tokio::test]
async fn sign_ins_that_begin_without_a_request_are_not_counted() {
    let world = World::new().await;
    for _ in 0..300 {
        assert!(world.begin_with(|start| start.caller = Some(address(1))).await.is_ok());
    }
}

#[tokio::test]
async fn one_network_takes_a_quarter_of_a_providers_places_and_the_rest_of_it_waits() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}/token", listener.local_addr().unwrap());
    let world = World::new().await;
    world.change(|op| op.discovery = Box::new(move |metadata| metadata["token_endpoint"] = endpoint.clone().into()));
    let mut queries = Vec::new();
    for _ in 0..21 {
        queries.push(world.op.authorize(&world.begin().await.unwrap().url));
    }
    let call_back = |query, caller| world.call_back_with(query, move |callback| callback.address = caller);
    let mut all: FuturesUnordered<_> = queries[1..].iter().map(|query| call_back(query, Some(address(1)))).collect();
    assert!(all.next().now_or_never().is_none(), "none is turned away");
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(listener.accept().await.unwrap());
    }
    assert!(all.next().now_or_never().is_none());
    assert!(listener.accept().now_or_never().is_none(), "the others of this network wait");
    let mut other = Box::pin(call_back(&queries[0], Some(address(2))));
    assert!((&mut other).now_or_never().is_none());
    held.push(listener.accept().await.unwrap());
    held.clear();
    assert_eq!(other.await.err().unwrap().failure.reason, Reason::Unavailable);
    let mut ended = 0;
    while ended < 20 {
        match select(all.next(), Box::pin(listener.accept())).await {
            Either::Left((result, _)) => {
                assert_eq!(result.unwrap().err().unwrap().failure.reason, Reason::Unavailable);
                ended += 1;
            }
            Either::Right((connection, _)) => drop(connection),
        }
    }
}

#[tokio::test]
async fn a_network_whose_callbacks_failed_learns_for_how_long_it_waits() {
    let world = World::new().await;
    let call_back = async |code: &str| {
        let mut query = world.op.authorize(&world.begin().await.unwrap().url);
        if !code.is_empty() {
            query.iter_mut().filter(|(name, _)| name == "code").for_each(|(_, own)| *own = code.to_owned());
        }
        let ended = world.call_back_with(&query, |callback| callback.address = Some(address(1))).await;
        ended.err().map(|unfinished| (unfinished.failure.reason, unfinished.failure.retry_after_secs))
    };
    for _ in 0..60 {
        assert_eq!(call_back("made-up").await, Some((Reason::CodeRefused, None)));
    }
    world.clock.advance(17);
    assert_eq!(call_back("").await, Some((Reason::Throttled, Some(43))));
    world.clock.advance(43);
    assert_eq!(call_back("").await, None);
}

/// A server of GitHub's kind that goes on for ever takes neither memory nor time without end.
#[tokio::test]
async fn lists_that_never_end_end_the_sign_in() {
    let world = github(|provider| provider.groups = vec![("octo".to_owned(), "staff".to_owned())]).await;
    put(&world, "/user/teams", &json!([]));
    let page: Vec<Value> = (0..100).map(|at| json!({ "login": format!("org-{at}") })).collect();
    put(&world, "/user/orgs", &json!(page));
    assert_eq!((world.refusal().await.0, world.op.count("/user/orgs")), (Reason::GroupsUnavailable, 20));
    let filler = "x".repeat(300 << 10);
    put(&world, "/user/orgs", &json!([{ "login": "octo", "description": filler }]));
    let (reason, detail) = world.refusal().await;
    assert!(reason == Reason::GroupsUnavailable && detail.contains("larger than 262144 bytes"), "{detail}");
    put(&world, "/user/orgs", &json!([{ "login": "octo" }]));
    put(&world, "/user/emails", &json!([{ "email": filler, "primary": true, "verified": true }]));
    let (reason, detail) = world.refusal().await;
    assert!(reason == Reason::Unavailable && detail.contains("larger than 262144 bytes"), "{detail}");
    put(&world, "/user/emails", &json!([{ "email": "ann@example.com", "primary": true, "verified": true }]));
    assert_eq!(world.sign_in().await.unwrap().identity.groups, ["octo"]);
}

#[tokio::test]
async fn a_crowd_that_comes_back_first_reads_the_keys_once() {
    let world = World::new().await;
    let mut queries = Vec::new();
    for _ in 0..12 {
        queries.push(world.op.authorize(&world.begin().await.unwrap().url));
    }
    let ended = join_all(queries.iter().map(|query| world.call_back(query))).await;
    assert!(ended.iter().all(Result::is_ok));
    assert_eq!((world.op.count("/token"), world.op.count("/jwks")), (12, 1));
}

#[tokio::test]
async fn another_issuer_after_a_reload_is_asked_for_its_own_metadata() {
    const DISCOVERY: &str = "/.well-known/openid-configuration";
    let (world, other) = (World::new().await, Op::start().await);
    assert!(world.begin().await.unwrap().url.as_str().starts_with(&world.op.issuer));
    let moved = provider(ProviderKind::Oidc, ProviderIssuer::Exact(other.issuer.clone()));
    let world = World { providers: world.providers.reconfigured(&[moved]), ..world };
    assert!(world.begin().await.unwrap().url.as_str().starts_with(&other.issuer));
    assert_eq!((world.op.count(DISCOVERY), other.count(DISCOVERY)), (1, 1));
}

async fn renewed(world: &World, of: &PersonOf<'_>, token: &Secret) -> Result<Refreshed, NoAnswer> {
    refresh::exchange(refresh::prepare(&world.providers, of).await?, of, token).await
}

/// What the provider says of a session's person when its refresh token is exchanged.
async fn asked(world: &World, id_token: Option<Value>) -> Result<Option<String>, NoAnswer> {
    let mut tokens = json!({ "access_token": "a", "token_type": "Bearer" });
    if let Some(claims) = id_token {
        tokens["id_token"] = world.op.sign(&Signing::Ed25519, &json!({ "alg": "EdDSA", "kid": "ed" }), &claims).into();
    }
    put(world, "/token", &tokens);
    let of = PersonOf { provider: "op", subject: "ann", issuer: None };
    let refreshed = renewed(world, &of, &Secret::new("r".to_owned())).await?;
    let person = refresh::person(&world.providers, "op", &refreshed).await?;
    Ok(person.map(|person| person.subject))
}

fn claims(issuer: &str) -> Value {
    json!({ "iss": issuer, "sub": "ann", "aud": CLIENT_ID, "iat": NOW, "exp": NOW + 300, "name": "Ann",
        "email": "ann@example.com", "email_verified": true })
}

#[tokio::test]
async fn a_refreshed_id_token_that_does_not_hold_confirms_nothing() {
    let world = World::new().await;
    let issuer = world.op.issuer.clone();
    assert_eq!(asked(&world, Some(claims(&issuer))).await.unwrap().as_deref(), Some("ann"));
    assert_eq!(asked(&world, None).await.unwrap(), None, "without one the grant alone is confirmed");
    let mut late = claims(&issuer);
    late["exp"] = (NOW - 31).into();
    for wrong in [claims("https://evil.example.com"), late] {
        match asked(&world, Some(wrong)).await {
            Err(NoAnswer::Unclear(failure)) => assert_eq!(failure.reason, Reason::BadIdentity),
            other => panic!("{other:?}"),
        }
    }
    let mut another = claims(&issuer);
    another["sub"] = "bob".into();
    assert!(matches!(asked(&world, Some(another)).await, Err(NoAnswer::Ended("another_person"))));
}

#[tokio::test]
async fn a_person_whose_tenant_is_not_allowed_any_more_does_not_stay() {
    let world = tenants("organizations").await;
    let issuer = format!("{}/{TENANT}/v2.0", world.op.issuer);
    let mut own = claims(&issuer);
    own["tid"] = TENANT.into();
    assert_eq!(asked(&world, Some(own.clone())).await.unwrap().as_deref(), Some("ann"));
    let mut configured: Vec<_> = world.providers.list().cloned().collect();
    configured[0].allow.tenants = vec!["99999999-2222-3333-4444-555555555555".to_owned()];
    let world = World { providers: world.providers.reconfigured(&configured), ..world };
    assert!(matches!(asked(&world, Some(own)).await, Err(NoAnswer::Ended("tenant_not_allowed"))));
}

/// Whatever was given for one issuer is sent to no other.
#[tokio::test]
async fn a_refresh_token_goes_to_its_own_issuer_alone() {
    let world = World::new().await;
    put(&world, "/token", &json!({ "access_token": "a", "token_type": "Bearer" }));
    let of = |issuer| PersonOf { provider: "op", subject: "ann", issuer };
    let token = Secret::new("r".to_owned());
    let elsewhere = renewed(&world, &of(Some("https://old.example.com")), &token).await;
    assert!(matches!(elsewhere, Err(NoAnswer::Ended("other_issuer"))));
    assert_eq!(world.op.count("/token"), 0);
    assert!(renewed(&world, &of(Some(&world.op.issuer)), &token).await.is_ok());
    assert!(renewed(&world, &of(None), &token).await.is_ok(), "not pinned yet");
}
