//! `authgate user import`: accounts from other programs. Files are read here; rows are validated in [`crate::account`].
//! Findings are reported by row.

use std::path::Path;

use yaml_rust2::{Yaml, YamlLoader};

use super::people::{open_with_config, remark, remark_if_unused, say, settle};
use super::{CommandError, Globals, ImportArgs, ImportFormat, import_identities};
use crate::account::{ImportRow, ImportRules, admin::import};
use crate::secret::Secret;
use crate::store;

/// Largest file, in bytes.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// Rows, and the highest id ever assigned.
type Read = (Vec<ImportRow>, u64);

/// Runs the import.
pub fn run(globals: &Globals, args: &ImportArgs) -> Result<(), CommandError> {
    let (rows, highest_id) = match args.format {
        ImportFormat::Prisma => prisma(args),
        ImportFormat::Csv => csv(args),
        ImportFormat::Htpasswd => htpasswd(args),
        ImportFormat::Authelia => authelia(args),
    }?;
    let identities = import_identities::read(args)?;
    let (mut admin, config) = open_with_config(globals)?;
    let (read, linked) = (rows.len(), identities.len());
    let has_password = rows.iter().any(|row| row.password.is_some());
    let providers = config.providers.iter().map(|provider| provider.name.clone()).collect();
    let rules = ImportRules { dry_run: args.dry_run, strict: args.strict, highest_id, providers };
    let done = import::run(&mut admin, rows, identities, &rules)?;
    for finding in &done.findings {
        let file = args.accounts.as_ref().filter(|_| finding.of_identities).unwrap_or(&args.file);
        let table = if finding.of_identities && args.accounts.is_none() { "identity " } else { "" };
        remark(&format!("{}:{table}{}: {}", file.display(), finding.row, finding.what));
    }
    if args.strict && !done.findings.is_empty() {
        let count = done.findings.len();
        return Err(CommandError::Refused(format!("{count} findings with --strict: nothing was imported")));
    }
    settle(&mut admin);
    remark_if_unused(&admin, has_password);
    let verb = if args.dry_run { "would import" } else { "imported" };
    say(&format!("{verb} {} of {read} accounts, skipped {}", read - done.skipped, done.skipped))?;
    if linked > 0 {
        say(&format!("{verb} {} of {linked} identities, skipped {}", done.identities, linked - done.identities))?;
    }
    Ok(())
}

fn refused(args: &ImportArgs, what: impl std::fmt::Display) -> CommandError {
    CommandError::Refused(format!("{}: {what}; nothing was imported", args.file.display()))
}

