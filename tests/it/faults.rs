//! What must not get lost: crashes, full disks, damaged files, secrets in logs.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::Client;
use crate::fixtures::fill_up;
use crate::gateway::{Gateway, PASSWORD, command, configured, eventually, is_here, not_here};

const OPEN: &str = "[sign_up]\nmode = \"open\"\n[throttle]\nmax_retries = 1000\n[limits]\nconnections_per_address = 1000\n[[route]]\nupstream = \"builtin:whoami\"\n";

/// One POST that may be cut off at any moment; the status if a whole answer came.
fn attempt(address: std::net::SocketAddr, path: &str, cookie: &str, body: &Value) -> Option<u16> {
    let done =
        std::panic::catch_unwind(|| Client::connect(address).post_json(path, &[("Cookie", cookie)], body).status);
    done.ok()
}

#[test]
fn kill_9_during_sign_ups_and_password_changes_loses_nothing_acknowledged() {
    std::panic::set_hook(Box::new(|_| {}));
    let mut gateway = Gateway::start(OPEN);
    gateway.first_account();
    let mut passwords: Vec<(String, Vec<String>)> = Vec::new();
    let mut done = 0;
    for round in 0..4 {
        let acknowledged = Mutex::new(Vec::new());
        let stop = AtomicBool::new(false);
        let address = gateway.address;
        std::thread::scope(|scope| {
            for worker in 0..4 {
                let (acknowledged, stop) = (&acknowledged, &stop);
                scope.spawn(move || {
                    for number in 0..30 {
                        if stop.load(Ordering::Relaxed) {
                            return;
                        }
                        let email = format!("u{round}-{worker}-{number}@example.com");
                        let signed_up =
                            attempt(address, "/.auth/signup", "a=1", &json!({ "email": email, "password": PASSWORD }));
                        if signed_up != Some(201) {
                            continue;
                        }
                        let mut may_be = vec![PASSWORD.to_owned()];
                        let login = std::panic::catch_unwind(|| {
                            Client::connect(address)
                                .post_json("/.auth/login", &[], &json!({ "email": email, "password": PASSWORD }))
                                .session_cookie()
                        });
                        if let Ok(cookie) = login {
                            let new = format!("a new long sentence {number}");
                            let change = json!({ "current_password": PASSWORD, "password": new });
                            match attempt(address, "/.auth/account/password", &cookie, &change) {
                                Some(200) => may_be = vec![new],
                                // not acknowledged: either may hold
                                _ => may_be.push(new),
                            }
                        }
                        acknowledged.lock().unwrap().push((email, may_be));
                    }
                });
            }
            let enough = 14 * (round + 1);
            while acknowledged.lock().map_or(true, |done| done.len() < enough) {
                std::thread::yield_now();
            }
            gateway.signal("KILL");
            stop.store(true, Ordering::Relaxed);
        });
        done += acknowledged.lock().unwrap().len();
        passwords.extend(acknowledged.into_inner().unwrap());
        gateway = gateway.kill_and_restart();
    }
    let _ = std::panic::take_hook();
    assert!(done >= 100, "{done} sign-ups and as many password changes");
    let database = gateway.state().join("authgate.db");
    let connection = rusqlite::Connection::open(&database).unwrap();
    let verdict: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok");
    for (email, may_be) in passwords {
        assert!(may_be.iter().any(|password| gateway.login(&email, password).status == 200), "{email}: {may_be:?}");
    }
}

/// Sign-ins that wait for their turn at the hash workers when the gateway is told to stop: each is answered, and
/// what was granted holds after the next start.
#[test]
fn sign_ins_that_wait_in_the_queue_are_all_answered_before_the_gateway_stops() {
    const WAITING: usize = 7;
    let gateway = Gateway::start(&format!(
        "[password]\nargon2 = {{ memory_kib = 32768, iterations = 2, parallelism = 1 }}\n{OPEN}"
    ));
    gateway.first_account();
    let body = |password: &str| json!({ "email": "ada@example.com", "password": password }).to_string();
    let clients: Vec<Client> = (0..WAITING)
        .map(|number| {
            let (mut client, body) = (gateway.client(), body(if number == 3 { "a wrong password" } else { PASSWORD }));
            let head = "POST /.auth/login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: ";
            client.send(format!("{head}{}\r\n\r\n{body}", body.len()).as_bytes());
            client
        })
        .collect();
    eventually("they wait", || gateway.metric("authgate_password_hash_queue") > 4);
    gateway.signal("TERM");
    let answers: Vec<_> = clients.into_iter().map(|mut client| client.answer()).collect();
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert!((0..WAITING).all(|number| statuses[number] == if number == 3 { 401 } else { 200 }), "{statuses:?}");
    let gateway = Gateway::serve(gateway.into_folder());
    for answer in answers.iter().filter(|answer| answer.status == 200) {
        assert_eq!(gateway.client().get("/x", &[("Cookie", &answer.session_cookie())]).status, 200);
    }
}

