//! Shared by the account commands: opening the store, waiting for a running gateway, terminal output. Data goes to
//! standard output, remarks to standard error.

use std::io::{BufRead, ErrorKind, IsTerminal, Write};
use std::path::Path;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{CommandError, Globals};
use crate::account::{Admin, AdminError};
use crate::clock::{Clock, UnixSecs};
use crate::config::{self, Config, Faults, Secrets};
use crate::logging::printable_lines;
use crate::secret::Secret;
use crate::store::{self, UserRow};

/// Longest password line, in bytes.
const PASSWORD_BYTES_MAX: u64 = 4096;

/// Says that a password that was set signs no one in.
pub(super) fn remark_if_unused(admin: &Admin, has_password: bool) {
    if has_password && !admin.has_passwords() {
        remark("Passwords are off ([password] enabled = false): they sign no one in until they are on again.");
    }
}

/// Opens the accounts of the configuration. A database is created only if the configuration is valid: a broken one may
/// name another directory than the gateway uses.
pub(super) fn open(globals: &Globals) -> Result<Admin, CommandError> {
    Ok(open_with_config(globals)?.0)
}

/// The same, with what can be read of the configuration.
pub(super) fn open_with_config(globals: &Globals) -> Result<(Admin, Config), CommandError> {
    let (config, broken) = readable(globals)?;
    let state_dir = &config.server.state_dir;
    let is_new = config.store.is_none() && !store::has_database(state_dir)?;
    if broken && is_new {
        let (file, dir) = (globals.config_path(), state_dir.display());
        let why = format!("{dir} contains no database, and {} is invalid", file.display());
        return Err(CommandError::Refused(format!("{why}: set the gateway's state directory with --state-dir DIR")));
    }
    let admin = Admin::open(&config, Clock::system())?;
    if let Some(migrated) = admin.migrated() {
        remark(&migrated.to_string());
    }
    if is_new {
        remark(&format!("created a new database in {}", state_dir.display()));
    }
    Ok((admin, config))
}

/// Opens the accounts read-only: nothing is created or changed.
pub(super) fn looked(globals: &Globals) -> Result<Admin, CommandError> {
    let (config, _) = readable(globals)?;
    Ok(Admin::open_read_only(&config, Clock::system())?)
}

/// Refuses a configuration with `[store] url`: the database of the state folder is not meant.
pub(super) fn refuse_store(config: &Config) -> Result<(), CommandError> {
    match &config.store {
        None => Ok(()),
        Some(store) => Err(CommandError::Refused(store.unreadable.clone().unwrap_or_else(|| {
            let shown = store.url.shown();
            format!("the accounts are in {shown}: use the server's own tools for that")
        }))),
    }
}

/// Loads the configuration without its secrets; without a file, that of `run --to`.
pub(super) fn configured(globals: &Globals) -> Result<Config, CommandError> {
    found(globals, config::load).map_err(CommandError::Config)
}

/// Like [`configured`], for commands that need little of it: a broken file is read as far as possible, with a warning.
/// Otherwise users could not be signed out until the file is fixed. Also returns whether it is broken.
pub(super) fn readable(globals: &Globals) -> Result<(Config, bool), CommandError> {
    let mut broken = None;
    let load = |path: &Path, state_dir: Option<&Path>, secrets| {
        let (config, faults) = config::load_broken(path, state_dir, secrets)?;
        broken = faults;
        Ok(config)
    };
    let config = found(globals, load).map_err(CommandError::Config)?;
    if let Some(faults) = &broken {
        let (file, dir) = (globals.config_path(), config.server.state_dir.display());
        let count = faults.list().len();
        remark(&format!(
            "warning: {} has {count} error{} (see authgate check); using state directory {dir}",
            file.display(),
            if count == 1 { "" } else { "s" }
        ));
    }
    Ok((config, broken.is_some()))
}

fn found(
    globals: &Globals,
    load: impl FnOnce(&Path, Option<&Path>, Secrets) -> Result<Config, Faults>,
) -> Result<Config, Faults> {
    let path = globals.config_path();
    let state_dir = globals.state_dir.as_deref();
    let without_file =
        globals.config.is_none() && !path.exists() && (state_dir.is_some() || Path::new("state").is_dir());
    if without_file {
        config::one_app("builtin:whoami", None, state_dir)
    } else {
        load(&path, state_dir, Secrets::Left)
    }
}

/// Waits until a running gateway has applied the change, and warns if it does not.
pub(super) fn settle(admin: &mut Admin) {
    if let Some(which) = admin.wait_until_applied() {
        remark(&format!("warning: {which}"));
    }
    if admin.has_noted_ends() {
        remark("warning: the disk is full; the sessions have ended, and this is saved once there is space");
    }
}

fn print(line: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

fn printed(line: &str) -> Result<(), CommandError> {
    match print(line) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(CommandError::Refused(unwritten(&error))),
        _ => Ok(()),
    }
}

