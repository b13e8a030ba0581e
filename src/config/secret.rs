//! Secrets: never in the file itself, always a reference to where they are stored.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::file::{Item, Secrets, Table};
use crate::secret::Secret;

/// Where a secret is stored.
#[derive(Debug, Clone)]
pub enum SecretPlace {
    /// In a separate file, which may change.
    File(PathBuf),
    /// Already loaded.
    Here(Secret),
}

impl SecretPlace {
    /// Reads it; an error is one line for people.
    pub fn read(&self) -> Result<Secret, String> {
        match self {
            Self::File(path) => read_secret(path).map(Secret::new),
            Self::Here(secret) => Ok(secret.clone()),
        }
    }

    /// One line for people if everyone can read or write the file, or its group can write it.
    pub fn open_to_others(&self) -> Option<String> {
        let Self::File(path) = self else { return None };
        let mode = std::fs::metadata(path).ok()?.permissions().mode() & 0o777;
        let how = match mode {
            _ if mode & 0o007 != 0 => "is readable or writable by everyone",
            _ if mode & 0o020 != 0 => "is writable by its group",
            _ => return None,
        };
        Some(format!("{} {how} (mode {mode:03o})", path.display()))
    }
}

/// The suggested fix for that.
pub(super) const CLOSE: &str = "restrict it to its owner: `chmod 600`, or 640 for a group that may read it";

const UNREADABLE: &str = "make the secret readable for this process, or use another source";

/// A secret: `{ file = "..." }`, `{ env = "..." }` or `{ credential = "..." }` (systemd). One trailing line end is
/// stripped.
pub(super) fn secret<'t>(table: &Table<'t>, key: &'static str) -> Option<Item<'t, Secret>> {
    let place = secret_place(table, key)?;
    if let Some(what) = place.value.open_to_others() {
        place.fault(what, CLOSE);
        return None;
    }
    match place.value.read() {
        Ok(secret) => Some(table.item(secret, place.span)),
        Err(what) => {
            place.fault(what, UNREADABLE);
            None
        }
    }
}

/// Where a secret is stored, for secrets that are read again at run time.
pub(super) fn secret_place<'t>(table: &Table<'t>, key: &'static str) -> Option<Item<'t, SecretPlace>> {
    const REMEDY: &str = "use { env = \"NAME\" }, { file = \"/path\" } or { credential = \"name\" }";
    let value = table.value(key)?;
    if value.get_ref().as_table().is_none() {
        let what = format!("`{key}` cannot be written in the configuration itself");
        table.reading.fault(value.span(), what, REMEDY);
        return None;
    }
    let source = table.table(key, "secret");
    let places = [source.text("file", "/path"), source.text("env", "NAME"), source.text("credential", "name")];
    let [file, env, credential] = &places;
    if places.iter().flatten().count() != 1 {
        table.reading.fault(value.span(), format!("`{key}` requires exactly one source"), REMEDY);
        return None;
    }
    if table.reading.secrets == Secrets::Left {
        return Some(table.item(SecretPlace::Here(Secret::new("-".repeat(64))), value.span()));
    }
    let place = match (file, env, credential) {
        (Some(path), ..) => Ok(SecretPlace::File(table.reading.base.join(&path.value))),
        (_, Some(name), _) => (table.reading.env)(&name.value)
            .map(|text| SecretPlace::Here(Secret::new(text)))
            .ok_or_else(|| format!("the environment variable {} is not set", name.value)),
        (.., Some(name)) if name.value.contains('/') => Err(format!("invalid credential name `{}`", name.value)),
        (.., Some(name)) => (table.reading.env)("CREDENTIALS_DIRECTORY")
            .map(|folder| SecretPlace::File(PathBuf::from(folder).join(&name.value)))
            .ok_or_else(|| "$CREDENTIALS_DIRECTORY is not set: no credentials available".to_owned()),
        _ => return None,
    };
    match place {
        Ok(place) => Some(table.item(place, value.span())),
        Err(what) => {
            let remedy = match env {
                Some(name) => format!("set {} for this process, or use another source", name.value),
                None => UNREADABLE.to_owned(),
            };
            table.reading.fault(value.span(), what, remedy);
            None
        }
    }
}

fn read_secret(path: &Path) -> Result<String, String> {
    let unread = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    // opening a pipe without a writer would block startup
    if !std::fs::metadata(path).map_err(unread)?.is_file() {
        return Err(format!("cannot read {}: it is not a file", path.display()));
    }
    let text = std::fs::read_to_string(path).map_err(unread)?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
}
