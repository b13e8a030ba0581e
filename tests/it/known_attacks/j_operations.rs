//! J: storage, logs, operations. Elsewhere: J3 and J4 (reload), J7 (the unit files in systemd/), the full disk of J5 (faults).

use std::fs::{Permissions, hard_link, metadata, read, remove_file, set_permissions, write};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::process::Command;

use data_encoding::{BASE64, BASE64URL, HEXLOWER};
use ring::digest;
use serde_json::Value;

use super::still_serves;
use crate::gateway::{Gateway, PASSWORD, command, configured, not_here, refused_start, text};

/// tracing-subscriber RUSTSEC-2025-0055, Traefik CVE-2022-23469, OWASP ASVS 16.2.5 and 16.4.1. At every level (J2): `metrics`.
#[test]
fn j1_no_secret_query_cookie_or_body_is_ever_logged_and_lines_stay_lines() {
    let gateway = Gateway::whoami();
    let invite = gateway.invite.clone().unwrap();
    let cookie = gateway.first_account();
    let mut client = gateway.client();
    client.get(
        "/x?canary-query=1",
        &[("Cookie", &cookie), ("X-Canary", "canary-header"), ("Authorization", "Bearer canary-bearer")],
    );
    client.post_form("/x", &[("Cookie", &cookie)], "canary-body=1");
    gateway.login("ada@example.com", "canary-password-wrong");
    gateway.login("canary-typed-into-the-wrong-field", PASSWORD);
    client.get("/a%0A", &[]);
    gateway.client().get("/x", &[("User-Agent", "a\u{1b}[31mb")]);
    gateway.client().get("/.auth/reset/canary-token", &[]);
    gateway.client().get("/.auth/login?callbackUrl=/canary-callback", &[]);
    let folder = gateway.folder().to_path_buf();
    let log = gateway.into_log();
    drop(folder);
    for secret in ["canary", PASSWORD, cookie.split_once('=').unwrap().1, "\u{1b}"] {
        let found: Vec<_> = log.lines().filter(|line| line.contains(secret)).collect();
        assert!(found.is_empty(), "{secret}: {found:?}");
    }
    let token = invite.rsplit('/').next().unwrap();
    let printed: Vec<_> = log.lines().filter(|line| line.contains(token)).collect();
    assert!(printed.iter().all(|line| !line.starts_with('{')), "{printed:?}");
    let access: Vec<Value> = log
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(|line: &Value| line["target"] == "access")
        .collect();
    assert!(access.iter().any(|line| line["path"] == "/x" && line["status"] == 200 && line["user"] == "1"));
    assert!(access.iter().any(|line| line["path"] == "/.auth/reset/"));
}

/// CWE-532. A link that a mail program has changed is refused, and still good: its token is not told to whoever reads the
/// log. Nor is a password in front of a host.
#[test]
fn j9_the_token_of_a_link_in_another_spelling_is_not_logged() {
    let gateway = Gateway::whoami();
    let host = gateway.host();
    let spellings = [
        "//.auth/invite/TOKEN",
        "/.auth//invite/TOKEN",
        "/.auth/invite//TOKEN",
        "/./.auth/invite/TOKEN",
        "/x/../.auth/invite/TOKEN",
        "/.auth/%69nvite/TOKEN",
        "/%2eauth/reset/TOKEN",
        "/.auth%2Finvite%2FTOKEN",
        "/.auth/invite%2fTOKEN",
        "/.auth/%2569nvite/TOKEN",
        "/.AUTH/Invite/TOKEN",
        "/.auth\\reset\\TOKEN",
        "/.auth;x/invite/TOKEN",
        "http://other.example.com/.auth/invite/TOKEN",
        "http://ada:TOKEN@other.example.com/x",
        "http://TOKEN@other.example.com",
        "/app;jsessionid=TOKEN",
        "/.auth/invite/TOKEN/",
        "/.auth/reset/TOKEN%zz",
    ];
    for spelling in spellings {
        let mut client = gateway.client();
        client.send(format!("GET {} HTTP/1.1\r\nHost: {host}\r\n\r\n", spelling.replace("TOKEN", "canary")).as_bytes());
        client.answer();
    }
    gateway.client().get("/team/invite/list", &[]);
    gateway.client().get("/a//b", &[]);
    still_serves(&gateway);
    let log = gateway.into_log();
    let told: Vec<_> = log.lines().filter(|line| line.contains("canary")).collect();
    assert!(told.is_empty(), "{told:#?}");
    for path in ["/team/invite/list", "/a//b"] {
        assert!(log.contains(&format!("\"path\":\"{path}\"")), "an app's own paths are told: {path}");
    }
}

