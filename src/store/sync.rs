//! Change tracking, whoever made the changes: how a running gateway learns what commands in other processes did, and
//! how those commands learn that it has been applied.

use std::collections::HashSet;

use super::api_tokens::{self, ApiTokenRow};
use super::convert::{int, uint};
use super::db::Db;
use super::error::StoreError;
use super::keys::{self, KeyRow};
use super::noted;
use super::sql::{OptionalRow, Tx, params};
use super::user_rows;
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
    /// All active items have been passed on again: everything without one of these ids has ended.
    Reloaded(&'r ActiveIds, Reload),
}

/// Why all items are passed on again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// A backup was restored.
    Restored,
    /// The database is another server's, or another server has taken over.
    Failover,
    /// Changes may have been purged since the last poll.
    Behind,
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

/// Which changes are passed on.
pub(super) enum Since {
    /// Everything that has not ended.
    Always,
    /// What has a higher change number.
    Change(i64),
    /// What this condition on the change number selects: SQL without parameters, `{}` for the column.
    Condition(String),
}

impl Since {
    /// The condition on a column with change numbers; `?1` is [`Self::number`].
    fn of(&self, column: &str) -> String {
        match self {
            Self::Always => "?1 = 0".to_owned(),
            Self::Change(_) => format!("{column} > ?1"),
            Self::Condition(condition) => format!("(?1 = 0 AND {})", condition.replace("{}", column)),
        }
    }

    fn number(&self) -> i64 {
        if let Self::Change(number) = self { *number } else { 0 }
    }

    fn is_always(&self) -> bool {
        matches!(self, Self::Always)
    }
}

fn tell_keys(tx: &Tx<'_>, since: &Since, tell: &mut dyn FnMut(Change<'_>)) -> Result<(), StoreError> {
    let sql = format!("SELECT EXISTS (SELECT 1 FROM signing_key WHERE {})", since.of("rev"));
    if !tx.query_row(&sql, params![since.number()], |row| row.get(0))? {
        return Ok(());
    }
    let sql = format!("SELECT {} FROM signing_key", keys::COLUMNS);
    tell(Change::Keys(tx.query_map(&sql, params![], keys::from_row)?));
    Ok(())
}

fn tell_sessions(tx: &Tx<'_>, since: &Since, tell: &mut dyn FnMut(Change<'_>)) -> Result<(), StoreError> {
    const COLUMNS: &str = "id, user_id, created, expires, seen, remember, ended_at IS NULL AND user_id IS NOT NULL, rev, provider, subject, authenticated, checked";
    // at startup in file order, and without ended ones
    let which = if since.is_always() {
        format!("{} WHERE ended_at IS NULL AND ?1 = 0", tx.unindexed())
    } else {
        format!("WHERE {}", since.of("rev"))
    };
    let sql = format!("SELECT {COLUMNS} FROM session {which}");
    tx.each(&sql, params![since.number()], |row| {
        if !row.get::<bool>(6)? {
            tell(Change::SessionEnded(row.text(0)?));
            return Ok(());
        }
        tell(Change::Session(ActiveSession {
            id: row.text(0)?,
            user_id: row.text(1)?,
            created: uint(row.get(2)?),
            authenticated: uint(row.get(10)?),
            expires: uint(row.get(3)?),
            seen: uint(row.get(4)?),
            remember: row.get(5)?,
            begun: uint(row.get(7)?),
            checked: row.get::<Option<i64>>(11)?.map(uint),
            identity: match (row.text_or_null(8)?, row.text_or_null(9)?) {
                (Some(provider), Some(subject)) => Some((provider, subject)),
                _ => None,
            },
        }));
        Ok(())
    })?;
    Ok(())
}

/// Identities that changed, and those of changed sessions.
fn tell_identities(tx: &Tx<'_>, since: &Since, tell: &mut dyn FnMut(Change<'_>)) -> Result<(), StoreError> {
    let changed = since.of("rev");
    let which = if since.is_always() {
        changed
    } else {
        format!(
            "{changed} OR (provider, subject) IN (SELECT provider, subject FROM session WHERE {changed}
             AND ended_at IS NULL AND provider IS NOT NULL)"
        )
    };
    let sql = format!("SELECT user_id, provider, subject, groups FROM identity WHERE {which}");
    tx.each(&sql, params![since.number()], |row| {
        tell(Change::Identity(IdentityGroups {
            user_id: row.text(0)?,
            provider: row.text(1)?,
            subject: row.text(2)?,
            groups: row.text(3)?,
        }));
        Ok(())
    })?;
    Ok(())
}

