//! Tokens of providers, as rows of the sessions that they belong to. They are sealed with a key that is not in the
//! database; the store neither seals nor opens. They are deleted when their session ends.

use rusqlite::{Connection, OptionalExtension, params};

use super::audit::{self, AuditRow};
use super::convert::{int, uint};
use super::db::{Db, Tx};
use super::error::StoreError;
use super::sessions::{self, SessionSelector};
use crate::clock::UnixSecs;

/// A sealed token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedToken {
    /// `id`, `access` or `refresh`.
    pub kind: &'static str,
    /// Sealed.
    pub value: Vec<u8>,
    /// `None`: the provider does not say.
    pub expires: Option<UnixSecs>,
}

/// Seals a token again: session, kind, sealed value.
pub type SealToken<'a> = dyn Fn(&str, &str, &[u8]) -> Option<Vec<u8>> + 'a;

/// What a session that has been signed out leaves for its provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedOut {
    /// Name of the provider.
    pub provider: String,
    /// The issuer that its identity is pinned to.
    pub issuer: Option<String>,
    /// Its ID token, sealed.
    pub id_token: Option<Vec<u8>>,
}

pub(super) fn insert(tx: &Tx<'_>, session_id: &str, tokens: &[SealedToken]) -> Result<(), StoreError> {
    let sql = "INSERT OR REPLACE INTO sealed_token (session_id, kind, value, expires) VALUES (?1, ?2, ?3, ?4)";
    let mut insert = tx.prepare_cached(sql)?;
    for token in tokens {
        insert.execute(params![session_id, token.kind, token.value, token.expires.map(int)])?;
    }
    Ok(())
}

fn find(tx: &Connection, session_id: &str, kind: &str) -> Result<Option<Vec<u8>>, StoreError> {
    let sql = "SELECT value FROM sealed_token WHERE session_id = ?1 AND kind = ?2";
    Ok(tx.prepare_cached(sql)?.query_row([session_id, kind], |row| row.get(0)).optional()?)
}

/// A session's tokens.
pub fn of_session(db: &mut Db, session_id: &str) -> Result<Vec<SealedToken>, StoreError> {
    db.read(|tx| {
        let sql = "SELECT kind, value, expires FROM sealed_token WHERE session_id = ?1";
        let mut query = tx.prepare_cached(sql)?;
        let mut rows = query.query([session_id])?;
        let mut tokens = Vec::new();
        while let Some(row) = rows.next()? {
            let kind = match row.get::<_, String>(0)?.as_str() {
                "id" => "id",
                "access" => "access",
                "refresh" => "refresh",
                _ => continue,
            };
            tokens.push(SealedToken { kind, value: row.get(1)?, expires: row.get::<_, Option<i64>>(2)?.map(uint) });
        }
        Ok(tokens)
    })
}

/// The issuer that the identity of a session is pinned to; `None`: to none yet, or it began otherwise.
pub fn issuer_of_session(db: &mut Db, session_id: &str) -> Result<Option<String>, StoreError> {
    db.read(|tx| pinned_issuer(tx, session_id))
}

fn pinned_issuer(tx: &Connection, session_id: &str) -> Result<Option<String>, StoreError> {
    let sql = "SELECT identity.issuer FROM session JOIN identity ON identity.provider = session.provider
               AND identity.subject = session.subject WHERE session.id = ?1";
    let issuer: Option<Option<String>> =
        tx.prepare_cached(sql)?.query_row([session_id], |row| row.get(0)).optional()?;
    Ok(issuer.flatten())
}

/// Replaces tokens of a session that has not ended, if its refresh token is still this one (sealed). `false`: another
/// one was faster, or the session has ended.
pub fn replace(db: &mut Db, session_id: &str, refreshed: &[u8], tokens: &[SealedToken]) -> Result<bool, StoreError> {
    db.write(|tx| {
        let is_active = "SELECT EXISTS (SELECT 1 FROM session WHERE id = ?1 AND ended_at IS NULL)";
        let is_active: bool = tx.prepare_cached(is_active)?.query_row([session_id], |row| row.get(0))?;
        let is_same = find(tx, session_id, "refresh")?.is_some_and(|held| held == refreshed);
        if is_active && is_same {
            insert(tx, session_id, tokens)?;
        }
        Ok(is_active && is_same)
    })
}

/// Signs a session out; gives what is left to do at its provider. `None`: it did not begin with one.
pub fn sign_out(
    db: &mut Db,
    session_id: &str,
    now: UnixSecs,
    event: &AuditRow,
) -> Result<Option<SignedOut>, StoreError> {
    db.write_end(|tx| {
        let sql = "SELECT provider FROM session WHERE id = ?1 AND ended_at IS NULL";
        let provider: Option<Option<String>> =
            tx.prepare_cached(sql)?.query_row([session_id], |row| row.get(0)).optional()?;
        let issuer = pinned_issuer(tx, session_id)?;
        // before the end of the session deletes it
        let id_token = find(tx, session_id, "id")?;
        if sessions::end(tx, SessionSelector::Session(session_id), now)? > 0 {
            audit::write(tx, event)?;
        }
        Ok(provider.flatten().map(|provider| SignedOut { provider, issuer, id_token }))
    })
}

/// Seals all tokens again. Those that `seal` cannot open are deleted: no key opens them.
pub(super) fn seal_again(tx: &Connection, seal: &SealToken<'_>) -> Result<(), StoreError> {
    let mut query = tx.prepare("SELECT session_id, kind, value FROM sealed_token")?;
    let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let rows = rows.collect::<Result<Vec<(String, String, Vec<u8>)>, _>>()?;
    for (session_id, kind, value) in rows {
        match seal(&session_id, &kind, &value) {
            Some(sealed) => tx.execute(
                "UPDATE sealed_token SET value = ?3 WHERE session_id = ?1 AND kind = ?2",
                params![session_id, kind, sealed],
            )?,
            None => tx.execute("DELETE FROM sealed_token WHERE session_id = ?1 AND kind = ?2", [session_id, kind])?,
        };
    }
    Ok(())
}
