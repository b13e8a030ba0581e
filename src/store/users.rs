//! Accounts: create, change, remove, look up.

use super::audit::{self, AuditRow};
use super::convert::{int, uint};
use super::db::Db;
use super::error::StoreError;
use super::link_rows::{self, NewLink};
use super::sessions::{self, SessionEnd};
use super::sql::{Row, Tx, params};
use super::throttle::{self, CountedAttempt, Limit, Throttled};
use super::user_rows::{COLUMNS, UserRow, by_email, by_id, exist, from_row};
use super::{api_tokens, devices};
use crate::clock::UnixSecs;
use crate::secret::Secret;

/// How a new account gets its id.
#[derive(Debug, Clone)]
pub enum NewId {
    /// Decimal, higher than every id ever seen.
    Next,
    /// The given id.
    Given(String),
}

/// An account to create.
#[derive(Debug, Clone)]
pub struct NewUser {
    /// Its id.
    pub id: NewId,
    /// Canonical e-mail.
    pub email: String,
    /// May be empty.
    pub name: String,
    /// May be empty.
    pub picture: String,
    /// Sorted, no duplicates.
    pub groups: Vec<String>,
    /// PHC string.
    pub password: Option<Secret>,
    /// Its owner showed that the address is theirs, or an administrator set it.
    pub email_proved: bool,
}

/// What to change; `None` leaves a field unchanged.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct UserChange {
    /// Canonical e-mail.
    pub email: Option<String>,
    pub name: Option<String>,
    pub picture: Option<String>,
    pub groups: Option<Vec<String>>,
    pub password: Option<Password>,
    pub disabled: Option<bool>,
    /// The successful attempt, to be cleared in the same transaction.
    pub proved: CountedAttempt,
}

/// A new password.
#[derive(Debug, Clone)]
pub struct Password {
    /// PHC string.
    pub new: Secret,
    /// Only if this is still the current hash: a concurrent change must not be undone.
    pub only_over: Option<Secret>,
    /// What stays valid under it.
    pub keeps: Keeps,
}

/// What stays valid under a new password. Everything else ends, because whoever knew the old password may have
/// created it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Keeps {
    /// API tokens created under the previous password.
    pub tokens: bool,
    /// The browser with this device cookie (SHA-256) stays known.
    pub device: Option<[u8; 32]>,
}

/// Result of a write to an account.
#[derive(Debug, Clone)]
#[must_use]
pub enum Written {
    /// Done; the account as it is now.
    Done(Box<UserRow>),
    /// Another account has this e-mail.
    Taken,
    /// No such account, or it changed concurrently.
    Missing,
}

pub(super) fn add(tx: &Tx<'_>, new: &NewUser, now: UnixSecs) -> Result<Written, StoreError> {
    if by_email(tx, &new.email)?.is_some() {
        return Ok(Written::Taken);
    }
    let id = match &new.id {
        NewId::Next => next_id(tx)?,
        NewId::Given(id) => id.clone(),
    };
    tx.execute(
        "INSERT INTO user (id, email, name, picture, groups, password, created, rev, password_set, email_proved)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, CASE WHEN ?6 IS NULL THEN 0 ELSE ?7 END, ?9)",
        params![
            id,
            new.email,
            new.name,
            new.picture,
            new.groups.join(","),
            new.password.as_ref().map(Secret::expose),
            int(now),
            tx.rev()?,
            new.email_proved
        ],
    )?;
    link_rows::void(tx, &new.email, &new.groups)?;
    if let Ok(number) = id.parse() {
        // a given decimal id counts as seen
        raise_ids(tx, number)?;
    }
    by_id(tx, &id).map(|row| row.map_or(Written::Missing, |row| Written::Done(Box::new(row))))
}

fn next_id(tx: &Tx<'_>) -> Result<String, StoreError> {
    let id: i64 = tx.query_row(
        "UPDATE counter SET value = value + 1 WHERE name = 'user_id' RETURNING value",
        params![],
        |row| row.get(0),
    )?;
    Ok(id.to_string())
}

