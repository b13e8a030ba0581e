//! Being laid out.

use super::{CommandError, Globals};

/// Being laid out.
pub fn run(_: &Globals, _: super::KeyCommand) -> Result<(), CommandError> {
    Err(CommandError::Said)
}
