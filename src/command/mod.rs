//! The commands, one file each. Arguments arrive as plain structs from [`crate::cli`].

use std::path::PathBuf;

use crate::account::AdminError;
use crate::config::Faults;
use crate::store::StoreError;

pub mod audit;
pub mod backup;
pub mod ban;
pub mod check;
pub mod explain;
pub mod healthcheck;
pub mod import;
mod import_identities;
pub mod invite;
pub mod key;
mod people;
pub mod provider;
pub mod restore;
pub mod run;
pub mod session;
pub mod token;
pub mod user;

/// Global options.
#[derive(Debug, Clone, Default)]
pub struct Globals {
    /// `--config FILE`
    pub config: Option<PathBuf>,
    /// `--state-dir DIR`
    pub state_dir: Option<PathBuf>,
}

impl Globals {
    /// `--config`, else `gateway.toml` in the working directory, else `/etc/authgate/gateway.toml`.
    pub fn config_path(&self) -> PathBuf {
        let here = PathBuf::from("gateway.toml");
        match &self.config {
            Some(path) => path.clone(),
            None if here.exists() => here,
            None => {
                let system = PathBuf::from("/etc/authgate/gateway.toml");
                if system.exists() { system } else { here }
            }
        }
    }
}

/// `run`
#[derive(Debug, Clone, Default)]
pub struct RunArgs {
    /// App to serve without a configuration file.
    pub to: Option<String>,
    /// Listen address for `--to`.
    pub listen: Option<String>,
}

/// Account details for `user add` and `user set`.
#[derive(Debug, Clone, Default)]
pub struct UserArgs {
    /// E-mail as typed.
    pub email: String,
    /// `user set`: the new e-mail.
    pub new_email: Option<String>,
    /// Display name.
    pub name: Option<String>,
    /// Picture URL.
    pub picture: Option<String>,
    /// Groups; if given, they replace the account's groups. A single empty one removes all.
    pub groups: Vec<String>,
    /// Read the password from the first line of standard input.
    pub password_stdin: bool,
    /// `user set`: keep API tokens valid after a password change.
    pub keep_tokens: bool,
}

/// `user ...`
#[derive(Debug, Clone)]
pub enum UserCommand {
    /// Add an account; without a password, print a one-time link.
    Add(UserArgs),
    /// List accounts.
    List {
        /// Which accounts.
        filter: UserFilter,
        /// Print JSON.
        json: bool,
    },
    /// Show one account.
    Show {
        /// E-mail as typed.
        email: String,
        /// Print JSON.
        json: bool,
    },
    /// Remove accounts and end their sessions.
    Remove {
        /// E-mails as typed.
        emails: Vec<String>,
        /// Skip the confirmation.
        yes: bool,
    },
    /// Disable an account and end its sessions.
    Disable {
        /// E-mail as typed.
        email: String,
    },
    /// Re-enable an account.
    Enable {
        /// E-mail as typed.
        email: String,
    },
    /// Change the given details.
    Set(UserArgs),
    /// Print a one-time link for a new password.
    Reset {
        /// E-mail as typed.
        email: String,
    },
    /// Links an identity.
    #[allow(missing_docs)]
    Link { email: String, provider: String, subject: String },
    /// Removes one.
    #[allow(missing_docs)]
    Unlink {
        email: String,
        provider: String,
        subject: Option<String>,
        /// Even the last way to sign in.
        force: bool,
    },
}

/// `provider ...`
#[derive(Debug, Clone)]
pub enum ProviderCommand {
    /// The configured providers, and those that accounts still have identities of.
    List {
        /// As JSON.
        json: bool,
    },
    /// Asks providers for all that a sign-in needs.
    Check {
        /// Only this one.
        name: Option<String>,
        /// As JSON.
        json: bool,
    },
    /// Its identities belong to the issuer that it has now.
    Adopt {
        /// Name of the provider.
        name: String,
    },
}

/// Filter of `user list`; the default matches all accounts.
#[derive(Debug, Clone, Default)]
pub struct UserFilter {
    /// Part of an e-mail or name; with `*`, the whole of it.
    pub pattern: Option<String>,
    /// Only members of this group.
    pub group: Option<String>,
    /// Only disabled accounts.
    pub disabled: bool,
}

