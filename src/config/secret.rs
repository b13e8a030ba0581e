//! Secrets: never in the file itself, always a reference to where they are stored.

use std::ops::Range;
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

/// A secret that commands need as well: read even where others are not. Then the error is what is wrong, and not a fault.
/// `None`: a fault was reported.
pub(super) fn needed_secret(table: &Table<'_>, key: &'static str) -> Option<Result<Secret, String>> {
    let is_left = table.reading.secrets == Secrets::Left;
    let source = Source::typed(table, key)?;
    let read = source.place(table).and_then(|place| match place.open_to_others() {
        Some(what) if !is_left => Err((what, CLOSE.to_owned())),
        _ => place.read().map_err(|what| (what, UNREADABLE.to_owned())),
    });
    match read {
        Ok(secret) => Some(Ok(secret)),
        Err((what, _)) if is_left => Some(Err(what)),
        Err((what, remedy)) => {
            table.reading.fault(source.span, what, remedy);
            None
        }
    }
}

/// Where a secret is stored, for secrets that are read again at run time.
pub(super) fn secret_place<'t>(table: &Table<'t>, key: &'static str) -> Option<Item<'t, SecretPlace>> {
    let source = Source::typed(table, key)?;
    if table.reading.secrets == Secrets::Left {
        return Some(table.item(SecretPlace::Here(Secret::new("-".repeat(64))), source.span));
    }
    match source.place(table) {
        Ok(place) => Some(table.item(place, source.span)),
        Err((what, remedy)) => {
            table.reading.fault(source.span, what, remedy);
            None
        }
    }
}

/// A reference to a secret, as typed: exactly one of the three.
struct Source {
    file: Option<String>,
    env: Option<String>,
    credential: Option<String>,
    span: Range<usize>,
}

impl Source {
    fn typed(table: &Table<'_>, key: &'static str) -> Option<Self> {
        const REMEDY: &str = "use { env = \"NAME\" }, { file = \"/path\" } or { credential = \"name\" }";
        let value = table.value(key)?;
        let span = value.span();
        if value.get_ref().as_table().is_none() {
            table.reading.fault(span, format!("`{key}` cannot be written in the configuration itself"), REMEDY);
            return None;
        }
        let source = table.table(key, "secret");
        let text = |key, example| source.text(key, example).map(|text| text.value);
        let (file, env, credential) = (text("file", "/path"), text("env", "NAME"), text("credential", "name"));
        if [&file, &env, &credential].into_iter().flatten().count() != 1 {
            table.reading.fault(span, format!("`{key}` requires exactly one source"), REMEDY);
            return None;
        }
        Some(Self { file, env, credential, span })
    }

    /// The place; or what is wrong with it and the suggested fix.
    fn place(&self, table: &Table<'_>) -> Result<SecretPlace, (String, String)> {
        let unreadable = |what: String| (what, UNREADABLE.to_owned());
        if let Some(path) = &self.file {
            return Ok(SecretPlace::File(table.reading.base.join(path)));
        }
        if let Some(name) = &self.env {
            let value = (table.reading.env)(name).map(|text| SecretPlace::Here(Secret::new(text)));
            let remedy = || format!("set {name} for this process, or use another source");
            return value.ok_or_else(|| (format!("the environment variable {name} is not set"), remedy()));
        }
        let name = self.credential.as_deref().unwrap_or_default();
        if name.contains('/') {
            return Err(unreadable(format!("invalid credential name `{name}`")));
        }
        let folder = (table.reading.env)("CREDENTIALS_DIRECTORY");
        folder
            .map(|folder| SecretPlace::File(PathBuf::from(folder).join(name)))
            .ok_or_else(|| unreadable("$CREDENTIALS_DIRECTORY is not set: no credentials available".to_owned()))
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
