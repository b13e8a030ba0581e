//! `authgate backup FILE`: a consistent copy of the database, with or without a running gateway.

use std::path::Path;

use super::people::{configured, remark};
use super::{CommandError, Globals};
use crate::store;

/// Carries the command out.
pub fn run(globals: &Globals, file: &Path) -> Result<(), CommandError> {
    let config = configured(globals)?;
    let bytes =
        store::back_up(&config.server.state_dir, file).map_err(|error| CommandError::Refused(error.to_string()))?;
    remark(&format!(
        "{} holds {} KiB: accounts, sessions and signing keys. Keep it secret.",
        file.display(),
        bytes >> 10
    ));
    Ok(())
}
