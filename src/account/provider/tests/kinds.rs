//! What is particular to a kind of provider.

use serde_json::{Value, json};
use url::Url;

use super::op::{Op, World, provider};
use crate::account::provider::errors::Reason;
use crate::account::provider::identity::ProviderIdentity;
use crate::config::{Provider, ProviderIssuer, ProviderKind};

pub(super) const TENANT: &str = "11111111-2222-3333-4444-555555555555";
const OTHER_TENANT: &str = "99999999-2222-3333-4444-555555555555";

/// Signs in through a provider of this kind whose ID token says this beside the usual.
async fn identity_of(kind: ProviderKind, claims: Value) -> ProviderIdentity {
    let world = World::with(|provider| provider.kind = kind).await;
    set_claims(&world, claims);
    world.sign_in().await.unwrap().identity
}

fn set_claims(world: &World, claims: Value) {
    world.change(|op| {
        op.claims = Box::new(move |all| {
            for (name, value) in claims.as_object().unwrap() {
                all[name] = value.clone();
            }
        });
    });
}

async fn is_verified(kind: ProviderKind, claims: Value) -> bool {
    identity_of(kind, claims).await.email.unwrap().is_verified
}

#[tokio::test]
async fn google_proves_addresses_of_its_own_and_of_domains_that_it_hosts() {
    let google = ProviderKind::Google;
    assert!(is_verified(google, json!({ "email": "ann@gmail.com" })).await);
    assert!(is_verified(google, json!({ "email": "ann@GMail.com" })).await);
    assert!(is_verified(google, json!({ "hd": "example.com" })).await);
    assert!(!is_verified(google, json!({})).await, "an address of elsewhere, verified once");
    assert!(!is_verified(google, json!({ "email": "ann@gmail.com", "email_verified": false })).await);
    assert!(!is_verified(google, json!({ "email": "ann@gmail.com", "email_verified": "true" })).await);
    assert!(!is_verified(google, json!({ "email": "ann@evilgmail.com" })).await);
    assert!(!is_verified(google, json!({ "email": "gmail.com@example.com" })).await);
    assert_eq!(identity_of(google, json!({ "hd": "example.com" })).await.hosted_domain.as_deref(), Some("example.com"));
    assert_eq!(identity_of(ProviderKind::Oidc, json!({ "hd": "example.com" })).await.hosted_domain, None);
}

#[tokio::test]
async fn an_openid_provider_proves_addresses_by_its_flag() {
    let oidc = ProviderKind::Oidc;
    assert!(is_verified(oidc, json!({ "email_verified": true })).await);
    assert!(is_verified(oidc, json!({ "email_verified": "true" })).await, "Cognito sends a text");
    for other in [json!(false), json!("True"), json!(1), json!(null), json!(["true"])] {
        assert!(!is_verified(oidc, json!({ "email_verified": other })).await, "{other}");
    }
    let trusting = World::with(|provider| provider.danger_trust_email = true).await;
    set_claims(&trusting, json!({ "email_verified": false }));
    assert!(trusting.sign_in().await.unwrap().identity.email.unwrap().is_verified);
}

// nOAuth
#[tokio::test]
async fn microsoft_proves_an_address_only_by_its_two_claims() {
    let microsoft = ProviderKind::Microsoft;
    assert!(!is_verified(microsoft, json!({ "email_verified": true })).await);
    for (value, expected) in [(json!(true), true), (json!(false), false), (json!("true"), false), (json!(1), false)] {
        assert_eq!(is_verified(microsoft, json!({ "xms_edov": value })).await, expected);
    }
    assert!(is_verified(microsoft, json!({ "verified_primary_email": ["ANN@example.com"] })).await);
    assert!(!is_verified(microsoft, json!({ "verified_primary_email": ["bob@example.com"] })).await);
    assert!(!is_verified(microsoft, json!({ "verified_primary_email": "ann@example.com" })).await);
    let identity = identity_of(microsoft, json!({ "oid": "object", "tid": TENANT })).await;
    assert_eq!((identity.subject.as_str(), identity.extra["oid"].as_str()), ("ann", "object"));
}

