//! `[store]`.

use std::time::Duration;

use toml::de::DeTable;

use crate::config::file::{Item, Table};
use crate::config::secret::needed_secret;
use crate::config::store_url;
use crate::config::{Authority, Secrets, StoreConfig, StoreTrust, StoreUrl};
use crate::secret::Secret;

const BLIND_MAX: Duration = Duration::from_secs(300);
/// Longest `blind_max` without a `danger_` key.
const BLIND_LIMIT: Duration = Duration::from_secs(3600);

/// What is only named here is reported elsewhere.
const REPORTED: &str = "`[store]` is invalid: see `authgate check`";

/// The store, if one is configured, and how far databases are trusted. `has_key`: `[secrets] key` is set.
pub(super) fn store(table: &Table<'_>, has_key: bool) -> (Option<StoreConfig>, StoreTrust) {
    let faults = table.reading.fault_count();
    let blind_max = blind_max(table);
    let trusted = trust(table);
    let trust = trusted.clone().unwrap_or_default();
    let is_empty = table.value("url").is_none_or(|value| value.get_ref().as_table().is_some_and(DeTable::is_empty));
    if is_empty {
        return (None, trust);
    }
    if !has_key {
        table.reading.fault(
            table.span_of("url"),
            "`url` requires `[secrets] key`: all nodes must open the same secrets in the database",
            "make one with `openssl rand -base64 32`, give it to every node, and set `key = { file = \"...\" }` in [secrets]",
        );
    }
    let url = url(table, &trust).and_then(|url| trusted.map(|_| url));
    let store = match url {
        Ok(url) if table.reading.fault_count() == faults => StoreConfig { url, blind_max, unreadable: None },
        Ok(_) => StoreConfig::unreadable(REPORTED.to_owned(), blind_max),
        Err(why) => StoreConfig::unreadable(why, blind_max),
    };
    (Some(store), trust)
}

fn blind_max(table: &Table<'_>) -> Duration {
    let (typed, danger) =
        (table.duration("blind_max", Duration::ZERO), table.duration("danger_blind_max", Duration::ZERO));
    if let (Some(_), Some(danger)) = (&typed, &danger) {
        danger.fault("`blind_max` and `danger_blind_max` exclude each other", "remove one of them");
    }
    if let Some(typed) = typed.as_ref().filter(|typed| typed.value > BLIND_LIMIT) {
        typed.fault(
            "`blind_max` is longer than an hour: a session that another node revokes would stay valid here that long",
            "use at most \"1h\", or write danger_blind_max in its place",
        );
    }
    danger.or(typed).map_or(BLIND_MAX, |typed| typed.value)
}

/// `ca` and `danger_store_tls`. The error is why the CAs cannot be read, where that is not a fault.
fn trust(table: &Table<'_>) -> Result<StoreTrust, String> {
    let words = [("verify-full", false), ("require", true)];
    let danger_require = table.choice("danger_store_tls", &words).unwrap_or(false);
    let authorities = match table.table("ca", "ca").text("file", "authority.pem") {
        None => Vec::new(),
        Some(file) => match Authority::read(&table.reading.base.join(&file.value)) {
            Ok(authorities) => authorities,
            Err((what, _)) if table.reading.secrets == Secrets::Left => return Err(what),
            Err((what, remedy)) => {
                file.fault(what, remedy);
                Vec::new()
            }
        },
    };
    Ok(StoreTrust { authorities, danger_require })
}

/// The error is one line, where that is not a fault.
fn url(table: &Table<'_>, trust: &StoreTrust) -> Result<StoreUrl, String> {
    let (text, password) =
        if let Some(typed) = table.value("url").and_then(|value| Some((value.get_ref().as_str()?, value.span()))) {
            let (text, span) = typed;
            parts(&table.item(text, span)).ok_or_else(|| REPORTED.to_owned())?
        } else {
            let secret = needed_secret(table, "url").unwrap_or_else(|| Err(REPORTED.to_owned()))?;
            (secret, None)
        };
    store_url::read(text.expose(), password, &trust.authorities, trust.danger_require).map_err(|fault| {
        table.reading.fault(table.span_of("url"), fault.what, fault.remedy);
        REPORTED.to_owned()
    })
}

