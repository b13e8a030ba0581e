//! One-time links: for the first account, invites, password resets. Only hashes of their tokens are stored; consuming
//! a link and its effect are one transaction.

use super::api_tokens;
use super::audit::{self, AuditRow};
use super::convert::{int, uint};
use super::db::Db;
use super::error::StoreError;
use super::link_rows::{self, NewLink};
use super::sessions::{self, NewSession, SessionEnd};
use super::sign_ins;
use super::sql::{OptionalRow, Tx, params};
use super::throttle::{self, CountedAttempt};
use super::user_rows::{self, UserRow};
use super::users::{self, Keeps, NewUser, Password, UserChange, Written};
use crate::clock::UnixSecs;
use crate::secret::Secret;

/// A valid link.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct LinkRow {
    pub kind: String,
    /// The existing account whose password it sets.
    pub user: Option<UserRow>,
    /// The e-mail that a new account gets.
    pub email: Option<String>,
    pub groups: Vec<String>,
    /// Number of valid API tokens of the existing account.
    pub tokens: u64,
    pub expires: UnixSecs,
}

/// The effect of using a link.
#[derive(Debug, Clone)]
pub enum LinkUse {
    /// A new account; its groups are the link's.
    Add(NewUser),
    /// A password for the account of the link, and its name unless empty.
    SetPassword {
        /// PHC string.
        hash: Secret,
        /// Empty: unchanged.
        name: String,
        /// Keep API tokens under the new password.
        keep_tokens: bool,
    },
}

/// A valid invite or link for the first account, as commands list it.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct InviteRow {
    /// The first bytes of the token's hash, in hexadecimal: identifies the link and grants nothing.
    pub id: String,
    /// `first` or `invite`
    pub kind: String,
    /// The e-mail of its account; `None`: chosen by the user of the link.
    pub email: Option<String>,
    /// The account exists.
    pub for_account: bool,
    pub groups: Vec<String>,
    pub created: UnixSecs,
    pub expires: UnixSecs,
}

const ID: &str = "lower(hex(substr(hash, 1, 8)))";

pub(super) fn find(tx: &Tx<'_>, hash: &[u8; 32], now: UnixSecs) -> Result<Option<LinkRow>, StoreError> {
    let found = tx
        .query_row(
            "SELECT kind, user_id, email, groups, expires FROM link WHERE hash = ?1 AND expires > ?2",
            params![hash, int(now)],
            |row| {
                let groups: String = row.get(3)?;
                let link = LinkRow {
                    kind: row.get(0)?,
                    user: None,
                    email: row.get(2)?,
                    groups: groups.split(',').filter(|group| !group.is_empty()).map(str::to_owned).collect(),
                    tokens: 0,
                    expires: uint(row.get(4)?),
                };
                Ok((link, row.get::<Option<String>>(1)?))
            },
        )
        .optional()?;
    let Some((mut link, user_id)) = found else { return Ok(None) };
    if link.kind == "first" && user_rows::administrator_exists(tx)? {
        return Ok(None);
    }
    if let Some(id) = user_id {
        link.user = user_rows::by_id(tx, &id)?.filter(|user| !user.disabled);
        if link.user.is_none() {
            return Ok(None);
        }
        link.tokens = api_tokens::count(tx, &id, now)?;
    }
    Ok(Some(link))
}

fn carry_out(
    tx: &Tx<'_>,
    link: LinkRow,
    what: &LinkUse,
    now: UnixSecs,
    event: &AuditRow,
) -> Result<Written, StoreError> {
    match (what, link.user) {
        (LinkUse::Add(new), None) => {
            // whoever bound the invite to an address sent it there
            let email_proved = link.email.is_some();
            let email = link.email.unwrap_or_else(|| new.email.clone());
            users::add(tx, &NewUser { email, email_proved, groups: link.groups, ..new.clone() }, now)
        }
        (LinkUse::SetPassword { hash, name, keep_tokens }, Some(user)) => {
            let keeps = Keeps { tokens: *keep_tokens, device: None };
            let what = UserChange {
                name: (!name.is_empty()).then(|| name.clone()),
                password: Some(Password { new: hash.clone(), only_over: None, keeps }),
                ..UserChange::default()
            };
            sessions::end_of_user(tx, &user.id, SessionEnd::All, now)?;
            // using one link voids all links of the account
            tx.execute("DELETE FROM link WHERE user_id = ?1", params![&user.id])?;
            let event = AuditRow { email: user.email.clone(), ..event.clone() };
            users::password_replaced(tx, &user, keeps, now, &event)?;
            users::change(tx, &user.id, &what)
        }
        _ => Ok(Written::Missing),
    }
}

