//! Signing keys, for commands: list and rotate.

use super::accounts::Admin;
use crate::account::backend_token::signing_key;
use crate::account::errors::AdminError;
use crate::account::session::cookie_token;
use crate::clock::PlausibleTime;
use crate::store::{self, AuditRow, KeyRow};

/// Which previous keys keep verifying tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OldKeys {
    /// Keys that may have signed a valid token, for sessions from before: nobody is signed out.
    Kept,
    /// None: everybody is signed out. For keys that may have leaked.
    Dropped,
}

/// Signing keys, the current one first. Secrets are wiped before they are returned.
pub fn list(admin: &mut Admin) -> Result<Vec<KeyRow>, AdminError> {
    let mut keys = store::keys::list(&mut admin.db)?;
    for key in &mut keys {
        key.secret = Vec::new().into();
    }
    Ok(keys)
}

/// Creates new signing keys, one per algorithm in use. Returns the key id of the one that signs sessions.
pub fn rotate(admin: &mut Admin, old: OldKeys) -> Result<String, AdminError> {
    let own = cookie_token::new_key()?;
    let kid = own.kid.clone();
    let mut new = vec![own];
    for key in store::keys::list(&mut admin.db)?.iter().filter(|key| key.retired.is_none() && key.algorithm != "HS256")
    {
        new.push(signing_key::new_key(&key.algorithm)?);
    }
    // a clock that is ahead must not drop keys that are not old
    let past = PlausibleTime::new(&admin.clock, admin.db.newest_record()?).0.now();
    let (name, drop_before) = match old {
        OldKeys::Dropped => ("keys_dropped", None),
        OldKeys::Kept => ("key_rotated", Some(past.saturating_sub(admin.settings.keys_secs()))),
    };
    let event = AuditRow { detail: kid.clone(), ..admin.event(name, None) };
    store::keys::rotate_keys(&mut admin.db, &new, admin.clock.now(), drop_before, &event)?;
    Ok(kid)
}
