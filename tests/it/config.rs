//! The configuration: broken files with what is said of each, and the shipped one.

use std::path::{Path, PathBuf};

use authgate::config::{self, Route};

use crate::gateway::command;

fn corpus() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config/broken");
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = paths.filter(|path| path.extension().is_some_and(|ending| ending == "toml")).collect();
    paths.sort();
    paths
}

fn shipped() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("gateway.toml")).unwrap()
}

fn parse(text: &str) -> Result<config::Config, config::Faults> {
    config::parse(text, "gateway.toml", PathBuf::new(), &|_| None)
}

/// Every broken file of the corpus is refused with the text that stands beside it; `UPDATE=1` writes it anew.
#[test]
fn every_broken_file_is_refused_with_the_text_beside_it() {
    assert!(corpus().len() >= 60);
    for path in corpus() {
        let name = path.file_name().unwrap().to_str().unwrap();
        let folder = tempfile::TempDir::new().unwrap();
        std::fs::copy(&path, folder.path().join("gateway.toml")).unwrap();
        let output = command(folder.path(), &["check"]).env_remove("STATE_DIRECTORY").output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap().replace(&folder.path().display().to_string(), "DIR");
        assert_eq!(output.status.code(), Some(64), "{name}: {said}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "{name}: something was made");
        let beside = path.with_extension("txt");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&beside, &said).unwrap();
        }
        assert_eq!(said, std::fs::read_to_string(&beside).unwrap_or_default(), "{name}");
    }
}

/// "Every key is here with its default behind the `#`."
#[test]
fn the_shipped_file_says_the_defaults() {
    let text = shipped();
    let mut uncommented = String::new();
    for line in text.lines() {
        let bare = line.strip_prefix("# ").unwrap_or(line);
        let key = bare.split([' ', '=']).next().unwrap_or_default();
        let assigned = bare.split_once(" = ").is_some_and(|_| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
        let kept = !line.starts_with('#') || assigned || ["[[provider]]", "[[upstream]]", "[[test]]"].contains(&bare);
        uncommented.push_str(if kept { bare } else { "" });
        uncommented.push('\n');
    }
    // the example of an identity of one's own stands before the default
    let at = uncommented.find("identity = {").unwrap();
    let end = at + uncommented[at..].find('\n').unwrap();
    uncommented.replace_range(at..end, "");
    // tokens are examples as a whole
    for token in ["token = { algorithm", "provider_token = {"] {
        let at = uncommented.find(token).unwrap();
        let end = at + uncommented[at..].find('\n').unwrap();
        uncommented.replace_range(at..end, "");
    }
    // the test is an example, and one for groups
    let uncommented = uncommented.replace("user = { groups = [\"staff\"] }", "user = { groups = [] }");
    // so is a provider
    let uncommented = uncommented.replace("client_secret = { env = \"GOOGLE_CLIENT_SECRET\" }", "");
    let mut said = parse(&uncommented).unwrap_or_else(|faults| panic!("{}", faults.render(false)));
    let defaults = parse(&text).unwrap();
    assert_eq!((said.upstreams.len(), said.tests.len()), (2, 1));
    let example = said.upstreams.remove(0);
    assert_eq!(format!("{:?}", example.identity), format!("{:?}", defaults.upstreams[0].identity));
    assert_eq!(said.providers.len(), 1);
    said.providers.clear();
    said.tests.clear();
    assert!(said.warnings.list().is_empty());
    assert!(defaults.warnings.list().is_empty());
    said.warnings = defaults.warnings.clone();
    said.routes = said.routes.iter().cloned().map(|route| Route { upstream: Some(0), ..route }).collect();
    assert_eq!(format!("{said:#?}"), format!("{defaults:#?}"));
}

/// Every key, as it is when it is left out.
#[test]
fn a_file_that_writes_every_key_with_its_default_changes_nothing() {
    let file =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config/every-key.toml")).unwrap();
    let env = |name: &str| {
        ["NEXTAUTH_SECRET", "GOOGLE_CLIENT_SECRET"]
            .contains(&name)
            .then(|| "J8n0mGQ2v9rX4kLw7sTzP1cYbE6dHfUa".to_owned())
    };
    let judge = |text: &str| {
        config::parse(text, "gateway.toml", PathBuf::new(), &env)
            .unwrap_or_else(|faults| panic!("{}", faults.render(false)))
    };
    let (mut said, mut left_out) = (
        judge(&file),
        judge(
            "[[provider]]\nname = \"google\"\nkind = \"google\"\nclient_id = \"id.apps.googleusercontent.com\"\n\
             client_secret = { env = \"GOOGLE_CLIENT_SECRET\" }\n\
             [[upstream]]\nname = \"http-server\"\nservers = [\"127.0.0.1:8000\"]\n\
             token = { secret = { env = \"NEXTAUTH_SECRET\" }, send = [\"bearer\", \"cookie:next-auth.session-token\"] }\n\
             provider_token = { provider = \"google\", header = \"X-Forwarded-Access-Token\" }\n\
             [[route]]\npath = \"/api/**\"\nupstream = \"http-server\"\n",
        ),
    );
    assert_eq!(said.tests.len(), 1);
    said.tests.clear();
    for config in [&mut said, &mut left_out] {
        config.routes = config.routes.iter().cloned().map(|route| Route { line: 0, ..route }).collect();
        config.warnings = parse("[[route]]\nupstream = \"builtin:whoami\"\n").unwrap().warnings;
    }
    assert_eq!(format!("{said:#?}"), format!("{left_out:#?}"));
    let folder = tempfile::TempDir::new().unwrap();
    std::fs::write(folder.path().join("gateway.toml"), &file).unwrap();
    let mut check = command(folder.path(), &["check"]);
    let output = check
        .env("NEXTAUTH_SECRET", env("NEXTAUTH_SECRET").unwrap())
        .env("GOOGLE_CLIENT_SECRET", "x")
        .env_remove("STATE_DIRECTORY")
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).ends_with("is valid; 1 of 1 tests passed\n"), "{output:?}");
}

