//! The provider of the tests' own, and the browser that goes through it.

use std::collections::HashMap;
use std::sync::Arc;

use data_encoding::{BASE64, BASE64URL_NOPAD as B64};
use jsonwebtoken::{Algorithm, EncodingKey};
use parking_lot::Mutex;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use url::Url;

use crate::account::jws;
use crate::account::provider::attempt::{self, Browser};
use crate::account::provider::errors::{Failure, Reason};
use crate::account::provider::finish::{Callback, Finished, Unfinished, finish};
use crate::account::provider::identity::Intent;
use crate::account::provider::providers::Providers;
use crate::account::provider::start::{Start, Started, start};
use crate::client::Client;
use crate::clock::Clock;
use crate::config::{
    ClientCredential, KeptTokens, LinkRule, Provider, ProviderAllow, ProviderClaims, ProviderEndpoints, ProviderIssuer,
    ProviderKind, SignOut, SignUp, TokenAuth,
};
use crate::secret::Secret;

pub(super) const NOW: u64 = 1_800_000_000;
pub(super) const CLIENT_ID: &str = "client one";
/// Characters that have to be encoded in `Authorization: Basic`.
pub(super) const CLIENT_SECRET: &str = "s+e:k%ret";
pub(super) const ORIGIN: &str = "https://app.example.com";
pub(super) const ACCESS_TOKEN: &str = "access-token";

/// One step of the provider, changed.
pub(super) type Change = Box<dyn Fn(&mut Value) + Send>;

