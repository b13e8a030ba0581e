//! Signing in and out. Unknown, disabled and passwordless accounts cost what a wrong password
//! costs and are answered alike. Attempts are counted before anything is compared.

use super::accounts::{Accounts, Settings, Shared, down};
use super::password::{Place, Verdict};
use super::session::Session;
use super::{Caller, SignInError, SignedIn, StoreDown, audit, email, throttle, token};
use crate::clock::UnixSecs;
use crate::secret::{Secret, random_token, token_hash};
use crate::store::{AuditRow, Begun, Counted, Db, NewSession, StoreError, UserRow, Whose};

/// Longest device cookie that is looked at, bytes; ours have 43.
const DEVICE_BYTES_MAX: usize = 64;

/// An attempt that was let through, and what it is about.
struct Attempt {
    counted: Counted,
    user: Option<UserRow>,
    /// the device cookie is one of ours, so the browser may keep it
    device_is_ours: bool,
}

/// A session in the making and the device cookie that goes with it.
pub(super) struct Beginning {
    pub(super) row: NewSession,
    pub(super) device: Secret,
}

impl Shared {
    /// Prepares a session for the caller.
    pub(super) fn beginning(
        &self,
        caller: &Caller,
        remember: bool,
        keep_device: bool,
        now: UnixSecs,
    ) -> Result<Beginning, StoreDown> {
        let device = match &caller.device {
            Some(device) if keep_device => Secret::new(device.clone()),
            _ => random_token().map_err(|_| StoreDown)?,
        };
        let row = NewSession {
            id: token::new_session_id().map_err(|_| StoreDown)?,
            expires: now.saturating_add(self.settings.max_age_secs),
            remember,
            address: audit::address(caller),
            user_agent: user_agent(caller),
            replaces: caller.session.clone(),
            device: token_hash(device.expose()),
        };
        Ok(Beginning { row, device })
    }
}

/// User-Agent as it may be shown: no control characters, 256 bytes at most.
fn user_agent(caller: &Caller) -> String {
    let mut text: String = caller.user_agent.chars().filter(|c| !c.is_control()).collect();
    let end = (0..=text.len().min(256)).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    text.truncate(end);
    text
}

/// Hash of the presented device cookie, if it can be one of ours.
pub(super) fn presented_device(caller: &Caller) -> Option<[u8; 32]> {
    caller.device.as_ref().filter(|device| device.len() <= DEVICE_BYTES_MAX).map(|device| token_hash(device))
}

fn begin_attempt(
    db: &mut Db,
    settings: &Settings,
    caller: &Caller,
    email: &str,
    now: UnixSecs,
) -> Result<Result<Attempt, u64>, StoreError> {
    let device = presented_device(caller);
    let (mut known, mut ours) = (None, false);
    if let Some(hash) = device {
        ours = db.knows_device(&hash, None)?;
        known = (ours && db.knows_device(&hash, Some(email))?).then_some(hash);
    }
    let limits = throttle::of_sign_in(settings.throttle, caller, email, known.as_ref());
    match db.count_attempt(&limits, now, settings.throttle.find_time.as_secs())? {
        Err(wait) => Ok(Err(wait)),
        Ok(counted) => {
            let user = db.user_by_email(email)?;
            Ok(Ok(Attempt { counted, user, device_is_ours: ours }))
        }
    }
}