#[test]
fn a_file_with_any_bytes_changed_is_checked_without_a_panic() {
    let texts: Vec<String> =
        corpus().iter().filter_map(|path| std::fs::read_to_string(path).ok()).chain([shipped()]).collect();
    let mut judged = 0;
    for text in &texts {
        let step = text.len() / 50 + 1;
        for at in (0..text.len()).step_by(step).filter(|&at| text.is_char_boundary(at)) {
            let (before, after) = text.split_at(at);
            let rest = after.chars().next().map_or(0, char::len_utf8);
            let mut changed = vec![before.to_owned(), format!("{before}{}", &after[rest..])];
            changed.extend(
                ["\"", "[", "{", "=", "\n", "9", "-", "é", "\0", "${", "."].map(|put| format!("{before}{put}{after}")),
            );
            for text in changed {
                judged += 1;
                if let Err(faults) = parse(&text) {
                    assert!(!faults.list().is_empty());
                    assert!(!faults.render(false).is_empty());
                    faults.to_json();
                }
            }
        }
    }
    assert!(judged > 5_000, "{judged}");
}

/// What the environment holds may be a secret: a fault about it shows what was typed.
#[test]
fn a_fault_of_a_value_from_the_environment_names_the_variable_and_not_what_it_holds() {
    let text = "[server]\npublic_url = \"${SCHEME}://a.example.com/${HELD}\"\n\
                [[upstream]]\nname = \"a\"\nservers = [\"127.0.0.1:80\"]\ntoken = { secret = { env = \"${HELD}\" } }\n";
    let env = |name: &str| match name {
        "HELD" => Some("Tr0ub4dor-and-a-horse".to_owned()),
        "SCHEME" => Some("https".to_owned()),
        _ => None,
    };
    let faults = config::parse(text, "gateway.toml", PathBuf::new(), &env).unwrap_err();
    let said = format!("{}{}", faults.render(false), faults.to_json());
    assert!(said.contains("invalid origin `${SCHEME}://a.example.com/${HELD}`"), "{said}");
    assert!(said.contains("the environment variable ${HELD} is not set"), "{said}");
    assert!(!said.contains("Tr0ub4dor"), "{said}");
}

