//! Signing keys as commands see them: listed, and replaced by new ones.

use super::accounts::Admin;
use crate::account::backend_token::signing_key;
use crate::account::errors::AdminError;
use crate::account::session::cookie_token;
use crate::clock::BorneOut;
use crate::store::{AuditRow, KeyRow};

/// Which of the keys before go on verifying.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OldKeys {
    /// Those of which a token can be valid, for what was there before: nobody is signed out.
    Kept,
    /// None: everybody is signed out. For keys that somebody else may have.
    Dropped,
}

/// Signing keys, the one that signs first. Their secrets are wiped before they leave here.
pub fn list(admin: &mut Admin) -> Result<Vec<KeyRow>, AdminError> {
    let mut keys = admin.db.keys()?;
    for key in &mut keys {
        key.secret = Vec::new().into();
    }
    Ok(keys)
}

/// Makes new signing keys, one for each algorithm in use. Returns the name of the one that signs sessions.
pub fn rotate(admin: &mut Admin, old: OldKeys) -> Result<String, AdminError> {
    let own = cookie_token::new_key()?;
    let kid = own.kid.clone();
    let mut new = vec![own];
    for key in admin.db.keys()?.iter().filter(|key| key.retired.is_none() && key.algorithm != "HS256") {
        new.push(signing_key::new_key(&key.algorithm)?);
    }
    // keys that a clock which is ahead calls old are kept
    let past = BorneOut::new(&admin.clock, admin.db.newest_record()?).0.now();
    let (name, drop_before) = match old {
        OldKeys::Dropped => ("keys_dropped", None),
        OldKeys::Kept => ("key_rotated", Some(past.saturating_sub(admin.settings.keys_secs()))),
    };
    let event = AuditRow { detail: kid.clone(), ..admin.event(name, None) };
    admin.db.rotate_keys(&new, admin.clock.now(), drop_before, &event)?;
    Ok(kid)
}
