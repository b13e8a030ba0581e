//! Secrets at rest: what copies of the database hold, and what happens without the key that opens them.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Stdio;

use crate::forge::session_key;
use crate::gateway::{Gateway, command, configured, refused_start};
use crate::restore::{PLAIN_KEY, state_of_version};

const CHEAP: &str = "[password]\nargon2 = { memory_kib = 7168, iterations = 1, parallelism = 1 }\n[[route]]\nupstream = \"builtin:whoami\"\n";

fn run(folder: &Path, arguments: &[&str]) -> (i32, String) {
    run_with(folder, arguments, &[])
}

fn run_with(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> (i32, String) {
    let mut command = command(folder, arguments);
    let output = command.envs(variables.iter().copied()).stdin(Stdio::null()).output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    (output.status.code().unwrap(), said)
}

fn status(gateway: &Gateway, cookie: &str) -> u16 {
    gateway.client().get("/.auth/me", &[("Cookie", cookie)]).status
}

/// Names of the files below a folder that hold these bytes, sorted.
fn holders(folder: &Path, bytes: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(holders(&path, bytes));
        } else if std::fs::read(&path).unwrap().windows(bytes.len()).any(|window| window == bytes) {
            found.push(path.file_name().unwrap().to_str().unwrap().to_owned());
        }
    }
    found.sort();
    found
}

#[test]
fn no_file_holds_a_signing_key_in_clear_while_the_gateway_runs_after_it_or_in_a_backup() {
    let gateway = Gateway::start(CHEAP);
    let cookie = gateway.first_account();
    gateway.cli(&["key", "rotate"]);
    let key = session_key(&gateway);
    assert_eq!(key.len(), 32);
    let backup = gateway.folder().join("backup.db");
    let said = gateway.cli_with(&["backup", backup.to_str().unwrap()], "").stderr;
    let said = String::from_utf8(said).unwrap();
    assert!(said.contains("does not hold the key") && said.contains("state/secret.key"), "{said}");
    assert_eq!(holders(gateway.folder(), &key), [""; 0]);
    let sealing = std::fs::read(gateway.state().join("secret.key")).unwrap();
    assert_eq!(holders(gateway.folder(), sealing.trim_ascii_end()), ["secret.key"]);
    let folder = gateway.into_folder();
    assert_eq!(holders(folder.path(), &key), [""; 0]);
    assert_eq!(status(&Gateway::serve(folder), &cookie), 200, "the cookie is from before all that");
}

/// The copy that is kept before a migration is the database as it was.
#[test]
fn the_keys_of_an_older_database_are_sealed_at_the_first_start_and_remain_only_in_the_copy_that_is_kept() {
    let folder = configured(CHEAP);
    state_of_version(folder.path(), 5);
    assert_eq!(holders(folder.path(), &PLAIN_KEY), ["authgate.db"]);
    // a command migrates, and leaves the rest to the first start
    assert_eq!(run(folder.path(), &["user", "add", "bob@example.com"]).0, 0);
    let gateway = Gateway::serve(folder);
    assert_eq!(session_key(&gateway), PLAIN_KEY, "it is the same key");
    assert_eq!(holders(gateway.folder(), &PLAIN_KEY), ["authgate.db.v5"]);
    let folder = gateway.into_folder();
    assert_eq!(holders(folder.path(), &PLAIN_KEY), ["authgate.db.v5"]);
    let (code, said) = run(folder.path(), &["restore", folder.path().join("state/authgate.db.v5").to_str().unwrap()]);
    assert_eq!(code, 0, "an older authgate can go on with it: {said}");
    assert_eq!(session_key(&Gateway::serve(folder)), PLAIN_KEY);
}

#[test]
fn without_its_key_or_with_another_one_the_gateway_does_not_start_and_makes_none() {
    let gateway = Gateway::start(CHEAP);
    let cookie = gateway.first_account();
    let folder = gateway.into_folder();
    let key = folder.path().join("state/secret.key");
    let own = std::fs::read(&key).unwrap();
    std::fs::remove_file(&key).unwrap();
    for (code, said) in
        [refused_start(folder.path()), run(folder.path(), &["check"]), run(folder.path(), &["key", "rotate"])]
    {
        assert!(code == 1 && said.contains("state/secret.key is missing"), "{code}: {said}");
        assert!(said.contains("key rotate --drop-old --secrets"), "{said}");
    }
    assert!(!key.exists(), "a new one would lose what is sealed");
    // what needs no sealed secret works
    assert_eq!(run(folder.path(), &["user", "list"]).0, 0);
    assert_eq!(run(folder.path(), &["key", "list"]).0, 0);
    std::fs::write(&key, "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n").unwrap();
    for (code, said) in [refused_start(folder.path()), run(folder.path(), &["check"])] {
        assert!(code == 1 && said.contains("state/secret.key holds key 9ad5a602095a1156, but"), "{said}");
    }
    std::fs::write(&key, "rubbish").unwrap();
    let (code, said) = refused_start(folder.path());
    assert!(code == 1 && said.contains("expected 32 random bytes") && !said.contains("rubbish"), "{said}");
    std::fs::write(&key, own).unwrap();
    assert_eq!(run(folder.path(), &["check"]).0, 0);
    assert_eq!(status(&Gateway::serve(folder), &cookie), 200);
}

