//! Browsers that have signed in before: each has a throttle count of its own for the accounts it
//! knows. Only hashes of their cookies are kept.

use rusqlite::{Connection, params};

use super::convert::int;
use super::db::Db;
use super::error::StoreError;
use crate::clock::UnixSecs;

/// Devices that an account remembers of those that came back; the ones unseen for longest are forgotten first.
const PER_USER_MAX: u32 = 50;
/// And of those that signed in once, and whose session (if it stands) was used once only: a program that signs in again and
/// again, as a new device each time, puts nobody's browser out.
const ONCE_MAX: u32 = 500;

/// A session that was used no later than so many seconds after it began was used once.
pub(super) const ONCE_SECS: u32 = 3600;

pub(super) fn remember(tx: &Connection, hash: &[u8; 32], user_id: &str, now: UnixSecs) -> Result<(), StoreError> {
    tx.prepare_cached(
        "INSERT INTO device (hash, user_id, seen, came_back) VALUES (?1, ?2, ?3, 0)
         ON CONFLICT (hash, user_id) DO UPDATE SET seen = ?3, came_back = 1",
    )?
    .execute(params![hash, user_id, int(now)])?;
    tx.prepare_cached(
        "DELETE FROM device WHERE user_id = ?1 AND came_back = 1 AND hash NOT IN
         (SELECT hash FROM device WHERE user_id = ?1 AND came_back = 1 ORDER BY seen DESC LIMIT ?2)",
    )?
    .execute(params![user_id, PER_USER_MAX])?;
    tx.prepare_cached(
        "DELETE FROM device WHERE user_id = ?1 AND came_back = 0 AND hash NOT IN
         (SELECT hash FROM device WHERE user_id = ?1 AND came_back = 0 ORDER BY seen DESC, hash LIMIT ?2)
         AND hash NOT IN (SELECT device FROM session
         WHERE user_id = ?1 AND ended_at IS NULL AND device IS NOT NULL AND seen > created + ?3)",
    )?
    .execute(params![user_id, ONCE_MAX, ONCE_SECS])?;
    Ok(())
}

/// Forgets all devices that an account knows, but `kept`.
pub(super) fn forget(tx: &Connection, user_id: &str, kept: Option<&[u8; 32]>) -> Result<(), StoreError> {
    let sql = "DELETE FROM device WHERE user_id = ?1 AND (?2 IS NULL OR hash <> ?2)";
    tx.prepare_cached(sql)?.execute(params![user_id, kept])?;
    Ok(())
}

/// Who signed in last at a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LastHere {
    /// No account knows it.
    Nobody,
    /// The account with this id.
    One(String),
    /// Several, within a second.
    Several,
}

/// Whether the account with this e-mail knows this device.
pub fn knows_device(db: &mut Db, hash: &[u8; 32], of: &str) -> Result<bool, StoreError> {
    db.read(|tx| {
        let sql = "SELECT EXISTS (SELECT 1 FROM device JOIN user ON user.id = device.user_id
                   WHERE hash = ?1 AND user.email = ?2)";
        Ok(tx.prepare_cached(sql)?.query_row(params![hash, of], |row| row.get(0))?)
    })
}

/// Who signed in last at this device.
pub fn last_at_device(db: &mut Db, hash: &[u8; 32]) -> Result<LastHere, StoreError> {
    db.read(|tx| {
        let sql = "SELECT user_id FROM device WHERE hash = ?1
                   AND seen = (SELECT max(seen) FROM device WHERE hash = ?1) LIMIT 2";
        let mut sql = tx.prepare_cached(sql)?;
        let mut rows = sql.query_map(params![hash], |row| row.get(0))?;
        Ok(match (rows.next().transpose()?, rows.next()) {
            (None, _) => LastHere::Nobody,
            (Some(id), None) => LastHere::One(id),
            (Some(_), Some(_)) => LastHere::Several,
        })
    })
}
