//! The audit trail as rows, bounded in number and age. Rows are written in the transaction of
//! what they tell about, and hold no secret.

use rusqlite::{Connection, params};

use super::{StoreError, int};
use crate::clock::UnixSecs;

/// Newest rows that are kept.
const ROWS_MAX: i64 = 100_000;
/// Newest rows of one account that are kept, and of clients that have none: nobody pushes out what happened to others.
const ROWS_OF_ACCOUNT_MAX: i64 = 10_000;
/// After so many rows the bounds are looked at.
const BOUND_EVERY: i64 = 1024;
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

/// One event as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct AuditEvent {
    pub at: UnixSecs,
    pub event: String,
    pub user_id: String,
    pub email: String,
    pub address: String,
    pub request_id: String,
    pub detail: String,
}

pub(super) fn write(tx: &Connection, row: &AuditRow) -> Result<(), StoreError> {
    tx.prepare_cached(
        "INSERT INTO audit (at, event, user_id, email, address, request_id, detail) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute(params![int(row.at), row.event, row.user_id, row.email, row.address, row.request_id, row.detail])?;
    // whoever writes many rows will soon be the one who writes this one
    if tx.last_insert_rowid() % BOUND_EVERY == 0 {
        tx.prepare_cached(
            "DELETE FROM audit WHERE user_id = ?1 AND (user_id <> '' OR address <> '') AND id <=
             (SELECT id FROM audit WHERE user_id = ?1 AND (user_id <> '' OR address <> '') ORDER BY id DESC LIMIT 1 OFFSET ?2)",
        )?
        .execute(params![row.user_id, ROWS_OF_ACCOUNT_MAX])?;
        bound_all(tx)?;
    }
    Ok(())
}

fn bound_all(tx: &Connection) -> Result<(), StoreError> {
    tx.execute("DELETE FROM audit WHERE id <= (SELECT id FROM audit ORDER BY id DESC LIMIT 1 OFFSET ?1)", [ROWS_MAX])?;
    Ok(())
}

pub(super) fn bound(tx: &Connection, now: UnixSecs) -> Result<(), StoreError> {
    tx.execute("DELETE FROM audit WHERE at < ?1", [int(now.saturating_sub(AGE_MAX_SECS))])?;
    bound_all(tx)
}

impl super::Db {
    /// Writes events that go with no other change.
    pub fn audit(&mut self, rows: &[AuditRow]) -> Result<(), StoreError> {
        self.write(|tx| rows.iter().try_for_each(|row| write(tx, row)))
    }

    /// Events since then, newest first; with an e-mail, those that concern it or the account that has it now.
    pub fn audit_events(&mut self, email: Option<&str>, since: UnixSecs) -> Result<Vec<AuditEvent>, StoreError> {
        self.read(|tx| {
            let mut query = tx.prepare(
                "SELECT at, event, user_id, email, address, request_id, detail FROM audit
                 WHERE at >= ?1 AND (?2 IS NULL OR email = ?2 COLLATE NOCASE
                     OR user_id = (SELECT id FROM user WHERE user.email = ?2)) ORDER BY id DESC",
            )?;
            let rows = query.query_map(params![int(since), email], |row| {
                Ok(AuditEvent {
                    at: super::uint(row.get(0)?),
                    event: row.get(1)?,
                    user_id: row.get(2)?,
                    email: row.get(3)?,
                    address: row.get(4)?,
                    request_id: row.get(5)?,
                    detail: row.get(6)?,
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
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

#[cfg(test)]
mod tests {
    use super::super::{Check, Db};
    use super::*;

    #[test]
    fn events_are_told_newest_first_from_a_time_on_and_of_one_address_alone() {
        let dir = tempfile::tempdir().unwrap();
        let mut db = Db::open(dir.path(), Check::Version).unwrap();
        let row = |at, event, email: &str| AuditRow { at, event, email: email.to_owned(), ..AuditRow::default() };
        db.audit(&[row(10, "a", "ada@example.com"), row(20, "b", "bob@example.com"), row(30, "c", "ada@example.com")])
            .unwrap();
        let mut told = |email, since| {
            let events = db.audit_events(email, since).unwrap();
            events.into_iter().map(|event| event.event).collect::<Vec<_>>()
        };
        assert_eq!(told(None, 0), ["c", "b", "a"]);
        assert_eq!(told(None, 20), ["c", "b"]);
        assert_eq!(told(Some("ada@example.com"), 0), ["c", "a"]);
        assert_eq!(told(Some("ada@example.com"), 31), [""; 0]);
    }

    #[test]
    fn an_account_that_does_much_pushes_out_its_own_events_and_nobody_elses() {
        let dir = tempfile::tempdir().unwrap();
        let mut db = Db::open(dir.path(), Check::Version).unwrap();
        let row = |id: &str| AuditRow { at: 1, event: "x", user_id: id.to_owned(), ..AuditRow::default() };
        db.audit(&[row("2"), row("2"), row("")]).unwrap();
        let fill = |db: &Db, id: &str| {
            let sql = format!(
                "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS_MAX})
                 INSERT INTO audit (at, event, user_id, email, address, request_id, detail)
                 SELECT 1, 'x', '{id}', '', '', '', '' FROM n"
            );
            db.connection.execute_batch(&sql).unwrap();
        };
        fill(&db, "1");
        db.audit(&vec![row("1"); 2000]).unwrap();
        let count = |db: &Db, id: &str| -> i64 {
            let sql = "SELECT count(*) FROM audit WHERE user_id = ?1";
            db.connection.query_row(sql, [id], |row| row.get(0)).unwrap()
        };
        let own = count(&db, "1");
        assert!((ROWS_OF_ACCOUNT_MAX..ROWS_OF_ACCOUNT_MAX + BOUND_EVERY).contains(&own), "{own}");
        assert_eq!((count(&db, "2"), count(&db, "")), (2, 1));
        // strangers are nobody's account: the whole is bounded all the same
        fill(&db, "");
        db.audit(&vec![row(""); 2000]).unwrap();
        let all = count(&db, "1") + count(&db, "2") + count(&db, "");
        assert!((ROWS_MAX..ROWS_MAX + BOUND_EVERY).contains(&all), "{all}");
    }
}