impl Accounts {
    /// Signs in with a password. Ends the session that the browser presented.
    ///
    /// # Errors
    /// [`SignInError::Credentials`] for everything that is wrong about the account or the password.
    pub async fn sign_in(
        &self,
        caller: &Caller,
        email: &str,
        password: Secret,
        remember: bool,
    ) -> Result<SignedIn, SignInError> {
        let shared = &*self.shared;
        // load is judged first: whoever is turned away for it has not used up a try
        let place = shared.hasher.place().map_err(|_| SignInError::Busy)?;
        let now = shared.clock.now();
        let email = email::bucket(email);
        let attempt = self.attempt(caller, &email, now).await?;
        let user = attempt.user.filter(|user| !user.disabled);
        let id = user.as_ref().map(|user| user.id.clone()).unwrap_or_default();
        let hash = user.and_then(|user| user.password);
        let verdict = check(&place, password, hash.clone()).await?;
        drop(place);
        let (Verdict::Right(rehashed), Some(checked)) = (verdict, hash) else {
            return Err(self.failed(caller, attempt.counted, &id, &email, now).await);
        };
        let beginning =
            shared.beginning(caller, remember, attempt.device_is_ours, now).map_err(|_| SignInError::Unavailable)?;
        let event = audit::about("sign_in", caller, now, &id, &email);
        let (row, written, counted, user_id) =
            (beginning.row.clone(), event.clone(), attempt.counted.clone(), id.clone());
        let begun = shared
            .store
            .run(move |db| db.begin_session(&user_id, &checked, rehashed, &row, &counted, now, &written))
            .await
            .map_err(|error| unavailable(&error))?;
        match begun {
            Begun::Yes(_) => {
                audit::log(&event);
                shared.signed_in(&beginning.row.id, &id, beginning.device).map_err(|_| SignInError::Unavailable)
            }
            // disabled, removed or given another password in this very moment
            Begun::No => Err(self.failed(caller, attempt.counted, &id, &email, now).await),
        }
    }

    async fn attempt(&self, caller: &Caller, email: &str, now: UnixSecs) -> Result<Attempt, SignInError> {
        let shared = &*self.shared;
        let (settings, from, typed) = (shared.settings.clone(), caller.clone(), email.to_owned());
        let attempt = shared
            .store
            .run(move |db| begin_attempt(db, &settings, &from, &typed, now))
            .await
            .map_err(|error| unavailable(&error))?;
        attempt.map_err(|retry_after_secs| {
            let detail = format!("retry after {retry_after_secs} s");
            audit::log(&AuditRow { detail, ..audit::about("throttled", caller, now, "", email) });
            SignInError::Throttled { retry_after_secs }
        })
    }

    async fn failed(&self, caller: &Caller, counted: Counted, id: &str, email: &str, now: UnixSecs) -> SignInError {
        let event = audit::about("sign_in_failed", caller, now, id, email);
        match self.count_failure(counted, event, now).await {
            Ok(()) => SignInError::Credentials,
            Err(StoreDown) => SignInError::Unavailable,
        }
    }

    /// A counted attempt was wrong: bans what has used up its tries.
    pub(super) async fn count_failure(
        &self,
        counted: Counted,
        event: AuditRow,
        now: UnixSecs,
    ) -> Result<(), StoreDown> {
        let shared = &*self.shared;
        let (find, ban) = (shared.settings.throttle.find_time.as_secs(), shared.settings.throttle.ban_time.as_secs());
        let written = event.clone();
        let banned = shared
            .store
            .run(move |db| db.attempt_failed(&counted, now, find, ban, &written))
            .await
            .map_err(|error| down(&error))?;
        audit::log(&event);
        for name in banned {
            audit::log(&AuditRow { event: "banned", detail: name, ..event.clone() });
        }
        Ok(())
    }

    /// Ends the session.
    pub async fn sign_out(&self, caller: &Caller, session: &Session) -> Result<(), StoreDown> {
        let shared = &*self.shared;
        let now = shared.clock.now();
        let user = session.user.load_full();
        let event = audit::about("sign_out", caller, now, &user.id, &user.email);
        let (id, written) = (session.id.clone(), event.clone());
        shared
            .store
            .run(move |db| db.end_sessions(Whose::Session(&id), now, &written))
            .await
            .map_err(|error| down(&error))?;
        audit::log(&event);
        Ok(())
    }
}

async fn check(place: &Place, password: Secret, hash: Option<Secret>) -> Result<Verdict, SignInError> {
    place.verify(password, hash).await.map_err(|_| SignInError::Busy)
}

fn unavailable(error: &StoreError) -> SignInError {
    let StoreDown = down(error);
    SignInError::Unavailable
}
