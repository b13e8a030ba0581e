//! Changes since last time, whoever made them: how a running gateway learns what commands in
//! other processes did, and how those commands learn that it is in force.

use std::collections::HashSet;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row};

use super::api_tokens::{self, ApiTokenRow};
use super::convert::{int, uint};
use super::db::Db;
use super::error::StoreError;
use super::keys::{self, KeyRow};
use super::noted;
use crate::clock::UnixSecs;

/// One thing that changed, as it is now. Handed on row by row: there may be a million of them.
pub enum Change<'r> {
    /// All signing keys.
    Keys(Vec<KeyRow>),
    /// A session that stands. Its account follows.
    Session(ActiveSession<'r>),
    /// The session with this id is over.
    SessionEnded(&'r str),
    /// An API token. Its account follows as a session's does.
    ApiToken(ApiTokenRow),
    /// An account; removed ones show only by their ended sessions and tokens.
    Account(Account<'r>),
    /// A backup was restored, and all that stands in it has been handed on: what has none of these ids is over.
    Restored(&'r ActiveIds),
}

/// The ids of what stands in a database.
#[derive(Debug, Default)]
#[allow(missing_docs)]
pub struct ActiveIds {
    pub sessions: HashSet<String>,
    pub api_tokens: HashSet<String>,
}

impl ActiveIds {
    fn note(&mut self, change: &Change<'_>) {
        match change {
            Change::Session(row) => drop(self.sessions.insert(row.id.to_owned())),
            Change::ApiToken(row) => drop(self.api_tokens.insert(row.id.clone())),
            _ => {}
        }
    }
}

/// What of a session every request is checked against.
#[allow(missing_docs)]
pub struct ActiveSession<'r> {
    pub id: &'r str,
    pub user_id: &'r str,
    pub created: UnixSecs,
    pub expires: UnixSecs,
    pub seen: UnixSecs,
    pub remember: bool,
    /// Number of the change with which it began.
    pub begun: u64,
}

/// What of an account backends are told.
#[allow(missing_docs)]
pub struct Account<'r> {
    pub id: &'r str,
    pub email: &'r str,
    pub name: &'r str,
    pub picture: &'r str,
    /// Joined by commas.
    pub groups: &'r str,
    pub disabled: bool,
}

/// Whether a running gateway has a change in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Applied {
    /// It has.
    Yes,
    /// No gateway serves from this folder.
    NotServed,
    /// It did not say so in time.
    NotYet,
}

fn newest(tx: &Connection) -> Result<u64, StoreError> {
    let rev = tx.prepare_cached("SELECT value FROM counter WHERE name = 'rev'")?.query_row([], |row| row.get(0))?;
    Ok(uint(rev))
}

/// The number that the database had when a backup was put into it; 0: never.
fn restored(tx: &Connection) -> Result<u64, StoreError> {
    let at = tx.prepare_cached("SELECT value FROM counter WHERE name = 'restored'")?.query_row([], |row| row.get(0));
    Ok(at.optional()?.map_or(0, uint))
}

#[cfg(test)]
pub(crate) fn newest_change(db: &mut Db) -> Result<u64, StoreError> {
    db.read(newest)
}

