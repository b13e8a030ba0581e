//! The audit trail as rows, bounded in number and age. Rows are written in the transaction of the change that they
//! record, and contain no secret.

use super::convert::{int, uint};
use super::db::Db;
use super::error::StoreError;
use super::sql::{Tx, params};
use super::user_rows;
use crate::clock::UnixSecs;

/// Maximum rows of events that give way first: rejections, sign-ups, profile changes.
const ROWS_MAX: i64 = if cfg!(test) { 10_000 } else { 100_000 };
/// Maximum rows of [`KEPT`] events: a tenth of it is more than one user causes in [`AGE_MAX_SECS`].
const KEPT_ROWS_MAX: i64 = if cfg!(test) { 10_000 } else { 1_000_000 };
/// Events that strangers can cause, or anybody without limit: they give way, whoever they belong to.
const GIVES_WAY: [&str; 9] = [
    "sign_in_failed",
    "throttled",
    "banned",
    "sign_up",
    "sign_up_taken",
    "sign_up_throttled",
    "profile_changed",
    "provider_refused",
    "provider_sign_up",
];
/// Events that are kept for [`AGE_MAX_SECS`] whatever others do: they require the right password, a link, a
/// session, or a token of a provider.
const KEPT: [&str; 17] = [
    "recheck_ended",
    "provider_token_ended",
    "backchannel_logout",
    "identity_linked",
    "identity_unlinked",
    "provider_sign_in",
    "sign_in",
    "sign_out",
    "session_ended",
    "sessions_ended",
    "password_changed",
    "password_reset",
    "current_password_wrong",
    "invite_used",
    "token_created",
    "token_revoked",
    "tokens_revoked",
];
/// Events without a request that no command causes either: a provider's answer does.
const BY_PROVIDERS: [&str; 3] = ["recheck_ended", "provider_token_ended", "provider_refused"];
/// The bounds are checked after this many rows.
const BOUND_EVERY: i64 = 1024;
/// Owners with the most rows that are considered together.
const OWNERS: usize = 64;
/// Age at which rows are deleted, seconds.
const AGE_MAX_SECS: u64 = 90 * 86_400;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuditRow {
    /// When.
    pub at: UnixSecs,
    /// A stable name: `sign_in`, `user_disabled`, ...
    pub event: &'static str,
    /// The account it concerns; empty if unknown.
    pub user_id: String,
    /// Its e-mail, or the canonical form of what was typed; may be empty.
    pub email: String,
    /// Address of the client; empty for commands.
    pub address: String,
    /// Id of the request; empty for commands.
    pub request_id: String,
    /// Details.
    pub detail: String,
}

/// One event as read.
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

pub(super) fn write(tx: &Tx<'_>, row: &AuditRow) -> Result<(), StoreError> {
    // what strangers do to an account counts as theirs
    let strangers = row.user_id.is_empty() || (GIVES_WAY.contains(&row.event) && row.event != "profile_changed");
    let owner = if strangers { &row.address } else { &row.user_id };
    let sql = "INSERT INTO audit (at, event, user_id, email, address, request_id, detail, owner, keep)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) RETURNING id";
    let (at, keep) = (int(row.at), keep(tx, row)?);
    let params = params![at, row.event, row.user_id, row.email, row.address, row.request_id, row.detail, owner, keep];
    let id: i64 = tx.query_row(sql, params, |row| row.get(0))?;
    if id % BOUND_EVERY == 0 { bound_all(tx) } else { Ok(()) }
}

/// 2: commands (they have no request id) and actions of administrators, which are never pushed out; 1: [`KEPT`]; 0:
/// the rest.
fn keep(tx: &Tx<'_>, row: &AuditRow) -> Result<i64, StoreError> {
    if row.request_id.is_empty() && !BY_PROVIDERS.contains(&row.event) {
        return Ok(2);
    }
    let by_strangers = GIVES_WAY.contains(&row.event) && row.event != "profile_changed";
    if !by_strangers && user_rows::is_administrator(tx, &row.user_id)? {
        return Ok(2);
    }
    Ok(i64::from(KEPT.contains(&row.event) || row.event.starts_with("factor")))
}

fn bound_all(tx: &Tx<'_>) -> Result<(), StoreError> {
    for (keep, max) in [(0, ROWS_MAX), (1, KEPT_ROWS_MAX)] {
        let count = "SELECT count(*) FROM audit WHERE keep = ?1";
        let rows: i64 = tx.query_row(count, params![keep], |row| row.get(0))?;
        if rows > max {
            push_out(tx, keep, rows - max)?;
        }
    }
    Ok(())
}

