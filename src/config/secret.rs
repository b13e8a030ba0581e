//! Secrets: never in the file itself, always a reference to where they are kept.

use std::path::{Path, PathBuf};

use super::Secrets;
use super::file::{Item, Table};
use crate::secret::Secret;

impl<'t> Table<'t> {
    /// A secret: `{ file = "..." }`, `{ env = "..." }` or `{ credential = "..." }` (systemd). One line end
    /// behind it is no part of it.
    pub(super) fn secret(&self, key: &'static str) -> Option<Item<'t, Secret>> {
        const REMEDY: &str = "write { env = \"NAME\" }, { file = \"/path\" } or { credential = \"name\" }";
        let value = self.value(key)?;
        if value.get_ref().as_table().is_none() {
            let what = format!("`{key}` cannot stand in the configuration itself");
            self.reading.fault(value.span(), what, REMEDY);
            return None;
        }
        let table = self.table(key, "secret");
        let places = [table.text("file", "/path"), table.text("env", "NAME"), table.text("credential", "name")];
        let [file, env, credential] = &places;
        if places.iter().flatten().count() != 1 {
            self.reading.fault(value.span(), format!("`{key}` needs exactly one source"), REMEDY);
            return None;
        }
        if self.reading.secrets == Secrets::Left {
            return Some(self.item(Secret::new("-".repeat(64)), value.span()));
        }
        let read = match (file, env, credential) {
            (Some(path), ..) => read_secret(&self.reading.base.join(&path.value)),
            (_, Some(name), _) => (self.reading.env)(&name.value)
                .ok_or_else(|| format!("the environment variable {} is not set", name.value)),
            (.., Some(name)) if name.value.contains('/') => Err(format!("`{}` is no name of a credential", name.value)),
            (.., Some(name)) => (self.reading.env)("CREDENTIALS_DIRECTORY")
                .ok_or_else(|| "$CREDENTIALS_DIRECTORY is not set: there are no credentials".to_owned())
                .and_then(|folder| read_secret(&PathBuf::from(folder).join(&name.value))),
            _ => return None,
        };
        match read {
            Ok(text) => Some(self.item(Secret::new(text), value.span())),
            Err(what) => {
                self.reading.fault(
                    value.span(),
                    what,
                    "make the secret readable to this process, or name another source",
                );
                None
            }
        }
    }
}

fn read_secret(path: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
}
