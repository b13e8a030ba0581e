//! `authgate user ...`: accounts.

use super::people::{instant, looked, open, read_password, remark, say, say_json, settle, table, user_json};
use super::{CommandError, Globals, UserArgs, UserCommand};
use crate::account::{Admin, Details};
use crate::store::UserRow;

/// Carries the command out.
pub fn run(globals: &Globals, command: UserCommand) -> Result<(), CommandError> {
    if let UserCommand::Set(args) = &command {
        let nothing = args.new_email.is_none()
            && args.name.is_none()
            && args.picture.is_none()
            && args.groups.is_empty()
            && !args.password_stdin;
        if nothing {
            return Err(CommandError::Usage(
                "say what to change: --email, --name, --picture, --group or --password-stdin".to_owned(),
            ));
        }
    }
    let only_tells = matches!(command, UserCommand::List { .. } | UserCommand::Show { .. });
    let mut admin = if only_tells { looked(globals)? } else { open(globals)? };
    match command {
        UserCommand::Add(args) => add(&mut admin, args),
        UserCommand::Set(args) => {
            let (email, details) = details(args)?;
            let other_email = details.email.is_some();
            changed(&admin.set_user(&email, details)?, "changed", &admin);
            if other_email {
                remark("Links that were sent before do not work any more: `authgate user reset` makes one.");
            }
            Ok(())
        }
        UserCommand::List { json } => list(&mut admin, json),
        UserCommand::Show { email, json } => show(&mut admin, &email, json),
        UserCommand::Remove { email } => {
            changed(&admin.remove_user(&email)?, "removed", &admin);
            Ok(())
        }
        UserCommand::Disable { email } => {
            changed(&admin.set_disabled(&email, true)?, "disabled", &admin);
            Ok(())
        }
        UserCommand::Enable { email } => {
            changed(&admin.set_disabled(&email, false)?, "enabled", &admin);
            Ok(())
        }
        UserCommand::Reset { email } => {
            say(admin.reset_link(&email)?.expose());
            remark("This link sets a new password. It works once, within 24 hours.");
            Ok(())
        }
    }
}

fn changed(user: &UserRow, how: &str, admin: &Admin) {
    settle(admin);
    remark(&format!("{how} {} (id {})", user.email, user.id));
}

/// The details that the arguments name. Groups replace the account's; a lone empty one is none.
fn details(args: UserArgs) -> Result<(String, Details), CommandError> {
    let groups = match args.groups.as_slice() {
        [] => None,
        [only] if only.is_empty() => Some(Vec::new()),
        _ => Some(args.groups),
    };
    let password = if args.password_stdin { Some(read_password()?) } else { None };
    Ok((args.email, Details { email: args.new_email, name: args.name, picture: args.picture, groups, password }))
}

fn add(admin: &mut Admin, args: UserArgs) -> Result<(), CommandError> {
    let (email, details) = details(args)?;
    let (user, link) = admin.add_user(&email, details)?;
    changed(&user, "added", admin);
    if let Some(link) = link {
        say(link.expose());
        remark("This link sets the password. It works once, within 7 days.");
    }
    Ok(())
}

fn state(user: &UserRow) -> &'static str {
    match (user.disabled, user.password.is_some()) {
        (true, _) => "disabled",
        (false, true) => "active",
        (false, false) => "invited",
    }
}

fn list(admin: &mut Admin, json: bool) -> Result<(), CommandError> {
    let users = admin.users()?;
    if json {
        say_json(&users.iter().map(user_json).collect());
        return Ok(());
    }
    let row = |user: &UserRow| {
        vec![user.id.clone(), user.email.clone(), user.name.clone(), user.groups.join(","), state(user).to_owned()]
    };
    say(&table(&["ID", "EMAIL", "NAME", "GROUPS", "STATE"], &users.iter().map(row).collect::<Vec<_>>()));
    Ok(())
}

fn show(admin: &mut Admin, email: &str, json: bool) -> Result<(), CommandError> {
    let user = admin.user(email)?;
    if json {
        say_json(&user_json(&user));
        return Ok(());
    }
    let sessions = admin.sessions(Some(&user.email))?.len();
    let lines = [
        ("id", user.id.clone()),
        ("email", user.email.clone()),
        ("name", user.name.clone()),
        ("picture", user.picture.clone()),
        ("groups", user.groups.join(",")),
        ("state", state(&user).to_owned()),
        ("created", instant(user.created)),
        ("sessions", sessions.to_string()),
    ];
    for (name, value) in lines {
        say(format!("{name:<9} {value}").trim_end());
    }
    Ok(())
}
