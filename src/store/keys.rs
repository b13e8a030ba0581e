//! Signing keys. One signs; retired ones verify earlier tokens until none of these can be valid. Their secrets are
//! sealed with a key that is not in the database; the store neither seals nor opens.

use zeroize::Zeroizing;

use super::audit::{self, AuditRow};
use super::convert::{int, uint};
use super::db::Db;
use super::error::StoreError;
use super::sealed_tokens::{self, SealToken};
use super::sessions::{self, SessionSelector};
use super::sql::{OptionalRow, Row, SqlError, Tx, params};
use crate::clock::UnixSecs;
use crate::sealing::Sealed;

/// A signing key.
#[derive(Clone)]
pub struct KeyRow {
    /// Its id in token headers.
    pub kid: String,
    /// `HS256` signs session tokens, `EdDSA` and `ES256` sign backend tokens.
    pub algorithm: String,
    /// 32 random bytes, or a PKCS#8 document.
    pub secret: StoredSecret,
    /// When it was created.
    pub created: UnixSecs,
    /// When it is retired and stops signing: on a shared database a moment after the rotation.
    pub retired: Option<UnixSecs>,
    /// When it begins to sign; 0: at once.
    pub signs_from: UnixSecs,
    /// Number of the change that created or retired it.
    pub changed: u64,
}

/// A key's secret as it is stored.
#[derive(Clone)]
pub enum StoredSecret {
    /// From a database of an earlier version, until it is sealed.
    Plain(Zeroizing<Vec<u8>>),
    /// Only opens with the key that is named.
    Sealed(Sealed),
}

pub(super) const COLUMNS: &str = "kid, secret, created, retired, algorithm, rev, sealed_by, signs_from";

