//! Tokens of providers, as rows of the sessions that they belong to. They are sealed with a key that is not in the
//! database; the store neither seals nor opens. They are deleted when their session ends.

use std::path::Path;

use super::audit::{self, AuditRow};
use super::backup_key;
use super::convert::{int, uint};
use super::db::Db;
use super::error::StoreError;
use super::sessions::{self, SessionSelector};
use super::sql::{OptionalRow, Row, Tx, params};
use crate::clock::UnixSecs;

/// A sealed token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedToken {
    /// `id`, `access` or `refresh`.
    pub kind: &'static str,
    /// Sealed.
    pub value: Vec<u8>,
    /// `None`: the provider does not say. Of a refresh token, when it was sent to the provider: see [`claim`].
    pub expires: Option<UnixSecs>,
}

/// How long after a refresh token was sent its answer may still be on its way, seconds.
const ANSWER_SECS_MAX: u64 = 60;

/// Whether a refresh token may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Claimed {
    /// Once.
    Yes,
    /// It is on its way for someone else, or was replaced, or the session has ended.
    No,
    /// It was sent, and no answer was stored: the provider may have replaced it. It is deleted, because providers take
    /// a second use for theft (RFC 9700, 4.14.2).
    Lost,
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
    let sql = "INSERT INTO sealed_token (session_id, kind, value, expires) VALUES (?1, ?2, ?3, ?4)
               ON CONFLICT (session_id, kind) DO UPDATE SET value = ?3, expires = ?4";
    for token in tokens {
        tx.execute(sql, params![session_id, token.kind, token.value, token.expires.map(int)])?;
    }
    Ok(())
}

fn find(tx: &Tx<'_>, session_id: &str, kind: &str) -> Result<Option<Vec<u8>>, StoreError> {
    let sql = "SELECT value FROM sealed_token WHERE session_id = ?1 AND kind = ?2";
    Ok(tx.query_row(sql, params![session_id, kind], |row| row.get(0)).optional()?)
}

/// A session's tokens.
pub fn of_session(db: &mut Db, session_id: &str) -> Result<Vec<SealedToken>, StoreError> {
    db.read(|tx| {
        let sql = "SELECT kind, value, expires FROM sealed_token WHERE session_id = ?1";
        let mut tokens = Vec::new();
        tx.each(sql, params![session_id], |row| {
            let kind = match row.text(0)? {
                "id" => "id",
                "access" => "access",
                "refresh" => "refresh",
                _ => return Ok(()),
            };
            tokens.push(SealedToken { kind, value: row.get(1)?, expires: row.get::<Option<i64>>(2)?.map(uint) });
            Ok(())
        })?;
        Ok(tokens)
    })
}

/// The issuer that the identity of a session is pinned to; `None`: to none yet, or it began otherwise.
pub fn issuer_of_session(db: &mut Db, session_id: &str) -> Result<Option<String>, StoreError> {
    db.read(|tx| pinned_issuer(tx, session_id))
}

fn pinned_issuer(tx: &Tx<'_>, session_id: &str) -> Result<Option<String>, StoreError> {
    let sql = "SELECT identity.issuer FROM session JOIN identity ON identity.provider = session.provider
               AND identity.subject = session.subject WHERE session.id = ?1";
    let issuer: Option<Option<String>> = tx.query_row(sql, params![session_id], |row| row.get(0)).optional()?;
    Ok(issuer.flatten())
}

/// Replaces tokens of a session that has not ended, if its refresh token is still this one (sealed). `false`: another
/// one was faster, or the session has ended.
pub fn replace(db: &mut Db, session_id: &str, refreshed: &[u8], tokens: &[SealedToken]) -> Result<bool, StoreError> {
    db.write(|tx| {
        let is_active = "SELECT EXISTS (SELECT 1 FROM session WHERE id = ?1 AND ended_at IS NULL)";
        let is_active: bool = tx.query_row(is_active, params![session_id], |row| row.get(0))?;
        let is_same = find(tx, session_id, "refresh")?.is_some_and(|held| held == refreshed);
        if is_active && is_same {
            mark(tx, session_id, None)?;
            insert(tx, session_id, tokens)?;
        }
        Ok(is_active && is_same)
    })
}