/// Makes new ids higher than this number. Ignored from 2^53 on, where programs that read ids as numbers could not
/// distinguish them (RFC 8259, 6).
pub(super) fn raise_ids(tx: &Tx<'_>, number: u64) -> Result<(), StoreError> {
    if number < 1 << 53 {
        tx.execute("UPDATE counter SET value = ?1 WHERE name = 'user_id' AND value < ?1", params![int(number)])?;
    }
    Ok(())
}

pub(super) fn change(tx: &Tx<'_>, id: &str, change: &UserChange) -> Result<Written, StoreError> {
    let Some(old) = by_id(tx, id)? else { return Ok(Written::Missing) };
    if let Some(Password { only_over: Some(expected), .. }) = &change.password
        && old.password.as_ref().map(Secret::expose) != Some(expected.expose())
    {
        return Ok(Written::Missing);
    }
    let email = change.email.as_ref().unwrap_or(&old.email);
    if by_email(tx, email)?.is_some_and(|other| other.id != id) {
        return Ok(Written::Taken);
    }
    let password = change.password.as_ref().map(|password| &password.new).or(old.password.as_ref());
    tx.execute(
        "UPDATE user SET name = ?2, picture = ?3, groups = ?4, password = ?5, disabled = ?6, rev = ?7, email = ?8,
             email_proved = CASE WHEN ?9 = 1 THEN 1 ELSE email_proved END WHERE id = ?1",
        params![
            id,
            change.name.as_ref().unwrap_or(&old.name),
            change.picture.as_ref().unwrap_or(&old.picture),
            change.groups.as_ref().unwrap_or(&old.groups).join(","),
            password.map(Secret::expose),
            change.disabled.unwrap_or(old.disabled),
            tx.rev()?,
            email,
            // only administrators change it
            change.email.is_some()
        ],
    )?;
    link_rows::void(tx, change.email.as_deref().unwrap_or_default(), change.groups.as_deref().unwrap_or_default())?;
    by_id(tx, id).map(|row| row.map_or(Written::Missing, |row| Written::Done(Box::new(row))))
}

/// Ends what the previous password created: API tokens, and known browsers. The tokens of an account without a
/// password were created by commands, and stay.
pub(super) fn password_replaced(
    tx: &Tx<'_>,
    before: &UserRow,
    keeps: Keeps,
    now: UnixSecs,
    event: &AuditRow,
) -> Result<(), StoreError> {
    let id = &before.id;
    devices::forget(tx, id, keeps.device.as_ref())?;
    let set = |row: &Row<'_>| row.get(0).map(uint);
    let since = tx.query_row("SELECT password_set FROM user WHERE id = ?1", params![id], set)?;
    tx.execute("UPDATE user SET password_set = ?2 WHERE id = ?1", params![id, int(now)])?;
    let keep = keeps.tokens || before.password.is_none();
    let ended = if keep { 0 } else { api_tokens::end_of_user(tx, id, since, now)? };
    if ended > 0 {
        let (user_id, detail) = (id.clone(), format!("{ended} for the new password"));
        audit::write(tx, &AuditRow { event: "tokens_revoked", user_id, detail, ..event.clone() })?;
    }
    Ok(())
}

/// Creates an account.
pub fn add_user(db: &mut Db, new: &NewUser, now: UnixSecs, event: &AuditRow) -> Result<Written, StoreError> {
    db.write(|tx| {
        let written = add(tx, new, now)?;
        if let Written::Done(row) = &written {
            audit::write(tx, &AuditRow { user_id: row.id.clone(), ..event.clone() })?;
        }
        Ok(written)
    })
}

