//! Sessions as rows. Ended ones are first marked, so that a running gateway notices, and purged later.

use super::audit::{self, AuditRow};
use super::convert::{int, uint};
use super::db::Db;
use super::devices::{self, ONCE_SECS};
use super::error::StoreError;
use super::noted;
use super::sql::{OptionalRow, Row, SqlError, Tx, Value, params};
use super::user_rows::{self, UserRow};
use crate::clock::UnixSecs;

/// Maximum active sessions per account. Beyond it the least recently used ones end, those that were used only once
/// first: a program that signs in repeatedly does not sign people out.
pub(super) const SESSIONS_MAX: u32 = 500;
/// Last-seen times in one statement.
pub(super) const SEEN_AT_ONCE: usize = 500;
/// A session with its account.
#[derive(Debug, Clone)]
pub struct SessionRow {
    /// Public id.
    pub id: String,
    /// `None`: the account was removed.
    pub user: Option<UserRow>,
    /// When it began.
    pub created: UnixSecs,
    /// When it expires.
    pub expires: UnixSecs,
    /// Last request that was written.
    pub seen: UnixSecs,
    /// Whether the cookie is persistent.
    pub remember: bool,
    /// Address at sign-in; empty on a Unix socket.
    pub address: String,
    /// User-Agent at sign-in.
    pub user_agent: String,
    /// Signed out, revoked, or its account was removed.
    pub ended: bool,
    /// Name of the provider that it began with.
    pub provider: Option<String>,
}

/// A session to begin.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct NewSession {
    pub id: String,
    pub expires: UnixSecs,
    pub remember: bool,
    pub address: String,
    pub user_agent: String,
    /// Id of the session that the browser presented: it ends.
    pub replaces: Option<String>,
    /// SHA-256 of the device cookie that the browser gets or keeps.
    pub device: [u8; 32],
    /// The identity that it begins with.
    pub identity: Option<SessionIdentity>,
    /// When the person proved who they are; 0: not known.
    pub authenticated: UnixSecs,
}

/// The identity that a session began with.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct SessionIdentity {
    pub provider: String,
    pub subject: String,
    /// The provider's own session.
    pub idp_sid: Option<String>,
}

/// Which sessions of an account a change ends.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub enum SessionEnd<'a> {
    None,
    All,
    AllBut(&'a str),
}

/// Selects sessions.
#[derive(Debug, Clone, Copy)]
pub enum SessionSelector<'a> {
    /// This session, of any account.
    Session(&'a str),
    /// This session (first), if it belongs to this account (second).
    SessionOf(&'a str, &'a str),
    /// All sessions of an account.
    User(&'a str),
    /// All sessions of an account but one.
    UserBut(&'a str, &'a str),
    /// All sessions that began with an identity: provider, subject.
    Identity(&'a str, &'a str),
    /// All sessions.
    Everybody,
}

pub(super) const COLUMNS: &str = "session.id, session.created, session.expires, session.seen, session.remember, \
     session.address, session.user_agent, session.ended_at IS NOT NULL, user.id IS NOT NULL, session.provider";

/// Reads [`COLUMNS`] followed by the account's columns.
pub(super) fn from_row(row: &Row<'_>) -> Result<SessionRow, SqlError> {
    let user = if row.get(8)? { Some(user_rows::from_row(row, 10)?) } else { None };
    Ok(SessionRow {
        id: row.get(0)?,
        created: uint(row.get(1)?),
        expires: uint(row.get(2)?),
        seen: uint(row.get(3)?),
        remember: row.get(4)?,
        address: row.get(5)?,
        user_agent: row.get(6)?,
        ended: row.get(7)?,
        provider: row.get(9)?,
        user,
    })
}

pub(super) fn end_of_user(tx: &Tx<'_>, id: &str, ends: SessionEnd<'_>, now: UnixSecs) -> Result<usize, StoreError> {
    match ends {
        SessionEnd::None => Ok(0),
        SessionEnd::All => end(tx, SessionSelector::User(id), now),
        SessionEnd::AllBut(kept) => end(tx, SessionSelector::UserBut(id, kept), now),
    }
}

pub(super) fn end(tx: &Tx<'_>, selector: SessionSelector<'_>, now: UnixSecs) -> Result<usize, StoreError> {
    let (condition, first, second) = match selector {
        SessionSelector::Session(id) => ("id = ?3 AND ?4 = ''", id, ""),
        SessionSelector::SessionOf(id, user) => ("id = ?3 AND user_id = ?4", id, user),
        SessionSelector::User(user) => ("user_id = ?3 AND ?4 = ''", user, ""),
        SessionSelector::UserBut(user, kept) => ("user_id = ?3 AND id <> ?4", user, kept),
        SessionSelector::Identity(provider, subject) => ("provider = ?3 AND subject = ?4", provider, subject),
        SessionSelector::Everybody => ("?3 = '' AND ?4 = ''", "", ""),
    };
    if tx.notes_ends && matches!(selector, SessionSelector::User(_) | SessionSelector::Everybody) {
        return noted::end(tx, first);
    }
    let sql = format!("UPDATE session SET ended_at = ?1, rev = ?2 WHERE ended_at IS NULL AND {condition}");
    Ok(tx.execute(&sql, params![int(now), tx.rev()?, first, second])?)
}

/// Ends an account's sessions beyond the bound, but never `kept`.
pub(super) fn end_beyond_bound(tx: &Tx<'_>, user_id: &str, kept: &str, now: UnixSecs) -> Result<usize, StoreError> {
    let sql = "UPDATE session SET ended_at = ?1, rev = ?2 WHERE id IN (SELECT id FROM session
               WHERE user_id = ?3 AND ended_at IS NULL AND id <> ?4
               ORDER BY seen > created + ?6 DESC, seen DESC, rev DESC, id LIMIT 1000000000 OFFSET ?5)";
    Ok(tx.execute(sql, params![int(now), tx.rev()?, user_id, kept, SESSIONS_MAX - 1, ONCE_SECS])?)
}

