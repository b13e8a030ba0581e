//! `authgate session ...`: lists and revokes sessions.

use super::people::{instant, looked, open, remark, say, say_json, settle, table};
use super::{CommandError, Globals, Revoke, SessionCommand};
use crate::account::Admin;
use crate::store::SessionRow;

/// Runs the command.
pub fn run(globals: &Globals, command: SessionCommand) -> Result<(), CommandError> {
    let mut admin = if matches!(command, SessionCommand::List { .. }) { looked(globals)? } else { open(globals)? };
    match command {
        SessionCommand::List { email, json } => list(&mut admin, email.as_deref(), json),
        SessionCommand::Revoke(which) => {
            let ended = match which {
                Revoke::Id(id) => admin.revoke_session(&id).map(|()| 1)?,
                Revoke::User(email) => admin.revoke_sessions(Some(&email))?,
                Revoke::All => admin.revoke_sessions(None)?,
            };
            settle(&mut admin);
            remark(&format!("ended {ended} {}", if ended == 1 { "session" } else { "sessions" }));
            Ok(())
        }
    }
}

fn list(admin: &mut Admin, email: Option<&str>, json: bool) -> Result<(), CommandError> {
    let rows = admin.sessions(email)?;
    let email = |row: &SessionRow| row.user.as_ref().map(|user| user.email.clone()).unwrap_or_default();
    if json {
        let session = |row: &SessionRow| {
            serde_json::json!({
                "id": row.id,
                "email": email(row),
                "created": instant(row.created),
                "seen": instant(row.seen),
                "expires": instant(row.expires),
                "remember": row.remember,
                "address": row.address,
                "user_agent": row.user_agent,
                "provider": row.provider,
            })
        };
        return say_json(&rows.iter().map(session).collect());
    }
    let cells = |row: &SessionRow| {
        vec![
            row.id.clone(),
            email(row),
            instant(row.created),
            instant(row.seen),
            row.provider.clone().unwrap_or_default(),
            row.address.clone(),
            row.user_agent.clone(),
        ]
    };
    say(&table(
        &["ID", "EMAIL", "SINCE", "SEEN", "PROVIDER", "ADDRESS", "BROWSER"],
        &rows.iter().map(cells).collect::<Vec<_>>(),
    ))
}
