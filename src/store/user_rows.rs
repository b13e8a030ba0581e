//! Accounts as rows: reading only.

use super::convert::uint;
use super::error::StoreError;
use super::sql::{OptionalRow, Row, SqlError, Tx, params};
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
pub(super) fn from_row(row: &Row<'_>, at: usize) -> Result<UserRow, SqlError> {
    let groups: String = row.get(at + 4)?;
    Ok(UserRow {
        id: row.get(at)?,
        email: row.get(at + 1)?,
        name: row.get(at + 2)?,
        picture: row.get(at + 3)?,
        groups: groups.split(',').filter(|group| !group.is_empty()).map(str::to_owned).collect(),
        password: row.get::<Option<String>>(at + 5)?.map(Secret::new),
        disabled: row.get(at + 6)?,
        created: uint(row.get(at + 7)?),
    })
}

pub(super) fn by_id(tx: &Tx<'_>, id: &str) -> Result<Option<UserRow>, StoreError> {
    Ok(tx
        .query_row(&format!("SELECT {COLUMNS} FROM user WHERE id = ?1"), params![id], |row| from_row(row, 0))
        .optional()?)
}

pub(super) fn by_email(tx: &Tx<'_>, email: &str) -> Result<Option<UserRow>, StoreError> {
    Ok(tx
        .query_row(&format!("SELECT {COLUMNS} FROM user WHERE email = ?1"), params![email], |row| from_row(row, 0))
        .optional()?)
}

pub(super) fn exist(tx: &Tx<'_>) -> Result<bool, StoreError> {
    Ok(tx.query_row("SELECT EXISTS (SELECT 1 FROM user)", params![], |row| row.get(0))?)
}

/// Whether any account is in [`ADMIN_GROUP`].
pub(super) fn administrator_exists(tx: &Tx<'_>) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM user WHERE instr(',' || groups || ',', ',' || ?1 || ',') > 0)";
    Ok(tx.query_row(sql, params![ADMIN_GROUP], |row| row.get(0))?)
}

/// Whether the account with this id is in [`ADMIN_GROUP`].
pub(super) fn is_administrator(tx: &Tx<'_>, id: &str) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM user WHERE id = ?1 AND instr(',' || groups || ',', ',' || ?2 || ',') > 0)";
    Ok(tx.query_row(sql, params![id, ADMIN_GROUP], |row| row.get(0))?)
}
