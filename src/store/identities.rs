//! Identities: which person at a provider belongs to which account. The key is the provider's name and the subject,
//! compared byte by byte, so that one identity belongs to one account; an e-mail address is never a key.

use std::collections::{BTreeMap, HashSet};

use super::audit::{self, AuditRow};
use super::convert::{int, uint};
use super::db::Db;
use super::error::StoreError;
use super::sessions::{self, SessionSelector};
use super::sql::{OptionalRow, Row, SqlError, Tx, params};
use super::user_rows::{self, UserRow};
use super::users::{self, UserChange};
use crate::clock::UnixSecs;

/// Identities per account.
pub const IDENTITIES_MAX: u32 = 20;

/// An identity.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct IdentityRow {
    pub provider: String,
    pub subject: String,
    pub user_id: String,
    /// Pinned at the first sign-in.
    pub issuer: Option<String>,
    /// What the provider said last.
    pub email: Option<String>,
    pub login: String,
    pub created: UnixSecs,
    /// Last sign-in.
    pub seen: Option<UnixSecs>,
}

/// An identity as a provider has just described it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct NewIdentity {
    pub provider: String,
    pub subject: String,
    pub issuer: Option<String>,
    /// Canonical.
    pub email: Option<String>,
    pub email_verified: bool,
    pub login: String,
    /// Fills the account's empty name.
    pub name: String,
    /// Fills the account's empty picture.
    pub picture: String,
    /// Groups of ours that its sessions have besides the account's own: sorted, no duplicates, no commas.
    pub groups: Vec<String>,
    /// The provider's names that they were mapped from; no line breaks.
    pub their_groups: Vec<String>,
    /// A verified address proves that of the account, too: the provider may link by it.
    pub proves_email: bool,
    /// `name=value` lines.
    pub extra: String,
}

/// Identities of one provider.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ProviderSummary {
    pub provider: String,
    pub accounts: u64,
    /// Last sign-in.
    pub seen: Option<UnixSecs>,
}

/// Result of linking an identity to an account.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Linked {
    /// It belongs to the account.
    Yes,
    /// It belonged to it before.
    Already,
    /// It belongs to another account.
    OfAnother,
    /// The account has [`IDENTITIES_MAX`] already.
    TooMany,
    /// No such account, or a disabled one.
    NoAccount,
}

/// Result of removing an identity from its account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Unlinked {
    /// It is gone, and so many sessions that began with it have ended.
    Yes(usize),
    /// The account has no such identity.
    Missing,
    /// Nothing else would be left to sign in with.
    LastCredential,
}

const COLUMNS: &str = "provider, subject, user_id, issuer, email, login, created, seen";

fn from_row(row: &Row<'_>) -> Result<IdentityRow, SqlError> {
    Ok(IdentityRow {
        provider: row.get(0)?,
        subject: row.get(1)?,
        user_id: row.get(2)?,
        issuer: row.get(3)?,
        email: row.get(4)?,
        login: row.get(5)?,
        created: uint(row.get(6)?),
        seen: Some(uint(row.get(7)?)).filter(|seen| *seen > 0),
    })
}

pub(super) fn find(tx: &Tx<'_>, provider: &str, subject: &str) -> Result<Option<IdentityRow>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM identity WHERE provider = ?1 AND subject = ?2");
    Ok(tx.query_row(&sql, params![provider, subject], from_row).optional()?)
}

fn of_user(tx: &Tx<'_>, user_id: &str) -> Result<Vec<IdentityRow>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM identity WHERE user_id = ?1 ORDER BY created, provider, subject");
    Ok(tx.query_map(&sql, params![user_id], from_row)?)
}

/// Adds an identity to an account. The caller has seen that there is none with its key.
pub(super) fn insert(
    tx: &Tx<'_>,
    new: &NewIdentity,
    user: &UserRow,
    now: UnixSecs,
    seen: Option<UnixSecs>,
) -> Result<Linked, StoreError> {
    let count = "SELECT count(*) FROM identity WHERE user_id = ?1";
    let count: u32 = tx.query_row(count, params![&user.id], |row| row.get(0))?;
    if count >= IDENTITIES_MAX {
        return Ok(Linked::TooMany);
    }
    tx.execute(
        "INSERT INTO identity (provider, subject, user_id, issuer, email, email_verified, login, groups,
             their_groups, extra, created, seen, rev)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
        params![
            new.provider,
            new.subject,
            user.id,
            new.issuer,
            new.email,
            new.email_verified,
            new.login,
            new.groups.join(","),
            new.their_groups.join("\n"),
            new.extra,
            int(now),
            int(seen.unwrap_or(0)),
            tx.rev()?
        ],
    )?;
    prove_email(tx, new, user)?;
    fill_profile(tx, new, user)?;
    Ok(Linked::Yes)
}