pub(super) fn insert(tx: &Tx<'_>, user_id: &str, new: &NewSession, now: UnixSecs) -> Result<(), StoreError> {
    if let Some(old) = &new.replaces {
        end(tx, SessionSelector::Session(old), now)?;
    }
    tx.execute(
        "INSERT INTO session (id, user_id, created, expires, seen, remember, address, user_agent, rev, device,
             provider, subject, idp_sid, authenticated)
         VALUES (?1, ?2, ?3, ?4, ?3, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
        params![
            new.id,
            user_id,
            int(now),
            int(new.expires),
            new.remember,
            new.address,
            new.user_agent,
            tx.rev()?,
            new.device,
            new.identity.as_ref().map(|identity| &identity.provider),
            new.identity.as_ref().map(|identity| &identity.subject),
            new.identity.as_ref().and_then(|identity| identity.idp_sid.as_ref()),
            int(new.authenticated)
        ],
    )?;
    let provider = new.identity.as_ref().map(|identity| identity.provider.as_str());
    devices::remember(tx, &new.device, user_id, provider, now)
}

/// Whether an active session began with this identity, in the same session of the provider, at most so long ago.
pub(super) fn began_with(
    tx: &Tx<'_>,
    id: &str,
    SessionIdentity { provider, subject, idp_sid }: &SessionIdentity,
    authenticated: UnixSecs,
    now: UnixSecs,
    within_secs: u64,
) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM session WHERE id = ?1 AND provider = ?2 AND subject = ?3
               AND ended_at IS NULL AND expires > ?4 AND created BETWEEN ?5 AND ?4 AND authenticated >= ?6 AND idp_sid IS NOT DISTINCT FROM ?7)";
    let since = int(now.saturating_sub(within_secs));
    let proved = int(authenticated.saturating_sub(within_secs));
    Ok(tx.query_row(sql, params![id, provider, subject, int(now), since, proved, idp_sid], |row| row.get(0))?)
}

/// Whether a session of this account is active; its idle limit is not asked for.
pub(super) fn is_active(tx: &Tx<'_>, id: &str, user_id: &str, now: UnixSecs) -> Result<bool, StoreError> {
    let sql =
        "SELECT EXISTS (SELECT 1 FROM session WHERE id = ?1 AND user_id = ?2 AND ended_at IS NULL AND expires > ?3)";
    Ok(tx.query_row(sql, params![id, user_id, int(now)], |row| row.get(0))?)
}

/// E-mail of the account of an active session; `None`: it has ended or expired, or its account is disabled.
pub(super) fn active_email(tx: &Tx<'_>, id: &str, now: UnixSecs) -> Result<Option<String>, StoreError> {
    let sql = "SELECT email FROM session JOIN user ON user.id = user_id
               WHERE session.id = ?1 AND ended_at IS NULL AND expires > ?2 AND disabled = 0";
    Ok(tx.query_row(sql, params![id, int(now)], |row| row.get(0)).optional()?)
}