/// Accounts that changed, and those of changed sessions and tokens. At startup all accounts, because reading in file
/// order is faster than many lookups.
fn tell_accounts(tx: &Tx<'_>, since: &Since, tell: &mut dyn FnMut(Change<'_>)) -> Result<(), StoreError> {
    let changed = since.of("rev");
    let which = if since.is_always() {
        format!("{} WHERE {changed}", tx.unindexed())
    } else {
        format!(
            "WHERE {changed} OR id IN (SELECT user_id FROM session WHERE {changed} AND ended_at IS NULL)
             OR id IN (SELECT user_id FROM api_token WHERE {changed} AND ended_at IS NULL)"
        )
    };
    let sql = format!("SELECT id, email, name, picture, groups, disabled FROM user {which}");
    tx.each(&sql, params![since.number()], |row| {
        tell(Change::Account(Account {
            id: row.text(0)?,
            email: row.text(1)?,
            name: row.text(2)?,
            picture: row.text(3)?,
            groups: row.text(4)?,
            disabled: row.get(5)?,
        }));
        Ok(())
    })?;
    Ok(())
}

fn tell_api_tokens(tx: &Tx<'_>, since: &Since, tell: &mut dyn FnMut(Change<'_>)) -> Result<(), StoreError> {
    let sql = format!(
        "SELECT {}, {} FROM api_token LEFT JOIN user ON user.id = api_token.user_id WHERE {}{}",
        api_tokens::COLUMNS,
        user_rows::COLUMNS,
        since.of("api_token.rev"),
        if since.is_always() { " AND api_token.ended_at IS NULL" } else { "" }
    );
    let rows: Vec<ApiTokenRow> = tx.query_map(&sql, params![since.number()], api_tokens::from_row)?;
    for row in rows {
        tell(Change::ApiToken(row));
    }
    Ok(())
}

/// Passes on what changed.
pub(super) fn tell_all(tx: &Tx<'_>, since: &Since, tell: &mut dyn FnMut(Change<'_>)) -> Result<(), StoreError> {
    tell_keys(tx, since, tell)?;
    tell_sessions(tx, since, tell)?;
    noted::tell(tx, since.number(), &mut |id| tell(Change::SessionEnded(id)))?;
    tell_api_tokens(tx, since, tell)?;
    tell_identities(tx, since, tell)?;
    tell_accounts(tx, since, tell)
}

/// Passes on everything that has not ended, and then which ids these were.
pub(super) fn tell_again(tx: &Tx<'_>, why: Reload, tell: &mut dyn FnMut(Change<'_>)) -> Result<(), StoreError> {
    let mut active = ActiveIds::default();
    tell_all(tx, &Since::Always, &mut |change| {
        active.note(&change);
        tell(change);
    })?;
    tell(Change::Reloaded(&active, why));
    Ok(())
}

fn newest(tx: &Tx<'_>) -> Result<u64, StoreError> {
    Ok(uint(tx.query_row("SELECT value FROM counter WHERE name = 'rev'", params![], |row| row.get(0))?))
}

/// The change number at which a backup was restored; 0: never.
fn restored(tx: &Tx<'_>) -> Result<u64, StoreError> {
    let at = tx.query_row("SELECT value FROM counter WHERE name = 'restored'", params![], |row| row.get(0));
    Ok(at.optional()?.map_or(0, uint))
}

#[cfg(test)]
pub(crate) fn newest_change(db: &mut Db) -> Result<u64, StoreError> {
    db.read(newest)
}

/// Passes on what changed in an `SQLite` database after change number `after`, and gives the newest change number; 0
/// passes on everything that has not ended. After a failure, what was passed on is correct but incomplete.
pub(super) fn changes_after(
    db: &mut Db,
    after: u64,
    tell: &mut dyn FnMut(Change<'_>),
) -> Result<Option<u64>, StoreError> {
    db.poll(|tx| {
        let rev = newest(tx)?;
        if rev <= after {
            return Ok(None);
        }
        if after == 0 {
            tell_all(tx, &Since::Always, tell)?;
        } else if restored(tx)? <= after {
            tell_all(tx, &Since::Change(int(after)), tell)?;
        } else {
            tell_again(tx, Reload::Restored, tell)?;
        }
        Ok(Some(rev))
    })
}