/// Writes down what the provider says of a known identity. Its groups are replaced, and its issuer is pinned if it was
/// not.
pub(super) fn refresh(tx: &Tx<'_>, new: &NewIdentity, user: &UserRow, now: UnixSecs) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE identity SET issuer = coalesce(issuer, ?3), email = ?4, email_verified = ?5, login = ?6, groups = ?7,
             extra = ?8, seen = ?9, rev = ?10, their_groups = ?11
         WHERE provider = ?1 AND subject = ?2",
        params![
            new.provider,
            new.subject,
            new.issuer,
            new.email,
            new.email_verified,
            new.login,
            new.groups.join(","),
            new.extra,
            int(now),
            tx.rev()?,
            new.their_groups.join("\n")
        ],
    )?;
    prove_email(tx, new, user)?;
    fill_profile(tx, new, user)
}

/// A verified address that is the account's own proves that one. Only the word of providers that may link by it counts: another
/// provider must not prepare a link for them.
fn prove_email(tx: &Tx<'_>, new: &NewIdentity, user: &UserRow) -> Result<(), StoreError> {
    if new.proves_email && new.email_verified && new.email.as_ref() == Some(&user.email) {
        tx.execute("UPDATE user SET email_proved = 1 WHERE id = ?1", params![&user.id])?;
    }
    Ok(())
}

/// Name and picture fill empty fields and change no others.
fn fill_profile(tx: &Tx<'_>, new: &NewIdentity, user: &UserRow) -> Result<(), StoreError> {
    let filled = |own: &str, theirs: &str| (own.is_empty() && !theirs.is_empty()).then(|| theirs.to_owned());
    let (name, picture) = (filled(&user.name, &new.name), filled(&user.picture, &new.picture));
    if name.is_some() || picture.is_some() {
        let _ = users::change(tx, &user.id, &UserChange { name, picture, ..UserChange::default() })?;
    }
    Ok(())
}

/// Whether the account's address has been proved.
pub(super) fn is_email_proved(tx: &Tx<'_>, user_id: &str) -> Result<bool, StoreError> {
    Ok(tx
        .query_row("SELECT email_proved FROM user WHERE id = ?1", params![user_id], |row| row.get(0))
        .optional()?
        .unwrap_or(false))
}

pub(super) fn link_to(
    tx: &Tx<'_>,
    new: &NewIdentity,
    user_id: &str,
    now: UnixSecs,
    seen: Option<UnixSecs>,
) -> Result<Linked, StoreError> {
    if let Some(known) = find(tx, &new.provider, &new.subject)? {
        return Ok(if known.user_id == user_id { Linked::Already } else { Linked::OfAnother });
    }
    match user_rows::by_id(tx, user_id)?.filter(|user| !user.disabled) {
        Some(user) => insert(tx, new, &user, now, seen),
        None => Ok(Linked::NoAccount),
    }
}

/// Adds an identity to an account.
pub fn link(
    db: &mut Db,
    new: &NewIdentity,
    user_id: &str,
    now: UnixSecs,
    event: &AuditRow,
) -> Result<Linked, StoreError> {
    db.write(|tx| {
        let linked = link_to(tx, new, user_id, now, None)?;
        if linked == Linked::Yes {
            audit::write(tx, event)?;
        }
        Ok(linked)
    })
}

/// Ways to sign in under the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaysIn {
    /// `password.enabled`
    pub passwords: bool,
    /// Names of the configured providers.
    pub providers: Vec<String>,
}

/// Removes an identity from its account, and ends the sessions that began with it. Refused if no way in would be left,
/// unless `force`.
pub fn unlink(
    db: &mut Db,
    user_id: &str,
    (provider, subject): (&str, &str),
    ways: &WaysIn,
    force: bool,
    event: &AuditRow,
) -> Result<Unlinked, StoreError> {
    db.write_end(|tx| {
        let own = of_user(tx, user_id)?;
        if !own.iter().any(|row| row.provider == provider && row.subject == subject) {
            return Ok(Unlinked::Missing);
        }
        let has_password = ways.passwords && user_rows::by_id(tx, user_id)?.is_some_and(|user| user.password.is_some());
        let others = own.iter().filter(|row| (row.provider.as_str(), row.subject.as_str()) != (provider, subject));
        let has_other = others.into_iter().any(|row| ways.providers.contains(&row.provider));
        if !force && !has_password && !has_other {
            return Ok(Unlinked::LastCredential);
        }
        let ended = sessions::end(tx, SessionSelector::Identity(provider, subject), event.at)?;
        tx.execute("DELETE FROM identity WHERE provider = ?1 AND subject = ?2", params![provider, subject])?;
        audit::write(tx, event)?;
        Ok(Unlinked::Yes(ended))
    })
}