/// `user import`
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct ImportArgs {
    pub file: PathBuf,
    pub format: ImportFormat,
    /// Only report what would be imported.
    pub dry_run: bool,
    /// Import nothing if there is any finding.
    pub strict: bool,
    pub table: Option<String>,
    pub id_column: Option<String>,
    pub email_column: Option<String>,
    pub password_column: Option<String>,
    pub name_column: Option<String>,
    pub picture_column: Option<String>,
    pub groups_column: Option<String>,
    /// Domain appended to names that are not e-mail addresses.
    pub domain: Option<String>,
    /// A CSV file of identities.
    pub accounts: Option<PathBuf>,
    /// The table of identities in a Prisma file.
    pub accounts_table: Option<String>,
    /// Names of providers there and here, as in `azure-ad=microsoft-entra-id`.
    pub providers: Vec<(String, String)>,
}

/// Format of the imported file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportFormat {
    /// SQLite database of Prisma.
    Prisma,
    /// CSV with a header line.
    Csv,
    /// Apache password file.
    Htpasswd,
    /// Authelia users file.
    Authelia,
}

/// `explain`
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct ExplainArgs {
    pub method: String,
    /// Path or URL.
    pub url: String,
    /// Signed-in user: e-mail as typed.
    pub user: Option<String>,
    /// Header fields as typed.
    pub headers: Vec<String>,
    pub json: bool,
}

/// `invite`
#[derive(Debug, Clone, Default)]
pub struct InviteArgs {
    /// E-mail that the account must use.
    pub email: Option<String>,
    /// Groups of the account.
    pub groups: Vec<String>,
    /// Lifetime of the link, seconds.
    pub expires_secs: u64,
}

/// `invite ...`
#[derive(Debug, Clone)]
pub enum InviteCommand {
    /// Create an invite and print its link.
    Make(InviteArgs),
    /// List valid invites.
    List {
        /// Print JSON.
        json: bool,
    },
    /// Revoke an invite.
    Revoke {
        /// Id as printed by `invite list`.
        id: String,
    },
}

/// `session ...`
#[derive(Debug, Clone)]
pub enum SessionCommand {
    /// List active sessions, of one account or all.
    List {
        /// E-mail as typed.
        email: Option<String>,
        /// Print JSON.
        json: bool,
    },
    /// Revoke sessions.
    Revoke(Revoke),
}

/// `token ...`
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub enum TokenCommand {
    /// Create an API token and print it once.
    Create { email: String, name: String, scopes: Vec<String>, expires_secs: u64 },
    /// List valid tokens, of one account or all.
    List { email: Option<String>, json: bool },
    /// Revoke tokens.
    Revoke(Revoke),
}

/// Selection for `session revoke` and `token revoke`.
#[derive(Debug, Clone)]
pub enum Revoke {
    /// One, by id.
    Id(String),
    /// All of an account.
    User(String),
    /// All.
    All,
}

/// `key ...`
#[derive(Debug, Clone)]
pub enum KeyCommand {
    /// List signing keys, without their secrets.
    List {
        /// Print JSON.
        json: bool,
    },
    /// Create a new signing key and sign with it from now on.
    Rotate {
        /// Delete the old keys.
        drop_old: bool,
    },
    /// Create a new sealing key; with `drop_old`, for when the old one is lost.
    RotateSecrets {
        /// Create new signing keys too.
        drop_old: bool,
        /// File of the new key, if the key is not kept in a file of the gateway.
        new_key: Option<PathBuf>,
    },
}

/// `ban ...`
#[derive(Debug, Clone)]
pub enum BanCommand {
    /// List throttled accounts and addresses.
    List {
        /// Print JSON.
        json: bool,
    },
    /// Lift the ban of an e-mail or address.
    Lift {
        /// As printed by `ban list`.
        what: String,
    },
}

/// Why a command failed.
#[derive(Debug)]
pub enum CommandError {
    /// Refused or failed, in one sentence; exit code 1.
    Refused(String),
    /// Wrong usage; exit code 2.
    Usage(String),
    /// Invalid configuration; exit code 64.
    Config(Faults),
    /// Already reported; exit code 1.
    Said,
}

impl From<AdminError> for CommandError {
    fn from(error: AdminError) -> Self {
        Self::Refused(error.0)
    }
}

impl From<StoreError> for CommandError {
    fn from(error: StoreError) -> Self {
        Self::Refused(error.to_string())
    }
}