#[test]
fn state_is_for_its_owner_alone() {
    let gateway = Gateway::whoami();
    gateway.first_account();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&gateway.state()), 0o700);
    for entry in std::fs::read_dir(gateway.state()).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
}

/// A file system of its own for the state. `None` where it cannot be had.
struct Disk {
    state: PathBuf,
}

impl Disk {
    fn mount(folder: &Path, arguments: &[&str]) -> Option<Self> {
        let state = folder.join("state");
        std::fs::create_dir_all(&state).unwrap();
        let mounted = Command::new("mount").args(arguments).arg(&state).status().unwrap().success();
        if !mounted {
            not_here("file systems cannot be mounted");
        }
        mounted.then(|| Self { state })
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let done = Command::new("umount").arg(&self.state).status();
        assert!(std::thread::panicking() || done.unwrap().success());
    }
}

#[test]
fn a_full_disk_keeps_sessions_working_and_answers_writes_with_503() {
    let folder = configured(OPEN);
    let Some(disk) = Disk::mount(folder.path(), &["-t", "tmpfs", "-o", "size=4m,mode=0700", "authgate-test"]) else {
        return;
    };
    let gateway = Gateway::serve(folder);
    let cookie = gateway.first_account();
    let filler = fill_up(&disk.state);
    let mut statuses = Vec::new();
    for number in 0..40 {
        let body = json!({ "email": format!("u{number}@example.com"), "password": PASSWORD });
        statuses.push(gateway.client().post_json("/.auth/signup", &[], &body).status);
    }
    let during = gateway.client().get("/x", &[("Cookie", &cookie)]).status;
    let unready = Client::connect(gateway.admin).get("/readyz", &[]).status;
    let counted = Client::connect(gateway.admin).get("/metrics", &[]).text();
    // what was taken away ends all the same: room is kept for that
    let doomed = gateway.cli_with(&["session", "revoke", "--all"], "");
    let ended = gateway.client().get("/x", &[("Cookie", &cookie)]).status;
    std::fs::remove_file(&filler).unwrap();
    let ready = Client::connect(gateway.admin).get("/readyz", &[]).status;
    let body = json!({ "email": "after@example.com", "password": PASSWORD });
    let after = gateway.client().post_json("/.auth/signup", &[], &body).status;
    let (_folder, log) = gateway.into_folder_and_log();
    let database = disk.state.join("authgate.db");
    drop(disk);
    let full = counted.lines().find(|line| line.starts_with("authgate_store_errors_total{kind=\"full\"}")).unwrap();
    assert!(!full.ends_with(" 0"), "{full}");
    assert!(log.contains(&format!("{}: database error: ", database.display())), "{log}");
    assert!(doomed.status.success(), "{}", String::from_utf8_lossy(&doomed.stderr));
    assert_eq!((unready, ended, ready), (503, 401, 200));
    assert!(statuses.iter().all(|status| [201, 503].contains(status)) && statuses.contains(&503), "{statuses:?}");
    assert_eq!((during, after), (200, 201));
}

