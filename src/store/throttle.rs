//! Counters of sign-in attempts, which survive restarts. An attempt is counted before the password is checked, so
//! that parallel attempts cannot slip through. Every table here is bounded.

use super::audit::{self, AuditRow};
use super::convert::{int, uint};
use super::db::Db;
use super::error::StoreError;
use super::sql::{OptionalRow, Tx, params};
use crate::clock::UnixSecs;

/// Maximum attempts stored; the oldest are dropped.
const ATTEMPTS_MAX: u32 = 250_000;
/// Maximum bans stored; those that end first are dropped.
const BANS_MAX: u32 = 100_000;
/// How far in the future an attempt may be, by overtaking others in the queue, seconds; beyond that it was counted
/// while the clock was wrong.
const AHEAD_SECS: u64 = 60;
/// An attempt is decided within this time, or the process died during it, seconds.
const DECIDED_SECS: u64 = 30;
/// How soon to check again while another attempt is being decided, milliseconds.
const SOON_MILLIS: u64 = 1000;

/// The consequence of failed attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// `max` failures within `find_secs`: no attempt for `ban_secs`. A success clears all.
    Ban {
        /// Failures.
        max: u32,
        /// Seconds.
        find_secs: u64,
        /// Seconds.
        ban_secs: u64,
    },
    /// `max` failures within `window_secs`: from then on one attempt per `window_secs / max`, until there was no
    /// failure for `window_secs`. For limits that many people share: a success clears only the failures of its own
    /// account.
    Pace {
        /// Failures.
        max: u32,
        /// Seconds.
        window_secs: u64,
    },
}

/// One counter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// `account:EMAIL`, `address:IP`, `device:HASH:EMAIL`, `user:ID:SESSION`, `profile:ID` or `sign_up:IP`
    pub name: String,
    /// The consequence of failures.
    pub rule: Rule,
}

/// An attempt that was allowed and counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CountedAttempt {
    limits: Vec<Limit>,
    rows: Vec<i64>,
    account: String,
}

fn names(limits: &[Limit]) -> Vec<&str> {
    limits.iter().map(|limit| limit.name.as_str()).collect()
}

impl CountedAttempt {
    /// Of its counters.
    pub(super) fn names(&self) -> Vec<&str> {
        names(&self.limits)
    }
}

/// Why an attempt was rejected. It was not counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Throttled {
    /// Milliseconds until the next attempt is allowed.
    pub wait_millis: u64,
    /// The counters that are banned or paced.
    pub names: Vec<String>,
    /// Whether one of them is banned. If not, waiting is sufficient.
    pub banned: bool,
}

impl Throttled {
    /// The wait in whole seconds, at least one.
    pub fn wait_secs(&self) -> u64 {
        self.wait_millis.div_ceil(1000).max(1)
    }
}

impl Rule {
    fn max(self) -> u64 {
        let (Self::Ban { max, .. } | Self::Pace { max, .. }) = self;
        u64::from(max)
    }

    /// How long a failure counts.
    fn window_secs(self) -> u64 {
        let (Self::Ban { find_secs: secs, .. } | Self::Pace { window_secs: secs, .. }) = self;
        secs
    }

    /// How long the consequence lasts.
    fn lasts_secs(self) -> u64 {
        let (Self::Ban { ban_secs: secs, .. } | Self::Pace { window_secs: secs, .. }) = self;
        secs
    }
}

/// Counts one attempt against every limit, or gives what it must wait for.
pub(super) fn count(
    tx: &Tx<'_>,
    limits: &[Limit],
    account: &str,
    now: UnixSecs,
) -> Result<Result<CountedAttempt, Throttled>, StoreError> {
    let now = tx.agreed_time(now);
    let mut throttled = Throttled { wait_millis: 0, names: Vec::new(), banned: false };
    for limit in limits {
        // a clock that was set back must not lengthen a ban
        tx.execute(
            "UPDATE ban SET until = ?2 WHERE name = ?1 AND until > ?2",
            params![limit.name, int(now + limit.rule.lasts_secs())],
        )?;
        let wait_millis = match limit.rule {
            Rule::Ban { .. } => 1000 * banned(tx, limit, now)?,
            Rule::Pace { .. } => paced(tx, limit, now)?,
        };
        if wait_millis > 0 {
            throttled.wait_millis = throttled.wait_millis.max(wait_millis);
            throttled.names.push(limit.name.clone());
            throttled.banned |= matches!(limit.rule, Rule::Ban { .. });
        }
    }
    if throttled.wait_millis > 0 {
        return Ok(Err(throttled));
    }
    let mut counted = CountedAttempt { limits: limits.to_vec(), rows: Vec::new(), account: account.to_owned() };
    for limit in limits {
        let sql = "INSERT INTO attempt (name, at, account, failed, until) VALUES (?1, ?2, ?3, 0, ?4) RETURNING id";
        let until = int(now + limit.rule.window_secs());
        counted.rows.push(tx.query_row(sql, params![limit.name, int(now), account, until], |row| row.get(0))?);
    }
    if !tx.is_shared() {
        drop_old_attempts(tx, now)?;
    }
    Ok(Ok(counted))
}

