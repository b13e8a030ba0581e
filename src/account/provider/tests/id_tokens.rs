//! ID tokens, keys and userinfo. Every refusal is of a token that is right but for the one thing named.

use data_encoding::BASE64URL_NOPAD as B64;
use jsonwebtoken::Algorithm;
use ring::{digest, hmac};
use serde_json::{Value, json};

use super::op::{ACCESS_TOKEN, CLIENT_ID, CLIENT_SECRET, NOW, Signing, World, new_keys};
use crate::account::provider::errors::Reason;

/// Whether a sign-in ends well with this claim.
async fn holds_with(name: &'static str, value: Value) -> bool {
    let world = World::new().await;
    world.change(|op| op.claims = Box::new(move |claims| claims[name] = value.clone()));
    holds(&world).await
}

async fn holds_without(name: &'static str) -> bool {
    let world = World::new().await;
    world.change(|op| op.claims = Box::new(move |claims| drop(claims.as_object_mut().unwrap().remove(name))));
    holds(&world).await
}

async fn holds(world: &World) -> bool {
    match world.sign_in().await {
        Ok(_) => true,
        Err(failure) => {
            assert_eq!(failure.reason, Reason::BadIdentity, "{}", failure.detail);
            false
        }
    }
}

async fn head_holds(name: &'static str, value: Value) -> bool {
    let world = World::new().await;
    world.change(|op| op.head = Box::new(move |head| head[name] = value.clone()));
    holds(&world).await
}

#[tokio::test]
async fn every_algorithm_that_is_accepted_verifies() {
    for signing in [Signing::Ed25519, Signing::P256, Signing::Rsa(Algorithm::RS256), Signing::Rsa(Algorithm::PS256)] {
        let world = World::new().await;
        world.change(|op| op.signing = signing);
        assert!(holds(&world).await);
    }
    assert!(head_holds("alg", json!("Ed25519")).await, "the newer name (RFC 9864)");
}

