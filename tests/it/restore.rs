//! `authgate restore`, databases that change under a gateway, and databases of earlier versions.

use std::fs::File;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::Connection;

use crate::client::Client;
use crate::gateway::{Gateway, PASSWORD, command, configured, eventually, refused_start};
use crate::websockets::{close_code, open};

const CHEAP: &str = "[password]\nargon2 = { memory_kib = 7168, iterations = 1, parallelism = 1 }\n[throttle]\nmax_retries = 1000\n[[route]]\nupstream = \"builtin:whoami\"\n";

fn run(folder: &Path, arguments: &[&str]) -> (i32, String) {
    let output = command(folder, arguments).stdin(Stdio::null()).output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    (output.status.code().unwrap(), said)
}

/// Files of the state folder whose name begins so.
fn beside(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder.join("state")).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(prefix)).collect()
}

fn emails(database: &Path) -> Vec<String> {
    let database = Connection::open(database).unwrap();
    let mut query = database.prepare("SELECT email FROM user ORDER BY email").unwrap();
    query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

fn version(database: &Path) -> u32 {
    Connection::open(database).unwrap().pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
}

#[test]
fn a_backup_is_restored_while_stopped_and_what_was_there_is_kept_and_can_be_restored_again() {
    let gateway = Gateway::start(CHEAP);
    gateway.first_account();
    let backup = gateway.folder().join("backup.db");
    gateway.cli(&["backup", backup.to_str().unwrap()]);
    gateway.add_user("bob@example.com", &[]);
    let folder = gateway.into_folder();
    // as a process leaves it that was killed: with a log that belongs to the database
    let (code, said) = run(folder.path(), &["restore", backup.to_str().unwrap()]);
    assert_eq!(code, 0, "{said}");
    let kept = beside(folder.path(), "authgate.db.replaced-");
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert!(said.contains(&format!("kept at {}", kept[0].display())), "{said}");
    assert_eq!(emails(&kept[0]), ["ada@example.com", "bob@example.com"]);
    let about = std::fs::metadata(folder.path().join("state/authgate.db")).unwrap();
    let owner = std::fs::metadata(folder.path().join("state")).unwrap().uid();
    assert_eq!((about.permissions().mode() & 0o777, about.uid()), (0o600, owner));
    assert!(backup.exists(), "the backup itself stays");
    let gateway = Gateway::serve(folder);
    gateway.sign_in("ada@example.com");
    assert_eq!(gateway.login("bob@example.com", PASSWORD).status, 401);
    let folder = gateway.into_folder();
    assert_eq!(run(folder.path(), &["restore", kept[0].to_str().unwrap()]).0, 0);
    Gateway::serve(folder).sign_in("bob@example.com");
}

/// A process that was killed leaves a log that belongs to the database: it stays that one's, and spoils no other.
#[test]
fn a_backup_is_restored_over_a_database_whose_log_was_left_and_into_an_empty_folder() {
    let mut gateway = Gateway::start(CHEAP);
    gateway.first_account();
    let backup = gateway.folder().join("backup.db");
    gateway.cli(&["backup", backup.to_str().unwrap()]);
    gateway.add_user("bob@example.com", &[]);
    gateway.signal("KILL");
    eventually("it has ended", || gateway.has_ended());
    let folder = gateway.take_folder();
    assert!(folder.path().join("state/authgate.db-wal").exists());
    assert_eq!(run(folder.path(), &["restore", backup.to_str().unwrap()]).0, 0);
    let kept = beside(folder.path(), "authgate.db.replaced-");
    assert_eq!(emails(&kept[0]), ["ada@example.com", "bob@example.com"]);
    assert_eq!(emails(&folder.path().join("state/authgate.db")), ["ada@example.com"]);
    let empty = configured(CHEAP);
    std::fs::create_dir(empty.path().join("state")).unwrap();
    std::fs::copy(folder.path().join("state/secret.key"), empty.path().join("state/secret.key")).unwrap();
    let (code, said) = run(empty.path(), &["restore", backup.to_str().unwrap()]);
    assert!(code == 0 && !said.contains("kept"), "{said}");
    Gateway::serve(empty).sign_in("ada@example.com");
}

/// The gateway serves all the time: nobody is turned away, who is in the backup stays signed in, and what came after it is
/// over within the command.
#[test]
fn a_backup_is_restored_while_the_gateway_serves_and_sign_ins_wait() {
    let mut gateway = Gateway::start(CHEAP);
    let early = gateway.first_account();
    gateway.add_user("cem@example.com", &[]);
    let backup = gateway.folder().join("backup.db");
    let token = gateway.cli(&["token", "create", "ada@example.com", "--name", "early"]);
    gateway.cli(&["backup", backup.to_str().unwrap()]);
    gateway.add_user("bob@example.com", &[]);
    let late = gateway.sign_in("bob@example.com");
    let late_token = gateway.cli(&["token", "create", "ada@example.com", "--name", "late"]);
    gateway.cli(&["user", "disable", "cem@example.com"]);
    let mut socket = open(&gateway, "/ws", &late);
    socket.read().unwrap();
    let stop = AtomicBool::new(false);
    let said = std::thread::scope(|scope| {
        let (gateway, stop) = (&gateway, &stop);
        let signing_in = scope.spawn(move || {
            let mut answers = Vec::new();
            while !stop.load(Ordering::SeqCst) {
                answers.push(gateway.login("ada@example.com", PASSWORD).status);
            }
            answers
        });
        let said = run(gateway.folder(), &["restore", backup.to_str().unwrap()]);
        stop.store(true, Ordering::SeqCst);
        let answers = signing_in.join().unwrap();
        assert!(!answers.is_empty() && answers.iter().all(|status| *status == 200), "{answers:?}");
        said
    });
    assert!(said.0 == 0 && said.1.contains("the running gateway now uses it"), "{said:?}");
    assert_eq!(close_code(&mut socket), 4403);
    let seen = |cookie: &str| gateway.client().get("/", &[("Cookie", cookie)]).status;
    assert_eq!((seen(&early), seen(&late)), (200, 401));
    let bearer =
        |token: &str| gateway.client().get("/", &[("Authorization", &format!("Bearer {}", token.trim()))]).status;
    assert_eq!((bearer(&token), bearer(&late_token)), (200, 401));
    assert_eq!(gateway.login("bob@example.com", PASSWORD).status, 401);
    gateway.sign_in("cem@example.com");
    assert_eq!(Client::connect(gateway.admin).get("/readyz", &[]).status, 200);
    // changes of commands come in force as before, and a restart finds the same
    gateway.cli(&["user", "disable", "cem@example.com"]);
    assert_eq!(gateway.login("cem@example.com", PASSWORD).status, 401);
    let kept = beside(gateway.folder(), "authgate.db.replaced-");
    assert!(emails(&kept[0]).contains(&"bob@example.com".to_owned()));
    gateway = Gateway::serve(gateway.into_folder());
    let seen = |cookie: &str| gateway.client().get("/", &[("Cookie", cookie)]).status;
    assert_eq!((seen(&early), seen(&late)), (200, 401));
}

#[test]
fn what_is_no_backup_is_refused_and_the_database_stays() {
    let gateway = Gateway::start(CHEAP);
    gateway.first_account();
    let folder = gateway.into_folder();
    let place = |name: &str| folder.path().join(name);
    let backup = place("backup.db");
    assert_eq!(run(folder.path(), &["backup", backup.to_str().unwrap()]).0, 0);
    std::fs::write(place("text"), "hello, this is some text file").unwrap();
    std::fs::write(place("empty"), "").unwrap();
    Connection::open(place("diary")).unwrap().execute_batch("CREATE TABLE diary (entry TEXT)").unwrap();
    std::fs::copy(&backup, place("newer")).unwrap();
    Connection::open(place("newer")).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let whole = std::fs::read(&backup).unwrap();
    std::fs::write(place("half"), &whole[..whole.len() / 2]).unwrap();
    let before = std::fs::read(place("state/authgate.db")).unwrap();
    for name in ["text", "empty", "diary", "newer", "half", "missing", "state", "state/authgate.db"] {
        let (code, said) = run(folder.path(), &["restore", place(name).to_str().unwrap()]);
        assert_eq!(code, 1, "{name}: {said}");
        assert!(said.contains(name), "{name}: {said}");
        assert!(std::fs::read(place("state/authgate.db")).unwrap() == before, "{name}");
        let left = beside(folder.path(), ".authgate").len() + beside(folder.path(), "authgate.db.").len();
        assert_eq!(left, 0, "{name}");
    }
    Gateway::serve(folder).sign_in("ada@example.com");
}

/// What people do who have no `restore`: the file stays the same one for the gateway, and is none of its own any more.
#[test]
fn a_backup_that_is_copied_over_the_database_in_use_is_noticed_and_not_spoiled() {
    let mut gateway = Gateway::start(CHEAP);
    gateway.first_account();
    let backup = gateway.folder().join("backup.db");
    gateway.cli(&["backup", backup.to_str().unwrap()]);
    gateway.add_user("bob@example.com", &[]);
    let ready = |gateway: &Gateway| Client::connect(gateway.admin).get("/readyz", &[]).status;
    assert_eq!(ready(&gateway), 200);
    let database = gateway.state().join("authgate.db");
    std::fs::copy(&backup, &database).unwrap();
    assert_eq!(ready(&gateway), 503);
    assert_eq!(gateway.login("ada@example.com", PASSWORD).status, 503);
    gateway.wait_for(|_, line| line.contains("was overwritten while in use") && line.contains("authgate restore"));
    let folder = gateway.into_folder();
    assert!(std::fs::read(&database).unwrap() == std::fs::read(&backup).unwrap(), "nothing was written into it");
    let (code, said) = refused_start(folder.path());
    assert!(code == 1 && said.contains("authgate restore FILE"), "{said}");
    assert_eq!(run(folder.path(), &["restore", backup.to_str().unwrap()]).0, 0);
    Gateway::serve(folder).sign_in("ada@example.com");
}

/// The scripts that bring a database up, in order.
fn scripts() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/schema/sqlite");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|file| std::fs::read_to_string(file).unwrap()).collect()
}