/// Ends sessions; returns how many.
pub fn end_sessions(
    db: &mut Db,
    selector: SessionSelector<'_>,
    now: UnixSecs,
    event: &AuditRow,
) -> Result<usize, StoreError> {
    db.write_end_of_sessions(|tx| {
        let ended = end(tx, selector, now)?;
        if ended > 0 {
            audit::write(tx, event)?;
        }
        Ok(ended)
    })
}

/// Sessions that have not ended and are not past their absolute limit, newest first.
pub fn list(db: &mut Db, user_id: Option<&str>, now: UnixSecs) -> Result<Vec<SessionRow>, StoreError> {
    db.read(|tx| {
        // two statements: with `OR` one account's sessions would be searched among everybody's
        let condition = if user_id.is_some() { "user_id = ?2" } else { "?2 IS NULL" };
        let sql = format!(
            "SELECT {COLUMNS}, {} FROM session JOIN user ON user.id = session.user_id
             WHERE ended_at IS NULL AND expires > ?1 AND {condition} AND NOT {}
             ORDER BY session.created DESC, session.id",
            user_rows::COLUMNS,
            noted::IS_OVER
        );
        Ok(tx.query_map(&sql, params![int(now), user_id], from_row)?)
    })
}

/// Deletes sessions that ended or expired more than an hour ago (`idle_secs` is the idle limit), among the next few
/// thousand rows after the one with the id `after`, and limits active ones to `max_age_secs`. Gives the last id visited; `None`:
/// there were no more. In steps, because sign-ins wait for the store; after only an hour, because repeated sign-ins
/// leave thousands of rows per hour.
pub fn purge_sessions(
    db: &mut Db,
    after: &str,
    now: UnixSecs,
    idle_secs: u64,
    max_age_secs: u64,
) -> Result<Option<String>, StoreError> {
    const ROWS: i64 = 5000;
    db.write(|tx| {
        let hour_ago = now.min(tx.agreed_time(now)).saturating_sub(3600);
        let limits = (int(hour_ago), int(hour_ago.saturating_sub(idle_secs)));
        let last: Option<String> = tx.query_row(
            "SELECT max(id) FROM (SELECT id FROM session WHERE id > ?1 ORDER BY id LIMIT ?2) AS visited",
            params![after, ROWS],
            |row| row.get(0),
        )?;
        let Some(last) = last else { return Ok(None) };
        // a shorter maximum age is permanent, even if it is raised again before the next start
        tx.execute(
            "UPDATE session SET expires = created + ?3 WHERE id > ?1 AND id <= ?2 AND expires > created + ?3",
            params![after, last, int(max_age_secs)],
        )?;
        tx.execute(
            "DELETE FROM session WHERE id > ?1 AND id <= ?2 AND (expires < ?3 OR ended_at < ?3 OR seen < ?4)",
            params![after, last, limits.0, limits.1],
        )?;
        Ok(Some(last))
    })
}

/// E-mail of the account that a session belongs to.
pub fn session_email(db: &mut Db, id: &str) -> Result<Option<String>, StoreError> {
    db.read(|tx| email_of(tx, id))
}

/// When these sessions were used last, as far as any node has written it: pairs of session id and Unix seconds.
pub fn seen(db: &mut Db, ids: &[&str]) -> Result<Vec<(String, UnixSecs)>, StoreError> {
    let mut seen = Vec::with_capacity(ids.len());
    for some in ids.chunks(SEEN_AT_ONCE) {
        let places: Vec<String> = (1..=some.len()).map(|at| format!("?{at}")).collect();
        let sql = format!("SELECT id, seen FROM session WHERE id IN ({})", places.join(", "));
        let ids: Vec<Value<'_>> = some.iter().map(|id| Value::Text(Some(id))).collect();
        let rows: Vec<(String, UnixSecs)> =
            db.read(|tx| Ok(tx.query_map(&sql, &ids, |row| Ok((row.get(0)?, uint(row.get(1)?))))?))?;
        seen.extend(rows);
    }
    Ok(seen)
}

/// Writes last-seen times: pairs of session id and Unix seconds.
pub fn write_seen(db: &mut Db, seen: &[(String, UnixSecs)]) -> Result<(), StoreError> {
    for some in seen.chunks(SEEN_AT_ONCE) {
        db.write_excluding(&[], |tx| write_seen_in(tx, "session", some))?;
    }
    Ok(())
}

