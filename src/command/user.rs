//! `authgate user ...`: accounts.

use super::people::{
    confirmed, instant, looked, open, open_with_config, read_password, remark, remark_if_unused, say, say_json,
    say_once, settle, table, user_json,
};
use super::{CommandError, Globals, UserArgs, UserCommand, UserFilter};
use crate::account::admin::identities;
use crate::account::{Admin, Details};
use crate::store::{IdentityRow, UserRow};

/// What links to an account do without passwords.
const ADDS_SIGN_IN: &str = "adds a sign-in through a provider (passwords are off)";

/// Runs the command.
pub fn run(globals: &Globals, command: UserCommand) -> Result<(), CommandError> {
    if let UserCommand::Set(args) = &command {
        let nothing = args.new_email.is_none()
            && args.name.is_none()
            && args.picture.is_none()
            && args.groups.is_empty()
            && !args.password_stdin;
        if nothing {
            return Err(CommandError::Usage(
                "nothing to change: use --email, --name, --picture, --group or --password-stdin".to_owned(),
            ));
        }
    }
    let only_tells = matches!(command, UserCommand::List { .. } | UserCommand::Show { .. });
    if let UserCommand::Link { .. } | UserCommand::Unlink { .. } = command {
        return identity(globals, command);
    }
    let mut admin = if only_tells { looked(globals)? } else { open(globals)? };
    match command {
        UserCommand::Add(args) => add(&mut admin, args),
        UserCommand::Set(args) => {
            let (email, details) = details(args)?;
            let other_email = details.email.is_some();
            let has_password = details.password.is_some();
            let ends_tokens = has_password && !details.keep_tokens;
            changed(&admin.set_user(&email, details)?, "changed", &mut admin);
            if other_email {
                remark("Links sent earlier no longer work. Use `authgate user reset` to create one.");
            }
            if ends_tokens {
                remark("API tokens created with the old password are revoked, if there were any.");
            }
            remark_if_unused(&admin, has_password);
            Ok(())
        }
        UserCommand::List { filter, json } => list(&mut admin, &filter, json),
        UserCommand::Show { email, json } => show(&mut admin, &email, json),
        UserCommand::Remove { emails, yes } => remove(&mut admin, &emails, yes),
        UserCommand::Disable { email } => {
            changed(&admin.set_disabled(&email, true)?, "disabled", &mut admin);
            Ok(())
        }
        UserCommand::Enable { email } => {
            changed(&admin.set_disabled(&email, false)?, "enabled", &mut admin);
            Ok(())
        }
        UserCommand::Reset { email } => {
            let link = admin.reset_link(&email)?;
            say_once(&link, || admin.withdraw_link(&link))?;
            let what = if admin.has_passwords() { "sets a new password" } else { ADDS_SIGN_IN };
            remark(&format!("This link {what}. It works once, within 24 hours."));
            Ok(())
        }
        // above
        UserCommand::Link { .. } | UserCommand::Unlink { .. } => Ok(()),
    }
}

/// `user link` and `user unlink`.
fn identity(globals: &Globals, command: UserCommand) -> Result<(), CommandError> {
    let (mut admin, config) = open_with_config(globals)?;
    let ways = identities::ways_in(&config);
    match command {
        UserCommand::Link { email, provider, subject } => {
            if !ways.providers.contains(&provider) {
                let names = if ways.providers.is_empty() { "none".to_owned() } else { ways.providers.join(", ") };
                return Err(CommandError::Refused(format!(
                    "no [[provider]] is named `{provider}`; the configuration has {names}"
                )));
            }
            let user = identities::link(&mut admin, &email, &provider, &subject)?;
            changed(&user, &format!("linked {provider} to"), &mut admin);
        }
        UserCommand::Unlink { email, provider, subject, force } => {
            let subject = subject.as_deref();
            let (user, ended) = identities::unlink(&mut admin, &email, &provider, subject, &ways, force)?;
            changed(&user, &format!("unlinked {provider} from"), &mut admin);
            remark(&format!("ended {ended} {}", if ended == 1 { "session" } else { "sessions" }));
        }
        _ => {}
    }
    Ok(())
}

fn changed(user: &UserRow, how: &str, admin: &mut Admin) {
    settle(admin);
    remark(&format!("{how} {} (id {})", user.email, user.id));
}

/// The details given in the arguments. Groups replace the account's; a single empty one means no groups.
fn details(args: UserArgs) -> Result<(String, Details), CommandError> {
    let groups = match args.groups.as_slice() {
        [] => None,
        [only] if only.is_empty() => Some(Vec::new()),
        _ => Some(args.groups),
    };
    let password = if args.password_stdin { Some(read_password()?) } else { None };
    let details = Details {
        email: args.new_email,
        name: args.name,
        picture: args.picture,
        groups,
        password,
        keep_tokens: args.keep_tokens,
    };
    Ok((args.email, details))
}