#[test]
fn the_key_is_0600_and_belongs_to_the_owner_of_the_folder_whatever_user_makes_or_replaces_it() {
    let folder = configured(CHEAP);
    let state = folder.path().join("state");
    std::fs::create_dir(&state).unwrap();
    std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o700)).unwrap();
    let is_root = std::os::unix::fs::chown(&state, Some(65534), Some(65534)).is_ok();
    let owner = if is_root { 65534 } else { std::fs::metadata(&state).unwrap().uid() };
    for arguments in
        [&["key", "rotate"][..], &["key", "rotate", "--secrets"], &["key", "rotate", "--drop-old", "--secrets"]]
    {
        let (code, said) = run(folder.path(), arguments);
        assert_eq!(code, 0, "{arguments:?}: {said}");
        for entry in std::fs::read_dir(&state).unwrap() {
            let entry = entry.unwrap();
            let about = entry.metadata().unwrap();
            assert_eq!((about.uid(), about.mode() & 0o777), (owner, 0o600), "{arguments:?}: {:?}", entry.file_name());
        }
        assert!(state.join("secret.key").exists());
    }
}

#[test]
fn a_restore_without_the_backups_key_says_so_and_changes_nothing() {
    let gateway = Gateway::start(CHEAP);
    let cookie = gateway.first_account();
    let backup = gateway.folder().join("backup.db");
    gateway.cli(&["backup", backup.to_str().unwrap()]);
    let key = std::fs::read(gateway.state().join("secret.key")).unwrap();
    let other = Gateway::start(CHEAP);
    let theirs = other.first_account();
    let (code, said) = run(other.folder(), &["restore", backup.to_str().unwrap()]);
    assert!(code == 1 && said.contains("cannot be used here, nothing was changed"), "{said}");
    assert!(said.contains("state/secret.key holds key"), "{said}");
    assert_eq!(status(&other, &theirs), 200);
    let folder = other.into_folder();
    let database = std::fs::read(folder.path().join("state/authgate.db")).unwrap();
    assert_eq!(run(folder.path(), &["restore", backup.to_str().unwrap()]).0, 1);
    assert!(std::fs::read(folder.path().join("state/authgate.db")).unwrap() == database);
    let empty = configured(CHEAP);
    let (code, said) = run(empty.path(), &["restore", backup.to_str().unwrap()]);
    assert!(code == 1 && said.contains("state/secret.key is missing"), "{said}");
    std::fs::write(empty.path().join("state/secret.key"), key).unwrap();
    let (code, said) = run(empty.path(), &["restore", backup.to_str().unwrap()]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(status(&Gateway::serve(empty), &cookie), 200);
}

#[test]
fn an_older_backup_restored_while_the_gateway_serves_is_sealed_on_the_way() {
    let older = configured(CHEAP);
    state_of_version(older.path(), 4);
    let gateway = Gateway::start(CHEAP);
    gateway.first_account();
    gateway.cli(&["restore", older.path().join("state/authgate.db").to_str().unwrap()]);
    assert_eq!(session_key(&gateway), PLAIN_KEY);
    gateway.sign_in("ada@example.com");
    assert_eq!(holders(gateway.folder(), &PLAIN_KEY), [""; 0]);
}

#[test]
fn sealing_with_a_new_key_signs_no_one_out_and_the_old_key_opens_nothing_any_more() {
    let mut gateway = Gateway::start(CHEAP);
    let cookie = gateway.first_account();
    let signs = session_key(&gateway);
    let path = gateway.state().join("secret.key");
    let before = std::fs::read(&path).unwrap();
    gateway.cli(&["key", "rotate", "--secrets"]);
    let after = std::fs::read(&path).unwrap();
    assert_ne!(before, after);
    assert!(!gateway.state().join("secret.key.next").exists());
    assert_eq!((session_key(&gateway), status(&gateway, &cookie)), (signs, 200));
    // the running gateway reads what comes after, and seals with the new key
    gateway.cli(&["key", "rotate"]);
    let later = gateway.sign_in("ada@example.com");
    gateway.reload("[[upstream]]\nname = \"app\"\nservers = [\"builtin:whoami\"]\ntoken = { algorithm = \"EdDSA\" }\n[[route]]\nupstream = \"app\"\n");
    assert_eq!(status(&gateway, &later), 200);
    let folder = gateway.into_folder();
    std::fs::write(folder.path().join("state/secret.key"), &before).unwrap();
    assert_eq!(refused_start(folder.path()).0, 1);
    // as after a crash between the transaction and the renaming
    std::fs::write(folder.path().join("state/secret.key.next"), &after).unwrap();
    assert_eq!(run(folder.path(), &["check"]).0, 0);
    let gateway = Gateway::serve(folder);
    assert_eq!(std::fs::read(gateway.state().join("secret.key")).unwrap(), after);
    assert_eq!([&cookie, &later].map(|cookie| status(&gateway, cookie)), [200, 200]);
}

#[test]
fn a_lost_key_is_replaced_with_all_that_was_sealed_and_everyone_signs_in_again() {
    let gateway = Gateway::start(CHEAP);
    let cookie = gateway.first_account();
    let (code, said) = run(gateway.folder(), &["key", "rotate", "--drop-old", "--secrets"]);
    assert!(code == 1 && said.contains("stop the gateway first"), "{said}");
    let folder = gateway.into_folder();
    std::fs::remove_file(folder.path().join("state/secret.key")).unwrap();
    let (code, said) = run(folder.path(), &["key", "rotate", "--drop-old", "--secrets"]);
    assert_eq!(code, 0, "{said}");
    let gateway = Gateway::serve(folder);
    assert_eq!(status(&gateway, &cookie), 401);
    let new = gateway.sign_in("ada@example.com");
    assert_eq!(status(&gateway, &new), 200);
}

#[test]
fn a_key_from_the_environment_is_never_written_and_is_replaced_by_who_provides_it() {
    const ONE: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const TWO: &str = "8f1e1d1c1b1a191817161514131211100f0e0d0c0b0a09080706050403020100";
    let folder = configured(&format!("[secrets]\nkey = {{ env = \"KEY\" }}\n{CHEAP}"));
    let gateway = Gateway::serve_with(folder, &[("KEY", ONE)]);
    let cookie = gateway.first_account();
    assert!(!gateway.state().join("secret.key").exists());
    assert_eq!(holders(gateway.folder(), ONE.as_bytes()), [""; 0]);
    let new = gateway.folder().join("new");
    std::fs::write(&new, TWO).unwrap();
    let renew = ["key", "rotate", "--secrets", "--new-key", new.to_str().unwrap()];
    let (code, said) = run_with(gateway.folder(), &renew[..3], &[("KEY", ONE)]);
    assert!(code == 1 && said.contains("name its file with --new-key"), "{said}");
    let (code, said) = run_with(gateway.folder(), &renew, &[("KEY", ONE)]);
    assert!(code == 1 && said.contains("stop the gateway first"), "{said}");
    let folder = gateway.into_folder();
    let (code, said) = run(folder.path(), &renew);
    assert!(code == 1 && said.contains("the environment variable KEY: it is not set"), "{said}");
    let (code, said) = run_with(folder.path(), &renew, &[("KEY", ONE)]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(run_with(folder.path(), &["check"], &[("KEY", ONE)]).0, 1);
    assert_eq!(run_with(folder.path(), &["check"], &[]).0, 64, "a fault of the configuration");
    let gateway = Gateway::serve_with(folder, &[("KEY", TWO)]);
    assert_eq!(status(&gateway, &cookie), 200);
}

#[test]
fn a_backup_with_its_key_suffices_on_another_machine_whose_previous_key_is_kept() {
    let gateway = Gateway::start(CHEAP);
    let cookie = gateway.first_account();
    let backup = gateway.folder().join("backup.db");
    let file = backup.to_str().unwrap();
    let (code, said) = run(gateway.folder(), &["backup", file, "--with-key"]);
    assert!(code == 0 && said.contains("It holds the key") && !said.contains("does not"), "{said}");
    let key = std::fs::read(gateway.state().join("secret.key")).unwrap();
    assert_eq!(holders(gateway.folder(), key.trim_ascii_end()), ["backup.db", "secret.key"]);
    assert_eq!(std::fs::metadata(&backup).unwrap().permissions().mode() & 0o777, 0o600);

    // a folder that has never held a database
    let empty = configured(CHEAP);
    let (code, said) = run(empty.path(), &["restore", file]);
    assert!(code == 0 && said.contains("the backup's sealing key is now"), "{said}");
    assert_eq!(holders(empty.path(), key.trim_ascii_end()), ["secret.key"]);
    let about = std::fs::metadata(empty.path().join("state/secret.key")).unwrap();
    assert_eq!(about.permissions().mode() & 0o777, 0o600);
    assert_eq!(status(&Gateway::serve(empty), &cookie), 200);

    // a gateway that serves, with a key of its own
    let other = Gateway::start(CHEAP);
    let theirs = other.first_account();
    let own = std::fs::read(other.state().join("secret.key")).unwrap();
    let (code, said) = run(other.folder(), &["restore", file]);
    assert!(code == 0 && said.contains("the running gateway now uses it"), "{said}");
    assert_eq!((status(&other, &cookie), status(&other, &theirs)), (200, 401));
    let folder = other.into_folder();
    assert_eq!(holders(folder.path(), key.trim_ascii_end()), ["secret.key"]);
    let gateway = Gateway::serve(folder);
    assert_eq!(status(&gateway, &cookie), 200, "after a restart, too");

    // and back: the previous database with the previous key
    let folder = gateway.into_folder();
    let kept = |prefix: &str| {
        let names = std::fs::read_dir(folder.path().join("state")).unwrap().map(|entry| entry.unwrap().path());
        names.into_iter().find(|path| path.file_name().unwrap().to_str().unwrap().starts_with(prefix)).unwrap()
    };
    let old = kept("secret.key.replaced-");
    assert_eq!(std::fs::read(&old).unwrap(), own);
    std::fs::rename(old, folder.path().join("state/secret.key")).unwrap();
    let database = kept("authgate.db.replaced-");
    assert_eq!(run(folder.path(), &["restore", database.to_str().unwrap()]).0, 0);
    assert_eq!(status(&Gateway::serve(folder), &theirs), 200);
}

#[test]
fn a_restore_replaces_no_key_where_it_could_lose_one_or_fails() {
    let gateway = Gateway::start(CHEAP);
    gateway.first_account();
    let backup = gateway.folder().join("backup.db");
    gateway.cli(&["backup", backup.to_str().unwrap(), "--with-key"]);
    let restore = ["restore", backup.to_str().unwrap()];
    // an interrupted replacement may have left the key of the database beside it
    let folder = Gateway::start(CHEAP).into_folder();
    let [key, next] = ["state/secret.key", "state/secret.key.next"].map(|name| folder.path().join(name));
    let own = std::fs::read(&key).unwrap();
    std::fs::write(&next, &own).unwrap();
    let (code, said) = run(folder.path(), &restore);
    assert!(code == 1 && said.contains("start the gateway first"), "{said}");
    assert_eq!((std::fs::read(&key).unwrap(), std::fs::read(&next).unwrap()), (own.clone(), own.clone()));
    std::fs::remove_file(&next).unwrap();
    // a key in the backup that is not the one of its secrets
    let forged = folder.path().join("forged.db");
    std::fs::copy(&backup, &forged).unwrap();
    let database = rusqlite::Connection::open(&forged).unwrap();
    let text = String::from_utf8(own.clone()).unwrap();
    database.execute("UPDATE sealing_key SET text = ?1", [&text]).unwrap();
    drop(database);
    let (code, said) = run(folder.path(), &["restore", forged.to_str().unwrap()]);
    assert!(code == 1 && said.contains("nothing was changed"), "{said}");
    // a key that cannot be replaced from here
    let elsewhere = configured(&format!("[secrets]\nkey = {{ env = \"KEY\" }}\n{CHEAP}"));
    let (code, said) = run_with(elsewhere.path(), &restore, &[("KEY", text.trim_end())]);
    assert!(code == 1 && said.contains("its key is in it, but the environment variable KEY"), "{said}");
    // twin: nothing stands in the way
    assert_eq!(run(folder.path(), &restore).0, 0);
    assert_ne!(std::fs::read(&key).unwrap(), own);
}

#[test]
fn a_backup_with_its_key_that_is_copied_over_the_database_loses_it_at_the_start() {
    let gateway = Gateway::start(CHEAP);
    let cookie = gateway.first_account();
    let backup = gateway.folder().join("backup.db");
    gateway.cli(&["backup", backup.to_str().unwrap(), "--with-key"]);
    let folder = gateway.into_folder();
    std::fs::rename(&backup, folder.path().join("state/authgate.db")).unwrap();
    let key = std::fs::read(folder.path().join("state/secret.key")).unwrap();
    let gateway = Gateway::serve(folder);
    assert_eq!(status(&gateway, &cookie), 200);
    assert_eq!(holders(&gateway.into_folder().path().join("state"), key.trim_ascii_end()), ["secret.key"]);
}
