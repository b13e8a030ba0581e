//! Sign-ins: the gate that every session comes through, and the way of a verified password to it.

use super::audit::{self, AuditRow};
use super::db::Db;
use super::error::StoreError;
use super::sessions::{self, NewSession, SESSIONS_MAX};
use super::sql::Tx;
use super::throttle::{self, CountedAttempt};
use super::user_rows::{self, UserRow};
use super::users::{self, Keeps, Password, UserChange};
use crate::clock::UnixSecs;
use crate::secret::Secret;

/// A verified password, and the session to begin.
#[derive(Debug, Clone)]
pub struct SignIn {
    /// The account.
    pub user_id: String,
    /// The hash that the password was verified against: must still be the account's.
    pub checked: Secret,
    /// Its replacement, if its parameters are outdated.
    pub rehashed: Option<Secret>,
    /// The session.
    pub session: NewSession,
    /// The attempt, to be cleared.
    pub counted: CountedAttempt,
}

/// Result of a sign-in.
#[derive(Debug, Clone)]
#[must_use]
pub enum Begun {
    /// The session has begun; with the event for sessions that ended because there were too many.
    Yes(Option<AuditRow>),
    /// The account's hash has changed: this is the current one.
    Changed(Secret),
    /// The account was removed or disabled, or has no password any more.
    No,
}

/// The one gate: every session begins here, whatever the credential was. Ends the session that the browser presented and
/// those beyond [`SESSIONS_MAX`]; gives the event for the latter. The account must not be disabled.
pub(super) fn begin(
    tx: &Tx<'_>,
    user: &UserRow,
    session: &NewSession,
    now: UnixSecs,
    event: &AuditRow,
) -> Result<Option<AuditRow>, StoreError> {
    if user.disabled {
        return Err(StoreError::Down("a disabled account has no sessions".to_owned()));
    }
    sessions::insert(tx, &user.id, session, now)?;
    audit::write(tx, event)?;
    let ended = match sessions::end_beyond_bound(tx, &user.id, &session.id, now)? {
        0 => None,
        ended => Some(AuditRow {
            event: "sessions_ended",
            detail: format!("{ended} beyond {SESSIONS_MAX}"),
            ..event.clone()
        }),
    };
    ended.iter().try_for_each(|event| audit::write(tx, event))?;
    Ok(ended)
}

/// Begins a session after the password was verified: in one transaction the session that the browser presented ends,
/// the new one begins, the attempts are cleared, the device is remembered, an outdated hash is replaced, and sessions
/// beyond [`SESSIONS_MAX`] end.
pub fn begin_session(db: &mut Db, begins: &SignIn, now: UnixSecs, event: &AuditRow) -> Result<Begun, StoreError> {
    // what it decides by is the account's, and its counters
    let account = format!("sign_in:{}", begins.user_id);
    let keys: Vec<&str> = begins.counted.names().into_iter().chain([account.as_str()]).collect();
    db.write_excluding(&keys, |tx| {
        let user = user_rows::by_id(tx, &begins.user_id)?.filter(|user| !user.disabled);
        let Some(user) = user else { return Ok(Begun::No) };
        let Some(hash) = &user.password else { return Ok(Begun::No) };
        if hash.expose() != begins.checked.expose() {
            return Ok(Begun::Changed(hash.clone()));
        }
        if let Some(hash) = &begins.rehashed {
            // same password, new hash: nothing ends
            let password = Some(Password { new: hash.clone(), only_over: None, keeps: Keeps::default() });
            let _ = users::change(tx, &user.id, &UserChange { password, ..UserChange::default() })?;
        }
        throttle::forgive(tx, &begins.counted, now)?;
        Ok(Begun::Yes(begin(tx, &user, &begins.session, now, event)?))
    })
}
