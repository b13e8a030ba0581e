//! What a provider says of a person while a session lasts.

use super::convert::int;
use super::db::Db;
use super::error::StoreError;
use super::identities::{self, NewIdentity};
use super::sql::params;
use super::user_rows;
use crate::clock::UnixSecs;

/// What came of a confirmation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Confirmed {
    /// It was written down.
    Yes,
    /// The session has ended meanwhile.
    Ended,
    /// The identity is pinned to another issuer, or was removed.
    OtherIssuer,
}

/// Writes down that the provider has confirmed a session, and how it describes the person today: groups are replaced.
/// `None`: it does not say.
pub fn confirm(
    db: &mut Db,
    session_id: &str,
    identity: Option<&NewIdentity>,
    now: UnixSecs,
) -> Result<Confirmed, StoreError> {
    db.write(|tx| {
        let sql = "UPDATE session SET checked = ?2 WHERE id = ?1 AND ended_at IS NULL";
        if tx.execute(sql, params![session_id, int(now)])? == 0 {
            return Ok(Confirmed::Ended);
        }
        let Some(new) = identity else { return Ok(Confirmed::Yes) };
        let known = identities::find(tx, &new.provider, &new.subject)?;
        let Some(known) = known.filter(|known| known.issuer.is_none() || known.issuer == new.issuer) else {
            return Ok(Confirmed::OtherIssuer);
        };
        let Some(user) = user_rows::by_id(tx, &known.user_id)? else { return Ok(Confirmed::Ended) };
        // it is no sign-in
        identities::refresh(tx, new, &user, known.seen.unwrap_or(0))?;
        Ok(Confirmed::Yes)
    })
}
