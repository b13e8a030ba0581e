//! D: tokens. Sessions are HS256 under the gateway's own keys, and nothing else is. Not here: D7, whose vectors
//! are another project's (what they try on HS256 is tried below, and in C by every byte); D10, since there are no
//! other providers yet.

use std::net::TcpListener;

use data_encoding::{BASE64, BASE64URL_NOPAD as B64};
use ring::hmac;
use serde_json::{Value, json};

use super::{both_ways, stage, still_serves};
use crate::forge::{Token, now_secs, session_key};
use crate::gateway::{Gateway, configured, refused_start};

/// A cookie of parts as they are typed, signed with a key.
fn typed(header: &str, claims: &str, secret: &[u8]) -> String {
    let message = format!("{}.{}", B64.encode(header.as_bytes()), B64.encode(claims.as_bytes()));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
    format!("authgate={message}.{}", B64.encode(tag.as_ref()))
}

/// Each of these is nobody, both ways, and Ada is somebody.
fn all_are_nobody(forged: &[String]) {
    let stage = stage();
    for cookie in forged {
        for answer in both_ways(&stage.gateway, "/x", &[("Cookie", cookie)]) {
            assert_eq!(answer.status, 401, "{cookie}");
        }
    }
    assert_eq!(stage.get_as_ada("/x", &[]).status, 200);
    still_serves(&stage.gateway);
}

/// CVE-2015-9235, RFC 8725, 2.1 and 3.1.
#[test]
fn d1_a_token_without_a_signature_or_with_a_guessed_secret_is_invalid() {
    let stage = stage();
    let token = Token::of(&stage.ada);
    let mut forged = Vec::new();
    for none in ["none", "None", "NONE", "nOnE", ""] {
        let unsigned = token.header("alg", none);
        forged.extend([format!("authgate={}.", unsigned.message()), format!("authgate={}.AA", unsigned.message())]);
        forged.push(unsigned.signed(b""));
    }
    forged.push(format!("authgate={}", token.message()));
    for guess in ["", "secret", "changeme", "authgate", "0123456789abcdef0123456789abcdef", "nextauth_secret"] {
        forged.push(token.signed(guess.as_bytes()));
    }
    forged.extend([token.signed(&[0; 32]), token.signed(&[0; 64])]);
    all_are_nobody(&forged);
    assert_eq!(stage.get("/x", &[("Cookie", &token.signed(&session_key(&stage.gateway)))]).status, 200);
}

/// RFC 8725, 2.1: the public half of a key is no HMAC secret, and no other algorithm is ours.
#[test]
fn d2_the_public_key_of_backend_tokens_signs_no_session() {
    let gateway = Gateway::start(
        "[[upstream]]\nname = \"app\"\nservers = [\"builtin:whoami\"]\ntoken = { algorithm = \"ES256\", send = [\"bearer\"] }\n[[route]]\nupstream = \"app\"\n",
    );
    let cookie = gateway.first_account();
    let status = |cookie: &str| gateway.client().get("/x", &[("Cookie", cookie)]).status;
    assert_eq!(status(&cookie), 200);
    let jwk = gateway.client().get("/.auth/jwks.json", &[]).json()["keys"][0].clone();
    let half = |name: &str| jwk[name].as_str().unwrap().to_owned();
    let point =
        [vec![4], B64.decode(half("x").as_bytes()).unwrap(), B64.decode(half("y").as_bytes()).unwrap()].concat();
    let token = Token::of(&cookie);
    for alg in ["HS256", "ES256", "RS256", "EdDSA", "HS384", "HS512"] {
        for kid in [token.header["kid"].clone(), jwk["kid"].clone()] {
            let changed = token.header("alg", alg).header("kid", kid);
            let secrets = [point.clone(), half("x").into_bytes(), jwk.to_string().into_bytes()];
            for secret in secrets {
                assert_eq!(status(&changed.signed(&secret)), 401, "{alg}");
            }
            if alg != "HS256" {
                assert_eq!(status(&changed.signed(&session_key(&gateway))), 401, "{alg} under the right key");
            }
        }
    }
    assert_eq!(status(&cookie), 200);
    still_serves(&gateway);
}