/// Writes last-seen times of sessions or API tokens. In the order of the ids: several nodes write the same rows.
pub(super) fn write_seen_in(tx: &Tx<'_>, table: &str, seen: &[(String, UnixSecs)]) -> Result<(), StoreError> {
    let mut seen: Vec<(&str, i64)> = seen.iter().map(|(id, at)| (id.as_str(), int(*at))).collect();
    seen.sort_unstable();
    let rows: Vec<String> = (0..seen.len()).map(|at| format!("(?{}, ?{})", 2 * at + 1, 2 * at + 2)).collect();
    let sql = format!(
        "UPDATE {table} SET seen = v.column2 FROM (VALUES {}) AS v WHERE {table}.id = v.column1 AND {table}.seen < v.column2",
        rows.join(", ")
    );
    let params: Vec<Value<'_>> =
        seen.iter().flat_map(|(id, at)| [Value::Text(Some(id)), Value::Int(Some(*at))]).collect();
    tx.execute(&sql, &params)?;
    Ok(())
}

fn email_of(tx: &Tx<'_>, id: &str) -> Result<Option<String>, StoreError> {
    let sql = "SELECT email FROM session JOIN user ON user.id = user_id WHERE session.id = ?1 AND ended_at IS NULL";
    Ok(tx.query_row(sql, params![id], |row| row.get(0)).optional()?)
}

#[cfg(test)]
mod tests {
    use super::super::{Begun, Check, CountedAttempt, NewId, NewUser, SignIn, Written};
    use super::*;
    use crate::secret::Secret;
    use crate::store::sign_ins;
    use crate::store::users;

