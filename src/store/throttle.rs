//! Counts of sign-in attempts, kept through restarts. An attempt is counted before the password
//! is looked at, so that parallel attempts cannot slip through. Every table here is bounded.

use rusqlite::{Connection, OptionalExtension, params};

use super::db::Db;
use super::{AuditRow, StoreError, audit, int, uint};
use crate::clock::UnixSecs;
use crate::metrics;

/// Attempts that are kept in all; beyond it the oldest go.
const ATTEMPTS_MAX: u32 = 100_000;
/// Bans that are kept in all; beyond it those that end first go.
const BANS_MAX: u32 = 100_000;
/// Attempts may be this far in the future, by which they overtook others in the queue; what is further was counted
/// while the clock was wrong.
const AHEAD_SECS: u64 = 60;

/// One thing that is counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// `account:EMAIL`, `address:IP`, `device:HASH:EMAIL`, `user:ID:SESSION`, `profile:ID` or `sign_up:IP`
    pub name: String,
    /// Failed attempts within the window that lead to a ban.
    pub retries_max: u32,
    /// Whether a success forgives all attempts, or its own alone. An address is shared: a right
    /// password for one account must not forgive guesses at others.
    pub success_forgives_all: bool,
}

/// An attempt that was let through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counted {
    limits: Vec<Limit>,
    rows: Vec<i64>,
}

/// Counts one attempt against every limit, or says after how many seconds to come back.
pub(super) fn count(
    tx: &Connection,
    limits: &[Limit],
    now: UnixSecs,
    (find_secs, ban_secs): (u64, u64),
) -> Result<Result<Counted, u64>, StoreError> {
    tx.prepare_cached("DELETE FROM attempt WHERE at > ?1")?.execute([int(now + AHEAD_SECS)])?;
    let mut wait = 0;
    for limit in limits {
        // a clock that was set back must not make a ban longer than any is
        tx.prepare_cached("UPDATE ban SET until = ?2 WHERE name = ?1 AND until > ?2")?
            .execute(params![limit.name, int(now + ban_secs)])?;
        let own = remaining(tx, limit, now, find_secs)?;
        if own > 0 {
            metrics::ACCOUNTS.limited(&limit.name);
        }
        wait = wait.max(own);
    }
    if wait > 0 {
        return Ok(Err(wait));
    }
    let mut counted = Counted { limits: limits.to_vec(), rows: Vec::new() };
    for limit in limits {
        tx.prepare_cached("INSERT INTO attempt (name, at) VALUES (?1, ?2)")?.execute(params![limit.name, int(now)])?;
        counted.rows.push(tx.last_insert_rowid());
    }
    tx.prepare_cached("DELETE FROM attempt WHERE at < ?1")?.execute([int(now.saturating_sub(find_secs))])?;
    tx.prepare_cached("DELETE FROM attempt WHERE id <= (SELECT max(id) FROM attempt) - ?1")?.execute([ATTEMPTS_MAX])?;
    Ok(Ok(counted))
}