/// A group may read a secret (Debian's 640 `root:authgate`, systemd's credentials 440); nobody else may, and it
/// writes none. Of a TLS key that is a warning.
#[test]
fn a_secret_that_others_can_read_or_its_group_can_write_is_refused_and_such_a_key_is_reported() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let pair = rcgen::generate_simple_self_signed(vec!["a.example.com".to_owned()]).unwrap();
    std::fs::write(at("chain.pem"), pair.cert.pem()).unwrap();
    std::fs::write(at("key.pem"), pair.signing_key.serialize_pem()).unwrap();
    std::fs::write(at("secret"), "J8n0mGQ2v9rX4kLw7sTzP1cYbE6dHfUa").unwrap();
    let text = "[server]\nlisten = [\"https://127.0.0.1:8443\"]\npublic_url = \"https://a.example.com\"\n[server.tls]\n\
                certificates = [{ certificate = \"chain.pem\", key = { file = \"key.pem\" } }]\n[[upstream]]\nname = \"a\"\n\
                servers = [\"127.0.0.1:80\"]\ntoken = { secret = { file = \"secret\" } }\n[[route]]\nupstream = \"a\"\n";
    std::fs::write(at("gateway.toml"), text).unwrap();
    let check = |name: &str, mode: u32| {
        for file in ["secret", "key.pem"] {
            let mode = if file == name { mode } else { 0o600 };
            std::fs::set_permissions(at(file), PermissionsExt::from_mode(mode)).unwrap();
        }
        let output = command(folder.path(), &["check"]).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    for file in ["secret", "key.pem"] {
        for mode in [0o400, 0o440, 0o600, 0o640] {
            assert_eq!(check(file, mode), (0, String::new()), "{file} {mode:03o}");
        }
        for (mode, how) in [
            (0o604, "is readable or writable by everyone"),
            (0o644, "is readable or writable by everyone"),
            (0o602, "is readable or writable by everyone"),
            (0o660, "is writable by its group"),
            (0o620, "is writable by its group"),
        ] {
            let (code, said) = check(file, mode);
            assert!(said.contains(&format!("{file} {how} (mode {mode:03o})")) && said.contains("chmod 600"), "{said}");
            assert_eq!((code, said.starts_with("warning")), if file == "secret" { (64, false) } else { (0, true) });
        }
    }
}

/// Other proxies take `/admin` for all that begins so; here it is one path, and `/admin/` goes where `/**` does.
#[test]
fn a_guarded_path_with_less_guarded_ones_below_is_reported_and_a_folder_is_not() {
    let warned = |route: &str, last: &str| {
        let text = format!("{route}upstream = \"builtin:whoami\"\n[[route]]\n{last}upstream = \"builtin:whoami\"\n");
        let list: Vec<String> = parse(&text).unwrap().warnings.list().iter().map(|one| one.what.clone()).collect();
        list
    };
    let staff = |path: &str| format!("[[route]]\npath = \"{path}\"\ngroups = [\"staff\"]\n");
    let told = |path: &str| {
        vec![format!("`{path}` matches only this path: paths below it match route 2, which is less strict")]
    };
    for path in ["/admin", "/admin/", "/*/admin"] {
        assert_eq!(warned(&staff(path), ""), told(path));
        assert_eq!(warned(&staff(path), "access = \"public\"\n"), told(path));
        assert_eq!(warned(&staff(path), "groups = [\"staff\", \"guests\"]\n"), told(path));
    }
    assert_eq!(warned("[[route]]\npath = \"/x\"\naccess = \"deny\"\n", ""), told("/x"));
    for path in ["/admin/**", "/admin*", "/admin.php", "/"] {
        assert_eq!(warned(&staff(path), ""), [""; 0], "{path}");
    }
    for last in [
        "groups = [\"staff\"]\n",
        "access = \"deny\"\n",
        "path = \"/other/**\"\n",
        "path = \"/admin/help\"\n",
        "host = \"a.example.com\"\n",
    ] {
        assert_eq!(warned(&staff("/admin"), last), [""; 0], "{last}");
    }
    let whole = format!("{}upstream = \"builtin:whoami\"\n{}", staff("/admin"), staff("/admin/**"));
    assert_eq!(warned(&whole, ""), [""; 0], "what lies below has a route of its own");
    assert_eq!(warned("[[route]]\npath = \"/health\"\naccess = \"public\"\n", ""), [""; 0]);
}

