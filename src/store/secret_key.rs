//! The file of the sealing key: `secret.key` in the state folder, or another that the configuration names. Made once,
//! never over an existing one, and replaced in two steps, so that at any moment one of the files opens the database.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::copy;
use super::error::StoreError;
use super::folder::{self, Folder};

/// Its name in the state folder.
const FILE: &str = "secret.key";
/// Longest file that is read, bytes: a key has 65 at most.
const FILE_BYTES_MAX: u64 = 4096;

/// The sealing key's place in a state folder.
pub fn default_path(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE)
}

/// Where its successor is until it takes its place.
fn next_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".next");
    name.into()
}

fn failed(path: &Path, error: impl std::fmt::Display) -> StoreError {
    StoreError::Unusable(format!("{}: {error}", path.display()))
}

/// The contents of the state folder's key file, which is closed to others; `None`: there is none.
///
/// # Errors
/// [`StoreError::Unusable`]: it cannot be read, or is no plain file.
pub fn read(folder: &Folder) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
    read_file(&default_path(folder.path()), Some(folder))
}

/// The contents of the key's successor, which is there while the key is being replaced.
///
/// # Errors
/// As for [`read`].
pub fn read_next(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
    read_file(&next_path(path), None)
}

fn read_file(path: &Path, folder: Option<&Folder>) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
    let unread = |error: std::io::Error| {
        let owner = std::fs::symlink_metadata(path).ok().map(|about| about.uid());
        failed(path, format!("cannot be read: {}", folder::fault(&error, owner)))
    };
    let file = match OpenOptions::new().read(true).custom_flags(folder::NO_LINK).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(_) if std::fs::symlink_metadata(path).is_ok_and(|about| about.is_symlink()) => {
            return Err(failed(path, folder::LINK));
        }
        Err(error) => return Err(unread(error)),
    };
    if !file.metadata().map_err(unread)?.is_file() {
        return Err(failed(path, "is not a file"));
    }
    if let Some(folder) = folder {
        folder.close(&file).map_err(unread)?;
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(128));
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(unread)?;
    Ok(Some(bytes))
}

/// Writes the state folder's key file: 0600, owned by the folder's owner, flushed, complete or not at all. `false`:
/// there is one already, which was left untouched.
///
/// # Errors
/// [`StoreError::Unusable`]: it cannot be written.
pub fn create(folder: &Folder, text: &str) -> Result<bool, StoreError> {
    let path = default_path(folder.path());
    let unwritten = |error: std::io::Error| failed(&path, format!("cannot be written: {error}"));
    let beside = copy::parent(&path)?;
    let mut file = copy::new_file(&beside).map_err(unwritten)?;
    file.write_all(text.as_bytes()).map_err(unwritten)?;
    folder.hand_over(file.as_file()).map_err(unwritten)?;
    file.as_file().sync_all().map_err(unwritten)?;
    match file.persist_noclobber(&path) {
        Err(error) if error.error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(unwritten(error.error)),
        Ok(_) => {
            File::open(&beside).and_then(|folder| folder.sync_all()).map_err(unwritten)?;
            Ok(true)
        }
    }
}

/// Writes the successor of a key file beside it, with its owner and mode, or those of a new one in the state folder.
///
/// # Errors
/// [`StoreError::Unusable`]: it cannot be written.
pub fn write_next(folder: Option<&Folder>, path: &Path, text: &str) -> Result<(), StoreError> {
    let unwritten = |error: std::io::Error| failed(path, format!("its successor cannot be written: {error}"));
    let beside = copy::parent(path)?;
    let mut file = copy::new_file(&beside).map_err(unwritten)?;
    file.write_all(text.as_bytes()).map_err(unwritten)?;
    match std::fs::symlink_metadata(path) {
        Ok(about) if about.is_file() => {
            let mode = about.mode() & 0o770;
            file.as_file().set_permissions(Permissions::from_mode(mode)).map_err(unwritten)?;
            let own = file.as_file().metadata().map_err(unwritten)?;
            if (own.uid(), own.gid()) != (about.uid(), about.gid()) {
                std::os::unix::fs::fchown(file.as_file(), Some(about.uid()), Some(about.gid())).map_err(unwritten)?;
            }
        }
        Ok(_) => return Err(failed(path, "is not a file")),
        Err(_) => folder.map_or(Ok(()), |folder| folder.hand_over(file.as_file())).map_err(unwritten)?,
    }
    file.as_file().sync_all().map_err(unwritten)?;
    file.persist(next_path(path)).map_err(|error| unwritten(error.error))?;
    File::open(&beside).and_then(|folder| folder.sync_all()).map_err(unwritten)
}

/// Keeps the key under another name beside it. `None`: there is none.
pub(super) fn keep(path: &Path, stamp: &str) -> Result<Option<PathBuf>, StoreError> {
    let mut kept = path.as_os_str().to_owned();
    kept.push(format!(".replaced-{stamp}"));
    let kept = PathBuf::from(kept);
    match std::fs::hard_link(path, &kept) {
        Ok(()) => Ok(Some(kept)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(&kept, format!("the key in use cannot be kept there: {error}"))),
    }
}

/// Removes the successor again.
pub(super) fn remove_next(path: &Path) {
    let _ = std::fs::remove_file(next_path(path));
}

/// Puts the successor in the key's place, unless that was done already: a running gateway may be faster than the command
/// that wrote it.
///
/// # Errors
/// [`StoreError::Unusable`]: it cannot be renamed.
pub fn replace_with_next(path: &Path) -> Result<(), StoreError> {
    let unwritten = |error: std::io::Error| failed(path, format!("cannot be replaced: {error}"));
    match std::fs::rename(next_path(path), path) {
        Err(error) if error.kind() == ErrorKind::NotFound && path.exists() => return Ok(()),
        done => done.map_err(unwritten)?,
    }
    File::open(copy::parent(path)?).and_then(|folder| folder.sync_all()).map_err(unwritten)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_file_is_0600_and_never_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        assert!(read(&folder).unwrap().is_none());
        assert!(create(&folder, "one\n").unwrap());
        assert!(!create(&folder, "two\n").unwrap());
        assert_eq!(read(&folder).unwrap().unwrap().as_slice(), b"one\n");
        let path = dir.path().join("secret.key");
        let mode = || std::fs::metadata(&path).unwrap().mode() & 0o777;
        assert_eq!(mode(), 0o600);
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert!(read(&folder).unwrap().is_some());
        assert_eq!(mode(), 0o600, "others' permissions are removed");
    }

    #[test]
    fn a_link_in_the_place_of_the_key_is_neither_read_nor_written_through() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        let (path, elsewhere) = (dir.path().join("secret.key"), dir.path().join("elsewhere"));
        std::fs::write(&elsewhere, "one\n").unwrap();
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        assert!(read(&folder).unwrap_err().to_string().contains("is a link"));
        assert!(!create(&folder, "two\n").unwrap());
        assert_eq!(std::fs::read(&elsewhere).unwrap(), b"one\n");
        std::fs::remove_file(&path).unwrap();
        assert!(create(&folder, "two\n").unwrap());
    }

    #[test]
    fn a_successor_takes_the_keys_place_with_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        let path = default_path(dir.path());
        create(&folder, "one\n").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        write_next(Some(&folder), &path, "two\n").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"one\n");
        assert_eq!(read_next(&path).unwrap().unwrap().as_slice(), b"two\n");
        replace_with_next(&path).unwrap();
        replace_with_next(&path).unwrap();
        assert_eq!((std::fs::read(&path).unwrap(), read_next(&path).unwrap()), (b"two\n".to_vec(), None));
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
    }
}
