//! The process among others: signals, the journal, Unix sockets.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::backend::nobody;
use crate::gateway::{Gateway, command, configured, eventually, not_here, refused_start, send, text};

const WHOAMI: &str = "[[route]]\nupstream = \"builtin:whoami\"\n";

/// `run --to`, started by these words.
fn one_app(by: &[&str]) -> Gateway {
    let folder = TempDir::new().unwrap();
    let mut run = Command::new(by[0]);
    run.args(&by[1..]).arg(env!("CARGO_BIN_EXE_authgate"));
    let to = format!("http://{}/", nobody());
    run.args(["run", "--to", &to, "--listen", "127.0.0.1:0"]).current_dir(folder.path());
    Gateway::spawn(run, folder)
}

/// A terminal that is closed ends what runs in it, and keeps no port.
#[test]
fn run_to_ends_with_its_terminal_unless_it_was_started_to_outlive_it() {
    // these tests may have been started to outlive one
    let mut gateway = one_app(&["env", "--default-signal=HUP"]);
    gateway.signal("HUP");
    gateway.wait_for(|_, line| line.contains("stopped"));
    eventually("it ends", || gateway.has_ended());
    let mut lasting = one_app(&["nohup"]);
    lasting.signal("HUP");
    lasting.wait_for(|_, line| line.contains("no configuration file to reload"));
    assert_eq!(lasting.client().get("/x", &[]).status, 401);
}

#[test]
fn signals_of_other_servers_are_ignored_with_a_line() {
    let mut gateway = Gateway::whoami();
    for name in ["USR1", "USR2", "ALRM"] {
        gateway.signal(name);
        gateway.wait_for(|_, line| line.contains("signal ignored") && line.contains(&format!("SIG{name}")));
        assert_eq!(gateway.client().get("/x", &[]).status, 401);
    }
}

/// A request whose answer does not come holds the end up for half a minute.
fn waiting() -> (Gateway, [std::net::TcpStream; 2]) {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let upstream = silent.local_addr().unwrap();
    let gateway = Gateway::start(&format!("[[route]]\naccess = \"public\"\nupstream = \"http://{upstream}\"\n"));
    let mut client = std::net::TcpStream::connect(gateway.address).unwrap();
    let head = format!("GET /x HTTP/1.1\r\nHost: {}\r\n\r\n", gateway.address);
    std::io::Write::write_all(&mut client, head.as_bytes()).unwrap();
    let (taken, _) = silent.accept().unwrap();
    (gateway, [client, taken])
}

#[test]
fn a_second_stop_signal_ends_at_once() {
    let (mut gateway, _streams) = waiting();
    gateway.signal("INT");
    gateway.wait_for(|_, line| line.contains("draining"));
    assert!(!gateway.has_ended());
    gateway.signal("INT");
    gateway.wait_for(|_, line| line.contains("second stop signal"));
    eventually("it ends", || gateway.has_ended());
}

/// Whoever manages the service waits no longer than that, and kills what is left.
#[test]
fn a_drain_ends_after_half_a_minute_whatever_is_still_open() {
    let (mut gateway, [mut client, _server]) = waiting();
    gateway.signal("TERM");
    gateway.wait_for(|_, line| line.contains("draining"));
    let (began, mut rest) = (std::time::Instant::now(), Vec::new());
    client.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
    let read = std::io::Read::read_to_end(&mut client, &mut rest);
    let took = began.elapsed().as_secs();
    assert!((28..60).contains(&took), "its connection ended after {took} s: {read:?}");
    assert!(rest.is_empty(), "no answer came, and none is made up: {}", String::from_utf8_lossy(&rest));
    gateway.wait_for(|_, line| line.contains("stopped"));
    eventually("it ends", || gateway.has_ended());
}

/// Images that were made for nginx stop it with SIGQUIT.
#[test]
fn sigquit_drains() {
    let mut gateway = Gateway::whoami();
    gateway.signal("QUIT");
    gateway.wait_for(|_, line| line.contains("draining"));
    gateway.wait_for(|_, line| line.contains("stopped"));
    eventually("it ends", || gateway.has_ended());
}

