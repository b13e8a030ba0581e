//! The service manager's side: what it is told, the sockets that it hands over, and the units that ship
//! (README, "Run it with systemd"; sd_notify(3), sd_listen_fds(3), systemd.service(5)).

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::backend::nobody;
use crate::client::Client;
use crate::gateway::{Gateway, command, configured, eventually, is_here, send};

const PUBLIC: &str = "[[route]]\naccess = \"public\"\nupstream = \"builtin:whoami\"\n";

fn units() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd")
}

/// A service manager's end of NOTIFY_SOCKET.
struct Manager {
    socket: UnixDatagram,
    _folder: tempfile::TempDir,
    path: String,
}

impl Manager {
    fn new() -> Self {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self { socket, path: path.to_str().unwrap().to_owned(), _folder: folder }
    }

    /// The next datagram that is no sign of life.
    fn next(&self) -> String {
        loop {
            let datagram = self.any();
            if datagram != "WATCHDOG=1" {
                return datagram;
            }
        }
    }

    fn any(&self) -> String {
        let mut bytes = [0; 4096];
        let length = self.socket.recv(&mut bytes).expect("nothing was told");
        String::from_utf8(bytes[..length].to_vec()).unwrap().trim_end().to_owned()
    }
}

#[test]
fn the_manager_is_told_ready_reloading_and_stopping() {
    let manager = Manager::new();
    let mut gateway = Gateway::serve_with(configured(PUBLIC), &[("NOTIFY_SOCKET", &manager.path)]);
    assert_eq!(manager.next(), "READY=1");
    gateway.signal("HUP");
    let reloading = manager.next();
    let (state, stamp) = reloading.split_once('\n').unwrap();
    assert_eq!(state, "RELOADING=1");
    assert!(stamp.strip_prefix("MONOTONIC_USEC=").unwrap().parse::<u64>().unwrap() > 0, "{reloading}");
    let done = manager.next();
    assert!(done.starts_with("READY=1\nSTATUS=serving "), "{done}");
    gateway.write("[[route]]\n");
    gateway.signal("HUP");
    assert!(manager.next().starts_with("RELOADING=1\n"));
    let done = manager.next();
    assert!(done.starts_with("READY=1\nSTATUS=") && done.contains("not reloaded"), "{done}");
    gateway.terminate();
    assert!(manager.next().starts_with("STOPPING=1"));
}

/// unix(7): a socket without a file, as containers' managers hand it in.
#[test]
fn a_manager_whose_socket_has_no_file_is_notified_as_well() {
    use std::os::linux::net::SocketAddrExt;
    let name = format!("authgate-test-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let socket = UnixDatagram::bind_addr(&address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let manager = Manager { socket, _folder: tempfile::TempDir::new().unwrap(), path: format!("@{name}") };
    let mut gateway = Gateway::serve_with(configured(PUBLIC), &[("NOTIFY_SOCKET", &manager.path)]);
    assert_eq!(manager.next(), "READY=1");
    gateway.terminate();
    assert!(manager.next().starts_with("STOPPING=1"));
}

#[test]
fn the_watchdog_hears_from_us_while_the_store_answers() {
    let manager = Manager::new();
    let variables = [("NOTIFY_SOCKET", manager.path.as_str()), ("WATCHDOG_USEC", "400000")];
    let _gateway = Gateway::serve_with(configured(PUBLIC), &variables);
    let mut alive = 0;
    while alive < 3 {
        alive += usize::from(manager.any() == "WATCHDOG=1");
    }
    // unasked, nothing of this is told
    let silent = Manager::new();
    let mut other = Gateway::serve_with(configured(PUBLIC), &[("NOTIFY_SOCKET", &silent.path)]);
    assert_eq!(silent.any(), "READY=1");
    other.terminate();
    assert!(silent.any().starts_with("STOPPING=1"));
}

/// One thread of a process held still, as a fault might hold it: seized by another process (ptrace(2)) until it is
/// dropped.
struct Stuck(Child);

impl Stuck {
    fn thread(pid: u32, name: &str) -> Self {
        const SEIZE: &str = "
import ctypes, sys
ptrace = ctypes.CDLL(None).ptrace
ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
thread = int(sys.argv[1])
assert ptrace(0x4206, thread, None, None) == 0 and ptrace(0x4207, thread, None, None) == 0
ctypes.CDLL(None).waitpid(thread, None, 0x40000000)
print('seized', flush=True)
sys.stdin.read()
";
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|entry| entry.unwrap());
        let named = |entry: &std::fs::DirEntry| {
            std::fs::read_to_string(entry.path().join("comm")).is_ok_and(|comm| comm.trim_end() == name)
        };
        let thread = threads.into_iter().find(named).unwrap().file_name();
        let mut python = Command::new("python3");
        python.args(["-c", SEIZE]).arg(thread).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut python = python.spawn().unwrap();
        let mut said = [0; 7];
        std::io::Read::read_exact(python.stdout.as_mut().unwrap(), &mut said).unwrap();
        assert_eq!(&said, b"seized\n");
        Self(python)
    }
}

