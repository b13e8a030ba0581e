//! Issues tokens for backends: short-lived, one per session and upstream, issued on demand and cached until close to
//! expiry. They identify the user; the browser's own token never leaves the gateway.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::HeaderValue;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::issued::IssuedCookieTokens;
use super::jwe::{KeyV4, KeyV5};
use super::signing_key::{SigningKey, SigningKeys};
use super::token::IssuedToken;
use crate::account::ids::new_session_id;
use crate::account::jws;
use crate::account::session::cookie_token::ISSUER;
use crate::account::session::session::Identity;
use crate::clock::UnixSecs;
use crate::config::{BackendToken, Config, TokenFormat, TokenKey};

/// How far a backend's clock may be behind ours, seconds.
const BEHIND_SECS: u64 = 5;

/// The token cannot be issued: a request that requires it must not be forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenIssueError;

/// The token issuers of all upstreams, by index.
pub(crate) struct Issuers(Vec<Option<Arc<Issuer>>>);

struct Issuer {
    /// Unique per process: a cached token is never used for another configuration.
    id: u64,
    audience: String,
    spec: BackendToken,
    shared: Option<EncodingKey>,
    v4: Option<KeyV4>,
    v5: HashMap<String, KeyV5>,
}

impl Issuers {
    /// `before`: the issuers of the previous configuration; unchanged ones are kept, and so are their tokens.
    pub(crate) fn new(config: &Config, before: Option<&Self>) -> Self {
        static IDS: AtomicU64 = AtomicU64::new(0);
        jws::install_provider();
        let issuer = |upstream: &crate::config::Upstream| {
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
            Some(Arc::new(Issuer {
                id: IDS.fetch_add(1, Ordering::Relaxed),
                audience: upstream.name.clone(),
                shared: secret.map(|secret| EncodingKey::from_secret(secret.expose().as_bytes())),
                v4: secret.filter(|_| spec.format == TokenFormat::NextAuthV4).map(KeyV4::new),
                v5,
                spec,
            }))
        };
        Self(config.upstreams.iter().map(issuer).collect())
    }

    /// The token for an upstream (by index) in this session; `None` if the upstream gets none. Memory only.
    ///
    /// # Errors
    /// [`TokenIssueError`]: the upstream requires a token and it cannot be issued.
    pub(crate) fn token(
        &self,
        upstream: usize,
        who: &Identity,
        keys: &SigningKeys,
        cookie_tokens: &IssuedCookieTokens,
        now: UnixSecs,
    ) -> Result<Option<Arc<IssuedToken>>, TokenIssueError> {
        let Some(issuer) = self.0.get(upstream).and_then(Option::as_deref) else { return Ok(None) };
        let key = match issuer.spec.key {
            TokenKey::Shared(_) => None,
            TokenKey::Ed25519 => Some(keys.signing(Algorithm::EdDSA, now).ok_or(TokenIssueError)?),
            TokenKey::P256 => Some(keys.signing(Algorithm::ES256, now).ok_or(TokenIssueError)?),
        };
        let held = &who.session.backend_tokens.0;
        if let Some((_, issued)) = held.load().iter().flat_map(|issued| issued.iter()).find(|(id, _)| *id == issuer.id)
            && issued.is_valid(&who.user, key.as_ref(), now)
        {
            return Ok(Some(Arc::clone(issued)));
        }
        let issued = Arc::new(issuer.issue(who, key, now)?);
        for token in issued.cookies.split("; ").filter_map(|pair| pair.split_once('=')).map(|(_, token)| token) {
            cookie_tokens.keep(token, &who.session, now.saturating_add(issuer.spec.lifetime.as_secs()));
        }
        held.rcu(|old| {
            let theirs = |(id, _): &&(u64, _)| *id != issuer.id && self.has(*id);
            let others = old.iter().flat_map(|issued| issued.iter()).filter(theirs).cloned();
            Some(Arc::new(others.chain([(issuer.id, Arc::clone(&issued))]).collect::<Vec<_>>()))
        });
        Ok(Some(issued))
    }

    fn has(&self, id: u64) -> bool {
        self.0.iter().flatten().any(|issuer| issuer.id == id)
    }
}

impl Issuer {
    fn issue(
        &self,
        who: &Identity,
        key: Option<Arc<SigningKey>>,
        now: UnixSecs,
    ) -> Result<IssuedToken, TokenIssueError> {
        let lifetime = self.spec.lifetime.as_secs();
        let expires = now.saturating_add(lifetime).min(who.session.expires());
        let claims = self.claims(who, now, expires)?;
        let fallback = match self.spec.format {
            TokenFormat::Jwt => self.sign(&claims, key.as_deref())?,
            TokenFormat::NextAuthV4 => self
                .v4
                .as_ref()
                .ok_or(TokenIssueError)?
                .encrypt(claims.to_string().as_bytes())
                .map_err(|_| TokenIssueError)?,
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
            let mut value = HeaderValue::try_from(text).map_err(|_| TokenIssueError)?;
            value.set_sensitive(true);
            Ok(value)
        };
        Ok(IssuedToken {
            bearer: self.spec.bearer.then(|| value(format!("Bearer {fallback}"))).transpose()?,
            assertion: self.spec.assertion.then(|| value(fallback)).transpose()?,
            cookies: cookies.join("; "),
            user: Arc::clone(&who.user),
            key,
            renew_at: now.saturating_add(lifetime - lifetime / 4).min(expires),
        })
    }

    fn claims(&self, who: &Identity, now: UnixSecs, expires: UnixSecs) -> Result<Value, TokenIssueError> {
        let user = &*who.user;
        if self.spec.format == TokenFormat::Jwt {
            return Ok(json!({
                "iss": ISSUER, "aud": self.audience, "sub": user.id, "id": user.id, "email": user.email,
                "name": user.name, "picture": user.picture, "groups": user.groups, "sid": who.session.id,
                "iat": now, "nbf": now.saturating_sub(BEHIND_SECS), "exp": expires,
            }));
        }
        // next-auth uses null for empty values
        let or_null = |text: &str| if text.is_empty() { Value::Null } else { text.into() };
        Ok(json!({
                "name": or_null(&user.name), "email": user.email, "picture": or_null(&user.picture), "sub": user.id,
                "id": user.id, "groups": user.groups, "iat": now, "exp": expires,
                "jti": new_session_id().map_err(|_| TokenIssueError)?,
        }))
    }

    fn sign(&self, claims: &Value, key: Option<&SigningKey>) -> Result<String, TokenIssueError> {
        let signed = match (key, &self.shared) {
            (Some(key), _) => {
                let header = Header { kid: Some(key.kid.clone()), ..Header::new(key.algorithm) };
                jsonwebtoken::encode(&header, claims, &key.sign)
            }
            (None, Some(shared)) => jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, shared),
            (None, None) => return Err(TokenIssueError),
        };
        signed.map_err(|_| TokenIssueError)
    }

    fn encrypt_v5(&self, cookie: &str, claims: &Value) -> Result<String, TokenIssueError> {
        self.v5.get(cookie).ok_or(TokenIssueError)?.encrypt(claims.to_string().as_bytes()).map_err(|_| TokenIssueError)
    }
}
