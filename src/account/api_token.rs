//! API tokens: what programs show instead of a session. A token stands for its account within its scopes
//! until it expires, is revoked, or the account is disabled or gone.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::Method;
use parking_lot::RwLock;

use super::accounts::Accounts;
use super::admin::{Admin, Refused};
use super::session::{Identity, Rejected, Session, User};
use super::token::new_session_id;
use crate::clock::UnixSecs;
use crate::config::PathPattern;
use crate::secret::{Secret, random_token, token_hash};
use crate::store::{ApiTokenRow, NewApiToken};

/// Tells a token from other credentials.
pub const PREFIX: &str = "agt_";
/// Longest token that is looked at, bytes; ours have 47.
const TOKEN_BYTES_MAX: usize = 64;
const NAME_CHARS_MAX: usize = 100;
const SCOPES_MAX: usize = 32;

/// One thing that a token may do: methods (none: all) on a path pattern.
#[derive(Debug, Clone)]
pub struct Scope {
    methods: Vec<Method>,
    path: PathPattern,
}

/// What a token may do; no scopes: what its account may.
#[derive(Debug)]
pub struct Grant {
    scopes: Vec<Scope>,
}

impl Scope {
    /// Reads `GET /api/**`, `GET,POST /api/**` or `/api/**`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (methods, path) = text.trim().rsplit_once(' ').unwrap_or(("", text.trim()));
        let methods = methods.split(',').map(str::trim).filter(|method| !method.is_empty());
        let methods: Option<Vec<Method>> = methods
            .map(|name| {
                Method::from_bytes(name.as_bytes()).ok().filter(|_| name.bytes().all(|b| b.is_ascii_uppercase()))
            })
            .collect();
        let methods = methods
            .ok_or_else(|| format!("`{text}` is no scope: methods are written in capitals, as in `GET /api/**`"))?;
        let path = PathPattern::parse(path).map_err(|why| format!("`{text}` is no scope: {why}"))?;
        Ok(Self { methods, path })
    }

    /// HEAD goes with GET.
    fn takes(&self, method: &Method, path: &[u8]) -> bool {
        let method_fits = self.methods.is_empty()
            || self.methods.contains(method)
            || (method == Method::HEAD && self.methods.contains(&Method::GET));
        method_fits && self.path.matches(path)
    }
}

impl Grant {
    /// Whether the token may be used for this; `path` with its escapes read.
    pub fn allows(&self, method: &Method, path: &[u8]) -> bool {
        self.scopes.is_empty() || self.scopes.iter().any(|scope| scope.takes(method, path))
    }
}

struct Held {
    /// Stands for the token where a session is asked for: its id is the token's.
    session: Arc<Session>,
    grant: Arc<Grant>,
    /// last request, as far as the store knows
    written: AtomicU64,
}

/// All tokens that work, by hash.
#[derive(Default)]
pub(super) struct ApiTokens(RwLock<HashMap<[u8; 32], Held, ahash::RandomState>>);

impl ApiTokens {
    /// Puts changes in force.
    pub(super) fn apply(&self, users: &HashMap<String, Arc<User>>, rows: Vec<ApiTokenRow>) {
        let mut held = self.0.write();
        for token in held.values() {
            if let Some(user) = users.get(&token.session.user.load().id) {
                token.session.user.store(Arc::clone(user));
            }
        }
        for row in rows {
            let Ok(hash) = <[u8; 32]>::try_from(row.hash.as_slice()) else { continue };
            let scopes: Result<Vec<_>, _> = row.scopes.iter().map(|scope| Scope::parse(scope)).collect();
            // a scope that cannot be read must not become a wider one: the token works no more
            match (row.user, scopes) {
                (Some(user), Ok(scopes)) if !row.ended => {
                    let user = users.get(&user.id).cloned().unwrap_or_else(|| Arc::new(User::from(user)));
                    let session = Session::new(row.id, user, row.created, row.expires, row.seen);
                    let written = AtomicU64::new(row.seen);
                    held.entry(hash).or_insert_with(|| Held {
                        session: Arc::new(session),
                        grant: Arc::new(Grant { scopes }),
                        written,
                    });
                }
                _ => {
                    if let Some(token) = held.remove(&hash) {
                        token.session.ended.store(true, Ordering::Release);
                    }
                }
            }
        }
    }

    fn find(&self, token: &[u8]) -> Option<(Arc<Session>, Arc<Grant>)> {
        let token = std::str::from_utf8(token).ok().filter(|token| token.len() <= TOKEN_BYTES_MAX)?;
        let held = self.0.read();
        held.get(&token_hash(token)).map(|found| (Arc::clone(&found.session), Arc::clone(&found.grant)))
    }

    /// Tokens used since they were last written: id and when; they count as written.
    pub(super) fn take_unwritten(&self) -> Vec<(String, UnixSecs)> {
        let held = self.0.read();
        let used = held.values().filter_map(|token| {
            let seen = token.session.seen.load(Ordering::Relaxed);
            (seen > token.written.fetch_max(seen, Ordering::Relaxed)).then(|| (token.session.id.clone(), seen))
        });
        used.collect()
    }

    /// Lets go of tokens that have expired.
    pub(super) fn sweep(&self, now: UnixSecs) {
        self.0.write().retain(|_, token| now < token.session.expires);
    }
}

impl Accounts {
    /// Who an API token stands for, now. Memory alone. Marks it as seen.
    ///
    /// # Errors
    /// [`Rejected`]: deny.
    pub fn authenticate_api_token(&self, token: &[u8]) -> Result<Identity, Rejected> {
        let (session, grant) = self.shared.api_tokens.find(token).ok_or(Rejected::Invalid)?;
        let now = self.shared.clock.now();
        let user = session.user.load_full();
        if session.ended.load(Ordering::Acquire) || user.disabled {
            return Err(Rejected::Ended);
        }
        if now >= session.expires {
            return Err(Rejected::Expired);
        }
        session.seen.fetch_max(now, Ordering::Relaxed);
        Ok(Identity { session, user, issued: now, grant: Some(grant) })
    }
}

/// What `token create` is told.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct TokenDetails {
    pub name: String,
    pub scopes: Vec<String>,
    pub lasts_secs: u64,
}

impl Admin {
    /// Makes a token and gives its id and the token itself, which is kept nowhere.
    pub fn create_token(&mut self, typed: &str, details: &TokenDetails) -> Result<(String, Secret), Refused> {
        let user = self.user(typed)?;
        let name = details.name.trim();
        let plain = !name.is_empty() && name.chars().count() <= NAME_CHARS_MAX && !name.chars().any(char::is_control);
        if !plain {
            return Err(Refused("a token's name has 1 to 100 characters, none of them control characters".to_owned()));
        }
        if details.scopes.len() > SCOPES_MAX {
            return Err(Refused(format!("a token has at most {SCOPES_MAX} scopes")));
        }
        for scope in &details.scopes {
            Scope::parse(scope).map_err(Refused)?;
        }
        let token = Secret::new(format!("{PREFIX}{}", random_token()?.expose()));
        let new = NewApiToken {
            id: new_session_id()?,
            hash: token_hash(token.expose()),
            user_id: user.id.clone(),
            name: name.to_owned(),
            scopes: details.scopes.iter().map(|scope| scope.trim().to_owned()).collect(),
            created: self.now(),
            expires: self.now().saturating_add(details.lasts_secs),
        };
        self.write_token(&new, &user)?;
        Ok((new.id, token))
    }
}