pub(super) fn from_row(row: &Row<'_>) -> Result<KeyRow, SqlError> {
    let bytes: Vec<u8> = row.get(1)?;
    Ok(KeyRow {
        kid: row.get(0)?,
        secret: match row.get(6)? {
            Some(by) => StoredSecret::Sealed(Sealed { bytes, by }),
            None => StoredSecret::Plain(bytes.into()),
        },
        created: uint(row.get(2)?),
        retired: row.get::<Option<i64>>(3)?.map(uint),
        algorithm: row.get(4)?,
        changed: uint(row.get(5)?),
        signs_from: uint(row.get(7)?),
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
    pub secret: Sealed,
}

/// All nodes know a session key for so long before any signs with it, seconds.
const KNOWN_SECS: u64 = 10;

/// Seals the secret of a stored key.
pub type Seal<'a> = dyn Fn(&KeyRow) -> Result<Sealed, StoreError> + 'a;

/// Which previous keys a rotation keeps.
#[derive(Debug, Clone, Copy)]
pub enum Rotation {
    /// All but those that were retired before then.
    Retire {
        /// Unix seconds.
        drop_before: UnixSecs,
    },
    /// None: no cookie that they signed is valid any more, and all sessions end.
    Drop,
    /// None, and the key of app cookies neither: none of them can be opened any more.
    DropAll,
}

fn add(tx: &Tx<'_>, key: &NewKey, now: UnixSecs, signs_from: UnixSecs) -> Result<(), StoreError> {
    let other = "SELECT EXISTS (SELECT 1 FROM signing_key WHERE sealed_by IS DISTINCT FROM ?1)";
    if tx.query_row(other, params![&key.secret.by], |row| row.get::<bool>(0))? {
        let what = "the signing keys are sealed with another key than the one in use";
        return Err(StoreError::Down(what.to_owned()));
    }
    tx.execute(
        "INSERT INTO signing_key (kid, algorithm, secret, created, rev, sealed_by, signs_from)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![key.kid, key.algorithm, key.secret.bytes, int(now), tx.rev()?, key.secret.by, int(signs_from)],
    )?;
    Ok(())
}

/// Whether there is a current key of this algorithm.
fn signs(tx: &Tx<'_>, algorithm: &str) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM signing_key WHERE retired IS NULL AND algorithm = ?1)";
    Ok(tx.query_row(sql, params![algorithm], |row| row.get(0))?)
}

/// Deletes keys retired before then. A running gateway keeps them no longer than their tokens can be valid.
pub(super) fn drop_retired(tx: &Tx<'_>, before: UnixSecs) -> Result<(), StoreError> {
    tx.execute("DELETE FROM signing_key WHERE retired < ?1", params![int(before)])?;
    Ok(())
}

/// Stores the signing key of its algorithm, if there is none yet.
pub fn first_key(db: &mut Db, key: &NewKey, now: UnixSecs) -> Result<(), StoreError> {
    // usually there is one: then nothing is written, and a start need not wait for the write lock
    if db.read(|tx| signs(tx, key.algorithm))? {
        return Ok(());
    }
    db.write(|tx| if signs(tx, key.algorithm)? { Ok(()) } else { add(tx, key, tx.agreed_time(now), 0) })
}

/// Makes these the signing keys and retires or drops all others. On a shared database the previous session key goes on
/// signing until all nodes know the new one, unless it is dropped. Keys for backends wait for longer by themselves, since
/// backends cache them.
pub fn rotate_keys(
    db: &mut Db,
    new: &[NewKey],
    now: UnixSecs,
    rotation: Rotation,
    event: &AuditRow,
) -> Result<(), StoreError> {
    let work = |tx: &Tx<'_>| {
        let now = tx.agreed_time(now);
        let is_delayed = tx.is_shared() && matches!(rotation, Rotation::Retire { .. });
        let signs_from = now + if is_delayed { KNOWN_SECS } else { 0 };
        match rotation {
            Rotation::Retire { drop_before } => {
                tx.execute(
                    "UPDATE signing_key SET retired = CASE algorithm WHEN 'HS256' THEN ?4 ELSE ?1 END, rev = ?2
                         WHERE retired IS NULL AND algorithm != ?3",
                    params![int(now), tx.rev()?, APP_COOKIES, int(signs_from)],
                )?;
                drop_retired(tx, drop_before)?;
            }
            Rotation::Drop | Rotation::DropAll => {
                let kept = if matches!(rotation, Rotation::Drop) { APP_COOKIES } else { "" };
                tx.execute("DELETE FROM signing_key WHERE algorithm != ?1", params![kept])?;
                sessions::end(tx, SessionSelector::Everybody, now)?;
            }
        }
        for key in new {
            let is_delayed = is_delayed && key.algorithm == "HS256";
            add(tx, key, now, if is_delayed { signs_from } else { 0 })?;
        }
        audit::write(tx, event)
    };
    if matches!(rotation, Rotation::Retire { .. }) { db.write(work) } else { db.write_end_of_sessions(work) }
}

/// The key that authenticates records of app cookies.
pub fn app_cookie_key(db: &mut Db) -> Result<KeyRow, StoreError> {
    db.read(|tx| {
        let sql = format!("SELECT {COLUMNS} FROM signing_key WHERE algorithm = ?1 ORDER BY created, kid LIMIT 1");
        Ok(tx.query_row(&sql, params![APP_COOKIES], from_row)?)
    })
}

/// All signing keys, current ones first.
pub fn list(db: &mut Db) -> Result<Vec<KeyRow>, StoreError> {
    db.read(|tx| {
        Ok(tx.query_map(&format!(
            "SELECT {COLUMNS} FROM signing_key WHERE algorithm != '{APP_COOKIES}' ORDER BY retired IS NULL DESC, created DESC, kid"
        ), params![], from_row)?)
    })
}

/// Id of the key that the signing keys are sealed with; `None`: there are no sealed ones.
pub(super) fn sealed_by(tx: &Tx<'_>) -> Result<Option<String>, StoreError> {
    let sql = "SELECT sealed_by FROM signing_key WHERE sealed_by IS NOT NULL LIMIT 1";
    Ok(tx.query_row(sql, params![], |row| row.get(0)).optional()?)
}

/// The same.
pub fn sealing_key_id(db: &mut Db) -> Result<Option<String>, StoreError> {
    db.read(sealed_by)
}

/// Seals every key that is not sealed yet.
pub(super) fn seal_plain_rows(tx: &Tx<'_>, seal: &Seal<'_>) -> Result<usize, StoreError> {
    seal_rows(tx, "sealed_by IS NULL", seal)
}

/// Seals every key that is not sealed yet, and leaves none of it in the database's files. Gives how many.
pub fn seal_plain(db: &mut Db, seal: &Seal<'_>) -> Result<usize, StoreError> {
    let is_any = |tx: &Tx<'_>| {
        let sql = "SELECT EXISTS (SELECT 1 FROM signing_key WHERE sealed_by IS NULL)";
        Ok(tx.query_row(sql, params![], |row| row.get::<bool>(0))?)
    };
    if !db.read(is_any)? {
        return Ok(0);
    }
    let sealed = db.write(|tx| seal_plain_rows(tx, seal))?;
    db.empty_log();
    Ok(sealed)
}

/// Seals all keys and tokens with another key, and leaves none of their earlier contents in the database's files. A running
/// gateway is told, and reads the other key.
pub fn seal_again(
    db: &mut Db,
    seal: &Seal<'_>,
    seal_token: &SealToken<'_>,
    event: &AuditRow,
) -> Result<(), StoreError> {
    db.write(|tx| {
        seal_rows(tx, "1 = 1", seal)?;
        sealed_tokens::seal_again(tx, seal_token)?;
        // not of a retired one: its change number says which sessions it is good for
        tx.execute("UPDATE signing_key SET rev = ?1 WHERE retired IS NULL", params![tx.rev()?])?;
        audit::write(tx, event)
    })?;
    db.empty_log();
    Ok(())
}

fn seal_rows(tx: &Tx<'_>, which: &str, seal: &Seal<'_>) -> Result<usize, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM signing_key WHERE {which}");
    let rows: Vec<KeyRow> = tx.query_map(&sql, params![], from_row)?;
    for row in &rows {
        let sealed = seal(row)?;
        tx.execute(
            "UPDATE signing_key SET secret = ?2, sealed_by = ?3 WHERE kid = ?1",
            params![row.kid, sealed.bytes, sealed.by],
        )?;
    }
    Ok(rows.len())
}