fn unwritten(error: &std::io::Error) -> String {
    format!("cannot write to standard output: {error}")
}

/// Prints data, one line or several, with control characters from other people's input escaped. A closed pipe is not an
/// error.
///
/// # Errors
/// Standard output cannot be written, for example because the disk is full.
pub(super) fn say(line: &str) -> Result<(), CommandError> {
    printed(&printable_lines(line))
}

/// Prints a line that is shown only once. If it could not be printed (including a closed pipe), `take_back` revokes the
/// secret.
pub(super) fn say_once(
    secret: &Secret,
    take_back: impl FnOnce() -> Result<(), AdminError>,
) -> Result<(), CommandError> {
    let Err(error) = print(secret.expose()) else { return Ok(()) };
    let why = unwritten(&error);
    Err(CommandError::Refused(match take_back() {
        Ok(()) => format!("{why}; the secret that could not be printed was revoked"),
        Err(AdminError(left)) => format!("{why}; the secret that could not be printed could not be revoked: {left}"),
    }))
}

/// Prints a remark to standard error.
pub(super) fn remark(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", printable_lines(line));
}

/// Prints a JSON document.
///
/// # Errors
/// As [`say`].
pub(super) fn say_json(value: &serde_json::Value) -> Result<(), CommandError> {
    printed(&format!("{value:#}"))
}

/// Asks for confirmation. Without a terminal there is no question: scripts are assumed to mean it.
pub(super) fn confirmed(question: &str) -> Result<bool, CommandError> {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Ok(true);
    }
    let _ = write!(std::io::stderr().lock(), "{} [y/N] ", printable_lines(question));
    let mut line = String::new();
    let read = std::io::BufReader::new(std::io::Read::take(std::io::stdin().lock(), 64)).read_line(&mut line);
    read.map_err(|error| CommandError::Refused(format!("cannot read the answer: {error}")))?;
    Ok(matches!(line.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// Reads the password: the first line of standard input, or typed twice at a terminal.
pub(super) fn read_password() -> Result<Secret, CommandError> {
    let unread = |error: std::io::Error| CommandError::Refused(format!("cannot read the password: {error}"));
    if std::io::stdin().is_terminal() {
        let first = Secret::new(rpassword::prompt_password("Password: ").map_err(unread)?);
        let again = Secret::new(rpassword::prompt_password("Repeat password: ").map_err(unread)?);
        if first.expose() != again.expose() {
            return Err(CommandError::Refused("the passwords do not match".to_owned()));
        }
        return Ok(first);
    }
    first_line(std::io::stdin().lock())
}

fn first_line(input: impl std::io::Read) -> Result<Secret, CommandError> {
    let mut line = String::new();
    std::io::BufReader::new(std::io::Read::take(input, PASSWORD_BYTES_MAX))
        .read_line(&mut line)
        .map_err(|error| CommandError::Refused(format!("cannot read the password: {error}")))?;
    let mut password = Secret::new(line);
    let text = password.expose();
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text).to_owned();
    password = Secret::new(text);
    if password.expose().is_empty() {
        return Err(CommandError::Refused("standard input contains no password".to_owned()));
    }
    Ok(password)
}

/// ISO 8601 in UTC.
pub(super) fn instant(at: UnixSecs) -> String {
    i64::try_from(at)
        .ok()
        .and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok())
        .and_then(|at| at.format(&Rfc3339).ok())
        .unwrap_or_default()
}

/// Rows under headings, in aligned columns; the headings only if there are no rows.
pub(super) fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([headings[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let body = rows.iter().map(|row| line(row.iter().map(String::as_str).collect()));
    std::iter::once(line(headings.to_vec())).chain(body).collect::<Vec<_>>().join("\n")
}

/// An account as JSON.
pub(super) fn user_json(user: &UserRow) -> serde_json::Value {
    serde_json::json!({
        "id": user.id,
        "email": user.email,
        "name": user.name,
        "picture": user.picture,
        "groups": user.groups,
        "disabled": user.disabled,
        "password": user.password.is_some(),
        "created": instant(user.created),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_the_first_line_exactly() {
        let read = |text: &str| first_line(text.as_bytes()).map(|secret| secret.expose().to_owned()).ok();
        assert_eq!(read("  with spaces \nsecond\n").as_deref(), Some("  with spaces "));
        assert_eq!(read("no end").as_deref(), Some("no end"));
        assert_eq!(read("windows\r\n").as_deref(), Some("windows"));
        assert_eq!(read("\n"), None);
        assert_eq!(read(""), None);
    }

    #[test]
    fn tables_stand_in_columns() {
        let rows = vec![vec!["1".to_owned(), "ada".to_owned()], vec!["22".to_owned(), String::new()]];
        assert_eq!(table(&["ID", "NAME"], &rows), "ID  NAME\n1   ada\n22");
        assert_eq!(instant(0), "1970-01-01T00:00:00Z");
    }
}