    #[test]
    fn beyond_the_bound_the_sessions_of_this_account_that_were_used_longest_ago_end_and_never_the_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let mut db = Db::open(dir.path(), Check::Version).unwrap();
        let event = AuditRow::default();
        let [name, picture] = [const { String::new() }; 2];
        let password = Secret::new("hash".to_owned());
        let email = "a@example.com".to_owned();
        let new = NewUser {
            id: NewId::Next,
            email,
            name,
            picture,
            groups: vec![],
            password: Some(password.clone()),
            email_proved: false,
        };
        let other = NewUser { email: "b@example.com".to_owned(), ..new.clone() };
        for new in [new, other] {
            assert!(matches!(users::add_user(&mut db, &new, 1, &event).unwrap(), Written::Done(_)));
        }
        // as many as there may be, used at 1001, 1002, ...; the clock was once set back, so these lie ahead
        let fill = format!(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {SESSIONS_MAX})
             INSERT INTO session (id, user_id, created, expires, seen, remember, address, user_agent, rev)
             SELECT user.id || '-' || i, user.id, 1, 9999, 1000 + i, 1, '', '', 1 FROM n, user"
        );
        db.connection().execute_batch(&fill).unwrap();
        let begin = |db: &mut Db, user_id: &str, id: &str| {
            let id = id.to_owned();
            let session = NewSession { id, expires: 9999, remember: true, device: [7; 32], ..NewSession::default() };
            let (user_id, checked) = (user_id.to_owned(), password.clone());
            let begins = SignIn { user_id, checked, rehashed: None, session, counted: CountedAttempt::default() };
            match sign_ins::begin_session(db, &begins, 5, &event).unwrap() {
                Begun::Yes(ended) => ended.map(|ended| format!("{} {}", ended.event, ended.detail)),
                Begun::No | Begun::Changed(_) => panic!("no session"),
            }
        };
        let one = Some(format!("sessions_ended 1 beyond {SESSIONS_MAX}"));
        assert_eq!((begin(&mut db, "1", "x"), begin(&mut db, "1", "y")), (one.clone(), one));
        let standing = |db: &mut Db, user_id: &str| {
            let rows = list(db, Some(user_id), 5).unwrap();
            rows.into_iter().map(|row| row.id).collect::<std::collections::HashSet<_>>()
        };
        let own = standing(&mut db, "1");
        // `x` was used at 5, before all others: it went for `y`
        assert_eq!(["x", "y", "1-1", "1-2"].map(|id| own.contains(id)), [false, true, false, true]);
        assert_eq!((own.len(), standing(&mut db, "2").len()), (SESSIONS_MAX as usize, SESSIONS_MAX as usize));
        assert_eq!(audit::trail(&mut db, 2).unwrap()[0].0, "sessions_ended");
        end_sessions(&mut db, SessionSelector::Session("1-9"), 5, &event).unwrap();
        assert_eq!(begin(&mut db, "1", "z"), None, "there is room");
        let plan = "EXPLAIN QUERY PLAN SELECT id FROM session WHERE user_id = '1' AND ended_at IS NULL AND id <> 'x'";
        let plan: String = db.connection().query_row(plan, [], |row| row.get(3)).unwrap();
        assert!(plan.contains("session_standing"), "those that have ended are not gone through: {plan}");
    }

    /// An account's sessions and browsers, and how a program goes on signing in to it.
    struct Busy {
        db: Db,
        _dir: tempfile::TempDir,
    }

    impl Busy {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let mut db = Db::open(dir.path(), Check::Version).unwrap();
            let [name, picture] = [const { String::new() }; 2];
            let (email, password) = ("a@example.com".to_owned(), Some(Secret::new("hash".to_owned())));
            let new = NewUser { id: NewId::Next, email, name, picture, groups: vec![], password, email_proved: false };
            assert!(matches!(users::add_user(&mut db, &new, 1, &AuditRow::default()).unwrap(), Written::Done(_)));
            Self { db, _dir: dir }
        }

        fn begin(&mut self, id: &str, device: u16, now: u64) {
            let [address, user_agent] = [const { String::new() }; 2];
            let mut hash = [0; 32];
            hash[..2].copy_from_slice(&device.to_be_bytes());
            let (id, expires) = (id.to_owned(), now + 1_000_000);
            let session = NewSession {
                id,
                expires,
                remember: true,
                address,
                user_agent,
                replaces: None,
                device: hash,
                identity: None,
                authenticated: now,
            };
            let checked = Secret::new("hash".to_owned());
            let counted = CountedAttempt::default();
            let begins = SignIn { user_id: "1".to_owned(), checked, rehashed: None, session, counted };
            assert!(matches!(
                sign_ins::begin_session(&mut self.db, &begins, now, &AuditRow::default()),
                Ok(Begun::Yes(_))
            ));
        }

        fn stands(&mut self, id: &str) -> bool {
            list(&mut self.db, Some("1"), 1).unwrap().iter().any(|row| row.id == id)
        }

        fn knows(&mut self, device: u16) -> bool {
            let mut hash = [0; 32];
            hash[..2].copy_from_slice(&device.to_be_bytes());
            devices::knows_device(&mut self.db, &hash, "a@example.com").unwrap()
        }
    }

    /// A job that signs in every few minutes, and keeps nothing of it.
    #[test]
    fn a_program_that_signs_in_again_and_again_ends_no_session_and_forgets_no_browser_that_came_back() {
        let mut busy = Busy::new();
        busy.begin("used", 1, 1000);
        busy.begin("once", 2, 1001);
        busy.begin("back", 3, 1002);
        busy.begin("back again", 3, 1003);
        write_seen(&mut busy.db, &[("used".to_owned(), 9000)]).unwrap();
        for n in 0..600 {
            busy.begin(&format!("job {n}"), 1000 + n, 10_000 + u64::from(n));
        }
        assert_eq!(
            ["used", "once", "back again", "job 0", "job 599"].map(|id| busy.stands(id)),
            [true, false, false, false, true]
        );
        assert_eq!([1, 2, 3, 1000, 1599].map(|device| busy.knows(device)), [true, false, true, false, true]);
        let devices: i64 = busy.db.connection().query_row("SELECT count(*) FROM device", [], |row| row.get(0)).unwrap();
        assert_eq!(devices, 502);
        // of those that came back the fifty that were seen last
        for n in 0..60 {
            busy.begin("", 1540 + n, 20_000 + u64::from(n));
            busy.db.connection().execute("DELETE FROM session WHERE id = ''", []).unwrap();
        }
        assert_eq!([3, 1549, 1550].map(|device| busy.knows(device)), [false, false, true]);
    }

    #[test]
    fn sessions_that_are_past_are_removed_in_steps_and_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let mut db = Db::open(dir.path(), Check::Version).unwrap();
        let now = 1_000_000;
        let fill = format!(
            "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 11999)
             INSERT INTO session (id, created, expires, seen, remember, address, user_agent, ended_at, rev)
             SELECT i, iif(i % 5 = 4, {0} - 9001, {now}), iif(i % 5 = 1, {0} - 1, {now} + 1), iif(i % 5 = 2, {0} - 8, {now}), 1, '', '',
                    iif(i % 5 = 3, {0} - 1, NULL), 1 FROM n",
            now - 3600
        );
        db.connection().execute_batch(&fill).unwrap();
        let (mut next, mut steps) = (Some(String::new()), 0);
        while let Some(after) = next {
            next = purge_sessions(&mut db, &after, now, 7, 9000).unwrap();
            steps += 1;
        }
        let left = "SELECT count(*), sum(id % 5) FROM session";
        let left: (i64, i64) = db.connection().query_row(left, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        assert_eq!((left, steps), ((2400, 0), 4));
    }
}