/// Keeps the table small. Other nodes' transactions would wait for these rows, so there [`bound`] does it.
fn drop_old_attempts(tx: &Tx<'_>, now: UnixSecs) -> Result<(), StoreError> {
    tx.execute("DELETE FROM attempt WHERE until < ?1", params![int(now)])?;
    tx.execute("DELETE FROM attempt WHERE id <= (SELECT max(id) FROM attempt) - ?1", params![ATTEMPTS_MAX])?;
    Ok(())
}

fn drop_old_bans(tx: &Tx<'_>, now: UnixSecs) -> Result<(), StoreError> {
    tx.execute("DELETE FROM ban WHERE until <= ?1", params![int(now)])?;
    let sql = "DELETE FROM ban WHERE name NOT IN (SELECT name FROM ban ORDER BY until DESC, name LIMIT ?1)";
    tx.execute(sql, params![BANS_MAX])?;
    Ok(())
}

/// Drops attempts and bans that are over, and the oldest beyond the bounds.
pub fn bound(db: &mut Db, now: UnixSecs) -> Result<(), StoreError> {
    db.write(|tx| {
        let now = tx.agreed_time(now);
        drop_old_attempts(tx, now)?;
        drop_old_bans(tx, now)
    })
}

fn banned_until(tx: &Tx<'_>, name: &str, now: UnixSecs) -> Result<Option<u64>, StoreError> {
    let until: Option<i64> = tx
        .query_row("SELECT until FROM ban WHERE name = ?1 AND until > ?2", params![name, int(now)], |row| row.get(0))
        .optional()?;
    Ok(until.map(uint))
}