/// CVE-2018-0114, OWASP ASVS 9.1.3: a token does not say where its key is.
#[test]
fn d3_a_key_that_a_token_names_is_never_asked_for() {
    let stage = stage();
    let own = TcpListener::bind("127.0.0.1:0").unwrap();
    own.set_nonblocking(true).unwrap();
    let place = format!("http://{}/jwks.json", own.local_addr().unwrap());
    let token = Token::of(&stage.ada);
    let secret = b"a secret of the attacker's that has 32 bytes";
    let jwk = json!({ "kty": "oct", "alg": "HS256", "k": B64.encode(secret) });
    let mut forged = Vec::new();
    for (name, value) in
        [("jku", json!(place)), ("x5u", json!(place)), ("jwk", jwk), ("x5c", json!(["MIIB"])), ("url", json!(place))]
    {
        forged.push(token.header(name, value.clone()).signed(secret));
        forged.push(token.header(name, value.clone()).header("kid", Value::Null).signed(secret));
        // not even under the right key: our own tokens say none of it
        forged.push(token.header(name, value).signed(&session_key(&stage.gateway)));
    }
    all_are_nobody(&forged);
    assert!(own.accept().is_err(), "the gateway came to ask for a key");
}

/// CWE-22, CWE-89: the key's name is looked up among ours and nowhere else.
#[test]
fn d4_a_key_name_that_is_a_path_or_a_query_names_no_key() {
    let stage = stage();
    let token = Token::of(&stage.ada);
    let names = ["../../../dev/null", "/dev/null", "", "\0", "' UNION SELECT '' --", "a\r\nb", "0", "*", "%"];
    let mut forged: Vec<String> = Vec::new();
    for name in names {
        for secret in [&b""[..], b"\0", &session_key(&stage.gateway)] {
            forged.push(token.header("kid", name).signed(secret));
        }
    }
    for odd in [json!(1), json!([]), json!({}), json!(true), json!("k".repeat(2000))] {
        forged.push(token.header("kid", odd).signed(&session_key(&stage.gateway)));
    }
    all_are_nobody(&forged);
}

/// CVE-2026-25537 (jsonwebtoken took an `exp` of the wrong type for none).
#[test]
fn d5_an_end_of_the_wrong_type_is_no_end_though_the_key_is_right() {
    let stage = stage();
    let token = Token::of(&stage.ada);
    let key = session_key(&stage.gateway);
    let claims = token.claims.to_string();
    let header = token.header.to_string();
    let end = format!("\"exp\":{}", token.claims["exp"]);
    assert!(claims.contains(&end));
    let with = |text: &str| typed(&header, &claims.replace(&end, text), &key);
    let mut forged: Vec<String> =
        ["-1", "1e400", "\"4000000000\"", "null", "true", "[]", "{}", "4000000000.5", "18446744073709551616", "1e1"]
            .map(|end| with(&format!("\"exp\":{end}")))
            .into();
    forged.push(with("\"x\":1"));
    all_are_nobody(&forged);
    assert_eq!(stage.get("/x", &[("Cookie", &with(&end))]).status, 200, "the forger works");
    let later = format!("\"exp\":{}", now_secs() + 60);
    assert_eq!(stage.get("/x", &[("Cookie", &with(&later))]).status, 200);
}