/// What the provider does in each step.
pub(super) struct Behaviour {
    pub(super) discovery: Change,
    pub(super) jwks: Change,
    pub(super) head: Change,
    pub(super) claims: Change,
    pub(super) token: Change,
    pub(super) userinfo: Change,
    /// Changes the finished ID token.
    pub(super) id_token: Box<dyn Fn(String) -> String + Send>,
    /// Whole responses by path: status, content type, body.
    pub(super) raw: HashMap<String, (u16, &'static str, String)>,
    /// Key that signs.
    pub(super) signing: Signing,
    /// Whether a code needs its verifier.
    pub(super) has_pkce: bool,
}

pub(super) enum Signing {
    Ed25519,
    P256,
    Rsa(Algorithm),
}

/// The provider's keys.
pub(super) struct Keys {
    pub(super) ed25519: Vec<u8>,
    pub(super) p256: Vec<u8>,
    pub(super) rsa: Vec<u8>,
}

/// The provider.
#[derive(Clone)]
pub(super) struct Op {
    pub(super) issuer: String,
    pub(super) behaviour: Arc<Mutex<Behaviour>>,
    pub(super) keys: Arc<Mutex<Keys>>,
    codes: Arc<Mutex<HashMap<String, (String, String)>>>,
    pub(super) requests: Arc<Mutex<Vec<String>>>,
    /// Bodies of requests.
    pub(super) bodies: Arc<Mutex<Vec<String>>>,
}

fn honest() -> Change {
    Box::new(|_| {})
}

pub(super) fn new_keys() -> Keys {
    let random = ring::rand::SystemRandom::new();
    let pem = include_str!("../../../../tests/keys/rsa-for-tests-only.pem");
    let body: String = pem.lines().filter(|line| !line.starts_with("---")).collect();
    Keys {
        ed25519: Ed25519KeyPair::generate_pkcs8(&random).unwrap().as_ref().to_vec(),
        p256: EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap().as_ref().to_vec(),
        rsa: BASE64.decode(body.as_bytes()).unwrap(),
    }
}

impl Op {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let behaviour = Behaviour {
            discovery: honest(),
            jwks: honest(),
            head: honest(),
            claims: honest(),
            token: honest(),
            userinfo: honest(),
            id_token: Box::new(|token| token),
            raw: HashMap::new(),
            signing: Signing::Ed25519,
            has_pkce: true,
        };
        let op = Self {
            issuer,
            behaviour: Arc::new(Mutex::new(behaviour)),
            keys: Arc::new(Mutex::new(new_keys())),
            codes: Arc::default(),
            requests: Arc::default(),
            bodies: Arc::default(),
        };
        let server = op.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(server.clone().serve(stream));
            }
        });
        op
    }

    async fn serve(self, mut stream: TcpStream) {
        let mut read = Vec::new();
        while !read.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => read.push(byte),
                Err(_) => return,
            }
        }
        let head = String::from_utf8(read).unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        stream.read_exact(&mut body).await.unwrap();
        let target = head.split(' ').nth(1).unwrap().to_owned();
        self.requests.lock().push(target.clone());
        let body = String::from_utf8(body).unwrap();
        self.bodies.lock().push(body.clone());
        let (status, kind, body) = self.answer(&target, &head, &body);
        let length = body.len();
        let answer = format!("HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n{body}");
        let _ = stream.write_all(answer.as_bytes()).await;
    }

    fn answer(&self, target: &str, head: &str, body: &str) -> (u16, &'static str, String) {
        let path = target.split('?').next().unwrap();
        let behaviour = self.behaviour.lock();
        if let Some(raw) = behaviour.raw.get(target).or_else(|| behaviour.raw.get(path)) {
            return raw.clone();
        }
        let json = |status: u16, mut document: Value, change: &Change| {
            change(&mut document);
            (status, "application/json", document.to_string())
        };
        match path {
            "/.well-known/openid-configuration" | "/.well-known/oauth-authorization-server" => {
                json(200, self.metadata(), &behaviour.discovery)
            }
            "/jwks" => json(200, self.jwks(), &behaviour.jwks),
            "/token" => match self.redeem(head, body, behaviour.has_pkce) {
                Ok(nonce) => {
                    let id_token = self.id_token(&behaviour, &nonce);
                    let tokens = json!({ "access_token": ACCESS_TOKEN, "token_type": "Bearer", "id_token": id_token });
                    json(200, tokens, &behaviour.token)
                }
                Err(error) => json(400, json!({ "error": error }), &honest()),
            },
            "/userinfo" if head.contains(&format!("authorization: Bearer {ACCESS_TOKEN}\r\n")) => json(
                200,
                json!({ "sub": "ann", "email": "ann@example.com", "email_verified": true }),
                &behaviour.userinfo,
            ),
            _ => json(404, json!({}), &honest()),
        }
    }

    fn metadata(&self) -> Value {
        let issuer = &self.issuer;
        json!({
            "issuer": issuer,
            "authorization_endpoint": format!("{issuer}/authorize"),
            "token_endpoint": format!("{issuer}/token"),
            "userinfo_endpoint": format!("{issuer}/userinfo"),
            "jwks_uri": format!("{issuer}/jwks"),
            "id_token_signing_alg_values_supported":
                ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA", "HS256", "none"],
            "token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic"],
        })
    }

    pub(super) fn jwks(&self) -> Value {
        let keys = self.keys.lock();
        let ed25519 = Ed25519KeyPair::from_pkcs8(&keys.ed25519).unwrap();
        let p256 = jws::p256(&keys.p256).unwrap();
        let (x, y) = p256.public_key().as_ref()[1..].split_at(32);
        let rsa = jws::rsa(&keys.rsa).unwrap();
        let rsa: ring::rsa::PublicKeyComponents<Vec<u8>> = rsa.public().into();
        json!({ "keys": [
            { "kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": B64.encode(ed25519.public_key().as_ref()) },
            { "kty": "EC", "crv": "P-256", "kid": "ec", "use": "sig", "x": B64.encode(x), "y": B64.encode(y) },
            { "kty": "RSA", "kid": "rsa", "n": B64.encode(&rsa.n), "e": B64.encode(&rsa.e) },
        ]})
    }

    /// Checks a token request as a strict server does; returns the nonce of the code.
    fn redeem(&self, head: &str, body: &str, has_pkce: bool) -> Result<String, &'static str> {
        let form: HashMap<String, String> = form_urlencoded::parse(body.as_bytes()).into_owned().collect();
        let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let pair = format!("{}:{}", encoded(CLIENT_ID), encoded(CLIENT_SECRET));
        let basic = format!("authorization: Basic {}\r\n", BASE64.encode(pair.as_bytes()));
        if !head.contains(&basic) && form.get("client_secret").map(String::as_str) != Some(CLIENT_SECRET) {
            return Err("invalid_client");
        }
        let redirect_uri = format!("{ORIGIN}/.auth/oauth/op/callback");
        if form["grant_type"] != "authorization_code" || form["redirect_uri"] != redirect_uri {
            return Err("invalid_request");
        }
        let (nonce, challenge) = self.codes.lock().remove(&form["code"]).ok_or("invalid_grant")?;
        if !has_pkce {
            return Ok(nonce);
        }
        let verifier = form.get("code_verifier").ok_or("invalid_grant")?;
        if attempt::challenge(verifier) == challenge { Ok(nonce) } else { Err("invalid_grant") }
    }

    fn id_token(&self, behaviour: &Behaviour, nonce: &str) -> String {
        let (algorithm, kid) = match behaviour.signing {
            Signing::Ed25519 => ("EdDSA", "ed"),
            Signing::P256 => ("ES256", "ec"),
            Signing::Rsa(Algorithm::PS256) => ("PS256", "rsa"),
            Signing::Rsa(_) => ("RS256", "rsa"),
        };
        let mut head = json!({ "alg": algorithm, "kid": kid, "typ": "JWT" });
        (behaviour.head)(&mut head);
        let mut claims = json!({
            "iss": self.issuer, "sub": "ann", "aud": CLIENT_ID, "nonce": nonce, "iat": NOW, "exp": NOW + 300,
            "email": "ann@example.com", "email_verified": true, "name": "Ann", "sid": "their session",
        });
        (behaviour.claims)(&mut claims);
        let token = self.sign(&behaviour.signing, &head, &claims);
        (behaviour.id_token)(token)
    }

    pub(super) fn sign(&self, signing: &Signing, head: &Value, claims: &Value) -> String {
        jws::install_provider();
        let part = |value: &Value| B64.encode(value.to_string().as_bytes());
        let message = format!("{}.{}", part(head), part(claims));
        let keys = self.keys.lock();
        let by_library =
            |key: &EncodingKey, algorithm| jsonwebtoken::crypto::sign(message.as_bytes(), key, algorithm).unwrap();
        let signature = match signing {
            Signing::Ed25519 => by_library(&EncodingKey::from_ed_der(&keys.ed25519), Algorithm::EdDSA),
            Signing::P256 => by_library(&EncodingKey::from_ec_der(&keys.p256), Algorithm::ES256),
            Signing::Rsa(Algorithm::PS256) => {
                let key = jws::rsa(&keys.rsa).unwrap();
                let mut signed = vec![0; key.public().modulus_len()];
                let random = ring::rand::SystemRandom::new();
                key.sign(&ring::signature::RSA_PSS_SHA256, &random, message.as_bytes(), &mut signed).unwrap();
                B64.encode(&signed)
            }
            Signing::Rsa(_) => by_library(&EncodingKey::from_rsa_der(&keys.rsa), Algorithm::RS256),
        };
        format!("{message}.{signature}")
    }

    /// What a person who agrees brings back from the provider.
    pub(super) fn authorize(&self, url: &Url) -> Vec<(String, String)> {
        let params: HashMap<String, String> = url.query_pairs().into_owned().collect();
        let code = format!("code-{}", self.codes.lock().len());
        let held = |name: &str| params.get(name).cloned().unwrap_or_default();
        self.codes.lock().insert(code.clone(), (held("nonce"), held("code_challenge")));
        vec![("code".to_owned(), code), ("state".to_owned(), held("state"))]
    }

    pub(super) fn count(&self, path: &str) -> usize {
        self.requests.lock().iter().filter(|target| target.split('?').next() == Some(path)).count()
    }
}

