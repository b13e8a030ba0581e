//! The state folder: 0700, its files 0600, all owned by the folder's owner even when root makes
//! them; one gateway at a time. Never widens what others may do: where root looks into the folder of a service, the
//! service must not lead it to files elsewhere, so no link is ever followed.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use rustix::fs::OFlags;

use super::StoreError;

/// The database's name in the state folder.
const DATABASE: &str = "authgate.db";
/// Held exclusively by the gateway that serves.
const LOCK: &str = "lock";
/// The last change that the serving gateway has in force, as decimal digits.
const APPLIED: &str = "applied";

/// No link is followed, and no pipe is waited for.
const NO_LINK: i32 = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).bits().cast_signed();
const LINK: &str = "is a link to a file elsewhere: what it leads to was left untouched; remove the link";

/// The state folder, made if it was missing and found to be closed to others.
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
    owner: (u32, u32),
}

/// Held for as long as a gateway serves from this folder; dropping it lets the next one in.
#[derive(Debug)]
pub struct Lock {
    _lock: File,
    applied: File,
}

fn unusable(path: &Path, what: &str) -> StoreError {
    StoreError::Unusable(format!("{}: {what}", path.display()))
}

impl Folder {
    /// Makes the folder (0700) if it is missing; refuses one that others can write.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(path).map_err(|error| {
            let what = "the state folder cannot be made";
            unusable(path, &format!("{what}: {error}; name another with server.state_dir or --state-dir"))
        })?;
        Self::judged(path)
    }

    /// The folder of a database that is there already; makes nothing.
    pub(super) fn existing(path: &Path) -> Result<Self, StoreError> {
        let database = path.join(DATABASE);
        if !std::fs::metadata(&database).is_ok_and(|about| about.len() > 0) {
            return Err(unusable(&database, "there is no database"));
        }
        Self::judged(path)
    }

    fn judged(path: &Path) -> Result<Self, StoreError> {
        let about = std::fs::metadata(path)
            .map_err(|error| unusable(path, &format!("the state folder cannot be read: {error}")))?;
        if about.mode() & 0o022 != 0 {
            return Err(unusable(path, "others can write to the state folder; run chmod 700 on it"));
        }
        Ok(Self { path: path.to_path_buf(), owner: (about.uid(), about.gid()) })
    }

    /// Where the database is.
    pub fn database(&self) -> PathBuf {
        self.path.join(DATABASE)
    }

    /// Device and number of the database's file.
    pub(super) fn database_id(&self) -> Result<(u64, u64), StoreError> {
        let at = self.database();
        let about = std::fs::symlink_metadata(&at)
            .map_err(|error| StoreError::Down(format!("{}: the database is gone: {error}", at.display())))?;
        Ok((about.dev(), about.ino()))
    }

    /// Opens a file of ours, 0600 and owned by the folder's owner; makes an empty one if missing.
    pub(super) fn file(&self, name: &str) -> Result<File, StoreError> {
        let path = self.path.join(name);
        let wrong = |error: std::io::Error| {
            let closed = error.kind() == std::io::ErrorKind::PermissionDenied;
            let next = if closed {
                format!("; run this as the folder's owner (uid {}) or as root", self.owner.0)
            } else {
                String::new()
            };
            unusable(&path, &format!("cannot be opened: {error}{next}"))
        };
        if std::fs::symlink_metadata(&path).is_ok_and(|about| about.is_symlink()) {
            return Err(unusable(&path, LINK));
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(NO_LINK)
            .open(&path)
            .map_err(wrong)?;
        let about = file.metadata().map_err(wrong)?;
        if !about.is_file() {
            return Err(unusable(&path, "is not a file"));
        }
        if about.nlink() > 1 && about.uid() != self.owner.0 {
            return Err(unusable(&path, LINK));
        }
        if about.mode() & 0o077 != 0 {
            let mut closed = about.permissions();
            closed.set_mode(0o600);
            file.set_permissions(closed).map_err(wrong)?;
        }
        self.hand_over(&file).map_err(wrong)?;
        Ok(file)
    }

    /// Makes a file the folder's owner's. Only root gets to change anything: its files must stay usable for
    /// the service's user.
    pub(super) fn hand_over(&self, file: &File) -> std::io::Result<()> {
        if file.metadata()?.uid() == self.owner.0 {
            return Ok(());
        }
        std::os::unix::fs::fchown(file, Some(self.owner.0), Some(self.owner.1))
    }

    /// A connection to the database that is there.
    pub(super) fn connect(&self, flags: OpenFlags) -> Result<Connection, rusqlite::Error> {
        // a link on the way to the folder is whoever named it's; SQLite tells none apart
        let folder = self.path.canonicalize().map_err(|_| rusqlite::Error::InvalidPath(self.path.clone()))?;
        let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        Connection::open_with_flags(folder.join(DATABASE), flags)
    }

    /// The file that the database lives in.
    pub(super) fn database_file(&self) -> Result<File, StoreError> {
        self.file(DATABASE)
    }

    /// Whether `SQLite` left a rollback journal beside the database, or a log beside an empty one.
    pub(super) fn leftover(&self, suffix: &str) -> bool {
        let path = self.path.join(format!("{DATABASE}{suffix}"));
        std::fs::metadata(path).is_ok_and(|about| about.len() > 0)
    }

    /// Claims the folder for a gateway that serves; refuses while another one does.
    pub fn lock(&self) -> Result<Lock, StoreError> {
        let lock = self.file(LOCK)?;
        // a command may hold it for an instant to see whether a gateway runs
        for _ in 0..25 {
            if lock.try_lock().is_ok() {
                return Ok(Lock { _lock: lock, applied: self.file(APPLIED)? });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(unusable(&self.path, "another authgate serves from this state folder"))
    }

    /// Whether a gateway serves from this folder right now.
    pub fn is_served(&self) -> Result<bool, StoreError> {
        let lock = self.file(LOCK)?;
        Ok(lock.try_lock_shared().is_err())
    }

    /// The last change that the serving gateway has in force; 0 if it never said.
    pub(super) fn applied(&self) -> u64 {
        let mut text = String::new();
        let read = OpenOptions::new().read(true).custom_flags(NO_LINK).open(self.path.join(APPLIED));
        let read = read.and_then(|file| file.take(64).read_to_string(&mut text));
        read.ok().and_then(|_| text.trim().parse().ok()).unwrap_or(0)
    }
}

impl Lock {
    /// Tells waiting commands which changes are in force. Not flushed: it matters to living
    /// processes alone.
    pub(super) fn tell_applied(&self, rev: u64) -> std::io::Result<()> {
        self.applied.write_all_at(format!("{rev:020}\n").as_bytes(), 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folder_is_0700_and_files_0600() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let folder = Folder::open(&path).unwrap();
        folder.file("x").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        assert_eq!(std::fs::metadata(path.join("x")).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_folder_that_others_can_write_is_refused_and_a_readable_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let mode = |bits| std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(bits)).unwrap();
        mode(0o777);
        let refused = Folder::open(dir.path()).unwrap_err().to_string();
        assert_eq!(
            refused,
            format!("{}: others can write to the state folder; run chmod 700 on it", dir.path().display())
        );
        mode(0o755);
        assert!(Folder::open(dir.path()).is_ok());
    }

    #[test]
    fn two_gateways_cannot_serve_from_one_folder() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(&dir.path().join("state")).unwrap();
        assert_eq!(folder.is_served(), Ok(false));
        let lock = folder.lock().unwrap();
        assert_eq!(folder.is_served(), Ok(true));
        assert!(folder.lock().is_err());
        drop(lock);
        assert!(folder.lock().is_ok());
    }

    #[test]
    fn files_belong_to_the_folders_owner_when_root_makes_them() {
        let dir = tempfile::tempdir().unwrap();
        if std::os::unix::fs::chown(dir.path(), Some(65534), Some(65534)).is_err() {
            return; // not root: nothing to prove
        }
        let mut db = super::super::Db::open(dir.path(), super::super::Check::Version).unwrap();
        db.purge(0, 0).unwrap();
        for name in ["authgate.db", "authgate.db-wal", "authgate.db-shm"] {
            let about = std::fs::metadata(dir.path().join(name)).unwrap();
            assert_eq!((name, about.uid(), about.mode() & 0o777), (name, 65534, 0o600));
        }
    }
}
