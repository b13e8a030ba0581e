//! The JWT in the session cookie: issued and verified here, nowhere else. HS256 with keys from the store. It names a
//! session and an account and carries no permissions. Our own code instead of a JWT library, because no header is
//! ever interpreted:
//! checks follow RFC 8725 (one algorithm, explicit `typ`, key selected by `kid` among our own, every claim required,
//! nothing fetched), and the first three are one comparison: the header must equal, byte for byte, one that we write
//! ourselves.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use data_encoding::BASE64URL_NOPAD as B64;
use parking_lot::RwLock;
use ring::hmac;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::session::{Rejected, Session};
use crate::account::ids::{new_kid, new_session_id};
use crate::account::secrets_at_rest::{OpenKey, PlainKey};
use crate::clock::UnixSecs;
use crate::secret::{NoRandomness, Secret, random_bytes};

/// `iss` of all our tokens.
pub const ISSUER: &str = "authgate";
const AUDIENCE: &str = "session";
const TYPE: &str = "authgate+jwt";
/// Prefix of every session token, of any authgate instance: the header starts with `typ`.
pub const SESSION_TOKEN_START: &str = "eyJ0eXAiOiJhdXRoZ2F0ZStqd3Qi";
/// Longest token accepted, bytes.
const TOKEN_BYTES_MAX: usize = 2048;
/// Tolerated clock difference, seconds.
pub(crate) const LEEWAY_SECS: u64 = 5;
/// Verified tokens cached per thread; a full cache is cleared.
const VERIFIED_MAX: usize = 8192;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Claims<'t> {
    #[serde(borrow)]
    iss: Cow<'t, str>,
    #[serde(borrow)]
    aud: Cow<'t, str>,
    #[serde(borrow)]
    sub: Cow<'t, str>,
    #[serde(borrow)]
    sid: Cow<'t, str>,
    iat: u64,
    nbf: u64,
    exp: u64,
    #[serde(borrow)]
    jti: Cow<'t, str>,
}

/// A token with a valid signature and valid times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verified {
    pub(crate) session_id: String,
    pub(crate) user_id: String,
    pub(crate) issued: UnixSecs,
    pub(crate) expires: UnixSecs,
}

pub(crate) struct Key {
    kid: String,
    /// Encoded header of all tokens of this key.
    head: String,
    hmac: hmac::Key,
    /// Unix seconds; later, no token of this key is valid.
    valid_until: AtomicU64,
    /// Unix seconds; a token issued later is invalid, because the key was retired.
    issued_until: AtomicU64,
    /// The change number that retired the key: it is invalid for sessions that began later, whatever date a token
    /// claims.
    sessions_before: AtomicU64,
    /// The same for several nodes, which do not learn of it at the same moment: Unix seconds; the key is invalid for
    /// sessions that began later.
    sessions_until: AtomicU64,
    /// Unix seconds.
    signs: Signs,
}

/// When a key signs, Unix seconds.
#[derive(Default)]
struct Signs {
    from: AtomicU64,
    until: AtomicU64,
    /// Of two that sign, the newer does.
    created: u64,
}

/// All verification keys, by token header, and those that sign now or later.
#[derive(Default)]
pub(crate) struct Keys {
    all: RwLock<HashMap<String, Arc<Key>>>,
    /// The newest first.
    signing: ArcSwap<Vec<Arc<Key>>>,
    /// Other nodes sign, too.
    is_shared: bool,
}

/// A new session key: 32 random bytes.
pub(crate) fn new_key() -> Result<PlainKey, NoRandomness> {
    new_key_for("HS256")
}

/// A new key of 32 random bytes.
pub(crate) fn new_key_for(algorithm: &'static str) -> Result<PlainKey, NoRandomness> {
    let secret = zeroize::Zeroizing::new(random_bytes::<32>()?.to_vec());
    Ok(PlainKey { algorithm, kid: new_kid()?, secret })
}

impl Keys {
    /// No keys yet. `is_shared`: other nodes sign with them, too.
    pub(crate) fn new(is_shared: bool) -> Self {
        Self { is_shared, ..Self::default() }
    }

