//! Signing keys, and the key that seals them, for commands: list and rotate.

use super::accounts::Admin;
use crate::account::backend_token::signing_key;
use crate::account::errors::AdminError;
use crate::account::provider::token_seal;
use crate::account::secrets_at_rest::{PlainKey, SecretsAtRest, seal_new, sealed_again};
use crate::account::session::cookie_token;
use crate::clock::PlausibleTime;
use crate::sealing::SealingKey;
use crate::secret::NoRandomness;
use crate::store::{self, APP_COOKIES, AuditRow, KeyRow, NewKey, Rotation, StoredSecret};

/// Which previous keys keep verifying tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OldKeys {
    /// Keys that may have signed a valid token, for sessions from before: nobody is signed out.
    Kept,
    /// None: everybody is signed out. For keys that may have leaked.
    Dropped,
    /// None, and the sealing key neither: it is replaced without being needed, because it is lost.
    DroppedWithSealingKey,
}

/// Signing keys, the current one first. Secrets are wiped before they are returned.
pub fn list(admin: &mut Admin) -> Result<Vec<KeyRow>, AdminError> {
    let mut keys = store::keys::list(&mut admin.db)?;
    for key in &mut keys {
        key.secret = StoredSecret::Plain(Vec::new().into());
    }
    Ok(keys)
}

/// Creates new signing keys, one per algorithm in use. Returns the key id of the one that signs sessions.
pub fn rotate(admin: &mut Admin, old: OldKeys) -> Result<String, AdminError> {
    if old == OldKeys::DroppedWithSealingKey {
        return replace_all(admin);
    }
    let secrets = SecretsAtRest::open(admin.sealing_key.clone(), &mut admin.db).map_err(AdminError)?;
    let (kid, new) = new_keys(admin, &[])?;
    let new = sealed(&secrets.key(), &new)?;
    // a clock that is ahead must not drop keys that are not old
    let past = PlausibleTime::new(&admin.clock, admin.db.newest_record()?).0.now();
    let (name, rotation) = match old {
        OldKeys::Kept => {
            ("key_rotated", Rotation::Retire { drop_before: past.saturating_sub(admin.settings.keys_secs()) })
        }
        _ => ("keys_dropped", Rotation::Drop),
    };
    let event = AuditRow { detail: kid.clone(), ..admin.event(name, None) };
    store::keys::rotate_keys(&mut admin.db, &new, admin.clock.now(), rotation, &event)?;
    Ok(kid)
}

/// A new key for sessions, for each other algorithm in use, and for these. And the id of the first.
fn new_keys(admin: &mut Admin, also: &[&'static str]) -> Result<(String, Vec<PlainKey>), AdminError> {
    let own = cookie_token::new_key()?;
    let kid = own.kid.clone();
    let mut new = vec![own];
    for key in store::keys::list(&mut admin.db)?.iter().filter(|key| key.retired.is_none() && key.algorithm != "HS256")
    {
        new.push(signing_key::new_key(&key.algorithm)?);
    }
    for algorithm in also {
        new.push(cookie_token::new_key_for(algorithm)?);
    }
    Ok((kid, new))
}

fn sealed(key: &SealingKey, new: &[PlainKey]) -> Result<Vec<NewKey>, NoRandomness> {
    new.iter().map(|new| seal_new(key, new)).collect()
}

/// New signing keys under a new sealing key. Everybody is signed out, and cookies that apps set before are dropped.
fn replace_all(admin: &mut Admin) -> Result<String, AdminError> {
    if admin.db.is_served()? {
        return Err(AdminError("stop the gateway first: it uses the key that would be replaced".to_owned()));
    }
    let (kid, new) = new_keys(admin, &[APP_COOKIES])?;
    let next = match admin.sealing_key.file() {
        Some(_) => SealingKey::random()?,
        // whoever provides it has replaced it
        None => admin.sealing_key.read().map_err(AdminError)?.ok_or_else(|| AdminError("no sealing key".to_owned()))?,
    };
    let new = sealed(&next, &new)?;
    if admin.sealing_key.is_file() {
        admin.sealing_key.write_next(&next).map_err(AdminError)?;
    }
    let event = AuditRow { detail: kid.clone(), ..admin.event("keys_dropped", None) };
    store::keys::rotate_keys(&mut admin.db, &new, admin.clock.now(), Rotation::DropAll, &event)?;
    admin.sealing_key.replace_with_next().map_err(AdminError)?;
    Ok(kid)
}

/// Seals all secrets with another key in one transaction: with a new one that takes the old one's place in its file,
/// or with `given`, which whoever provides the key puts in its place. The old key opens the database until then.
/// Returns the id of the new one.
///
/// # Errors
/// The key comes from elsewhere and none was given, or the other way round; or a gateway is running that could not
/// read the new one.
pub fn seal_again(admin: &mut Admin, given: Option<SealingKey>) -> Result<String, AdminError> {
    if admin.db.is_shared() && admin.db.is_served()? {
        let what = "stop all gateways first: each has its own copy of the key, and needs the new one before it starts";
        return Err(AdminError(what.to_owned()));
    }
    let secrets = SecretsAtRest::open(admin.sealing_key.clone(), &mut admin.db).map_err(AdminError)?;
    let shown = secrets.source().shown();
    let next = match (given, secrets.source().is_file()) {
        (None, true) => {
            let next = SealingKey::random()?;
            secrets.source().write_next(&next).map_err(AdminError)?;
            next
        }
        (Some(_), true) => return Err(AdminError(format!("{shown} is replaced by this command: leave out --new-key"))),
        (None, false) => {
            let what = "cannot be replaced from here: make a new key with `openssl rand -base64 32`, name its file with --new-key";
            return Err(AdminError(format!("{shown} {what}, and put it in the old one's place afterwards")));
        }
        (Some(_), false) if admin.db.is_served()? => {
            return Err(AdminError(format!("stop the gateway first: it cannot read {shown} again")));
        }
        (Some(given), false) => given,
    };
    let old = secrets.key();
    if old.id() == next.id() {
        return Err(AdminError("the new key is the old one".to_owned()));
    }
    let event = AuditRow { detail: next.id().to_owned(), ..admin.event("secrets_sealed_again", None) };
    let seal_token =
        |session: &str, kind: &str, sealed: &[u8]| token_seal::seal_again(&old, &next, (session, kind), sealed);
    store::keys::seal_again(&mut admin.db, &|row| sealed_again(&old, &next, row), &seal_token, &event)?;
    if secrets.source().is_file() {
        secrets.source().replace_with_next().map_err(AdminError)?;
    }
    Ok(next.id().to_owned())
}
