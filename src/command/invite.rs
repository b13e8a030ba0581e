//! `authgate invite`: a one-time link that makes an account.

use super::people::{open, remark, say};
use super::{CommandError, Globals, InviteArgs};

/// Prints the link.
pub fn run(globals: &Globals, args: &InviteArgs) -> Result<(), CommandError> {
    let link = open(globals)?.invite(args.email.as_deref(), &args.groups, args.expires_secs)?;
    say(link.expose());
    remark("This link makes an account. It works once.");
    Ok(())
}
