//! Change tracking, whoever made the changes: how a running gateway learns what commands in other processes did, and
//! how those commands learn that it has been applied.

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

/// One changed item, in its current state. Passed on row by row, because there may be millions.
pub enum Change<'r> {
    /// All signing keys.
    Keys(Vec<KeyRow>),
    /// An active session. Its account follows.
    Session(ActiveSession<'r>),
    /// The session with this id has ended.
    SessionEnded(&'r str),
    /// An API token. Its account follows, as for a session.
    ApiToken(ApiTokenRow),
    /// An identity, before its account.
    Identity(IdentityGroups<'r>),
    /// An account; removed ones only show as ended sessions and tokens.
    Account(Account<'r>),
    /// A backup was restored and all its active items have been passed on: everything without one of these ids has
    /// ended.
    Restored(&'r ActiveIds),
}

/// The ids of all active sessions and tokens.
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

/// The part of a session that requests are checked against.
#[allow(missing_docs)]
pub struct ActiveSession<'r> {
    pub id: &'r str,
    pub user_id: &'r str,
    pub created: UnixSecs,
    pub authenticated: UnixSecs,
    pub expires: UnixSecs,
    pub seen: UnixSecs,
    pub remember: bool,
    /// Number of the change at which it began.
    pub begun: u64,
    /// When its provider last confirmed it; `None`: at its beginning.
    pub checked: Option<UnixSecs>,
    /// Provider and subject of the identity that it began with.
    pub identity: Option<(&'r str, &'r str)>,
}

/// The part of an identity that its sessions need.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub struct IdentityGroups<'r> {
    pub user_id: &'r str,
    pub provider: &'r str,
    pub subject: &'r str,
    /// Groups besides the account's own, joined by commas.
    pub groups: &'r str,
}

/// The part of an account that requests and backends need.
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

/// Whether a running gateway has applied a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Applied {
    /// Applied.
    Yes,
    /// No gateway serves from this folder.
    NotServed,
    /// Not confirmed in time.
    NotYet,
}

fn newest(tx: &Connection) -> Result<u64, StoreError> {
    let rev = tx.prepare_cached("SELECT value FROM counter WHERE name = 'rev'")?.query_row([], |row| row.get(0))?;
    Ok(uint(rev))
}

/// The change number at which a backup was restored; 0: never.
fn restored(tx: &Connection) -> Result<u64, StoreError> {
    let at = tx.prepare_cached("SELECT value FROM counter WHERE name = 'restored'")?.query_row([], |row| row.get(0));
    Ok(at.optional()?.map_or(0, uint))
}

#[cfg(test)]
pub(crate) fn newest_change(db: &mut Db) -> Result<u64, StoreError> {
    db.read(newest)
}

/// Runs a query with one parameter, a change number.
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
    const COLUMNS: &str = "id, user_id, created, expires, seen, remember, ended_at IS NULL AND user_id IS NOT NULL, rev, provider, subject, authenticated, checked";
    // at startup in file order, and without ended ones
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
            authenticated: uint(row.get(10)?),
            expires: uint(row.get(3)?),
            seen: uint(row.get(4)?),
            remember: row.get(5)?,
            begun: uint(row.get(7)?),
            checked: row.get::<_, Option<i64>>(11)?.map(uint),
            identity: match (row.get_ref(8)?.as_str_or_null()?, row.get_ref(9)?.as_str_or_null()?) {
                (Some(provider), Some(subject)) => Some((provider, subject)),
                _ => None,
            },
        }));
        Ok(())
    })
}

/// Identities that changed, and those of changed sessions.
fn tell_identities(tx: &Connection, after: i64, tell: &mut dyn FnMut(Change<'_>)) -> Result<(), StoreError> {
    let which = if after == 0 {
        "WHERE ?1 = 0"
    } else {
        "WHERE rev > ?1 OR (provider, subject) IN (SELECT provider, subject FROM session WHERE rev > ?1
             AND ended_at IS NULL AND provider IS NOT NULL)"
    };
    each(tx, &format!("SELECT user_id, provider, subject, groups FROM identity {which}"), after, |row| {
        tell(Change::Identity(IdentityGroups {
            user_id: text(row, 0)?,
            provider: text(row, 1)?,
            subject: text(row, 2)?,
            groups: text(row, 3)?,
        }));
        Ok(())
    })
}

/// Accounts that changed, and those of changed sessions and tokens. At startup all accounts, because reading in file
/// order is faster than many lookups.
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
    tell_identities(tx, after, tell)?;
    tell_accounts(tx, after, tell)
}

/// Passes on what changed after change number `after`, and gives the newest change number; 0 passes on everything
/// that has not ended. After a failure, what was passed on is correct but incomplete.
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

/// Waits until the gateway that uses this folder has applied this connection's last change, at most 2 seconds.
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