impl Drop for Stuck {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// systemd.service(5), WatchdogSec: a service that falls silent is started again.
#[test]
fn the_watchdog_hears_nothing_while_a_thread_is_stuck_and_hears_from_us_again_when_it_continues() {
    if !is_here("python3") {
        return;
    }
    let manager = Manager::new();
    let variables = [("NOTIFY_SOCKET", manager.path.as_str()), ("WATCHDOG_USEC", "400000")];
    let mut gateway = Gateway::serve_with(configured(PUBLIC), &variables);
    let alive = || while manager.any() != "WATCHDOG=1" {};
    for name in ["proxy-0", "store"] {
        alive();
        let stuck = Stuck::thread(gateway.pid(), name);
        let silent = |gateway: &mut Gateway| gateway.wait_for(|_, line| line.contains("watchdog not notified"));
        silent(&mut gateway);
        manager.socket.set_nonblocking(true).unwrap();
        while manager.socket.recv(&mut [0; 64]).is_ok() {}
        silent(&mut gateway);
        silent(&mut gateway);
        assert!(manager.socket.recv(&mut [0; 64]).is_err(), "{name} is stuck, and we said that all is well");
        manager.socket.set_nonblocking(false).unwrap();
        drop(stuck);
        alive();
    }
}

/// systemd's own holder of sockets: it outlives the gateways that it starts.
struct Activator {
    child: Child,
}

impl Activator {
    fn start(address: &str, folder: &Path) -> Self {
        let gateway = command(folder, &["run"]);
        let child = Command::new("systemd-socket-activate")
            .arg(format!("--listen={address}"))
            .arg(gateway.get_program())
            .args(gateway.get_args())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child }
    }
}

impl Drop for Activator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_socket_that_is_handed_over_serves_the_listen_of_its_address() {
    if !is_here("systemd-socket-activate") {
        return;
    }
    let address = nobody();
    let folder = configured("");
    let text = format!("[server]\nwatch = false\nlisten = [\"{address}\"]\nadmin_listen = \"\"\n{PUBLIC}");
    std::fs::write(folder.path().join("gateway.toml"), text).unwrap();
    let _activator = Activator::start(&address.to_string(), folder.path());
    eventually("somebody listens", || std::net::TcpStream::connect(address).is_ok());
    assert_eq!(Client::connect(address).get("/x", &[]).status, 200);
}

#[test]
fn a_socket_that_no_listen_names_keeps_the_gateway_from_starting() {
    if !is_here("systemd-socket-activate") {
        return;
    }
    let folder = configured(PUBLIC);
    let run = command(folder.path(), &["run"]);
    let handed = nobody();
    let mut activator = Command::new("systemd-socket-activate")
        .arg(format!("--listen={handed}"))
        .arg(run.get_program())
        .args(run.get_args())
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    eventually("somebody listens", || std::net::TcpStream::connect(handed).is_ok());
    let mut said = String::new();
    std::io::Read::read_to_string(&mut activator.stderr.take().unwrap(), &mut said).unwrap();
    assert!(!activator.wait().unwrap().success());
    assert!(said.contains(&format!("passed the socket http://{handed}, which is not in `listen`")), "{said}");
}