fn read_text(args: &ImportArgs) -> Result<String, CommandError> {
    let length = std::fs::metadata(&args.file).map_err(|error| refused(args, error))?.len();
    if length > FILE_BYTES_MAX {
        return Err(refused(args, "the file is larger than 256 MiB"));
    }
    let bytes = std::fs::read(&args.file).map_err(|error| refused(args, error))?;
    let text = String::from_utf8(bytes).map_err(|_| refused(args, "the file is not UTF-8"))?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// Column indexes in a table's rows.
struct Columns {
    id: Option<usize>,
    email: usize,
    email_verified: Option<usize>,
    password: Option<usize>,
    name: Option<usize>,
    picture: Option<usize>,
    groups: Option<usize>,
}

impl Columns {
    /// A column named in the arguments must exist; otherwise the usual names are tried.
    fn find(args: &ImportArgs, names: &[String]) -> Result<Self, CommandError> {
        let find = |named: &Option<String>, usual: &[&str]| match named {
            Some(named) => {
                let at = names.iter().position(|name| name == named);
                at.map(Some)
                    .ok_or_else(|| refused(args, format!("no column `{named}`; the columns are {}", names.join(", "))))
            }
            None => Ok(names.iter().position(|name| usual.iter().any(|usual| name.eq_ignore_ascii_case(usual)))),
        };
        let email = find(&args.email_column, &["email", "e-mail", "mail"])?;
        Ok(Self {
            id: find(&args.id_column, &["id"])?,
            email: email.ok_or_else(|| {
                refused(
                    args,
                    format!("no column with e-mails (set --email-column); the columns are {}", names.join(", ")),
                )
            })?,
            email_verified: find(&None, &["emailVerified", "email_verified"])?,
            password: find(&args.password_column, &["password", "passwordHash", "password_hash", "hash"])?,
            name: find(&args.name_column, &["name", "displayname", "display_name"])?,
            picture: find(&args.picture_column, &["picture", "photo", "image", "avatar"])?,
            groups: find(&args.groups_column, &["groups"])?,
        })
    }

    fn user(&self, row: usize, values: &[Option<String>]) -> ImportRow {
        let value = |at: Option<usize>| at.and_then(|at| values.get(at)).cloned().flatten();
        let groups = value(self.groups).unwrap_or_default();
        ImportRow {
            row,
            id: value(self.id),
            email: value(Some(self.email)).unwrap_or_default(),
            // the time of verification, or a boolean
            email_proved: value(self.email_verified)
                .is_some_and(|text| !["", "0", "f", "false"].contains(&text.trim().to_ascii_lowercase().as_str())),
            password: value(self.password).map(Secret::new),
            name: value(self.name).unwrap_or_default(),
            picture: value(self.picture).unwrap_or_default(),
            groups: groups.split([',', ';']).filter(|group| !group.trim().is_empty()).map(str::to_owned).collect(),
            disabled: false,
        }
    }
}

fn prisma(args: &ImportArgs) -> Result<Read, CommandError> {
    let name = args.table.as_deref().unwrap_or("User");
    let file = Path::new(&args.file);
    let table = store::read_table(file, name)
        .map_err(|error| CommandError::Refused(format!("{error}; nothing was imported")))?;
    let columns = Columns::find(args, &table.columns)?;
    let rows = (1..).zip(&table.rows).map(|(row, values)| columns.user(row, values)).collect();
    Ok((rows, table.sequence))
}

/// The format of PostgreSQL's `\copy ... WITH (FORMAT csv, HEADER)`: an empty field is NULL. Rows are numbered by line.
fn csv(args: &ImportArgs) -> Result<Read, CommandError> {
    let text = read_text(args)?;
    let mut reader = csv::ReaderBuilder::new().from_reader(text.as_bytes());
    let names: Vec<String> =
        reader.headers().map_err(|error| refused(args, error))?.iter().map(|name| name.trim().to_owned()).collect();
    let columns = Columns::find(args, &names)?;
    let mut rows = Vec::new();
    let (mut line, mut counted) = (1, 0);
    for record in reader.records() {
        let record = record.map_err(|error| refused(args, error))?;
        // the reported position is between CR and LF: the record starts after them
        let at = record.position().map_or(0, |at| usize::try_from(at.byte()).unwrap_or(0));
        let begins = at + text[at..].len() - text[at..].trim_start_matches(['\r', '\n']).len();
        line += text[counted..begins].matches('\n').count();
        counted = begins;
        let values: Vec<_> = record.iter().map(|field| (!field.is_empty()).then(|| field.to_owned())).collect();
        rows.push(columns.user(line, &values));
    }
    Ok((rows, 0))
}

/// `name:hash` lines, as Apache and nginx read them: surrounding blanks and fields after the hash are ignored.
/// `--domain` turns names that are not e-mail addresses into addresses.
fn htpasswd(args: &ImportArgs) -> Result<Read, CommandError> {
    let mut rows = Vec::new();
    for (row, line) in (1..).zip(read_text(args)?.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, rest) = line.split_once(':').unwrap_or((line, ""));
        let hash = rest.split(':').next().unwrap_or_default().trim_end();
        rows.push(ImportRow {
            row,
            email: address(args, name),
            password: Some(Secret::new(hash.to_owned())),
            name: if name.contains('@') { String::new() } else { name.to_owned() },
            ..ImportRow::default()
        });
    }
    Ok((rows, 0))
}

fn address(args: &ImportArgs, name: &str) -> String {
    match &args.domain {
        Some(domain) if !name.contains('@') => format!("{name}@{domain}"),
        _ => name.to_owned(),
    }
}

/// `users: { name: { password, displayname, email, groups, disabled } }`
fn authelia(args: &ImportArgs) -> Result<Read, CommandError> {
    let text = read_text(args)?;
    let documents = YamlLoader::load_from_str(&text).map_err(|error| refused(args, error))?;
    let users = documents.first().and_then(|document| document["users"].as_hash());
    let users = users.ok_or_else(|| refused(args, "the file has no `users` mapping"))?;
    let mut rows = Vec::new();
    for (key, user) in users {
        let name = key.as_str().map(str::to_owned).or_else(|| key.as_i64().map(|number| number.to_string()));
        let name = name.unwrap_or_default();
        let text_of = |key: &str| user[key].as_str().unwrap_or_default().to_owned();
        let email = text_of("email");
        let groups =
            user["groups"].as_vec().map(|list| list.iter().filter_map(Yaml::as_str).map(str::to_owned).collect());
        rows.push(ImportRow {
            row: line_of(&text, &name),
            email: if email.is_empty() { address(args, &name) } else { email },
            email_proved: false,
            password: user["password"].as_str().map(|hash| Secret::new(hash.to_owned())),
            name: text_of("displayname"),
            picture: text_of("picture"),
            groups: groups.unwrap_or_default(),
            disabled: user["disabled"].as_bool().unwrap_or(false),
            id: None,
        });
    }
    Ok((rows, 0))
}

/// The line on which a user begins; 0 if the file spells the name differently.
fn line_of(text: &str, name: &str) -> usize {
    let bare = |line: &str| line.trim().trim_matches(['"', '\'']).to_owned();
    let begins = |line: &str| line.trim_end().strip_suffix(':').is_some_and(|key| bare(key) == name);
    text.lines().position(begins).map_or(0, |at| at + 1)
}