/// Ends the sessions of an identity that may not sign in any more, by the word of this issuer; gives how many. None, if
/// it is pinned to another.
pub fn refuse(
    db: &mut Db,
    (provider, subject): (&str, &str),
    issuer: Option<&str>,
    event: &AuditRow,
) -> Result<usize, StoreError> {
    db.write_end(|tx| {
        let known = find(tx, provider, subject)?;
        let known = known.filter(|row| row.issuer.is_none() || row.issuer.as_deref() == issuer);
        let Some(known) = known else {
            audit::write(tx, event)?;
            return Ok(0);
        };
        let ended = sessions::end(tx, SessionSelector::Identity(provider, subject), event.at)?;
        audit::write(tx, &AuditRow { user_id: known.user_id, ..event.clone() })?;
        Ok(ended)
    })
}

/// Pins all identities of a provider to another issuer, because its operator says that it is the same provider; gives
/// how many changed. `None`: the provider has none.
pub fn adopt(db: &mut Db, provider: &str, issuer: Option<&str>, event: &AuditRow) -> Result<usize, StoreError> {
    db.write(|tx| {
        let sql = "UPDATE identity SET issuer = ?2, rev = ?3 WHERE provider = ?1 AND issuer IS DISTINCT FROM ?2";
        let changed = tx.execute(sql, params![provider, issuer, tx.rev()?])?;
        if changed > 0 {
            audit::write(tx, event)?;
        }
        Ok(changed)
    })
}

/// Maps the groups of all identities again, by provider and the provider's names; gives how many changed.
pub fn map_groups(db: &mut Db, map: &dyn Fn(&str, &[String]) -> Vec<String>) -> Result<usize, StoreError> {
    db.write(|tx| {
        let mut changed = Vec::new();
        let sql =
            "SELECT provider, subject, groups, their_groups FROM identity WHERE groups <> '' OR their_groups <> ''";
        tx.each(sql, params![], |row| {
            let [provider, subject, groups, theirs]: [String; 4] = [row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?];
            let theirs: Vec<String> = theirs.lines().map(str::to_owned).collect();
            let mapped = map(&provider, &theirs).join(",");
            if mapped != groups {
                changed.push((provider, subject, mapped));
            }
            Ok(())
        })?;
        for (provider, subject, groups) in &changed {
            tx.execute(
                "UPDATE identity SET groups = ?3, rev = ?4 WHERE provider = ?1 AND subject = ?2",
                params![provider, subject, groups, tx.rev()?],
            )?;
        }
        Ok(changed.len())
    })
}

/// An account's identities, oldest first.
pub fn list(db: &mut Db, user_id: &str) -> Result<Vec<IdentityRow>, StoreError> {
    db.read(|tx| of_user(tx, user_id))
}

/// All providers that have identities, by name.
pub fn summary(db: &mut Db) -> Result<Vec<ProviderSummary>, StoreError> {
    db.read(|tx| {
        let sql =
            "SELECT provider, count(DISTINCT user_id), max(seen) FROM identity GROUP BY provider ORDER BY provider";
        Ok(tx.query_map(sql, params![], |row| {
            Ok(ProviderSummary {
                provider: row.get(0)?,
                accounts: uint(row.get(1)?),
                seen: Some(uint(row.get(2)?)).filter(|seen| *seen > 0),
            })
        })?)
    })
}

/// Ids of the accounts that have an identity.
pub fn holders(db: &mut Db) -> Result<HashSet<String>, StoreError> {
    db.read(|tx| Ok(tx.query_map("SELECT DISTINCT user_id FROM identity", params![], |row| row.get(0))?))
}

/// Number of accounts without a way in, by the provider that they have an identity of; `None`: they have a password alone.
pub fn stranded(db: &mut Db, ways: &WaysIn) -> Result<Vec<(Option<String>, u64)>, StoreError> {
    db.read(|tx| {
        let sql = "SELECT identity.provider, user.id FROM user LEFT JOIN identity ON user.id = identity.user_id
                   WHERE CASE WHEN user.password IS NULL THEN identity.provider IS NOT NULL ELSE ?1 = 0 END
                   ORDER BY identity.provider";
        let rows: Vec<(Option<String>, String)> =
            tx.query_map(sql, params![ways.passwords], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let is_configured =
            |provider: &Option<String>| provider.as_ref().is_some_and(|own| ways.providers.contains(own));
        let kept: HashSet<&str> =
            rows.iter().filter(|(provider, _)| is_configured(provider)).map(|(_, id)| id.as_str()).collect();
        let mut lost: BTreeMap<Option<String>, u64> = BTreeMap::new();
        for (provider, id) in &rows {
            if !kept.contains(id.as_str()) {
                *lost.entry(provider.clone()).or_default() += 1;
            }
        }
        Ok(lost.into_iter().collect())
    })
}