/// Removes a link that was used, and all others of the account.
pub(super) fn remove_used(tx: &Tx<'_>, hash: &[u8; 32], user_id: &str) -> Result<(), StoreError> {
    tx.execute("DELETE FROM link WHERE hash = ?1 OR user_id = ?2", params![hash, user_id])?;
    Ok(())
}

/// Stores a link. At most 1000 links for the first account are kept; the oldest are dropped.
pub fn add_link(db: &mut Db, new: &NewLink, event: &AuditRow) -> Result<(), StoreError> {
    db.write(|tx| {
        link_rows::insert(tx, new)?;
        tx.execute(
            "DELETE FROM link WHERE kind = 'first' AND hash NOT IN
             (SELECT hash FROM link WHERE kind = 'first' ORDER BY created DESC, hash LIMIT 1000)",
            params![],
        )?;
        audit::write(tx, event)
    })
}

/// Removes a link that was never handed out.
pub fn remove_link(db: &mut Db, hash: &[u8; 32], event: &AuditRow) -> Result<(), StoreError> {
    db.write(|tx| {
        tx.execute("DELETE FROM link WHERE hash = ?1", params![hash])?;
        audit::write(tx, event)
    })
}

/// The link with this token hash, if it is valid.
pub fn find_link(db: &mut Db, hash: &[u8; 32], now: UnixSecs) -> Result<Option<LinkRow>, StoreError> {
    db.read(|tx| find(tx, hash, now))
}

/// Valid invites and links for the first account, newest first.
pub fn invites(db: &mut Db, now: UnixSecs) -> Result<Vec<InviteRow>, StoreError> {
    db.read(|tx| {
        let first = !user_rows::administrator_exists(tx)?;
        let sql = format!(
            "SELECT {ID}, kind, coalesce(user.email, link.email), link.groups, coalesce(user.groups, ''),
                 link.created, expires, user.id IS NOT NULL
             FROM link LEFT JOIN user ON user.id = link.user_id
             WHERE (kind = 'invite' OR (kind = 'first' AND ?2 = 1)) AND expires > ?1 AND coalesce(user.disabled, 0) = 0
             ORDER BY link.created DESC, link.hash"
        );
        Ok(tx.query_map(&sql, params![int(now), first], |row| {
            let [own, accounts]: [String; 2] = [row.get(3)?, row.get(4)?];
            let groups = [own, accounts].join(",");
            Ok(InviteRow {
                id: row.get(0)?,
                kind: row.get(1)?,
                email: row.get(2)?,
                for_account: row.get(7)?,
                groups: groups.split(',').filter(|group| !group.is_empty()).map(str::to_owned).collect(),
                created: uint(row.get(5)?),
                expires: uint(row.get(6)?),
            })
        })?)
    })
}

/// Revokes an invite or a link for the first account. `false`: there is none with this id.
pub fn end_invite(db: &mut Db, id: &str, event: &AuditRow) -> Result<bool, StoreError> {
    db.write(|tx| {
        let sql = format!("DELETE FROM link WHERE kind <> 'reset' AND {ID} = ?1");
        let ended = tx.execute(&sql, params![id])? > 0;
        if ended {
            audit::write(tx, event)?;
        }
        Ok(ended)
    })
}

/// Consumes a link: the account is created or changed, a session begins, the attempt is cleared, and the link is
/// removed. [`Written::Missing`]: the link is not valid any more. [`Written::Taken`] leaves it valid.
pub fn use_link(
    db: &mut Db,
    hash: &[u8; 32],
    what: &LinkUse,
    session: &NewSession,
    counted: &CountedAttempt,
    now: UnixSecs,
    event: &AuditRow,
) -> Result<Written, StoreError> {
    db.write(|tx| {
        let Some(link) = find(tx, hash, now)? else { return Ok(Written::Missing) };
        let written = carry_out(tx, link, what, now, event)?;
        if let Written::Done(user) = &written {
            tx.execute("DELETE FROM link WHERE hash = ?1", params![hash])?;
            throttle::forgive(tx, counted, now)?;
            let event = AuditRow { user_id: user.id.clone(), email: user.email.clone(), ..event.clone() };
            sign_ins::begin(tx, user, session, now, &event)?;
        }
        Ok(written)
    })
}
