//! Ends of sessions that a provider asks for: one of its own sessions, or all of a person.

use super::audit::{self, AuditRow};
use super::convert::int;
use super::db::Db;
use super::error::StoreError;
use super::sql::{Tx, params};

/// What a provider has ended. With neither session nor subject, nothing.
#[derive(Debug, Clone)]
pub struct ProviderLogout {
    /// Its name.
    pub provider: String,
    /// Its own session.
    pub session: Option<String>,
    /// The person; `None`: whoever has that session.
    pub subject: Option<String>,
}

/// Ends the sessions; gives an audit event, derived from `event`, for each account that had one.
pub fn end_sessions(db: &mut Db, what: &ProviderLogout, event: &AuditRow) -> Result<Vec<AuditRow>, StoreError> {
    db.write_end(|tx| {
        let (by_session, by_subject) = (
            "provider = ?1 AND idp_sid = ?2 AND (?3 IS NULL OR subject = ?3)",
            "provider = ?1 AND subject = ?3 AND ?2 IS NULL",
        );
        let condition = if what.session.is_some() { by_session } else { by_subject };
        let events = events(tx, what, condition, event)?;
        let sql = format!("UPDATE session SET ended_at = ?4, rev = ?5 WHERE ended_at IS NULL AND {condition}");
        let rev = tx.rev()?;
        tx.execute(&sql, params![what.provider, what.session, what.subject, int(event.at), rev])?;
        for event in &events {
            audit::write(tx, event)?;
        }
        Ok(events)
    })
}

fn events(tx: &Tx<'_>, what: &ProviderLogout, condition: &str, event: &AuditRow) -> Result<Vec<AuditRow>, StoreError> {
    let sql = format!(
        "SELECT user.id, user.email, count(*) FROM session JOIN user ON user.id = session.user_id
         WHERE ended_at IS NULL AND {condition} GROUP BY user.id"
    );
    Ok(tx.query_map(&sql, params![what.provider, what.session, what.subject], |row| {
        let sessions: i64 = row.get(2)?;
        let detail = format!("{} {sessions} {}", what.provider, if sessions == 1 { "session" } else { "sessions" });
        Ok(AuditRow { user_id: row.get(0)?, email: row.get(1)?, detail, ..event.clone() })
    })?)
}