/// The URL as typed in the file, with `${NAME}` expanded, and a password that is one `${NAME}` apart from it: its value
/// is taken as it is, and need not be percent-encoded.
fn parts(typed: &Item<'_, &str>) -> Option<(Secret, Option<Secret>)> {
    let expand = |text: &str| typed.reading.expand(text, &typed.span);
    let text = typed.value;
    let rest = text.find("://").map_or(0, |at| at + 3);
    let authority = rest + text[rest..].find(['/', '?', '#']).unwrap_or(text.len() - rest);
    // an @ behind the first / belongs to a password that is not encoded
    let at = text[rest..authority].rfind('@').or_else(|| text[rest..].rfind('@')).map(|at| rest + at);
    let colon = at.and_then(|at| Some((rest + text[rest..at].find(':')?, at)));
    let Some((colon, at)) = colon else { return Some((Secret::new(expand(text)?), None)) };
    let password = &text[colon + 1..at];
    if !is_variable(password) {
        typed.fault(
            "the password of `url` cannot be written in the configuration itself",
            "write ${NAME} in its place, or the whole URL as { env = \"NAME\" }, { file = \"/path\" } or { credential = \"name\" }",
        );
        return None;
    }
    let text = expand(&format!("{}{}", &text[..colon], &text[at..]))?;
    Some((Secret::new(text), Some(Secret::new(expand(password)?))))
}