/// Deletes rows of the owners with the most until all have equally many; among very many equal owners, the oldest
/// rows.
fn push_out(tx: &Tx<'_>, keep: i64, excess: i64) -> Result<(), StoreError> {
    let sql = "SELECT owner, count(*) AS rows FROM audit WHERE keep = ?1 GROUP BY owner ORDER BY rows DESC LIMIT ?2";
    let limit = i64::try_from(OWNERS).unwrap_or(i64::MAX);
    let owners: Vec<(String, i64)> = tx.query_map(sql, params![keep, limit], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let level = level(&owners.iter().map(|(_, rows)| *rows).collect::<Vec<_>>(), excess);
    let mut left = excess;
    for (owner, rows) in owners.iter().filter(|(_, rows)| *rows > level) {
        let sql =
            "DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE keep = ?1 AND owner = ?2 ORDER BY id LIMIT ?3)";
        tx.execute(sql, params![keep, owner, rows - level])?;
        left -= rows - level;
    }
    if left > 0 {
        let sql = "DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE keep = ?1 ORDER BY id LIMIT ?2)";
        tx.execute(sql, params![keep, left])?;
    }
    Ok(())
}

/// The number of rows that each owner is cut to, so that `excess` rows are deleted in total; `rows`: their numbers,
/// largest first. Not fewer than the last one has, because others may have as many.
fn level(rows: &[i64], excess: i64) -> i64 {
    let mut sum = 0;
    for (at, own) in rows.iter().enumerate() {
        sum += own;
        let level = (sum - excess).div_euclid(int(at as u64 + 1));
        let next = rows.get(at + 1).copied().unwrap_or(0);
        if level >= next {
            return if rows.len() < OWNERS { level } else { level.max(rows[rows.len() - 1]) };
        }
    }
    rows.last().copied().unwrap_or(0)
}

pub(super) fn bound(tx: &Tx<'_>, now: UnixSecs) -> Result<(), StoreError> {
    tx.execute("DELETE FROM audit WHERE at < ?1", params![int(now.saturating_sub(AGE_MAX_SECS))])?;
    bound_all(tx)
}

/// Writes events that accompany no other change.
pub fn write_events(db: &mut Db, rows: &[AuditRow]) -> Result<(), StoreError> {
    db.write_excluding(&[], |tx| rows.iter().try_for_each(|row| write(tx, row)))
}

/// Events since `since`, newest first; with an e-mail, those about it or about the account that has it now.
pub fn events(db: &mut Db, email: Option<&str>, since: UnixSecs) -> Result<Vec<AuditEvent>, StoreError> {
    db.read(|tx| {
        Ok(tx.query_map(
            "SELECT at, event, user_id, email, address, request_id, detail FROM audit
             WHERE at >= ?1 AND (?2 IS NULL OR lower(email) = lower(?2)
                 OR user_id = (SELECT id FROM user WHERE user.email = ?2)) ORDER BY id DESC",
            params![int(since), email],
            |row| {
                Ok(AuditEvent {
                    at: uint(row.get(0)?),
                    event: row.get(1)?,
                    user_id: row.get(2)?,
                    email: row.get(3)?,
                    address: row.get(4)?,
                    request_id: row.get(5)?,
                    detail: row.get(6)?,
                })
            },
        )?)
    })
}

/// Event and e-mail of the newest events, newest first.
pub fn trail(db: &mut Db, limit: u32) -> Result<Vec<(String, String)>, StoreError> {
    db.read(|tx| {
        Ok(tx.query_map("SELECT event, email FROM audit ORDER BY id DESC LIMIT ?1", params![limit], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?)
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Check, Db};
    use super::*;

    #[test]
    fn events_are_reported_newest_first_from_a_time_on_and_of_one_address_alone() {
        let dir = tempfile::tempdir().unwrap();
        let mut db = Db::open(dir.path(), Check::Version).unwrap();
        let row = |at, event, email: &str| AuditRow { at, event, email: email.to_owned(), ..AuditRow::default() };
        write_events(
            &mut db,
            &[row(10, "a", "ada@example.com"), row(20, "b", "bob@example.com"), row(30, "c", "ada@example.com")],
        )
        .unwrap();
        let mut told = |email, since| {
            let events = events(&mut db, email, since).unwrap();
            events.into_iter().map(|event| event.event).collect::<Vec<_>>()
        };
        assert_eq!(told(None, 0), ["c", "b", "a"]);
        assert_eq!(told(None, 20), ["c", "b"]);
        assert_eq!(told(Some("ada@example.com"), 0), ["c", "a"]);
        assert_eq!(told(Some("ada@example.com"), 31), [""; 0]);
    }

    /// CWE-770: ten accounts of one's own, 103,000 changes of their profiles, and what happened to everybody else was gone.
    #[test]
    fn many_accounts_that_do_much_push_out_their_own_events_and_no_one_elses() {
        let dir = tempfile::tempdir().unwrap();
        let mut db = Db::open(dir.path(), Check::Version).unwrap();
        let row = |event, id: &str| AuditRow {
            at: 1,
            event,
            user_id: id.to_owned(),
            request_id: "r".to_owned(),
            ..AuditRow::default()
        };
        let command = AuditRow { request_id: String::new(), ..row("user_disabled", "bob") };
        let stranger = AuditRow { address: "192.0.2.1".to_owned(), ..row("sign_in_failed", "") };
        write_events(&mut db, &[command, stranger, row("sign_in", "bob"), row("profile_changed", "bob")]).unwrap();
        for _ in 0..10 {
            let rows: Vec<_> = (0..1_030).map(|n| row("profile_changed", &format!("greedy {}", n % 10))).collect();
            write_events(&mut db, &rows).unwrap();
        }
        let count = |sql: &str| -> i64 { db.connection().query_row(sql, [], |row| row.get(0)).unwrap() };
        assert_eq!(count("SELECT count(*) FROM audit WHERE user_id NOT LIKE 'greedy%'"), 4);
        let all = count("SELECT count(*) FROM audit");
        assert!((ROWS_MAX..ROWS_MAX + 4 + BOUND_EVERY).contains(&all), "{all}");
    }

    #[test]
    fn sign_ins_give_way_to_those_of_the_client_that_signs_in_most_and_an_administrators_to_none() {
        let dir = tempfile::tempdir().unwrap();
        let mut db = Db::open(dir.path(), Check::Version).unwrap();
        let sql = "INSERT INTO user (id, email, name, picture, groups, created, rev) VALUES ('7', 'a@example.com', '', '', 'admin,ops', 1, 1)";
        db.connection().execute_batch(sql).unwrap();
        let fill = format!(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {KEPT_ROWS_MAX})
             INSERT INTO audit (at, event, user_id, email, address, request_id, detail, owner, keep)
             SELECT 1, 'x', '', '', '', '', '', 'greedy', 1 FROM n"
        );
        let row = |event, id: &str| AuditRow {
            at: 1,
            event,
            user_id: id.to_owned(),
            request_id: "r".to_owned(),
            ..AuditRow::default()
        };
        write_events(&mut db, &[row("sign_in", "bob"), row("profile_changed", "7"), row("sign_in_failed", "7")])
            .unwrap();
        db.connection().execute_batch(&fill).unwrap();
        write_events(&mut db, &vec![row("sign_in", "greedy"); 2048]).unwrap();
        let told = |sql: &str| -> i64 { db.connection().query_row(sql, [], |row| row.get(0)).unwrap() };
        let kept = told("SELECT count(*) FROM audit WHERE keep = 1");
        assert!((KEPT_ROWS_MAX..KEPT_ROWS_MAX + BOUND_EVERY).contains(&kept), "{kept}");
        assert_eq!(told("SELECT count(*) FROM audit WHERE user_id = 'bob'"), 1);
        assert_eq!(told("SELECT group_concat(keep) = '2,0' FROM audit WHERE user_id = '7'"), 1);
    }

    #[test]
    fn those_who_have_most_are_cut_to_one_level() {
        for (rows, excess, expected) in [
            (&[10][..], 3, 7),
            (&[10, 2], 3, 7),
            (&[10, 9, 1], 3, 8),
            (&[5, 5, 5], 3, 4),
            (&[5, 5, 5], 15, 0),
            (&[1, 1], 1, 0),
            (&[], 3, 0),
            (&[2; OWNERS], 3, 2),
        ] {
            assert_eq!(level(rows, excess), expected, "{rows:?} {excess}");
        }
    }
}