/// Fail closed, and touch nothing: a database that cannot be read is never made anew.
#[test]
fn j5_a_damaged_newer_or_unreadable_database_ends_the_start_with_one_line_and_is_left_alone() {
    let folder = Gateway::whoami().into_folder();
    let database = folder.path().join("state/authgate.db");
    let good = std::fs::read(&database).unwrap();
    let mut damaged = good.clone();
    damaged[..64].fill(b'x');
    let newer = {
        let connection = rusqlite::Connection::open(&database).unwrap();
        connection.pragma_update(None, "user_version", 4_000_000).unwrap();
        drop(connection);
        std::fs::read(&database).unwrap()
    };
    for (what, bytes) in [("damaged", damaged), ("newer", newer), ("no database", b"hello".to_vec())] {
        std::fs::write(&database, &bytes).unwrap();
        let (code, text) = refused_start(folder.path());
        assert_eq!(code, 1, "{what}: {text}");
        let said: Vec<&str> = text.lines().filter(|line| line.starts_with("authgate:")).collect();
        assert!(said.len() == 1 && said[0].contains("authgate.db"), "{what}: {text}");
        assert_eq!(std::fs::read(&database).unwrap(), bytes, "{what}");
    }
    std::fs::write(&database, &good).unwrap();
    let gateway = Gateway::serve(folder);
    let second = refused_start(gateway.folder());
    assert_eq!(second.0, 1, "two gateways on one folder: {}", second.1);
}

/// DNS rebinding: RUSTSEC-2026-0189, Caddy CVE-2026-27589.
#[test]
fn j6_the_admin_listener_answers_loopback_names_alone() {
    let gateway = Gateway::whoami();
    let ask = |path: &str, host: &str| {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(gateway.admin).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    };
    let own = gateway.admin.to_string();
    assert!(ask("/healthz", &own).starts_with("HTTP/1.1 200"));
    assert!(ask("/readyz", "localhost").ends_with("\r\n\r\nok\n"));
    assert!(ask("/metrics", &own).contains("authgate_sessions_active 0"));
    assert!(ask("/metrics", "evil.test").starts_with("HTTP/1.1 421"));
    assert!(ask("/nothing", &own).starts_with("HTTP/1.1 404"));
    assert!(ask("/readyz?verbose", &own).starts_with("HTTP/1.1 200"));
    assert_eq!(gateway.client().get("/metrics", &[]).status, 401);
    let head = crate::client::Client::connect(gateway.admin).request("HEAD /healthz", &[], b"");
    assert_eq!((head.status, head.field("content-length")), (200, Some("3")));
    let posted = crate::client::Client::connect(gateway.admin).request("POST /healthz", &[], b"");
    assert_eq!((posted.status, posted.field("allow")), (405, Some("GET, HEAD")));
}