/// Runs a query whose one parameter is a change number.
fn each(
    tx: &Connection,
    sql: &str,
    after: i64,
    mut read: impl FnMut(&Row<'_>) -> Result<(), rusqlite::Error>,
) -> Result<(), StoreError> {
    let mut query = tx.prepare_cached(sql)?;
    let mut rows = query.query([after])?;
    while let Some(row) = rows.next()? {
        read(row)?;
    }
    Ok(())
}

fn text<'r>(row: &'r Row<'_>, at: usize) -> Result<&'r str, rusqlite::Error> {
    Ok(row.get_ref(at)?.as_str()?)
}

fn tell_keys(tx: &Connection, after: i64, tell: &mut dyn FnMut(Change<'_>)) -> Result<(), StoreError> {
    let changed: bool =
        tx.query_row("SELECT EXISTS (SELECT 1 FROM signing_key WHERE rev > ?1)", [after], |row| row.get(0))?;
    if !changed {
        return Ok(());
    }
    let mut rows = Vec::new();
    each(tx, &format!("SELECT {} FROM signing_key WHERE ?1 = ?1", keys::COLUMNS), after, |row| {
        rows.push(keys::from_row(row)?);
        Ok(())
    })?;
    tell(Change::Keys(rows));
    Ok(())
}

fn tell_sessions(tx: &Connection, after: i64, tell: &mut dyn FnMut(Change<'_>)) -> Result<(), StoreError> {
    const COLUMNS: &str =
        "id, user_id, created, expires, seen, remember, ended_at IS NULL AND user_id IS NOT NULL, rev";
    // at a start in the order in which they lie in the file, and none that is over
    let which = if after == 0 { "NOT INDEXED WHERE ended_at IS NULL AND ?1 = 0" } else { "WHERE rev > ?1" };
    each(tx, &format!("SELECT {COLUMNS} FROM session {which}"), after, |row| {
        if !row.get::<_, bool>(6)? {
            tell(Change::SessionEnded(text(row, 0)?));
            return Ok(());
        }
        tell(Change::Session(ActiveSession {
            id: text(row, 0)?,
            user_id: text(row, 1)?,
            created: uint(row.get(2)?),
            expires: uint(row.get(3)?),
            seen: uint(row.get(4)?),
            remember: row.get(5)?,
            begun: uint(row.get(7)?),
        }));
        Ok(())
    })
}

/// Accounts that changed, and those of sessions and tokens that did. At a start all: to read them in the order
/// in which they lie in the file is quicker than to look each one up.
fn tell_accounts(tx: &Connection, after: i64, tell: &mut dyn FnMut(Change<'_>)) -> Result<(), StoreError> {
    let which = if after == 0 {
        "NOT INDEXED WHERE ?1 = 0"
    } else {
        "WHERE rev > ?1 OR id IN (SELECT user_id FROM session WHERE rev > ?1 AND ended_at IS NULL)
         OR id IN (SELECT user_id FROM api_token WHERE rev > ?1 AND ended_at IS NULL)"
    };
    each(tx, &format!("SELECT id, email, name, picture, groups, disabled FROM user {which}"), after, |row| {
        tell(Change::Account(Account {
            id: text(row, 0)?,
            email: text(row, 1)?,
            name: text(row, 2)?,
            picture: text(row, 3)?,
            groups: text(row, 4)?,
            disabled: row.get(5)?,
        }));
        Ok(())
    })
}

fn tell_all(tx: &Connection, after: i64, tell: &mut dyn FnMut(Change<'_>)) -> Result<(), StoreError> {
    tell_keys(tx, after, tell)?;
    tell_sessions(tx, after, tell)?;
    noted::tell(tx, after, &mut |id| tell(Change::SessionEnded(id)))?;
    for row in api_tokens::changed_after(tx, after)? {
        tell(Change::ApiToken(row));
    }
    tell_accounts(tx, after, tell)
}

/// Tells what changed after change number `after`, and gives the number of the newest change in it; 0 tells
/// everything that is not over. After a failure what was told is true, but not all.
pub fn changes_after(db: &mut Db, after: u64, tell: &mut dyn FnMut(Change<'_>)) -> Result<Option<u64>, StoreError> {
    db.poll(|tx| {
        let rev = newest(tx)?;
        if rev <= after {
            return Ok(None);
        }
        if after == 0 || restored(tx)? <= after {
            tell_all(tx, int(after), tell)?;
        } else {
            let mut standing = ActiveIds::default();
            tell_all(tx, 0, &mut |change| {
                standing.note(&change);
                tell(change);
            })?;
            tell(Change::Restored(&standing));
        }
        Ok(Some(rev))
    })
}

/// Waits until the gateway that serves from this folder has this connection's last change in
/// force: at most 2 seconds.
pub fn wait_until_applied(db: &Db) -> Result<Applied, StoreError> {
    for _ in 0..100 {
        let is_served = db.is_served()?;
        if db.folder.applied() >= db.last_change() && is_served {
            return Ok(Applied::Yes);
        }
        if !is_served {
            return Ok(Applied::NotServed);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(Applied::NotYet)
}