    /// The key that signs now: the newest that all nodes know.
    fn signing(&self, now: UnixSecs) -> Option<Arc<Key>> {
        let keys = self.signing.load();
        let signs = |key: &&Arc<Key>| {
            now >= key.signs.from.load(Ordering::Relaxed) && now < key.signs.until.load(Ordering::Relaxed)
        };
        // with a clock far behind, the one that begins first
        keys.iter().find(signs).or_else(|| keys.last()).cloned()
    }

    /// Applies the keys of the store. A retired key verifies earlier tokens for `max_age_secs` more, the longest
    /// lifetime of a token.
    pub(crate) fn apply(&self, rows: &[OpenKey], max_age_secs: u64) {
        let mut all = self.all.write();
        all.retain(|_, key| {
            let kept = rows.iter().any(|row| row.kid == key.kid);
            if !kept {
                key.valid_until.store(0, Ordering::Relaxed);
            }
            kept
        });
        let mut signing: Vec<Arc<Key>> = Vec::new();
        for row in rows.iter().filter(|row| row.algorithm == "HS256" && row.secret.len() >= 32) {
            let head = json!({ "typ": TYPE, "alg": "HS256", "kid": row.kid }).to_string();
            let head = B64.encode(head.as_bytes());
            let key = all.entry(head.clone()).or_insert_with(|| {
                Arc::new(Key {
                    kid: row.kid.clone(),
                    head,
                    hmac: hmac::Key::new(hmac::HMAC_SHA256, &row.secret),
                    valid_until: AtomicU64::new(0),
                    issued_until: AtomicU64::new(0),
                    sessions_before: AtomicU64::new(0),
                    sessions_until: AtomicU64::new(0),
                    signs: Signs { created: row.created, ..Signs::default() },
                })
            });
            let until = |secs| row.retired.map_or(u64::MAX, |at| at.saturating_add(secs));
            key.valid_until.store(until(max_age_secs), Ordering::Relaxed);
            // a gateway that has not learnt of the rotation yet still renews with it; a node may not learn of it for minutes
            key.issued_until.store(if self.is_shared { u64::MAX } else { until(LEEWAY_SECS) }, Ordering::Relaxed);
            let (before, later) = (row.retired.map_or(u64::MAX, |_| row.changed), until(LEEWAY_SECS));
            let (before, later) = if self.is_shared { (u64::MAX, later) } else { (before, u64::MAX) };
            key.sessions_before.store(before, Ordering::Relaxed);
            key.sessions_until.store(later, Ordering::Relaxed);
            key.signs.from.store(row.signs_from, Ordering::Relaxed);
            key.signs.until.store(row.retired.unwrap_or(u64::MAX), Ordering::Relaxed);
            if row.retired.is_none() || self.is_shared {
                signing.push(Arc::clone(key));
            }
        }
        signing.sort_by_key(|key| {
            let until = key.signs.until.load(Ordering::Relaxed);
            std::cmp::Reverse((until == u64::MAX, key.signs.from.load(Ordering::Relaxed), key.signs.created))
        });
        self.signing.store(Arc::new(signing));
    }

    /// A token for a session; valid until the session's absolute end.
    pub(crate) fn sign(&self, session: &Session, user_id: &str, now: UnixSecs) -> Option<Secret> {
        let key = self.signing(now)?;
        let claims = Claims {
            iss: ISSUER.into(),
            aud: AUDIENCE.into(),
            sub: user_id.into(),
            sid: session.id.as_str().into(),
            iat: now,
            nbf: now,
            exp: session.expires(),
            jti: new_session_id().ok()?.into(),
        };
        let message = format!("{}.{}", key.head, B64.encode(&serde_json::to_vec(&claims).ok()?));
        Some(Secret::new(format!("{message}.{}", key.tag(message.as_bytes()))))
    }

    /// HMAC-SHA256 of a text; a prefix separates it from token signatures.
    pub(crate) fn tag(&self, text: &str, now: UnixSecs) -> Option<String> {
        let key = self.signing(now)?;
        Some(key.tag(&[b"tag ", text.as_bytes()].concat()))
    }

