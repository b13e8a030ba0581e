//! New identifiers: of keys, of sessions and tokens, of accounts.

use data_encoding::BASE64URL_NOPAD as B64;

use crate::clock::Clock;
use crate::config;
use crate::secret::{NoRandomness, random_bytes};
use crate::store::NewId;

/// A new key id (`kid`).
pub(super) fn new_kid() -> Result<String, NoRandomness> {
    Ok(B64.encode(&random_bytes::<9>()?))
}

/// A new session's public id: 128 random bits. Never starts with `-`, because ids are command-line arguments.
pub(super) fn new_session_id() -> Result<String, NoRandomness> {
    loop {
        let id = B64.encode(&random_bytes::<16>()?);
        if !id.starts_with('-') {
            return Ok(id);
        }
    }
}

/// The id of a new account.
pub(super) fn new_id(ids: config::UserIds, clock: &Clock) -> Result<NewId, NoRandomness> {
    match ids {
        config::UserIds::Integer => Ok(NewId::Next),
        config::UserIds::Uuid => {
            let uuid = uuid::Builder::from_unix_timestamp_millis(clock.now_millis(), &random_bytes::<10>()?);
            Ok(NewId::Given(uuid.into_uuid().to_string()))
        }
    }
}
