//! Detects changes of the configuration file: written, replaced, or a symbolic link on its path changed. Directories
//! are watched instead of files, since a watch on a file does not notice that it is replaced.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher as _};
use parking_lot::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout;

/// An editor may write a file in several steps: it is read after this long without events.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// Maximum number of links followed to the file (path_resolution(7)).
const LINKS_MAX: usize = 40;

/// Watches one file.
pub(super) struct FileWatch {
    path: PathBuf,
    watcher: RecommendedWatcher,
    /// The file and every link on its path.
    paths: Arc<Mutex<BTreeSet<PathBuf>>>,
    directories: BTreeSet<PathBuf>,
    events: UnboundedReceiver<()>,
    content: Option<Vec<u8>>,
}

impl FileWatch {
    /// Starts with the file's present content; `None`, with a warning, if it cannot be watched.
    pub(super) fn start(path: &Path) -> Option<Self> {
        let (sender, events) = unbounded_channel();
        let paths = Arc::new(Mutex::new(BTreeSet::new()));
        let watched = paths.clone();
        let on_event = move |event: notify::Result<Event>| {
            // access is no change, and the gateway reads the file itself
            let is_relevant = |event: &Event| {
                let watched = watched.lock();
                !event.kind.is_access() && event.paths.iter().any(|path| watched.contains(path))
            };
            // an error may mean that an event was lost
            if event.as_ref().map_or(true, is_relevant) {
                let _ = sender.send(());
            }
        };
        let started = std::path::absolute(path).map_err(notify::Error::io).and_then(|path| {
            let watcher = notify::recommended_watcher(on_event)?;
            Ok(Self { path, watcher, paths, directories: BTreeSet::new(), events, content: None })
        });
        match started {
            Ok(mut watch) => {
                watch.refresh();
                Some(watch)
            }
            Err(error) => {
                tracing::warn!(%error, "configuration file watch failed: reload with SIGHUP");
                None
            }
        }
    }

    /// Waits until the file's content has changed. If the file is missing, waits until it is back.
    pub(super) async fn changed(&mut self) {
        loop {
            if self.events.recv().await.is_none() {
                std::future::pending::<()>().await;
            }
            while timeout(DEBOUNCE, self.events.recv()).await.is_ok_and(|event| event.is_some()) {}
            if self.refresh() {
                return;
            }
        }
    }

    /// Reads the file and updates the watched directories. Returns whether the content has changed.
    pub(super) fn refresh(&mut self) -> bool {
        let paths = paths_to(&self.path);
        let directories: BTreeSet<PathBuf> =
            paths.iter().filter_map(|path| Some(path.parent()?.to_path_buf())).collect();
        *self.paths.lock() = paths;
        for gone in self.directories.difference(&directories) {
            let _ = self.watcher.unwatch(gone);
        }
        // also those that are watched already: a directory may have been replaced by one of the same name
        self.directories = directories;
        for directory in &self.directories {
            let _ = self.watcher.unwatch(directory);
            if let Err(error) = self.watcher.watch(directory, RecursiveMode::NonRecursive) {
                tracing::warn!(folder = %directory.display(), %error, "directory watch failed");
            }
        }
        let Ok(content) = std::fs::read(&self.path) else { return false };
        let changed = self.content.as_ref() != Some(&content);
        self.content = Some(content);
        changed
    }
}

/// The file that a path resolves to, and every link on the way: a change of any of them is a change of the file.
fn paths_to(path: &Path) -> BTreeSet<PathBuf> {
    let mut paths = BTreeSet::new();
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
                paths.insert(next);
                left.extend(parts(&target));
            }
            _ => at = next,
        }
    }
    paths.insert(at);
    paths
}

/// The components of a path in reverse order; an absolute path includes the root.
fn parts(path: &Path) -> Vec<PathBuf> {
    let named = path.components().filter(|part| !matches!(part, Component::CurDir));
    let mut parts: Vec<PathBuf> = named.map(|part| PathBuf::from(part.as_os_str())).collect();
    parts.reverse();
    parts
}