    /// The id of the signing key, and its HMAC-SHA256 of a WebSocket ticket's text; a prefix separates it from other
    /// signatures.
    pub(crate) fn sign_ticket(&self, text: &str, now: UnixSecs) -> Option<(String, String)> {
        let key = self.signing(now)?;
        Some((key.kid.clone(), key.tag(&[b"ticket ", text.as_bytes()].concat())))
    }

    /// Verifies the signature of a ticket that was issued at `issued`; gives its key.
    pub(crate) fn verify_ticket(
        &self,
        kid: &str,
        text: &str,
        tag: &str,
        (issued, now): (UnixSecs, UnixSecs),
    ) -> Result<Arc<Key>, Rejected> {
        let key = self.all.read().values().find(|key| key.kid == kid).cloned().ok_or(Rejected::Unknown)?;
        key.check(now)?;
        let tag = B64.decode(tag.as_bytes()).map_err(|_| Rejected::Invalid)?;
        hmac::verify(&key.hmac, &[b"ticket ", text.as_bytes()].concat(), &tag).map_err(|_| Rejected::Invalid)?;
        if issued > key.issued_until.load(Ordering::Relaxed) { Err(Rejected::Invalid) } else { Ok(key) }
    }

    /// Verifies a token on its own: format, key, signature, claims, times.
    pub(crate) fn verify(&self, token: &[u8], now: UnixSecs) -> Result<(Verified, Arc<Key>), Rejected> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Rejected::Invalid);
        }
        let (message, signature) = split(token, token.iter().rposition(|&b| b == b'.'))?;
        let (head, payload) = split(message, message.iter().position(|&b| b == b'.'))?;
        let head = std::str::from_utf8(head).map_err(|_| Rejected::Invalid)?;
        let unknown = || if head.starts_with(SESSION_TOKEN_START) { Rejected::Unknown } else { Rejected::Invalid };
        let key = self.all.read().get(head).cloned().ok_or_else(unknown)?;
        key.check(now)?;
        let signature = B64.decode(signature).map_err(|_| Rejected::Invalid)?;
        hmac::verify(&key.hmac, message, &signature).map_err(|_| Rejected::Invalid)?;
        let payload = B64.decode(payload).map_err(|_| Rejected::Invalid)?;
        let claims: Claims<'_> = serde_json::from_slice(&payload).map_err(|_| Rejected::Invalid)?;
        if claims.iss != ISSUER || claims.aud != AUDIENCE {
            return Err(Rejected::Invalid);
        }
        // `iat` and `nbf` are not checked otherwise: the clock may have been ahead at issue, and the session's row
        // decides whether the session exists
        if claims.iat > key.issued_until.load(Ordering::Relaxed) || claims.jti.is_empty() {
            return Err(Rejected::Invalid);
        }
        if now > claims.exp.saturating_add(LEEWAY_SECS) {
            return Err(Rejected::Expired);
        }
        let [session_id, user_id] = [claims.sid, claims.sub].map(Cow::into_owned);
        let verified = Verified { session_id, user_id, issued: claims.iat, expires: claims.exp };
        Ok((verified, key))
    }
}

/// The parts before and after a dot.
fn split(text: &[u8], dot: Option<usize>) -> Result<(&[u8], &[u8]), Rejected> {
    dot.map(|at| (&text[..at], &text[at + 1..])).ok_or(Rejected::Invalid)
}

impl Key {
    fn tag(&self, message: &[u8]) -> String {
        B64.encode(hmac::sign(&self.hmac, message).as_ref())
    }

    fn check(&self, now: UnixSecs) -> Result<(), Rejected> {
        if now <= self.valid_until.load(Ordering::Relaxed) { Ok(()) } else { Err(Rejected::Invalid) }
    }

    /// Whether the key is valid for this session: a retired key is not, if the session began later.
    pub(crate) fn is_valid_for(&self, session: &Session) -> bool {
        session.begun < self.sessions_before.load(Ordering::Relaxed)
            && session.created <= self.sessions_until.load(Ordering::Relaxed)
    }
}