/// As much as there may ever be to end: their rows are many times the room that is kept.
#[test]
fn on_a_full_disk_sessions_end_at_once_however_many_there_are_and_are_written_when_there_is_room() {
    let folder = configured(OPEN);
    let Some(disk) = Disk::mount(folder.path(), &["-t", "tmpfs", "-o", "size=64m,mode=0700", "authgate-test"]) else {
        return;
    };
    let gateway = Gateway::serve(folder);
    let cookie = gateway.first_account();
    gateway.add_user("bea@example.com", &[]);
    let others = gateway.sign_in("bea@example.com");
    let database = rusqlite::Connection::open(disk.state.join("authgate.db")).unwrap();
    database.busy_timeout(std::time::Duration::from_secs(5)).unwrap();
    let standing = || -> u32 {
        database.query_row("SELECT count(*) FROM session WHERE ended_at IS NULL", [], |row| row.get(0)).unwrap()
    };
    let fill = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 25000)
         INSERT INTO session (id, user_id, created, expires, seen, remember, address, user_agent, rev)
         SELECT id || i, user_id, created, expires, seen, 1, '192.0.2.1', 'a browser', rev FROM n, session";
    database.execute_batch(&format!("{fill}; PRAGMA wal_checkpoint(TRUNCATE)")).unwrap();
    let filler = fill_up(&disk.state);
    let asks =
        |gateway: &Gateway| [&cookie, &others].map(|cookie| gateway.client().get("/x", &[("Cookie", cookie)]).status);
    let does = |gateway: &Gateway, arguments: &[&str]| {
        let done = gateway.cli_with(arguments, "");
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success() && said.contains("the disk is full"), "{said}");
        said
    };
    assert_eq!(asks(&gateway), [200, 200]);
    does(&gateway, &["user", "disable", "bea@example.com"]);
    assert_eq!(asks(&gateway), [200, 401]);
    assert!(does(&gateway, &["session", "revoke", "--all"]).contains("ended 25001 sessions"));
    assert_eq!((asks(&gateway), standing()), ([401, 401], 50_002));
    assert_eq!(gateway.cli(&["session", "list", "--json"]).trim(), "[]");
    assert!(gateway.cli_with(&["key", "rotate", "--drop-old"], "").status.success());
    // after a restart, too
    let gateway = Gateway::serve(gateway.into_folder());
    assert_eq!((asks(&gateway), standing()), ([401, 401], 50_002));
    std::fs::remove_file(&filler).unwrap();
    eventually("the rows are written", || standing() == 0);
    let later = gateway.sign_in("ada@example.com");
    assert_eq!((asks(&gateway), gateway.client().get("/x", &[("Cookie", &later)]).status), ([401, 401], 200));
    drop(database);
    let _folder = gateway.into_folder();
    drop(disk);
}

/// What ext4 does after an error of the disk: from one moment to the next, nothing can be written.
#[test]
fn a_disk_that_turns_read_only_keeps_sessions_working_and_loses_nothing_that_was_granted() {
    let folder = configured(OPEN);
    let image = folder.path().join("disk");
    std::fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
    assert!(Command::new("/usr/sbin/mkfs.ext4").arg("-q").arg(&image).status().unwrap().success());
    let options = ["-o", "loop", image.to_str().unwrap()];
    let Some(disk) = Disk::mount(folder.path(), &options) else { return };
    std::fs::set_permissions(&disk.state, std::fs::Permissions::from_mode(0o700)).unwrap();
    let gateway = Gateway::serve(folder);
    let cookie = gateway.first_account();
    let sign_up = |gateway: &Gateway, email: &str| {
        let body = json!({ "email": email, "password": PASSWORD });
        gateway.client().post_json("/.auth/signup", &[], &body).status
    };
    let asks = |gateway: &Gateway| gateway.client().get("/x", &[("Cookie", &cookie)]).status;
    assert_eq!(sign_up(&gateway, "bea@example.com"), 201);
    let bea = gateway.sign_in("bea@example.com");

    let abort = Command::new("mount").args(["-o", "remount,abort"]).arg(&disk.state).status().unwrap();
    assert!(abort.success());
    assert_eq!(sign_up(&gateway, "cy@example.com"), 503);
    assert_eq!(gateway.login("bea@example.com", PASSWORD).status, 503);
    // whoever cannot be signed out is told so
    assert_eq!(gateway.client().request("POST /.auth/logout", &[("Cookie", &bea)], b"").status, 503);
    let health = |path: &str| Client::connect(gateway.admin).get(path, &[]).status;
    assert_eq!((asks(&gateway), health("/healthz"), health("/readyz")), (200, 200, 503));
    assert!(gateway.metric("authgate_store_errors_total{kind=\"io\"}") >= 2);

    let folder = gateway.into_folder();
    drop(disk);
    // its journal is played back, as by a restart of the machine
    let Some(disk) = Disk::mount(folder.path(), &options) else { return };
    let gateway = Gateway::serve(folder);
    assert_eq!(asks(&gateway), 200);
    assert_eq!(gateway.login("bea@example.com", PASSWORD).status, 200);
    assert_eq!(gateway.client().request("POST /.auth/logout", &[("Cookie", &bea)], b"").status, 303);
    assert_eq!(gateway.login("cy@example.com", PASSWORD).status, 401, "it was refused, so it did not happen");
    assert_eq!(sign_up(&gateway, "cy@example.com"), 201);
    let _folder = gateway.into_folder();
    drop(disk);
}

