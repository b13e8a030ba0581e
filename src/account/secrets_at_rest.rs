//! The sealing key in use: where it is kept, when it is made, and what it opens. Signing keys are opened here and
//! nowhere else. A key is made only where nothing is sealed yet: a new one over sealed rows would lose them.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use zeroize::Zeroizing;

use crate::clock::UnixSecs;
use crate::config::{Config, SealingKeyPlace};
use crate::sealing::{Purpose, Sealed, SealingKey};
use crate::secret::NoRandomness;
use crate::store::{self, Db, Folder, KeyRow, NewKey, StoreError, StoredSecret};

/// A signing key that has been opened.
#[derive(Clone)]
#[allow(missing_docs)]
pub(crate) struct OpenKey {
    pub(crate) kid: String,
    pub(crate) algorithm: String,
    pub(crate) secret: Zeroizing<Vec<u8>>,
    pub(crate) created: UnixSecs,
    pub(crate) retired: Option<UnixSecs>,
    pub(crate) signs_from: UnixSecs,
    pub(crate) changed: u64,
}

/// A new signing key, not sealed yet.
pub(crate) struct PlainKey {
    pub(crate) algorithm: &'static str,
    pub(crate) kid: String,
    pub(crate) secret: Zeroizing<Vec<u8>>,
}

/// The sealing key and where it is read from.
pub(crate) struct SecretsAtRest {
    source: Source,
    held: ArcSwap<SealingKey>,
    /// Signing keys that were opened, by id; those that are not in the store any more are dropped.
    opened: Mutex<HashMap<String, OpenKey>>,
}

/// Where the sealing key is.
#[derive(Clone)]
pub(crate) enum Source {
    /// In the state folder.
    StateFolder(Folder),
    /// Where `[secrets] key` says; a file that replaces it belongs to the owner of the state folder, if there is one.
    Configured(Option<Folder>, SealingKeyPlace),
}

impl Source {
    pub(crate) fn new(config: &Config, folder: &Folder) -> Self {
        match &config.sealing_key {
            None => Self::StateFolder(folder.clone()),
            Some(place) => Self::Configured(Some(folder.clone()), place.clone()),
        }
    }

    /// Where the key of a database is.
    ///
    /// # Errors
    /// One line: the database has no state folder, and no place is configured.
    pub(crate) fn of(db: &Db, config: &Config) -> Result<Self, String> {
        match (db.folder(), &config.sealing_key) {
            (Some(folder), _) => Ok(Self::new(config, folder)),
            (None, Some(place)) => Ok(Self::Configured(None, place.clone())),
            (None, None) => Err("a store on PostgreSQL needs `[secrets] key`".to_owned()),
        }
    }

    /// Its name in messages.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::StateFolder(folder) => store::secret_key::default_path(folder.path()).display().to_string(),
            Self::Configured(_, place) => place.shown(),
        }
    }

    /// The file that it is kept in, if it is one that can be replaced.
    pub(crate) fn file(&self) -> Option<PathBuf> {
        match self {
            Self::StateFolder(folder) => Some(store::secret_key::default_path(folder.path())),
            Self::Configured(_, place) => place.own_file(),
        }
    }

    fn folder(&self) -> Option<&Folder> {
        match self {
            Self::StateFolder(folder) => Some(folder),
            Self::Configured(folder, _) => folder.as_ref(),
        }
    }

    /// The key; `None`: the state folder has none.
    pub(crate) fn read(&self) -> Result<Option<SealingKey>, String> {
        match self {
            Self::StateFolder(folder) => {
                let read = store::secret_key::read(folder).map_err(|error| error.to_string())?;
                read.map(|bytes| SealingKey::parse(&bytes)).transpose()
            }
            Self::Configured(_, place) => {
                let read = place.read().map_err(|why| format!("{}: {why}", self.shown()))?;
                SealingKey::parse(&read).map(Some)
            }
        }
        .map_err(|why| format!("{}: {why}", self.shown()))
    }

    /// The key with this id, or its successor, if a replacement was interrupted: then it takes the key's place.
    fn read_as(&self, id: &str) -> Result<SealingKey, String> {
        let (key, is_next) = self.find(id)?;
        // the command that replaces it may be about to, or a gateway may not write there
        if is_next && let Err(error) = self.replace_with_next() {
            tracing::warn!(error, "the sealing key's successor could not be put in its place");
        }
        Ok(key)
    }

    /// The key with this id, and whether it is the successor of the one in place. Changes nothing.
    pub(crate) fn find(&self, id: &str) -> Result<(SealingKey, bool), String> {
        let found = self.read()?;
        if let Some(key) = found.as_ref().filter(|key| key.id() == id) {
            return Ok((key.clone(), false));
        }
        if let Some(file) = self.file()
            && let Ok(Some(bytes)) = store::secret_key::read_next(&file)
            && let Ok(key) = SealingKey::parse(&bytes)
            && key.id() == id
        {
            return Ok((key, true));
        }
        let file = self.shown();
        Err(match found {
            None => format!("{file} is missing: secrets in the database are sealed with it (key {id}); {LOST}"),
            Some(key) => {
                format!("{file} holds key {}, but secrets in the database are sealed with key {id}; {LOST}", key.id())
            }
        })
    }

    /// Whether a running gateway can read the key again once it has been replaced.
    pub(crate) fn is_file(&self) -> bool {
        self.file().is_some()
    }

    /// Writes the successor of the key beside it.
    pub(crate) fn write_next(&self, next: &SealingKey) -> Result<(), String> {
        let Some(file) = self.file() else { return Err(format!("{} cannot be replaced from here", self.shown())) };
        store::secret_key::write_next(self.folder(), &file, &next.to_file()).map_err(|error| error.to_string())
    }

    /// Puts it in the key's place.
    pub(crate) fn replace_with_next(&self) -> Result<(), String> {
        let Some(file) = self.file() else { return Ok(()) };
        store::secret_key::replace_with_next(&file).map_err(|error| error.to_string())
    }
}