/// A cached verified token. Everything that can change is checked again.
pub(crate) struct Remembered {
    session: Arc<Session>,
    issued: UnixSecs,
    expires: UnixSecs,
    key: Arc<Key>,
}

impl Remembered {
    pub(crate) fn new(session: Arc<Session>, verified: &Verified, key: Arc<Key>) -> Self {
        Self { session, issued: verified.issued, expires: verified.expires, key }
    }

    fn check(&self, now: UnixSecs) -> Result<(), Rejected> {
        self.key.check(now)?;
        if !self.key.is_valid_for(&self.session) {
            return Err(Rejected::Invalid);
        }
        if now > self.expires.saturating_add(LEEWAY_SECS) { Err(Rejected::Expired) } else { Ok(()) }
    }
}

/// Verified tokens by their full bytes, one cache per thread: no lock in a request's path. Failed tokens are not
/// cached, so they cannot evict valid ones. A valid token is cached when it is seen the second time, so that a crowd
/// of clients with one request each costs no more than verification.
#[derive(Default)]
struct Memory {
    /// the [`crate::account::Accounts`] that filled it
    owner: u64,
    tokens: HashMap<Box<[u8]>, Remembered, ahash::RandomState>,
    /// Fingerprints of tokens seen once, each in the place that its hash selects.
    once: Vec<u32>,
}

impl Memory {
    /// Whether the token's fingerprint is present; records it.
    fn seen_before(&mut self, token: &[u8]) -> bool {
        let [a, b, c, d, place @ ..] = self.tokens.hasher().hash_one(token).to_ne_bytes();
        self.once.resize(VERIFIED_MAX, 0);
        let place = usize::try_from(u32::from_ne_bytes(place)).unwrap_or(0) % VERIFIED_MAX;
        let trace = u32::from_ne_bytes([a, b, c, d]);
        std::mem::replace(&mut self.once[place], trace) == trace
    }
}

thread_local! {
    static MEMORY: RefCell<Memory> = RefCell::default();
}

/// The session and issue time of a token that this thread has cached; `Err` if it has become invalid.
pub(crate) fn recall(owner: u64, token: &[u8], now: UnixSecs) -> Option<Result<(Arc<Session>, UnixSecs), Rejected>> {
    MEMORY.with_borrow_mut(|memory| {
        if memory.owner != owner {
            return None;
        }
        let found = memory.tokens.get(token)?;
        match found.check(now) {
            Ok(()) => Some(Ok((Arc::clone(&found.session), found.issued))),
            Err(rejected) => {
                memory.tokens.remove(token);
                Some(Err(rejected))
            }
        }
    })
}

/// Caches a verified token on this thread, if it is seen for the second time.
pub(crate) fn remember(owner: u64, token: &[u8], what: Remembered) {
    MEMORY.with_borrow_mut(|memory| {
        if !memory.seen_before(token) {
            return;
        }
        if memory.owner != owner || memory.tokens.len() >= VERIFIED_MAX {
            memory.tokens.clear();
            memory.owner = owner;
        }
        memory.tokens.insert(token.into(), what);
    });
}

