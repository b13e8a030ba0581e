//! What each command does, one file a command. Arguments come as plain structs from [`crate::cli`].

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
pub mod invite;
pub mod key;
mod people;
pub mod restore;
pub mod run;
pub mod session;
pub mod token;
pub mod user;

/// Options that every command takes.
#[derive(Debug, Clone, Default)]
pub struct Globals {
    /// `--config FILE`
    pub config: Option<PathBuf>,
    /// `--state-dir DIR`
    pub state_dir: Option<PathBuf>,
}

impl Globals {
    /// `--config`, else `gateway.toml` here, else `/etc/authgate/gateway.toml`.
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
    /// One app to serve without any file.
    pub to: Option<String>,
    /// Where to listen then.
    pub listen: Option<String>,
}

/// What `user add` and `user set` may say of an account.
#[derive(Debug, Clone, Default)]
pub struct UserArgs {
    /// E-mail as typed.
    pub email: String,
    /// `user set`: the e-mail from now on.
    pub new_email: Option<String>,
    /// Display name.
    pub name: Option<String>,
    /// Picture URL.
    pub picture: Option<String>,
    /// Groups; given once or more they replace the account's. A lone empty one takes all away.
    pub groups: Vec<String>,
    /// The password is the first line of standard input.
    pub password_stdin: bool,
    /// `user set`: API tokens go on under a new password.
    pub keep_tokens: bool,
}

/// `user ...`
#[derive(Debug, Clone)]
pub enum UserCommand {
    /// A new account; without a password a one-time link is printed.
    Add(UserArgs),
    /// Accounts.
    List {
        /// Which.
        filter: UserFilter,
        /// As JSON.
        json: bool,
    },
    /// One account.
    Show {
        /// E-mail as typed.
        email: String,
        /// As JSON.
        json: bool,
    },
    /// Removes accounts and ends their sessions.
    Remove {
        /// E-mails as typed.
        emails: Vec<String>,
        /// Without asking.
        yes: bool,
    },
    /// Nobody signs in to it any more; its sessions end.
    Disable {
        /// E-mail as typed.
        email: String,
    },
    /// The reverse.
    Enable {
        /// E-mail as typed.
        email: String,
    },
    /// Changes what is given.
    Set(UserArgs),
    /// Prints a one-time link for a new password.
    Reset {
        /// E-mail as typed.
        email: String,
    },
}

/// Which accounts `user list` shows; all where nothing is asked for.
#[derive(Debug, Clone, Default)]
pub struct UserFilter {
    /// A part of e-mail or name; with `*` the whole of it.
    pub pattern: Option<String>,
    /// A group that they are in.
    pub group: Option<String>,
    /// Disabled ones alone.
    pub disabled: bool,
}

/// `user import`
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct ImportArgs {
    pub file: PathBuf,
    pub format: ImportFormat,
    /// Only say what would be imported.
    pub dry_run: bool,
    /// Any finding refuses everything.
    pub strict: bool,
    pub table: Option<String>,
    pub id_column: Option<String>,
    pub email_column: Option<String>,
    pub password_column: Option<String>,
    pub name_column: Option<String>,
    pub picture_column: Option<String>,
    pub groups_column: Option<String>,
    /// Makes addresses of names that are none.
    pub domain: Option<String>,
}

/// What kind of file is imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportFormat {
    /// A SQLite file of Prisma's.
    Prisma,
    /// CSV with a header line.
    Csv,
    /// Apache's password file.
    Htpasswd,
    /// Authelia's users file.
    Authelia,
}

/// `explain`
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct ExplainArgs {
    pub method: String,
    /// A path, or an address.
    pub url: String,
    /// E-mail as typed of who is signed in.
    pub user: Option<String>,
    /// Header fields as typed.
    pub headers: Vec<String>,
    pub json: bool,
}

/// `invite`
#[derive(Debug, Clone, Default)]
pub struct InviteArgs {
    /// The e-mail that the account must have.
    pub email: Option<String>,
    /// Its groups.
    pub groups: Vec<String>,
    /// How long the link is good, in seconds.
    pub expires_secs: u64,
}

/// `invite ...`
#[derive(Debug, Clone)]
pub enum InviteCommand {
    /// Makes one and prints it.
    Make(InviteArgs),
    /// Those that open something.
    List {
        /// As JSON.
        json: bool,
    },
    /// Revokes one.
    Revoke {
        /// As `invite list` shows it.
        id: String,
    },
}

/// `session ...`
#[derive(Debug, Clone)]
pub enum SessionCommand {
    /// Sessions that stand, of one account or all.
    List {
        /// E-mail as typed.
        email: Option<String>,
        /// As JSON.
        json: bool,
    },
    /// Ends sessions.
    Revoke(Revoke),
}

/// `token ...`
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub enum TokenCommand {
    /// Makes an API token and prints it, once.
    Create { email: String, name: String, scopes: Vec<String>, expires_secs: u64 },
    /// Tokens that work, of one account or all.
    List { email: Option<String>, json: bool },
    /// Ends some.
    Revoke(Revoke),
}

/// Which sessions `session revoke`, and which tokens `token revoke` ends.
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
    /// The signing keys, without what must stay secret.
    List {
        /// As JSON.
        json: bool,
    },
    /// A new key signs from now on.
    Rotate {
        /// Older ones verify nothing any more.
        drop_old: bool,
    },
    /// A new sealing key; with `drop_old` without the one before, which is lost.
    RotateSecrets {
        /// New signing keys too.
        drop_old: bool,
        /// The file of the new key, where the key comes from elsewhere.
        new_key: Option<PathBuf>,
    },
}

/// `ban ...`
#[derive(Debug, Clone)]
pub enum BanCommand {
    /// Throttled accounts and addresses.
    List {
        /// As JSON.
        json: bool,
    },
    /// Lifts one: an e-mail or an address.
    Lift {
        /// As `ban list` shows it.
        what: String,
    },
}

/// Why a command did not do what it was asked for.
#[derive(Debug)]
pub enum CommandError {
    /// Refused or failed, in one sentence; exit code 1.
    Refused(String),
    /// Used wrongly; exit code 2.
    Usage(String),
    /// Bad configuration; exit code 64.
    Config(Faults),
    /// All was said already; exit code 1.
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
