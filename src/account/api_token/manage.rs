//! API tokens: what programs show instead of a session. A token stands for its account within its scopes
//! until it expires, is revoked, or the account is disabled or gone.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::Method;
use parking_lot::RwLock;

use crate::account::accounts::{Accounts, down};
use crate::account::admin::accounts::{Admin, Refused, shown};
use crate::account::audit;
use crate::account::fields;
use crate::account::profile::wrong_password;
use crate::account::session::cookie_token::new_session_id;
use crate::account::session::registry::Live;
use crate::account::session::session::{Identity, Rejected, Session};
use crate::account::sign_up::unavailable;
use crate::account::{Caller, ChangeError, FieldError, StoreDown};
use crate::clock::UnixSecs;
use crate::config::PathPattern;
use crate::secret::{Secret, random_token, token_hash};
use crate::store::{ApiTokenRow, AuditRow, Kept, NewApiToken, Shown, UserRow};

/// Tells a token from other credentials.
pub const PREFIX: &str = "agt_";
/// Longest token that is looked at, bytes; ours have 47.
const TOKEN_BYTES_MAX: usize = 64;
const NAME_CHARS_MAX: usize = 100;
const SCOPES_MAX: usize = 32;

/// One thing that a token may do: methods (`None`: all) on a path pattern.
#[derive(Debug, Clone)]
pub struct Scope {
    methods: Option<Vec<Method>>,
    path: PathPattern,
}

/// What a token may do; no scopes: what its account may.
#[derive(Debug)]
pub struct Grant {
    scopes: Vec<Scope>,
}

impl Scope {
    /// Reads `GET /api/**`, `GET,POST /api/**` or `* /api/**`. All methods are never what is left when nothing is said.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("`{text}` is no scope: {why}");
        let (methods, path) = text
            .trim()
            .rsplit_once(' ')
            .ok_or_else(|| wrong("it names methods and a path, as in `GET /api/**`, or `* /api/**` for all methods"))?;
        let is_method = |name: &str| !name.is_empty() && name != "*" && name.bytes().all(|b| b.is_ascii_uppercase());
        let method = |name: &str| Method::from_bytes(name.trim().as_bytes()).ok().filter(|_| is_method(name.trim()));
        let methods: Option<Vec<Method>> = match methods.trim() {
            "*" => None,
            names => Some(names.split(',').map(method).collect::<Option<_>>().ok_or_else(|| {
                wrong(
                    "methods are written in capitals and joined by commas, as in `GET,POST /api/**`; `*` alone is all",
                )
            })?),
        };
        Ok(Self { methods, path: PathPattern::parse(path).map_err(wrong)? })
    }

    /// Reads one that was kept. Before methods had to be named, none meant all, and such tokens go on.
    fn kept(text: &str) -> Result<Self, String> {
        let (methods, path) = text.trim().rsplit_once(' ').unwrap_or(("", text.trim()));
        let named = methods.split(',').map(str::trim).filter(|name| !name.is_empty()).collect::<Vec<_>>().join(",");
        Self::parse(&format!("{} {path}", if named.is_empty() { "*" } else { &named }))
    }

    /// HEAD goes with GET.
    fn takes(&self, method: &Method, path: &[u8]) -> bool {
        let method_fits = self.methods.as_ref().is_none_or(|methods| {
            methods.contains(method) || (method == Method::HEAD && methods.contains(&Method::GET))
        });
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
}

/// All tokens that work, by hash.
#[derive(Default)]
pub(crate) struct ApiTokens(RwLock<HashMap<[u8; 32], Held, ahash::RandomState>>);

impl ApiTokens {
    /// Puts a change in force.
    pub(crate) fn apply(&self, row: ApiTokenRow, live: &Live) {
        let Ok(hash) = <[u8; 32]>::try_from(row.hash.as_slice()) else { return };
        let scopes: Result<Vec<_>, _> = row.scopes.iter().map(|scope| Scope::kept(scope)).collect();
        let mut held = self.0.write();
        // a scope that cannot be read must not become a wider one: the token works no more
        match (row.user, scopes) {
            (Some(user), Ok(scopes)) if !row.ended => {
                held.entry(hash).or_insert_with(|| {
                    let session = Session::new(row.id, live.account(&user.id), row.created, row.expires, row.seen);
                    let session = Session { of_program: true, ..session };
                    Held { session: Arc::new(session), grant: Arc::new(Grant { scopes }) }
                });
            }
            _ => {
                if let Some(token) = held.remove(&hash) {
                    token.session.ended.store(true, Ordering::Release);
                }
            }
        }
    }

    /// Tokens whose ids are not among these work no more.
    pub(crate) fn end_others(&self, standing: &HashSet<String>) {
        self.0.write().retain(|_, token| {
            let stands = standing.contains(&*token.session.id);
            if !stands {
                token.session.ended.store(true, Ordering::Release);
            }
            stands
        });
    }

