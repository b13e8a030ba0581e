//! Opens the store: a file of this machine's, or a database that several nodes share.

use super::app_cookies::AppCookieKey;
use super::backend_token::signing_key;
use super::errors::StartError;
use super::identity::rules::ProviderRules;
use super::secrets_at_rest::SecretsAtRest;
use super::session::cookie_token;
use crate::clock::{Clock, UnixSecs};
use crate::config::{Config, StoreConfig};
use crate::store::{self, APP_COOKIES, Check, Db, Folder, Hooks, NodeId, Store, StoreError};

/// A database that has been opened, and how the threads that hold it are started.
pub(super) struct Opened {
    pub(super) db: Db,
    pub(super) start: Box<dyn FnOnce(Db, Hooks) -> Result<Store, StoreError>>,
}

/// Opens the database that `[store] url` names, or the file in `server.state_dir` (created if missing), which is locked.
///
/// # Errors
/// One plain line: the database, folder or file is unusable, or another gateway has it locked.
pub(super) fn open(config: &Config, clock: &Clock) -> Result<Opened, StartError> {
    match &config.store {
        Some(shared) => open_shared(shared, clock),
        None => open_alone(config),
    }
}

/// Why the shared database cannot be reached at the moment, if so.
pub(super) fn away(config: &Config) -> Option<String> {
    let shared = config.store.as_ref().filter(|shared| shared.unreadable.is_none())?;
    match Db::look_shared(&shared.url, "start") {
        Err(StoreError::Down(why) | StoreError::Unwritable(why)) => Some(why),
        _ => None,
    }
}

fn open_alone(config: &Config) -> Result<Opened, StartError> {
    let folder = Folder::open(&config.server.state_dir)?;
    if folder.is_shared() {
        let state_dir = config.server.state_dir.display();
        tracing::warn!(%state_dir, "state directory is group-writable: no other program may run in that group");
    }
    let lock = folder.lock()?;
    let db = Db::open(&config.server.state_dir, Check::Whole)?;
    match db.migrated() {
        Some(migrated) if migrated.copy.is_err() => tracing::warn!("{migrated}"),
        Some(migrated) => tracing::info!("{migrated}"),
        None => {}
    }
    folder.keep_reserve();
    Ok(Opened { db, start: Box::new(|db, hooks| Store::start(db, lock, hooks)) })
}

fn open_shared(shared: &StoreConfig, clock: &Clock) -> Result<Opened, StartError> {
    if let Some(why) = &shared.unreadable {
        return Err(StartError(why.clone()));
    }
    let node = NodeId::new().map_err(|error| StartError(error.to_string()))?;
    let db = Db::open_shared(&shared.url, &node.name)?;
    tracing::info!(database = shared.url.shown(), node = node.name, "account store on PostgreSQL");
    let (url, clock) = (shared.url.clone(), clock.clone());
    Ok(Opened { db, start: Box::new(move |db, hooks| Store::start_shared(db, &url, &node, &clock, hooks)) })
}

/// Groups here of a provider's names. A provider that is not configured gives none.
pub(super) fn group_map(config: &Config) -> impl Fn(&str, &[String]) -> Vec<String> + Send + 'static {
    let rules: Vec<ProviderRules> = config.providers.iter().map(ProviderRules::new).collect();
    move |provider, theirs| {
        rules.iter().find(|rules| rules.name == provider).map_or_else(Vec::new, |rules| rules.mapped_groups(theirs))
    }
}

/// Creates the signing keys that are missing, and opens all. Gives the one that authenticates records of app cookies.
pub(super) fn first_keys(
    config: &Config,
    db: &mut Db,
    secrets: &SecretsAtRest,
    now: UnixSecs,
) -> Result<AppCookieKey, StartError> {
    let own = [cookie_token::new_key(), cookie_token::new_key_for(APP_COOKIES)];
    for key in own.into_iter().chain(signing_key::algorithms(config).into_iter().map(signing_key::new_key)) {
        let sealed = key.and_then(|key| secrets.seal(&key)).map_err(|error| StartError(error.to_string()))?;
        store::keys::first_key(db, &sealed, now)?;
    }
    for row in store::keys::list(db)? {
        secrets.open_one(&row).map_err(StartError)?;
    }
    let app_cookies = secrets.open_one(&store::keys::app_cookie_key(db)?).map_err(StartError)?;
    Ok(AppCookieKey::new(&app_cookies.secret))
}