#[tokio::test]
async fn no_signature_a_shared_secret_and_another_keys_algorithm_are_refused() {
    for alg in ["none", "None", "HS256", "HS512", "RS256", "ES256", "ES512", "ES256K", "RSA-OAEP", "", "eddsa"] {
        assert!(!head_holds("alg", json!(alg)).await, "{alg}");
    }
    assert!(!head_holds("alg", json!(null)).await && !head_holds("alg", json!(["EdDSA"])).await);
    // really signed with HMAC: by the client secret, and by the bytes of the public key
    for by_key in [false, true] {
        let world = World::new().await;
        let public = world.op.jwks()["keys"][0]["x"].as_str().unwrap().to_owned();
        world.change(|op| {
            op.id_token = Box::new(move |token| {
                let claims = token.split('.').nth(1).unwrap();
                let head = B64.encode(json!({ "alg": "HS256", "kid": "ed" }).to_string().as_bytes());
                let secret = if by_key { B64.decode(public.as_bytes()).unwrap() } else { CLIENT_SECRET.into() };
                let message = format!("{head}.{claims}");
                let signed = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), message.as_bytes());
                format!("{message}.{}", B64.encode(signed.as_ref()))
            });
        });
        assert!(!holds(&world).await);
    }
    let world = World::new().await;
    world.change(|op| {
        op.id_token = Box::new(|token| {
            let claims = token.split('.').nth(1).unwrap();
            format!("{}.{claims}.", B64.encode(br#"{"alg":"none"}"#))
        });
    });
    assert!(!holds(&world).await, "unsigned");
    // an algorithm that the provider does not list
    let world = World::new().await;
    world.change(|op| {
        op.discovery =
            Box::new(|metadata| metadata["id_token_signing_alg_values_supported"] = json!(["RS256", "none"]));
    });
    assert!(!holds(&world).await, "EdDSA is not in the list");
}

#[tokio::test]
async fn a_changed_token_does_not_verify() {
    for what in ["signature", "claims", "head", "cut", "four parts", "two parts", "padded", "long"] {
        let world = World::new().await;
        world.change(|op| {
            op.id_token = Box::new(move |token| {
                let parts: Vec<String> = token.split('.').map(str::to_owned).collect();
                let [head, claims, signature] = [&parts[0], &parts[1], &parts[2]];
                match what {
                    "signature" => format!("{head}.{claims}.{}", B64.encode(&[1; 64])),
                    "claims" => {
                        let mut changed: Value =
                            serde_json::from_slice(&B64.decode(claims.as_bytes()).unwrap()).unwrap();
                        changed["sub"] = "admin".into();
                        format!("{head}.{}.{signature}", B64.encode(changed.to_string().as_bytes()))
                    }
                    "head" => {
                        let changed = B64.encode(br#"{"alg":"EdDSA","kid":"ed","x":1}"#);
                        format!("{changed}.{claims}.{signature}")
                    }
                    "cut" => format!("{head}.{claims}."),
                    "four parts" => format!("{token}.x"),
                    "two parts" => format!("{head}.{claims}"),
                    "padded" => format!("{token}="),
                    _ => format!("{token}{}", "A".repeat(16 << 10)),
                }
            });
        });
        assert!(!holds(&world).await, "{what}");
    }
}

#[tokio::test]
async fn an_unknown_key_is_looked_for_once_a_minute_whatever_comes() {
    let world = World::new().await;
    assert!(holds(&world).await);
    assert_eq!(world.op.count("/jwks"), 1);
    world.change(|op| op.head = Box::new(|head| head["kid"] = "unknown".into()));
    for _ in 0..20 {
        assert!(!holds(&world).await);
    }
    assert_eq!(world.op.count("/jwks"), 2, "the first reading does not count");
    world.clock.advance(60);
    assert!(!holds_now(&world).await);
    assert_eq!(world.op.count("/jwks"), 3);
}

/// As the clock of the provider and of this machine go on together.
async fn holds_now(world: &World) -> bool {
    let now = world.clock.now();
    world.change(|op| {
        op.claims = Box::new(move |claims| {
            claims["iat"] = now.into();
            claims["exp"] = (now + 300).into();
        });
    });
    holds(world).await
}

#[tokio::test]
async fn many_at_once_with_an_unknown_key_make_one_request() {
    let world = World::new().await;
    assert!(holds(&world).await);
    world.change(|op| op.head = Box::new(|head| head["kid"] = "unknown".into()));
    let mut answers = Vec::new();
    for _ in 0..10 {
        answers.push(world.op.authorize(&world.begin().await.unwrap().url));
    }
    let results = futures_util::future::join_all(answers.iter().map(|query| world.call_back(query))).await;
    assert!(results.iter().all(Result::is_err));
    assert_eq!(world.op.count("/jwks"), 2);
}

// odd ids that are found all the same
#[tokio::test]
async fn a_key_id_is_compared_and_nothing_else() {
    for kid in
        [json!("../../etc/passwd"), json!("ed\u{0}"), json!("x".repeat(10 << 10)), json!(1), json!("ED"), json!("")]
    {
        assert!(!head_holds("kid", kid.clone()).await, "{kid}");
    }
    let world = World::new().await;
    world.change(|op| {
        op.head = Box::new(|head| head["kid"] = "a/b?c=' OR 1".into());
        op.jwks = Box::new(|keys| keys["keys"][0]["kid"] = "a/b?c=' OR 1".into());
    });
    assert!(holds(&world).await);
    // without any id there must be one key that fits
    let world = World::new().await;
    world.change(|op| op.head = Box::new(|head| drop(head.as_object_mut().unwrap().remove("kid"))));
    assert!(holds(&world).await);
    world.clock.advance(3600);
    world.change(|op| {
        op.jwks = Box::new(|keys| {
            let twin = keys["keys"][0].clone();
            keys["keys"].as_array_mut().unwrap().push(twin);
        });
    });
    assert!(!holds_now(&world).await, "two keys fit");
}

#[tokio::test]
async fn keys_that_a_token_brings_along_are_not_looked_at() {
    let world = World::new().await;
    let (issuer, stranger) = (world.op.issuer.clone(), new_keys().ed25519);
    let own = ring::signature::Ed25519KeyPair::from_pkcs8(&stranger).unwrap();
    let x = B64.encode(ring::signature::KeyPair::public_key(&own).as_ref());
    world.change(|op| {
        op.head = Box::new(move |head| {
            head["jku"] = format!("{issuer}/evil-jwks").into();
            head["x5u"] = format!("{issuer}/evil-x5u").into();
            head["jwk"] = json!({ "kty": "OKP", "crv": "Ed25519", "x": x, "kid": "ed" });
        });
    });
    assert!(holds(&world).await, "signed by the provider's own key: they change nothing");
    world.op.keys.lock().ed25519 = stranger;
    assert!(!holds(&world).await, "signed by the key that it brings along");
    let requests = world.op.requests.lock().clone();
    assert!(!requests.iter().any(|target| target.contains("evil")), "{requests:?}");
}

#[tokio::test]
async fn critical_extensions_and_other_kinds_of_token_are_refused() {
    for crit in [json!(["exp"]), json!([]), json!(null)] {
        assert!(!head_holds("crit", crit).await);
    }
    for typ in ["logout+jwt", "at+jwt", "AT+JWT", "application/at+jwt", "application/logout+jwt"] {
        assert!(!head_holds("typ", json!(typ)).await, "{typ}");
    }
    assert!(!head_holds("typ", json!(1)).await);
    for typ in ["JWT", "jwt", "id+jwt"] {
        assert!(head_holds("typ", json!(typ)).await, "{typ}");
    }
}

#[tokio::test]
async fn a_token_holds_in_its_time_give_or_take_half_a_minute() {
    for (name, value, is_good) in [
        ("exp", json!(NOW - 30), false),
        ("exp", json!(NOW - 29), true),
        ("exp", json!(NOW), true),
        ("exp", json!("2030"), false),
        ("exp", json!(-1), false),
        ("exp", json!(1e300), false),
        ("exp", json!(1_800_000_100.5), true),
        ("iat", json!(NOW + 31), false),
        ("iat", json!(NOW + 30), true),
        ("iat", json!(NOW - 601), false),
        ("iat", json!(NOW - 600), true),
        ("iat", json!(NOW - 86_400), false),
        ("nbf", json!(NOW + 31), false),
        ("nbf", json!(NOW + 30), true),
        ("nbf", json!(null), false),
    ] {
        assert_eq!(holds_with(name, value.clone()).await, is_good, "{name} {value}");
    }
    assert!(!holds_without("exp").await && !holds_without("iat").await);
    // the clock is named where it is the reason
    let world = World::new().await;
    world.change(|op| op.claims = Box::new(|claims| claims["iat"] = (NOW + 90).into()));
    assert!(world.refusal().await.1.contains("this machine's clock is 90 s behind"));
}

#[tokio::test]
async fn a_token_for_others_is_refused() {
    for (audience, party, is_good) in [
        (json!(CLIENT_ID), None, true),
        (json!([CLIENT_ID]), None, true),
        (json!([CLIENT_ID, "other"]), None, false),
        (json!([CLIENT_ID, "other"]), Some(json!(CLIENT_ID)), true),
        (json!([CLIENT_ID, "other"]), Some(json!("other")), false),
        (json!(CLIENT_ID), Some(json!("other")), false),
        (json!(CLIENT_ID), Some(json!(null)), false),
        (json!(CLIENT_ID), Some(json!([CLIENT_ID])), false),
        (json!([CLIENT_ID, 1]), None, false),
        (json!("other"), None, false),
        (json!(["other"]), None, false),
        (json!("client one "), None, false),
        (json!("Client One"), None, false),
        (json!([]), None, false),
        (json!({ "client one": 1 }), None, false),
    ] {
        let world = World::new().await;
        let said = format!("{audience} {party:?}");
        world.change(|op| {
            op.claims = Box::new(move |claims| {
                claims["aud"] = audience.clone();
                if let Some(party) = &party {
                    claims["azp"] = party.clone();
                }
            });
        });
        assert_eq!(holds(&world).await, is_good, "{said}");
    }
    assert!(!holds_without("aud").await);
}

#[tokio::test]
async fn a_token_of_another_issuer_is_refused() {
    let world = World::new().await;
    let own = world.op.issuer.clone();
    for issuer in [json!(format!("{own}/")), json!("https://evil.example.com"), json!([own]), json!(""), json!(null)] {
        assert!(!holds_with("iss", issuer.clone()).await, "{issuer}");
    }
    assert!(!holds_without("iss").await);
}

#[tokio::test]
async fn a_token_without_the_nonce_of_this_attempt_is_refused() {
    for nonce in [json!("other"), json!(""), json!(null), json!(["x"])] {
        assert!(!holds_with("nonce", nonce.clone()).await, "{nonce}");
    }
    assert!(!holds_without("nonce").await);
    // of another tab
    let world = World::new().await;
    let other = world.begin().await.unwrap();
    let nonce = other.url.query_pairs().find(|(name, _)| name == "nonce").unwrap().1.into_owned();
    world.change(|op| op.claims = Box::new(move |claims| claims["nonce"] = nonce.clone().into()));
    assert!(!holds(&world).await);
}

#[tokio::test]
async fn a_subject_is_text_as_it_is() {
    for (subject, is_good) in [
        (json!(""), false),
        (json!("x".repeat(255)), true),
        (json!("x".repeat(256)), false),
        (json!(7), false),
        (json!(null), false),
        (json!("ä"), false),
        (json!("a\nb"), false),
        (json!("a\u{0}"), false),
        (json!("Ann|google 1"), true),
    ] {
        assert_eq!(holds_with("sub", subject.clone()).await, is_good, "{subject}");
    }
    for subject in ["ann", "ANN"] {
        let world = World::new().await;
        world.change(|op| op.claims = Box::new(move |claims| claims["sub"] = subject.into()));
        assert_eq!(world.sign_in().await.unwrap().identity.subject, subject, "letters keep their case");
    }
}

#[tokio::test]
async fn a_hash_of_another_access_token_is_refused() {
    let half = |algorithm: &'static digest::Algorithm, token: &str| {
        let hash = digest::digest(algorithm, token.as_bytes());
        B64.encode(&hash.as_ref()[..hash.as_ref().len() / 2])
    };
    assert!(holds_with("at_hash", json!(half(&digest::SHA512, ACCESS_TOKEN))).await, "Ed25519 hashes with SHA-512");
    for wrong in [half(&digest::SHA512, "other"), half(&digest::SHA256, ACCESS_TOKEN), String::new()] {
        assert!(!holds_with("at_hash", json!(wrong)).await, "{wrong}");
    }
    assert!(!holds_with("at_hash", json!(null)).await);
    let world = World::new().await;
    let hash = half(&digest::SHA256, ACCESS_TOKEN);
    world.change(|op| {
        op.signing = Signing::Rsa(Algorithm::RS256);
        op.claims = Box::new(move |claims| claims["at_hash"] = hash.clone().into());
    });
    assert!(holds(&world).await);
}

#[tokio::test]
async fn keys_that_rotate_between_two_sign_ins_are_found() {
    let world = World::new().await;
    assert!(holds(&world).await);
    let query = world.op.authorize(&world.begin().await.unwrap().url);
    *world.op.keys.lock() = new_keys();
    world.change(|op| {
        op.head = Box::new(|head| head["kid"] = "second".into());
        op.jwks = Box::new(|keys| keys["keys"][0]["kid"] = "second".into());
    });
    assert!(world.call_back(&query).await.is_ok());
    assert_eq!(world.op.count("/jwks"), 2);
}

#[tokio::test]
async fn odd_keys_in_the_set_lose_no_one_and_ten_thousand_are_refused() {
    let world = World::new().await;
    world.change(|op| {
        op.jwks = Box::new(|keys| {
            let odd =
                [json!({ "kty": "RSA", "kid": "ed", "use": "enc" }), json!(7), json!({ "kty": "AKP", "kid": "ed" })];
            keys["keys"].as_array_mut().unwrap().splice(0..0, odd);
        });
    });
    assert!(holds(&world).await);
    let world = World::new().await;
    world.change(|op| op.jwks = Box::new(|keys| keys["keys"] = vec![json!({}); 10_000].into()));
    assert_eq!(world.refusal().await.0, Reason::Unavailable);
    let world = World::new().await;
    world.change(|op| op.jwks = Box::new(|keys| keys["filler"] = "x".repeat(257 << 10).into()));
    assert_eq!(world.refusal().await.0, Reason::Unavailable);
}

// when userinfo is asked
#[tokio::test]
async fn userinfo_fills_what_is_missing_and_is_of_the_same_person_or_no_ones() {
    let world = World::new().await;
    let remove = |names: &'static [&'static str]| -> super::op::Change {
        Box::new(move |claims| names.iter().for_each(|name| drop(claims.as_object_mut().unwrap().remove(*name))))
    };
    world.change(|op| op.claims = remove(&["email", "email_verified"]));
    let email = world.sign_in().await.unwrap().identity.email.unwrap();
    assert_eq!((email.address.as_str(), email.is_verified), ("ann@example.com", true));
    assert_eq!(world.op.count("/userinfo"), 1);
    // never mixed: the address of one document with the flag of another
    world.change(|op| {
        op.claims = remove(&["email"]);
        op.userinfo = remove(&["email_verified"]);
    });
    let email = world.sign_in().await.unwrap().identity.email.unwrap();
    assert_eq!((email.address.as_str(), email.is_verified), ("ann@example.com", false));
    for subject in [json!("bob"), json!("Ann"), json!(null), json!(1)] {
        world.change(|op| op.userinfo = Box::new(move |info| info["sub"] = subject.clone()));
        assert_eq!(world.refusal().await.0, Reason::BadIdentity);
    }
}