/// RFC 8259, section 4, RFC 7515, section 4: of two readers each takes another one.
#[test]
fn d6_a_header_or_claim_that_appears_twice_makes_no_token() {
    let stage = stage();
    let token = Token::of(&stage.ada);
    let key = session_key(&stage.gateway);
    let (header, claims) = (token.header.to_string(), token.claims.to_string());
    let twice = |text: &str, member: &str| format!("{},{member}}}", text.strip_suffix('}').unwrap());
    let mut forged: Vec<String> = ["\"alg\":\"none\"", "\"alg\":\"HS256\"", "\"kid\":\"x\"", "\"typ\":\"JWT\""]
        .map(|member| typed(&twice(&header, member), &claims, &key))
        .into();
    for member in ["\"sub\":\"2\"", "\"exp\":4000000000", "\"sid\":\"x\"", "\"aud\":\"other\""] {
        forged.push(typed(&header, &twice(&claims, member), &key));
    }
    all_are_nobody(&forged);
    assert_eq!(stage.get("/x", &[("Cookie", &typed(&header, &claims, &key))]).status, 200, "the forger works");
}

/// OWASP ASVS 11.2.3 and 13.2.3: 32 bytes, and none that everybody knows.
#[test]
fn d8_a_secret_that_is_short_or_known_to_everyone_ends_the_start() {
    let start = |secret: &str| {
        let folder = configured(
            "[[upstream]]\nname = \"app\"\nservers = [\"builtin:whoami\"]\ntoken = { secret = { file = \"secret\" } }\n[[route]]\nupstream = \"app\"\n",
        );
        let file = folder.path().join("secret");
        std::fs::write(&file, secret).unwrap();
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        folder
    };
    for weak in [
        "",
        "secret",
        "thirty-one bytes are too few!!!",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "changemechangemechangemechangeme",
        "your-nextauth-secret-goes-in-here-please",
    ] {
        let (code, text) = refused_start(start(weak).path());
        assert_eq!(code, 64, "{weak}: {text}");
        assert!(text.contains("secret") && (weak.len() < 7 || !text.contains(weak)), "{text}");
    }
    let good = Gateway::serve(start("J8n0mGQ2v9rX4kLw7sTzP1cYbE6dHfUa"));
    still_serves(&good);
}

/// CWE-352: what was typed as a name and a password once, a browser sends along with every request to the site, whoever's page
/// makes it. No `SameSite` holds it back.
#[test]
fn d9_an_api_token_that_a_browser_sends_by_itself_moves_nothing_for_foreign_pages() {
    let stage = stage();
    let token = stage.gateway.cli(&["token", "create", "ada@example.com", "--name", "x"]);
    let token = token.trim();
    let basic = format!("Basic {}", BASE64.encode(format!("ada:{token}").as_bytes()));
    let bearer = format!("Bearer {token}");
    let own = format!("http://{}", stage.gateway.host());
    let post = |path: &str, credential: &str, field: (&str, &str)| {
        let answer = stage.gateway.client().post_form(path, &[("Authorization", credential), field], "a=1");
        assert_eq!(answer.all("set-cookie"), Vec::<String>::new());
        answer.status
    };
    for path in ["/d9", "/optional/d9"] {
        for foreign in [
            ("Sec-Fetch-Site", "cross-site"),
            ("Sec-Fetch-Site", "same-site"),
            ("Origin", "https://evil.test"),
            ("Origin", "null"),
            ("Referer", "https://evil.test/"),
        ] {
            assert_eq!(post(path, &basic, foreign), 403, "{path} {foreign:?}");
            // no page can have one sent without being asked for it first
            assert_eq!(post(path, &bearer, foreign), 200, "{path} {foreign:?}");
        }
        for ours in [("Sec-Fetch-Site", "same-origin"), ("Origin", own.as_str()), ("User-Agent", "git/2.47")] {
            assert_eq!(post(path, &basic, ours), 200, "{path} {ours:?}");
        }
    }
    let reads = [("Authorization", basic.as_str()), ("Sec-Fetch-Site", "cross-site")];
    assert_eq!(stage.get("/d9", &reads).status, 200, "nothing is changed by it, and no page reads the answer");
    still_serves(&stage.gateway);
}
