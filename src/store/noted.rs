//! Sessions that ended while the disk was full. Their rows need more space than the reserve, so one counter row notes
//! the account and the change number. From then on they have ended, in memory and in listings, also after a restart;
//! their own rows are written when there is space.

use super::convert::int;
use super::db::Db;
use super::error::StoreError;
use super::sql::{Tx, params};
use crate::clock::UnixSecs;

/// Prefix of the counter whose value is the change at which all earlier sessions of an account ended. The account's
/// id follows; empty: all accounts.
const PREFIX: &str = "ended:";

/// Whether a session has ended by a note.
pub(super) const IS_OVER: &str = "EXISTS (SELECT 1 FROM counter
     WHERE name IN ('ended:', 'ended:' || session.user_id) AND value > session.rev)";

/// Sessions of one note whose rows are still to be written.
const OF_NOTE: &str = "ended_at IS NULL AND rev < ?1 AND (?2 = '' OR user_id = ?2)";

/// Notes that all sessions of an account, or of all accounts (`""`), have ended. Gives how many.
pub(super) fn end(tx: &Tx<'_>, user_id: &str) -> Result<usize, StoreError> {
    let rev = tx.rev()?;
    let sql = format!("SELECT count(*) FROM session WHERE {OF_NOTE} AND NOT {IS_OVER}");
    let ended: i64 = tx.query_row(&sql, params![rev, user_id], |row| row.get(0))?;
    if ended > 0 {
        tx.execute(
            "INSERT INTO counter (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = ?2",
            params![format!("{PREFIX}{user_id}"), rev],
        )?;
    }
    Ok(usize::try_from(ended).unwrap_or_default())
}

/// Notes made after a change: account and change number.
fn after(tx: &Tx<'_>, rev: i64) -> Result<Vec<(String, i64)>, StoreError> {
    let sql = "SELECT substr(name, 7), value FROM counter WHERE name LIKE 'ended:%' AND value > ?1";
    Ok(tx.query_map(sql, params![rev], |row| Ok((row.get(0)?, row.get(1)?)))?)
}

/// Passes on the ids of sessions ended by notes made after a change.
pub(super) fn tell(tx: &Tx<'_>, rev: i64, tell: &mut dyn FnMut(&str)) -> Result<(), StoreError> {
    for (user_id, value) in after(tx, rev)? {
        tx.each(&format!("SELECT id FROM session WHERE {OF_NOTE}"), params![value, user_id], |row| {
            tell(row.text(0)?);
            Ok(())
        })?;
    }
    Ok(())
}

/// Writes the rows of sessions that ended by a note, if there are any.
pub fn write_noted_ends(db: &mut Db, now: UnixSecs) -> Result<(), StoreError> {
    if db.read(|tx| Ok(after(tx, 0)?.is_empty()))? {
        return Ok(());
    }
    db.write(|tx| {
        for (user_id, value) in after(tx, 0)? {
            let sql = format!("UPDATE session SET ended_at = ?3, rev = ?4 WHERE {OF_NOTE}");
            tx.execute(&sql, params![value, user_id, int(now), tx.rev()?])?;
        }
        tx.execute("DELETE FROM counter WHERE name LIKE 'ended:%'", params![])?;
        Ok(())
    })
}
