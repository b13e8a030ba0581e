//! Identities of other programs, for `authgate user import`: the `Account` table of Auth.js. Its tokens are never read.

use std::path::Path;

use super::{CommandError, ImportArgs, ImportFormat};
use crate::account::ImportIdentity;
use crate::store;

/// The table's name in a Prisma file.
const TABLE: &str = "Account";
/// Larger files are no list of people.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// What the arguments name: a CSV file, a table, or the usual table if there is one.
pub(super) fn read(args: &ImportArgs) -> Result<Vec<ImportIdentity>, CommandError> {
    if let Some(file) = &args.accounts {
        return csv(args, file);
    }
    if args.format != ImportFormat::Prisma {
        return Ok(Vec::new());
    }
    let refused = |error| CommandError::Refused(format!("{error}; nothing was imported"));
    let name = args.accounts_table.as_deref().unwrap_or(TABLE);
    if args.accounts_table.is_none() && !store::has_table(&args.file, name).map_err(refused)? {
        return Ok(Vec::new());
    }
    let table = store::read_table(&args.file, name).map_err(refused)?;
    let columns = Columns::find(&args.file, &table.columns)?;
    Ok((1..).zip(&table.rows).filter_map(|(row, values)| columns.identity(args, row, values)).collect())
}

fn csv(args: &ImportArgs, file: &Path) -> Result<Vec<ImportIdentity>, CommandError> {
    let refused = |what: &dyn std::fmt::Display| {
        CommandError::Refused(format!("{}: {what}; nothing was imported", file.display()))
    };
    if std::fs::metadata(file).map_err(|error| refused(&error))?.len() > FILE_BYTES_MAX {
        return Err(refused(&"the file is larger than 256 MiB"));
    }
    let text = std::fs::read_to_string(file).map_err(|error| refused(&error))?;
    let mut reader = csv::ReaderBuilder::new().from_reader(text.trim_start_matches('\u{feff}').as_bytes());
    let names: Vec<String> =
        reader.headers().map_err(|error| refused(&error))?.iter().map(|name| name.trim().to_owned()).collect();
    let columns = Columns::find(file, &names)?;
    let mut identities = Vec::new();
    for (row, record) in (1..).zip(reader.records()) {
        let record = record.map_err(|error| refused(&error))?;
        let values: Vec<_> = record.iter().map(|field| (!field.is_empty()).then(|| field.to_owned())).collect();
        identities.extend(columns.identity(args, row, &values));
    }
    Ok(identities)
}

/// Where each value is in a row.
struct Columns {
    user_id: usize,
    provider: usize,
    subject: usize,
    kind: Option<usize>,
}

impl Columns {
    fn find(file: &Path, names: &[String]) -> Result<Self, CommandError> {
        let find =
            |usual: [&str; 2]| names.iter().position(|name| usual.iter().any(|one| name.eq_ignore_ascii_case(one)));
        let needed = |usual: [&str; 2]| {
            find(usual).ok_or_else(|| {
                let (file, list) = (file.display(), names.join(", "));
                let what = format!("{file}: no column `{}`; the columns are {list}; nothing was imported", usual[0]);
                CommandError::Refused(what)
            })
        };
        Ok(Self {
            user_id: needed(["userId", "user_id"])?,
            provider: needed(["provider", "provider_id"])?,
            subject: needed(["providerAccountId", "provider_account_id"])?,
            kind: find(["type", "provider_type"]),
        })
    }

    /// `None`: a row of another kind, such as an e-mail link or a passkey.
    fn identity(&self, args: &ImportArgs, row: usize, values: &[Option<String>]) -> Option<ImportIdentity> {
        let value = |at: usize| values.get(at).cloned().flatten().unwrap_or_default();
        let kind = self.kind.map(value);
        if kind.is_some_and(|kind| kind != "oauth" && kind != "oidc") {
            return None;
        }
        let theirs = value(self.provider);
        let ours = args.providers.iter().find(|(from, _)| *from == theirs).map(|(_, to)| to.clone());
        Some(ImportIdentity {
            row,
            user_id: value(self.user_id),
            provider: ours.unwrap_or(theirs),
            subject: value(self.subject),
        })
    }
}