/// Claims a refresh token (sealed) for one exchange, before it is sent.
pub fn claim(db: &mut Db, session_id: &str, refresh: &[u8], now: UnixSecs) -> Result<Claimed, StoreError> {
    db.write(|tx| {
        let sql = "SELECT value, expires FROM sealed_token WHERE session_id = ?1 AND kind = 'refresh'";
        let row = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
        let held: Option<(Vec<u8>, Option<i64>)> = tx.query_row(sql, params![session_id], row).optional()?;
        match held {
            Some((value, None)) if value == refresh => {
                mark(tx, session_id, Some(now))?;
                Ok(Claimed::Yes)
            }
            Some((value, Some(sent))) if value == refresh && uint(sent).abs_diff(now) > ANSWER_SECS_MAX => {
                let sql = "DELETE FROM sealed_token WHERE session_id = ?1 AND kind = 'refresh'";
                tx.execute(sql, params![session_id])?;
                Ok(Claimed::Lost)
            }
            _ => Ok(Claimed::No),
        }
    })
}

/// Gives a claimed refresh token back: the provider did not take it.
pub fn release(db: &mut Db, session_id: &str, refresh: &[u8]) -> Result<(), StoreError> {
    db.write(|tx| {
        if find(tx, session_id, "refresh")?.is_some_and(|held| held == refresh) {
            mark(tx, session_id, None)?;
        }
        Ok(())
    })
}

fn mark(tx: &Tx<'_>, session_id: &str, sent: Option<UnixSecs>) -> Result<(), StoreError> {
    let sql = "UPDATE sealed_token SET expires = ?2 WHERE session_id = ?1 AND kind = 'refresh'";
    tx.execute(sql, params![session_id, sent.map(int)])?;
    Ok(())
}

/// Deletes what a backup has of tokens that are renewed: providers have replaced them since, and take a second use for
/// theft.
pub(super) fn forget_renewed(copy: &Path) -> Result<(), StoreError> {
    let copy = backup_key::opened(copy)?;
    let has_any = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'sealed_token')";
    if copy.query_row(has_any, [], |row| row.get(0))? {
        copy.pragma_update(None, "secure_delete", "ON")?;
        copy.execute("DELETE FROM sealed_token WHERE kind IN ('access', 'refresh')", [])?;
    }
    Ok(())
}

