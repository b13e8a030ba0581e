//! What an operator with the documentation in hand runs into: output that is lost, a broken configuration beside a
//! gateway that serves, a database in the wrong folder, commands that ask and commands that wait.

use std::fs::{File, OpenOptions, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rusqlite::Connection;
use serde_json::Value;

use crate::gateway::{Gateway, PASSWORD, command, configured, not_here};

const WHOAMI: &str = "[[route]]\nupstream = \"builtin:whoami\"\n";

fn run(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    told(command(folder, arguments).stdin(Stdio::null()).output().unwrap())
}

fn told(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// A folder with a database in it and nobody serving.
fn with_database() -> tempfile::TempDir {
    let folder = configured(WHOAMI);
    assert_eq!(run(folder.path(), &["user", "add", "ada@example.com"]).0, 0);
    folder
}

fn count(folder: &Path, table: &str) -> u32 {
    let database = Connection::open(folder.join("state/authgate.db")).unwrap();
    database.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

/// coreutils 9782: a token that nobody has seen would work for months.
#[test]
fn what_is_shown_once_is_taken_back_where_it_could_not_be_shown() {
    let folder = with_database();
    let links = count(folder.path(), "link");
    let gone = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        Stdio::from(writer)
    };
    let full = || Stdio::from(OpenOptions::new().write(true).open("/dev/full").unwrap());
    for arguments in [
        &["token", "create", "ada@example.com", "--name", "backup"][..],
        &["invite"],
        &["user", "reset", "ada@example.com"],
        &["user", "add", "bob@example.com"],
    ] {
        for lost in [full(), gone()] {
            let (code, _, said) = told(command(folder.path(), arguments).stdout(lost).output().unwrap());
            assert_eq!(code, 1, "{arguments:?}: {said}");
            let last = said.lines().last().unwrap();
            assert!(last.starts_with("authgate: cannot write to standard output: "), "{arguments:?}: {said}");
            assert!(last.ends_with("; the secret that could not be printed was revoked"), "{arguments:?}: {said}");
        }
        assert_eq!(run(folder.path(), &["token", "list", "--json"]).1.trim(), "[]");
        assert_eq!((count(folder.path(), "link"), count(folder.path(), "user")), (links, 1), "{arguments:?}");
        assert_eq!(run(folder.path(), arguments).0, 0, "{arguments:?}");
        assert_eq!(run(folder.path(), &["user", "show", "ada@example.com"]).0, 0);
        Connection::open(folder.path().join("state/authgate.db"))
            .unwrap()
            .execute_batch("DELETE FROM api_token; DELETE FROM link WHERE rowid NOT IN (SELECT min(rowid) FROM link); DELETE FROM user WHERE email = 'bob@example.com'")
            .unwrap();
    }
}

#[test]
fn a_listing_that_is_lost_on_a_full_disk_is_a_failure_and_one_cut_short_by_its_reader_is_not() {
    let folder = with_database();
    for arguments in [
        &["user", "list"][..],
        &["user", "list", "--json"],
        &["user", "show", "ada@example.com"],
        &["session", "list"],
        &["token", "list"],
        &["key", "list"],
        &["ban", "list"],
        &["audit", "list"],
        &["explain", "GET", "/"],
        &["check"],
        &["check", "--json"],
        &["completions", "bash"],
        &["man"],
        &["help", "user"],
        &["--help"],
    ] {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let (code, _, said) = told(command(folder.path(), arguments).stdout(full).output().unwrap());
        assert_eq!(code, 1, "{arguments:?}: {said}");
        assert!(!said.contains("panicked"), "{arguments:?}: {said}");
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let (code, _, said) = told(command(folder.path(), arguments).stdout(writer).output().unwrap());
        assert_eq!(code, 0, "{arguments:?}: {said}");
    }
}

/// A slip in the file while the gateway serves on what it read before: without these commands nobody can be signed out.
#[test]
fn a_broken_configuration_takes_no_command_away_that_an_emergency_needs() {
    let gateway = Gateway::whoami();
    gateway.first_account();
    let whole = std::fs::read_to_string(gateway.folder().join("gateway.toml")).unwrap();
    let whole = whole.replace("admin_listen = \"127.0.0.1:0\"", &format!("admin_listen = \"{}\"", gateway.admin));
    let state = gateway.folder().join("elsewhere");
    std::os::unix::fs::symlink(gateway.state(), &state).unwrap();
    let whole = whole.replace("[server]\n", "[server]\nstate_dir = \"elsewhere\"\n");
    for (number, broken) in [
        whole.replace("watch", "wacth"),
        whole.replace("[[route]]", "[[route]"),
        whole.replace("listen = [\"127.0.0.1:0\"]", "listen = [\"127.0.0.1:0\""),
        whole.replace("builtin:whoami", "${NO_SUCH_NAME}"),
        format!("\u{0}{whole}"),
    ]
    .into_iter()
    .enumerate()
    {
        let cookie = gateway.sign_in("ada@example.com");
        gateway.write(&broken);
        let copy = gateway.folder().join(format!("copy{number}.db"));
        for arguments in [
            &["healthcheck"][..],
            &["user", "list"],
            &["ban", "list"],
            &["backup", copy.to_str().unwrap()],
            &["user", "disable", "ada@example.com"],
            &["user", "enable", "ada@example.com"],
            &["session", "revoke", "--all"],
        ] {
            let (code, _, said) = run(gateway.folder(), arguments);
            assert_eq!(code, 0, "{number} {arguments:?}: {said}");
            assert!(said.starts_with("warning: ") && said.contains("(see authgate check)"), "{number}: {said}");
        }
        assert_eq!(gateway.client().get("/", &[("Cookie", &cookie)]).status, 401, "{number}");
        for arguments in [&["check"][..], &["run"], &["explain", "GET", "/"]] {
            assert_eq!(run(gateway.folder(), arguments).0, 64, "{number} {arguments:?}");
        }
    }
    gateway.write(&whole);
    assert_eq!(run(gateway.folder(), &["user", "list"]).2, "");
}

#[test]
fn beside_a_broken_configuration_no_database_is_made() {
    let folder = configured("stat_dir = \"/srv/authgate\"\n[[route]]\nupstream = \"builtin:whoami\"\n");
    let (code, _, said) = run(folder.path(), &["user", "add", "ada@example.com"]);
    assert_eq!(code, 1);
    assert!(said.contains("contains no database") && said.contains("--state-dir DIR"), "{said}");
    assert!(!folder.path().join("state").exists());
}

#[test]
fn a_command_that_makes_a_database_says_so() {
    let folder = configured(WHOAMI);
    let (code, _, said) = run(folder.path(), &["user", "add", "ada@example.com"]);
    let line = format!("created a new database in {}\n", folder.path().join("state").display());
    assert!(code == 0 && said.starts_with(&line), "{said}");
    let (code, _, said) = run(folder.path(), &["user", "add", "bob@example.com"]);
    assert!(code == 0 && !said.contains("database"), "{said}");
}

#[test]
fn check_calls_no_file_good_whose_tests_fail() {
    let test = |expect: &str| format!("[[test]]\nrequest = \"GET /x\"\nexpect = \"{expect}\"\n");
    let folder = configured(&format!("{WHOAMI}{}{}", test("login"), test("404")));
    let (code, out, _) = run(folder.path(), &["check"]);
    let file = folder.path().join("gateway.toml");
    assert!(out.ends_with(&format!("{}: 1 of 2 tests FAILED\n", file.display())), "{out}");
    assert!(code == 1 && !out.contains("valid"), "{out}");
    let folder = configured(&format!("{WHOAMI}{}", test("login")));
    let (code, out, _) = run(folder.path(), &["check"]);
    assert!(code == 0 && out.ends_with("gateway.toml is valid; 1 of 1 tests passed\n"), "{out}");
}

#[test]
fn the_first_link_names_the_machine_where_all_addresses_are_listened_on() {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim().to_lowercase();
    let folder = configured("");
    let text = format!("[server]\nlisten = [\"0.0.0.0:0\"]\nadmin_listen = \"127.0.0.1:0\"\n{WHOAMI}");
    std::fs::write(folder.path().join("gateway.toml"), text).unwrap();
    let log = Gateway::serve(folder).into_log();
    if name == "localhost" || name.is_empty() {
        return not_here("this machine has no name");
    }
    assert!(log.contains(&format!("  http://{name}/.auth/invite/")), "{log}");
    assert!(log.contains("set server.public_url"), "{log}");
    let log = Gateway::whoami().into_log();
    assert!(log.contains("  http://127.0.0.1") && !log.contains("set server.public_url"), "{log}");
}

#[test]
fn healthcheck_waits_silently_until_the_gateway_is_ready() {
    let folder = configured("");
    let admin = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = format!("[server]\nlisten = [\"127.0.0.1:0\"]\nadmin_listen = \"{admin}\"\n{WHOAMI}");
    std::fs::write(folder.path().join("gateway.toml"), text).unwrap();
    let (code, _, said) = run(folder.path(), &["healthcheck", "--wait", "1s"]);
    assert_eq!((code, said.lines().count()), (1, 1), "{said}");
    let mut waiting = command(folder.path(), &["healthcheck", "--wait", "30s"]);
    let waiting = waiting.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let gateway = Gateway::serve(folder);
    let (code, out, said) = told(waiting.wait_with_output().unwrap());
    assert_eq!((code, out.as_str(), said.as_str()), (0, "", ""));
    assert_eq!(run(gateway.folder(), &["healthcheck", "--wait", "soon"]).0, 2);
}

/// What a person types at a terminal, and what is shown there.
fn at_a_terminal(folder: &Path, arguments: &[&str], typed: &str) -> String {
    let binary = env!("CARGO_BIN_EXE_authgate");
    let line = format!("{binary} --config {}/gateway.toml {}", folder.display(), arguments.join(" "));
    let mut script = Command::new("script");
    script.args(["-qec", &line, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = script.spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), typed.as_bytes()).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
}

#[test]
fn user_remove_takes_several_asks_at_a_terminal_and_removes_none_where_one_is_wrong() {
    let folder = with_database();
    for name in ["bob", "cem", "dan", "eve"] {
        assert_eq!(run(folder.path(), &["user", "add", &format!("{name}@example.com")]).0, 0);
    }
    let left = || count(folder.path(), "user");
    let (code, _, said) = run(folder.path(), &["user", "remove", "bob@example.com", "nobody@example.com"]);
    assert_eq!((code, left()), (1, 5), "{said}");
    let shown = at_a_terminal(folder.path(), &["user", "remove", "bob@example.com"], "n\n");
    assert!(shown.contains("Permanently remove bob@example.com") && shown.contains("nothing was removed"), "{shown}");
    assert_eq!(left(), 5);
    at_a_terminal(folder.path(), &["user", "remove", "bob@example.com"], "y\n");
    assert_eq!(left(), 4);
    let shown = at_a_terminal(folder.path(), &["user", "remove", "--yes", "cem@example.com"], "");
    assert!(!shown.contains('?') && left() == 3, "{shown}");
    assert_eq!(run(folder.path(), &["user", "remove", "dan@example.com", "eve@example.com", "DAN@example.com"]).0, 0);
    assert_eq!(left(), 1);
}

#[test]
fn help_is_a_command_too_and_shows_the_exit_codes() {
    let folder = configured(WHOAMI);
    let help = |arguments: &[&str]| run(folder.path(), arguments).1;
    assert_eq!(help(&["help"]), help(&["--help"]));
    assert_eq!(help(&["help", "user", "add"]), help(&["user", "add", "--help"]));
    assert!(
        help(&["help"]).contains("Exit codes: 0 success, 1 failed or refused, 2 usage error, 64 invalid configuration")
    );
    assert_eq!(run(folder.path(), &["help", "nonsense"]).0, 2);
}

#[test]
fn accounts_are_listed_by_pattern_group_and_state() {
    let folder = with_database();
    for arguments in [
        &["user", "add", "bob@example.com", "--group", "staff", "--name", "Robert"][..],
        &["user", "add", "cem@example.org", "--group", "staff"],
        &["user", "disable", "cem@example.org"],
    ] {
        assert_eq!(run(folder.path(), arguments).0, 0);
    }
    for (arguments, expected) in [
        (&[][..], &["ada@example.com", "bob@example.com", "cem@example.org"][..]),
        (&["example.com"], &["ada@example.com", "bob@example.com"]),
        (&["*@example.org"], &["cem@example.org"]),
        (&["ROBERT"], &["bob@example.com"]),
        (&["--group", "staff"], &["bob@example.com", "cem@example.org"]),
        (&["--disabled"], &["cem@example.org"]),
        (&["bob", "--disabled"], &[]),
    ] {
        let rows = run(folder.path(), &[&["user", "list", "--json"], arguments].concat()).1;
        let rows: Vec<Value> = serde_json::from_str(&rows).unwrap();
        let emails: Vec<_> = rows.iter().map(|row| row["email"].as_str().unwrap()).collect();
        assert_eq!(emails, expected, "{arguments:?}");
        let table = run(folder.path(), &[&["user", "list"], arguments].concat()).1;
        assert_eq!(table.lines().count(), expected.len() + 1, "{table}");
    }
}

/// "there is no database", to somebody who may not look.
#[test]
fn a_command_of_another_user_is_told_who_owns_the_folder() {
    const NOBODY: u32 = 65_534;
    let folder = with_database();
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let owner = |path: &Path, uid| std::os::unix::fs::chown(path, Some(uid), Some(uid));
    if owner(&folder.path().join("state"), 0).is_err() {
        return not_here("only root can run a command as another user");
    }
    if command(folder.path(), &["--version"]).uid(NOBODY).gid(NOBODY).output().is_err() {
        return not_here("the binary is in a folder that other users cannot enter");
    }
    for arguments in [
        &["user", "list"][..],
        &["session", "list"],
        &["backup", "/tmp/authgate-never-made.db"],
        &["explain", "GET", "/", "--user", "ada@example.com"],
        &["user", "add", "bob@example.com"],
        &["session", "revoke", "--all"],
    ] {
        let mut other = command(folder.path(), arguments);
        let (code, _, said) = told(other.uid(NOBODY).gid(NOBODY).stdin(Stdio::null()).output().unwrap());
        assert_eq!(code, 1, "{arguments:?}: {said}");
        assert!(said.contains("permission denied: it belongs to root"), "{arguments:?}: {said}");
        assert!(said.contains("sudo -u root"), "{arguments:?}: {said}");
    }
    let mut other = command(folder.path(), &["check"]);
    let (code, _, said) = told(other.uid(NOBODY).gid(NOBODY).output().unwrap());
    assert!(code == 0 && said.contains("was not checked"), "{said}");
    // a file that root put there
    let state = folder.path().join("state");
    owner(&state, NOBODY).unwrap();
    for entry in std::fs::read_dir(&state).unwrap() {
        owner(&entry.unwrap().path(), NOBODY).unwrap();
    }
    owner(&state.join("authgate.db"), 0).unwrap();
    let mut own = command(folder.path(), &["user", "add", "bob@example.com"]);
    let (code, _, said) = told(own.uid(NOBODY).gid(NOBODY).stdin(Stdio::null()).output().unwrap());
    assert!(
        code == 1 && said.contains("it belongs to root, the directory to ") && said.contains("run chown "),
        "{said}"
    );
}

/// Kubernetes sets a volume's group and gives it the right to write after each mount (fsGroup), to files of ours too.
#[test]
fn a_gateway_starts_again_on_a_volume_whose_group_was_given_the_right_to_write() {
    const UID: u32 = 12_345;
    const GROUP: u32 = 23_456;
    let folder = configured(WHOAMI);
    let mount = || -> std::io::Result<()> {
        let state = folder.path().join("state");
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
        std::os::unix::fs::chown(&state, Some(0), Some(GROUP))?;
        std::fs::set_permissions(&state, Permissions::from_mode(0o2775))?;
        for entry in std::fs::read_dir(&state)? {
            let file = entry?.path();
            std::os::unix::fs::chown(&file, None, Some(GROUP))?;
            std::fs::set_permissions(&file, Permissions::from_mode(0o660))?;
        }
        Ok(())
    };
    std::fs::create_dir(folder.path().join("state")).unwrap();
    if mount().is_err() {
        return not_here("only root can give a folder to somebody else");
    }
    for round in 0..3 {
        mount().unwrap();
        let mut run = Command::new("setpriv");
        run.args([format!("--reuid={UID}"), format!("--regid={UID}"), format!("--groups={GROUP}")]);
        run.arg(env!("CARGO_BIN_EXE_authgate")).arg("--config").arg(folder.path().join("gateway.toml")).arg("run");
        let place = tempfile::TempDir::new().unwrap();
        let gateway = Gateway::spawn(run, place);
        let mode = std::fs::metadata(folder.path().join("state/authgate.db")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "round {round}");
        let log = gateway.into_log();
        assert!(log.contains("state directory is group-writable"), "{log}");
    }
    // anybody's to write is another matter
    std::fs::set_permissions(folder.path().join("state"), Permissions::from_mode(0o2777)).unwrap();
    let (code, _, said) = run(folder.path(), &["user", "add", "bob@example.com"]);
    assert!(code == 1 && said.contains("the state directory is writable by others"), "{said}");
}

/// As nginx and Apache read them: trac 7.
#[test]
fn htpasswd_lines_may_have_further_fields_and_blanks_around_them() {
    let folder = configured(WHOAMI);
    let hash =
        bcrypt::hash_with_salt(PASSWORD.as_bytes(), 4, [9; 16]).unwrap().format_for_version(bcrypt::Version::TwoY);
    let file = folder.path().join("htpasswd");
    let lines = format!(
        "ada@example.com:{hash}:Ada Lovelace:x\nbob@example.com:{hash}  \t\r\n  cem@example.com:{hash}\n# no account\n"
    );
    std::fs::write(&file, lines).unwrap();
    let arguments = ["user", "import", file.to_str().unwrap(), "--format", "htpasswd", "--strict"];
    let (code, out, said) = run(folder.path(), &arguments);
    assert_eq!((code, out.as_str()), (0, "imported 3 of 3 accounts, skipped 0\n"), "{said}");
    let gateway = Gateway::serve(folder);
    for name in ["ada", "bob", "cem"] {
        gateway.sign_in(&format!("{name}@example.com"));
    }
    drop(File::open(gateway.state().join("authgate.db")).unwrap());
}

/// Where was it looked for, and which process holds it.
#[test]
fn refusals_name_what_was_looked_for_and_what_to_do_next() {
    let folder = tempfile::TempDir::new().unwrap();
    let binary = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_authgate"));
        command.current_dir(folder.path()).stdin(Stdio::null());
        command
    };
    if !Path::new("/etc/authgate/gateway.toml").exists() {
        let (code, _, said) = told(binary().arg("check").output().unwrap());
        let here = folder.path().display();
        assert_eq!(code, 64);
        assert!(said.contains(&format!("no gateway.toml in {here}, and no /etc/authgate/gateway.toml")), "{said}");
    }
    let (code, _, said) = told(binary().args(["--state-dir", "none", "user", "list"]).output().unwrap());
    assert!(code == 1 && said.contains("no database: start the gateway, or set its state directory"), "{said}");
    let gateway = Gateway::whoami();
    let (code, _, said) = run(gateway.folder(), &["run"]);
    let pid = gateway.pid();
    assert!(code == 1 && said.contains(&format!("another authgate (process {pid}) is using this")), "{said}");
}
