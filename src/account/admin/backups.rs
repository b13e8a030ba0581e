//! Backups with their sealing key, and what a restore needs of it. Blocking.

use std::path::Path;

use crate::account::audit;
use crate::account::caller::Caller;
use crate::account::errors::AdminError;
use crate::account::secrets_at_rest::{self, Source};
use crate::clock::Clock;
use crate::config::Config;
use crate::sealing::SealingKey;
use crate::store::{self, Folder, KeyCheck, KeyIn, KeyRow, Restored, StoreError};

/// Timestamp in the names of what is kept of a replaced database.
const STAMP: &[time::format_description::BorrowedFormatItem<'_>] =
    time::macros::format_description!("[year][month][day]-[hour][minute][second]");

/// Copies the database to a new file, with the sealing key in it if wanted. Gives its size in bytes.
///
/// # Errors
/// There is no database, its key is not here, or the file exists or cannot be written.
pub fn back_up(config: &Config, to: &Path, with_key: bool) -> Result<u64, StoreError> {
    let state_dir = &config.server.state_dir;
    if !with_key {
        return store::back_up(state_dir, to, None);
    }
    let source = Source::new(config, &Folder::existing(state_dir)?);
    store::back_up(state_dir, to, Some(&|id| source.find(id).map(|(key, _)| key.to_file())))
}

/// Replaces the database with a backup, with or without a running gateway.
///
/// # Errors
/// The backup is none, its sealing key is neither here nor in it, or it cannot be put in place: nothing was changed.
pub fn restore(config: &Config, from: &Path, clock: &Clock) -> Result<Restored, AdminError> {
    let state_dir = &config.server.state_dir;
    let source = Source::new(config, &Folder::open(state_dir)?);
    let now = clock.now();
    let at = i64::try_from(now).ok().and_then(|at| time::OffsetDateTime::from_unix_timestamp(at).ok());
    let stamp = at.and_then(|at| at.format(STAMP).ok()).unwrap_or_default();
    let event = audit::about("database_restored", &Caller::default(), now, "", "");
    let find = |id: &str, carried: Option<&[u8]>| {
        place(&source, id, carried)
            .map_err(|why| format!("{}: this backup cannot be used here, nothing was changed: {why}", from.display()))
    };
    let seal = |row: &KeyRow| match source
        .read()
        .and_then(|key| key.ok_or_else(|| format!("{} is missing", source.shown())))
    {
        Ok(key) => secrets_at_rest::sealed_row(&key, row),
        Err(why) => Err(StoreError::Unusable(why)),
    };
    Ok(store::restore(state_dir, from, &stamp, &event, &KeyCheck { find: &find, seal: &seal })?)
}

/// Where the key with this id is; `carried` is the one in the backup.
fn place(source: &Source, id: &str, carried: Option<&[u8]>) -> Result<KeyIn, String> {
    let Err(missing) = source.find(id) else { return Ok(KeyIn::Place) };
    let is_it = |text| SealingKey::parse(text).is_ok_and(|key| key.id() == id);
    if !carried.is_some_and(is_it) {
        return Err(missing);
    }
    let Some(file) = source.file() else {
        return Err(format!("its key is in it, but {} cannot be replaced from here", source.shown()));
    };
    // it may be the key of the database in use
    if store::secret_key::read_next(&file).is_ok_and(|next| next.is_none()) {
        return Ok(KeyIn::Backup(file));
    }
    Err(format!("{}.next is left of an interrupted `key rotate --secrets`: start the gateway first", file.display()))
}
