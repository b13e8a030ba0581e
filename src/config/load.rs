//! Loads the configuration file. Nothing is created.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use toml::de::DeTable;

use super::fault::Faults;
use super::file::{self, Secrets};
use super::parse::judge;
use super::salvage;
use super::settings::Config;
use super::store::StoreConfig;

/// Reads and validates a file. `state_dir` overrides the file's setting. Nothing is created.
pub fn load(path: &Path, state_dir: Option<&Path>, secrets: Secrets) -> Result<Config, Faults> {
    let shown = path.display().to_string();
    let text = String::from_utf8(read(path)?)
        .map_err(|_| Faults::of_file(&shown, format!("{shown} is not UTF-8"), "save the file as UTF-8"))?;
    let (config, faults) = judge(&text, &shown, reading(path, secrets));
    if faults.list().is_empty() { Ok(laid_over(config, state_dir)) } else { Err(faults) }
}

/// Like [`load`], for commands that must work with a broken file: returns what could be read, and the faults.
///
/// # Errors
/// The file cannot be read at all.
pub fn load_broken(
    path: &Path,
    state_dir: Option<&Path>,
    secrets: Secrets,
) -> Result<(Config, Option<Faults>), Faults> {
    let shown = path.display().to_string();
    let text = String::from_utf8_lossy(&read(path)?).into_owned();
    let (mut config, faults) = judge(&text, &shown, reading(path, secrets));
    if !DeTable::parse_recoverable(&text).1.is_empty() {
        // the parser reads nothing after an unclosed bracket
        let lines: String = salvage::lines(&text).fold("[server]\n".to_owned(), |all, line| all + line + "\n");
        let (salvaged, _) = judge(&lines, &shown, reading(path, secrets));
        config.server = salvaged.server;
        if config.store.is_none() && salvage::names(&text, "store") {
            let why = format!("`[store]` cannot be read: {shown} is not valid TOML");
            config.store = Some(StoreConfig::unreadable(why, Duration::ZERO));
        }
    }
    let faults = (!faults.list().is_empty()).then_some(faults);
    Ok((laid_over(config, state_dir), faults))
}

fn read(path: &Path) -> Result<Vec<u8>, Faults> {
    let shown = path.display().to_string();
    std::fs::read(path).map_err(|error| {
        let (what, remedy) = match error.kind() {
            ErrorKind::PermissionDenied => {
                (String::new(), "run this as the file's owner, as a member of its group, or as root")
            }
            ErrorKind::NotFound if path == Path::new("gateway.toml") => {
                let here = std::env::current_dir().unwrap_or_default();
                let what = format!("there is no gateway.toml in {}, and no /etc/authgate/gateway.toml", here.display());
                (what, "set the file with --config FILE, or start with --to URL")
            }
            _ => (String::new(), "set the file with --config FILE, or start with --to URL"),
        };
        let what = if what.is_empty() { format!("cannot read {shown}: {error}") } else { what };
        Faults::of_file(&shown, what, remedy)
    })
}

fn reading<'e>(path: &Path, secrets: Secrets) -> file::Reading<'e> {
    const ENV: &dyn Fn(&str) -> Option<String> = &|name| std::env::var(name).ok();
    file::Reading::new(ENV, path.parent().unwrap_or(Path::new("")).to_path_buf(), secrets)
}

fn laid_over(mut config: Config, state_dir: Option<&Path>) -> Config {
    if let Some(state_dir) = state_dir {
        state_dir.clone_into(&mut config.server.state_dir);
    }
    config
}
