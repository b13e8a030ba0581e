//! Command-line arguments as clap parses them: each command, its options, one example.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::import::Import;
use super::invite::Invite;

/// Auth gateway in front of HTTP and WebSocket apps.
#[derive(Parser)]
#[command(
    name = "authgate",
    version,
    about,
    disable_help_subcommand = true,
    after_help = "Exit codes: 0 success, 1 failed or refused, 2 usage error, 64 invalid configuration\n\nExample: authgate --config /etc/authgate/gateway.toml run"
)]
pub(super) struct Cli {
    /// Configuration [default: gateway.toml here, else /etc/authgate/gateway.toml]
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// State directory with the database; overrides the configuration
    #[arg(long, global = true, value_name = "DIR")]
    pub(super) state_dir: Option<PathBuf>,
    #[command(subcommand)]
    pub(super) verb: Option<Verb>,
}

#[derive(Subcommand)]
pub(super) enum Verb {
    /// Run the gateway (default)
    #[command(after_help = "Example: authgate run --to http://127.0.0.1:3000")]
    Run {
        /// Serve one app without a configuration file, for signed-in users only
        #[arg(long, value_name = "URL")]
        to: Option<String>,
        /// Address to listen on with --to [default: 127.0.0.1:8080]
        #[arg(long, value_name = "ADDR", requires = "to")]
        listen: Option<String>,
    },
    /// Validate the configuration and run its tests, without starting the gateway
    #[command(after_help = "Example: authgate check --config /etc/authgate/gateway.toml")]
    Check {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Explain how a request would be handled
    #[command(after_help = "Example: authgate explain GET https://app.example.com/admin --user ada@example.com")]
    Explain {
        /// Method, for example GET
        method: String,
        /// Path, or URL with scheme and host
        url: String,
        /// Signed-in user: e-mail of an account [default: anonymous]
        #[arg(long, value_name = "EMAIL")]
        user: Option<String>,
        /// Request header, for example 'Accept: application/json'; may be repeated. A GET counts as a navigation unless the headers say otherwise
        #[arg(long = "header", value_name = "FIELD")]
        headers: Vec<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Manage accounts
    #[command(subcommand, after_help = "Example: authgate user add ada@example.com --group staff")]
    User(User),
    /// Print a one-time sign-up link, list valid invites, or revoke one
    #[command(after_help = "Example: authgate invite --email ada@example.com --group staff")]
    Invite(Invite),
    /// List and revoke sessions
    #[command(subcommand, after_help = "Example: authgate session revoke --user ada@example.com")]
    Session(Session),
    /// List and check the providers that people sign in through
    #[command(subcommand, after_help = "Example: authgate provider list")]
    Provider(Provider),
    /// List and rotate signing keys, and the key that seals them
    #[command(subcommand, after_help = "Example: authgate key rotate")]
    Key(Key),
    /// Manage API tokens for programs
    #[command(subcommand, after_help = "Example: authgate token list ada@example.com")]
    Token(Token),
    /// List and lift bans on throttled accounts and addresses
    #[command(subcommand, after_help = "Example: authgate ban lift ada@example.com")]
    Ban(Ban),
    /// Show audit events: sign-ins, refusals, changes
    #[command(subcommand, after_help = "Example: authgate audit list ada@example.com --since 30d")]
    Audit(Audit),
    /// Back up the database to a new file; the gateway may be running
    #[command(after_help = "Example: authgate backup /var/backups/authgate.db")]
    Backup {
        /// Backup file to create; it must not exist
        file: PathBuf,
        /// Include the key that opens the signing keys and tokens in it: the file then suffices to restore on another machine
        #[arg(long)]
        with_key: bool,
    },
    /// Replace the database with a backup; the gateway may be running, and a copy of the previous database is kept
    #[command(after_help = "Example: authgate restore /var/backups/authgate.db")]
    Restore {
        /// Backup file
        file: PathBuf,
    },
    /// Check whether the running gateway is ready
    #[command(after_help = "Example: authgate healthcheck --wait 30s && echo ready")]
    Healthcheck {
        /// Keep trying silently for up to this long, for example 30s or 2m
        #[arg(long, value_name = "TIME")]
        wait: Option<String>,
    },
    /// Print help for a command
    #[command(after_help = "Example: authgate help user add")]
    Help {
        /// Command
        command: Vec<String>,
    },
    /// Print shell completions
    #[command(after_help = "Example: authgate completions bash > /usr/share/bash-completion/completions/authgate")]
    Completions {
        /// Shell
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
    /// Group; may be repeated
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
    /// New e-mail; the id stays the same, but apps that identify users by e-mail see a new user
    #[arg(long = "email", value_name = "NEW")]
    pub(super) new_email: Option<String>,
    /// Keep API tokens created with the old password; by default a new password revokes them
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
    /// Add an account; without a password, print a one-time link to set one
    #[command(after_help = "Example: authgate user add ada@example.com --group staff")]
    Add(Account),
    /// List accounts
    #[command(after_help = "Example: authgate user list '*@example.com' --group staff")]
    List {
        /// Part of an e-mail or name, or a whole one with * as wildcard
        pattern: Option<String>,
        /// Only accounts in this group
        #[arg(long)]
        group: Option<String>,
        /// Only disabled accounts
        #[arg(long)]
        disabled: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one account
    #[command(after_help = "Example: authgate user show ada@example.com")]
    Show {
        /// E-mail
        email: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove accounts and end their sessions; asks for confirmation on a terminal
    #[command(after_help = "Example: authgate user remove ada@example.com bob@example.com --yes")]
    Remove {
        /// E-mail; may be repeated
        #[arg(required = true, value_name = "EMAIL")]
        emails: Vec<String>,
        /// Do not ask for confirmation
        #[arg(long)]
        yes: bool,
    },
    /// Disable an account and end its sessions
    #[command(after_help = "Example: authgate user disable ada@example.com")]
    Disable(Email),
    /// Re-enable an account
    #[command(after_help = "Example: authgate user enable ada@example.com")]
    Enable(Email),
    /// Change an account; --group replaces all groups
    #[command(after_help = "Example: authgate user set ada@example.com --name 'Ada Lovelace'")]
    Set(Change),
    /// Print a one-time link for a new password; with passwords off, for a sign-in through a provider
    #[command(after_help = "Example: authgate user reset ada@example.com")]
    Reset(Email),
    /// Link an account to a person at a provider
    #[command(after_help = "Example: authgate user link ada@example.com github 583231")]
    Link {
        /// E-mail
        email: String,
        /// Name of the [[provider]]
        provider: String,
        /// The person's id there: `sub` of OpenID Connect, or GitHub's number
        subject: String,
    },
    /// Remove a link to a provider, and end the sessions that began with it
    #[command(after_help = "Example: authgate user unlink ada@example.com github")]
    Unlink {
        /// E-mail
        email: String,
        /// Name of the [[provider]]
        provider: String,
        /// The person's id there, if there are several links
        subject: Option<String>,
        /// Even if no other way to sign in is left
        #[arg(long)]
        force: bool,
    },
    /// Import accounts from another program, with their ids, password hashes and provider links
    #[command(after_help = "Example: authgate user import prisma/dev.db --format prisma --dry-run")]
    Import(Import),
}

#[derive(Subcommand)]
pub(super) enum Provider {
    /// List providers, what to register there, and how many accounts use them
    #[command(after_help = "Example: authgate provider list")]
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Ask providers for their metadata and keys, and say what would keep people from signing in; the client's secret is not sent
    #[command(after_help = "Example: authgate provider check google")]
    Check {
        /// Name of the [[provider]] [default: all]
        name: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Accept that a provider has another issuer: its links belong to that one from now on
    #[command(after_help = "Example: authgate provider adopt keycloak")]
    Adopt {
        /// Name of the [[provider]]
        name: String,
    },
}

#[derive(Subcommand)]
pub(super) enum Session {
    /// List active sessions; the time of last use may be up to 30 seconds old
    #[command(after_help = "Example: authgate session list ada@example.com")]
    List {
        /// Only those of this account
        email: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Revoke sessions
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
    /// Create a token and print it; it is not shown again
    #[command(after_help = "Example: authgate token create ada@example.com --name backup --scope 'GET /api/**'")]
    Create {
        /// E-mail of the account
        email: String,
        /// Name that describes what the token is for
        #[arg(long)]
        name: String,
        /// Lifetime, for example 90d or 12h
        #[arg(long, default_value = "90d")]
        expires: String,
        /// Scope: methods (or *) and a path, for example 'GET,POST /api/**'; may be repeated [default: full access]
        #[arg(long = "scope", value_name = "SCOPE")]
        scopes: Vec<String>,
    },
    /// List valid tokens; the time of last use may be up to 30 seconds old
    #[command(after_help = "Example: authgate token list ada@example.com")]
    List {
        /// Only those of this account
        email: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Revoke tokens
    #[command(after_help = "Example: authgate token revoke --user ada@example.com")]
    Revoke(Which),
}

#[derive(Subcommand)]
pub(super) enum Key {
    /// List signing keys
    #[command(after_help = "Example: authgate key list")]
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Create a new signing key, or a new sealing key, and use it from now on
    #[command(after_help = "Example: authgate key rotate")]
    Rotate {
        /// Delete the old keys, in case they have leaked: this signs everyone out. Without this option, existing sessions stay valid
        #[arg(long)]
        drop_old: bool,
        /// Seal all secrets in the database with a new sealing key instead; sessions stay valid. With --drop-old, for a lost sealing key
        #[arg(long)]
        secrets: bool,
        /// With --secrets: file of the new key, where `[secrets] key` is a credential or an environment variable
        #[arg(long, value_name = "FILE", requires = "secrets", conflicts_with = "drop_old")]
        new_key: Option<PathBuf>,
    },
}

#[derive(Subcommand)]
pub(super) enum Audit {
    /// List events, newest first; events are kept for 90 days
    #[command(after_help = "Example: authgate audit list ada@example.com --since 30d")]
    List {
        /// Only events of this e-mail
        email: Option<String>,
        /// How far back, for example 30d or 12h
        #[arg(long, default_value = "7d")]
        since: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
pub(super) enum Ban {
    /// List throttled accounts and addresses
    #[command(after_help = "Example: authgate ban list")]
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Lift a ban
    #[command(after_help = "Example: authgate ban lift ada@example.com")]
    Lift {
        /// E-mail or IP address
        what: String,
    },
}