/// To standard error beside the log, valid 24 hours, void once an account exists.
#[test]
fn j8_the_first_link_is_printed_beside_the_log_and_void_once_an_account_exists() {
    let gateway = Gateway::whoami();
    let link = gateway.invite.clone().unwrap();
    gateway.add_user("ada@example.com", &["admin"]);
    let body = serde_json::json!({ "email": "eve@example.com", "password": PASSWORD });
    assert_eq!(gateway.client().post_json(&link, &[], &body).status, 404);
    assert_eq!(gateway.login("ada@example.com", PASSWORD).status, 200);
    still_serves(&gateway);
    let log = gateway.into_log();
    let token = link.rsplit('/').next().unwrap();
    let printed: Vec<_> = log.lines().filter(|line| line.contains(token)).collect();
    assert!(printed.len() == 1 && !printed[0].starts_with('{'), "{printed:?}");
}

/// CWE-59: a service that was taken over leaves links in its folder, and waits for root to run a command there, which
/// gives every file to the folder's owner.
#[test]
fn j9_a_command_of_roots_follows_no_link_out_of_the_services_folder() {
    const NOBODY: u32 = 65534;
    let folder = configured("[[route]]\nupstream = \"builtin:whoami\"\n");
    let [state, elsewhere, missing] = ["state", "elsewhere", "missing"].map(|name| folder.path().join(name));
    std::fs::create_dir(&state).unwrap();
    if chown(&state, Some(NOBODY), Some(NOBODY)).is_err() {
        return not_here("only root's commands give files to others");
    }
    let mut count = 0;
    let mut add = |more: &[&str]| {
        count += 1;
        let email = format!("u{count}@example.com");
        command(folder.path(), &[more, &["user", "add", &email]].concat()).output().unwrap()
    };
    write(&elsewhere, "root's").unwrap();
    set_permissions(&elsewhere, Permissions::from_mode(0o644)).unwrap();
    // the change is on disk before anybody asks whether a gateway runs
    let refusals = [("authgate.db", "is a link to another file"), ("lock", "was left untouched")];
    for (name, refusal) in refusals {
        let place = state.join(name);
        let leads: [(&str, &dyn Fn()); 3] = [
            ("a link", &|| symlink(&elsewhere, &place).unwrap()),
            ("a link to nothing", &|| symlink(&missing, &place).unwrap()),
            ("another name", &|| hard_link(&elsewhere, &place).unwrap()),
        ];
        for (what, lead) in leads {
            let _ = remove_file(&place);
            lead();
            let said = String::from_utf8(add(&[]).stderr).unwrap();
            let about = metadata(&elsewhere).unwrap();
            assert_eq!(
                (about.uid(), about.mode() & 0o777, missing.exists()),
                (0, 0o644, false),
                "{name}, {what}: {said}"
            );
            assert!(said.contains(refusal), "{name}, {what}: {said}");
            assert_eq!(read(&elsewhere).unwrap(), b"root's");
        }
        remove_file(&place).unwrap();
    }
    // what a gateway says to commands is not waited for, either
    assert!(Command::new("mkfifo").arg(state.join("applied")).status().unwrap().success());
    assert!(add(&[]).status.success());
    // a link to the folder itself is whoever names it's: /var/lib/authgate is one, where systemd made the user
    symlink(&state, folder.path().join("there")).unwrap();
    let there = folder.path().join("there");
    assert!(add(&["--state-dir", there.to_str().unwrap()]).status.success());
    for name in ["authgate.db", "lock"] {
        assert_eq!(metadata(state.join(name)).unwrap().uid(), NOBODY, "{name}");
    }
    remove_file(state.join("applied")).unwrap();
    still_serves(&Gateway::serve(folder));
}

