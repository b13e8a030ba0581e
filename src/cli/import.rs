//! The arguments of `user import`.

use std::path::PathBuf;

use clap::Args;

use crate::command::{ImportArgs, ImportFormat};

#[derive(Args)]
pub(super) struct Import {
    /// File to import
    pub(super) file: PathBuf,
    /// File format
    #[arg(long, value_enum)]
    pub(super) format: Format,
    /// Show what would be imported, without importing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Import nothing if there is any finding
    #[arg(long)]
    pub(super) strict: bool,
    /// Table of a Prisma file [default: User]
    #[arg(long, value_name = "NAME")]
    pub(super) table: Option<String>,
    /// Column of ids [default: id]
    #[arg(long, value_name = "NAME")]
    pub(super) id_column: Option<String>,
    /// Column of e-mails [default: email]
    #[arg(long, value_name = "NAME")]
    pub(super) email_column: Option<String>,
    /// Column of password hashes [default: password, passwordHash, password_hash or hash]
    #[arg(long, value_name = "NAME")]
    pub(super) password_column: Option<String>,
    /// Column of names [default: name or displayname]
    #[arg(long, value_name = "NAME")]
    pub(super) name_column: Option<String>,
    /// Column of picture addresses [default: picture, photo, image or avatar]
    #[arg(long, value_name = "NAME")]
    pub(super) picture_column: Option<String>,
    /// Column of groups, joined by commas [default: groups]
    #[arg(long, value_name = "NAME")]
    pub(super) groups_column: Option<String>,
    /// CSV file of provider links, with the columns userId, provider, providerAccountId and type
    #[arg(long, value_name = "FILE")]
    pub(super) accounts: Option<PathBuf>,
    /// Table of provider links in a Prisma file [default: Account, if there is one]
    #[arg(long, value_name = "NAME", conflicts_with = "accounts")]
    pub(super) accounts_table: Option<String>,
    /// Import links of the provider THERE under the name HERE; may be repeated
    #[arg(long = "provider", value_name = "THERE=HERE", value_parser = renamed)]
    pub(super) providers: Vec<(String, String)>,
    /// For files whose users have no e-mail: NAME becomes NAME@DOMAIN
    #[arg(long, value_name = "DOMAIN")]
    pub(super) domain: Option<String>,
}

/// `THERE=HERE`
fn renamed(typed: &str) -> Result<(String, String), String> {
    let names = typed.split_once('=').filter(|(there, here)| !there.is_empty() && !here.is_empty());
    let (there, here) = names.ok_or("write it as THERE=HERE, for example azure-ad=microsoft")?;
    Ok((there.to_owned(), here.to_owned()))
}

#[derive(Clone, Copy, clap::ValueEnum)]
pub(super) enum Format {
    /// SQLite database of Prisma
    Prisma,
    /// Apache password file
    Htpasswd,
    /// CSV with a header line, as written by PostgreSQL's \copy
    Csv,
    /// Authelia users file
    Authelia,
}

impl Import {
    /// As the command takes them.
    pub(super) fn command(self) -> ImportArgs {
        ImportArgs {
            format: match self.format {
                Format::Prisma => ImportFormat::Prisma,
                Format::Htpasswd => ImportFormat::Htpasswd,
                Format::Csv => ImportFormat::Csv,
                Format::Authelia => ImportFormat::Authelia,
            },
            file: self.file,
            dry_run: self.dry_run,
            strict: self.strict,
            table: self.table,
            id_column: self.id_column,
            email_column: self.email_column,
            password_column: self.password_column,
            name_column: self.name_column,
            picture_column: self.picture_column,
            groups_column: self.groups_column,
            domain: self.domain,
            accounts: self.accounts,
            accounts_table: self.accounts_table,
            providers: self.providers,
        }
    }
}
