//! The audit trail as rows, bounded in number and age. Rows are written in the transaction of
//! what they tell about, and hold no secret.

use rusqlite::{Connection, params};

use super::{StoreError, int};
use crate::clock::UnixSecs;

/// Newest rows that are kept.
const ROWS_MAX: i64 = 100_000;
/// Age at which rows go, in seconds.
const AGE_MAX_SECS: u64 = 90 * 86_400;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuditRow {
    /// When.
    pub at: UnixSecs,
    /// A stable word: `sign_in`, `user_disabled`, ...
    pub event: &'static str,
    /// The account it concerns; empty when unknown.
    pub user_id: String,
    /// Its e-mail, or what was typed in its place in canonical form; may be empty.
    pub email: String,
    /// Address of the client; empty for commands.
    pub address: String,
    /// Id of the request; empty for commands.
    pub request_id: String,
    /// Further words.
    pub detail: String,
}

pub(super) fn write(tx: &Connection, row: &AuditRow) -> Result<(), StoreError> {
    tx.prepare_cached(
        "INSERT INTO audit (at, event, user_id, email, address, request_id, detail) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute(params![int(row.at), row.event, row.user_id, row.email, row.address, row.request_id, row.detail])?;
    Ok(())
}

pub(super) fn bound(tx: &Connection, now: UnixSecs) -> Result<(), StoreError> {
    tx.execute("DELETE FROM audit WHERE at < ?1", [int(now.saturating_sub(AGE_MAX_SECS))])?;
    tx.execute("DELETE FROM audit WHERE id <= (SELECT max(id) FROM audit) - ?1", [ROWS_MAX])?;
    Ok(())
}

impl super::Db {
    /// Writes events that go with no other change.
    pub fn audit(&mut self, rows: &[AuditRow]) -> Result<(), StoreError> {
        self.write(|tx| rows.iter().try_for_each(|row| write(tx, row)))
    }

    /// Event and e-mail of the newest events, newest first.
    pub fn audit_trail(&mut self, limit: u32) -> Result<Vec<(String, String)>, StoreError> {
        self.read(|tx| {
            let mut query = tx.prepare("SELECT event, email FROM audit ORDER BY id DESC LIMIT ?1")?;
            let rows = query.query_map([limit], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }
}
