//! `authgate backup`: a copy taken while people sign up and in, put in the place of the database.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::Instant;

use rusqlite::{Connection, OpenFlags};
use serde_json::json;
use tempfile::TempDir;

use crate::gateway::{Gateway, PASSWORD, command, configured, refused_start};

const CONFIG: &str = "[password]\nargon2 = { memory_kib = 7168, iterations = 1, parallelism = 1 }\n[sign_up]\nmode = \"open\"\n[throttle]\nmax_retries = 1000\n[[route]]\nupstream = \"builtin:whoami\"\n";
/// Changes that each person makes after signing in: hashing bounds sign-ins, so that these make the load.
const CHANGES: usize = 20;

/// What SQLite itself finds wrong with a file.
fn faults(database: &Path) -> Vec<String> {
    let database = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let mut faults = database.prepare("PRAGMA integrity_check").unwrap();
    let faults = faults.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap();
    assert!(!database.prepare("PRAGMA foreign_key_check").unwrap().exists([]).unwrap(), "a foreign key");
    faults
}

/// The same configuration on a folder of its own whose database is the backup, with the key of the folder that it is of.
fn restored(backup: &Path, of: &Path) -> TempDir {
    let folder = configured(CONFIG);
    let state = folder.path().join("state");
    std::fs::create_dir(&state).unwrap();
    std::fs::copy(backup, state.join("authgate.db")).unwrap();
    std::fs::copy(of.join("state/secret.key"), state.join("secret.key")).unwrap();
    folder
}

/// What a person was told to be done.
struct Acknowledged {
    email: String,
    cookie: String,
    name: String,
}

/// Signs up and in and changes the name, again and again, until told to stop.
fn live(gateway: &Gateway, number: usize, load: &Load, acknowledged: &Sender<Acknowledged>) {
    let mut client = gateway.client();
    for count in 0.. {
        let email = format!("u{number}-{count}@example.com");
        let body = json!({ "email": email, "password": PASSWORD });
        let mut ask = |path| client.post_json(path, &[], &body);
        assert_eq!(ask("/.auth/signup").status, 201);
        let answer = ask("/.auth/login");
        assert_eq!(answer.status, 200, "{answer:?}");
        let cookie = answer.session_cookie();
        load.writes.fetch_add(3, Ordering::SeqCst);
        for change in 0..CHANGES {
            let name = format!("Name {change}");
            let changed = client.post_json("/.auth/account/profile", &[("Cookie", &cookie)], &json!({ "name": name }));
            assert!(changed.status < 300, "{changed:?}");
            load.writes.fetch_add(1, Ordering::SeqCst);
            if change == 0 {
                let _ = acknowledged.send(Acknowledged { email: email.clone(), cookie: cookie.clone(), name });
            }
            if load.stop.load(Ordering::SeqCst) {
                return;
            }
        }
    }
}

#[derive(Default)]
struct Load {
    writes: AtomicUsize,
    stop: AtomicBool,
}

