//! Known browsers: each has its own throttle counter for the accounts it has signed in to. Only hashes of their
//! cookies are stored.

use super::convert::int;
use super::db::Db;
use super::error::StoreError;
use super::sql::{Tx, params};
use crate::clock::UnixSecs;

/// Maximum returning devices per account; the least recently seen are dropped first.
const PER_USER_MAX: u32 = 50;
/// Maximum devices per account that signed in once and whose session, if active, was used only once: a program that
/// signs in repeatedly, each time as a new device, does not displace people's browsers.
const ONCE_MAX: u32 = 500;

/// A session last used within this many seconds of its start counts as used once.
pub(super) const ONCE_SECS: u32 = 3600;

/// Remembers a sign-in. `provider`: the one it was through.
pub(super) fn remember(
    tx: &Tx<'_>,
    hash: &[u8; 32],
    user_id: &str,
    provider: Option<&str>,
    now: UnixSecs,
) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO device (hash, user_id, seen, came_back, provider) VALUES (?1, ?2, ?3, 0, ?4)
         ON CONFLICT (hash, user_id) DO UPDATE SET seen = ?3, came_back = 1, provider = ?4",
        params![hash, user_id, int(now), provider],
    )?;
    tx.execute(
        "DELETE FROM device WHERE user_id = ?1 AND came_back = 1 AND hash NOT IN
         (SELECT hash FROM device WHERE user_id = ?1 AND came_back = 1 ORDER BY seen DESC LIMIT ?2)",
        params![user_id, PER_USER_MAX],
    )?;
    tx.execute(
        "DELETE FROM device WHERE user_id = ?1 AND came_back = 0 AND hash NOT IN
         (SELECT hash FROM device WHERE user_id = ?1 AND came_back = 0 ORDER BY seen DESC, hash LIMIT ?2)
         AND hash NOT IN (SELECT device FROM session
         WHERE user_id = ?1 AND ended_at IS NULL AND device IS NOT NULL AND seen > created + ?3)",
        params![user_id, ONCE_MAX, ONCE_SECS],
    )?;
    Ok(())
}

/// Drops all devices of an account, except `kept`.
pub(super) fn forget(tx: &Tx<'_>, user_id: &str, kept: Option<&[u8; 32]>) -> Result<(), StoreError> {
    let sql = "DELETE FROM device WHERE user_id = ?1 AND (?2 IS NULL OR hash <> ?2)";
    tx.execute(sql, params![user_id, kept])?;
    Ok(())
}

/// The account that last signed in on a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LastHere {
    /// No account knows it.
    Nobody,
    /// The account with this id.
    One(String),
    /// Several, within the same second.
    Several,
}

/// Whether the account with this e-mail knows this device.
pub fn knows_device(db: &mut Db, hash: &[u8; 32], of: &str) -> Result<bool, StoreError> {
    db.read(|tx| {
        let sql = "SELECT EXISTS (SELECT 1 FROM device JOIN user ON user.id = device.user_id
                   WHERE hash = ?1 AND user.email = ?2)";
        Ok(tx.query_row(sql, params![hash, of], |row| row.get(0))?)
    })
}

/// The account that last signed in on this device.
pub fn last_at_device(db: &mut Db, hash: &[u8; 32]) -> Result<LastHere, StoreError> {
    db.read(|tx| {
        let sql = "SELECT user_id FROM device WHERE hash = ?1
                   AND seen = (SELECT max(seen) FROM device WHERE hash = ?1) LIMIT 2";
        let mut ids: Vec<String> = tx.query_map(sql, params![hash], |row| row.get(0))?;
        Ok(match (ids.pop(), ids.pop()) {
            (None, _) => LastHere::Nobody,
            (Some(id), None) => LastHere::One(id),
            (Some(_), Some(_)) => LastHere::Several,
        })
    })
}

/// The provider through which someone last signed in on this device. `None`: with a password or a link, or within the
/// same second in several ways.
pub fn last_provider(db: &mut Db, hash: &[u8; 32]) -> Result<Option<String>, StoreError> {
    db.read(|tx| {
        let sql = "SELECT DISTINCT provider FROM device WHERE hash = ?1
                   AND seen = (SELECT max(seen) FROM device WHERE hash = ?1) LIMIT 2";
        let mut providers: Vec<Option<String>> = tx.query_map(sql, params![hash], |row| row.get(0))?;
        let last = providers.pop();
        Ok(if providers.is_empty() { last.flatten() } else { None })
    })
}
