//! `authgate backup FILE`: a consistent copy of the database, with or without a running gateway.

use std::path::Path;

use super::people::{readable, refuse_store, remark};
use super::{CommandError, Globals};
use crate::account;

/// Creates the backup.
pub fn run(globals: &Globals, file: &Path, with_key: bool) -> Result<(), CommandError> {
    let (config, _) = readable(globals)?;
    refuse_store(&config)?;
    let bytes = account::back_up(&config, file, with_key)?;
    remark(&format!(
        "{} holds {} KiB: accounts, sessions and sealed signing keys. Keep it secret.",
        file.display(),
        bytes >> 10
    ));
    if with_key {
        remark("It holds the key that opens these as well: anyone who reads it can sign in as any user. Encrypt it.");
        return Ok(());
    }
    remark(&format!(
        "It does not hold the key that opens these: keep a copy of {} elsewhere, a restore on another machine needs it.",
        account::sealing_key_place(&config)?
    ));
    Ok(())
}
