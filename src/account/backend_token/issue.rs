//! Backends' own tokens: short-lived, one per session and upstream, made when a request needs one and
//! kept until near its end. They say who asks; the browser's own token never leaves the gateway.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use data_encoding::BASE64URL_NOPAD as B64;
use http::HeaderValue;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use parking_lot::RwLock;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::account::accounts::Accounts;
use crate::account::backend_token::jwe::{KeyV4, KeyV5};
use crate::account::backend_token::jws;
use crate::account::session::cookie_token::{ISSUER, new_kid, new_session_id};
use crate::account::session::session::{Identity, Standing, User};
use crate::clock::UnixSecs;
use crate::config::{BackendToken, Config, TokenFormat, TokenKey};
use crate::secret::NoRandomness;
use crate::store::{KeyRow, NewKey};

/// How long a retired key is still published, seconds: the last token that it signed lives no longer (`token.lifetime`).
pub(crate) const PUBLISHED_SECS: u64 = 86_400 + KNOWN_SECS;
/// How long a new key is published before it signs, seconds: backends keep what they were told for a minute
/// (`Cache-Control` of jwks.json), and their libraries do not ask more often than that for a key they do not know.
const KNOWN_SECS: u64 = 120;
/// A backend's clock may be behind ours by so many seconds.
const BEHIND_SECS: u64 = 5;

/// A token that cannot be made now: the request that needs it must not be forwarded without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotMinted;

/// A token as it is sent, until it is made anew.
pub struct Minted {
    /// `Bearer ...`
    pub bearer: Option<HeaderValue>,
    /// Value of `X-Authgate-Jwt-Assertion`.
    pub assertion: Option<HeaderValue>,
    /// `name=value` pairs joined by `; `; empty where no cookie carries it.
    pub cookies: String,
    user: Arc<User>,
    key: Option<Arc<OwnKey>>,
    renew_at: UnixSecs,
}

/// The tokens that a session has, by who made them. Read by every request without a lock. `None`: no memory for none.
#[derive(Default)]
pub struct MintedTokens(ArcSwapOption<Vec<(u64, Arc<Minted>)>>);

impl std::fmt::Debug for MintedTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MintedTokens(..)")
    }
}

/// A key of ours that signs backends' tokens.
struct OwnKey {
    kid: String,
    algorithm: Algorithm,
    sign: EncodingKey,
    public: Value,
    created: UnixSecs,
    retired: Option<UnixSecs>,
}

/// All of them, newest first.
#[derive(Default)]
pub(crate) struct OwnKeys(RwLock<Vec<Arc<OwnKey>>>);

/// How the tokens of each upstream are made.
pub(crate) struct Minters(Vec<Option<Arc<Minter>>>);

struct Minter {
    /// Unique in the process: a token is never taken for one that another configuration asks for.
    id: u64,
    audience: String,
    spec: BackendToken,
    shared: Option<EncodingKey>,
    v4: Option<KeyV4>,
    v5: HashMap<String, KeyV5>,
}

impl OwnKeys {
    /// Takes the keys as the store has them.
    pub(crate) fn apply(&self, rows: &[KeyRow]) {
        jws::install_provider();
        let mut keys: Vec<_> = rows.iter().filter_map(own_key).map(Arc::new).collect();
        keys.sort_by_key(|key| (key.retired.is_some(), u64::MAX - key.created));
        let mut held = self.0.write();
        for key in &mut keys {
            // the same key stays the same value: tokens that it signed stay good
            if let Some(old) = held.iter().find(|old| old.kid == key.kid && old.retired == key.retired) {
                *key = Arc::clone(old);
            }
        }
        *held = keys;
    }

    /// The newest key that backends can know by now; the very first ones are known to nobody, and sign at once.
    fn signing(&self, algorithm: Algorithm, now: UnixSecs) -> Option<Arc<OwnKey>> {
        let keys = self.0.read();
        let own = || keys.iter().filter(|key| key.algorithm == algorithm && key.is_published(now));
        let known = own().find(|key| now >= key.created.saturating_add(KNOWN_SECS));
        known.or_else(|| own().find(|key| key.retired.is_none())).cloned()
    }

    fn published(&self, now: UnixSecs) -> Value {
        let keys = self.0.read();
        json!({ "keys": keys.iter().filter(|key| key.is_published(now)).map(|key| &key.public).collect::<Vec<_>>() })
    }
}

impl OwnKey {
    fn is_published(&self, now: UnixSecs) -> bool {
        self.retired.is_none_or(|at| now < at.saturating_add(PUBLISHED_SECS))
    }
}