/// A provider of a kind as the configuration has it.
pub(super) fn provider(kind: ProviderKind, issuer: ProviderIssuer) -> Provider {
    Provider {
        name: "op".to_owned(),
        kind,
        label: "OP".to_owned(),
        client_id: CLIENT_ID.to_owned(),
        credential: ClientCredential::Secret(Secret::new(CLIENT_SECRET.to_owned())),
        issuer,
        endpoints: ProviderEndpoints::default(),
        scopes: vec!["openid".to_owned(), "email".to_owned()],
        params: Vec::new(),
        callback: "/.auth/oauth/op/callback".to_owned(),
        token_auth: TokenAuth::Auto,
        claims: ProviderClaims::default(),
        groups: Vec::new(),
        groups_prefix: None,
        allow: ProviderAllow::default(),
        sign_up: SignUp::Closed,
        link: LinkRule::Ask,
        sign_out: SignOut::Local,
        recheck: None,
        kept: KeptTokens::default(),
        authorities: Vec::new(),
        danger_trust_email: false,
        danger_no_pkce: false,
    }
}

/// A gateway with one provider, and a browser in front of it.
pub(super) struct World {
    pub(super) op: Op,
    pub(super) providers: Providers,
    pub(super) clock: Clock,
    pub(super) browser: Browser,
}

