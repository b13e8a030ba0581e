//! How accounts come to be: open sign-up, invites, the first link; and password resets. Links
//! work once; what they bring about and their end are one transaction.

use super::accounts::{Accounts, Shared, down};
use super::password::hash_now;
use super::{Caller, ChangeError, FieldError, LinkKind, SignedIn, StoreDown, audit, blocklist, email};
use crate::clock::{Clock, UnixSecs};
use crate::config;
use crate::secret::{NoRandomness, Secret, random_bytes, random_token, token_hash};
use crate::store::{AuditRow, LinkRow, LinkUse, NewId, NewLink, NewUser, StoreError, Written};

/// How long the link for the first account works, seconds.
const FIRST_LINK_SECS: u64 = 86_400;
/// Longest link token that is looked at, bytes; ours have 43.
const TOKEN_BYTES_MAX: usize = 64;
/// The group of whoever uses the first link.
const FIRST_GROUP: &str = "admin";

impl From<FieldError> for ChangeError {
    fn from(error: FieldError) -> Self {
        Self::Field(error)
    }
}

impl From<StoreDown> for ChangeError {
    fn from(_: StoreDown) -> Self {
        Self::Unavailable
    }
}

pub(super) fn unavailable(error: &StoreError) -> ChangeError {
    down(error).into()
}

/// The id that a new account gets.
pub(super) fn new_id(ids: config::UserIds, clock: &Clock) -> Result<NewId, NoRandomness> {
    match ids {
        config::UserIds::Integer => Ok(NewId::Next),
        config::UserIds::Uuid => {
            let uuid = uuid::Builder::from_unix_timestamp_millis(clock.now_millis(), &random_bytes::<10>()?);
            Ok(NewId::Given(uuid.into_uuid().to_string()))
        }
    }
}

fn new_link(kind: &'static str, token: &Secret, now: UnixSecs, lasts_secs: u64) -> NewLink {
    NewLink {
        hash: token_hash(token.expose()),
        kind,
        user_id: None,
        email: None,
        groups: Vec::new(),
        created: now,
        expires: now.saturating_add(lasts_secs),
    }
}

/// An invite's link and token. `user_id`: for an account that exists and has no password yet.
pub(super) fn invite(
    now: UnixSecs,
    lasts_secs: u64,
    groups: Vec<String>,
    email: Option<String>,
    user_id: Option<String>,
) -> Result<(NewLink, Secret), NoRandomness> {
    let token = random_token()?;
    Ok((NewLink { user_id, email, groups, ..new_link("invite", &token, now, lasts_secs) }, token))
}

/// A password reset's link and token.
pub(super) fn reset(now: UnixSecs, lasts_secs: u64, user_id: String) -> Result<(NewLink, Secret), NoRandomness> {
    let token = random_token()?;
    Ok((NewLink { user_id: Some(user_id), ..new_link("reset", &token, now, lasts_secs) }, token))
}

/// Hashes a new password for a command, after judging it.
pub(super) fn chosen(rules: &config::Password, title: &str, email: &str, password: &Secret) -> Result<Secret, String> {
    blocklist::judge(rules, title, email, password).map_err(|wrong| wrong.message)?;
    hash_now(rules.argon2, password).map_err(|error| error.to_string())
}

impl Shared {
    /// Judges a new password and hashes it in the pool.
    pub(super) async fn hashed(&self, email: &str, password: Secret) -> Result<Secret, ChangeError> {
        blocklist::judge(&self.settings.password, &self.settings.title, email, &password)?;
        let place = self.hasher.place().map_err(|_| ChangeError::Busy)?;
        place.hash(password).await.map_err(|_| ChangeError::Busy)
    }

    fn new_user(&self, email: String, name: String, password: Secret) -> Result<NewUser, ChangeError> {
        let id = new_id(self.settings.user_ids, &self.clock).map_err(|_| ChangeError::Unavailable)?;
        Ok(NewUser { id, email, name, picture: String::new(), groups: Vec::new(), password: Some(password) })
    }
}

impl Accounts {
    /// The token of an invite for the first account (group `admin`), while there is no account.
    /// Works 24 hours, and not once an account exists.
    pub async fn first_link(&self) -> Result<Option<Secret>, StoreDown> {
        let shared = &*self.shared;
        let now = shared.clock.now();
        let token = random_token().map_err(|_| StoreDown)?;
        let link = NewLink { groups: vec![FIRST_GROUP.to_owned()], ..new_link("first", &token, now, FIRST_LINK_SECS) };
        let event = audit::event("first_link_made", &Caller::default(), now);
        let made = shared
            .store
            .run(move |db| if db.any_user()? { Ok(false) } else { db.add_link(&link, &event).map(|()| true) })
            .await
            .map_err(|error| down(&error))?;
        Ok(made.then_some(token))
    }