/// Reads a stored key with its public half as a JWK (RFC 7518, 6.2; RFC 8037, 2).
fn own_key(row: &KeyRow) -> Option<OwnKey> {
    let (algorithm, sign, mut public) = match row.algorithm.as_str() {
        "EdDSA" => {
            let pair = jws::ed25519(&row.secret).ok()?;
            let x = B64.encode(pair.public_key().as_ref());
            (Algorithm::EdDSA, EncodingKey::from_ed_der(&row.secret), json!({ "kty": "OKP", "crv": "Ed25519", "x": x }))
        }
        "ES256" => {
            let pair = jws::p256(&row.secret).ok()?;
            // uncompressed: 4, x, y
            let (x, y) = pair.public_key().as_ref().get(1..65)?.split_at(32);
            let public = json!({ "kty": "EC", "crv": "P-256", "x": B64.encode(x), "y": B64.encode(y) });
            (Algorithm::ES256, EncodingKey::from_ec_der(&row.secret), public)
        }
        _ => return None,
    };
    public["kid"] = row.kid.clone().into();
    public["alg"] = row.algorithm.clone().into();
    public["use"] = "sig".into();
    Some(OwnKey { kid: row.kid.clone(), algorithm, sign, public, created: row.created, retired: row.retired })
}

/// A new key of this algorithm.
pub(crate) fn new_key(algorithm: &str) -> Result<NewKey, NoRandomness> {
    let random = SystemRandom::new();
    let (algorithm, document) = match algorithm {
        "ES256" => ("ES256", EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random)),
        _ => ("EdDSA", Ed25519KeyPair::generate_pkcs8(&random)),
    };
    let secret = Zeroizing::new(document.map_err(|_| NoRandomness)?.as_ref().to_vec());
    Ok(NewKey { algorithm, kid: new_kid()?, secret })
}

/// The algorithms that a configuration needs keys for.
pub(crate) fn algorithms(config: &Config) -> Vec<&'static str> {
    let wanted = |key: &TokenKey| match key {
        TokenKey::Shared(_) => None,
        TokenKey::Ed25519 => Some("EdDSA"),
        TokenKey::P256 => Some("ES256"),
    };
    let mut names: Vec<_> =
        config.upstreams.iter().filter_map(|upstream| wanted(&upstream.token.as_ref()?.key)).collect();
    names.sort_unstable();
    names.dedup();
    names
}

impl Minters {
    /// `before` are those of the configuration before: what has not changed goes on, and so do its tokens.
    pub(crate) fn new(config: &Config, before: Option<&Self>) -> Self {
        static IDS: AtomicU64 = AtomicU64::new(0);
        jws::install_provider();
        let minter = |upstream: &crate::config::Upstream| {
            let spec = upstream.token.clone()?;
            let mut known = before.iter().flat_map(|before| before.0.iter().flatten());
            if let Some(same) = known.find(|old| old.audience == upstream.name && old.spec == spec) {
                return Some(Arc::clone(same));
            }
            let secret = match &spec.key {
                TokenKey::Shared(secret) => Some(secret),
                _ => None,
            };
            let v5 = match (spec.format, secret) {
                (TokenFormat::AuthJsV5, Some(secret)) => {
                    let names = spec.cookies.iter().map(String::as_str).chain(["authjs.session-token"]);
                    names.map(|name| (name.to_owned(), KeyV5::new(secret, name))).collect()
                }
                _ => HashMap::new(),
            };
            Some(Arc::new(Minter {
                id: IDS.fetch_add(1, Ordering::Relaxed),
                audience: upstream.name.clone(),
                shared: secret.map(|secret| EncodingKey::from_secret(secret.expose().as_bytes())),
                v4: secret.filter(|_| spec.format == TokenFormat::NextAuthV4).map(KeyV4::new),
                v5,
                spec,
            }))
        };
        Self(config.upstreams.iter().map(minter).collect())
    }

    fn has(&self, id: u64) -> bool {
        self.0.iter().flatten().any(|minter| minter.id == id)
    }
}