fn add(admin: &mut Admin, args: UserArgs) -> Result<(), CommandError> {
    let (email, details) = details(args)?;
    let has_password = details.password.is_some();
    let (user, link) = admin.add_user(&email, details)?;
    changed(&user, "added", admin);
    remark_if_unused(admin, has_password);
    if let Some(link) = link {
        say_once(&link, || {
            admin.withdraw_link(&link)?;
            admin.remove_user(&user.email).map(drop)
        })?;
        let what = if admin.has_passwords() { "sets the password" } else { ADDS_SIGN_IN };
        remark(&format!("This link {what}. It works once, within 7 days."));
    }
    Ok(())
}

/// Removes all of them, or none if one has no account.
fn remove(admin: &mut Admin, emails: &[String], yes: bool) -> Result<(), CommandError> {
    let mut users: Vec<UserRow> = Vec::new();
    for email in emails {
        let user = admin.user(email)?;
        if users.iter().all(|other| other.id != user.id) {
            users.push(user);
        }
    }
    let names: Vec<&str> = users.iter().map(|user| user.email.as_str()).collect();
    if !yes && !confirmed(&format!("Permanently remove {} with all sessions and tokens?", names.join(", ")))? {
        return Err(CommandError::Refused("nothing was removed".to_owned()));
    }
    for user in &users {
        changed(&admin.remove_user(&user.email)?, "removed", admin);
    }
    Ok(())
}

/// `has_identity`: of any provider.
fn state(user: &UserRow, has_identity: bool, has_passwords: bool) -> &'static str {
    match user.password.is_some() {
        _ if user.disabled => "disabled",
        _ if has_identity => "active",
        true if has_passwords => "active",
        true => "no sign-in",
        false => "invited",
    }
}

/// Case-insensitive: a part of the text, or the whole text if the pattern has stars, which match anything.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.to_lowercase(), text.to_lowercase());
    let pieces: Vec<&str> = pattern.split('*').collect();
    let [first, between @ .., last] = pieces.as_slice() else { return text.contains(&pattern) };
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    for piece in between {
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}

fn is_wanted(filter: &UserFilter, user: &UserRow) -> bool {
    filter.pattern.as_ref().is_none_or(|pattern| matches(pattern, &user.email) || matches(pattern, &user.name))
        && filter.group.as_ref().is_none_or(|group| user.groups.contains(group))
        && (!filter.disabled || user.disabled)
}

fn list(admin: &mut Admin, filter: &UserFilter, json: bool) -> Result<(), CommandError> {
    let mut users = admin.users()?;
    users.retain(|user| is_wanted(filter, user));
    if json {
        return say_json(&users.iter().map(user_json).collect());
    }
    let (holders, has_passwords) = (identities::holders(admin)?, admin.has_passwords());
    let row = |user: &UserRow| {
        let state = state(user, holders.contains(&user.id), has_passwords);
        vec![user.id.clone(), user.email.clone(), user.name.clone(), user.groups.join(","), state.to_owned()]
    };
    say(&table(&["ID", "EMAIL", "NAME", "GROUPS", "STATE"], &users.iter().map(row).collect::<Vec<_>>()))
}

fn show(admin: &mut Admin, email: &str, json: bool) -> Result<(), CommandError> {
    let user = admin.user(email)?;
    let own = identities::list(admin, &user)?;
    if json {
        let identity = |row: &IdentityRow| serde_json::json!({ "provider": row.provider, "subject": row.subject });
        let mut shown = user_json(&user);
        shown["identities"] = own.iter().map(identity).collect();
        return say_json(&shown);
    }
    let sessions = admin.sessions(Some(&user.email))?.len();
    let lines = [
        ("id", user.id.clone()),
        ("email", user.email.clone()),
        ("name", user.name.clone()),
        ("picture", user.picture.clone()),
        ("groups", user.groups.join(",")),
        ("state", state(&user, !own.is_empty(), admin.has_passwords()).to_owned()),
        ("created", instant(user.created)),
        ("sessions", sessions.to_string()),
    ];
    for (name, value) in lines {
        say(format!("{name:<9} {value}").trim_end())?;
    }
    for row in own {
        let seen = row.seen.map_or_else(|| "not used yet".to_owned(), |at| format!("last used {}", instant(at)));
        let login = if row.login.is_empty() { String::new() } else { format!(" ({})", row.login) };
        say(&format!("{:<9} {} {}{login}, {seen}", "identity", row.provider, row.subject))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn a_pattern_is_a_part_of_the_text_or_all_of_it_with_stars() {
        for (pattern, text, fits) in [
            ("ada", "ADA@example.com", true),
            ("@example", "ada@example.com", true),
            ("bob", "ada@example.com", false),
            ("", "ada@example.com", true),
            ("*@example.com", "ada@example.com", true),
            ("*@example", "ada@example.com", false),
            ("a*@*.com", "ada@example.com", true),
            ("a*a", "a", false),
            ("a**c", "abc", true),
            ("É*", "émile", true),
        ] {
            assert_eq!(matches(pattern, text), fits, "{pattern} {text}");
        }
    }
}
