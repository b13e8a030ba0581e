//! Arguments -> one command -> an exit code. Passwords are never arguments.

use std::ffi::OsString;
use std::io::{ErrorKind, IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;

use crate::command::{
    self, BanCommand, CommandError, ExplainArgs, Globals, KeyCommand, ProviderCommand, Revoke, RunArgs, SessionCommand,
    TokenCommand, UserArgs, UserCommand, UserFilter,
};
use crate::logging::printable_lines;

mod duration;
mod import;
mod invite;
mod manual;
mod verbs;

use duration::positive_secs;
use verbs::{Account, Audit, Ban, Change, Cli, Email, Key, Provider, Session, Token, User, Verb, Which};

/// Runs the command that the arguments name. Exit codes: 0 success, 1 refused or failed, 2 wrong usage, 64 invalid
/// configuration.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            return helped(&error);
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
        Verb::Check { json } => command::check::run(globals, json),
        Verb::Explain { method, url, user, headers, json } => {
            command::explain::run(globals, &ExplainArgs { method, url, user, headers, json })
        }
        Verb::User(verb) => user(globals, verb),
        Verb::Invite(verb) => command::invite::run(globals, verb.command()?),
        Verb::Token(verb) => command::token::run(globals, token(verb)?),
        Verb::Session(verb) => command::session::run(globals, session(verb)),
        Verb::Key(Key::List { json }) => command::key::run(globals, KeyCommand::List { json }),
        Verb::Key(Key::Rotate { drop_old, secrets: false, .. }) => {
            command::key::run(globals, KeyCommand::Rotate { drop_old })
        }
        Verb::Key(Key::Rotate { drop_old, secrets: true, new_key }) => {
            command::key::run(globals, KeyCommand::RotateSecrets { drop_old, new_key })
        }
        Verb::Provider(Provider::List { json }) => command::provider::run(globals, ProviderCommand::List { json }),
        Verb::Provider(Provider::Check { name, json }) => {
            command::provider::run(globals, ProviderCommand::Check { name, json })
        }
        Verb::Provider(Provider::Adopt { name }) => command::provider::run(globals, ProviderCommand::Adopt { name }),
        Verb::Ban(Ban::List { json }) => command::ban::run(globals, BanCommand::List { json }),
        Verb::Ban(Ban::Lift { what }) => command::ban::run(globals, BanCommand::Lift { what }),
        Verb::Audit(Audit::List { email, since, json }) => {
            command::audit::run(globals, email.as_deref(), positive_secs(&since)?, json)
        }
        Verb::Backup { file, with_key } => command::backup::run(globals, &file, with_key),
        Verb::Restore { file } => command::restore::run(globals, &file),
        Verb::Healthcheck { wait } => {
            let wait = wait.as_deref().map(positive_secs).transpose()?.unwrap_or(0);
            command::healthcheck::run(globals, std::time::Duration::from_secs(wait))
        }
        Verb::Help { command } => help(&command),
        Verb::Completions { shell } => print(&manual::completions(shell)),
        Verb::Man => print(manual::page().map_err(|error| CommandError::Refused(error.to_string()))?.as_bytes()),
    }
}

/// Prints clap's output: a help text, or an error in the arguments.
fn helped(error: &clap::Error) -> ExitCode {
    let printed = error.print();
    let is_lost = printed.is_err_and(|error| error.kind() != ErrorKind::BrokenPipe);
    ExitCode::from(if error.use_stderr() { 2 } else { u8::from(is_lost) })
}

/// Prints the help of a command, like `--help`.
fn help(command: &[String]) -> Result<(), CommandError> {
    let words = std::iter::once("authgate").chain(command.iter().map(String::as_str));
    match Cli::try_parse_from(words.chain(["--help"])) {
        Err(error) if error.use_stderr() => {
            Err(CommandError::Usage(format!("unknown command `{}`", command.join(" "))))
        }
        Err(error) => print(error.render().to_string().as_bytes()),
        Ok(_) => Ok(()),
    }
}

/// A reader that closes the pipe early, such as `head`, is not an error.
fn print(text: &[u8]) -> Result<(), CommandError> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(CommandError::Refused(error.to_string())),
        _ => Ok(()),
    }
}

fn user(globals: &Globals, verb: User) -> Result<(), CommandError> {
    let account = |account: Account, new_email, keep_tokens| UserArgs {
        email: account.email,
        new_email,
        keep_tokens,
        name: account.name,
        picture: account.picture,
        groups: account.groups,
        password_stdin: account.password_stdin,
    };
    let command = match verb {
        User::Add(typed) => UserCommand::Add(account(typed, None, false)),
        User::List { pattern, group, disabled, json } => {
            UserCommand::List { filter: UserFilter { pattern, group, disabled }, json }
        }
        User::Show { email, json } => UserCommand::Show { email, json },
        User::Remove { emails, yes } => UserCommand::Remove { emails, yes },
        User::Disable(Email { email }) => UserCommand::Disable { email },
        User::Enable(Email { email }) => UserCommand::Enable { email },
        User::Set(Change { account: typed, new_email, keep_tokens }) => {
            UserCommand::Set(account(typed, new_email, keep_tokens))
        }
        User::Reset(Email { email }) => UserCommand::Reset { email },
        User::Link { email, provider, subject } => UserCommand::Link { email, provider, subject },
        User::Unlink { email, provider, subject, force } => UserCommand::Unlink { email, provider, subject, force },
        User::Import(typed) => return command::import::run(globals, &typed.command()),
    };
    command::user::run(globals, command)
}

fn token(verb: Token) -> Result<TokenCommand, CommandError> {
    Ok(match verb {
        Token::Create { email, name, expires, scopes } => {
            TokenCommand::Create { email, name, scopes, expires_secs: positive_secs(&expires)? }
        }
        Token::List { email, json } => TokenCommand::List { email, json },
        Token::Revoke(which) => TokenCommand::Revoke(revoke(which)),
    })
}

fn session(verb: Session) -> SessionCommand {
    match verb {
        Session::List { email, json } => SessionCommand::List { email, json },
        Session::Revoke(which) => SessionCommand::Revoke(revoke(which)),
    }
}

fn revoke(which: Which) -> Revoke {
    match which {
        Which { id: Some(id), .. } => Revoke::Id(id),
        Which { user: Some(user), .. } => Revoke::User(user),
        Which { all: _, .. } => Revoke::All,
    }
}

fn failed(error: &CommandError) -> ExitCode {
    let (text, code) = match error {
        CommandError::Refused(why) => (format!("authgate: {}\n", printable_lines(why)), 1),
        CommandError::Usage(why) => (format!("authgate: {}\n", printable_lines(why)), 2),
        CommandError::Config(faults) => {
            let color = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            (faults.render(color), 64)
        }
        CommandError::Said => (String::new(), 1),
    };
    let _ = std::io::stderr().write_all(text.as_bytes());
    ExitCode::from(code)
}