impl Accounts {
    /// The token that an upstream (by index) gets for this session; `None`: it gets none. Memory alone.
    ///
    /// # Errors
    /// [`NotMinted`]: the upstream must have one and it cannot be made.
    pub fn backend_token(&self, upstream: usize, who: &Identity) -> Result<Option<Arc<Minted>>, NotMinted> {
        let shared = &*self.shared;
        let Some(minter) = shared.minters.0.get(upstream).and_then(Option::as_deref) else { return Ok(None) };
        let now = shared.clock.now();
        let key = match minter.spec.key {
            TokenKey::Shared(_) => None,
            TokenKey::Ed25519 => Some(shared.own_keys.signing(Algorithm::EdDSA, now).ok_or(NotMinted)?),
            TokenKey::P256 => Some(shared.own_keys.signing(Algorithm::ES256, now).ok_or(NotMinted)?),
        };
        let held = &who.session.minted.0;
        if let Some((_, minted)) = held.load().iter().flat_map(|minted| minted.iter()).find(|(id, _)| *id == minter.id)
            && minted.is_good(&who.user, key.as_ref(), now)
        {
            return Ok(Some(Arc::clone(minted)));
        }
        let minted = Arc::new(minter.mint(who, key, now)?);
        for token in minted.cookies.split("; ").filter_map(|pair| pair.split_once('=')).map(|(_, token)| token) {
            shared.handed.keep(token, &who.session, now.saturating_add(minter.spec.lifetime.as_secs()));
        }
        held.rcu(|old| {
            let theirs = |(id, _): &&(u64, _)| *id != minter.id && shared.minters.has(*id);
            let others = old.iter().flat_map(|minted| minted.iter()).filter(theirs).cloned();
            Some(Arc::new(others.chain([(minter.id, Arc::clone(&minted))]).collect::<Vec<_>>()))
        });
        Ok(Some(minted))
    }

    /// Whom a token stands for that an upstream was handed as a cookie, while it lasts. For telling an app who
    /// asks, and for nothing else: it is no credential here.
    pub fn handed_to_upstream(&self, token: &str) -> Option<Identity> {
        let session = self.shared.handed.find(token, self.shared.clock.now())?;
        let user = session.user.load_full();
        let stands = self.standing(&session) == Standing::Active;
        stands.then(|| Identity { session, user, issued: self.shared.clock.now(), grant: None })
    }

    /// The public keys of backends' tokens (RFC 7517, 5).
    pub fn public_keys(&self) -> Value {
        self.shared.own_keys.published(self.shared.clock.now())
    }
}

impl Minted {
    /// What stands for a token where none is made: it names what would stand there.
    pub fn named(spec: &BackendToken, upstream: &str, user: &Arc<User>) -> Self {
        let format = match spec.format {
            TokenFormat::Jwt => "JWT",
            TokenFormat::NextAuthV4 => "next-auth 4 token",
            TokenFormat::AuthJsV5 => "Auth.js 5 token",
        };
        let name = format!("<a {format} for {upstream}, good for {} s>", spec.lifetime.as_secs());
        let value = |text: String| HeaderValue::try_from(text).ok();
        Self {
            bearer: value(format!("Bearer {name}")).filter(|_| spec.bearer),
            assertion: value(name.clone()).filter(|_| spec.assertion),
            cookies: spec.cookies.iter().map(|cookie| format!("{cookie}={name}")).collect::<Vec<_>>().join("; "),
            user: Arc::clone(user),
            key: None,
            renew_at: 0,
        }
    }

    /// Not near its end, of the key that signs now, and saying what is so now.
    fn is_good(&self, user: &Arc<User>, key: Option<&Arc<OwnKey>>, now: UnixSecs) -> bool {
        let same_key = match (&self.key, key) {
            (None, None) => true,
            (Some(own), Some(key)) => Arc::ptr_eq(own, key),
            _ => false,
        };
        now < self.renew_at && same_key && Arc::ptr_eq(&self.user, user)
    }
}

impl Minter {
    fn mint(&self, who: &Identity, key: Option<Arc<OwnKey>>, now: UnixSecs) -> Result<Minted, NotMinted> {
        let lifetime = self.spec.lifetime.as_secs();
        let expires = now.saturating_add(lifetime).min(who.session.expires());
        let claims = self.claims(who, now, expires)?;
        let fallback = match self.spec.format {
            TokenFormat::Jwt => self.sign(&claims, key.as_deref())?,
            TokenFormat::NextAuthV4 => {
                self.v4.as_ref().ok_or(NotMinted)?.encrypt(claims.to_string().as_bytes()).map_err(|_| NotMinted)?
            }
            TokenFormat::AuthJsV5 => self.encrypt_v5("authjs.session-token", &claims)?,
        };
        let mut cookies = Vec::with_capacity(self.spec.cookies.len());
        for name in &self.spec.cookies {
            let token = match self.spec.format {
                TokenFormat::AuthJsV5 => self.encrypt_v5(name, &claims)?,
                _ => fallback.clone(),
            };
            cookies.push(format!("{name}={token}"));
        }
        let value = |text: String| {
            let mut value = HeaderValue::try_from(text).map_err(|_| NotMinted)?;
            value.set_sensitive(true);
            Ok(value)
        };
        Ok(Minted {
            bearer: self.spec.bearer.then(|| value(format!("Bearer {fallback}"))).transpose()?,
            assertion: self.spec.assertion.then(|| value(fallback)).transpose()?,
            cookies: cookies.join("; "),
            user: Arc::clone(&who.user),
            key,
            renew_at: now.saturating_add(lifetime - lifetime / 4).min(expires),
        })
    }

