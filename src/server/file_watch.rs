//! Notices that the configuration file has changed: written, replaced by another one, or reached over a link that
//! points elsewhere now. What is watched is the folders, since a file that is replaced is another file.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher as _};
use parking_lot::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout;

/// Whoever writes a file may do so in several steps: it is read when nothing has moved for this long.
const QUIET: Duration = Duration::from_millis(50);
/// Links that are followed on the way to the file, at most (path_resolution(7)).
const LINKS_MAX: usize = 40;

/// Watches one file.
pub(super) struct FileWatch {
    path: PathBuf,
    watcher: RecommendedWatcher,
    /// The file and every link on the way to it.
    places: Arc<Mutex<BTreeSet<PathBuf>>>,
    folders: BTreeSet<PathBuf>,
    events: UnboundedReceiver<()>,
    seen: Option<Vec<u8>>,
}

impl FileWatch {
    /// Begins with the file as it is now; `None`, with a warning, where it cannot be watched.
    pub(super) fn start(path: &Path) -> Option<Self> {
        let (sender, events) = unbounded_channel();
        let places = Arc::new(Mutex::new(BTreeSet::new()));
        let of_interest = places.clone();
        let told = move |event: notify::Result<Event>| {
            // reading is no change, and we read
            let concerns = |event: &Event| {
                let places = of_interest.lock();
                !event.kind.is_access() && event.paths.iter().any(|path| places.contains(path))
            };
            // an error may mean that something was missed
            if event.as_ref().map_or(true, concerns) {
                let _ = sender.send(());
            }
        };
        let started = std::path::absolute(path).map_err(notify::Error::io).and_then(|path| {
            let watcher = notify::recommended_watcher(told)?;
            Ok(Self { path, watcher, places, folders: BTreeSet::new(), events, seen: None })
        });
        match started {
            Ok(mut watch) => {
                watch.look();
                Some(watch)
            }
            Err(error) => {
                tracing::warn!(%error, "configuration file watch failed: reload with SIGHUP");
                None
            }
        }
    }

    /// Waits until the file reads otherwise than before. One that is missing is waited for.
    pub(super) async fn changed(&mut self) {
        loop {
            if self.events.recv().await.is_none() {
                std::future::pending::<()>().await;
            }
            while timeout(QUIET, self.events.recv()).await.is_ok_and(|event| event.is_some()) {}
            if self.look() {
                return;
            }
        }
    }

    /// Reads the file, and finds out anew what is to be watched; whether it reads otherwise than before.
    pub(super) fn look(&mut self) -> bool {
        let places = places(&self.path);
        let folders: BTreeSet<PathBuf> =
            places.iter().filter_map(|place| Some(place.parent()?.to_path_buf())).collect();
        *self.places.lock() = places;
        for gone in self.folders.difference(&folders) {
            let _ = self.watcher.unwatch(gone);
        }
        // anew also what is watched already: a folder of the same name may be another one
        self.folders = folders;
        for folder in &self.folders {
            let _ = self.watcher.unwatch(folder);
            if let Err(error) = self.watcher.watch(folder, RecursiveMode::NonRecursive) {
                tracing::warn!(folder = %folder.display(), %error, "directory watch failed");
            }
        }
        let Ok(now) = std::fs::read(&self.path) else { return false };
        let changed = self.seen.as_ref() != Some(&now);
        self.seen = Some(now);
        changed
    }
}

/// The file that a path leads to, and every link on the way: a change of any of them is a change of the file.
fn places(path: &Path) -> BTreeSet<PathBuf> {
    let mut places = BTreeSet::new();
    let mut links = 0;
    let mut left: Vec<PathBuf> = parts(path);
    let mut at = PathBuf::new();
    while let Some(part) = left.pop() {
        if part.as_os_str() == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&part);
        match std::fs::read_link(&next) {
            Ok(target) if links < LINKS_MAX => {
                links += 1;
                places.insert(next);
                left.extend(parts(&target));
            }
            _ => at = next,
        }
    }
    places.insert(at);
    places
}

/// The components of a path, the last first; an absolute one begins at the root again.
fn parts(path: &Path) -> Vec<PathBuf> {
    let named = path.components().filter(|part| !matches!(part, Component::CurDir));
    let mut parts: Vec<PathBuf> = named.map(|part| PathBuf::from(part.as_os_str())).collect();
    parts.reverse();
    parts
}
