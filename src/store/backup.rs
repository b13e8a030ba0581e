//! Backs up the database while others write to it. `VACUUM INTO` reads one snapshot, blocks no writer, omits deleted
//! data, and creates one plain file without a log to replay. The database itself is only read: a newer program backs
//! up an older database before it migrates it.

use std::fs::File;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};
use zeroize::Zeroizing;

use super::error::StoreError;
use super::folder::{self, Folder};
use super::migrate::{self, Check};
use super::sql::Tx;
use super::sqlite_statements::OnSqlite;
use super::{backup_key, copy, keys, sealed_tokens};

/// The text of the file with the sealing key of this id, or why it is not there.
pub type KeyText<'a> = dyn Fn(&str) -> Result<Zeroizing<String>, String> + 'a;

/// Copies the database of a state folder to a new file: 0600, owned by the folder's owner, verified, flushed. The
/// file appears complete or not at all. With `key` it also holds the sealing key. Gives its size in bytes.
///
/// # Errors
/// [`StoreError`]: there is no database, it cannot be read, its key is not there, or `to` exists or cannot be written.
pub fn back_up(state_dir: &Path, to: &Path, key: Option<&KeyText<'_>>) -> Result<u64, StoreError> {
    let folder = Folder::existing(state_dir)?;
    migrate::inspect(&folder, Check::Version)?;
    let failed = |error: std::io::Error| StoreError::Down(format!("{}: {error}", to.display()));
    if std::fs::symlink_metadata(to).is_ok() {
        return Err(StoreError::Down(format!("{}: the file already exists and was left untouched", to.display())));
    }
    let beside = copy::parent(to)?;
    let copy = copy::new_file(&beside).map_err(failed)?;
    copy_into(&folder, copy.path())?;
    sealed_tokens::forget_renewed(copy.path())?;
    if let Some(key) = key {
        let Some(id) = sealed_by(copy.path())? else {
            return Err(StoreError::Down("the database holds nothing sealed, so that no key belongs to it".to_owned()));
        };
        backup_key::put(copy.path(), &key(&id).map_err(StoreError::Unusable)?)?;
    }
    is_sound(copy.path())?;
    folder.hand_over(copy.as_file()).map_err(failed)?;
    copy.as_file().sync_all().map_err(failed)?;
    let bytes = copy.as_file().metadata().map_err(failed)?.len();
    copy.persist_noclobber(to).map_err(|error| failed(error.error))?;
    File::open(&beside).and_then(|folder| folder.sync_all()).map_err(failed)?;
    Ok(bytes)
}

fn copy_into(folder: &Folder, copy: &Path) -> Result<(), StoreError> {
    let Some(path) = copy.to_str() else {
        return Err(StoreError::Down(format!("{}: the path is not UTF-8", copy.display())));
    };
    let database = folder.connect(OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    database.busy_timeout(folder::BUSY)?;
    // opened like the database: the owner of the copy's folder cannot replace it with a link meanwhile
    database.execute("VACUUM INTO ?1", [path])?;
    Ok(())
}

/// Id of the key that a copy's signing keys are sealed with; `None`: it is of a version that sealed nothing.
pub(super) fn sealed_by(copy: &Path) -> Result<Option<String>, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags(copy, flags)?;
    if migrate::judge(&connection, copy)? < migrate::SEALED_SINCE {
        Ok(None)
    } else {
        keys::sealed_by(&Tx::new(&OnSqlite(&connection), false))
    }
}

