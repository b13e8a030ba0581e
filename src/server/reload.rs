//! Reloads the configuration atomically: everything that the new one needs is created and bound first, then it replaces
//! the old one. Requests in progress keep the configuration they started with.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use super::error::ServeError;
use super::file_watch::FileWatch;
use super::listen::Listening;
use super::tls::Certificates;
use super::workers::Workers;
use super::{admin, dns, whoami};
use crate::config::{self, Config, Faults};
use crate::logging::Log;
use crate::proxy::{Current, build_gateway};

/// Where the configuration is loaded from.
#[derive(Debug, Clone)]
pub struct Source {
    /// The file.
    pub path: PathBuf,
    /// `--state-dir`
    pub state_dir: Option<PathBuf>,
}

impl Source {
    /// Reads and validates it.
    pub fn load(&self) -> Result<Config, Faults> {
        config::load(&self.path, self.state_dir.as_deref(), config::Secrets::Read)
    }
}

/// The running server: everything that a reload changes.
pub(super) struct Server {
    /// `None` for `run --to`, which has no file.
    pub(super) source: Option<Source>,
    pub(super) watch: Option<FileWatch>,
    pub(super) current: Current,
    pub(super) listening: Listening,
    pub(super) admin: Listening,
    pub(super) admin_context: admin::AdminContext,
    pub(super) workers: Workers,
    pub(super) certificates: Arc<Certificates>,
    pub(super) whoami: Option<SocketAddr>,
    pub(super) log: Log,
}

/// Why a configuration was not applied.
enum ReloadError {
    Faults(Faults),
    Failed(String),
}