/// Removes a token whose session has ended.
pub(crate) fn forget(token: &[u8]) {
    MEMORY.with_borrow_mut(|memory| drop(memory.tokens.remove(token)));
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::account::admin::signing_keys;
    use crate::account::credentials;
    use crate::account::testing::{Pair, START, World};
    use crate::account::{OldKeys, SessionState, SignedIn};
    use crate::store;

    async fn signed_in(world: &World) -> SignedIn {
        world.user("ada@example.com");
        world.sign_in("ada@example.com").await
    }

    fn judged(world: &World, token: &str) -> &'static str {
        match credentials::session_token(&world.accounts, token.as_bytes()) {
            Ok(_) => "ok",
            Err(Rejected::Invalid) => "invalid",
            Err(Rejected::Expired) => "expired",
            Err(Rejected::Ended) => "ended",
            Err(why) => panic!("only where nodes share a database: {why:?}"),
        }
    }

    fn parts(token: &str) -> (Value, Value) {
        let mut parts = token.split('.').map(|part| B64.decode(part.as_bytes()).unwrap());
        let mut next = || serde_json::from_slice(&parts.next().unwrap()).unwrap();
        (next(), next())
    }

    fn signed(world: &World, header: &str, claims: &str) -> String {
        let secret = world.signing_key();
        let message = format!("{}.{}", B64.encode(header.as_bytes()), B64.encode(claims.as_bytes()));
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), message.as_bytes());
        format!("{message}.{}", B64.encode(tag.as_ref()))
    }

    fn set(mut value: Value, key: &str, to: Value) -> String {
        value[key] = to;
        value.to_string()
    }

    fn without(mut value: Value, key: &str) -> String {
        value.as_object_mut().unwrap().remove(key);
        value.to_string()
    }

    #[tokio::test]
    async fn the_token_contains_the_required_claims_and_nothing_else() {
        let world = World::new();
        let done = signed_in(&world).await;
        let (header, claims) = parts(done.token.expose());
        let kid = store::keys::list(&mut world.db()).unwrap()[0].kid.clone();
        assert_eq!(header, json!({ "typ": "authgate+jwt", "alg": "HS256", "kid": kid }));
        let jti = claims["jti"].as_str().unwrap();
        assert_eq!(jti.len(), 22);
        let end = START + 20 * 86_400;
        let whole = json!({ "iss": "authgate", "aud": "session", "sub": "1", "sid": done.session.id,
            "iat": START, "nbf": START, "exp": end, "jti": jti });
        assert_eq!(claims, whole);
        assert!(done.token.expose().starts_with(SESSION_TOKEN_START));
    }

    #[tokio::test]
    async fn no_byte_of_a_token_can_be_changed() {
        let world = World::new();
        let token = signed_in(&world).await.token;
        for at in 0..token.expose().len() {
            let mut changed = token.expose().as_bytes().to_vec();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(
                (at, credentials::session_token(&world.accounts, &changed).err()),
                (at, Some(Rejected::Invalid))
            );
        }
        for text in ["", ".", "..", "a.b.c", "\0", &format!("{}.", token.expose()), &format!("{} ", token.expose())] {
            assert_eq!(judged(&world, text), "invalid", "{text:?}");
        }
        assert_eq!(credentials::session_token(&world.accounts, &[0xff; 100]).err(), Some(Rejected::Invalid));
        assert_eq!(judged(&world, token.expose()), "ok");
    }

    #[tokio::test]
    async fn a_foreign_header_is_rejected_despite_a_valid_signature() {
        let world = World::new();
        let done = signed_in(&world).await;
        let (header, claims) = parts(done.token.expose());
        let claims = claims.to_string();
        let cases = [
            ("as made", header.to_string(), "ok"),
            ("alg none", set(header.clone(), "alg", json!("none")), "invalid"),
            ("alg HS512", set(header.clone(), "alg", json!("HS512")), "invalid"),
            ("alg RS256", set(header.clone(), "alg", json!("RS256")), "invalid"),
            ("no typ", without(header.clone(), "typ"), "invalid"),
            ("typ JWT", set(header.clone(), "typ", json!("JWT")), "invalid"),
            ("crit", set(header.clone(), "crit", json!(["exp"])), "invalid"),
            ("no kid", without(header.clone(), "kid"), "invalid"),
            ("other kid", set(header.clone(), "kid", json!("../../etc/passwd")), "invalid"),
            ("kid with SQL", set(header.clone(), "kid", json!("' OR 1=1 --")), "invalid"),
            ("alg twice", header.to_string().replace("\"alg\"", "\"alg\":\"none\",\"alg\""), "invalid"),
        ];
        for (case, header, expected) in cases {
            assert_eq!((case, judged(&world, &signed(&world, &header, &claims))), (case, expected));
        }
    }

    #[tokio::test]
    async fn missing_or_wrong_claims_are_rejected_despite_a_valid_signature() {
        let world = World::new();
        let done = signed_in(&world).await;
        let (header, claims) = parts(done.token.expose());
        let with = |key: &str, to: Value| set(claims.clone(), key, to);
        let mut cases = vec![
            ("as made", claims.to_string(), "ok"),
            ("iss", with("iss", json!("other")), "invalid"),
            ("aud", with("aud", json!("csrf")), "invalid"),
            ("sub", with("sub", json!("2")), "invalid"),
            ("sid", with("sid", json!("AAAAAAAAAAAAAAAAAAAAAA")), "ended"),
            ("exp past", with("exp", json!(START - 6)), "expired"),
            ("exp text", with("exp", json!("9999999999")), "invalid"),
            ("exp negative", with("exp", json!(-1)), "invalid"),
            ("exp huge", claims.to_string().replace(&claims["exp"].to_string(), "1e400"), "invalid"),
            // issued before the clock was set back
            ("nbf ahead", with("nbf", json!(START + 3600)), "ok"),
            ("iat ahead", with("iat", json!(START + 3600)), "ok"),
            ("jti empty", with("jti", json!("")), "invalid"),
            ("one more", with("admin", json!(true)), "invalid"),
            ("sub twice", claims.to_string().replace("\"sub\"", "\"sub\":\"2\",\"sub\""), "invalid"),
            ("not an object", "[]".to_owned(), "invalid"),
        ];
        for key in ["iss", "aud", "sub", "sid", "iat", "nbf", "exp", "jti"] {
            cases.push((key, without(claims.clone(), key), "invalid"));
        }
        for (case, claims, expected) in cases {
            assert_eq!((case, judged(&world, &signed(&world, &header.to_string(), &claims))), (case, expected));
        }
        let long = with("jti", json!("x".repeat(2048)));
        assert_eq!(judged(&world, &signed(&world, &header.to_string(), &long)), "invalid");
    }

    #[tokio::test]
    async fn rotation_signs_no_one_out_and_the_old_key_expires_with_its_last_token() {
        let world = World::new();
        let done = signed_in(&world).await;
        let old = done.token.expose().to_owned();
        assert_eq!(judged(&world, &old), "ok");
        let mut admin = world.admin();
        let kid = signing_keys::rotate(&mut admin, OldKeys::Kept).unwrap();
        assert_eq!(admin.wait_until_applied(), None);
        assert_eq!(judged(&world, &old), "ok");
        let fresh = world.sign_in("ada@example.com").await;
        assert_eq!(parts(fresh.token.expose()).0["kid"], json!(kid));
        // a session with renewed tokens continues under the new key
        world.clock.advance(3600);
        let who = credentials::session_token(&world.accounts, old.as_bytes()).unwrap();
        let renewed = credentials::renewed_token(&world.accounts, &who).unwrap();
        assert_eq!(parts(renewed.expose()).0["kid"], json!(kid));
        assert_eq!(judged(&world, renewed.expose()), "ok");
        world.clock.advance(20 * 86_400 - 3600 + 1);
        assert_eq!(judged(&world, &old), "invalid");
        assert_eq!(world.accounts.session_state(&done.session), SessionState::Expired);
        // and is dropped permanently: a longer `max_age` must not restore it
        assert_eq!(store::keys::list(&mut world.db()).unwrap().len(), 2);
        world.maintenance().await;
        assert_eq!(store::keys::list(&mut world.db()).unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_token_is_renewed_at_most_every_renew_after_and_never_beyond_the_sessions_end() {
        let world = World::new();
        let done = signed_in(&world).await;
        let who = |token: &Secret| credentials::session_token(&world.accounts, token.expose().as_bytes()).unwrap();
        assert!(credentials::renewed_token(&world.accounts, &who(&done.token)).is_none());
        world.clock.advance(3599);
        assert!(credentials::renewed_token(&world.accounts, &who(&done.token)).is_none());
        world.clock.advance(1);
        let renewed = credentials::renewed_token(&world.accounts, &who(&done.token)).unwrap();
        assert_eq!(parts(renewed.expose()).1["exp"], json!(done.session.expires()));
        assert!(credentials::renewed_token(&world.accounts, &who(&renewed)).is_none());
        assert_eq!(world.accounts.cookie_max_age(&done.session), Some(20 * 86_400 - 3600));
    }

    #[tokio::test]
    async fn invalid_tokens_are_not_cached_and_valid_ones_are_bounded() {
        let world = World::new();
        let done = signed_in(&world).await;
        for n in 0..100 {
            assert_eq!(judged(&world, &format!("{}{n}", done.token.expose())), "invalid");
        }
        for (time, remembered) in [(1, 0), (2, 1), (3, 1)] {
            assert_eq!(judged(&world, done.token.expose()), "ok");
            assert_eq!(MEMORY.with_borrow(|memory| memory.tokens.len()), remembered, "after time {time}");
        }
        let (_, key) = world.accounts.shared.keys().verify(done.token.expose().as_bytes(), START).unwrap();
        let verified = Verified { session_id: String::new(), user_id: String::new(), issued: 0, expires: u64::MAX };
        for n in 0..VERIFIED_MAX + 10 {
            for _ in 0..2 {
                let what = Remembered::new(Arc::clone(&done.session), &verified, Arc::clone(&key));
                remember(0, n.to_string().as_bytes(), what);
            }
            assert!(MEMORY.with_borrow(|memory| memory.tokens.len()) <= VERIFIED_MAX);
        }
        assert!(MEMORY.with_borrow(|memory| memory.tokens.contains_key((VERIFIED_MAX + 9).to_string().as_bytes())));
    }

    #[tokio::test]
    async fn nodes_that_start_at_once_have_the_same_keys_and_know_a_new_one_before_any_signs_with_it() {
        let Some(pair) = Pair::new() else { return };
        let [a, b] = &pair.nodes;
        let first = pair.sql("SELECT algorithm, count(*) FROM signing_key GROUP BY algorithm ORDER BY algorithm");
        assert_eq!(first.trim(), "HS256|1\napp-cookies|1");
        let before = signed_in(a).await;
        let kid = |token: &Secret| parts(token.expose()).0["kid"].as_str().unwrap().to_owned();
        let old = kid(&before.token);
        let new = signing_keys::rotate(&mut a.admin(), OldKeys::Kept).unwrap();
        a.catch_up().await;
        b.catch_up().await;
        let from: u64 =
            pair.sql(&format!("SELECT signs_from FROM signing_key WHERE kid = '{new}'")).trim().parse().unwrap();
        a.clock.set(from - 1);
        let meanwhile = b.sign_in("ada@example.com").await;
        assert_eq!(kid(&meanwhile.token), old);
        a.clock.set(from);
        let after = b.sign_in("ada@example.com").await;
        assert_eq!(kid(&after.token), new);
        a.clock.set(from + LEEWAY_SECS + 1);
        let later = b.sign_in("ada@example.com").await;
        a.catch_up().await;
        for node in [a, b] {
            for done in [&before, &meanwhile, &after, &later] {
                assert_eq!(judged(node, done.token.expose()), "ok");
            }
        }
        // the old key is good for earlier sessions alone, whatever time a token claims
        let with_old = |session: &Session| {
            let user = session.user.load_full();
            a.accounts.shared.keys().sign(session, &user.id, from - 1).unwrap()
        };
        let [good, bad] = [&meanwhile, &later].map(|done| with_old(&done.session));
        assert_eq!([&good, &bad].map(kid), [&old, &old].map(String::clone));
        for node in [a, b] {
            assert_eq!([&good, &bad].map(|token| judged(node, token.expose())), ["ok", "invalid"]);
        }
        // a key that may have leaked signs no more, and the new one at once
        let next = signing_keys::rotate(&mut a.admin(), OldKeys::Dropped).unwrap();
        b.catch_up().await;
        assert_eq!(judged(b, after.token.expose()), "invalid");
        let fresh = b.sign_in("ada@example.com").await;
        assert_eq!((kid(&fresh.token), judged(b, fresh.token.expose())), (next, "ok"));
    }
}
