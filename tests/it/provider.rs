//! An OpenID provider of the tests' own, on a socket of its own: honest by default, with one closure to misbehave. It
//! checks what a strict provider checks: client, redirect URI, PKCE, each code once.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use data_encoding::{BASE64, BASE64URL_NOPAD as B64};
use ring::digest::{SHA256, digest};
use ring::signature::{Ed25519KeyPair, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

pub const CLIENT_ID: &str = "gateway";
pub const SECRET: &str = "s+e:k%ret-of-the-client";
pub const ACCESS_TOKEN: &str = "opaque-access-token";

/// Changes the claims of an ID token.
type Change = Box<dyn Fn(&mut Value) + Send>;
/// Whole answers: status and body, by path.
type Raw = HashMap<String, (u16, String)>;

/// Refresh tokens: each is good once.
#[derive(Default)]
pub struct Refresh {
    pub is_offered: bool,
    pub current: HashSet<String>,
    issued: usize,
    pub exchanged: usize,
    /// Lifetime of access tokens, which are then numbered.
    pub expires_in: Option<u64>,
    access: usize,
}

/// What happens once a refresh token is used up, before the answer.
type Hook = Box<dyn FnMut() + Send>;

#[derive(Clone)]
pub struct Provider {
    pub issuer: String,
    key: Arc<Ed25519KeyPair>,
    claims: Arc<Mutex<Change>>,
    raw: Arc<Mutex<Raw>>,
    /// Nonce, challenge and redirect URI of each code.
    codes: Arc<Mutex<HashMap<String, [String; 3]>>>,
    pub requests: Arc<Mutex<Vec<String>>>,
    logouts: Arc<AtomicUsize>,
    issued: Arc<Mutex<String>>,
    pub refresh: Arc<Mutex<Refresh>>,
    /// Where it takes requests and does not answer.
    hanging: Arc<Mutex<HashSet<String>>>,
    pub on_refresh: Arc<Mutex<Option<Hook>>>,
    /// What it says the time is; nothing: the truth.
    pub date: Arc<Mutex<Option<String>>>,
    /// Where clients prove themselves as Apple wants it: their key.
    pub apple_client: Arc<Mutex<Option<Vec<u8>>>>,
}

impl Provider {
    pub fn start() -> Self {
        Self::start_over("http", |stream| stream)
    }

    /// Over TLS, with the first certificate and the key in these files.
    pub fn start_tls(pem: &Path, key: &Path) -> Self {
        let chain: Vec<_> = CertificateDer::pem_file_iter(pem).unwrap().map(Result::unwrap).collect();
        let config = rustls::ServerConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap());
        let config = Arc::new(config.unwrap());
        Self::start_over("https", move |stream| {
            rustls::StreamOwned::new(rustls::ServerConnection::new(config.clone()).unwrap(), stream)
        })
    }

    fn start_over<S: Read + Write>(scheme: &str, wrapped: impl Fn(TcpStream) -> S + Clone + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let document = Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).unwrap();
        let provider = Self {
            issuer: format!("{scheme}://{}", listener.local_addr().unwrap()),
            key: Arc::new(Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap()),
            claims: Arc::new(Mutex::new(Box::new(|_| {}))),
            raw: Arc::default(),
            codes: Arc::default(),
            requests: Arc::default(),
            logouts: Arc::default(),
            issued: Arc::default(),
            refresh: Arc::default(),
            hanging: Arc::default(),
            on_refresh: Arc::default(),
            date: Arc::default(),
            apple_client: Arc::default(),
        };
        let server = provider.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (server, wrapped) = (server.clone(), wrapped.clone());
                std::thread::spawn(move || server.serve(wrapped(stream)));
            }
        });
        provider
    }

    /// Its `[[provider]]`, with further lines.
    pub fn configured(&self, name: &str, more: &str) -> String {
        format!(
            "[[provider]]\nname = \"{name}\"\nlabel = \"Corp {name}\"\nkind = \"oidc\"\nclient_id = \"{CLIENT_ID}\"\n\
             client_secret = {{ env = \"CLIENT_SECRET\" }}\nissuer = \"{}\"\n{more}\n",
            self.issuer
        )
    }

    pub fn claims(&self, change: impl Fn(&mut Value) + Send + 'static) {
        *self.claims.lock().unwrap() = Box::new(change);
    }

    /// Who signs in from now on.
    pub fn person(&self, subject: &'static str, email: &'static str, is_verified: bool) {
        self.claims(move |claims| {
            claims["sub"] = subject.into();
            claims["email"] = email.into();
            claims["email_verified"] = is_verified.into();
        });
    }

    pub fn answer(&self, path: &str, status: u16, body: &str) {
        self.raw.lock().unwrap().insert(path.to_owned(), (status, body.to_owned()));
    }

    /// Does not answer there until whoever asked gives up.
    pub fn hang(&self, path: &str) {
        self.hanging.lock().unwrap().insert(path.to_owned());
    }

    pub fn count(&self, path: &str) -> usize {
        self.requests.lock().unwrap().iter().filter(|target| *target == path).count()
    }

    /// Answers there as usual again.
    pub fn restore(&self, path: &str) {
        self.raw.lock().unwrap().remove(path);
    }

    /// What a browser brings back that was sent to `url` and whose owner agreed: the callback's path and query.
    pub fn agree(&self, url: &str) -> String {
        let (endpoint, query) = url.split_once('?').unwrap();
        assert_eq!(endpoint, format!("{}/authorize", self.issuer));
        let params: HashMap<String, String> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        assert_eq!((params["response_type"].as_str(), params["client_id"].as_str()), ("code", CLIENT_ID));
        assert_eq!(params["code_challenge_method"], "S256");
        let mut codes = self.codes.lock().unwrap();
        let code = format!("code-{}", codes.len());
        let held = ["nonce", "code_challenge", "redirect_uri"].map(|name| params[name].clone());
        let path = held[2].split_once("//").unwrap().1.split_once('/').unwrap().1.to_owned();
        codes.insert(code.clone(), held);
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("code", &code)
            .append_pair("state", &params["state"])
            .append_pair("iss", &self.issuer)
            .finish();
        format!("/{path}?{query}")
    }

    /// The same from a provider without OpenID Connect.
    pub fn agree_without_nonce(&self, url: &str) -> String {
        self.agree(&format!("{url}&nonce="))
    }

    fn serve(&self, stream: impl Read + Write) {
        let mut reader = BufReader::new(stream);
        let (mut head, mut line) = (Vec::new(), String::new());
        while reader.read_line(&mut line).unwrap_or(0) > 2 {
            head.push(std::mem::take(&mut line).trim_end().to_owned());
        }
        let Some(target) = head.first().and_then(|first| first.split(' ').nth(1)).map(str::to_owned) else { return };
        let length = head.iter().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        reader.read_exact(&mut body).unwrap();
        self.requests.lock().unwrap().push(target.clone());
        if self.hanging.lock().unwrap().contains(&target) {
            let _ = reader.read(&mut [0]);
            return;
        }
        let (status, body) = self.answered(&target, &head, &String::from_utf8(body).unwrap());
        let length = body.len();
        let date = self.date.lock().unwrap().clone();
        let date = date.unwrap_or_else(|| OffsetDateTime::now_utc().format(&Rfc2822).unwrap().replace("+0000", "GMT"));
        let _ = write!(
            reader.get_mut(),
            "HTTP/1.1 {status} X\r\ndate: {date}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        let _ = reader.get_mut().flush();
    }

    fn answered(&self, target: &str, head: &[String], body: &str) -> (u16, String) {
        if let Some(raw) = self.raw.lock().unwrap().get(target) {
            return raw.clone();
        }
        let issuer = &self.issuer;
        let document = match target {
            "/.well-known/openid-configuration" => json!({
                "issuer": issuer,
                "authorization_endpoint": format!("{issuer}/authorize"),
                "token_endpoint": format!("{issuer}/token"),
                "jwks_uri": format!("{issuer}/jwks"),
                "end_session_endpoint": format!("{issuer}/end"),
                "id_token_signing_alg_values_supported": ["EdDSA"],
                "authorization_response_iss_parameter_supported": true,
            }),
            "/jwks" => json!({ "keys": [{
                "kty": "OKP", "crv": "Ed25519", "kid": "one", "x": B64.encode(self.key.public_key().as_ref()),
            }] }),
            "/token" => match self.redeem(head, body) {
                Ok(nonce) => self.tokens(nonce.as_deref()),
                Err(error) => return (400, json!({ "error": error }).to_string()),
            },
            _ => return (404, "{}".to_owned()),
        };
        (200, document.to_string())
    }

    /// Gives the nonce of the ID token, if it gets one.
    fn redeem(&self, head: &[String], body: &str) -> Result<Option<String>, &'static str> {
        let form: HashMap<String, String> = form_urlencoded::parse(body.as_bytes()).into_owned().collect();
        if !self.knows_client(head, &form) {
            return Err("invalid_client");
        }
        if let Some(token) = form.get("refresh_token") {
            let is_current = {
                let mut refresh = self.refresh.lock().unwrap();
                let is_current = form["grant_type"] == "refresh_token" && refresh.current.remove(token);
                refresh.exchanged += usize::from(is_current);
                is_current
            };
            if let Some(hook) = self.on_refresh.lock().unwrap().as_mut() {
                hook();
            }
            return if is_current { Ok(None) } else { Err("invalid_grant") };
        }
        let [nonce, challenge, redirect_uri] =
            self.codes.lock().unwrap().remove(&form["code"]).ok_or("invalid_grant")?;
        let verifier = form.get("code_verifier").ok_or("invalid_grant")?;
        let hash = B64.encode(digest(&SHA256, verifier.as_bytes()).as_ref());
        let is_right = hash == challenge && form["redirect_uri"] == redirect_uri;
        if is_right && form["grant_type"] == "authorization_code" { Ok(Some(nonce)) } else { Err("invalid_grant") }
    }

    fn knows_client(&self, head: &[String], form: &HashMap<String, String>) -> bool {
        if let Some(key) = self.apple_client.lock().unwrap().as_deref() {
            return form.get("client_id").is_some_and(|id| id == CLIENT_ID)
                && is_apple_secret(&form["client_secret"], key);
        }
        let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let pair = BASE64.encode(format!("{CLIENT_ID}:{}", encoded(SECRET)).as_bytes());
        head.contains(&format!("authorization: Basic {pair}"))
    }

    fn tokens(&self, nonce: Option<&str>) -> Value {
        let mut tokens =
            json!({ "access_token": ACCESS_TOKEN, "token_type": "Bearer", "id_token": self.id_token(nonce) });
        let mut refresh = self.refresh.lock().unwrap();
        if let Some(secs) = refresh.expires_in {
            tokens["expires_in"] = secs.into();
            tokens["access_token"] = format!("access-token-{}", refresh.access).into();
            refresh.access += 1;
        }
        if refresh.is_offered {
            let token = format!("refresh-token-{}", refresh.issued);
            refresh.issued += 1;
            tokens["refresh_token"] = token.clone().into();
            refresh.current.insert(token);
        }
        tokens
    }

    fn id_token(&self, nonce: Option<&str>) -> String {
        let now = now();
        let mut claims = json!({
            "iss": self.issuer, "sub": "ada-at-corp", "aud": CLIENT_ID, "iat": now, "exp": now + 300,
            "email": "ada@example.com", "email_verified": true, "name": "Ada L",
        });
        if let Some(nonce) = nonce {
            claims["nonce"] = nonce.into();
        }
        (self.claims.lock().unwrap())(&mut claims);
        let token = self.signed(&json!({ "alg": "EdDSA", "kid": "one" }), &claims);
        self.issued.lock().unwrap().clone_from(&token);
        token
    }

    /// The ID token that was issued last.
    pub fn last_id_token(&self) -> String {
        self.issued.lock().unwrap().clone()
    }

    fn signed(&self, head: &Value, claims: &Value) -> String {
        let part = |value: &Value| B64.encode(value.to_string().as_bytes());
        let message = format!("{}.{}", part(head), part(claims));
        format!("{message}.{}", B64.encode(self.key.sign(message.as_bytes()).as_ref()))
    }

    /// A logout token that names nothing yet; `change` gets its head and its claims.
    pub fn logout_token(&self, change: impl FnOnce(&mut Value, &mut Value)) -> String {
        let id = self.logouts.fetch_add(1, Ordering::Relaxed);
        let mut head = json!({ "alg": "EdDSA", "kid": "one", "typ": "logout+jwt" });
        let mut claims = json!({
            "iss": self.issuer, "aud": CLIENT_ID, "iat": now(), "exp": now() + 120, "jti": format!("logout-{id}"),
            "events": { "http://schemas.openid.net/event/backchannel-logout": {} },
        });
        change(&mut head, &mut claims);
        self.signed(&head, &claims)
    }
}

/// What Apple checks of a client secret (developer.apple.com, "Creating a client secret").
fn is_apple_secret(secret: &str, key: &[u8]) -> bool {
    let (message, signature) = secret.rsplit_once('.').unwrap();
    let key = ring::signature::UnparsedPublicKey::new(&ring::signature::ECDSA_P256_SHA256_FIXED, key);
    if key.verify(message.as_bytes(), &B64.decode(signature.as_bytes()).unwrap()).is_err() {
        return false;
    }
    let [head, claims] = [0, 1].map(|at| {
        let part = message.split('.').nth(at).unwrap();
        serde_json::from_slice::<Value>(&B64.decode(part.as_bytes()).unwrap()).unwrap()
    });
    let lifetime = claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap();
    let expected = json!({ "iss": "TEAM123456", "sub": CLIENT_ID, "aud": "https://appleid.apple.com" });
    let is_right = expected.as_object().unwrap().iter().all(|(name, value)| claims[name] == *value);
    is_right && head["alg"] == "ES256" && head["kid"] == "KEY1234567" && lifetime <= 15_777_000
}

pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}