#[test]
fn hosts_that_no_certificate_speaks_for_are_reported() {
    let folder = tempfile::TempDir::new().unwrap();
    let pair = rcgen::generate_simple_self_signed(vec!["apps.example.com".to_owned(), "*.apps.example.com".to_owned()])
        .unwrap();
    std::fs::write(folder.path().join("chain.pem"), pair.cert.pem()).unwrap();
    std::fs::write(folder.path().join("key.pem"), pair.signing_key.serialize_pem()).unwrap();
    let key = folder.path().join("key.pem");
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let warned = |keys: &str, host: &str| {
        let text = format!(
            "[server]\nlisten = [\"https://127.0.0.1:8443\"]\n{keys}[server.tls]\n\
             certificates = [{{ certificate = \"chain.pem\", key = {{ file = \"key.pem\" }} }}]\n\
             [[route]]\nhost = \"{host}\"\nupstream = \"builtin:whoami\"\n[[route]]\nupstream = \"builtin:whoami\"\n"
        );
        let read = config::parse(&text, "gateway.toml", folder.path().to_path_buf(), &|_| None).unwrap();
        let list: Vec<String> = read.warnings.list().iter().map(|one| one.what.clone()).collect();
        list
    };
    let own = "public_url = \"https://apps.example.com\"\n";
    let told = |name: &str| vec![format!("no certificate is valid for {name}: browsers will refuse it")];
    assert_eq!(warned(own, "wiki.apps.example.com"), [""; 0]);
    assert_eq!(warned(own, "wiki.example.com"), told("wiki.example.com"));
    assert_eq!(warned(own, "a.b.apps.example.com"), told("a.b.apps.example.com"), "a star is one label");
    assert_eq!(warned("public_url = \"https://example.com\"\n", "apps.example.com"), told("example.com"));
    assert_eq!(warned("", "127.0.0.1"), [""; 0], "a number is tried out, not published");
    let behind = format!("{own}trusted_proxies = [\"127.0.0.1\"]\n");
    assert_eq!(warned(&behind, "wiki.example.com"), [""; 0], "the proxy shows its own");
}

/// Nothing takes SQLite in its place: not a command while the database is away, not a broken file.
#[test]
fn a_store_is_checked_and_shown_without_its_password_and_nothing_else_is_opened_in_its_place() {
    const PASSWORD: &str = "Tr0ub4dor/3";
    let folder = tempfile::TempDir::new().unwrap();
    let text = |blind_max: &str| {
        format!(
            "[secrets]\nkey = {{ env = \"KEY\" }}\n[store]\nurl = \"postgres://authgate:${{DB}}@127.0.0.1:1/accounts\"\n\
             blind_max = {blind_max}\n[[route]]\nupstream = \"builtin:whoami\"\n"
        )
    };
    let run = |text: &str, arguments: &[&str]| {
        std::fs::write(folder.path().join("gateway.toml"), text).unwrap();
        let mut command = command(folder.path(), arguments);
        command.env("DB", PASSWORD).env("KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
        let output = command.env_remove("STATE_DIRECTORY").output().unwrap();
        let [out, err] = [output.stdout, output.stderr].map(|said| String::from_utf8(said).unwrap());
        assert!(!out.contains("Tr0ub4dor") && !err.contains("Tr0ub4dor"), "{out}{err}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "{arguments:?} made something");
        (output.status.code(), out, err)
    };
    let (good, broken) = (text("\"1m\""), text("\"forever\""));
    let shown = "postgres://authgate@127.0.0.1:1/accounts?sslmode=verify-full";
    let (code, out, err) = run(&good, &["check"]);
    assert!(code == Some(0) && out.ends_with("is valid; 0 of 0 tests passed\n"), "{out}{err}");
    assert_eq!(err, format!("the database is {shown}; it was not asked\n"));
    let (code, out, _) = run(&good, &["check", "--json"]);
    let read: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &read["ok"]), (Some(0), &true.into()));
    assert_eq!(read["store"], serde_json::json!({ "url": shown, "blind_max_secs": 60.0 }));
    for arguments in [
        &["user", "add", "ada@example.com"][..],
        &["user", "list"],
        &["session", "revoke", "--all"],
        &["backup", "b.db"],
        &["explain", "GET", "/", "--user", "ada@example.com"],
    ] {
        let (code, _, err) = run(&good, arguments);
        let line = err.trim_end();
        assert!(code == Some(1) && line.contains("127.0.0.1:1") && !line.contains('\n'), "{arguments:?}: {err}");
    }
    let (code, _, err) = run(&broken, &["user", "add", "ada@example.com"]);
    assert!(code == Some(1) && err.contains("`[store]` is invalid: see `authgate check`"), "{err}");
    let (code, _, err) = run(&format!("[server]\nlisten = [\n{good}"), &["user", "list"]);
    assert!(code == Some(1) && err.contains("is not valid TOML"), "{err}");
}