/// What to do without the key.
const LOST: &str = "put that key back from where it is kept apart from backups. If it is lost, \
     `authgate key rotate --drop-old --secrets` makes new keys and signs everyone out";

/// Whether a start would find the key that the database is sealed with. Changes nothing.
///
/// # Errors
/// One line: why the start would be refused.
pub fn judge(config: &Config) -> Result<(), String> {
    let mut db = Db::look(&config.server.state_dir).map_err(|error| error.to_string())?;
    let sealed_by = store::keys::sealing_key_id(&mut db).map_err(|error| error.to_string())?;
    sealed_by.map_or(Ok(()), |id| Source::of(&db, config)?.find(&id).map(|_| ()))
}

/// Where the sealing key is, for people.
///
/// # Errors
/// The state folder cannot be used.
pub fn place(config: &Config) -> Result<String, StoreError> {
    Ok(Source::new(config, &Folder::open(&config.server.state_dir)?).shown())
}

impl SecretsAtRest {
    /// Reads the key and seals what a database of an earlier version holds unsealed. Where nothing is sealed yet and
    /// the state folder has no key, one is made.
    ///
    /// # Errors
    /// One line that names the file: the key is missing or another one, or cannot be read or made.
    pub(crate) fn open(source: Source, db: &mut Db) -> Result<Self, String> {
        let sealed_by = store::keys::sealing_key_id(db).map_err(|error| error.to_string())?;
        let key = match sealed_by {
            Some(id) => source.read_as(&id)?,
            None => first(&source)?,
        };
        store::backup_key::remove(db).map_err(|error| error.to_string())?;
        let seal = |row: &KeyRow| sealed_row(&key, row);
        let sealed = store::keys::seal_plain(db, &seal).map_err(|error| error.to_string())?;
        if sealed > 0 {
            tracing::info!(file = source.shown(), count = sealed, "signing keys sealed");
        }
        Ok(Self { source, held: ArcSwap::from_pointee(key), opened: Mutex::default() })
    }

    /// The sealing key.
    pub(crate) fn key(&self) -> Arc<SealingKey> {
        self.held.load_full()
    }

    /// Where it is kept.
    pub(crate) fn source(&self) -> &Source {
        &self.source
    }

    /// The key with this id, read again if it was replaced.
    fn key_with(&self, id: &str) -> Result<Arc<SealingKey>, String> {
        let held = self.held.load_full();
        if held.id() == id {
            return Ok(held);
        }
        let read = Arc::new(self.source.read_as(id)?);
        self.held.store(Arc::clone(&read));
        Ok(read)
    }

    /// Seals a new signing key.
    pub(crate) fn seal(&self, new: &PlainKey) -> Result<NewKey, NoRandomness> {
        seal_new(&self.held.load(), new)
    }

    /// Opens signing keys. One that does not open and never did is left out, and said in the log: nothing that it
    /// signed is valid.
    pub(crate) fn open_all(&self, rows: &[KeyRow]) -> Vec<OpenKey> {
        let mut held = self.opened.lock();
        held.retain(|kid, _| rows.iter().any(|row| row.kid == *kid));
        for row in rows {
            match self.open_one(row) {
                Ok(key) => drop(held.insert(row.kid.clone(), key)),
                Err(error) => {
                    tracing::error!(kid = row.kid, error, "signing key cannot be opened");
                    // what was opened once stays known until the next start, which asks for the right key
                    if let Some(key) = held.get_mut(&row.kid) {
                        (key.retired, key.changed) = (row.retired, row.changed);
                    }
                }
            }
        }
        rows.iter().filter_map(|row| held.get(&row.kid)).cloned().collect()
    }

