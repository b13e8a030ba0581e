//! `invite` as clap parses it: a command with subcommands.

use clap::{Args, Subcommand};

use super::duration::positive_secs;
use crate::command::{CommandError, InviteArgs, InviteCommand};

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Invite {
    #[command(subcommand)]
    pub(super) verb: Option<Invites>,
    /// E-mail that the account must use; without it, the person who opens the link chooses one
    #[arg(long)]
    pub(super) email: Option<String>,
    /// Group of the account; may be repeated
    #[arg(long = "group", value_name = "GROUP")]
    pub(super) groups: Vec<String>,
    /// Lifetime of the link
    #[arg(long, default_value = "7d")]
    pub(super) expires: String,
}

#[derive(Subcommand)]
pub(super) enum Invites {
    /// List valid invites, without their links
    #[command(after_help = "Example: authgate invite list")]
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Revoke an invite
    #[command(after_help = "Example: authgate invite revoke 9f86d081884c7d65")]
    Revoke {
        /// Id of the invite
        id: String,
    },
}

impl Invite {
    pub(super) fn command(self) -> Result<InviteCommand, CommandError> {
        Ok(match self.verb {
            Some(Invites::List { json }) => InviteCommand::List { json },
            Some(Invites::Revoke { id }) => InviteCommand::Revoke { id },
            None => InviteCommand::Make(InviteArgs {
                email: self.email,
                groups: self.groups,
                expires_secs: positive_secs(&self.expires)?,
            }),
        })
    }
}
