//! Arguments -> one command -> an exit code. Passwords never come as arguments.

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::command::{
    self, BanCommand, CommandError, Globals, ImportArgs, ImportFormat, InviteArgs, KeyCommand, Revoke, RunArgs,
    SessionCommand, TokenCommand, UserArgs, UserCommand,
};
use crate::config::parse_duration;
use crate::gateway::prove::prove;

/// An auth gateway in front of HTTP and WebSocket apps.
#[derive(Parser)]
#[command(name = "authgate", version, about, disable_help_subcommand = true)]
struct Cli {
    /// Configuration [default: gateway.toml here, else /etc/authgate/gateway.toml]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder of the database, over what the configuration says
    #[arg(long, global = true, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Subcommand)]
enum Verb {
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
    /// Accounts
    #[command(subcommand, after_help = "Example: authgate user add ada@example.com --group staff")]
    User(User),
    /// Print a one-time sign-up link
    #[command(after_help = "Example: authgate invite --email ada@example.com --group staff")]
    Invite {
        /// The e-mail that the account must have
        #[arg(long)]
        email: Option<String>,
        /// Its groups
        #[arg(long = "group", value_name = "GROUP")]
        groups: Vec<String>,
        /// How long the link is good
        #[arg(long, default_value = "7d")]
        expires: String,
    },
    /// Sessions
    #[command(subcommand, after_help = "Example: authgate session revoke --user ada@example.com")]
    Session(Session),
    /// Signing keys
    #[command(subcommand, after_help = "Example: authgate key rotate")]
    Key(Key),
    /// API tokens, for programs
    #[command(subcommand)]
    Token(Token),
    /// Throttled accounts and addresses
    #[command(subcommand, after_help = "Example: authgate ban lift ada@example.com")]
    Ban(Ban),
    /// Copy the database into a new file, consistently, also while the gateway serves
    #[command(after_help = "Example: authgate backup /var/backups/authgate.db")]
    Backup {
        /// Where to; it must not exist yet
        file: PathBuf,
    },
    /// Succeed when the running gateway is ready
    #[command(after_help = "Example: authgate healthcheck && echo ready")]
    Healthcheck,
}

#[derive(Args)]
struct Account {
    /// E-mail
    email: String,
    /// Display name
    #[arg(long)]
    name: Option<String>,
    /// Picture URL
    #[arg(long, value_name = "URL")]
    picture: Option<String>,
    /// Group; may be given several times
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
    /// Read the password from the first line of standard input
    #[arg(long)]
    password_stdin: bool,
}

#[derive(Args)]
struct Email {
    /// E-mail
    email: String,
}

#[derive(Subcommand)]
enum User {
    /// Add an account; without a password, print a one-time link for it
    Add(Account),
    /// List accounts
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one account
    Show {
        /// E-mail
        email: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove an account and end its sessions
    Remove(Email),
    /// Let nobody sign in to it and end its sessions
    Disable(Email),
    /// The reverse of disable
    Enable(Email),
    /// Change what is given; --group replaces all groups
    Set(Account),
    /// Print a one-time link for a new password
    Reset(Email),
    /// Take over the accounts of another program; ids and password hashes are kept
    #[command(after_help = "Example: authgate user import prisma/dev.db --format prisma --dry-run")]
    Import(Import),
}

#[derive(Args)]
struct Import {
    /// The other program's file
    file: PathBuf,
    /// What it is
    #[arg(long, value_enum)]
    format: Format,
    /// Only say what would be imported
    #[arg(long)]
    dry_run: bool,
    /// Import nothing if anything is found
    #[arg(long)]
    strict: bool,
    /// Table of a Prisma file [default: User]
    #[arg(long, value_name = "NAME")]
    table: Option<String>,
    /// Column of ids [default: id]
    #[arg(long, value_name = "NAME")]
    id_column: Option<String>,
    /// Column of e-mails [default: email]
    #[arg(long, value_name = "NAME")]
    email_column: Option<String>,
    /// Column of password hashes [default: password, passwordHash, password_hash or hash]
    #[arg(long, value_name = "NAME")]
    password_column: Option<String>,
    /// Column of names [default: name or displayname]
    #[arg(long, value_name = "NAME")]
    name_column: Option<String>,
    /// Column of picture addresses [default: picture, photo, image or avatar]
    #[arg(long, value_name = "NAME")]
    picture_column: Option<String>,
    /// Column of groups, joined by commas [default: groups]
    #[arg(long, value_name = "NAME")]
    groups_column: Option<String>,
    /// For files whose users have no e-mail: NAME becomes NAME@DOMAIN
    #[arg(long, value_name = "DOMAIN")]
    domain: Option<String>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Format {
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
enum Session {
    /// List sessions that stand
    List {
        /// Of this account alone
        email: Option<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// End sessions
    Revoke(Which),
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// One, by id
    id: Option<String>,
    /// All of this account
    #[arg(long, value_name = "EMAIL")]
    user: Option<String>,
    /// All
    #[arg(long)]
    all: bool,
}

#[derive(Subcommand)]
enum Token {
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
        /// What it may do: methods and a path, as in 'GET /api/**'; may be repeated [default: everything]
        #[arg(long = "scope", value_name = "SCOPE")]
        scopes: Vec<String>,
    },
    /// List tokens that work
    List {
        /// Of this account alone
        email: Option<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// End one
    Revoke {
        /// Its id
        id: String,
    },
}

#[derive(Subcommand)]
enum Key {
    /// List signing keys
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Sign with a new key from now on; nobody is signed out
    Rotate,
}

#[derive(Subcommand)]
enum Ban {
    /// List who is throttled
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Lift one
    Lift {
        /// E-mail or address
        what: String,
    },
}

/// Runs the command that the arguments name. Exit codes: 0 done, 1 refused or failed, 2 wrong usage,
/// 64 bad configuration.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let globals = Globals { config: cli.config, state_dir: cli.state_dir };
    let verb = cli.verb.unwrap_or(Verb::Run { to: None, listen: None });
    match dispatch(&globals, verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn dispatch(globals: &Globals, verb: Verb) -> Result<(), CommandError> {
    match verb {
        Verb::Run { to, listen } => command::run::run(globals, &RunArgs { to, listen }),
        Verb::Check { json } => command::check::run(globals, json, prove),
        Verb::User(verb) => user(globals, verb),
        Verb::Invite { email, groups, expires } => {
            command::invite::run(globals, &InviteArgs { email, groups, expires_secs: lasting(&expires)? })
        }
        Verb::Token(verb) => command::token::run(globals, token(verb)?),
        Verb::Session(verb) => command::session::run(globals, session(verb)),
        Verb::Key(Key::List { json }) => command::key::run(globals, KeyCommand::List { json }),
        Verb::Key(Key::Rotate) => command::key::run(globals, KeyCommand::Rotate),
        Verb::Ban(Ban::List { json }) => command::ban::run(globals, BanCommand::List { json }),
        Verb::Ban(Ban::Lift { what }) => command::ban::run(globals, BanCommand::Lift { what }),
        Verb::Backup { file } => command::backup::run(globals, &file),
        Verb::Healthcheck => command::healthcheck::run(globals),
    }
}

fn user(globals: &Globals, verb: User) -> Result<(), CommandError> {
    let account = |account: Account| UserArgs {
        email: account.email,
        name: account.name,
        picture: account.picture,
        groups: account.groups,
        password_stdin: account.password_stdin,
    };
    let command = match verb {
        User::Add(typed) => UserCommand::Add(account(typed)),
        User::List { json } => UserCommand::List { json },
        User::Show { email, json } => UserCommand::Show { email, json },
        User::Remove(Email { email }) => UserCommand::Remove { email },
        User::Disable(Email { email }) => UserCommand::Disable { email },
        User::Enable(Email { email }) => UserCommand::Enable { email },
        User::Set(typed) => UserCommand::Set(account(typed)),
        User::Reset(Email { email }) => UserCommand::Reset { email },
        User::Import(typed) => return command::import::run(globals, &import(typed)),
    };
    command::user::run(globals, command)
}

fn import(typed: Import) -> ImportArgs {
    ImportArgs {
        format: match typed.format {
            Format::Prisma => ImportFormat::Prisma,
            Format::Htpasswd => ImportFormat::Htpasswd,
            Format::Csv => ImportFormat::Csv,
            Format::Authelia => ImportFormat::Authelia,
        },
        file: typed.file,
        dry_run: typed.dry_run,
        strict: typed.strict,
        table: typed.table,
        id_column: typed.id_column,
        email_column: typed.email_column,
        password_column: typed.password_column,
        name_column: typed.name_column,
        picture_column: typed.picture_column,
        groups_column: typed.groups_column,
        domain: typed.domain,
    }
}

fn lasting(typed: &str) -> Result<u64, CommandError> {
    let secs = parse_duration(typed).map(|lasting| lasting.as_secs()).filter(|&secs| secs > 0);
    secs.ok_or_else(|| CommandError::Usage(format!("`{typed}` is no duration; write one as in 7d, 12h or 30m")))
}

fn token(verb: Token) -> Result<TokenCommand, CommandError> {
    Ok(match verb {
        Token::Create { email, name, expires, scopes } => {
            TokenCommand::Create { email, name, scopes, expires_secs: lasting(&expires)? }
        }
        Token::List { email, json } => TokenCommand::List { email, json },
        Token::Revoke { id } => TokenCommand::Revoke { id },
    })
}

fn session(verb: Session) -> SessionCommand {
    match verb {
        Session::List { email, json } => SessionCommand::List { email, json },
        Session::Revoke(Which { id: Some(id), .. }) => SessionCommand::Revoke(Revoke::Id(id)),
        Session::Revoke(Which { user: Some(user), .. }) => SessionCommand::Revoke(Revoke::User(user)),
        Session::Revoke(_) => SessionCommand::Revoke(Revoke::All),
    }
}

fn failed(error: &CommandError) -> ExitCode {
    let (text, code) = match error {
        CommandError::Refused(why) => (format!("authgate: {why}\n"), 1),
        CommandError::Usage(why) => (format!("authgate: {why}\n"), 2),
        CommandError::Config(faults) => {
            let color = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            (faults.render(color), 64)
        }
        CommandError::Said => (String::new(), 1),
    };
    let _ = std::io::stderr().write_all(text.as_bytes());
    ExitCode::from(code)
}