    /// Opens one.
    ///
    /// # Errors
    /// One line: it is not sealed, or with another key, or was altered.
    pub(crate) fn open_one(&self, row: &KeyRow) -> Result<OpenKey, String> {
        let StoredSecret::Sealed(Sealed { by, .. }) = &row.secret else {
            return Err("it is not sealed".to_owned());
        };
        open_row(&*self.key_with(by)?, row)
    }
}

/// The key where nothing is sealed: what is there, or a new one.
fn first(source: &Source) -> Result<SealingKey, String> {
    if let Some(key) = source.read()? {
        return Ok(key);
    }
    let Source::StateFolder(folder) = source else { return Err(format!("{} is missing", source.shown())) };
    let key = SealingKey::random().map_err(|error| error.to_string())?;
    if store::secret_key::create(folder, &key.to_file()).map_err(|error| error.to_string())? {
        return Ok(key);
    }
    // another process has just made it
    source.read()?.ok_or_else(|| format!("{}: the file has disappeared", source.shown()))
}

fn context(kid: &str) -> [&[u8]; 3] {
    [b"signing_key", kid.as_bytes(), b"secret"]
}

pub(crate) fn seal_new(key: &SealingKey, new: &PlainKey) -> Result<NewKey, NoRandomness> {
    let secret = key.sealer(Purpose::SigningKeys)?.seal(&context(&new.kid), &new.secret)?;
    Ok(NewKey { algorithm: new.algorithm, kid: new.kid.clone(), secret })
}

fn open_row(key: &SealingKey, row: &KeyRow) -> Result<OpenKey, String> {
    let secret = match &row.secret {
        StoredSecret::Plain(plain) => plain.clone(),
        StoredSecret::Sealed(sealed) => {
            let sealer = key.sealer(Purpose::SigningKeys).map_err(|error| error.to_string())?;
            let open = sealer.open(&context(&row.kid), &sealed.bytes);
            open.ok_or_else(|| format!("signing key {} was altered", row.kid))?
        }
    };
    let KeyRow { kid, algorithm, created, retired, signs_from, changed, .. } = row.clone();
    Ok(OpenKey { kid, algorithm, secret, created, retired, signs_from, changed })
}

/// Seals a stored key's secret that is not sealed.
pub(crate) fn sealed_row(key: &SealingKey, row: &KeyRow) -> Result<Sealed, StoreError> {
    let StoredSecret::Plain(plain) = &row.secret else {
        return Err(StoreError::Down(format!("signing key {} is sealed already", row.kid)));
    };
    sealed(key, &row.kid, plain)
}

/// Seals a stored key's secret anew, with another key.
pub(crate) fn sealed_again(old: &SealingKey, new: &SealingKey, row: &KeyRow) -> Result<Sealed, StoreError> {
    let open = open_row(old, row).map_err(StoreError::Down)?;
    sealed(new, &row.kid, &open.secret)
}

fn sealed(key: &SealingKey, kid: &str, plain: &[u8]) -> Result<Sealed, StoreError> {
    let sealer = key.sealer(Purpose::SigningKeys);
    let done = sealer.and_then(|sealer| sealer.seal(&context(kid), plain));
    done.map_err(|error| StoreError::Down(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Check;

    #[test]
    fn many_that_start_at_the_same_time_in_a_new_folder_agree_on_one_key() {
        let dir = tempfile::tempdir().unwrap();
        let open = || {
            let mut db = Db::open(dir.path(), Check::Version).unwrap();
            let folder = db.folder().unwrap().clone();
            SecretsAtRest::open(Source::StateFolder(folder), &mut db).unwrap().key().id().to_owned()
        };
        let ids: Vec<String> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    }

    /// A row that was moved under another id, or exchanged, is none of ours.
    #[test]
    fn a_sealed_key_opens_only_in_its_own_row() {
        let key = SealingKey::random().unwrap();
        let plain = PlainKey { algorithm: "HS256", kid: "one".to_owned(), secret: vec![7; 32].into() };
        let new = seal_new(&key, &plain).unwrap();
        let row = |kid: &str| KeyRow {
            kid: kid.to_owned(),
            algorithm: "HS256".to_owned(),
            secret: StoredSecret::Sealed(new.secret.clone()),
            created: 1,
            retired: None,
            signs_from: 0,
            changed: 1,
        };
        assert_eq!(open_row(&key, &row("one")).unwrap().secret.as_slice(), [7; 32]);
        assert!(open_row(&key, &row("two")).is_err());
    }
}
