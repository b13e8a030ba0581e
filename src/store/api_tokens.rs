//! API tokens: credentials of programs. Only hashes are stored.

use super::audit::{self, AuditRow};
use super::convert::{int, uint};
use super::db::Db;
use super::error::StoreError;
use super::sessions;
use super::sql::{OptionalRow, Row, SqlError, Tx, params};
use super::throttle::{self, CountedAttempt};
use super::user_rows::{self, UserRow};
use crate::clock::UnixSecs;
use crate::secret::Secret;

/// Maximum valid tokens per account.
const TOKENS_MAX: u64 = 100;

/// A token to create.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct NewApiToken {
    pub id: String,
    /// SHA-256 of the token.
    pub hash: [u8; 32],
    pub user_id: String,
    pub name: String,
    /// As typed; empty: unrestricted.
    pub scopes: Vec<String>,
    pub created: UnixSecs,
    pub expires: UnixSecs,
}

/// Proof that the requester is the account's owner.
#[derive(Debug, Clone)]
pub enum TokenProof {
    /// They know the password.
    Password {
        /// The hash it was verified against, which must still be the account's; `None`: it must have none.
        checked: Option<Secret>,
        /// The attempt, to be cleared.
        counted: CountedAttempt,
    },
    /// They have just signed in, and passwords are off.
    RecentSignIn,
}

/// Result of storing a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Kept {
    /// Stored.
    Yes,
    /// A token with this id exists: the form was resubmitted.
    Already,
    /// The account has reached its maximum.
    TooMany,
    /// The account was removed, disabled or given another password concurrently.
    No,
}

/// A token with its account.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct ApiTokenRow {
    pub id: String,
    /// SHA-256 of the token.
    pub hash: Vec<u8>,
    /// `None`: the account was removed.
    pub user: Option<UserRow>,
    pub name: String,
    pub scopes: Vec<String>,
    pub created: UnixSecs,
    pub expires: UnixSecs,
    /// Last request that was written; 0 if none.
    pub seen: UnixSecs,
    /// Revoked.
    pub ended: bool,
}

pub(super) const COLUMNS: &str = "api_token.id, api_token.hash, api_token.name, api_token.scopes, api_token.created, \
     api_token.expires, api_token.seen, api_token.ended_at IS NOT NULL, user.id IS NOT NULL";

/// Reads [`COLUMNS`] followed by the account's columns.
pub(super) fn from_row(row: &Row<'_>) -> Result<ApiTokenRow, SqlError> {
    let scopes: String = row.get(3)?;
    Ok(ApiTokenRow {
        id: row.get(0)?,
        hash: row.get(1)?,
        name: row.get(2)?,
        scopes: scopes.lines().map(str::to_owned).collect(),
        created: uint(row.get(4)?),
        expires: uint(row.get(5)?),
        seen: uint(row.get(6)?),
        ended: row.get(7)?,
        user: if row.get(8)? { Some(user_rows::from_row(row, 9)?) } else { None },
    })
}

/// Revokes an account's tokens created since `since`; returns how many.
pub(super) fn end_of_user(tx: &Tx<'_>, user_id: &str, since: UnixSecs, now: UnixSecs) -> Result<usize, StoreError> {
    let sql = "UPDATE api_token SET ended_at = ?1, rev = ?2 WHERE user_id = ?3 AND ended_at IS NULL AND created >= ?4";
    Ok(tx.execute(sql, params![int(now), tx.rev()?, user_id, int(since)])?)
}

/// Number of valid tokens of an account.
pub(super) fn count(tx: &Tx<'_>, user_id: &str, now: UnixSecs) -> Result<u64, StoreError> {
    let sql = "SELECT count(*) FROM api_token WHERE user_id = ?1 AND ended_at IS NULL AND expires > ?2";
    Ok(tx.query_row(sql, params![user_id, int(now)], |row| row.get(0).map(uint))?)
}