/// CWE-916, OWASP ASVS 16.2.5: somebody types the password where the address belongs. Log and database name the try, and
/// give whoever reads them no hash to try guesses on.
#[test]
fn j10_what_was_typed_in_the_place_of_an_address_cannot_be_guessed_from_what_is_kept() {
    let gateway = Gateway::start("[throttle]\nmax_retries = 2\n[[route]]\nupstream = \"builtin:whoami\"\n");
    gateway.first_account();
    let statuses = [(); 3].map(|()| gateway.login(PASSWORD, "x").status);
    assert_eq!(statuses, [401, 401, 429], "it counts");
    assert_eq!(gateway.login("another long sentence here", "x").status, 401, "by itself");
    let bans = gateway.cli(&["ban", "list"]);
    let name = bans.split_whitespace().find(|word| word.starts_with("no-address-")).unwrap();
    gateway.cli(&["ban", "lift", name]);
    assert_eq!(gateway.login(PASSWORD, "x").status, 401, "lifted by its name");
    let state = gateway.state();
    let kept = ["authgate.db", "authgate.db-wal"].map(|name| read(state.join(name)).unwrap_or_default()).concat();
    let log = gateway.into_log();
    assert!(log.contains(name) && log.contains("ada@example.com"), "{log}");
    let kept = [log.into_bytes(), kept].concat();
    let hashes = [&digest::SHA256, &digest::SHA512, &digest::SHA1_FOR_LEGACY_USE_ONLY];
    for hash in hashes.map(|kind| digest::digest(kind, PASSWORD.as_bytes())) {
        let hash = &hash.as_ref()[..6];
        for text in
            [hash, BASE64URL.encode(hash).as_bytes(), BASE64.encode(hash).as_bytes(), HEXLOWER.encode(hash).as_bytes()]
        {
            assert!(!kept.windows(text.len()).any(|part| part == text), "{}", String::from_utf8_lossy(text));
        }
    }
}

/// CWE-150: a file to be imported, a listener in the gateway's place, a token's name.
#[test]
fn j11_what_others_wrote_draws_nothing_on_the_terminal_of_an_operator() {
    let gateway = Gateway::whoami();
    let cookie = gateway.first_account();
    let escape = "\u{1b}]0;owned\u{7}\u{9b}2J";
    let file = gateway.folder().join("people.csv");
    write(&file, format!("{escape},x\nbea@example.com,y\n")).unwrap();
    let file = file.to_str().unwrap();
    let (listener, answered) = (TcpListener::bind("127.0.0.1:0").unwrap(), format!("HTTP/1.1 503 x\r\n\r\n{escape}\n"));
    let address = listener.local_addr().unwrap();
    let speaker = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        // without end, or nearly
        (0..8 << 20).take_while(|_| stream.write_all(answered.as_bytes()).is_ok()).count()
    });
    gateway.write(
        &text("[[route]]\nupstream = \"builtin:whoami\"\n")
            .replace("admin_listen = \"127.0.0.1:0\"", &format!("admin_listen = \"{address}\"")),
    );
    for (arguments, says) in [
        (&["user", "import", file, "--format", "csv"][..], "no column with e-mails"),
        (&["user", "import", file, "--format", "csv", "--email-column", "email"], "no column `email`"),
        (&["healthcheck"], "the gateway is not ready"),
    ] {
        let output = gateway.cli_with(arguments, "");
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(!output.status.success() && said.contains(says), "{arguments:?}: {said}");
        assert!(!said.contains(['\u{1b}', '\u{7}', '\u{9b}']) && said.len() < 20_000, "{arguments:?}: {said:?}");
    }
    assert!(speaker.join().unwrap() < 1 << 20, "it was read for as long as it spoke");
    let create = |name: &str| {
        let body = serde_json::json!({ "token_name": name, "current_password": PASSWORD });
        gateway.client().post_json("/.auth/account/tokens", &[("Cookie", &cookie)], &body).status
    };
    let statuses = ["x\u{202e}y", "x\u{61c}y", "x\u{e0041}y", "x\u{1b}y", "the backup \u{2764}\u{fe0f}"].map(create);
    assert_eq!(statuses, [400, 400, 400, 400, 201]);
    assert!(gateway.cli(&["token", "list"]).contains("the backup \u{2764}\u{fe0f}"));
    still_serves(&gateway);
}