    /// Makes an account where `sign_up.mode` is open. Answers, and costs, alike for addresses that
    /// are new and taken; nobody is signed in by it.
    pub async fn sign_up(&self, caller: &Caller, email: &str, name: &str, password: Secret) -> Result<(), ChangeError> {
        let shared = &*self.shared;
        if shared.settings.sign_up != config::SignUp::Open {
            return Err(ChangeError::Closed);
        }
        let (email, name) = (email::email(email)?, email::name(name)?);
        let hash = shared.hashed(&email, password).await?;
        let now = shared.clock.now();
        let event = audit::about("sign_up", caller, now, "", &email);
        let (new, written) = (shared.new_user(email, name, hash)?, event.clone());
        let done = shared
            .store
            .run(move |db| {
                let done = db.add_user(&new, now, &written)?;
                if matches!(done, Written::Taken) {
                    // as costly as the other way: one row, one transaction
                    db.audit(&[AuditRow { event: "sign_up_taken", ..written }])?;
                }
                Ok(done)
            })
            .await
            .map_err(|error| unavailable(&error))?;
        match done {
            Written::Done(user) => audit::log(&AuditRow { user_id: user.id, ..event }),
            _ => audit::log(&AuditRow { event: "sign_up_taken", ..event }),
        }
        Ok(())
    }

    /// What a link opens; `None`: it is unknown, used, expired or void.
    pub async fn link(&self, token: &str) -> Result<Option<LinkKind>, ChangeError> {
        Ok(self.open_link(token).await?.map(|link| match (link.kind.as_str(), link.user) {
            ("reset", Some(user)) => LinkKind::Reset { email: user.email },
            (_, Some(user)) => LinkKind::Invite { email: Some(user.email) },
            (_, None) => LinkKind::Invite { email: link.email },
        }))
    }

    async fn open_link(&self, token: &str) -> Result<Option<LinkRow>, ChangeError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Ok(None);
        }
        let (hash, now) = (token_hash(token), self.shared.clock.now());
        let link = self.shared.store.run(move |db| db.link(&hash, now)).await.map_err(|error| unavailable(&error))?;
        // invites made before sign-up was closed; those of accounts that exist still work
        let closed = self.shared.settings.sign_up == config::SignUp::Closed;
        Ok(link.filter(|link| !(closed && link.kind == "invite" && link.user.is_none())))
    }

    /// Uses an invite: makes its account, or gives the account that it was made for its first
    /// password; signs in. An e-mail fixed by the invite is used whatever `email` says.
    pub async fn accept_invite(
        &self,
        caller: &Caller,
        token: &str,
        email: &str,
        name: &str,
        password: Secret,
    ) -> Result<SignedIn, ChangeError> {
        let link = self.open_link(token).await?.filter(|link| link.kind != "reset").ok_or(ChangeError::Closed)?;
        let name = email::name(name)?;
        let fixed = link.user.as_ref().map(|user| user.email.clone()).or(link.email);
        let email = match fixed {
            Some(email) => email,
            None => email::email(email)?,
        };
        let hash = self.shared.hashed(&email, password).await?;
        let what = if link.user.is_some() {
            LinkUse::SetPassword(hash, name)
        } else {
            LinkUse::Add(self.shared.new_user(email, name, hash)?)
        };
        self.use_link(caller, token, what, "invite_used").await
    }

    /// Sets a password by a reset link, or by the invite of an account that exists; ends the
    /// account's sessions and signs in.
    pub async fn reset_password(
        &self,
        caller: &Caller,
        token: &str,
        password: Secret,
    ) -> Result<SignedIn, ChangeError> {
        let user = self.open_link(token).await?.and_then(|link| link.user).ok_or(ChangeError::Closed)?;
        let hash = self.shared.hashed(&user.email, password).await?;
        self.use_link(caller, token, LinkUse::SetPassword(hash, String::new()), "password_reset").await
    }

    async fn use_link(
        &self,
        caller: &Caller,
        token: &str,
        what: LinkUse,
        event: &'static str,
    ) -> Result<SignedIn, ChangeError> {
        let shared = &*self.shared;
        let now = shared.clock.now();
        let beginning = shared.beginning(caller, true, false, now)?;
        let event = audit::event(event, caller, now);
        let (hash, row, written) = (token_hash(token), beginning.row.clone(), event.clone());
        let done = shared
            .store
            .run(move |db| db.use_link(&hash, what, &row, now, &written))
            .await
            .map_err(|error| unavailable(&error))?;
        match done {
            Written::Done(user) => {
                audit::log(&AuditRow { user_id: user.id.clone(), email: user.email.clone(), ..event });
                Ok(shared.signed_in(&beginning.row.id, &user.id, beginning.device)?)
            }
            Written::Taken => Err(ChangeError::Field(FieldError {
                field: "email",
                code: "taken",
                message: "There is already an account with this e-mail address.".to_owned(),
            })),
            Written::Missing => Err(ChangeError::Closed),
        }
    }
}