/// `${NAME}`
fn is_variable(text: &str) -> bool {
    let name = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    name.is_some_and(|name| !name.is_empty() && !name.contains(['$', '{', '}']))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{self, Config, StoreTls, load_broken};

    const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const PASSWORD: &str = "p@ss/w?rd%41#";
    const URL: &str = "postgres://authgate:Tr0ub4dor@db.example.com/accounts";

    fn parse(store: &str) -> Result<Config, String> {
        let text = format!(
            "[secrets]\nkey = {{ env = \"KEY\" }}\n[store]\n{store}\n[[route]]\nupstream = \"builtin:whoami\"\n"
        );
        let env = |name: &str| match name {
            "KEY" => Some(KEY.to_owned()),
            "PASSWORD" => Some(PASSWORD.to_owned()),
            "URL" => Some(URL.to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        config::parse(&text, "gateway.toml", std::path::PathBuf::from("/nowhere"), &env).map_err(|faults| {
            let said = format!("{}{}", faults.render(false), faults.to_json());
            assert!(!said.contains("Tr0ub4dor") && !said.contains("p@ss"), "{said}");
            said
        })
    }

    #[test]
    fn the_url_comes_from_a_secret_or_from_a_text_with_a_variable_for_the_password() {
        for (line, password) in [
            ("url = { env = \"URL\" }", Some("Tr0ub4dor")),
            ("url = \"${URL}\"", Some("Tr0ub4dor")),
            ("url = \"postgres://authgate:${PASSWORD}@db.example.com/accounts\"", Some(PASSWORD)),
            ("url = \"postgres://authgate@db.example.com/accounts\"", None),
        ] {
            let store = parse(line).unwrap().store.unwrap();
            assert_eq!(store.unreadable, None);
            assert_eq!(store.blind_max, Duration::from_secs(300));
            assert_eq!(store.url.shown(), "postgres://authgate@db.example.com:5432/accounts?sslmode=verify-full");
            assert_eq!(store.url.password.as_ref().map(Secret::expose), password, "{line}");
        }
        assert_eq!(parse("url = {}").unwrap().store, None);
        for (line, said) in [
            ("url = \"postgres://me:Tr0ub4dor@h/d\"", "cannot be written in the configuration itself"),
            ("url = \"postgres://me:Tr0ub4dor${PASSWORD}@h/d\"", "cannot be written in the configuration itself"),
            ("url = \"postgres://me:x/Tr0ub4dor@h/d\"", "cannot be written in the configuration itself"),
            ("url = \"me:Tr0ub4dor@h/d\"", "cannot be written in the configuration itself"),
            ("url = \"postgres://me:${PASSWORD}@h/d?password=Tr0ub4dor\"", "unsupported parameter `password`"),
            ("url = \"postgres://me:${EMPTY}@h/d\"", "password of the store is empty"),
            ("url = \"postgres://me:${MISSING}@h/d\"", "MISSING is not set"),
            ("url = { env = \"MISSING\" }", "MISSING is not set"),
            ("url = { env = \"URL\", file = \"x\" }", "exactly one source"),
            ("url = { env = \"PASSWORD\" }", "does not begin with postgres://"),
            ("url = 5", "cannot be written in the configuration itself"),
            ("url = { file = \"missing\" }", "cannot read /nowhere/missing"),
        ] {
            let faults = parse(line).unwrap_err();
            assert!(faults.contains(said), "{line}: {faults}");
        }
    }

    #[test]
    fn a_store_requires_a_sealing_key_that_all_nodes_can_have() {
        let parse = |secrets: &str, store: &str| {
            let text = format!("{secrets}[store]\n{store}\n[[route]]\nupstream = \"builtin:whoami\"\n");
            let env = |name: &str| (name == "KEY").then(|| KEY.to_owned());
            config::parse(&text, "gateway.toml", std::path::PathBuf::new(), &env).map_err(|faults| faults.render(false))
        };
        let (url, key) = ("url = \"postgres://me@h/d\"", "[secrets]\nkey = { env = \"KEY\" }\n");
        assert!(parse(key, url).is_ok() && parse("", "blind_max = \"1m\"").is_ok());
        for without in ["", "[secrets]\nkey = {}\n"] {
            assert!(parse(without, url).unwrap_err().contains("`url` requires `[secrets] key`"));
        }
        let broken = parse("[secrets]\nkey = { env = \"MISSING\" }\n", url).unwrap_err();
        assert!(broken.contains("1 error in") && broken.contains("it is not set"), "no second fault: {broken}");
    }

    #[test]
    fn blindness_has_a_limit_and_trust_is_read_without_a_url() {
        let seconds = |line: &str| {
            let store = parse(&format!("url = \"postgres://me@h/d\"\n{line}"))?.store;
            Ok::<_, String>(store.map(|store| store.blind_max.as_secs()))
        };
        for (line, expected) in
            [("", 300), ("blind_max = \"0s\"", 0), ("blind_max = \"1h\"", 3600), ("danger_blind_max = \"8h\"", 28_800)]
        {
            assert_eq!(seconds(line), Ok(Some(expected)), "{line}");
        }
        assert!(seconds("blind_max = \"61m\"").unwrap_err().contains("longer than an hour"));
        assert!(seconds("blind_max = \"1m\"\ndanger_blind_max = \"8h\"").unwrap_err().contains("exclude each other"));
        let config = parse("danger_store_tls = \"require\"").unwrap();
        assert!(config.store.is_none() && config.store_trust.danger_require);
        let tls = |line: &str| parse(&format!("url = \"postgres://me@h/d\"\n{line}")).unwrap().store.unwrap().url.tls;
        assert_eq!(tls("danger_store_tls = \"require\""), StoreTls::Require);
        assert_eq!(tls("danger_store_tls = \"verify-full\""), StoreTls::VerifyFull { roots: Vec::new() });
        assert!(parse("ca = { file = \"missing.pem\" }").unwrap_err().contains("cannot read /nowhere/missing.pem"));
    }

    /// A command on a broken file, or without the service's secrets, must not take SQLite for the store.
    #[test]
    fn a_store_that_cannot_be_read_is_still_a_store() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let load = |text: &str| {
            std::fs::write(at("gateway.toml"), format!("{text}\n[[route]]\nupstream = \"builtin:whoami\"\n")).unwrap();
            let (config, faults) = load_broken(Path::new(&at("gateway.toml")), None, Secrets::Left).unwrap();
            (config.store, faults.is_some())
        };
        std::fs::write(at("url"), format!("{URL}\n")).unwrap();
        let key = "[secrets]\nkey = { file = \"key\" }\n[store]\n";
        let (store, broken) = load(&format!("{key}url = {{ file = \"url\" }}"));
        let store = store.unwrap();
        assert!(!broken && store.unreadable.is_none() && store.url.password.is_some());
        let (store, broken) = load(&format!("{key}url = {{ file = \"missing\" }}"));
        let store = store.unwrap();
        assert!(!broken && store.url.hosts.is_empty(), "a secret that a command cannot read is not a fault");
        assert!(store.unreadable.unwrap().contains("cannot read"));
        for text in [
            "url = 5",
            "url = \"postgres://h/d\"",
            "url = \"postgres://u@h/d\"\nblind_max = 1",
            "url = { file = \"url\" }\nca = 1",
        ] {
            let (store, broken) = load(&format!("{key}{text}"));
            let store = store.unwrap();
            assert!(broken && store.unreadable.is_some() && store.url.hosts.is_empty(), "{text}");
        }
        let (store, broken) = load("[server]\nlisten = [\n[store]\nurl = { file = \"url\" }\n");
        assert!(broken && store.is_some_and(|store| store.unreadable.is_some()));
        assert_eq!(load("[server]\nlisten = [\n"), (None, true));
    }
}