/// The signing key in [`state_of_version`].
pub const PLAIN_KEY: [u8; 32] = *b"signing key of an older database";

/// A state folder as a gateway of that version leaves it, with an account, a key and a session in it.
pub fn state_of_version(folder: &Path, wanted: usize) {
    let state = folder.join("state");
    std::fs::create_dir(&state).unwrap();
    std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o700)).unwrap();
    let database = Connection::open(state.join("authgate.db")).unwrap();
    database.execute_batch("PRAGMA journal_mode = WAL").unwrap();
    for script in &scripts()[..wanted] {
        database.execute_batch(script).unwrap();
    }
    database.pragma_update(None, "application_id", 0x6167_7465).unwrap();
    database.pragma_update(None, "user_version", u32::try_from(wanted).unwrap()).unwrap();
    let hash = bcrypt::hash_with_salt(PASSWORD.as_bytes(), 4, [9; 16]).unwrap().to_string();
    let user = "INSERT INTO user (id, email, name, picture, groups, password, created, rev) VALUES ('7', 'ada@example.com', 'Ada', '', 'admin', ?1, 1700000000, 1)";
    database.execute(user, [hash]).unwrap();
    let key = "INSERT INTO signing_key (kid, secret, created, rev) VALUES ('first', ?1, 1700000000, 1)";
    database.execute(key, [PLAIN_KEY.as_slice()]).unwrap();
    database.execute_batch("UPDATE counter SET value = 7; UPDATE counter SET value = 1 WHERE name = 'rev'").unwrap();
}

