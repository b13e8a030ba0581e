//! Signing keys. One signs, the retired ones verify until no token of theirs can be valid.

use rusqlite::{Row, params};

use super::db::{Db, Tx};
use super::{AuditRow, KeyRow, StoreError, audit, int, uint};
use crate::clock::UnixSecs;

pub(super) const COLUMNS: &str = "kid, secret, created, retired";

pub(super) fn from_row(row: &Row<'_>) -> Result<KeyRow, rusqlite::Error> {
    Ok(KeyRow {
        kid: row.get(0)?,
        secret: row.get::<_, Vec<u8>>(1)?.into(),
        created: uint(row.get(2)?),
        retired: row.get::<_, Option<i64>>(3)?.map(uint),
    })
}

fn add(tx: &Tx<'_>, kid: &str, secret: &[u8], now: UnixSecs) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO signing_key (kid, secret, created, rev) VALUES (?1, ?2, ?3, ?4)",
        params![kid, secret, int(now), tx.rev()?],
    )?;
    Ok(())
}

impl Db {
    /// Makes this the signing key if there is none yet.
    pub fn first_key(&mut self, kid: &str, secret: &[u8], now: UnixSecs) -> Result<(), StoreError> {
        self.write(|tx| {
            let any: bool =
                tx.query_row("SELECT EXISTS (SELECT 1 FROM signing_key WHERE retired IS NULL)", [], |row| row.get(0))?;
            if any { Ok(()) } else { add(tx, kid, secret, now) }
        })
    }

    /// Makes this the signing key and retires the others; drops those retired before `drop_before`.
    pub fn rotate_key(
        &mut self,
        kid: &str,
        secret: &[u8],
        now: UnixSecs,
        drop_before: UnixSecs,
        event: &AuditRow,
    ) -> Result<(), StoreError> {
        self.write(|tx| {
            tx.execute(
                "UPDATE signing_key SET retired = ?1, rev = ?2 WHERE retired IS NULL",
                params![int(now), tx.rev()?],
            )?;
            tx.execute("DELETE FROM signing_key WHERE retired < ?1", [int(drop_before)])?;
            add(tx, kid, secret, now)?;
            audit::write(tx, event)
        })
    }

    /// All keys, newest first.
    pub fn keys(&mut self) -> Result<Vec<KeyRow>, StoreError> {
        self.read(|tx| {
            let mut query = tx.prepare(&format!(
                "SELECT {COLUMNS} FROM signing_key ORDER BY retired IS NULL DESC, created DESC, kid"
            ))?;
            let rows = query.query_map([], from_row)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }
}