/// Deletes refresh tokens whose exchange the last process did not live to finish.
pub fn forget_claimed(db: &mut Db) -> Result<usize, StoreError> {
    if db.is_shared() {
        // the exchange may be another node's: see [`claim`]
        return Ok(0);
    }
    db.write(|tx| Ok(tx.execute("DELETE FROM sealed_token WHERE kind = 'refresh' AND expires IS NOT NULL", params![])?))
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
        let provider: Option<Option<String>> = tx.query_row(sql, params![session_id], |row| row.get(0)).optional()?;
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
pub(super) fn seal_again(tx: &Tx<'_>, seal: &SealToken<'_>) -> Result<(), StoreError> {
    let sql = "SELECT session_id, kind, value FROM sealed_token";
    let rows: Vec<(String, String, Vec<u8>)> =
        tx.query_map(sql, params![], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    for (session_id, kind, value) in rows {
        match seal(&session_id, &kind, &value) {
            Some(sealed) => tx.execute(
                "UPDATE sealed_token SET value = ?3 WHERE session_id = ?1 AND kind = ?2",
                params![session_id, kind, sealed],
            )?,
            None => {
                tx.execute("DELETE FROM sealed_token WHERE session_id = ?1 AND kind = ?2", params![session_id, kind])?
            }
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Check;

    /// A session with one token of each kind.
    fn with_tokens() -> (tempfile::TempDir, Db) {
        let dir = tempfile::tempdir().unwrap();
        let mut db = Db::open(dir.path(), Check::Version).unwrap();
        let session = "INSERT INTO session (id, user_id, created, expires, seen, remember, address, user_agent, rev)
                       VALUES ('s', NULL, 1, 9, 1, 1, '', '', 1)";
        db.connection().execute_batch(session).unwrap();
        let tokens = ["id", "access", "refresh"].map(|kind| token(kind, "first"));
        db.write(|tx| insert(tx, "s", &tokens)).unwrap();
        (dir, db)
    }

    fn token(kind: &'static str, value: &str) -> SealedToken {
        SealedToken { kind, value: value.into(), expires: None }
    }

    fn kinds(db: &mut Db) -> Vec<&'static str> {
        let mut kinds: Vec<_> = of_session(db, "s").unwrap().iter().map(|token| token.kind).collect();
        kinds.sort_unstable();
        kinds
    }

    /// RFC 9700, 4.14.2.
    #[test]
    fn a_refresh_token_is_claimed_by_one_and_is_never_sent_again_without_an_answer() {
        let (_dir, mut db) = with_tokens();
        assert_eq!(claim(&mut db, "s", b"other", 100).unwrap(), Claimed::No, "it was replaced meanwhile");
        assert_eq!(claim(&mut db, "t", b"first", 100).unwrap(), Claimed::No, "another session");
        assert_eq!(claim(&mut db, "s", b"first", 100).unwrap(), Claimed::Yes);
        assert_eq!(claim(&mut db, "s", b"first", 160).unwrap(), Claimed::No, "it is on its way");
        release(&mut db, "s", b"other").unwrap();
        assert_eq!(claim(&mut db, "s", b"first", 160).unwrap(), Claimed::No);
        release(&mut db, "s", b"first").unwrap();
        assert_eq!(claim(&mut db, "s", b"first", 160).unwrap(), Claimed::Yes, "the provider did not take it");
        // a provider that keeps its refresh token sends none
        assert!(replace(&mut db, "s", b"first", &[token("access", "second")]).unwrap());
        assert_eq!(claim(&mut db, "s", b"first", 200).unwrap(), Claimed::Yes);
        assert!(replace(&mut db, "s", b"first", &[token("refresh", "second")]).unwrap());
        assert!(!replace(&mut db, "s", b"first", &[token("refresh", "third")]).unwrap(), "compare and swap");
        assert_eq!(claim(&mut db, "s", b"second", 200).unwrap(), Claimed::Yes);
        assert_eq!(claim(&mut db, "s", b"second", 261).unwrap(), Claimed::Lost);
        assert_eq!(kinds(&mut db), ["access", "id"]);
    }

    #[test]
    fn a_start_deletes_what_was_on_its_way_and_nothing_else() {
        let (_dir, mut db) = with_tokens();
        assert_eq!(forget_claimed(&mut db).unwrap(), 0);
        assert_eq!(claim(&mut db, "s", b"first", 100).unwrap(), Claimed::Yes);
        assert_eq!((forget_claimed(&mut db).unwrap(), kinds(&mut db)), (1, vec!["access", "id"]));
    }

    #[test]
    fn a_backup_has_no_token_that_is_renewed() {
        let (dir, mut db) = with_tokens();
        let [copy, empty] = ["copy", "empty"].map(|name| dir.path().join(name));
        db.connection().execute("VACUUM INTO ?1", [copy.to_str().unwrap()]).unwrap();
        forget_renewed(&copy).unwrap();
        let left: String = rusqlite::Connection::open(&copy)
            .unwrap()
            .query_row("SELECT group_concat(kind) FROM sealed_token", [], |row| row.get(0))
            .unwrap();
        assert_eq!((left.as_str(), kinds(&mut db).len()), ("id", 3));
        rusqlite::Connection::open(&empty).unwrap().execute_batch("CREATE TABLE other (id)").unwrap();
        forget_renewed(&empty).unwrap();
    }
}