/// Seconds until the next attempt is allowed; 0: now.
fn banned(tx: &Tx<'_>, limit: &Limit, now: UnixSecs) -> Result<u64, StoreError> {
    if let Some(until) = banned_until(tx, &limit.name, now)? {
        return Ok(until.saturating_sub(now).max(1));
    }
    let window_secs = limit.rule.window_secs();
    let (attempts, oldest): (i64, Option<i64>) = tx.query_row(
        "SELECT count(*), min(at) FROM attempt WHERE name = ?1 AND at BETWEEN ?2 AND ?3",
        params![limit.name, int(now.saturating_sub(window_secs)), int(now + AHEAD_SECS)],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    if uint(attempts) < limit.rule.max() {
        return Ok(0);
    }
    // all attempts are still being decided, or the process died during them
    let oldest = oldest.map_or(now, uint);
    Ok((oldest + window_secs + 1).saturating_sub(now).max(1))
}

/// Milliseconds until the next attempt is allowed; 0: now.
fn paced(tx: &Tx<'_>, limit: &Limit, now: UnixSecs) -> Result<u64, StoreError> {
    let window_secs = limit.rule.window_secs();
    let (attempts, under_way, last): (i64, i64, Option<i64>) = tx.query_row(
        "SELECT count(*), count(*) FILTER (WHERE failed = 0 AND at > ?4), max(at) FILTER (WHERE failed = 1 OR at <= ?4)
             FROM attempt WHERE name = ?1 AND at BETWEEN ?2 AND ?3",
        params![
            limit.name,
            int(now.saturating_sub(window_secs)),
            int(now + AHEAD_SECS),
            int(now.saturating_sub(DECIDED_SECS))
        ],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
    )?;
    if uint(attempts) < limit.rule.max() && banned_until(tx, &limit.name, now)?.is_none() {
        return Ok(0);
    }
    if under_way > 0 {
        return Ok(SOON_MILLIS);
    }
    let step_millis = (window_secs * 1000) / limit.rule.max().max(1);
    Ok(last.map_or(0, |last| (uint(last) * 1000 + step_millis).saturating_sub(now * 1000)))
}

/// Failures that count now.
fn failures(tx: &Tx<'_>, limit: &Limit, now: UnixSecs) -> Result<u64, StoreError> {
    let (from, undecided) = (now.saturating_sub(limit.rule.window_secs()), now.saturating_sub(DECIDED_SECS));
    let failures: i64 = tx.query_row(
        "SELECT count(*) FROM attempt WHERE name = ?1 AND at BETWEEN ?2 AND ?3 AND (failed = 1 OR at <= ?4)",
        params![limit.name, int(from), int(now + AHEAD_SECS), int(undecided)],
        |row| row.get(0),
    )?;
    Ok(uint(failures))
}

/// The attempt failed: bans or paces the counters that have reached their limit. Returns the names of the new ones.
pub(super) fn failed(
    tx: &Tx<'_>,
    counted: &CountedAttempt,
    now: UnixSecs,
    event: &AuditRow,
) -> Result<Vec<String>, StoreError> {
    let now = tx.agreed_time(now);
    let mut banned = Vec::new();
    for (limit, row) in counted.limits.iter().zip(&counted.rows) {
        tx.execute("UPDATE attempt SET failed = 1 WHERE id = ?1", params![row])?;
        let before = banned_until(tx, &limit.name, now)?;
        // further attempts do not prolong a ban, but they prolong pacing
        let goes_on = before.is_some() && matches!(limit.rule, Rule::Pace { .. });
        if !goes_on && failures(tx, limit, now)? < limit.rule.max() {
            continue;
        }
        tx.execute(
            "INSERT INTO ban (name, until) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET until = CASE WHEN ban.until < ?2 THEN ?2 ELSE ban.until END",
            params![limit.name, int(now + limit.rule.lasts_secs())],
        )?;
        if matches!(limit.rule, Rule::Ban { .. }) {
            tx.execute("DELETE FROM attempt WHERE name = ?1", params![&limit.name])?;
        }
        if before.is_none() {
            audit::write(tx, &AuditRow { event: "banned", detail: limit.name.clone(), ..event.clone() })?;
            banned.push(limit.name.clone());
        }
    }
    if !banned.is_empty() && !tx.is_shared() {
        drop_old_bans(tx, now)?;
    }
    Ok(banned)
}

/// The password was right: clears the attempts before it.
pub(super) fn forgive(tx: &Tx<'_>, counted: &CountedAttempt, now: UnixSecs) -> Result<(), StoreError> {
    let now = tx.agreed_time(now);
    for limit in &counted.limits {
        match limit.rule {
            Rule::Ban { .. } => {
                tx.execute("DELETE FROM attempt WHERE name = ?1", params![&limit.name])?;
            }
            Rule::Pace { .. } => {
                tx.execute(
                    "DELETE FROM attempt WHERE name = ?1 AND account = ?2",
                    params![&limit.name, &counted.account],
                )?;
                if failures(tx, limit, now)? >= limit.rule.max() {
                    continue;
                }
            }
        }
        tx.execute("DELETE FROM ban WHERE name = ?1", params![&limit.name])?;
    }
    Ok(())
}

/// Counts an attempt on an account before it is decided. `Err`: it must wait, and was not counted.
pub fn count_attempt(
    db: &mut Db,
    limits: &[Limit],
    account: &str,
    now: UnixSecs,
) -> Result<Result<CountedAttempt, Throttled>, StoreError> {
    db.write_excluding(&names(limits), |tx| count(tx, limits, account, now))
}

/// The attempt failed: bans the counters that have reached their limit. Returns the names of new bans.
pub fn attempt_failed(
    db: &mut Db,
    counted: &CountedAttempt,
    now: UnixSecs,
    event: &AuditRow,
) -> Result<Vec<String>, StoreError> {
    db.write_excluding(&counted.names(), |tx| {
        audit::write(tx, event)?;
        failed(tx, counted, now, event)
    })
}

/// The attempt succeeded: clears it.
pub fn attempt_right(db: &mut Db, counted: &CountedAttempt, now: UnixSecs) -> Result<(), StoreError> {
    db.write_excluding(&counted.names(), |tx| forgive(tx, counted, now))
}

/// The clock was set: shifts attempts and bans, so that they last as long as they would have.
pub fn follow_clock(db: &mut Db, expected: UnixSecs, found: UnixSecs) -> Result<(), StoreError> {
    if db.is_shared() {
        // they follow the database's clock
        return Ok(());
    }
    db.write(|tx| {
        let by = int(found) - int(expected);
        tx.execute(
            "UPDATE attempt SET at = at + ?2, until = until + ?2 WHERE at <= ?1 + ?3 AND until >= ?1",
            params![int(expected), by, int(AHEAD_SECS)],
        )?;
        tx.execute("UPDATE ban SET until = until + ?2 WHERE until > ?1", params![int(expected), by])?;
        Ok(())
    })
}

/// The current bans and when they end (Unix seconds).
pub fn bans(db: &mut Db, now: UnixSecs) -> Result<Vec<(String, UnixSecs)>, StoreError> {
    db.read(|tx| {
        Ok(tx.query_map("SELECT name, until FROM ban WHERE until > ?1 ORDER BY name", params![int(now)], |row| {
            Ok((row.get(0)?, uint(row.get(1)?)))
        })?)
    })
}

/// Lifts bans and clears attempts of these names, of every device for `email`, and of every session of `user`
/// (`user:ID`). Returns the number of bans lifted.
pub fn lift(
    db: &mut Db,
    names: &[String],
    email: Option<&str>,
    user: Option<&str>,
    event: &AuditRow,
) -> Result<usize, StoreError> {
    db.write(|tx| {
        let mut lifted = 0;
        for name in names {
            lifted += tx.execute("DELETE FROM ban WHERE name = ?1", params![name])?;
            tx.execute("DELETE FROM attempt WHERE name = ?1", params![name])?;
        }
        if let Some(email) = email {
            let ends_so = "name LIKE 'device:%' AND substr(name, length(name) - length(?1)) = ':' || ?1";
            lifted += tx.execute(&format!("DELETE FROM ban WHERE {ends_so}"), params![email])?;
            tx.execute(&format!("DELETE FROM attempt WHERE {ends_so}"), params![email])?;
        }
        if let Some(user) = user {
            let begins_so = "substr(name, 1, length(?1) + 1) = ?1 || ':'";
            lifted += tx.execute(&format!("DELETE FROM ban WHERE {begins_so}"), params![user])?;
            tx.execute(&format!("DELETE FROM attempt WHERE {begins_so}"), params![user])?;
        }
        if lifted > 0 {
            audit::write(tx, event)?;
        }
        Ok(lifted)
    })
}

#[cfg(test)]
mod tests {
    use super::super::Check;
    use super::*;
    use crate::store::purge;

    const LIMIT: u32 = 3;

    fn limit(name: &str) -> [Limit; 1] {
        [Limit { name: name.to_owned(), rule: Rule::Ban { max: LIMIT, find_secs: 100, ban_secs: 50 } }]
    }

    fn pace(name: &str) -> [Limit; 1] {
        [Limit { name: name.to_owned(), rule: Rule::Pace { max: LIMIT, window_secs: 30 } }]
    }

    fn open() -> (tempfile::TempDir, Db) {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(dir.path(), Check::Version).unwrap();
        (dir, db)
    }

    fn fail(db: &mut Db, name: &str, now: u64) -> Result<usize, u64> {
        try_wrong(db, &limit(name), "", now).map_err(|wait_millis| wait_millis / 1000)
    }

    /// How many bans it led to, or the wait in milliseconds.
    fn try_wrong(db: &mut Db, limits: &[Limit], account: &str, now: u64) -> Result<usize, u64> {
        let counted = count_attempt(db, limits, account, now).unwrap().map_err(|throttled| throttled.wait_millis)?;
        Ok(attempt_failed(db, &counted, now, &AuditRow::default()).unwrap().len())
    }

    /// Whether it was let through, or the wait in milliseconds.
    fn try_right(db: &mut Db, limits: &[Limit], account: &str, now: u64) -> Result<(), u64> {
        let counted = count_attempt(db, limits, account, now).unwrap().map_err(|throttled| throttled.wait_millis)?;
        attempt_right(db, &counted, now).unwrap();
        Ok(())
    }

    #[test]
    fn what_is_shared_is_slowed_and_an_accounts_success_forgives_what_failed_for_it() {
        let (_dir, mut db) = open();
        let shared = pace("address:x");
        assert_eq!(["a", "b"].map(|of| try_wrong(&mut db, &shared, of, 0)), [Ok(0), Ok(0)]);
        assert_eq!(try_right(&mut db, &shared, "a", 1), Ok(()));
        assert_eq!(["c", "d"].map(|of| try_wrong(&mut db, &shared, of, 1)), [Ok(0), Ok(1)]);
        // one try in ten seconds from now on; one that succeeds costs nothing
        assert_eq!([2, 10].map(|at| try_wrong(&mut db, &shared, "e", at)), [Err(9000), Err(1000)]);
        assert_eq!(["x", "y"].map(|of| try_right(&mut db, &shared, of, 11)), [Ok(()), Ok(())]);
        assert_eq!(["e", "f"].map(|of| try_wrong(&mut db, &shared, of, 11)), [Ok(0), Err(10_000)]);
        // until nothing failed for the whole window, though the first failures are past
        assert_eq!([21, 31, 41].map(|at| try_wrong(&mut db, &shared, "g", at)), [Ok(0); 3]);
        assert_eq!([41, 71].map(|at| try_wrong(&mut db, &shared, "h", at)), [Err(10_000), Ok(0)]);
        assert_eq!([72, 72, 72].map(|at| try_wrong(&mut db, &shared, "h", at)), [Ok(0), Ok(1), Err(10_000)]);
        // or was forgiven
        assert_eq!(bans(&mut db, 72).unwrap(), [("address:x".to_owned(), 102)]);
        assert_eq!(try_right(&mut db, &shared, "h", 82), Ok(()));
        assert_eq!((bans(&mut db, 82).unwrap(), try_wrong(&mut db, &shared, "i", 82)), (vec![], Ok(0)));
    }

    #[test]
    fn in_what_is_slowed_one_try_is_under_way_at_a_time_and_a_dead_process_stops_it_not_for_long() {
        let (_dir, mut db) = open();
        let shared = [Limit { name: "address:x".to_owned(), rule: Rule::Pace { max: LIMIT, window_secs: 90 } }];
        for of in ["a", "b", "c"] {
            let _ = try_wrong(&mut db, &shared, of, 0);
        }
        assert!(count_attempt(&mut db, &shared, "d", 30).unwrap().is_ok());
        assert_eq!([30, 40, 59].map(|at| try_right(&mut db, &shared, "e", at)), [Err(1000); 3]);
        assert_eq!(try_right(&mut db, &shared, "e", 60), Ok(()), "as if it had failed");
    }

    #[test]
    fn tries_that_are_not_decided_slow_nothing_down() {
        let (_dir, mut db) = open();
        let shared = pace("address:x");
        let begun: Vec<_> = ["a", "b"].map(|of| count_attempt(&mut db, &shared, of, 100).unwrap().unwrap()).into();
        assert_eq!(try_wrong(&mut db, &shared, "c", 100), Ok(0));
        for counted in &begun {
            attempt_right(&mut db, counted, 101).unwrap();
        }
        assert_eq!(["d", "e"].map(|of| try_wrong(&mut db, &shared, of, 101)), [Ok(0), Ok(1)]);
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
    fn tries_that_no_one_finished_count_until_the_window_passes() {
        let (_dir, mut db) = open();
        let mut begin = |now| {
            count_attempt(&mut db, &limit("a"), "", now).unwrap().map(|_| ()).map_err(|throttled| throttled.wait_secs())
        };
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
            let throttled = count_attempt(&mut db, &both, "", 3).unwrap().unwrap_err();
            assert_eq!((throttled.wait_secs(), throttled.names), (49, vec!["account:a".to_owned()]));
        }
        assert_eq!([4, 5, 6].map(|at| fail(&mut db, "address:x", at)), [Ok(0), Ok(0), Ok(1)]);
    }

    #[test]
    fn old_rows_go_so_that_the_tables_stay_small() {
        let (_dir, mut db) = open();
        for n in 0..500u64 {
            let _ = fail(&mut db, &format!("a{n}"), n * 10);
        }
        let rows: i64 = db.connection().query_row("SELECT count(*) FROM attempt", [], |row| row.get(0)).unwrap();
        assert!(rows <= 11, "{rows}");
        purge::expired_rows(&mut db, 1_000_000, 100).unwrap();
        let rows: i64 = db.connection().query_row("SELECT count(*) FROM attempt", [], |row| row.get(0)).unwrap();
        assert_eq!(rows, 0);
    }

    #[test]
    fn lifting_by_email_reaches_its_browsers_and_no_one_elses() {
        let (_dir, mut db) = open();
        for name in ["device:x:a@example.com", "device:y:aa@example.com", "account:a@example.com"] {
            for at in 0..3 {
                let _ = fail(&mut db, name, at);
            }
        }
        let lifted =
            lift(&mut db, &["account:a@example.com".to_owned()], Some("a@example.com"), None, &AuditRow::default());
        assert_eq!(lifted, Ok(2));
        assert_eq!(bans(&mut db, 3).unwrap(), [("device:y:aa@example.com".to_owned(), 52)]);
    }
}