/// Issue 5, item 7: everything that was acknowledged before the backup began is in it, however much is written
/// meanwhile, and a gateway serves from it. The rate is printed: 500 a second are asked for.
#[test]
fn a_backup_under_load_holds_every_account_and_session_acknowledged_before_it() {
    let gateway = Gateway::start(CONFIG);
    gateway.first_account();
    // so that the copy takes long enough for writes to come in between
    let many = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50000)
        INSERT INTO user (id, email, name, picture, groups, created, rev)
        SELECT 'many' || i, 'many' || i || '@example.com', hex(randomblob(50)), '', 'staff', 1, 0 FROM n";
    Connection::open(gateway.state().join("authgate.db")).unwrap().execute_batch(many).unwrap();
    let place = TempDir::new().unwrap();
    let file = place.path().join("backup.db");
    let (load, (acknowledged, ledger)) = (Load::default(), channel());
    let mut expected = Vec::new();
    std::thread::scope(|scope| {
        for number in 0..8 {
            let (gateway, load, acknowledged) = (&gateway, &load, acknowledged.clone());
            scope.spawn(move || live(gateway, number, load, &acknowledged));
        }
        expected.extend(ledger.iter().take(40));
        expected.extend(ledger.try_iter());
        let (since, so_far) = (Instant::now(), load.writes.load(Ordering::SeqCst));
        gateway.cli(&["backup", file.to_str().unwrap()]);
        let (took, written) = (since.elapsed(), load.writes.load(Ordering::SeqCst) - so_far);
        load.stop.store(true, Ordering::SeqCst);
        assert!(written > 0, "nothing was written meanwhile");
        eprintln!("{written} writes in the {took:?} of the backup");
    });
    let about = std::fs::metadata(&file).unwrap();
    assert_eq!((about.mode() & 0o777, about.uid()), (0o600, std::fs::metadata(gateway.state()).unwrap().uid()));
    assert_eq!(faults(&file), ["ok"]);
    let place = restored(&file, gateway.folder());
    drop(gateway);
    let gateway = Gateway::serve(place);
    assert!(gateway.invite.is_none(), "there are accounts");
    for Acknowledged { email, cookie, name } in &expected {
        let me = gateway.client().get("/.auth/me", &[("Cookie", cookie)]);
        assert_eq!((me.status, &me.json()["email"]), (200, &email.as_str().into()), "{me:?}");
        // a later change may be in it, an earlier one may not
        assert!(me.json()["name"].as_str().unwrap() >= name.as_str(), "{me:?}");
    }
    assert_eq!(gateway.login(&expected[0].email, PASSWORD).status, 200);
    assert_eq!(gateway.login("nobody@example.com", PASSWORD).status, 401);
}

#[test]
fn a_backup_needs_no_running_gateway_and_refuses_what_it_must() {
    let folder = Gateway::whoami().into_folder();
    let run = |arguments: &[&str]| {
        let output = command(folder.path(), arguments).stdin(Stdio::null()).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let file = folder.path().join("copy.db");
    let file = file.to_str().unwrap();
    assert_eq!(run(&["backup", file]).0, 0);
    assert_eq!(
        run(&["backup", file]),
        (1, format!("authgate: {file}: the file already exists and was left untouched\n"))
    );
    assert_eq!(run(&["backup"]).0, 2);
    let empty = TempDir::new().unwrap();
    let state = empty.path().to_str().unwrap();
    assert_eq!(
        run(&["--state-dir", state, "backup", &format!("{state}/copy")]),
        (
            1,
            format!(
                "authgate: {state}/authgate.db: no database: start the gateway, or set its state directory with --state-dir DIR\n"
            )
        )
    );
}

/// docs/backup.md: a newer program's backup is refused and stays as it is; so is one beside the log of the
/// database that it replaces, whose pages would be written over it.
#[test]
fn a_backup_that_cannot_be_served_is_refused_at_the_start() {
    let folder = Gateway::whoami().into_folder();
    let file = folder.path().join("copy.db");
    assert!(command(folder.path(), &["backup", file.to_str().unwrap()]).status().unwrap().success());
    let place = restored(&file, folder.path());
    let log = place.path().join("state/authgate.db-wal");
    std::fs::write(&log, b"what a killed process left").unwrap();
    let (code, text) = refused_start(place.path());
    assert_eq!(code, 1);
    assert!(text.contains("this is a backup next to the write-ahead log (-wal)"), "{text}");
    std::fs::remove_file(&log).unwrap();
    assert!(Gateway::serve(place).client().get("/.auth/login", &[]).status == 200);
    Connection::open(&file).unwrap().execute_batch("PRAGMA user_version = 99").unwrap();
    let (code, text) = refused_start(restored(&file, folder.path()).path());
    assert_eq!(code, 1);
    assert!(text.contains("use a newer authgate; it was left untouched"), "{text}");
}