impl World {
    pub(super) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(super) async fn with(change: impl FnOnce(&mut Provider)) -> Self {
        let op = Op::start().await;
        let mut provider = provider(ProviderKind::Oidc, ProviderIssuer::Exact(op.issuer.clone()));
        change(&mut provider);
        Self::of(op, &[provider])
    }

    pub(super) fn of(op: Op, configured: &[Provider]) -> Self {
        let clock = Clock::stopped_at(NOW);
        let providers = Providers::new(configured, Client::start().unwrap(), &[7; 32], clock.clone()).unwrap();
        Self { op, providers, clock, browser: Browser::new().unwrap() }
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.op.behaviour.lock());
    }

    pub(super) async fn begin(&self) -> Result<Started, Failure> {
        self.begin_with(|_| {}).await
    }

    pub(super) async fn begin_with<'s>(&'s self, change: impl FnOnce(&mut Start<'s>)) -> Result<Started, Failure> {
        let mut wanted = Start {
            provider: "op",
            browser: Some(self.browser.clone()),
            origin: ORIGIN,
            address: "",
            return_to: Some("/app".to_owned()),
            intent: Intent::SignIn,
            is_fresh: false,
            params: &[],
            caller: None,
        };
        change(&mut wanted);
        start(&self.providers, wanted).await
    }

    pub(super) async fn call_back(&self, query: &[(String, String)]) -> Result<Finished, Unfinished> {
        self.call_back_with(query, |_| {}).await
    }

    pub(super) async fn call_back_with(
        &self,
        query: &[(String, String)],
        change: impl FnOnce(&mut Callback<'_>),
    ) -> Result<Finished, Unfinished> {
        let mut callback = Callback {
            provider: "op",
            path: "/.auth/oauth/op/callback",
            origin: ORIGIN,
            query,
            address: None,
            browser: Some(self.browser.clone()),
        };
        change(&mut callback);
        finish(&self.providers, &callback).await
    }

    /// The whole way.
    pub(super) async fn sign_in(&self) -> Result<Finished, Failure> {
        let started = self.begin().await?;
        self.call_back(&self.op.authorize(&started.url)).await.map_err(|unfinished| unfinished.failure)
    }

    /// The reason why the whole way does not end well, with its detail.
    pub(super) async fn refusal(&self) -> (Reason, String) {
        match self.sign_in().await {
            Ok(finished) => panic!("signed in as {:?}", finished.identity),
            Err(failure) => (failure.reason, failure.detail),
        }
    }
}