/// Creates an account and the link that sets its password; `link` lacks only the account's id.
pub fn add_invited_user(
    db: &mut Db,
    new: &NewUser,
    link: &NewLink,
    now: UnixSecs,
    events: (&AuditRow, &AuditRow),
) -> Result<Written, StoreError> {
    db.write(|tx| {
        let written = add(tx, new, now)?;
        if let Written::Done(row) = &written {
            let user_id = row.id.clone();
            audit::write(tx, &AuditRow { user_id: user_id.clone(), ..events.0.clone() })?;
            audit::write(tx, &AuditRow { user_id: user_id.clone(), ..events.1.clone() })?;
            link_rows::insert(tx, &NewLink { user_id: Some(user_id), ..link.clone() })?;
        }
        Ok(written)
    })
}

/// Creates an account at sign-up. The attempt counts, and takes as long, whether the address is free or taken. Also
/// returns the event and the names of new bans.
pub fn sign_up(
    db: &mut Db,
    new: &NewUser,
    counted: &CountedAttempt,
    now: UnixSecs,
    event: &AuditRow,
) -> Result<(AuditRow, Vec<String>), StoreError> {
    db.write(|tx| {
        let event = match add(tx, new, now)? {
            Written::Done(row) => AuditRow { user_id: row.id, ..event.clone() },
            _ => AuditRow { event: "sign_up_taken", ..event.clone() },
        };
        audit::write(tx, &event)?;
        let banned = throttle::failed(tx, counted, now, &event)?;
        Ok((event, banned))
    })
}

/// Changes an account and, in the same transaction, ends sessions of it and clears the attempt that authenticated the
/// change. Links that would set a password become void with a new password, a new e-mail (they were sent to the
/// previous one), or when the account is disabled; enabling it does not restore them.
pub fn change_user(
    db: &mut Db,
    id: &str,
    what: &UserChange,
    ends: SessionEnd<'_>,
    now: UnixSecs,
    event: &AuditRow,
) -> Result<Written, StoreError> {
    db.write_end_of_sessions(|tx| {
        throttle::forgive(tx, &what.proved, now)?;
        let before = by_id(tx, id)?;
        let written = change(tx, id, what)?;
        if let Written::Done(row) = &written {
            sessions::end_of_user(tx, id, ends, now)?;
            if what.password.is_some() || what.email.is_some() || what.disabled == Some(true) {
                tx.execute("DELETE FROM link WHERE user_id = ?1", params![id])?;
            }
            if let (Some(password), Some(before)) = (&what.password, &before) {
                password_replaced(tx, before, password.keeps, now, event)?;
            }
            audit::write(tx, &AuditRow { user_id: row.id.clone(), ..event.clone() })?;
        }
        Ok(written)
    })
}

/// A rate-limited change, which is counted. `Err`: it must wait.
pub fn change_user_counted(
    db: &mut Db,
    id: &str,
    what: &UserChange,
    limits: &[Limit],
    event: &AuditRow,
) -> Result<Result<Written, Throttled>, StoreError> {
    db.write(|tx| {
        if let Err(held) = throttle::count(tx, limits, id, event.at)? {
            return Ok(Err(held));
        }
        let written = change(tx, id, what)?;
        if matches!(written, Written::Done(_)) {
            audit::write(tx, event)?;
        }
        Ok(Ok(written))
    })
}

/// Removes an account; its sessions end in the same transaction. `false`: no such account.
pub fn remove_user(db: &mut Db, id: &str, now: UnixSecs, event: &AuditRow) -> Result<bool, StoreError> {
    db.write_end(|tx| {
        sessions::end_of_user(tx, id, SessionEnd::All, now)?;
        api_tokens::end_of_user(tx, id, 0, now)?;
        // links sent to this address must not work for its next owner
        tx.execute("DELETE FROM link WHERE email = (SELECT email FROM user WHERE id = ?1)", params![id])?;
        let removed = tx.execute("DELETE FROM user WHERE id = ?1", params![id])? > 0;
        if removed {
            audit::write(tx, event)?;
        }
        Ok(removed)
    })
}