/// sd-daemon(3): `journalctl -p warning` shows nothing of a service whose lines have no level.
#[test]
fn lines_for_the_journal_begin_with_their_level() {
    let folder = configured(WHOAMI);
    let (reader, writer) = std::io::pipe().unwrap();
    let writer = File::from(OwnedFd::from(writer));
    let about = writer.metadata().unwrap();
    let stream = format!("{}:{}", about.dev(), about.ino());
    let mut run = command(folder.path(), &["run"]);
    let mut child = run.env("JOURNAL_STREAM", stream).stdin(Stdio::null()).stderr(writer).spawn().unwrap();
    drop(run);
    let mut lines = BufReader::new(reader).lines().map_while(Result::ok);
    let mut next = |what: &str| lines.find(|line| line.contains(what)).unwrap_or_else(|| panic!("never: {what}"));
    let ready = next("\"ready\"");
    assert!(ready.starts_with("<6>{"), "{ready}");
    std::fs::write(folder.path().join("gateway.toml"), "nonsense").unwrap();
    send(child.id(), "HUP");
    let fault = next("not reloaded");
    assert!(fault.starts_with("<3>{"), "{fault}");
    send(child.id(), "TERM");
    assert!(child.wait().unwrap().success());
    // a process that was started further on, with another standard error
    let gateway = Gateway::serve_with(configured(WHOAMI), &[("JOURNAL_STREAM", "1:2")]);
    assert!(gateway.into_log().lines().filter(|line| line.contains("\"level\"")).all(|line| line.starts_with('{')));
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_socket_that_a_killed_gateway_left_is_taken_and_one_in_use_or_another_file_is_not() {
    let folder = TempDir::new().unwrap();
    let socket = folder.path().join("own.sock");
    let file = |socket: &Path| {
        format!(
            "[server]\nwatch = false\nlisten = [\"127.0.0.1:0\", \"unix:{}\"]\nadmin_listen = \"127.0.0.1:0\"\n{WHOAMI}",
            socket.display()
        )
    };
    std::fs::write(folder.path().join("gateway.toml"), file(&socket)).unwrap();
    let gateway = Gateway::serve(folder).kill_and_restart();
    assert!(UnixStream::connect(&socket).is_ok(), "the next one listens there");

    let other = TempDir::new().unwrap();
    std::fs::write(other.path().join("gateway.toml"), file(&socket)).unwrap();
    let (code, said) = refused_start(other.path());
    assert!(code != 0 && said.contains("cannot listen on unix:"), "{code}: {said}");
    assert!(UnixStream::connect(&socket).is_ok(), "still the first one's");
    drop(gateway);

    let plain = other.path().join("notes.txt");
    std::fs::write(&plain, "mine").unwrap();
    std::fs::write(other.path().join("gateway.toml"), file(&plain)).unwrap();
    let (code, said) = refused_start(other.path());
    assert!(code != 0 && said.contains("cannot listen on unix:"), "{code}: {said}");
    assert_eq!(std::fs::read_to_string(&plain).unwrap(), "mine");
}

/// nginx as www-data could not connect without being a member of the gateway's own group.
#[test]
fn a_unix_socket_has_the_mode_and_the_group_that_its_address_names() {
    let folder = TempDir::new().unwrap();
    let [open, plain] = ["open.sock", "plain.sock"].map(|name| folder.path().join(name));
    let group = "23456";
    if std::os::unix::fs::chown(folder.path(), None, Some(23_456)).is_err() {
        return not_here("only root can give a file to any group");
    }
    let file = |mode: &str| {
        let [open, plain] = [&open, &plain].map(|path| path.display());
        format!(
            "[server]\nwatch = false\nlisten = [\"127.0.0.1:0\", \"unix:{open}?mode={mode}&group={group}\", \"unix:{plain}\"]\nadmin_listen = \"127.0.0.1:0\"\n{WHOAMI}"
        )
    };
    std::fs::write(folder.path().join("gateway.toml"), file("0666")).unwrap();
    let mut gateway = Gateway::serve(folder);
    assert_eq!((mode(&open), std::fs::metadata(&open).unwrap().gid()), (0o666, 23_456));
    assert_eq!(mode(&plain), 0o660);
    let before = UnixStream::connect(&open).unwrap();
    gateway.write(&file("0600"));
    gateway.signal("HUP");
    gateway.wait_for(|_, line| line.contains("configuration reloaded"));
    assert_eq!(mode(&open), 0o600);
    drop(before);
    assert!(UnixStream::connect(&open).is_ok());
}

#[test]
fn what_says_nothing_of_a_unix_socket_is_a_fault() {
    for (options, code) in [
        ("", 0),
        ("?mode=0666", 0),
        ("?mode=666&group=0", 0),
        ("?group=root", 0),
        ("?mode=0999", 64),
        ("?mode=1777", 64),
        ("?group=no-such-group", 64),
        ("?owner=root", 64),
        ("?mode", 64),
    ] {
        let folder = TempDir::new().unwrap();
        let whole = text(WHOAMI).replace("\"127.0.0.1:0\"]", &format!("\"unix:x.sock{options}\"]"));
        std::fs::write(folder.path().join("gateway.toml"), whole).unwrap();
        let output = command(folder.path(), &["check"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{options}: {said}");
    }
}

/// In brackets, as RFC 7239 has it; the proxy counted as the client.
#[test]
fn a_client_in_brackets_is_read_behind_a_trusted_proxy() {
    let mut gateway = Gateway::start(&format!("trusted_proxies = [\"127.0.0.1\"]\n{WHOAMI}"));
    for (sent, read) in [
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::2]:443", "2001:db8::2"),
        ("2001:db8::3", "2001:db8::3"),
        ("192.0.2.4:5", "192.0.2.4"),
    ] {
        gateway.client().get("/x", &[("X-Forwarded-For", sent)]);
        let client = format!("\"client\":\"{read}\"");
        gateway.wait_for(|_, line| {
            let is_access = line.contains("\"path\":\"/x\"");
            assert!(!is_access || line.contains(&client), "{sent}: {line}");
            is_access
        });
    }
}
