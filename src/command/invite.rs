//! `authgate invite ...`: one-time sign-up links. A link is shown once, on creation.

use super::people::{instant, looked, open, remark, say, say_json, say_once, settle, table};
use super::{CommandError, Globals, InviteArgs, InviteCommand};
use crate::account::{Admin, admin::invites};
use crate::store::InviteRow;

/// Runs the command.
pub fn run(globals: &Globals, command: InviteCommand) -> Result<(), CommandError> {
    match command {
        InviteCommand::Make(args) => make(&mut open(globals)?, &args),
        InviteCommand::List { json } => list(&mut looked(globals)?, json),
        InviteCommand::Revoke { id } => {
            let mut admin = open(globals)?;
            invites::revoke(&mut admin, &id)?;
            settle(&mut admin);
            remark(&format!("revoked invite {id}"));
            Ok(())
        }
    }
}

fn make(admin: &mut Admin, args: &InviteArgs) -> Result<(), CommandError> {
    let link = invites::create(admin, args.email.as_deref(), &args.groups, args.expires_secs)?;
    say_once(&link, || admin.withdraw_link(&link))?;
    remark(&format!("This link creates an account. It works once, within {}.", span(args.expires_secs)));
    if args.email.is_none() {
        remark("warning: the first person to open this link can choose any unused e-mail; set it with --email");
    }
    Ok(())
}

fn list(admin: &mut Admin, json: bool) -> Result<(), CommandError> {
    let rows = invites::list(admin)?;
    if json {
        let invite = |row: &InviteRow| {
            serde_json::json!({
                "id": row.id,
                "kind": row.kind,
                "email": row.email,
                "groups": row.groups,
                "created": instant(row.created),
                "expires": instant(row.expires),
            })
        };
        return say_json(&rows.iter().map(invite).collect());
    }
    let cells = |row: &InviteRow| {
        let email = row.email.clone().unwrap_or_else(|| "any".to_owned());
        vec![row.id.clone(), row.kind.clone(), email, row.groups.join(","), instant(row.created), instant(row.expires)]
    };
    let headings = ["ID", "KIND", "EMAIL", "GROUPS", "CREATED", "EXPIRES"];
    say(&table(&headings, &rows.iter().map(cells).collect::<Vec<_>>()))
}

/// A duration in the largest unit that divides it.
fn span(secs: u64) -> String {
    let units = [(86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second")];
    let (unit, name) = units.into_iter().find(|(unit, _)| secs.is_multiple_of(*unit)).unwrap_or((1, "second"));
    match secs / unit {
        1 => format!("1 {name}"),
        many => format!("{many} {name}s"),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_time_is_reported_in_its_largest_unit() {
        let told = [604_800, 86_400, 7200, 5400, 59].map(super::span);
        assert_eq!(told, ["7 days", "1 day", "2 hours", "90 minutes", "59 seconds"]);
    }
}
