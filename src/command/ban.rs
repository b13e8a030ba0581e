//! `authgate ban ...`: throttled accounts and addresses.

use super::people::{instant, looked, open, remark, say, say_json, table};
use super::{BanCommand, CommandError, Globals};
use crate::account::{Ban, admin::bans};

/// Runs the command.
pub fn run(globals: &Globals, command: BanCommand) -> Result<(), CommandError> {
    let mut admin = if matches!(command, BanCommand::List { .. }) { looked(globals)? } else { open(globals)? };
    match command {
        BanCommand::Lift { what } => {
            bans::lift(&mut admin, &what)?;
            remark(&format!("lifted {what}"));
            Ok(())
        }
        BanCommand::List { json: true } => {
            let ban =
                |ban: &Ban| serde_json::json!({ "kind": ban.kind, "what": ban.what, "until": instant(ban.until) });
            say_json(&bans::list(&mut admin)?.iter().map(ban).collect())
        }
        BanCommand::List { json: false } => {
            let now = admin.now();
            let cells =
                |ban: &Ban| vec![ban.what.clone(), ban.kind.to_owned(), format!("{} s", ban.until.saturating_sub(now))];
            say(&table(&["WHAT", "KIND", "REMAINS"], &bans::list(&mut admin)?.iter().map(cells).collect::<Vec<_>>()))
        }
    }
}