impl From<ServeError> for ReloadError {
    fn from(error: ServeError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl Server {
    /// Waits until the file has changed; forever if it is not watched.
    pub(super) async fn file_changed(&mut self) {
        loop {
            match &mut self.watch {
                Some(watch) => watch.changed().await,
                None => std::future::pending().await,
            }
            if self.current.gateway().config().server.watch {
                return;
            }
        }
    }

    /// Marks the file's present content as known, because it is about to be read for another reason.
    pub(super) fn mark_file_seen(&mut self) {
        if let Some(watch) = &mut self.watch {
            watch.refresh();
        }
    }

    /// Reads the file again and applies it, or logs why not. Returns the status text for the service manager.
    pub(super) async fn reload(&mut self) -> String {
        let Some(source) = self.source.clone() else {
            tracing::warn!("no configuration file to reload");
            return "no configuration file to reload".to_owned();
        };
        let shown = source.path.display().to_string();
        let applied = self.apply(source).await;
        self.current.gateway().reloaded(applied.is_ok());
        match applied {
            Ok(()) => {
                tracing::info!(file = shown, "configuration reloaded");
                format!("serving {shown}")
            }
            Err(error) => {
                self.report(&shown, &error);
                format!("{shown} was not reloaded: see the log")
            }
        }
    }

    /// Prepares everything that can fail, then replaces the old configuration.
    async fn apply(&mut self, source: Source) -> Result<(), ReloadError> {
        let loaded = tokio::task::spawn_blocking(move || source.load())
            .await
            .map_err(|error| ReloadError::Failed(error.to_string()))?;
        let mut config = loaded.map_err(ReloadError::Faults)?;
        let old = self.current.gateway();
        keep_restart_only_settings(old.config(), &mut config);
        if self.whoami.is_none() && whoami::is_used(&config) {
            self.whoami = Some(whoami::start().await?);
        }
        let listening = self.listening.prepare(&config.server.listen)?;
        let admin = self.admin.prepare(config.server.admin_listen.as_slice())?;
        let accounts =
            old.accounts().reconfigured(&config).await.map_err(|error| ReloadError::Failed(error.to_string()))?;
        let new = build_gateway::reconfigured(&old, Arc::new(config), accounts.clone(), self.whoami);
        if new.has_unknown_names() {
            dns::resolve(&new).await;
        }
        let settings_applied = tokio::task::spawn_blocking(move || accounts.apply_settings());
        settings_applied.await.map_err(|error| ReloadError::Failed(error.to_string()))?;
        self.certificates.replace(&new.config().server.tls);
        self.current.replace(&new);
        if new.accounts().apply_group_rules(new.config()).await.is_err() {
            tracing::error!(
                "groups of providers were not mapped again: the account store does not respond; reload once more"
            );
        }
        self.listening.change(listening, |socket, closed| self.workers.accept(socket, &closed)).await;
        self.admin.change(admin, |socket, closed| admin::start(socket, self.admin_context.clone(), closed)).await;
        new.prune_metrics();
        new.sweep();
        Ok(())
    }

    /// Logs each fault with its position, and the report that `check` would print.
    fn report(&self, file: &str, error: &ReloadError) {
        let faults = match error {
            ReloadError::Failed(why) => {
                return tracing::error!(file, why, "configuration not reloaded, previous one stays in use");
            }
            ReloadError::Faults(faults) => faults,
        };
        for fault in faults.list() {
            let (line, column) = faults.place(fault);
            tracing::error!(file, line, column, remedy = fault.remedy, "{}", fault.what);
        }
        let count = faults.list().len();
        let report = faults.render(false);
        if self.log.is_human() {
            self.log.line(|out| out.extend_from_slice(report.as_bytes()));
            tracing::error!(file, faults = count, "configuration not reloaded, previous one stays in use");
        } else {
            tracing::error!(file, faults = count, report, "configuration not reloaded, previous one stays in use");
        }
    }
}

/// Settings that need a restart keep their value.
fn keep_restart_only_settings(old: &Config, new: &mut Config) {
    let (was, is) = (&old.server.state_dir, &mut new.server.state_dir);
    if was != is {
        tracing::warn!(kept = %was.display(), "change of `state_dir` ignored until restart");
        is.clone_from(was);
    }
    let url = |config: &Config| config.store.as_ref().map(|store| store.url.clone());
    if url(old) != url(new) {
        let kept = url(old).map_or("SQLite in `state_dir`".to_owned(), |url| url.shown());
        tracing::warn!(kept, "change of `[store]` ignored until restart");
        let blind_max = new.store.as_ref().map(|store| store.blind_max);
        new.store.clone_from(&old.store);
        if let (Some(store), Some(blind_max)) = (&mut new.store, blind_max) {
            store.blind_max = blind_max;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn config(store: &str) -> Config {
        let text = format!(
            "[secrets]\nkey = {{ env = \"KEY\" }}\n[store]\n{store}\n[[route]]\nupstream = \"builtin:whoami\"\n"
        );
        let env = |name: &str| (name == "KEY").then(|| "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".to_owned());
        config::parse(&text, "gateway.toml", PathBuf::new(), &env).unwrap()
    }

    #[test]
    fn the_store_stays_until_restart_and_its_blind_max_does_not() {
        let old = config("url = \"postgres://u@h/d\"");
        let kept = old.store.clone().unwrap();
        for (line, blind_max_secs) in [
            ("url = \"postgres://u@h/other\"\nblind_max = \"0s\"", 0),
            ("url = \"postgres://u@h/d\"\nblind_max = \"1m\"", 60),
            ("url = \"postgres://u@h/d\"\ndanger_store_tls = \"require\"", 300),
            ("", 300),
        ] {
            let mut new = config(line);
            keep_restart_only_settings(&old, &mut new);
            let store = new.store.unwrap();
            assert_eq!((store.url, store.blind_max), (kept.url.clone(), Duration::from_secs(blind_max_secs)), "{line}");
        }
        let mut new = old.clone();
        keep_restart_only_settings(&config(""), &mut new);
        assert!(new.store.is_none(), "SQLite stays until restart as well");
    }
}
