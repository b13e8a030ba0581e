//! `[secrets] key`: location of the sealing key. Read on demand rather than with the file, since most commands do not
//! need it.

use std::path::PathBuf;

use zeroize::Zeroizing;

use super::file::{Item, Secrets, Table};
use super::secret::{CLOSE, SecretPlace};
use crate::sealing::SealingKey;
use crate::secret::Secret;

/// Largest file, in bytes; a key has at most 65.
const FILE_BYTES_MAX: u64 = 4096;
const REMEDY: &str = "make one with `openssl rand -base64 32`";

/// Location of the sealing key.
#[derive(Debug, Clone)]
pub enum SealingKeyPlace {
    /// A file.
    File(PathBuf),
    /// A systemd credential of this name, and the credentials directory if this process has one.
    Credential(String, Option<PathBuf>),
    /// An environment variable of this name, and its value if set.
    Env(String, Option<Secret>),
}

impl SealingKeyPlace {
    /// Name for messages.
    pub fn shown(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Credential(name, _) => format!("the credential {name}"),
            Self::Env(name, _) => format!("the environment variable {name}"),
        }
    }

    /// The file, unless the key comes from elsewhere.
    pub fn own_file(&self) -> Option<PathBuf> {
        if let Self::File(path) = self { Some(path.clone()) } else { None }
    }

    /// The raw content.
    ///
    /// # Errors
    /// One line, without the location.
    pub fn read(&self) -> Result<Zeroizing<Vec<u8>>, String> {
        use std::io::Read;
        let path = match self {
            Self::File(path) => path.clone(),
            Self::Credential(name, Some(folder)) => folder.join(name),
            Self::Credential(_, None) => {
                return Err("$CREDENTIALS_DIRECTORY is not set: no credentials available".to_owned());
            }
            Self::Env(_, value) => {
                let value = value.as_ref().ok_or("it is not set")?;
                return Ok(Zeroizing::new(value.expose().as_bytes().to_vec()));
            }
        };
        let unread = |error: std::io::Error| format!("cannot be read: {error}");
        // opening a pipe without a writer would block startup
        if !std::fs::metadata(&path).map_err(unread)?.is_file() {
            return Err("is not a file".to_owned());
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(128));
        std::fs::File::open(&path)
            .and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes))
            .map_err(unread)?;
        Ok(bytes)
    }
}

/// Location of the key; `None`: a file in the state directory.
pub(super) fn sealing_key(table: &Table<'_>) -> Option<SealingKeyPlace> {
    const SOURCES: &str = "use { file = \"/path\" }, { env = \"NAME\" } or { credential = \"name\" }";
    let value = table.value("key")?;
    let Some(typed) = value.get_ref().as_table() else {
        table.reading.fault(value.span(), "`key` cannot be written in the configuration itself", SOURCES);
        return None;
    };
    if typed.is_empty() {
        return None;
    }
    let source = table.table("key", "secret");
    let places = [source.text("file", "/path"), source.text("env", "NAME"), source.text("credential", "name")];
    if places.iter().flatten().count() != 1 {
        table.reading.fault(value.span(), "`key` requires exactly one source", SOURCES);
        return None;
    }
    let env = |name: &str| (table.reading.env)(name);
    let place = match places {
        [Some(path), ..] => SealingKeyPlace::File(table.reading.base.join(path.value)),
        [_, Some(name), _] => {
            let value = env(&name.value).map(Secret::new);
            SealingKeyPlace::Env(name.value, value)
        }
        [.., Some(name)] if name.value.contains('/') => {
            name.fault(format!("invalid credential name `{}`", name.value), "use the name in LoadCredential=");
            return None;
        }
        [.., Some(name)] => SealingKeyPlace::Credential(name.value, env("CREDENTIALS_DIRECTORY").map(PathBuf::from)),
        _ => return None,
    };
    let item = table.item(place, value.span());
    if table.reading.secrets == Secrets::Read { judged(item) } else { Some(item.value) }
}

fn judged(item: Item<'_, SealingKeyPlace>) -> Option<SealingKeyPlace> {
    if let Err(why) = item.value.read().and_then(|bytes| SealingKey::parse(&bytes).map_err(str::to_owned)) {
        item.fault(format!("{}: {why}", item.value.shown()), REMEDY);
        return None;
    }
    let open = item.value.own_file().and_then(|path| SecretPlace::File(path).open_to_others());
    if let Some(what) = open {
        item.fault(what, CLOSE);
        return None;
    }
    Some(item.value)
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    fn place(line: &str, dir: &std::path::Path) -> Result<Option<SealingKeyPlace>, String> {
        let text = format!("[secrets]\n{line}\n[[route]]\nupstream = \"builtin:whoami\"\n");
        let env = |name: &str| match name {
            "KEY" => Some(KEY.to_owned()),
            "SHORT" => Some("short".to_owned()),
            "CREDENTIALS_DIRECTORY" => Some(dir.display().to_string()),
            _ => None,
        };
        let parsed = parse(&text, "gateway.toml", dir.to_path_buf(), &env);
        parsed.map(|config| config.sealing_key).map_err(|faults| faults.render(false))
    }

    #[test]
    fn the_sealing_key_comes_from_one_of_three_places_or_is_a_fault() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, KEY).unwrap();
        let mode = |mode| {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        mode(0o600);
        for default in ["", "key = {}"] {
            assert!(place(default, dir.path()).unwrap().is_none());
        }
        for good in ["key = { file = \"key\" }", "key = { env = \"KEY\" }", "key = { credential = \"key\" }"] {
            let place = place(good, dir.path()).unwrap().unwrap();
            assert!(SealingKey::parse(&place.read().unwrap()).is_ok(), "{good}");
        }
        for (wrong, said) in [
            ("key = \"secret\"", "cannot be written in the configuration itself"),
            ("key = { env = \"KEY\", file = \"key\" }", "requires exactly one source"),
            ("key = { file = \"missing\" }", "cannot be read"),
            ("key = { file = \".\" }", "is not a file"),
            ("key = { env = \"MISSING\" }", "it is not set"),
            ("key = { env = \"SHORT\" }", "expected 32 random bytes"),
            ("key = { credential = \"a/b\" }", "invalid credential name"),
            ("keys = { env = \"KEY\" }", "did you mean"),
        ] {
            let faults = place(wrong, dir.path()).unwrap_err();
            assert!(faults.contains(said), "{wrong}: {faults}");
            assert!(!faults.contains("short"), "{faults}");
        }
        mode(0o644);
        assert!(
            place("key = { file = \"key\" }", dir.path()).unwrap_err().contains("readable or writable by everyone")
        );
    }
}
