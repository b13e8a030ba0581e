//! Signing keys. One signs; retired ones verify earlier tokens until none of these can be valid.

use rusqlite::{Connection, Row, params};
use zeroize::Zeroizing;

use super::audit::{self, AuditRow};
use super::convert::{int, uint};
use super::db::{Db, Tx};
use super::error::StoreError;
use super::sessions::{self, SessionSelector};
use crate::clock::UnixSecs;

/// A signing key.
#[derive(Clone)]
pub struct KeyRow {
    /// Its id in token headers.
    pub kid: String,
    /// `HS256` signs session tokens, `EdDSA` and `ES256` sign backend tokens.
    pub algorithm: String,
    /// 32 random bytes, or a PKCS#8 document.
    pub secret: Zeroizing<Vec<u8>>,
    /// When it was created.
    pub created: UnixSecs,
    /// When it was retired and stopped signing.
    pub retired: Option<UnixSecs>,
    /// Number of the change that created or retired it.
    pub changed: u64,
}

pub(super) const COLUMNS: &str = "kid, secret, created, retired, algorithm, rev";

pub(super) fn from_row(row: &Row<'_>) -> Result<KeyRow, rusqlite::Error> {
    Ok(KeyRow {
        kid: row.get(0)?,
        secret: row.get::<_, Vec<u8>>(1)?.into(),
        created: uint(row.get(2)?),
        retired: row.get::<_, Option<i64>>(3)?.map(uint),
        algorithm: row.get(4)?,
        changed: uint(row.get(5)?),
    })
}

/// The name of the key that authenticates records of app cookies. It signs no tokens and is never rotated: an
/// unreadable record would let one account's cookies through to another.
pub const APP_COOKIES: &str = "app-cookies";

/// A key to store.
#[derive(Clone)]
#[allow(missing_docs)]
pub struct NewKey {
    pub algorithm: &'static str,
    pub kid: String,
    pub secret: Zeroizing<Vec<u8>>,
}

fn add(tx: &Tx<'_>, key: &NewKey, now: UnixSecs) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO signing_key (kid, algorithm, secret, created, rev) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![key.kid, key.algorithm, key.secret.as_slice(), int(now), tx.rev()?],
    )?;
    Ok(())
}

/// Whether there is a current key of this algorithm.
fn signs(tx: &Connection, algorithm: &str) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM signing_key WHERE retired IS NULL AND algorithm = ?1)";
    Ok(tx.query_row(sql, [algorithm], |row| row.get(0))?)
}

/// Deletes keys retired before then. A running gateway keeps them no longer than their tokens can be valid.
pub(super) fn drop_retired(tx: &Connection, before: UnixSecs) -> Result<(), StoreError> {
    tx.execute("DELETE FROM signing_key WHERE retired < ?1", [int(before)])?;
    Ok(())
}

/// Stores the signing key of its algorithm, if there is none yet.
pub fn first_key(db: &mut Db, key: &NewKey, now: UnixSecs) -> Result<(), StoreError> {
    // usually there is one: then nothing is written, and a start need not wait for the write lock
    if db.read(|tx| signs(tx, key.algorithm))? {
        return Ok(());
    }
    db.write(|tx| if signs(tx, key.algorithm)? { Ok(()) } else { add(tx, key, now) })
}

/// Makes these the signing keys and retires all others; drops those retired before `drop_before`. `None` drops all
/// others: no cookie that they signed is valid any more, and all sessions end.
pub fn rotate_keys(
    db: &mut Db,
    new: &[NewKey],
    now: UnixSecs,
    drop_before: Option<UnixSecs>,
    event: &AuditRow,
) -> Result<(), StoreError> {
    let work = |tx: &Tx<'_>| {
        if let Some(drop_before) = drop_before {
            tx.execute(
                "UPDATE signing_key SET retired = ?1, rev = ?2 WHERE retired IS NULL AND algorithm != ?3",
                params![int(now), tx.rev()?, APP_COOKIES],
            )?;
            drop_retired(tx, drop_before)?;
        } else {
            tx.execute("DELETE FROM signing_key WHERE algorithm != ?1", [APP_COOKIES])?;
            sessions::end(tx, SessionSelector::Everybody, now)?;
        }
        for key in new {
            add(tx, key, now)?;
        }
        audit::write(tx, event)
    };
    if drop_before.is_some() { db.write(work) } else { db.write_end_of_sessions(work) }
}

/// The key that authenticates records of app cookies.
pub fn app_cookie_key(db: &mut Db) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    db.read(|tx| {
        let sql = "SELECT secret FROM signing_key WHERE algorithm = ?1 ORDER BY created, kid LIMIT 1";
        Ok(tx.query_row(sql, [APP_COOKIES], |row| row.get::<_, Vec<u8>>(0))?.into())
    })
}

/// All signing keys, current ones first.
pub fn list(db: &mut Db) -> Result<Vec<KeyRow>, StoreError> {
    db.read(|tx| {
        let mut query = tx.prepare(&format!(
            "SELECT {COLUMNS} FROM signing_key WHERE algorithm != '{APP_COOKIES}' ORDER BY retired IS NULL DESC, created DESC, kid"
        ))?;
        let rows = query.query_map([], from_row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    })
}