pub(super) fn is_sound(copy: &Path) -> Result<(), StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let found: String =
        Connection::open_with_flags(copy, flags)?.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if found == "ok" {
        Ok(())
    } else {
        Err(StoreError::Down(format!("the copy is damaged ({found}); no backup was made")))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::super::Db;
    use super::*;

    const NONE: &str =
        "DIR/authgate.db: no database: start the gateway, or set its state directory with --state-dir DIR";

    fn lines(dir: &Path, to: &Path) -> String {
        back_up(dir, to, None).unwrap_err().to_string().replace(&dir.display().to_string(), "DIR")
    }

    #[test]
    fn a_backup_makes_nothing_where_there_is_no_database() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        assert_eq!(lines(&state, &dir.path().join("copy")), NONE);
        assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none());
        std::fs::create_dir(&state).unwrap();
        std::fs::write(state.join("authgate.db"), b"").unwrap();
        assert_eq!(lines(&state, &dir.path().join("copy")), NONE);
    }

    #[test]
    fn a_backup_never_writes_over_a_file_and_leaves_none_when_it_fails() {
        let dir = tempfile::tempdir().unwrap();
        drop(Db::open(&dir.path().join("state"), Check::Whole).unwrap());
        let (state, to) = (dir.path().join("state"), dir.path().join("copy"));
        std::fs::write(&to, b"mine").unwrap();
        assert!(
            back_up(&state, &to, None)
                .unwrap_err()
                .to_string()
                .ends_with("/copy: the file already exists and was left untouched")
        );
        assert_eq!(std::fs::read(&to).unwrap(), b"mine");
        assert!(back_up(&state, &dir.path().join("missing/copy"), None).is_err());
        assert!(back_up(&state, dir.path(), None).is_err());
        Connection::open(state.join("authgate.db")).unwrap().pragma_update(None, "user_version", 99).unwrap();
        assert!(back_up(&state, &dir.path().join("other"), None).unwrap_err().to_string().contains("version 99"));
        let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2, "{left:?}");
    }

    #[test]
    fn a_backup_is_0600_and_the_owner_is_that_of_the_state_folder() {
        let dir = tempfile::tempdir().unwrap();
        let (state, to) = (dir.path().join("state"), dir.path().join("file:copy?mode=memory"));
        std::fs::create_dir(&state).unwrap();
        let owner = if std::os::unix::fs::chown(&state, Some(65534), Some(65534)).is_ok() {
            65534
        } else {
            std::fs::metadata(&state).unwrap().uid() // not root: nobody else's folder to be had
        };
        drop(Db::open(&state, Check::Whole).unwrap());
        let bytes = back_up(&state, &to, None).unwrap();
        let about = std::fs::metadata(&to).unwrap();
        assert_eq!((about.uid(), about.mode() & 0o777, about.len()), (owner, 0o600, bytes));
        assert_eq!(std::fs::read(&to).unwrap()[18..20], [1, 1], "a file that needs no log");
        for entry in std::fs::read_dir(&state).unwrap() {
            assert_eq!(entry.unwrap().metadata().unwrap().uid(), owner);
        }
    }

    /// Whoever owns the folder of the copy could put a link where it is about to be written.
    #[test]
    fn a_link_in_the_place_of_the_copy_leads_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        drop(Db::open(&dir.path().join("state"), Check::Whole).unwrap());
        let folder = Folder::existing(&dir.path().join("state")).unwrap();
        let [link, elsewhere, missing] = ["link", "elsewhere", "missing"].map(|name| dir.path().join(name));
        std::fs::write(&elsewhere, b"").unwrap();
        for target in [&elsewhere, &missing] {
            std::os::unix::fs::symlink(target, &link).unwrap();
            assert!(copy_into(&folder, &link).is_err());
            std::fs::remove_file(&link).unwrap();
        }
        assert_eq!((std::fs::read(&elsewhere).unwrap(), missing.exists()), (Vec::new(), false));
        copy_into(&folder, &elsewhere).unwrap();
        is_sound(&elsewhere).unwrap();
    }

    #[test]
    fn an_older_database_is_backed_up_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        drop(Db::open(dir.path(), Check::Whole).unwrap());
        let version = |path: &Path| -> i64 {
            Connection::open(path).unwrap().pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
        };
        let database = dir.path().join("authgate.db");
        Connection::open(&database).unwrap().pragma_update(None, "user_version", 1).unwrap();
        back_up(dir.path(), &dir.path().join("copy"), None).unwrap();
        assert_eq!((version(&database), version(&dir.path().join("copy"))), (1, 1));
    }
}
