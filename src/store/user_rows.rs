//! Accounts as rows: reading only.

use rusqlite::{Connection, OptionalExtension, Row};

use super::convert::uint;
use super::error::StoreError;
use crate::clock::UnixSecs;
use crate::secret::Secret;

/// The group of administrators: the first link creates one and is void once there is one, and their actions are never
/// pushed out of the audit trail.
pub const ADMIN_GROUP: &str = "admin";

/// An account.
#[derive(Debug, Clone)]
pub struct UserRow {
    /// Opaque, never reused.
    pub id: String,
    /// Canonical e-mail, unique ignoring case.
    pub email: String,
    /// May be empty.
    pub name: String,
    /// May be empty.
    pub picture: String,
    /// Sorted, no duplicates, no commas.
    pub groups: Vec<String>,
    /// PHC string of the password.
    pub password: Option<Secret>,
    /// Cannot sign in.
    pub disabled: bool,
    /// When it was created.
    pub created: UnixSecs,
}

pub(super) const COLUMNS: &str =
    "user.id, user.email, user.name, user.picture, user.groups, user.password, user.disabled, user.created";

/// Reads [`COLUMNS`], starting at column `at`.
pub(super) fn from_row(row: &Row<'_>, at: usize) -> Result<UserRow, rusqlite::Error> {
    let groups: String = row.get(at + 4)?;
    Ok(UserRow {
        id: row.get(at)?,
        email: row.get(at + 1)?,
        name: row.get(at + 2)?,
        picture: row.get(at + 3)?,
        groups: groups.split(',').filter(|group| !group.is_empty()).map(str::to_owned).collect(),
        password: row.get::<_, Option<String>>(at + 5)?.map(Secret::new),
        disabled: row.get(at + 6)?,
        created: uint(row.get(at + 7)?),
    })
}

pub(super) fn by_id(tx: &Connection, id: &str) -> Result<Option<UserRow>, StoreError> {
    let mut query = tx.prepare_cached(&format!("SELECT {COLUMNS} FROM user WHERE id = ?1"))?;
    Ok(query.query_row([id], |row| from_row(row, 0)).optional()?)
}

pub(super) fn by_email(tx: &Connection, email: &str) -> Result<Option<UserRow>, StoreError> {
    let mut query = tx.prepare_cached(&format!("SELECT {COLUMNS} FROM user WHERE email = ?1"))?;
    Ok(query.query_row([email], |row| from_row(row, 0)).optional()?)
}

pub(super) fn exist(tx: &Connection) -> Result<bool, StoreError> {
    Ok(tx.query_row("SELECT EXISTS (SELECT 1 FROM user)", [], |row| row.get(0))?)
}

/// Whether any account is in [`ADMIN_GROUP`].
pub(super) fn administrator_exists(tx: &Connection) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM user WHERE instr(',' || groups || ',', ',' || ?1 || ',') > 0)";
    Ok(tx.query_row(sql, [ADMIN_GROUP], |row| row.get(0))?)
}

/// Whether the account with this id is in [`ADMIN_GROUP`].
pub(super) fn is_administrator(tx: &Connection, id: &str) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM user WHERE id = ?1 AND instr(',' || groups || ',', ',' || ?2 || ',') > 0)";
    Ok(tx.prepare_cached(sql)?.query_row([id, ADMIN_GROUP], |row| row.get(0))?)
}