/// The account with this canonical e-mail.
pub fn user_by_email(db: &mut Db, email: &str) -> Result<Option<UserRow>, StoreError> {
    db.read(|tx| by_email(tx, email))
}

/// The account with this id.
pub fn user_by_id(db: &mut Db, id: &str) -> Result<Option<UserRow>, StoreError> {
    db.read(|tx| by_id(tx, id))
}

/// All accounts, by e-mail.
pub fn list(db: &mut Db) -> Result<Vec<UserRow>, StoreError> {
    db.read(|tx| {
        Ok(tx.query_map(&format!("SELECT {COLUMNS} FROM user ORDER BY email"), params![], |row| from_row(row, 0))?)
    })
}

/// Whether any account exists.
pub fn any_user(db: &mut Db) -> Result<bool, StoreError> {
    db.read(exist)
}

#[cfg(test)]
mod tests {
    use super::super::Check;
    use super::*;

    fn new(email: &str) -> NewUser {
        NewUser {
            id: NewId::Next,
            email: email.to_owned(),
            name: String::new(),
            picture: String::new(),
            groups: vec!["a".to_owned(), "b".to_owned()],
            email_proved: false,
            password: Some(Secret::new("one".to_owned())),
        }
    }

    fn done(written: Written) -> UserRow {
        match written {
            Written::Done(row) => *row,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn ids_are_decimal_and_never_used_twice() {
        let dir = tempfile::tempdir().unwrap();
        let mut db = Db::open(dir.path(), Check::Version).unwrap();
        let event = AuditRow::default();
        assert_eq!(done(add_user(&mut db, &new("a@example.com"), 1, &event).unwrap()).id, "1");
        assert!(remove_user(&mut db, "1", 2, &event).unwrap());
        assert!(!remove_user(&mut db, "1", 2, &event).unwrap());
        assert_eq!(done(add_user(&mut db, &new("a@example.com"), 3, &event).unwrap()).id, "2");
        let given = NewUser { id: NewId::Given("41".to_owned()), ..new("b@example.com") };
        assert_eq!(done(add_user(&mut db, &given, 3, &event).unwrap()).id, "41");
        assert_eq!(done(add_user(&mut db, &new("c@example.com"), 3, &event).unwrap()).id, "42");
    }

    #[test]
    fn an_email_is_taken_without_regard_to_case() {
        let dir = tempfile::tempdir().unwrap();
        let mut db = Db::open(dir.path(), Check::Version).unwrap();
        let event = AuditRow::default();
        let _ = done(add_user(&mut db, &new("a@example.com"), 1, &event).unwrap());
        assert!(matches!(add_user(&mut db, &new("A@example.com"), 1, &event).unwrap(), Written::Taken));
        assert_eq!(list(&mut db).unwrap().len(), 1);
    }

    #[test]
    fn a_password_is_replaced_only_over_the_one_that_was_checked() {
        let dir = tempfile::tempdir().unwrap();
        let mut db = Db::open(dir.path(), Check::Version).unwrap();
        let event = AuditRow::default();
        let user = done(add_user(&mut db, &new("a@example.com"), 1, &event).unwrap());
        let over = |old: &str, new: &str| UserChange {
            password: Some(Password {
                new: Secret::new(new.to_owned()),
                only_over: Some(Secret::new(old.to_owned())),
                keeps: Keeps::default(),
            }),
            ..UserChange::default()
        };
        let row = done(change_user(&mut db, &user.id, &over("one", "two"), SessionEnd::None, 2, &event).unwrap());
        assert_eq!(row.password.unwrap().expose(), "two");
        let late = change_user(&mut db, &user.id, &over("one", "three"), SessionEnd::None, 2, &event).unwrap();
        assert!(matches!(late, Written::Missing));
        assert_eq!(row.groups, ["a", "b"]);
    }
}
