//! Accounts of another program, with their identities: all of them or none.

use super::audit::{self, AuditRow};
use super::db::Db;
use super::error::StoreError;
use super::identities::{self, Linked, NewIdentity};
use super::sql::Tx;
use super::user_rows;
use super::users::{self, NewId, NewUser, UserChange, Written};
use crate::clock::UnixSecs;

/// What to import.
#[derive(Debug, Clone, Default)]
pub struct Import {
    /// Accounts, and whether they are disabled.
    pub users: Vec<(NewUser, bool)>,
    /// Identities, by the e-mail of their account.
    pub identities: Vec<(String, NewIdentity)>,
    /// The highest id that the other program ever assigned.
    pub highest_id: u64,
}

/// Creates all these accounts, including disabled ones, with their identities, or none.
pub fn import(db: &mut Db, what: &Import, now: UnixSecs, event: &AuditRow) -> Result<(), StoreError> {
    db.write(|tx| {
        users::raise_ids(tx, what.highest_id)?;
        // given ids first: a new id must not take one of them
        let given = |user: &&(NewUser, bool)| matches!(user.0.id, NewId::Given(_));
        for (new, disabled) in what.users.iter().filter(given).chain(what.users.iter().filter(|user| !given(user))) {
            let Written::Done(row) = users::add(tx, new, now)? else {
                return Err(StoreError::Down(format!("{} has since been taken", new.email)));
            };
            if *disabled {
                let what = UserChange { disabled: Some(true), ..UserChange::default() };
                let _ = users::change(tx, &row.id, &what)?;
            }
        }
        what.identities.iter().try_for_each(|(email, new)| add_identity(tx, email, new, now))?;
        audit::write(tx, event)
    })
}

fn add_identity(tx: &Tx<'_>, email: &str, new: &NewIdentity, now: UnixSecs) -> Result<(), StoreError> {
    let taken = || StoreError::Down(format!("the identity of {email} at {} has since been taken", new.provider));
    let user = user_rows::by_email(tx, email)?.ok_or_else(taken)?;
    if identities::find(tx, &new.provider, &new.subject)?.is_some() {
        return Err(taken());
    }
    match identities::insert(tx, new, &user, now, None)? {
        Linked::Yes => Ok(()),
        _ => Err(taken()),
    }
}

/// Whether an identity with this key exists.
pub fn has_identity(db: &mut Db, provider: &str, subject: &str) -> Result<bool, StoreError> {
    db.read(|tx| Ok(identities::find(tx, provider, subject)?.is_some()))
}
