//! One-time links as rows: insert, and void when an account changes.

use super::convert::int;
use super::error::StoreError;
use super::sql::{Tx, params};
use super::user_rows::ADMIN_GROUP;
use crate::clock::UnixSecs;

/// A link to create.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct NewLink {
    /// SHA-256 of the token.
    pub hash: [u8; 32],
    /// `first` (void once there is an administrator), `invite` or `reset`
    pub kind: &'static str,
    /// The existing account whose password it sets.
    pub user_id: Option<String>,
    /// The e-mail that a new account gets.
    pub email: Option<String>,
    /// Groups of a new account.
    pub groups: Vec<String>,
    pub created: UnixSecs,
    pub expires: UnixSecs,
}

pub(super) fn insert(tx: &Tx<'_>, new: &NewLink) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO link (hash, kind, user_id, email, groups, created, expires) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![new.hash, new.kind, new.user_id, new.email, new.groups.join(","), int(new.created), int(new.expires)],
    )?;
    Ok(())
}

/// Voids links after an account was created or got this address or these groups: invites to the address, permanently,
/// and the first link once there is an administrator.
pub(super) fn void(tx: &Tx<'_>, email: &str, groups: &[String]) -> Result<(), StoreError> {
    tx.execute("DELETE FROM link WHERE email = ?1", params![email])?;
    if groups.iter().any(|group| group == ADMIN_GROUP) {
        tx.execute("DELETE FROM link WHERE kind = 'first'", params![])?;
    }
    Ok(())
}
