//! [`Admin`], the accounts as commands use them. Blocking. The same rules apply as in a browser.

use crate::account::audit;
use crate::account::caller::Caller;
use crate::account::errors::{AdminError, printable};
use crate::account::fields;
use crate::account::ids::new_id;
use crate::account::one_time_link;
use crate::account::password::policy;
use crate::account::secrets_at_rest::Source;
use crate::account::settings::Settings;
use crate::clock::{Clock, UnixSecs};
use crate::config::{Config, StoreConfig, StoreUrl};
use crate::secret::{Secret, token_hash};
use crate::store::{
    self, Applied, AuditEvent, AuditRow, Check, Db, Import, Keeps, Migrated, NewId, NewUser, Password, SessionEnd,
    SessionRow, SessionSelector, UserChange, UserRow, Written,
};

/// Lifetime of the invite for a newly added account, seconds.
const INVITE_SECS: u64 = 7 * 86_400;
/// Lifetime of a password-reset link, seconds.
const RESET_SECS: u64 = 86_400;

/// Account fields given to a command; `None` leaves a field unchanged, or empty in a new account.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct Details {
    /// A new e-mail for the account.
    pub email: Option<String>,
    pub name: Option<String>,
    pub picture: Option<String>,
    pub groups: Option<Vec<String>>,
    pub password: Option<Secret>,
    /// Keep API tokens when the password changes.
    pub keep_tokens: bool,
}

/// The canonical form of an e-mail that an account may have.
fn canonical(typed: &str) -> Result<String, AdminError> {
    fields::canonical(typed).ok_or_else(|| no_address(typed))
}

/// The canonical form of an e-mail that a new account may have.
pub(crate) fn canonical_new(typed: &str) -> Result<String, AdminError> {
    canonical(typed).and_then(|_| fields::email(typed).map_err(AdminError::from))
}

fn no_address(typed: &str) -> AdminError {
    AdminError(format!("`{}` is not a valid e-mail address", printable(typed)))
}

pub(crate) fn taken(email: &str) -> AdminError {
    AdminError(format!("an account with the e-mail {email} already exists"))
}

/// What the connections of commands are called on a shared database.
const COMMAND: &str = "command";

/// Where a shared database is, if the configuration could be read.
fn readable(shared: &StoreConfig) -> Result<&StoreUrl, AdminError> {
    match &shared.unreadable {
        Some(why) => Err(AdminError(why.clone())),
        None => Ok(&shared.url),
    }
}

/// The accounts as commands use them.
pub struct Admin {
    pub(crate) db: Db,
    pub(crate) settings: Settings,
    pub(crate) clock: Clock,
    /// where the sealing key is
    pub(crate) sealing_key: Source,
    /// public URL and prefix, in front of `/invite/...`
    links: String,
}

impl Admin {
    /// Opens the store: the database that `[store] url` names, or the one in `server.state_dir`, which is created if
    /// missing.
    pub fn open(config: &Config, clock: Clock) -> Result<Self, AdminError> {
        let db = match &config.store {
            None => Db::open(&config.server.state_dir, Check::Version)?,
            Some(shared) => Db::open_shared(readable(shared)?, COMMAND)?,
        };
        Self::new(db, config, clock)
    }

    /// The migration that opening performed, if any.
    pub fn migrated(&self) -> Option<&Migrated> {
        self.db.migrated()
    }

    /// Opens the store read-only; creates and changes nothing.
    pub fn open_read_only(config: &Config, clock: Clock) -> Result<Self, AdminError> {
        let db = match &config.store {
            None => Db::look(&config.server.state_dir)?,
            Some(shared) => Db::look_shared(readable(shared)?, COMMAND)?,
        };
        Self::new(db, config, clock)
    }

    fn new(db: Db, config: &Config, clock: Clock) -> Result<Self, AdminError> {
        let links = format!("{}{}", config.server.public_url, config.server.prefix);
        let sealing_key = Source::of(&db, config).map_err(AdminError)?;
        Ok(Self { db, settings: Settings::new(config), clock, sealing_key, links })
    }

    /// Waits until the running gateways have applied the changes. `None`: they have, or none is running. A text says
    /// which did not confirm it within 2 seconds.
    pub fn wait_until_applied(&mut self) -> Option<String> {
        match self.db.wait_until_applied() {
            Ok(Applied::Yes | Applied::NotServed) => None,
            Ok(Applied::Partly(which)) => Some(which),
            Ok(Applied::NotYet) | Err(_) => {
                Some("the running gateway has not confirmed the change within 2 seconds".to_owned())
            }
        }
    }

    /// Whether revocations were applied but can only be stored once the disk has room.
    pub fn has_noted_ends(&self) -> bool {
        self.db.has_noted_ends()
    }

    /// Whether people sign in with passwords.
    pub fn has_passwords(&self) -> bool {
        self.settings.password.enabled
    }