/// Stores a token; with `proof`, only if the proof still holds.
pub fn add_api_token(
    db: &mut Db,
    new: &NewApiToken,
    proof: Option<&TokenProof>,
    event: &AuditRow,
) -> Result<Kept, StoreError> {
    db.write(|tx| {
        let Some(user) = user_rows::by_id(tx, &new.user_id)? else { return Ok(Kept::No) };
        if proof.is_some() && user.disabled {
            return Ok(Kept::No);
        }
        if let Some(TokenProof::Password { checked, counted }) = proof {
            if user.password.as_ref().map(Secret::expose) != checked.as_ref().map(Secret::expose) {
                return Ok(Kept::No);
            }
            throttle::forgive(tx, counted, new.created)?;
        }
        let same = "SELECT EXISTS (SELECT 1 FROM api_token WHERE id = ?1)";
        if tx.query_row(same, params![&new.id], |row| row.get(0))? {
            return Ok(Kept::Already);
        }
        if count(tx, &new.user_id, new.created)? >= TOKENS_MAX {
            return Ok(Kept::TooMany);
        }
        tx.execute(
            "INSERT INTO api_token (id, hash, user_id, name, scopes, created, expires, seen, rev)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, ?8)",
            params![
                new.id,
                new.hash,
                new.user_id,
                new.name,
                new.scopes.join("\n"),
                int(new.created),
                int(new.expires),
                tx.rev()?
            ],
        )?;
        audit::write(tx, event)?;
        Ok(Kept::Yes)
    })
}

/// Tokens valid at `now`, newest first; of one account or all.
pub fn list(db: &mut Db, user_id: Option<&str>, now: UnixSecs) -> Result<Vec<ApiTokenRow>, StoreError> {
    db.read(|tx| {
        let condition = if user_id.is_some() { "user_id = ?2" } else { "?2 IS NULL" };
        let sql = format!(
            "SELECT {COLUMNS}, {} FROM api_token JOIN user ON user.id = api_token.user_id
             WHERE api_token.ended_at IS NULL AND api_token.expires > ?1 AND {condition}
             ORDER BY api_token.created DESC, api_token.id",
            user_rows::COLUMNS
        );
        Ok(tx.query_map(&sql, params![int(now), user_id], from_row)?)
    })
}

/// Revokes a token; with `user_id`, only if it is that account's. `false`: no such token.
pub fn end_api_token(
    db: &mut Db,
    id: &str,
    user_id: Option<&str>,
    now: UnixSecs,
    event: &AuditRow,
) -> Result<bool, StoreError> {
    db.write_end(|tx| {
        let sql = "UPDATE api_token SET ended_at = ?1, rev = ?2
                   WHERE id = ?3 AND ended_at IS NULL AND (?4 IS NULL OR user_id = ?4) RETURNING user_id";
        let of: Option<String> =
            tx.query_row(sql, params![int(now), tx.rev()?, id, user_id], |row| row.get(0)).optional()?;
        let Some(of) = of else { return Ok(false) };
        let email = user_rows::by_id(tx, &of)?.map_or_else(|| event.email.clone(), |user| user.email);
        audit::write(tx, &AuditRow { user_id: of, email, ..event.clone() })?;
        Ok(true)
    })
}

/// Revokes the valid tokens of an account, or of all accounts; returns how many.
pub fn end_api_tokens(
    db: &mut Db,
    user_id: Option<&str>,
    now: UnixSecs,
    event: &AuditRow,
) -> Result<usize, StoreError> {
    db.write_end(|tx| {
        let sql = "UPDATE api_token SET ended_at = ?1, rev = ?2
                   WHERE ended_at IS NULL AND expires > ?1 AND (?3 IS NULL OR user_id = ?3)";
        let ended = tx.execute(sql, params![int(now), tx.rev()?, user_id])?;
        if ended > 0 {
            audit::write(tx, &AuditRow { detail: ended.to_string(), ..event.clone() })?;
        }
        Ok(ended)
    })
}

