//! The arguments as clap reads them: each command, its options, one example.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::invite::Invite;

/// An auth gateway in front of HTTP and WebSocket apps.
#[derive(Parser)]
#[command(
    name = "authgate",
    version,
    about,
    disable_help_subcommand = true,
    after_help = "Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 64 bad configuration\n\nExample: authgate --config /etc/authgate/gateway.toml run"
)]
pub(super) struct Cli {
    /// Configuration [default: gateway.toml here, else /etc/authgate/gateway.toml]
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Folder of the database, over what the configuration says
    #[arg(long, global = true, value_name = "DIR")]
    pub(super) state_dir: Option<PathBuf>,
    #[command(subcommand)]
    pub(super) verb: Option<Verb>,
}

#[derive(Subcommand)]
pub(super) enum Verb {
    /// Serve (the default)
    #[command(after_help = "Example: authgate run --to http://127.0.0.1:3000")]
    Run {
        /// Serve one app without any file, for signed-in users only
        #[arg(long, value_name = "URL")]
        to: Option<String>,
        /// Where to listen then [default: 127.0.0.1:8080]
        #[arg(long, value_name = "ADDR", requires = "to")]
        listen: Option<String>,
    },
    /// Judge the configuration and its tests, without starting anything
    #[command(after_help = "Example: authgate check --config /etc/authgate/gateway.toml")]
    Check {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Say what becomes of a request, and why
    #[command(after_help = "Example: authgate explain GET https://app.example.com/admin --user ada@example.com")]
    Explain {
        /// As in GET
        method: String,
        /// A path, or an address with scheme and host
        url: String,
        /// Who is signed in: e-mail of an account [default: nobody]
        #[arg(long, value_name = "EMAIL")]
        user: Option<String>,
        /// A header field, as in 'Accept: application/json'; may be repeated. A GET is a navigation unless they say otherwise
        #[arg(long = "header", value_name = "FIELD")]
        headers: Vec<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Accounts
    #[command(subcommand, after_help = "Example: authgate user add ada@example.com --group staff")]
    User(User),
    /// Print a one-time sign-up link, list those that work, or revoke one
    #[command(after_help = "Example: authgate invite --email ada@example.com --group staff")]
    Invite(Invite),
    /// Sessions
    #[command(subcommand, after_help = "Example: authgate session revoke --user ada@example.com")]
    Session(Session),
    /// Signing keys
    #[command(subcommand, after_help = "Example: authgate key rotate")]
    Key(Key),
    /// API tokens, for programs
    #[command(subcommand, after_help = "Example: authgate token list ada@example.com")]
    Token(Token),
    /// Throttled accounts and addresses
    #[command(subcommand, after_help = "Example: authgate ban lift ada@example.com")]
    Ban(Ban),
    /// What happened to accounts: sign-ins, refusals, changes
    #[command(subcommand, after_help = "Example: authgate audit list ada@example.com --since 30d")]
    Audit(Audit),
    /// Copy the database into a new file, consistently, also while the gateway serves
    #[command(after_help = "Example: authgate backup /var/backups/authgate.db")]
    Backup {
        /// Where to; it must not exist yet
        file: PathBuf,
    },
    /// Put a backup in the place of the database, also while the gateway serves; what was there is kept beside it
    #[command(after_help = "Example: authgate restore /var/backups/authgate.db")]
    Restore {
        /// The backup
        file: PathBuf,
    },
    /// Succeed when the running gateway is ready
    #[command(after_help = "Example: authgate healthcheck --wait 30s && echo ready")]
    Healthcheck {
        /// Ask again until then, silently: 30s, 2m
        #[arg(long, value_name = "TIME")]
        wait: Option<String>,
    },
    /// Print the help of a command
    #[command(after_help = "Example: authgate help user add")]
    Help {
        /// Which one
        command: Vec<String>,
    },
    /// Print the completions for a shell
    #[command(after_help = "Example: authgate completions bash > /usr/share/bash-completion/completions/authgate")]
    Completions {
        /// Which one
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    #[command(after_help = "Example: authgate man | man -l -")]
    Man,
}

#[derive(Args)]
pub(super) struct Account {
    /// E-mail
    pub(super) email: String,
    /// Display name
    #[arg(long)]
    pub(super) name: Option<String>,
    /// Picture URL
    #[arg(long, value_name = "URL")]
    pub(super) picture: Option<String>,
    /// Group; may be given several times
    #[arg(long = "group", value_name = "GROUP")]
    pub(super) groups: Vec<String>,
    /// Read the password from the first line of standard input
    #[arg(long)]
    pub(super) password_stdin: bool,
}

#[derive(Args)]
pub(super) struct Change {
    #[command(flatten)]
    pub(super) account: Account,
    /// E-mail from now on; the id stays, and apps that go by the e-mail see somebody new
    #[arg(long = "email", value_name = "NEW")]
    pub(super) new_email: Option<String>,
    /// Leave API tokens that were made under the old password: a new one revokes them
    #[arg(long, requires = "password_stdin")]
    pub(super) keep_tokens: bool,
}

#[derive(Args)]
pub(super) struct Email {
    /// E-mail
    pub(super) email: String,
}

#[derive(Subcommand)]
pub(super) enum User {
    /// Add an account; without a password, print a one-time link for it
    #[command(after_help = "Example: authgate user add ada@example.com --group staff")]
    Add(Account),
    /// List accounts
    #[command(after_help = "Example: authgate user list '*@example.com' --group staff")]
    List {
        /// A part of e-mail or name, or the whole with * for anything
        pattern: Option<String>,
        /// In this group alone
        #[arg(long)]
        group: Option<String>,
        /// Disabled ones alone
        #[arg(long)]
        disabled: bool,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one account
    #[command(after_help = "Example: authgate user show ada@example.com")]
    Show {
        /// E-mail
        email: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove accounts and end their sessions; asks at a terminal
    #[command(after_help = "Example: authgate user remove ada@example.com bob@example.com --yes")]
    Remove {
        /// E-mails
        #[arg(required = true, value_name = "EMAIL")]
        emails: Vec<String>,
        /// Without asking
        #[arg(long)]
        yes: bool,
    },
    /// Let nobody sign in to it and end its sessions
    #[command(after_help = "Example: authgate user disable ada@example.com")]
    Disable(Email),
    /// The reverse of disable
    #[command(after_help = "Example: authgate user enable ada@example.com")]
    Enable(Email),
    /// Change what is given; --group replaces all groups
    #[command(after_help = "Example: authgate user set ada@example.com --name 'Ada Lovelace'")]
    Set(Change),
    /// Print a one-time link for a new password
    #[command(after_help = "Example: authgate user reset ada@example.com")]
    Reset(Email),
    /// Take over the accounts of another program; ids and password hashes are kept
    #[command(after_help = "Example: authgate user import prisma/dev.db --format prisma --dry-run")]
    Import(Import),
}

#[derive(Args)]
pub(super) struct Import {
    /// The other program's file
    pub(super) file: PathBuf,
    /// What it is
    #[arg(long, value_enum)]
    pub(super) format: Format,
    /// Only say what would be imported
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Import nothing if anything is found
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
    /// For files whose users have no e-mail: NAME becomes NAME@DOMAIN
    #[arg(long, value_name = "DOMAIN")]
    pub(super) domain: Option<String>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
pub(super) enum Format {
    /// A SQLite file of Prisma's
    Prisma,
    /// Apache's password file
    Htpasswd,
    /// CSV with a header line, as PostgreSQL's \copy writes it
    Csv,
    /// Authelia's users file
    Authelia,
}

#[derive(Subcommand)]
pub(super) enum Session {
    /// List sessions that stand; when they were seen last is up to 30 seconds old
    #[command(after_help = "Example: authgate session list ada@example.com")]
    List {
        /// Of this account alone
        email: Option<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// End sessions
    #[command(after_help = "Example: authgate session revoke --user ada@example.com")]
    Revoke(Which),
}

#[derive(Args)]
#[group(required = true, multiple = false)]
pub(super) struct Which {
    /// One, by id
    pub(super) id: Option<String>,
    /// All of this account
    #[arg(long, value_name = "EMAIL")]
    pub(super) user: Option<String>,
    /// All
    #[arg(long)]
    pub(super) all: bool,
}

#[derive(Subcommand)]
pub(super) enum Token {
    /// Make one and print it: it is not shown again
    #[command(after_help = "Example: authgate token create ada@example.com --name backup --scope 'GET /api/**'")]
    Create {
        /// E-mail of the account that it stands for
        email: String,
        /// What it is for
        #[arg(long)]
        name: String,
        /// How long it works: 90d, 12h
        #[arg(long, default_value = "90d")]
        expires: String,
        /// What it may do: methods or *, and a path, as in 'GET,POST /api/**'; may be repeated [default: everything]
        #[arg(long = "scope", value_name = "SCOPE")]
        scopes: Vec<String>,
    },
    /// List tokens that work; when they were seen last is up to 30 seconds old
    #[command(after_help = "Example: authgate token list ada@example.com")]
    List {
        /// Of this account alone
        email: Option<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// End tokens
    #[command(after_help = "Example: authgate token revoke --user ada@example.com")]
    Revoke(Which),
}

#[derive(Subcommand)]
pub(super) enum Key {
    /// List signing keys
    #[command(after_help = "Example: authgate key list")]
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Sign with a new key from now on
    #[command(after_help = "Example: authgate key rotate")]
    Rotate {
        /// Forget the old keys, which somebody else may have: everybody is signed out. Without it nobody is
        #[arg(long)]
        drop_old: bool,
    },
}

#[derive(Subcommand)]
pub(super) enum Audit {
    /// List events, newest first; they are kept for 90 days
    #[command(after_help = "Example: authgate audit list ada@example.com --since 30d")]
    List {
        /// Of this e-mail alone
        email: Option<String>,
        /// How far back: 30d, 12h
        #[arg(long, default_value = "7d")]
        since: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
pub(super) enum Ban {
    /// List who is throttled
    #[command(after_help = "Example: authgate ban list")]
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Lift one
    #[command(after_help = "Example: authgate ban lift ada@example.com")]
    Lift {
        /// E-mail or address
        what: String,
    },
}