    /// Unix seconds.
    pub fn now(&self) -> UnixSecs {
        self.clock.now()
    }

    pub(crate) fn event(&self, name: &'static str, user: Option<&UserRow>) -> AuditRow {
        let (id, email) = user.map_or(("", ""), |user| (user.id.as_str(), user.email.as_str()));
        audit::about(name, &Caller::default(), self.clock.now(), id, email)
    }

    fn hashed(&self, email: &str, password: Option<&Secret>) -> Result<Option<Secret>, AdminError> {
        let rules = &self.settings.password;
        password
            .map(|password| policy::hash_checked(rules, &self.settings.title, email, password).map_err(AdminError))
            .transpose()
    }

    /// The account with this e-mail, in any spelling.
    pub fn user(&mut self, typed: &str) -> Result<UserRow, AdminError> {
        let email = canonical(typed)?;
        store::users::user_by_email(&mut self.db, &email)?
            .ok_or_else(|| AdminError(format!("no account with the e-mail {email}")))
    }

    /// All accounts, by e-mail.
    pub fn users(&mut self) -> Result<Vec<UserRow>, AdminError> {
        Ok(store::users::list(&mut self.db)?)
    }

    /// Creates an account. Without a password, also a one-time link that sets one.
    pub fn add_user(&mut self, typed: &str, details: Details) -> Result<(UserRow, Option<Secret>), AdminError> {
        let email = canonical_new(typed)?;
        let new = NewUser {
            id: new_id(self.settings.user_ids, &self.clock)?,
            name: fields::name(&details.name.unwrap_or_default())?,
            picture: fields::picture(&details.picture.unwrap_or_default())?,
            groups: fields::groups(&details.groups.unwrap_or_default())?,
            password: self.hashed(&email, details.password.as_ref())?,
            email,
            // an administrator's word
            email_proved: true,
        };
        let event = |name| AuditRow { email: new.email.clone(), ..self.event(name, None) };
        let (added, invited, now) = (event("user_added"), event("invite_made"), self.clock.now());
        if new.password.is_some() {
            return match store::users::add_user(&mut self.db, &new, now, &added)? {
                Written::Done(user) => Ok((*user, None)),
                _ => Err(taken(&new.email)),
            };
        }
        let (link, token) = one_time_link::invite(now, INVITE_SECS, Vec::new(), None, None)?;
        match store::users::add_invited_user(&mut self.db, &new, &link, now, (&added, &invited))? {
            Written::Done(user) => Ok((*user, Some(self.url("invite", &token)))),
            _ => Err(taken(&new.email)),
        }
    }

    /// Changes the given fields. A new password ends the account's sessions and, unless kept, its API tokens.
    pub fn set_user(&mut self, typed: &str, details: Details) -> Result<UserRow, AdminError> {
        let user = self.user(typed)?;
        let email = details.email.map(|typed| canonical_new(&typed)).transpose()?;
        let hash = self.hashed(email.as_ref().unwrap_or(&user.email), details.password.as_ref())?;
        let ends = if hash.is_some() { SessionEnd::All } else { SessionEnd::None };
        let keeps = Keeps { tokens: details.keep_tokens, device: None };
        let what = UserChange {
            email,
            name: details.name.map(|name| fields::name(&name)).transpose()?,
            picture: details.picture.map(|picture| fields::picture(&picture)).transpose()?,
            groups: details.groups.map(|groups| fields::groups(&groups)).transpose()?,
            password: hash.map(|new| Password { new, only_over: None, keeps }),
            ..UserChange::default()
        };
        self.change(&user, &what, ends, "user_changed")
    }

    /// Disables an account, which ends its sessions, or enables it again.
    pub fn set_disabled(&mut self, typed: &str, disabled: bool) -> Result<UserRow, AdminError> {
        let user = self.user(typed)?;
        let what = UserChange { disabled: Some(disabled), ..UserChange::default() };
        if disabled {
            self.change(&user, &what, SessionEnd::All, "user_disabled")
        } else {
            self.change(&user, &what, SessionEnd::None, "user_enabled")
        }
    }

    fn change(
        &mut self,
        user: &UserRow,
        what: &UserChange,
        ends: SessionEnd<'_>,
        event: &'static str,
    ) -> Result<UserRow, AdminError> {
        let detail = what.email.as_ref().map(|email| format!("now {email}")).unwrap_or_default();
        let event = AuditRow { detail, ..self.event(event, Some(user)) };
        match store::users::change_user(&mut self.db, &user.id, what, ends, self.clock.now(), &event)? {
            Written::Done(user) => Ok(*user),
            Written::Taken => Err(taken(what.email.as_deref().unwrap_or_default())),
            Written::Missing => Err(AdminError(format!("the account {} has since been removed", user.email))),
        }
    }

    /// Removes an account; its sessions end.
    pub fn remove_user(&mut self, typed: &str) -> Result<UserRow, AdminError> {
        let user = self.user(typed)?;
        let event = self.event("user_removed", Some(&user));
        store::users::remove_user(&mut self.db, &user.id, self.clock.now(), &event)?;
        Ok(user)
    }

