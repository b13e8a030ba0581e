//! Exchanges the code: how the client proves itself (RFC 6749, 2.3.1; RFC 7523; OpenID Connect Core, 9), what is sent,
//! and what is read of the answer. Pure.

use data_encoding::{BASE64, BASE64URL_NOPAD};
use form_urlencoded::{Serializer, byte_serialize};
use http::HeaderValue;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::errors::{Failure, Reason};
use super::tokens::TimedToken;
use crate::account::jws;
use crate::client::Response;
use crate::clock::UnixSecs;
use crate::config::{AppleKey, ClientCredential, Provider, ProviderKind, TokenAuth};
use crate::secret::{NoRandomness, Secret, random_bytes};

/// Lifetime of a client assertion, seconds.
const ASSERTION_SECS: u64 = 60;
/// Longest lifetime of an access token that is believed, seconds.
const LIFETIME_SECS_MAX: u64 = 366 * 86_400;
/// Longest access or refresh token that is used, bytes.
const ACCESS_TOKEN_BYTES_MAX: usize = 16 << 10;

/// What proves the client in one request.
pub(crate) struct ClientProof {
    /// Value of `Authorization`.
    pub(crate) authorization: Option<HeaderValue>,
    /// Form fields.
    pub(crate) fields: Vec<(&'static str, String)>,
}

/// How the client proves itself. `listed` is `token_endpoint_auth_methods_supported`.
pub(crate) fn method(provider: &Provider, listed: Option<&[String]>) -> TokenAuth {
    match (provider.token_auth, &provider.credential) {
        (TokenAuth::Auto, ClientCredential::None) => TokenAuth::None,
        (TokenAuth::Auto, ClientCredential::PrivateKey(_)) => TokenAuth::PrivateKey,
        (TokenAuth::Auto, ClientCredential::Apple(_)) => TokenAuth::Post,
        (TokenAuth::Auto, ClientCredential::Secret(_)) => {
            let lists = |name: &str| listed.is_some_and(|listed| listed.iter().any(|own| own == name));
            let is_post = match listed {
                Some(_) => !lists("client_secret_basic") && lists("client_secret_post"),
                None => provider.kind == ProviderKind::GitHub,
            };
            if is_post { TokenAuth::Post } else { TokenAuth::Basic }
        }
        (chosen, _) => chosen,
    }
}

/// The proof for one request. `audience` is the issuer alone, so that no other server can use an assertion
/// (draft-ietf-oauth-security-topics-update, 2.1).
pub(crate) fn proof(
    provider: &Provider,
    method: TokenAuth,
    audience: &str,
    now: UnixSecs,
) -> Result<ClientProof, String> {
    let client_id = ("client_id", provider.client_id.clone());
    let (authorization, fields) = match (method, &provider.credential) {
        (TokenAuth::Basic, ClientCredential::Secret(secret)) => (Some(basic(&provider.client_id, secret)?), vec![]),
        (TokenAuth::Post, ClientCredential::Secret(secret)) => {
            (None, vec![client_id, ("client_secret", secret.expose().to_owned())])
        }
        (TokenAuth::Post, ClientCredential::Apple(key)) => {
            (None, vec![client_id, ("client_secret", apple_secret(&provider.client_id, key, audience, now)?)])
        }
        (TokenAuth::PrivateKey, ClientCredential::PrivateKey(key)) => {
            let assertion = assertion(&provider.client_id, key, audience, now)?;
            let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer".to_owned();
            (None, vec![client_id, ("client_assertion_type", kind), ("client_assertion", assertion)])
        }
        (TokenAuth::None, _) => (None, vec![client_id]),
        _ => return Err("token_auth does not fit the credential".to_owned()),
    };
    Ok(ClientProof { authorization, fields })
}

/// Id and secret are encoded as form values first (RFC 6749, 2.3.1 and appendix B).
fn basic(client_id: &str, secret: &Secret) -> Result<HeaderValue, String> {
    let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
    let pair = format!("{}:{}", encoded(client_id), encoded(secret.expose()));
    let value = HeaderValue::try_from(format!("Basic {}", BASE64.encode(pair.as_bytes())));
    value.map_err(|_| "the client secret cannot be sent".to_owned())
}

fn assertion(client_id: &str, key: &Secret, audience: &str, now: UnixSecs) -> Result<String, String> {
    jws::install_provider();
    let (algorithm, key) = private_key(key).ok_or("the private key is not usable")?;
    let id = random_bytes::<16>().map_err(|error: NoRandomness| error.to_string())?;
    let claims = json!({
        "iss": client_id,
        "sub": client_id,
        "aud": audience,
        "iat": now,
        "exp": now + ASSERTION_SECS,
        "jti": BASE64URL_NOPAD.encode(&id),
    });
    jsonwebtoken::encode(&Header::new(algorithm), &claims, &key).map_err(|_| "the private key cannot sign".to_owned())
}

/// Apple's client secret is a JWT that the client signs (developer.apple.com, "Creating a client secret").
fn apple_secret(client_id: &str, key: &AppleKey, audience: &str, now: UnixSecs) -> Result<String, String> {
    jws::install_provider();
    let Some((Algorithm::ES256, signing)) = private_key(&key.key) else {
        return Err("the private key is not a P-256 key".to_owned());
    };
    let header = Header { kid: Some(key.id.clone()), ..Header::new(Algorithm::ES256) };
    let claims = json!({ "iss": key.team, "sub": client_id, "aud": audience, "iat": now, "exp": now + ASSERTION_SECS });
    jsonwebtoken::encode(&header, &claims, &signing).map_err(|_| "the private key cannot sign".to_owned())
}

/// Algorithm and key of a PKCS#8 document in PEM: Ed25519, P-256, or RSA.
pub(crate) fn private_key(pem: &Secret) -> Option<(Algorithm, EncodingKey)> {
    let text = pem.expose();
    let body = text.split_once("-----BEGIN PRIVATE KEY-----")?.1.split_once("-----END PRIVATE KEY-----")?.0;
    let body: String = body.split_whitespace().collect();
    let document = zeroize::Zeroizing::new(BASE64.decode(body.as_bytes()).ok()?);
    if jws::ed25519(&document).is_ok() {
        return Some((Algorithm::EdDSA, EncodingKey::from_ed_der(&document)));
    }
    if jws::p256(&document).is_ok() {
        return Some((Algorithm::ES256, EncodingKey::from_ec_der(&document)));
    }
    jws::rsa(&document).ok().map(|_| (Algorithm::RS256, EncodingKey::from_rsa_der(&document)))
}

/// The form of a token request.
pub(crate) fn form(code: &str, redirect_uri: &str, verifier: Option<&str>, proof: &ClientProof) -> String {
    let mut form = Serializer::new(String::new());
    form.append_pair("grant_type", "authorization_code").append_pair("code", code);
    form.append_pair("redirect_uri", redirect_uri);
    if let Some(verifier) = verifier {
        form.append_pair("code_verifier", verifier);
    }
    form.extend_pairs(proof.fields.iter().map(|(name, value)| (*name, value.as_str())));
    form.finish()
}

/// The form that exchanges a refresh token (RFC 6749, 6); the scope stays the one that was granted.
pub(crate) fn refresh_form(token: &Secret, proof: &ClientProof) -> String {
    let mut form = Serializer::new(String::new());
    form.append_pair("grant_type", "refresh_token").append_pair("refresh_token", token.expose());
    form.extend_pairs(proof.fields.iter().map(|(name, value)| (*name, value.as_str())));
    form.finish()
}

/// What a token endpoint gave.
pub(crate) struct Tokens {
    pub(crate) access: TimedToken,
    pub(crate) id: Option<Secret>,
    pub(crate) refresh: Option<Secret>,
}

/// Reads the answer that came at `now`. `error` comes first: some servers answer errors with status 200.
pub(crate) fn read(response: &Response, now: UnixSecs) -> Result<Tokens, Failure> {
    let json = &response.json;
    if let Some(error) = json.get("error") {
        let code = error.as_str().map_or_else(|| "?".to_owned(), plain_code);
        return Err(match code.as_str() {
            "invalid_client" | "unauthorized_client" | "incorrect_client_credentials" => Failure::new(
                Reason::ClientRefused,
                format!("token endpoint: {code}: check client_id and client_secret; try token_auth = \"post\""),
            ),
            _ => Failure::new(Reason::CodeRefused, format!("token endpoint: {code}")),
        });
    }
    if !response.is_success() {
        return Err(Failure::new(Reason::CodeRefused, format!("token endpoint: status {}", response.status)));
    }
    let broken = |what: &str| Failure::new(Reason::BadIdentity, format!("token endpoint: {what}"));
    let text = |name: &str| json.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    if !text("token_type").is_some_and(|kind| kind.eq_ignore_ascii_case("bearer")) {
        return Err(broken("the token type is not bearer"));
    }
    let is_token = |token: &&str| token.len() <= ACCESS_TOKEN_BYTES_MAX && token.bytes().all(|b| b.is_ascii_graphic());
    let access = text("access_token").filter(is_token).ok_or_else(|| broken("no access token"))?;
    let secret = |token: &str| Secret::new(token.to_owned());
    Ok(Tokens {
        access: TimedToken { value: secret(access), expires: expiry(json, now) },
        id: text("id_token").map(secret),
        refresh: text("refresh_token").filter(|token| token.len() <= ACCESS_TOKEN_BYTES_MAX).map(secret),
    })
}

/// When an access token expires; some servers say it in a text.
fn expiry(json: &Value, now: UnixSecs) -> Option<UnixSecs> {
    let lifetime = json.get("expires_in")?;
    let secs = lifetime.as_u64().or_else(|| lifetime.as_str()?.parse().ok())?;
    Some(now.saturating_add(secs.min(LIFETIME_SECS_MAX)))
}

/// An error code from outside, as a log line may have it (RFC 6749, 5.2, allows little more).
pub(crate) fn plain_code(code: &str) -> String {
    code.chars().filter(|c| c.is_ascii_alphanumeric() || "_-.".contains(*c)).take(64).collect()
}