/// Every earlier version's state is brought up at the start, with a copy that can be put back.
#[test]
fn a_database_of_every_earlier_version_is_brought_up_kept_as_it_was_and_taken_back() {
    let known = scripts().len();
    assert!(known >= 3);
    for from in 1..known {
        let folder = configured(CHEAP);
        state_of_version(folder.path(), from);
        let database = folder.path().join("state/authgate.db");
        let copy = folder.path().join(format!("state/authgate.db.v{from}"));
        let (code, said) = run(folder.path(), &["check"]);
        assert!(
            code == 0 && said.contains(&format!("has schema version {from}: the next start migrates it to {known}")),
            "{said}"
        );
        assert_eq!((version(&database), copy.exists()), (u32::try_from(from).unwrap(), false), "check changes nothing");
        let gateway = Gateway::serve(folder);
        let cookie = gateway.sign_in("ada@example.com");
        let me = gateway.client().get("/.auth/me", &[("Cookie", &cookie)]).json();
        assert_eq!((&me["id"], &me["name"]), (&"7".into(), &"Ada".into()));
        let mode = std::fs::metadata(&copy).unwrap().permissions().mode();
        assert_eq!(
            (mode & 0o777, version(&copy), version(&database)),
            (0o600, u32::try_from(from).unwrap(), u32::try_from(known).unwrap())
        );
        let (folder, log) = gateway.into_folder_and_log();
        let line = format!("database migrated from version {from} to {known}, copy kept at ");
        assert_eq!(log.matches(&line).count(), 1, "{log}");
        assert_eq!(run(folder.path(), &["restore", copy.to_str().unwrap()]).0, 0);
        assert_eq!(version(&database), u32::try_from(from).unwrap(), "as it was before the upgrade");
        assert!(Gateway::serve(folder).into_log().contains(&line), "and up again");
    }
}

#[test]
fn check_refuses_a_database_that_a_start_would_refuse() {
    let folder = configured(CHEAP);
    state_of_version(folder.path(), 1);
    let database = folder.path().join("state/authgate.db");
    Connection::open(&database).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let (code, said) = run(folder.path(), &["check"]);
    assert!(code == 1 && said.contains("version 99"), "{said}");
    let (code, said) = run(folder.path(), &["check", "--json"]);
    assert!(code == 1 && said.contains("\"ok\":false") && said.contains("version 99"), "{said}");
    assert_eq!(refused_start(folder.path()).0, 1);
    std::fs::write(&database, "no database").unwrap();
    assert_eq!(run(folder.path(), &["check"]).0, 1);
}

/// The binary was replaced, and the old gateway still serves: what it cannot read must not come about under it.
#[test]
fn a_command_brings_no_database_up_under_a_gateway_that_serves() {
    let folder = configured(CHEAP);
    state_of_version(folder.path(), 1);
    let database = folder.path().join("state/authgate.db");
    let lock = File::create(folder.path().join("state/lock")).unwrap();
    lock.lock().unwrap();
    for arguments in [&["user", "add", "bob@example.com"][..], &["session", "revoke", "--all"], &["user", "list"]] {
        let (code, said) = run(folder.path(), arguments);
        assert!(code == 1 && said.contains("restart the gateway first"), "{arguments:?}: {said}");
        assert_eq!(version(&database), 1, "{arguments:?}");
    }
    lock.unlock().unwrap();
    let (code, said) = run(folder.path(), &["user", "add", "bob@example.com"]);
    assert!(code == 0 && said.contains("database migrated from version 1 to "), "{said}");
    assert!(folder.path().join("state/authgate.db.v1").exists());
}