/// Writes last-seen times of tokens.
pub fn write_tokens_seen(db: &mut Db, seen: &[(String, UnixSecs)]) -> Result<(), StoreError> {
    for some in seen.chunks(sessions::SEEN_AT_ONCE) {
        db.write_excluding(&[], |tx| sessions::write_seen_in(tx, "api_token", some))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{Check, Keeps, NewId, NewUser, Password, SessionEnd, UserChange, Written};
    use super::*;
    use crate::store::purge;
    use crate::store::users;

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    #[test]
    fn a_token_asked_for_with_a_password_that_has_changed_meanwhile_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut db = Db::open(dir.path(), Check::Version).unwrap();
        let event = AuditRow::default();
        let [name, picture] = [const { String::new() }; 2];
        let (email, password) = ("a@example.com".to_owned(), Some(secret("old")));
        let new = NewUser { id: NewId::Next, email, name, picture, groups: vec![], password, email_proved: false };
        assert!(matches!(users::add_user(&mut db, &new, 1, &event).unwrap(), Written::Done(_)));
        let mut number = 0;
        let mut keep = |db: &mut Db, checked: Option<&str>| {
            number += 1;
            let new = NewApiToken {
                id: number.to_string(),
                hash: [number; 32],
                user_id: "1".to_owned(),
                name: "x".to_owned(),
                scopes: vec![],
                created: 1,
                expires: 99,
            };
            let counted = CountedAttempt::default();
            let proof = checked.map(|hash| TokenProof::Password { checked: Some(secret(hash)), counted });
            add_api_token(db, &new, proof.as_ref(), &event).unwrap()
        };
        assert_eq!(keep(&mut db, Some("old")), Kept::Yes);
        let password =
            Some(Password { new: secret("new"), only_over: None, keeps: Keeps { tokens: true, device: None } });
        let what = UserChange { password, ..UserChange::default() };
        assert!(matches!(
            users::change_user(&mut db, "1", &what, SessionEnd::None, 1, &event).unwrap(),
            Written::Done(_)
        ));
        assert_eq!([Some("old"), Some("new"), None].map(|hash| keep(&mut db, hash)), [Kept::No, Kept::Yes, Kept::Yes]);
        let what = UserChange { disabled: Some(true), ..UserChange::default() };
        assert!(matches!(
            users::change_user(&mut db, "1", &what, SessionEnd::None, 1, &event).unwrap(),
            Written::Done(_)
        ));
        assert_eq!(keep(&mut db, Some("new")), Kept::No);
        assert!(users::remove_user(&mut db, "1", 1, &event).unwrap());
        assert_eq!(keep(&mut db, None), Kept::No);
        assert_eq!(list(&mut db, None, 1).unwrap().len(), 0);
    }

    /// CWE-770: as sessions do; a day of making and revoking them left millions of rows.
    #[test]
    fn a_token_that_ended_is_gone_after_an_hour_and_one_that_works_stays() {
        let dir = tempfile::tempdir().unwrap();
        let mut db = Db::open(dir.path(), Check::Version).unwrap();
        let event = AuditRow::default();
        let [name, picture] = [const { String::new() }; 2];
        let email = "a@example.com".to_owned();
        let new =
            NewUser { id: NewId::Next, email, name, picture, groups: vec![], password: None, email_proved: false };
        assert!(matches!(users::add_user(&mut db, &new, 1, &event).unwrap(), Written::Done(_)));
        for (id, hash) in [("ended", [1; 32]), ("works", [2; 32])] {
            let [id, user_id, name] = [id, "1", "x"].map(str::to_owned);
            let new = NewApiToken { id, hash, user_id, name, scopes: vec![], created: 1, expires: 100_000 };
            assert_eq!(add_api_token(&mut db, &new, None, &event).unwrap(), Kept::Yes);
        }
        assert!(end_api_token(&mut db, "ended", None, 100, &event).unwrap());
        let rows = |db: &Db| -> i64 {
            db.connection().query_row("SELECT count(*) FROM api_token", [], |row| row.get(0)).unwrap()
        };
        purge::expired_rows(&mut db, 3700, 60).unwrap();
        assert_eq!(rows(&db), 2);
        purge::expired_rows(&mut db, 3701, 60).unwrap();
        assert_eq!((rows(&db), list(&mut db, None, 3701).unwrap().len()), (1, 1));
    }
}
