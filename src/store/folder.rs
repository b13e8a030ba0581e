//! The state folder: 0700, its files 0600, all owned by the folder's owner even if root creates them; used by one
//! gateway at a time. Never widens permissions, and never follows a link: a service must not redirect root to files
//! elsewhere.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Error, ErrorKind, Read};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use rustix::fs::OFlags;

use super::error::StoreError;

/// How long a write waits for another process's transaction.
pub(super) const BUSY: Duration = Duration::from_secs(2);

/// The database's name in the state folder.
const DATABASE: &str = "authgate.db";
/// Locked exclusively by the running gateway.
const LOCK: &str = "lock";
/// The last change that the running gateway has applied, in decimal digits.
const APPLIED: &str = "applied";

/// Reserved space, released for what must be written on a full disk.
const RESERVE: &str = "reserve";
const RESERVE_BYTES: usize = 1 << 20;

/// Does not follow links or wait for pipes.
pub(super) const NO_LINK: i32 = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).bits().cast_signed();
pub(super) const LINK: &str = "is a link to another file, which was left untouched; remove the link";

/// The state folder, created if missing and verified to be closed to others.
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
    owner: (u32, u32),
    /// It is group-writable, and this process is in the group.
    shared: bool,
}

/// The files whose locks show that a gateway is running. The database is one of them, so that removing `lock` has no
/// effect.
/// Never closed before the connection: that would release `SQLite`'s own locks (fcntl(2)).
#[derive(Debug)]
pub(super) struct Claim {
    lock: File,
    database: File,
}

/// Held while a gateway uses this folder; dropping it lets the next one start.
#[derive(Debug)]
pub struct Lock {
    claim: Claim,
    path: PathBuf,
    applied: File,
}

pub(super) fn unusable(path: &Path, what: &str) -> StoreError {
    StoreError::Unusable(format!("{}: {what}", path.display()))
}

/// What a file system error means here, and what to do.
pub(super) fn fault(error: &Error, owner: Option<u32>) -> String {
    match error.kind() {
        ErrorKind::PermissionDenied => match owner.map(user_name) {
            Some(name) => format!(
                "permission denied: it belongs to {name}; run this as that user (sudo -u {name} authgate ...) or as root"
            ),
            None => "permission denied; run this as the owner of the state directory or as root".to_owned(),
        },
        ErrorKind::ReadOnlyFilesystem => {
            format!(
                "{error}; the gateway must be able to write there: set another directory with server.state_dir or --state-dir"
            )
        }
        ErrorKind::StorageFull => format!("{error}; free some space"),
        _ => error.to_string(),
    }
}

/// In the syntax of `sudo -u`.
fn user_name(uid: u32) -> String {
    let known = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = known.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| format!("'#{uid}'"))
}

fn is_own_group(gid: u32) -> bool {
    let others = rustix::process::getgroups().unwrap_or_default();
    others.into_iter().chain([rustix::process::getegid()]).any(|own| own.as_raw() == gid)
}

/// Where the database of a state folder is.
pub(super) fn database_of(state_dir: &Path) -> PathBuf {
    state_dir.join(DATABASE)
}

/// Whether there is a database; creates nothing.
///
/// # Errors
/// Unknown, for example without access to the folder.
pub fn has_database(state_dir: &Path) -> Result<bool, StoreError> {
    match std::fs::metadata(state_dir.join(DATABASE)) {
        Ok(about) => Ok(about.len() > 0),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => {
            let owner = std::fs::metadata(state_dir).ok().map(|about| about.uid());
            Err(unusable(state_dir, &fault(&error, owner)))
        }
    }
}

