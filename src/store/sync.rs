//! Changes since last time, whoever made them: how a running gateway learns what commands in
//! other processes did, and how those commands learn that it is in force.

use std::time::Duration;

use rusqlite::Connection;

use super::db::Db;
use super::{ApiTokenRow, KeyRow, SessionRow, StoreError, UserRow, api_tokens, int, keys, sessions, uint, users};

/// Rows that changed.
#[derive(Default)]
pub struct Changes {
    /// Number of the newest change in it.
    pub rev: u64,
    /// Accounts, as they are now; removed ones show only by their ended sessions.
    pub users: Vec<UserRow>,
    /// Sessions, as they are now.
    pub sessions: Vec<SessionRow>,
    /// API tokens, as they are now.
    pub api_tokens: Vec<ApiTokenRow>,
    /// All signing keys, if any of them changed.
    pub keys: Option<Vec<KeyRow>>,
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

fn collect<T>(
    tx: &Connection,
    sql: &str,
    after: i64,
    read: impl FnMut(&rusqlite::Row<'_>) -> Result<T, rusqlite::Error>,
) -> Result<Vec<T>, StoreError> {
    let mut query = tx.prepare_cached(sql)?;
    let rows = query.query_map([after], read)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

impl Db {
    /// What changed after change number `after`; 0 gives everything that is not over.
    pub fn changes_after(&mut self, after: u64) -> Result<Option<Changes>, StoreError> {
        self.read(|tx| {
            let rev = newest(tx)?;
            if rev <= after {
                return Ok(None);
            }
            let at = int(after);
            let user_columns = users::COLUMNS;
            let keys_changed: bool =
                tx.query_row("SELECT EXISTS (SELECT 1 FROM signing_key WHERE rev > ?1)", [at], |row| row.get(0))?;
            let keys = if keys_changed {
                Some(collect(
                    tx,
                    &format!("SELECT {} FROM signing_key WHERE ?1 = ?1", keys::COLUMNS),
                    at,
                    keys::from_row,
                )?)
            } else {
                None
            };
            Ok(Some(Changes {
                rev,
                users: if after == 0 {
                    Vec::new() // the sessions bring those along that matter
                } else {
                    let sql = format!("SELECT {user_columns} FROM user WHERE rev > ?1");
                    collect(tx, &sql, at, |row| users::from_row(row, 0))?
                },
                sessions: collect(
                    tx,
                    &format!(
                        "SELECT {}, {user_columns} FROM session LEFT JOIN user ON user.id = session.user_id
                         WHERE session.rev > ?1 AND (?1 > 0 OR session.ended_at IS NULL)",
                        sessions::COLUMNS
                    ),
                    at,
                    sessions::from_row,
                )?,
                api_tokens: api_tokens::changed_after(tx, at)?,
                keys,
            }))
        })
    }

    /// Waits until the gateway that serves from this folder has this connection's last change in
    /// force: at most 2 seconds.
    pub fn wait_until_applied(&self) -> Result<Applied, StoreError> {
        for _ in 0..100 {
            if self.folder.applied() >= self.last_change() && self.folder.is_served()? {
                return Ok(Applied::Yes);
            }
            if !self.folder.is_served()? {
                return Ok(Applied::NotServed);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Applied::NotYet)
    }
}
