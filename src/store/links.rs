//! One-time links: for the first account, invites, password resets. Only hashes of their tokens
//! are kept; using one and what it brings about are one transaction.

use rusqlite::{Connection, OptionalExtension, params};

use super::db::{Db, Tx};
use super::sessions::{self, Ends, NewSession};
use super::users::{self, NewUser, Password, UserChange, Written};
use super::{AuditRow, StoreError, UserRow, audit, int, uint};
use crate::clock::UnixSecs;
use crate::secret::Secret;

/// A link to be made.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct NewLink {
    /// SHA-256 of the token.
    pub hash: [u8; 32],
    /// `first` (void once any account exists), `invite` or `reset`
    pub kind: &'static str,
    /// The existing account whose password it sets.
    pub user_id: Option<String>,
    /// The e-mail that a new account gets.
    pub email: Option<String>,
    /// Groups of a new account.
    pub groups: Vec<String>,
    pub created: UnixSecs,
    pub expires: UnixSecs,
}

/// A link that still opens something.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct LinkRow {
    pub kind: String,
    /// The existing account whose password it sets.
    pub user: Option<UserRow>,
    /// The e-mail that a new account gets.
    pub email: Option<String>,
    pub groups: Vec<String>,
    pub expires: UnixSecs,
}

/// What a used link brings about.
#[derive(Debug, Clone)]
pub enum LinkUse {
    /// A new account; its groups are the link's.
    Add(NewUser),
    /// A password (PHC string) for the account that the link names, and its name unless empty.
    SetPassword(Secret, String),
}

fn find(tx: &Connection, hash: &[u8; 32], now: UnixSecs) -> Result<Option<LinkRow>, StoreError> {
    let found = tx
        .prepare_cached("SELECT kind, user_id, email, groups, expires FROM link WHERE hash = ?1 AND expires > ?2")?
        .query_row(params![hash, int(now)], |row| {
            let groups: String = row.get(3)?;
            let link = LinkRow {
                kind: row.get(0)?,
                user: None,
                email: row.get(2)?,
                groups: groups.split(',').filter(|group| !group.is_empty()).map(str::to_owned).collect(),
                expires: uint(row.get(4)?),
            };
            Ok((link, row.get::<_, Option<String>>(1)?))
        })
        .optional()?;
    let Some((mut link, user_id)) = found else { return Ok(None) };
    if link.kind == "first" && users::exist(tx)? {
        return Ok(None);
    }
    if let Some(id) = user_id {
        link.user = users::by_id(tx, &id)?.filter(|user| !user.disabled);
        if link.user.is_none() {
            return Ok(None);
        }
    }
    Ok(Some(link))
}

fn carry_out(tx: &Tx<'_>, link: LinkRow, what: LinkUse, now: UnixSecs) -> Result<Written, StoreError> {
    match (what, link.user) {
        (LinkUse::Add(new), None) => {
            let email = link.email.unwrap_or(new.email);
            users::add(tx, &NewUser { email, groups: link.groups, ..new }, now)
        }
        (LinkUse::SetPassword(hash, name), Some(user)) => {
            let what = UserChange {
                name: (!name.is_empty()).then_some(name),
                password: Some(Password { new: hash, only_over: None }),
                ..UserChange::default()
            };
            sessions::end_of_user(tx, &user.id, Ends::All, now)?;
            // every link to this account dies with the one that was used
            tx.execute("DELETE FROM link WHERE user_id = ?1", [&user.id])?;
            users::change(tx, &user.id, &what)
        }
        _ => Ok(Written::Missing),
    }
}

impl Db {
    /// Keeps a link. At most 1000 links for the first account are kept: the oldest go.
    pub fn add_link(&mut self, new: &NewLink, event: &AuditRow) -> Result<(), StoreError> {
        self.write(|tx| {
            tx.execute(
                "INSERT INTO link (hash, kind, user_id, email, groups, created, expires) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![new.hash, new.kind, new.user_id, new.email, new.groups.join(","), int(new.created), int(new.expires)],
            )?;
            tx.execute(
                "DELETE FROM link WHERE kind = 'first' AND rowid NOT IN
                 (SELECT rowid FROM link WHERE kind = 'first' ORDER BY rowid DESC LIMIT 1000)",
                [],
            )?;
            audit::write(tx, event)
        })
    }

    /// Removes a link that nobody has.
    pub fn remove_link(&mut self, hash: &[u8; 32], event: &AuditRow) -> Result<(), StoreError> {
        self.write(|tx| {
            tx.execute("DELETE FROM link WHERE hash = ?1", params![hash])?;
            audit::write(tx, event)
        })
    }

    /// The link with this token hash, if it still opens something.
    pub fn link(&mut self, hash: &[u8; 32], now: UnixSecs) -> Result<Option<LinkRow>, StoreError> {
        self.read(|tx| find(tx, hash, now))
    }

    /// Uses a link up: the account is made or changed, a session begins, and the link is gone.
    /// [`Written::Missing`]: the link opens nothing any more. [`Written::Taken`] leaves it usable.
    pub fn use_link(
        &mut self,
        hash: &[u8; 32],
        what: LinkUse,
        session: &NewSession,
        now: UnixSecs,
        event: &AuditRow,
    ) -> Result<Written, StoreError> {
        self.write(|tx| {
            let Some(link) = find(tx, hash, now)? else { return Ok(Written::Missing) };
            let written = carry_out(tx, link, what, now)?;
            if let Written::Done(user) = &written {
                tx.execute("DELETE FROM link WHERE hash = ?1", params![hash])?;
                sessions::insert(tx, &user.id, session, now)?;
                audit::write(tx, &AuditRow { user_id: user.id.clone(), email: user.email.clone(), ..event.clone() })?;
            }
            Ok(written)
        })
    }
}
