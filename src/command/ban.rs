//! Being laid out.

use super::{CommandError, Globals};

/// Being laid out.
pub fn run(_: &Globals, _: super::BanCommand) -> Result<(), CommandError> {
    Err(CommandError::Said)
}
