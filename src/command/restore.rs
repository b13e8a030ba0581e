//! `authgate restore FILE`: replaces the database with a backup, with or without a running gateway.

use std::path::Path;

use super::people::{readable, refuse_store, remark};
use super::{CommandError, Globals};
use crate::account;
use crate::clock::Clock;

/// Restores the backup.
pub fn run(globals: &Globals, file: &Path) -> Result<(), CommandError> {
    let (config, _) = readable(globals)?;
    refuse_store(&config)?;
    let state_dir = &config.server.state_dir;
    let done = account::restore(&config, file, &Clock::system())?;
    if let Some(kept) = &done.kept {
        remark(&format!("the previous database is kept at {}", kept.display()));
    }
    if let Some(key) = &done.key {
        remark(&format!("the backup's sealing key is now {}", key.file.display()));
        if let Some(kept) = &key.kept {
            remark(&format!("the previous database opens with the previous key alone, kept at {}", kept.display()));
        }
    }
    match done.in_force {
        None => remark(&format!("restored {} to {}; start the gateway", file.display(), state_dir.display())),
        Some(true) => remark(&format!("restored {}; the running gateway now uses it", file.display())),
        Some(false) => remark("warning: restored, but the running gateway has not confirmed it: restart it"),
    }
    remark(
        "Sessions that were revoked after that backup may be valid again. To end them: authgate session revoke --all",
    );
    Ok(())
}