/// Another process holds the database for as long as it likes: what is checked in memory goes on, changes wait a
/// little and are then refused, and nothing that was refused has happened.
#[test]
fn a_locked_database_leaves_sessions_working_and_refuses_changes_until_it_is_free() {
    let gateway = Gateway::start(OPEN);
    let cookie = gateway.first_account();
    let other = rusqlite::Connection::open(gateway.state().join("authgate.db")).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let sign_up = |gateway: &Gateway| {
        let body = json!({ "email": "bea@example.com", "password": PASSWORD });
        gateway.client().post_json("/.auth/signup", &[], &body)
    };
    let refused = std::thread::scope(|scope| {
        let refused = scope.spawn(|| sign_up(&gateway));
        while !refused.is_finished() {
            assert_eq!(gateway.client().get("/x", &[("Cookie", &cookie)]).status, 200);
        }
        refused.join().unwrap()
    });
    assert_eq!(refused.status, 503, "{refused:?}");
    assert_eq!(gateway.login("ada@example.com", PASSWORD).status, 503);
    other.execute_batch("COMMIT").unwrap();
    assert_eq!(gateway.login("bea@example.com", PASSWORD).status, 401, "it was refused, so it did not happen");
    assert_eq!(sign_up(&gateway).status, 201);
    assert_eq!(gateway.login("bea@example.com", PASSWORD).status, 200);
    assert_eq!(gateway.client().get("/x", &[("Cookie", &cookie)]).status, 200);
}

/// CWE-779: a state that lasts does not fill the log with its lines, and ends without a restart.
#[test]
fn no_open_files_left_is_reported_now_and_then_and_passes() {
    let folder = configured("[[route]]\naccess = \"public\"\nupstream = \"builtin:whoami\"\n");
    let own = command(folder.path(), &["run"]);
    let mut limited = Command::new("prlimit");
    limited.arg("--nofile=128:128").arg(own.get_program()).args(own.get_args()).env_remove("RUST_LOG");
    let mut gateway = Gateway::spawn(limited, folder);
    let held: Vec<_> = (0..150).map(|_| TcpStream::connect(gateway.address).unwrap()).collect();
    gateway.wait_for(|_, line| line.contains("accept failed"));
    let began = Instant::now();
    // twenty tries a second and thread
    eventually("a second is over", || began.elapsed() > Duration::from_secs(1));
    drop(held);
    assert_eq!(gateway.client().get("/x", &[]).status, 200);
    let told = gateway.into_log().matches("accept failed").count();
    let threads = std::thread::available_parallelism().unwrap().get();
    assert!(told <= threads, "{told} lines");
}

/// Reliability goal G-15: they are shed when the time for a head is over, and hinder nobody until then.
#[test]
fn five_thousand_dripping_connections_are_shed_and_no_one_waits_for_them() {
    const DRIPPING: usize = 5000;
    if !is_here("ss") {
        return;
    }
    let gateway = Gateway::start(
        "[limits]\nhead_time = \"6s\"\nconnections_per_address = 10000\n[[route]]\naccess = \"public\"\nupstream = \"builtin:whoami\"\n",
    );
    // a queue that overflows makes clients wait for a second each (its length is what ss calls Send-Q)
    let port = format!(":{}", gateway.address.port());
    let listens = Command::new("ss").args(["-ltnH", "sport", "=", &port]).output().unwrap().stdout;
    let queue: u32 = String::from_utf8(listens).unwrap().split_whitespace().nth(2).unwrap().parse().unwrap();
    let most: u32 = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap().trim().parse().unwrap();
    assert_eq!(queue, most.min(4096));
    let mut dripping: Vec<TcpStream> = (0..DRIPPING).map(|_| TcpStream::connect(gateway.address).unwrap()).collect();
    let (mut good, mut held) = (gateway.client(), 0);
    for byte in b"GET" {
        for client in &mut dripping {
            let _ = client.write_all(&[*byte]);
        }
        assert_eq!(good.get("/x", &[]).status, 200);
        assert_eq!(gateway.client().get("/x", &[]).status, 200);
        held = held.max(gateway.metric("authgate_connections"));
    }
    assert!(held > DRIPPING as u64, "{held}");
    for client in &mut dripping {
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut told = Vec::new();
        client.read_to_end(&mut told).expect("it was never shed");
        assert!(told.starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&told));
    }
    assert_eq!(good.get("/x", &[]).status, 200);
    eventually("their places are free", || gateway.metric("authgate_connections") < 4);
}