    fn claims(&self, who: &Identity, now: UnixSecs, expires: UnixSecs) -> Result<Value, NotMinted> {
        let user = &*who.user;
        if self.spec.format == TokenFormat::Jwt {
            return Ok(json!({
                "iss": ISSUER, "aud": self.audience, "sub": user.id, "id": user.id, "email": user.email,
                "name": user.name, "picture": user.picture, "groups": user.groups, "sid": who.session.id,
                "iat": now, "nbf": now.saturating_sub(BEHIND_SECS), "exp": expires,
            }));
        }
        // next-auth says null where there is nothing
        let or_null = |text: &str| if text.is_empty() { Value::Null } else { text.into() };
        Ok(json!({
                "name": or_null(&user.name), "email": user.email, "picture": or_null(&user.picture), "sub": user.id,
                "id": user.id, "groups": user.groups, "iat": now, "exp": expires,
                "jti": new_session_id().map_err(|_| NotMinted)?,
        }))
    }

    fn sign(&self, claims: &Value, key: Option<&OwnKey>) -> Result<String, NotMinted> {
        let signed = match (key, &self.shared) {
            (Some(key), _) => {
                let header = Header { kid: Some(key.kid.clone()), ..Header::new(key.algorithm) };
                jsonwebtoken::encode(&header, claims, &key.sign)
            }
            (None, Some(shared)) => jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, shared),
            (None, None) => return Err(NotMinted),
        };
        signed.map_err(|_| NotMinted)
    }

    fn encrypt_v5(&self, cookie: &str, claims: &Value) -> Result<String, NotMinted> {
        self.v5.get(cookie).ok_or(NotMinted)?.encrypt(claims.to_string().as_bytes()).map_err(|_| NotMinted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key that was made at `created` and gave way to another one at `retired`.
    fn row(kid: &str, created: UnixSecs, retired: Option<UnixSecs>) -> KeyRow {
        let secret = new_key("EdDSA").unwrap().secret;
        KeyRow { kid: kid.to_owned(), secret, created, retired, algorithm: "EdDSA".to_owned(), changed: 1 }
    }

    /// "A new key is published for two minutes before it signs" (docs/http.md): whoever has just read jwks.json can
    /// verify what comes until it reads it again.
    #[test]
    fn a_rotated_key_is_published_before_it_signs_and_the_first_one_signs_at_once() {
        let keys = OwnKeys::default();
        let signs = |now| keys.signing(Algorithm::EdDSA, now).map(|key| key.kid.clone());
        let published = |now| keys.published(now)["keys"].as_array().unwrap().len();
        keys.apply(&[row("first", 1000, None)]);
        assert_eq!(signs(1000).as_deref(), Some("first"));
        keys.apply(&[row("first", 1000, Some(5000)), row("second", 5000, None)]);
        assert_eq!((signs(5000).as_deref(), published(5000)), (Some("first"), 2));
        assert_eq!(signs(5119).as_deref(), Some("first"));
        assert_eq!(signs(5120).as_deref(), Some("second"));
        // twice in a row
        keys.apply(&[row("first", 1000, Some(5000)), row("second", 5000, Some(5060)), row("third", 5060, None)]);
        assert_eq!((signs(5100).as_deref(), published(5100)), (Some("first"), 3));
        assert_eq!(signs(5121).as_deref(), Some("second"));
        assert_eq!(signs(5180).as_deref(), Some("third"));
        // what is published no more signs no more, whatever the clock says
        assert_eq!((signs(5060 + PUBLISHED_SECS).as_deref(), published(5060 + PUBLISHED_SECS)), (Some("third"), 1));
        keys.apply(&[row("first", 1000, Some(5000)), row("second", 900_000, None)]);
        assert_eq!(signs(5000 + PUBLISHED_SECS).as_deref(), Some("second"));
    }
}
