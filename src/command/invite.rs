//! `authgate invite`: a one-time link that makes an account.

use super::people::{open, remark, say_once};
use super::{CommandError, Globals, InviteArgs};

/// Prints the link.
pub fn run(globals: &Globals, args: &InviteArgs) -> Result<(), CommandError> {
    let mut admin = open(globals)?;
    let link = admin.invite(args.email.as_deref(), &args.groups, args.expires_secs)?;
    say_once(&link, || admin.withdraw_link(&link))?;
    remark(&format!("This link makes an account. It works once, within {}.", span(args.expires_secs)));
    Ok(())
}

/// A time in the largest unit that it is a whole number of.
fn span(secs: u64) -> String {
    let units = [(86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second")];
    let (unit, name) = units.into_iter().find(|(unit, _)| secs.is_multiple_of(*unit)).unwrap_or((1, "second"));
    match secs / unit {
        1 => format!("1 {name}"),
        many => format!("{many} {name}s"),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_time_is_told_in_its_largest_unit() {
        let told = [604_800, 86_400, 7200, 5400, 59].map(super::span);
        assert_eq!(told, ["7 days", "1 day", "2 hours", "90 minutes", "59 seconds"]);
    }
}