/// An authority for several tenants; its metadata has a placeholder for them.
pub(super) async fn tenants(word: &str) -> World {
    let op = Op::start().await;
    let issuer = ProviderIssuer::MicrosoftTenant { authority: op.issuer.clone(), tenant: word.to_owned() };
    let mut configured = provider(ProviderKind::Microsoft, issuer);
    configured.endpoints.discovery = Url::parse(&format!("{}/.well-known/openid-configuration", op.issuer)).ok();
    configured.allow.tenants = vec![TENANT.to_owned()];
    let world = World::of(op, &[configured]);
    let template = format!("{}/{{tenantid}}/v2.0", world.op.issuer);
    world.change(|op| op.discovery = Box::new(move |metadata| metadata["issuer"] = template.clone().into()));
    world
}

#[tokio::test]
async fn of_several_tenants_those_that_are_allowed_sign_in_by_their_own_issuer() {
    let world = tenants("organizations").await;
    let of = |tenant: &str| format!("{}/{tenant}/v2.0", world.op.issuer);
    set_claims(&world, json!({ "iss": of(TENANT), "tid": TENANT }));
    assert_eq!(world.sign_in().await.unwrap().identity.issuer, Some(of(TENANT)));
    set_claims(&world, json!({ "iss": of(OTHER_TENANT), "tid": OTHER_TENANT }));
    assert_eq!(world.refusal().await.0, Reason::NotAllowed);
    for claims in [
        json!({ "iss": of(OTHER_TENANT), "tid": TENANT }),
        json!({ "iss": of(TENANT), "tid": OTHER_TENANT }),
        json!({ "iss": of(TENANT) }),
        json!({ "iss": of("{tenantid}"), "tid": "{tenantid}" }),
        json!({ "iss": format!("https://evil.example.com/{TENANT}/v2.0"), "tid": TENANT }),
    ] {
        set_claims(&world, claims.clone());
        assert_eq!(world.refusal().await.0, Reason::BadIdentity, "{claims}");
    }
    // a key of another tenant's
    let elsewhere = of(OTHER_TENANT);
    set_claims(&world, json!({ "iss": of(TENANT), "tid": TENANT }));
    world.clock.advance(3600);
    let now = world.clock.now();
    let (own, template) = (of(TENANT), format!("{}/{{tenantid}}/v2.0", world.op.issuer));
    for (issuer, is_good) in [(elsewhere, false), (template, true), (own.clone(), true)] {
        let claimed = own.clone();
        world.clock.advance(3600);
        let now = now + 3600 * 4;
        world.clock.set(now);
        world.change(|op| {
            op.jwks = Box::new(move |keys| keys["keys"][0]["issuer"] = issuer.clone().into());
            op.claims = Box::new(move |claims| {
                claims["iss"] = claimed.clone().into();
                claims["tid"] = TENANT.into();
                claims["iat"] = now.into();
                claims["exp"] = (now + 300).into();
            });
        });
        assert_eq!(world.sign_in().await.is_ok(), is_good);
    }
}

#[tokio::test]
async fn the_placeholder_of_tenants_is_no_issuer_elsewhere() {
    let template = |world: &World| {
        let template = format!("{}/{{tenantid}}/v2.0", world.op.issuer);
        world.change(|op| op.discovery = Box::new(move |metadata| metadata["issuer"] = template.clone().into()));
    };
    let one = World::with(|provider| provider.kind = ProviderKind::Microsoft).await;
    template(&one);
    assert_eq!(one.begin().await.err().unwrap().reason, Reason::Unavailable);
    let oidc = World::new().await;
    template(&oidc);
    assert_eq!(oidc.begin().await.err().unwrap().reason, Reason::Unavailable);
    assert!(tenants("common").await.begin().await.is_ok());
    assert!(tenants("corp.example.com").await.begin().await.is_err(), "a domain is one tenant");
}