impl Folder {
    /// Creates the folder (0700) if missing; rejects one that others can write to.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(path).map_err(|error| {
            let what = "cannot create the state directory";
            unusable(path, &format!("{what}: {error}; set another with server.state_dir or --state-dir"))
        })?;
        Self::judged(path)
    }

    /// The folder of an existing database; creates nothing.
    pub fn existing(path: &Path) -> Result<Self, StoreError> {
        if !has_database(path)? {
            let what = "no database: start the gateway, or set its state directory with --state-dir DIR";
            return Err(unusable(&path.join(DATABASE), what));
        }
        Self::judged(path)
    }

    fn judged(path: &Path) -> Result<Self, StoreError> {
        let about = std::fs::metadata(path)
            .map_err(|error| unusable(path, &format!("cannot read the state directory: {}", fault(&error, None))))?;
        // a Kubernetes volume belongs to root and is writable by the process's group (fsGroup)
        let shared = about.mode() & 0o020 != 0;
        if about.mode() & 0o002 != 0 || (shared && !is_own_group(about.gid())) {
            return Err(unusable(path, "the state directory is writable by others; run chmod 700 on it"));
        }
        let database = std::fs::symlink_metadata(path.join(DATABASE)).ok();
        let owner = match database.filter(|database| shared && database.is_file()) {
            Some(database) => (database.uid(), database.gid()),
            None => (about.uid(), about.gid()),
        };
        Ok(Self { path: path.to_path_buf(), owner, shared })
    }

    /// Whether its group may write to it.
    pub fn is_shared(&self) -> bool {
        self.shared
    }

    /// Where the database is.
    pub fn database(&self) -> PathBuf {
        self.path.join(DATABASE)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Device and inode number of the database file.
    pub(super) fn database_id(&self) -> Result<(u64, u64), StoreError> {
        let at = self.database();
        let about = std::fs::symlink_metadata(&at)
            .map_err(|error| StoreError::Down(format!("{}: the database file is missing: {error}", at.display())))?;
        Ok((about.dev(), about.ino()))
    }

    /// Opens one of our files, 0600 and owned by the folder's owner; creates an empty one if missing.
    pub(super) fn file(&self, name: &str) -> Result<File, StoreError> {
        let path = self.path.join(name);
        let wrong = |error: Error| {
            let own = std::fs::symlink_metadata(&path).ok().map(|about| about.uid());
            let next = match own.filter(|uid| *uid != self.owner.0 && error.kind() == ErrorKind::PermissionDenied) {
                Some(own) => format!(
                    "{error}: it belongs to {}, the directory to {owner}; run chown {owner} on it",
                    user_name(own),
                    owner = user_name(self.owner.0)
                ),
                None => fault(&error, Some(self.owner.0)),
            };
            unusable(&path, &format!("cannot be opened: {next}"))
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
        self.close(&file).map_err(wrong)?;
        self.hand_over(&file).map_err(wrong)?;
        Ok(file)
    }

    /// Removes other users' permissions from one of our files. In a shared folder it may belong to another user of
    /// this process's group.
    pub(super) fn close(&self, file: &File) -> std::io::Result<()> {
        let about = file.metadata()?;
        let others_own = self.shared && !is_root() && about.uid() != rustix::process::geteuid().as_raw();
        let open = about.mode() & if others_own { 0o007 } else { 0o077 };
        if open == 0 {
            return Ok(());
        }
        file.set_permissions(std::fs::Permissions::from_mode(0o600))
    }

    /// Gives a file to the folder's owner. Only has an effect for root, whose files must stay usable for the
    /// service's user.
    pub(super) fn hand_over(&self, file: &File) -> std::io::Result<()> {
        if file.metadata()?.uid() == self.owner.0 || (self.shared && !is_root()) {
            return Ok(());
        }
        std::os::unix::fs::fchown(file, Some(self.owner.0), Some(self.owner.1))
    }

    /// Reserves space, if there is any.
    pub fn keep_reserve(&self) {
        let kept = self.file(RESERVE).and_then(|file| {
            let is_whole = file.metadata().is_ok_and(|about| about.len() == RESERVE_BYTES as u64);
            // written, not only extended: a sparse file reserves nothing
            let filled = if is_whole { Ok(()) } else { file.write_all_at(&vec![0; RESERVE_BYTES], 0) };
            filled.map_err(|error| unusable(&self.path.join(RESERVE), &error.to_string()))
        });
        if kept.is_err() {
            self.free_reserve();
        }
    }

    /// Releases the reserve; `false`: there was none.
    pub(super) fn free_reserve(&self) -> bool {
        std::fs::remove_file(self.path.join(RESERVE)).is_ok()
    }

    /// A connection to the existing database.
    pub(super) fn connect(&self, flags: OpenFlags) -> Result<Connection, rusqlite::Error> {
        // links in the folder's own path were chosen by the caller; SQLite cannot distinguish them
        let folder = self.path.canonicalize().map_err(|_| rusqlite::Error::InvalidPath(self.path.clone()))?;
        let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        Connection::open_with_flags(folder.join(DATABASE), flags)
    }

    /// The database's file.
    pub(super) fn database_file(&self) -> Result<File, StoreError> {
        self.file(DATABASE)
    }

    /// Whether `SQLite` left a rollback journal beside the database, or a log beside an empty one.
    pub(super) fn leftover(&self, suffix: &str) -> bool {
        let path = self.path.join(format!("{DATABASE}{suffix}"));
        std::fs::metadata(path).is_ok_and(|about| about.len() > 0)
    }

    /// The files to lock, not locked yet.
    pub(super) fn claim(&self) -> Result<Claim, StoreError> {
        Ok(Claim { lock: self.file(LOCK)?, database: self.file(DATABASE)? })
    }

    /// Claims the folder for a running gateway; fails while another one is running.
    pub fn lock(&self) -> Result<Lock, StoreError> {
        let claim = self.claim()?;
        // a command may briefly hold it to check whether a gateway is running
        for _ in 0..25 {
            if claim.take().map_err(|error| self.unlockable(&error))? {
                claim.sign().map_err(|error| unusable(&self.path.join(LOCK), &fault(&error, Some(self.owner.0))))?;
                return Ok(Lock { claim, path: self.database(), applied: self.file(APPLIED)? });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(self.taken(&claim))
    }

    /// Whether a gateway is using this folder now.
    pub fn is_served(&self) -> Result<bool, StoreError> {
        self.is_claimed(&self.claim()?)
    }

    /// The same, with open files.
    pub(super) fn is_claimed(&self, claim: &Claim) -> Result<bool, StoreError> {
        claim.is_taken().map_err(|error| self.unlockable(&error))
    }

    pub(super) fn unlockable(&self, error: &Error) -> StoreError {
        let what = "cannot lock the state directory, so two gateways could use it";
        unusable(
            &self.path,
            &format!("{what}: {error}; it must be on a file system with locking, such as a local disk"),
        )
    }

    pub(super) fn taken(&self, claim: &Claim) -> StoreError {
        let process = claim.holder().map_or(String::new(), |pid| format!(" (process {pid})"));
        unusable(&self.path, &format!("another authgate{process} is using this state directory; stop it first"))
    }

    /// The last change that the running gateway has applied; 0 if unknown.
    pub(super) fn applied(&self) -> u64 {
        let mut text = String::new();
        let read = OpenOptions::new().read(true).custom_flags(NO_LINK).open(self.path.join(APPLIED));
        let read = read.and_then(|file| file.take(64).read_to_string(&mut text));
        read.ok().and_then(|_| text.trim().parse().ok()).unwrap_or(0)
    }
}

impl Claim {
    /// Locks both files; `false`: another process has. A file system without locks is an error.
    pub(super) fn take(&self) -> std::io::Result<bool> {
        locked(self.lock.try_lock()).and_then(|lock| if lock { locked(self.database.try_lock()) } else { Ok(false) })
    }

    /// Unlocks both.
    pub(super) fn release(&self) -> std::io::Result<()> {
        self.database.unlock().and(self.lock.unlock())
    }

    fn is_taken(&self) -> std::io::Result<bool> {
        let free = locked(self.lock.try_lock_shared())? && locked(self.database.try_lock_shared())?;
        self.release()?;
        Ok(!free)
    }

    /// Writes the process id, for others that find the folder claimed.
    fn sign(&self) -> std::io::Result<()> {
        self.lock.set_len(0)?;
        self.lock.write_all_at(format!("{}\n", std::process::id()).as_bytes(), 0)
    }

    fn holder(&self) -> Option<u32> {
        let mut text = [0; 16];
        let read = self.lock.read_at(&mut text, 0).ok()?;
        std::str::from_utf8(&text[..read]).ok()?.trim().parse().ok()
    }
}

fn locked(outcome: Result<(), TryLockError>) -> std::io::Result<bool> {
    match outcome {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

impl Lock {
    /// Whether the file still begins like a database in use; a backup copied over it does not, and the log would be
    /// written into it.
    pub(super) fn is_whole(&self) -> Result<(), StoreError> {
        let mut head = [0; 20];
        let read = self.claim.database.read_exact_at(&mut head, 0);
        if read.is_ok() && head.starts_with(b"SQLite format 3\0") && head.ends_with(&[2, 2]) {
            return Ok(());
        }
        let what =
            "the file was overwritten while in use: stop the gateway, then restore a backup with authgate restore FILE";
        Err(StoreError::Down(format!("{}: {what}", self.path.display())))
    }

    /// Tells waiting commands which changes have been applied. Not flushed, because it only matters to running
    /// processes.
    pub(super) fn tell_applied(&self, rev: u64) -> std::io::Result<()> {
        self.applied.write_all_at(format!("{rev:020}\n").as_bytes(), 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::purge;

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
            format!("{}: the state directory is writable by others; run chmod 700 on it", dir.path().display())
        );
        mode(0o755);
        assert!(Folder::open(dir.path()).is_ok());
    }

    /// As `fsGroup` of Kubernetes leaves a volume: root's, its group's to write, and this process of that group.
    #[test]
    fn a_folder_that_only_our_own_group_can_write_is_used_and_what_is_ours_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let mode = |path: &Path, bits| std::fs::set_permissions(path, std::fs::Permissions::from_mode(bits)).unwrap();
        for bits in [0o2770, 0o2775] {
            mode(dir.path(), bits);
            let folder = Folder::open(dir.path()).unwrap();
            assert!(folder.is_shared());
            folder.file("x").unwrap();
            mode(&dir.path().join("x"), 0o660);
            folder.file("x").unwrap();
            assert_eq!(std::fs::metadata(dir.path().join("x")).unwrap().mode() & 0o777, 0o600);
        }
        mode(dir.path(), 0o2777);
        assert!(Folder::open(dir.path()).is_err());
        mode(dir.path(), 0o2770);
        // root's own group is not this one
        if std::os::unix::fs::chown(dir.path(), None, Some(61_234)).is_ok() {
            assert!(Folder::open(dir.path()).is_err());
        }
    }

    /// To remove it is what people try who are told that another gateway serves.
    #[test]
    fn a_second_gateway_does_not_start_where_the_file_lock_was_removed() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        let lock = folder.lock().unwrap();
        std::fs::remove_file(dir.path().join(LOCK)).unwrap();
        assert!(folder.lock().is_err());
        assert!(folder.is_served() == Ok(true));
        drop(lock);
        assert!(folder.lock().is_ok());
    }

    #[test]
    fn the_process_that_serves_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        let _lock = folder.lock().unwrap();
        let refused = folder.lock().unwrap_err().to_string();
        let pid = std::process::id();
        assert!(
            refused.contains(&format!("another authgate (process {pid}) is using this state directory")),
            "{refused}"
        );
    }

    #[test]
    fn a_fault_is_reported_with_what_to_do_next() {
        let told = |kind: ErrorKind| fault(&Error::from(kind), Some(0));
        assert!(told(ErrorKind::PermissionDenied).contains("permission denied: it belongs to root; "));
        assert!(told(ErrorKind::PermissionDenied).contains("sudo -u root"));
        assert!(told(ErrorKind::ReadOnlyFilesystem).contains("server.state_dir"));
        assert_eq!(told(ErrorKind::TimedOut), "timed out");
        assert_eq!(user_name(61_234), "'#61234'");
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
        purge::expired_rows(&mut db, 0, 0).unwrap();
        for name in ["authgate.db", "authgate.db-wal", "authgate.db-shm"] {
            let about = std::fs::metadata(dir.path().join(name)).unwrap();
            assert_eq!((name, about.uid(), about.mode() & 0o777), (name, 65534, 0o600));
        }
    }
}