    /// A one-time link that sets a new password; the old one works until then. Without passwords it adds a sign-in through
    /// a provider.
    pub fn reset_link(&mut self, typed: &str) -> Result<Secret, AdminError> {
        let user = self.user(typed)?;
        if user.disabled {
            return Err(AdminError(format!("the account {} is disabled; enable it first", user.email)));
        }
        let (now, id) = (self.clock.now(), user.id.clone());
        let (page, (link, token)) = if self.has_passwords() {
            ("reset", one_time_link::reset(now, RESET_SECS, id)?)
        } else {
            ("invite", one_time_link::invite(now, RESET_SECS, Vec::new(), None, Some(id))?)
        };
        let event = self.event("reset_made", Some(&user));
        store::links::add_link(&mut self.db, &link, &event)?;
        Ok(self.url(page, &token))
    }

    /// Withdraws a link that could not be displayed, given as its URL.
    pub fn withdraw_link(&mut self, url: &Secret) -> Result<(), AdminError> {
        let token = url.expose().rsplit('/').next().unwrap_or_default();
        let event = self.event("link_withdrawn", None);
        Ok(store::links::remove_link(&mut self.db, &token_hash(token), &event)?)
    }

    pub(crate) fn url(&self, page: &str, token: &Secret) -> Secret {
        Secret::new(format!("{}/{page}/{}", self.links, token.expose()))
    }

    /// Active sessions, newest first; of one account or all.
    pub fn sessions(&mut self, of: Option<&str>) -> Result<Vec<SessionRow>, AdminError> {
        let user = of.map(|typed| self.user(typed)).transpose()?;
        let (now, idle, max_age) = (self.clock.now(), self.settings.idle_secs, self.settings.max_age_secs);
        let mut rows = store::sessions::list(&mut self.db, user.as_ref().map(|user| user.id.as_str()), now)?;
        for row in &mut rows {
            // started under a longer limit
            row.expires = row.expires.min(row.created.saturating_add(max_age));
        }
        rows.retain(|row| now < row.expires && now.saturating_sub(row.seen) <= idle);
        Ok(rows)
    }

    /// Ends one session.
    pub fn revoke_session(&mut self, id: &str) -> Result<(), AdminError> {
        let missing = || AdminError(format!("no active session `{}`", printable(id)));
        let email = store::sessions::session_email(&mut self.db, id)?.ok_or_else(missing)?;
        let user = store::users::user_by_email(&mut self.db, &email)?;
        let event = AuditRow { detail: id.to_owned(), ..self.event("session_ended", user.as_ref()) };
        if store::sessions::end_sessions(&mut self.db, SessionSelector::Session(id), self.clock.now(), &event)? == 0 {
            return Err(missing());
        }
        Ok(())
    }

    /// Ends all sessions of an account, or of all accounts; returns how many.
    pub fn revoke_sessions(&mut self, of: Option<&str>) -> Result<usize, AdminError> {
        let user = of.map(|typed| self.user(typed)).transpose()?;
        let event = self.event("sessions_ended", user.as_ref());
        let selector = user.as_ref().map_or(SessionSelector::Everybody, |user| SessionSelector::User(&user.id));
        Ok(store::sessions::end_sessions(&mut self.db, selector, self.clock.now(), &event)?)
    }

    /// Audit events of the last `since_secs`, newest first; with an e-mail, those about that e-mail (its account may
    /// be gone) or about the account that has it now.
    pub fn events(&mut self, of: Option<&str>, since_secs: u64) -> Result<Vec<AuditEvent>, AdminError> {
        let email = of.map(canonical).transpose()?;
        Ok(store::audit::events(&mut self.db, email.as_deref(), self.clock.now().saturating_sub(since_secs))?)
    }
}

/// Queries and writes for [`import`](super::import).
impl Admin {
    pub(crate) fn has_email(&mut self, email: &str) -> Result<bool, AdminError> {
        Ok(store::users::user_by_email(&mut self.db, email)?.is_some())
    }

    pub(crate) fn has_id(&mut self, id: &str) -> Result<bool, AdminError> {
        Ok(store::users::user_by_id(&mut self.db, id)?.is_some())
    }

    pub(crate) fn new_id(&self) -> Result<NewId, AdminError> {
        Ok(new_id(self.settings.user_ids, &self.clock)?)
    }

    pub(crate) fn argon2(&self) -> crate::config::Argon2 {
        self.settings.password.argon2
    }

    pub(crate) fn write_import(&mut self, what: &Import) -> Result<(), AdminError> {
        let detail = format!("{} accounts", what.users.len());
        let event = AuditRow { detail, ..self.event("users_imported", None) };
        Ok(store::imports::import(&mut self.db, what, self.clock.now(), &event)?)
    }
}