#[tokio::test]
async fn groups_that_the_token_leaves_out_come_from_graph_or_no_one_signs_in() {
    let op = Op::start().await;
    let mut configured = provider(ProviderKind::Microsoft, ProviderIssuer::Exact(op.issuer.clone()));
    configured.groups = vec![("g-1".to_owned(), "staff".to_owned())];
    configured.endpoints.userinfo = Url::parse(&format!("{}/oidc/userinfo", op.issuer)).ok();
    let world = World::of(op, &[configured]);
    let graph = "/v1.0/me/transitiveMemberOf";
    let evil = format!("{}/evil", world.op.issuer);
    let overage = json!({ "_claim_names": { "groups": "src1" }, "_claim_sources": { "src1": { "endpoint": evil } } });
    set_claims(&world, overage);
    for (status, body) in
        [(403, "{}"), (200, "{}"), (200, r#"{"value":1}"#), (200, r#"{"value":[],"@odata.nextLink":"/x"}"#)]
    {
        world.change(|op| drop(op.raw.insert(graph.to_owned(), (status, "application/json", body.to_owned()))));
        assert_eq!(world.refusal().await.0, Reason::GroupsUnavailable, "{status} {body}");
    }
    let next = format!("{}{graph}?page=2", world.op.issuer);
    let group = |id: &str| json!({ "@odata.type": "#microsoft.graph.group", "id": id });
    let role = json!({ "@odata.type": "#microsoft.graph.directoryRole", "id": "role" });
    let first = json!({ "value": [group("g-1"), role], "@odata.nextLink": next });
    let second = json!({ "value": [group("g-2")] });
    world.change(|op| {
        op.raw.insert(graph.to_owned(), (200, "application/json", first.to_string()));
        op.raw.insert(format!("{graph}?page=2"), (200, "application/json", second.to_string()));
    });
    assert_eq!(world.sign_in().await.unwrap().identity.groups, ["g-1", "g-2"]);
    let requests = world.op.requests.lock().clone();
    assert!(!requests.iter().any(|target| target.contains("evil")), "what the token names is never asked");
    // the twin: groups in the token, with app roles
    let few = identity_of(ProviderKind::Microsoft, json!({ "groups": ["g-1"], "roles": ["Reader"] })).await;
    assert_eq!(few.groups, ["g-1", "Reader"]);
}

#[tokio::test]
async fn groups_are_an_array_a_text_or_the_keys_of_an_object_at_a_name_or_a_pointer() {
    for (path, value, expected) in [
        (None, json!({ "groups": ["a", "b", 7, null, ""] }), vec!["a", "b"]),
        (None, json!({ "groups": "a" }), vec!["a"]),
        (Some("/realm_access/roles"), json!({ "realm_access": { "roles": ["a"] } }), vec!["a"]),
        (
            Some("urn:zitadel:iam:org:project:roles"),
            json!({ "urn:zitadel:iam:org:project:roles": { "admin": { "1": "x" }, "user": {} } }),
            vec!["admin", "user"],
        ),
        (Some("cognito:groups"), json!({ "cognito:groups": ["a"], "groups": ["b"] }), vec!["a"]),
        (Some("/a/b"), json!({ "a": [1] }), vec![]),
    ] {
        let world = World::with(|provider| {
            provider.claims.groups = path.map(str::to_owned);
            provider.groups = vec![("a".to_owned(), "a".to_owned())];
        })
        .await;
        set_claims(&world, value.clone());
        assert_eq!(world.sign_in().await.unwrap().identity.groups, expected, "{value}");
    }
}

/// GitHub, at the tests' provider.
pub(super) async fn github(change: impl FnOnce(&mut Provider)) -> World {
    let op = Op::start().await;
    let mut configured =
        provider(ProviderKind::GitHub, ProviderIssuer::Exact("https://github.com/login/oauth".to_owned()));
    let at = |path: &str| Url::parse(&format!("{}{path}", op.issuer)).ok();
    configured.endpoints.authorize = at("/login/oauth/authorize");
    configured.endpoints.token = at("/token");
    configured.endpoints.userinfo = at("/user");
    change(&mut configured);
    let world = World::of(op, &[configured]);
    let user = json!({ "id": 583_231, "login": "ann", "name": "Ann", "avatar_url": "https://x.example.com/a.png",
        "email": "public@example.com" });
    let emails = json!([{ "email": "ann@example.com", "primary": true, "verified": true }]);
    put(&world, "/user", &user);
    put(&world, "/user/emails", &emails);
    world
}

pub(super) fn put(world: &World, path: &str, document: &Value) {
    world.change(|op| drop(op.raw.insert(path.to_owned(), (200, "application/json", document.to_string()))));
}

#[tokio::test]
async fn github_signs_in_by_its_number_and_its_verified_primary_address() {
    let world = github(|_| {}).await;
    let started = world.begin().await.unwrap();
    assert!(started.url.as_str().contains("code_challenge_method=S256") && !started.url.as_str().contains("nonce="));
    let identity = world.sign_in().await.unwrap().identity;
    let email = identity.email.clone().unwrap();
    assert_eq!((identity.subject.as_str(), identity.login.as_deref()), ("583231", Some("ann")));
    assert_eq!((email.address.as_str(), email.is_verified), ("ann@example.com", true));
    assert_eq!(identity.picture.as_deref(), Some("https://x.example.com/a.png"));
    assert_eq!(identity.issuer.as_deref(), Some("https://github.com/login/oauth"));
    assert_eq!(identity.groups, Vec::<String>::new());
    for id in [json!(0), json!(null), json!(""), json!(1.5), json!(-1), json!([1])] {
        put(&world, "/user", &json!({ "id": id, "login": "ann" }));
        assert_eq!(world.refusal().await.0, Reason::BadIdentity, "{id}");
    }
    put(&world, "/user", &json!({ "login": "ann", "sub": "7" }));
    assert_eq!(world.refusal().await.0, Reason::BadIdentity, "GitHub's id or none");
}

// since April 2026 GitHub names its issuer
#[tokio::test]
async fn githubs_issuer_is_known() {
    let world = github(|_| {}).await;
    let mut query = world.op.authorize(&world.begin().await.unwrap().url);
    query.push(("iss".to_owned(), "https://github.com/login/oauth".to_owned()));
    assert!(world.call_back(&query).await.is_ok());
    let mut query = world.op.authorize(&world.begin().await.unwrap().url);
    query.push(("iss".to_owned(), "https://github.com".to_owned()));
    assert_eq!(world.call_back(&query).await.err().unwrap().failure.reason, Reason::WrongIssuer);
}

#[tokio::test]
async fn githubs_organizations_and_teams_are_read_to_the_last_page_or_no_one_signs_in() {
    let world = github(|provider| provider.groups = vec![("octo".to_owned(), "staff".to_owned())]).await;
    assert_eq!(world.refusal().await.0, Reason::GroupsUnavailable, "the list cannot be read");
    let page: Vec<Value> = (0..100).map(|at| json!({ "login": format!("org-{at}") })).collect();
    put(&world, "/user/orgs?per_page=100&page=1", &json!(page));
    put(&world, "/user/orgs?per_page=100&page=2", &json!([{ "login": "octo" }]));
    put(&world, "/user/teams", &json!([{ "slug": "platform", "organization": { "login": "octo" } }]));
    let groups = world.sign_in().await.unwrap().identity.groups;
    assert_eq!(groups.len(), 102);
    assert!(groups.contains(&"octo".to_owned()) && groups.contains(&"octo:platform".to_owned()));
}

#[tokio::test]
async fn an_oauth2_provider_signs_in_by_its_profile() {
    let op = Op::start().await;
    let mut configured = provider(ProviderKind::OAuth2, ProviderIssuer::Unknown);
    let at = |path: &str| Url::parse(&format!("{}{path}", op.issuer)).ok();
    configured.endpoints.authorize = at("/authorize");
    configured.endpoints.token = at("/token");
    configured.endpoints.userinfo = at("/me");
    configured.claims.email_verified = Some("verified".to_owned());
    configured.claims.name = Some("/profile/name".to_owned());
    let world = World::of(op, &[configured]);
    let profile = json!({ "id": "80351110224678912", "email": "ann@example.com", "verified": true,
        "profile": { "name": "Ann" } });
    put(&world, "/me", &profile);
    let mut query = world.op.authorize(&world.begin().await.unwrap().url);
    // its word about an issuer is ignored: none is configured
    query.push(("iss".to_owned(), "https://any.example.com".to_owned()));
    let identity = world.call_back(&query).await.map_err(|e| e.failure).unwrap().identity;
    assert_eq!((identity.subject.as_str(), identity.issuer), ("80351110224678912", None));
    assert_eq!((identity.email.unwrap().is_verified, identity.name.as_deref()), (true, Some("Ann")));
    put(&world, "/me", &json!({ "id": 42, "email": "ann@example.com" }));
    let identity = world.sign_in().await.unwrap().identity;
    assert_eq!((identity.subject.as_str(), identity.email.unwrap().is_verified), ("42", false));
    put(&world, "/me", &json!({ "email": "ann@example.com" }));
    assert_eq!(world.refusal().await.0, Reason::BadIdentity);
}

// RFC 8414, 3: the document is between host and path of the issuer
#[tokio::test]
async fn an_oauth2_provider_with_an_issuer_is_described_by_its_metadata() {
    const PLACE: &str = "/.well-known/oauth-authorization-server/tenant/one";
    let op = Op::start().await;
    let base = op.issuer.clone();
    let issuer = format!("{base}/tenant/one");
    let document = |issuer: &str| {
        json!({ "issuer": issuer, "authorization_endpoint": format!("{base}/authorize"),
            "token_endpoint": format!("{base}/token"), "authorization_response_iss_parameter_supported": true })
    };
    let mut configured = provider(ProviderKind::OAuth2, ProviderIssuer::Exact(issuer.clone()));
    configured.endpoints.userinfo = Url::parse(&format!("{base}/me")).ok();
    let world = World::of(op, &[configured.clone()]);
    put(&world, PLACE, &document(&issuer));
    put(&world, "/me", &json!({ "id": "7", "email": "ann@example.com" }));
    let mut query = world.op.authorize(&world.begin().await.unwrap().url);
    assert_eq!(world.call_back(&query).await.err().unwrap().failure.reason, Reason::WrongIssuer, "it promised iss");
    query.push(("iss".to_owned(), issuer.clone()));
    let identity = world.call_back(&query).await.map_err(|e| e.failure).unwrap().identity;
    assert_eq!((identity.subject.as_str(), identity.issuer.as_deref()), ("7", Some(issuer.as_str())));
    assert_eq!(world.op.count(PLACE), 1);
    // a document of another issuer starts nothing
    let world = World::of(world.op.clone(), &[configured.clone()]);
    put(&world, PLACE, &document(&base));
    assert_eq!(world.begin().await.err().unwrap().reason, Reason::Unavailable);
    // nothing is read where the configuration says all of it
    let at = |path: &str| Url::parse(&format!("{base}{path}")).ok();
    configured.endpoints.authorize = at("/authorize");
    configured.endpoints.token = at("/token");
    let world = World::of(world.op.clone(), &[configured]);
    assert!(world.begin().await.is_ok());
    assert_eq!(world.op.count(PLACE), 2);
}
