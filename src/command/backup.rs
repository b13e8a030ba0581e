//! `authgate backup FILE`: a consistent copy of the database, with or without a running gateway.

use std::path::Path;

use super::people::{readable, remark};
use super::{CommandError, Globals};
use crate::account;
use crate::store;

/// Creates the backup.
pub fn run(globals: &Globals, file: &Path) -> Result<(), CommandError> {
    let (config, _) = readable(globals)?;
    let bytes = store::back_up(&config.server.state_dir, file)?;
    remark(&format!(
        "{} holds {} KiB: accounts, sessions and sealed signing keys. Keep it secret.",
        file.display(),
        bytes >> 10
    ));
    remark(&format!(
        "It does not hold the key that opens these: keep a copy of {} elsewhere, a restore on another machine needs it.",
        account::sealing_key_place(&config)?
    ));
    Ok(())
}