/// Seconds until another attempt may be made; 0: now.
fn remaining(tx: &Connection, limit: &Limit, now: UnixSecs, find_secs: u64) -> Result<u64, StoreError> {
    let until: Option<i64> = tx
        .prepare_cached("SELECT until FROM ban WHERE name = ?1 AND until > ?2")?
        .query_row(params![limit.name, int(now)], |row| row.get(0))
        .optional()?;
    if let Some(until) = until {
        return Ok(uint(until).saturating_sub(now).max(1));
    }
    let (attempts, oldest): (i64, Option<i64>) = tx
        .prepare_cached("SELECT count(*), min(at) FROM attempt WHERE name = ?1 AND at >= ?2")?
        .query_row(params![limit.name, int(now.saturating_sub(find_secs))], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if uint(attempts) < u64::from(limit.retries_max) {
        return Ok(0);
    }
    // all tries are still being looked at, or the process died over them
    let oldest = oldest.map_or(now, uint);
    Ok((oldest + find_secs + 1).saturating_sub(now).max(1))
}

/// Bans what has used up its tries; returns the names.
pub(super) fn ban_used_up(
    tx: &Connection,
    counted: &Counted,
    now: UnixSecs,
    find_secs: u64,
    ban_secs: u64,
    event: &AuditRow,
) -> Result<Vec<String>, StoreError> {
    let mut banned = Vec::new();
    for limit in &counted.limits {
        let attempts: i64 = tx
            .prepare_cached("SELECT count(*) FROM attempt WHERE name = ?1 AND at >= ?2")?
            .query_row(params![limit.name, int(now.saturating_sub(find_secs))], |row| row.get(0))?;
        if uint(attempts) < u64::from(limit.retries_max) {
            continue;
        }
        tx.execute(
            "INSERT INTO ban (name, until) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET until = max(until, ?2)",
            params![limit.name, int(now + ban_secs)],
        )?;
        tx.execute("DELETE FROM attempt WHERE name = ?1", [&limit.name])?;
        audit::write(tx, &AuditRow { event: "banned", detail: limit.name.clone(), ..event.clone() })?;
        banned.push(limit.name.clone());
    }
    if !banned.is_empty() {
        tx.execute("DELETE FROM ban WHERE until <= ?1", [int(now)])?;
        tx.execute(
            "DELETE FROM ban WHERE name NOT IN (SELECT name FROM ban ORDER BY until DESC LIMIT ?1)",
            [BANS_MAX],
        )?;
    }
    Ok(banned)
}

/// A right password: the attempts that led here no longer count.
pub(super) fn forgive(tx: &Connection, counted: &Counted) -> Result<(), StoreError> {
    for (limit, row) in counted.limits.iter().zip(&counted.rows) {
        if limit.success_forgives_all {
            tx.prepare_cached("DELETE FROM attempt WHERE name = ?1")?.execute([&limit.name])?;
            tx.prepare_cached("DELETE FROM ban WHERE name = ?1")?.execute([&limit.name])?;
        } else {
            tx.prepare_cached("DELETE FROM attempt WHERE id = ?1")?.execute([row])?;
        }
    }
    Ok(())
}

impl Db {
    /// Counts an attempt before it is looked at. `Err`: seconds until another may be made; then
    /// nothing was counted.
    pub fn count_attempt(
        &mut self,
        limits: &[Limit],
        now: UnixSecs,
        find_and_ban_secs: (u64, u64),
    ) -> Result<Result<Counted, u64>, StoreError> {
        self.write(|tx| count(tx, limits, now, find_and_ban_secs))
    }

    /// The attempt was a wrong one: what has used up its tries is banned. Returns the names of new bans.
    pub fn attempt_failed(
        &mut self,
        counted: &Counted,
        now: UnixSecs,
        find_secs: u64,
        ban_secs: u64,
        event: &AuditRow,
    ) -> Result<Vec<String>, StoreError> {
        self.write(|tx| {
            audit::write(tx, event)?;
            ban_used_up(tx, counted, now, find_secs, ban_secs, event)
        })
    }

    /// What is banned, and until when (Unix seconds).
    pub fn bans(&mut self, now: UnixSecs) -> Result<Vec<(String, UnixSecs)>, StoreError> {
        self.read(|tx| {
            let mut query = tx.prepare("SELECT name, until FROM ban WHERE until > ?1 ORDER BY name")?;
            let rows = query.query_map([int(now)], |row| Ok((row.get(0)?, uint(row.get(1)?))))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// Lifts bans and forgets attempts of these names, of every device for `email`, and of every session of `user`
    /// (`user:ID`). Returns how many bans there were.
    pub fn lift(
        &mut self,
        names: &[String],
        email: Option<&str>,
        user: Option<&str>,
        event: &AuditRow,
    ) -> Result<usize, StoreError> {
        self.write(|tx| {
            let mut lifted = 0;
            for name in names {
                lifted += tx.execute("DELETE FROM ban WHERE name = ?1", [name])?;
                tx.execute("DELETE FROM attempt WHERE name = ?1", [name])?;
            }
            if let Some(email) = email {
                let ends_so = "name LIKE 'device:%' AND substr(name, -length(?1) - 1) = ':' || ?1";
                lifted += tx.execute(&format!("DELETE FROM ban WHERE {ends_so}"), [email])?;
                tx.execute(&format!("DELETE FROM attempt WHERE {ends_so}"), [email])?;
            }
            if let Some(user) = user {
                let begins_so = "substr(name, 1, length(?1) + 1) = ?1 || ':'";
                lifted += tx.execute(&format!("DELETE FROM ban WHERE {begins_so}"), [user])?;
                tx.execute(&format!("DELETE FROM attempt WHERE {begins_so}"), [user])?;
            }
            if lifted > 0 {
                audit::write(tx, event)?;
            }
            Ok(lifted)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Check;
    use super::*;

    const LIMIT: u32 = 3;

    fn limit(name: &str) -> [Limit; 1] {
        [Limit { name: name.to_owned(), retries_max: LIMIT, success_forgives_all: true }]
    }

    fn open() -> (tempfile::TempDir, Db) {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(dir.path(), Check::Version).unwrap();
        (dir, db)
    }

    fn fail(db: &mut Db, name: &str, now: u64) -> Result<usize, u64> {
        let counted = db.count_attempt(&limit(name), now, (100, 50)).unwrap()?;
        Ok(db.attempt_failed(&counted, now, 100, 50, &AuditRow::default()).unwrap().len())
    }

    #[test]
    fn the_last_failed_try_bans_and_the_ban_ends_by_itself() {
        let (_dir, mut db) = open();
        assert_eq!([0, 1, 2].map(|at| fail(&mut db, "a", at)), [Ok(0), Ok(0), Ok(1)]);
        assert_eq!([3, 51].map(|at| fail(&mut db, "a", at)), [Err(49), Err(1)]);
        assert_eq!(fail(&mut db, "b", 3), Ok(0));
        assert_eq!([52, 53, 54, 55].map(|at| fail(&mut db, "a", at)), [Ok(0), Ok(0), Ok(1), Err(49)]);
    }

    /// Nobody is locked out for longer than `throttle.ban_time` because the clock was wrong for a while.
    #[test]
    fn a_clock_that_is_set_back_takes_no_ban_and_no_try_with_it() {
        let (_dir, mut db) = open();
        let year = 31_536_000;
        assert_eq!([0, 1, 2].map(|at| fail(&mut db, "a", year + at)), [Ok(0), Ok(0), Ok(1)]);
        assert_eq!([0, 1].map(|at| fail(&mut db, "b", year + at)), [Ok(0), Ok(0)]);
        // the ban goes on for as long as a new one would
        assert_eq!([10, 11, 59, 60].map(|at| fail(&mut db, "a", at)), [Err(50), Err(49), Err(1), Ok(0)]);
        assert_eq!([10, 11, 12].map(|at| fail(&mut db, "b", at)), [Ok(0), Ok(0), Ok(1)]);
    }

    #[test]
    fn tries_that_nobody_finished_count_until_the_window_passes() {
        let (_dir, mut db) = open();
        let mut begin = |now| db.count_attempt(&limit("a"), now, (100, 50)).unwrap().map(|_| ());
        assert_eq!([10, 20, 30, 40].map(&mut begin), [Ok(()), Ok(()), Ok(()), Err(71)]);
        assert_eq!([110, 111].map(&mut begin), [Err(1), Ok(())]);
    }

    #[test]
    fn a_refused_try_is_not_counted_against_anything() {
        let (_dir, mut db) = open();
        for at in 0..3 {
            let _ = fail(&mut db, "account:a", at);
        }
        let both = [limit("account:a"), limit("address:x")].concat();
        for _ in 0..10 {
            assert_eq!(db.count_attempt(&both, 3, (100, 50)).unwrap(), Err(49));
        }
        assert_eq!([4, 5, 6].map(|at| fail(&mut db, "address:x", at)), [Ok(0), Ok(0), Ok(1)]);
    }

    #[test]
    fn old_rows_go_so_that_the_tables_stay_small() {
        let (_dir, mut db) = open();
        for n in 0..500u64 {
            let _ = fail(&mut db, &format!("a{n}"), n * 10);
        }
        let rows: i64 = db.connection.query_row("SELECT count(*) FROM attempt", [], |row| row.get(0)).unwrap();
        assert!(rows <= 11, "{rows}");
        db.purge(1_000_000, 100, 100).unwrap();
        let rows: i64 = db.connection.query_row("SELECT count(*) FROM attempt", [], |row| row.get(0)).unwrap();
        assert_eq!(rows, 0);
    }

    #[test]
    fn lifting_by_email_reaches_its_browsers_and_nobody_elses() {
        let (_dir, mut db) = open();
        for name in ["device:x:a@example.com", "device:y:aa@example.com", "account:a@example.com"] {
            for at in 0..3 {
                let _ = fail(&mut db, name, at);
            }
        }
        let lifted = db.lift(&["account:a@example.com".to_owned()], Some("a@example.com"), None, &AuditRow::default());
        assert_eq!(lifted, Ok(2));
        assert_eq!(db.bans(3).unwrap(), [("device:y:aa@example.com".to_owned(), 52)]);
    }
}
