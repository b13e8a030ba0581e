//! `authgate token ...`: API tokens. A token is shown once, on creation.

use super::people::{instant, looked, open, remark, say, say_json, say_once, settle, table};
use super::{CommandError, Globals, Revoke, TokenCommand};
use crate::account::{Admin, TokenDetails, admin::api_tokens};
use crate::store::ApiTokenRow;

/// Runs the command.
pub fn run(globals: &Globals, command: TokenCommand) -> Result<(), CommandError> {
    let mut admin = if matches!(command, TokenCommand::List { .. }) { looked(globals)? } else { open(globals)? };
    match command {
        TokenCommand::Create { email, name, scopes, expires_secs } => {
            let details = TokenDetails { name, scopes, lasts_secs: expires_secs, form_id: None };
            let (id, token) = api_tokens::create(&mut admin, &email, &details)?;
            settle(&mut admin);
            say_once(&token, || api_tokens::revoke(&mut admin, &id))?;
            remark(&format!("created token {id}; it is not shown again"));
            Ok(())
        }
        TokenCommand::List { email, json } => list(&mut admin, email.as_deref(), json),
        TokenCommand::Revoke(which) => {
            let revoked = match which {
                Revoke::Id(id) => api_tokens::revoke(&mut admin, &id).map(|()| 1)?,
                Revoke::User(email) => api_tokens::revoke_all(&mut admin, Some(&email))?,
                Revoke::All => api_tokens::revoke_all(&mut admin, None)?,
            };
            settle(&mut admin);
            remark(&format!("revoked {revoked} {}", if revoked == 1 { "token" } else { "tokens" }));
            Ok(())
        }
    }
}

fn list(admin: &mut Admin, email: Option<&str>, json: bool) -> Result<(), CommandError> {
    let rows = api_tokens::list(admin, email)?;
    let email = |row: &ApiTokenRow| row.user.as_ref().map(|user| user.email.clone()).unwrap_or_default();
    let seen = |row: &ApiTokenRow| (row.seen > 0).then(|| instant(row.seen));
    if json {
        let token = |row: &ApiTokenRow| {
            serde_json::json!({
                "id": row.id,
                "email": email(row),
                "name": row.name,
                "scopes": row.scopes,
                "created": instant(row.created),
                "expires": instant(row.expires),
                "seen": seen(row),
            })
        };
        return say_json(&rows.iter().map(token).collect());
    }
    let cells = |row: &ApiTokenRow| {
        let seen = seen(row).unwrap_or_else(|| "never".to_owned());
        vec![row.id.clone(), email(row), row.name.clone(), instant(row.expires), seen, row.scopes.join(", ")]
    };
    say(&table(&["ID", "EMAIL", "NAME", "EXPIRES", "SEEN", "SCOPES"], &rows.iter().map(cells).collect::<Vec<_>>()))
}