    fn find(&self, token: &[u8]) -> Option<(Arc<Session>, Arc<Grant>)> {
        let token = std::str::from_utf8(token).ok().filter(|token| token.len() <= TOKEN_BYTES_MAX)?;
        let held = self.0.read();
        held.get(&token_hash(token)).map(|found| (Arc::clone(&found.session), Arc::clone(&found.grant)))
    }

    /// Tokens used since that was last written, and when.
    pub(crate) fn unwritten(&self) -> Vec<(Arc<Session>, UnixSecs)> {
        let held = self.0.read();
        let used = held.values().filter_map(|token| {
            let seen = token.session.seen.load(Ordering::Relaxed);
            (seen > token.session.written.load(Ordering::Relaxed)).then(|| (Arc::clone(&token.session), seen))
        });
        used.collect()
    }

    /// Lets go of tokens that have expired.
    pub(crate) fn sweep(&self, now: UnixSecs) {
        self.0.write().retain(|_, token| now < token.session.expires());
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
        if now >= session.expires() {
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
    /// Makes a form that is sent again recognizable: a value of that form's own.
    pub form_id: Option<String>,
}

/// One line of the account page's list.
#[derive(Debug, Clone, serde::Serialize)]
#[allow(missing_docs)]
pub struct TokenInfo {
    pub id: String,
    pub name: String,
    pub scopes: Vec<String>,
    pub created: UnixSecs,
    pub expires: UnixSecs,
    /// Last request; 0: none yet.
    pub seen: UnixSecs,
}

/// Judges and makes a token; what is kept of it, and the token itself.
fn new_token(user_id: &str, details: &TokenDetails, now: UnixSecs) -> Result<(NewApiToken, Secret), FieldError> {
    let wrong = |field, code, message: String| FieldError { field, code, message };
    let name = details.name.trim();
    if name.is_empty() || name.chars().count() > NAME_CHARS_MAX || name.contains(fields::is_refused) {
        let message = "A token's name has 1 to 100 characters, all of which can be shown.";
        return Err(wrong("token_name", "invalid", message.to_owned()));
    }
    if details.scopes.len() > SCOPES_MAX {
        return Err(wrong("scopes", "too_many", format!("A token has at most {SCOPES_MAX} scopes.")));
    }
    for scope in &details.scopes {
        Scope::parse(scope).map_err(|message| wrong("scopes", "invalid", message))?;
    }
    let no_randomness =
        |_| wrong("token_name", "unavailable", "The system's random number generator failed.".to_owned());
    let token = Secret::new(format!("{PREFIX}{}", random_token().map_err(no_randomness)?.expose()));
    let new = NewApiToken {
        id: new_session_id().map_err(no_randomness)?,
        hash: token_hash(token.expose()),
        user_id: user_id.to_owned(),
        name: name.to_owned(),
        scopes: details.scopes.iter().map(|scope| scope.trim().to_owned()).collect(),
        created: now,
        expires: now.saturating_add(details.lasts_secs),
    };
    Ok((new, token))
}

fn too_many() -> FieldError {
    let message = "There are as many tokens as one account may have: revoke one first.".to_owned();
    FieldError { field: "token_name", code: "too_many", message }
}

impl Admin {
    /// API tokens that work, newest first; of one account, or all.
    pub fn tokens(&mut self, of: Option<&str>) -> Result<Vec<ApiTokenRow>, Refused> {
        let (id, _) = self.whose(of)?;
        Ok(self.db.api_tokens(id.as_deref(), self.clock.now())?)
    }

    /// Ends an API token.
    pub fn revoke_token(&mut self, id: &str) -> Result<(), Refused> {
        let event = AuditRow { detail: shown(id), ..self.event("token_revoked", None) };
        if self.db.end_api_token(id, None, self.clock.now(), &event)? {
            Ok(())
        } else {
            Err(Refused(format!("there is no token `{}` that works", shown(id))))
        }
    }

    /// Ends all API tokens of an account, or of everybody; returns how many.
    pub fn revoke_tokens(&mut self, of: Option<&str>) -> Result<usize, Refused> {
        let (id, user) = self.whose(of)?;
        let event = self.event("tokens_revoked", user.as_ref());
        Ok(self.db.end_api_tokens(id.as_deref(), self.clock.now(), &event)?)
    }

    fn whose(&mut self, of: Option<&str>) -> Result<(Option<String>, Option<UserRow>), Refused> {
        let user = of.map(|typed| self.user(typed)).transpose()?;
        Ok((user.as_ref().map(|user| user.id.clone()), user))
    }

    /// Makes a token and gives its id and the token itself, which is kept nowhere.
    pub fn create_token(&mut self, typed: &str, details: &TokenDetails) -> Result<(String, Secret), Refused> {
        let user = self.user(typed)?;
        let (new, token) = new_token(&user.id, details, self.now())?;
        let event = AuditRow { detail: new.id.clone(), ..self.event("token_created", Some(&user)) };
        match self.db.add_api_token(&new, None, &event)? {
            Kept::Yes => Ok((new.id, token)),
            Kept::TooMany => Err(too_many().into()),
            Kept::Already => Err(Refused("the token was made already".to_owned())),
            Kept::No => Err(Refused(format!("the account {} was removed meanwhile", user.email))),
        }
    }
}

impl Accounts {
    /// The person's tokens that work, newest first.
    pub async fn tokens_of(&self, who: &Identity) -> Result<Vec<TokenInfo>, StoreDown> {
        let _turn = self.shared.turn_of(who).await.map_err(|_| StoreDown)?;
        let (id, now) = (who.user.id.clone(), self.shared.clock.now());
        let rows =
            self.shared.store.run(move |db| db.api_tokens(Some(&id), now)).await.map_err(|error| down(&error))?;
        let info = |row: ApiTokenRow| TokenInfo {
            id: row.id,
            name: row.name,
            scopes: row.scopes,
            created: row.created,
            expires: row.expires,
            seen: row.seen,
        };
        Ok(rows.into_iter().map(info).collect())
    }

    /// Makes a token for the person, who proves to be the one with the current password: a page of an app
    /// behind the gateway that was taken over could otherwise make itself one that outlives the session.
    pub async fn create_token(
        &self,
        caller: &Caller,
        who: &Identity,
        current: Secret,
        details: &TokenDetails,
    ) -> Result<Option<(String, Secret)>, ChangeError> {
        let now = self.shared.clock.now();
        let (mut new, token) = new_token(&who.user.id, details, now)?;
        if let Some(form_id) = &details.form_id {
            let of_form = token_hash(&format!("{}\n{form_id}", who.session.id));
            new.id = data_encoding::BASE64URL_NOPAD.encode(&of_form[..16]);
            if new.id.starts_with('-') {
                // commands would take it for an option
                new.id.replace_range(..1, "A");
            }
        }
        let proved = self.prove(caller, who, current).await?;
        let event = AuditRow { detail: new.id.clone(), ..audit::by("token_created", caller, now, who) };
        let (id, written) = (new.id.clone(), event.clone());
        let shown = Shown { checked: proved.old, counted: proved.counted };
        let kept = self.shared.store.run(move |db| db.add_api_token(&new, Some(&shown), &written));
        match kept.await.map_err(|error| unavailable(&error))? {
            Kept::Yes => {
                audit::log(&event);
                Ok(Some((id, token)))
            }
            Kept::Already => Ok(None),
            Kept::TooMany => Err(too_many().into()),
            // changed elsewhere in this very moment
            Kept::No => Err(wrong_password()),
        }
    }

    /// Ends one of the person's tokens. `false`: there is none of this id.
    pub async fn revoke_token(&self, caller: &Caller, who: &Identity, id: &str) -> Result<bool, StoreDown> {
        let _turn = self.shared.turn_of(who).await.map_err(|_| StoreDown)?;
        let now = self.shared.clock.now();
        let event = AuditRow { detail: shown(id), ..audit::by("token_revoked", caller, now, who) };
        let (id, user, written) = (id.to_owned(), who.user.id.clone(), event.clone());
        let ended = self.shared.store.run(move |db| db.end_api_token(&id, Some(&user), now, &written));
        let ended = ended.await.map_err(|error| down(&error))?;
        if ended {
            audit::log(&event);
        }
        Ok(ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::Standing;
    use crate::account::testing::{START, World};

    /// `session.idle` is for people: a program's socket was closed as expired after it.
    #[tokio::test]
    async fn what_a_token_opened_outlives_the_idle_limit_of_sessions_and_ends_with_the_token() {
        let world = World::new();
        world.user("ada@example.com");
        let details = TokenDetails { name: "job".to_owned(), scopes: vec![], lasts_secs: 30 * 86_400, form_id: None };
        let (_, token) = world.admin().create_token("ada@example.com", &details).unwrap();
        assert!(world.accounts.ready().await);
        let who = world.accounts.authenticate_api_token(token.expose().as_bytes()).unwrap();
        world.clock.advance(29 * 86_400);
        assert_eq!(world.accounts.standing(&who.session), Standing::Active);
        world.clock.advance(86_400);
        assert_eq!(world.accounts.standing(&who.session), Standing::Expired);
    }

    #[tokio::test]
    async fn when_a_token_was_used_is_written_once_that_is_possible_again() {
        let world = World::new();
        world.user("ada@example.com");
        let details = TokenDetails { name: "job".to_owned(), scopes: vec![], lasts_secs: 86_400, form_id: None };
        let (_, token) = world.admin().create_token("ada@example.com", &details).unwrap();
        assert!(world.accounts.ready().await);
        let _ = world.accounts.authenticate_api_token(token.expose().as_bytes()).unwrap();
        let seen = || world.db().api_tokens(None, 1).unwrap()[0].seen;
        world.sqlite("CREATE TRIGGER broken BEFORE UPDATE ON api_token BEGIN SELECT RAISE(ABORT, 'broken'); END");
        world.clock.advance(60);
        world.chores().await;
        assert_eq!(seen(), 0);
        world.sqlite("DROP TRIGGER broken");
        world.clock.advance(60);
        world.chores().await;
        assert_eq!(seen(), START);
    }
}