#[test]
fn restarts_under_a_loop_of_requests_refuse_and_lose_none() {
    const RESTARTS: usize = 5;
    // the test holds the socket, as systemd does, and starts one gateway after the other on it
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let folder = configured("");
    let text = format!("[server]\nwatch = false\nlisten = [\"{address}\"]\nadmin_listen = \"\"\n{PUBLIC}");
    std::fs::write(folder.path().join("gateway.toml"), text).unwrap();
    let start = || {
        let manager = Manager::new();
        let run = command(folder.path(), &["run"]);
        // sh gives its own number and descriptor 3, as sd_listen_fds(3) wants them
        let script = "exec env LISTEN_FDS=1 LISTEN_PID=$$ \"$0\" \"$@\" 3<&0 0</dev/null";
        let child = Command::new("sh")
            .args(["-c", script])
            .arg(run.get_program())
            .args(run.get_args())
            .env("NOTIFY_SOCKET", &manager.path)
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(socket.try_clone().unwrap())))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        assert_eq!(manager.next(), "READY=1");
        child
    };
    let stop = |mut child: Child| {
        send(child.id(), "TERM");
        assert!(child.wait().unwrap().success());
    };
    let (done, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    let last = std::thread::scope(|scope| {
        let mut child = start();
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let answer = Client::connect(address).get("/x", &[("Connection", "close")]);
                    assert_eq!(answer.status, 200);
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for _ in 0..RESTARTS {
            let before = asked.load(Ordering::Relaxed);
            eventually("requests pass", || asked.load(Ordering::Relaxed) > before + 20);
            stop(child);
            child = start();
        }
        done.store(true, Ordering::Relaxed);
        child
    });
    stop(last);
}

/// `systemd-analyze` on the units that ship, in a folder where the binary that they name is there.
fn analysed(arguments: &[&str], drop_in: bool) -> (bool, String) {
    let folder = tempfile::TempDir::new().unwrap();
    let unit = folder.path().join("authgate.service");
    let mut text = std::fs::read_to_string(units().join("authgate.service")).unwrap();
    text = text.replace("/usr/bin/authgate", env!("CARGO_BIN_EXE_authgate"));
    if drop_in {
        text += &std::fs::read_to_string(units().join("authgate.service.d/socket.conf")).unwrap();
    }
    std::fs::write(&unit, text).unwrap();
    std::fs::copy(units().join("authgate.socket"), folder.path().join("authgate.socket")).unwrap();
    let output = Command::new("systemd-analyze").args(arguments).arg(&unit).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), said)
}

#[test]
fn the_service_is_exposed_by_1_4_at_most_and_by_1_2_with_the_socket() {
    if !is_here("systemd-analyze") {
        return;
    }
    let security = |tenths: &str, drop_in: bool| {
        let threshold = format!("--threshold={tenths}");
        analysed(&["security", "--offline=true", "--no-pager", &threshold], drop_in)
    };
    for (most, drop_in) in [("14", false), ("12", true)] {
        let (good, said) = security(most, drop_in);
        assert!(good, "{said}");
    }
    // the measure does fail
    assert!(!security("1", true).0);
}

#[test]
fn the_units_are_good_for_systemd() {
    if !is_here("systemd-analyze") {
        return;
    }
    for drop_in in [false, true] {
        let (good, said) = analysed(&["verify", "--man=no"], drop_in);
        let newer = "Failed to parse service type, ignoring: notify-reload";
        let findings: Vec<&str> =
            said.lines().filter(|line| line.contains("authgate") && !line.ends_with(newer)).collect();
        assert!(good && findings.is_empty(), "{said}");
    }
    let (_, said) = analysed(&["verify", "--man=no", "/nonexistent.service"], false);
    assert!(said.contains("nonexistent"), "{said}");
}
