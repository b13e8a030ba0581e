//! A running gateway in a folder of its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::{Answer, Client};
pub use crate::fixtures::not_here;

pub const PASSWORD: &str = "correct horse battery staple";
const PATIENCE: Duration = Duration::from_secs(20);

/// The real binary, serving.
pub struct Gateway {
    child: Child,
    lines: Mutex<Receiver<String>>,
    seen: Vec<String>,
    folder: TempDir,
    pub address: SocketAddr,
    pub admin: SocketAddr,
    /// The TLS listener, where there is one.
    pub tls: SocketAddr,
    pub invite: Option<String>,
}

/// Writes `gateway.toml` into a new folder; `rest` follows the listeners in `[server]`.
pub fn configured(rest: &str) -> TempDir {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("gateway.toml"), text(rest)).unwrap();
    folder
}

/// A whole `gateway.toml`. It is not watched: tests say themselves when it is read again.
pub fn text(rest: &str) -> String {
    format!("[server]\nwatch = false\nlisten = [\"127.0.0.1:0\"]\nadmin_listen = \"127.0.0.1:0\"\n{rest}")
}

/// The binary on the configuration of a folder.
pub fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_authgate"));
    command.arg("--config").arg(folder.join("gateway.toml")).args(arguments).env_remove("RUST_LOG");
    command
}

impl Gateway {
    /// Serves `rest`, the configuration behind the listeners.
    pub fn start(rest: &str) -> Self {
        Self::serve(configured(rest))
    }

    /// One route that takes everything to the built-in backend.
    pub fn whoami() -> Self {
        Self::start("[[route]]\nupstream = \"builtin:whoami\"\n")
    }

    pub fn serve(folder: TempDir) -> Self {
        Self::serve_with(folder, &[])
    }

    /// With some environment variables set.
    pub fn serve_with(folder: TempDir, variables: &[(&str, &str)]) -> Self {
        let mut command = command(folder.path(), &["run"]);
        command.envs(variables.iter().copied());
        Self::spawn(command, folder)
    }

    /// Whatever command serves from this folder.
    pub fn spawn(mut command: Command, folder: TempDir) -> Self {
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let errors = child.stderr.take().unwrap();
        let (sender, lines) = channel();
        let lines = Mutex::new(lines);
        std::thread::spawn(move || {
            for line in BufReader::new(errors).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
        let mut gateway = Self {
            child,
            lines,
            seen: Vec::new(),
            folder,
            address: nowhere,
            admin: nowhere,
            tls: nowhere,
            invite: None,
        };
        gateway.wait_until_ready();
        gateway
    }

    fn wait_until_ready(&mut self) {
        let address = |line: &Value| line["address"].as_str().unwrap().split("//").nth(1).unwrap().parse().unwrap();
        self.wait_for(|gateway, line| {
            let Ok(event) = serde_json::from_str::<Value>(line) else {
                if let Some(at) = line.find("/.auth/invite/") {
                    gateway.invite = Some(line[at..].trim().to_owned());
                }
                return false;
            };
            match event["message"].as_str() {
                Some("listening") if event["address"].as_str().unwrap().starts_with("https:") => {
                    gateway.tls = address(&event);
                }
                Some("listening") if event["address"].as_str().unwrap().starts_with("http:") => {
                    gateway.address = address(&event);
                }
                Some("admin listening") => gateway.admin = address(&event),
                _ => {}
            }
            event["message"] == "ready"
        });
    }

    /// Reads the log until `done` says so.
    pub fn wait_for(&mut self, mut done: impl FnMut(&mut Self, &str) -> bool) {
        let until = Instant::now() + PATIENCE;
        loop {
            let line = self.lines.get_mut().unwrap().recv_timeout(until.saturating_duration_since(Instant::now()));
            match line {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if done(self, &line) {
                        return;
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("nothing came of it:\n{}", self.seen.join("\n")),
                Err(RecvTimeoutError::Disconnected) => panic!("the gateway ended:\n{}", self.seen.join("\n")),
            }
        }
    }

    /// Everything logged so far, once the gateway has ended.
    pub fn into_log(mut self) -> String {
        self.terminate();
        self.seen.extend(self.lines.get_mut().unwrap().iter());
        self.seen.join("\n")
    }

    pub fn client(&self) -> Client {
        let stream = TcpStream::connect(self.address).unwrap_or_else(|error| {
            let said: Vec<String> = self.lines.lock().unwrap().try_iter().collect();
            let seen = self.seen.join("\n");
            panic!("{error}; what the gateway said, and what nobody waited for:\n{seen}\n\n{}", said.join("\n"))
        });
        Client::connected(stream, self.address)
    }

    pub fn host(&self) -> String {
        self.address.to_string()
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Makes the first account and gives its session cookie (`name=value`).
    pub fn first_account(&self) -> String {
        let path = self.invite.clone().unwrap();
        let body = json!({ "email": "ada@example.com", "name": "Ada", "password": PASSWORD });
        let answer = self.client().post_json(&path, &[], &body);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.session_cookie()
    }

    pub fn login(&self, email: &str, password: &str) -> Answer {
        self.client().post_json("/.auth/login", &[], &json!({ "email": email, "password": password }))
    }

    /// Signs in and gives the session cookie.
    pub fn sign_in(&self, email: &str) -> String {
        let answer = self.login(email, PASSWORD);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.session_cookie()
    }

    /// Adds an account with the usual password.
    pub fn add_user(&self, email: &str, groups: &[&str]) {
        let mut arguments = vec!["user", "add", email, "--password-stdin"];
        for group in groups {
            arguments.extend(["--group", group]);
        }
        let output = self.cli_with(&arguments, PASSWORD);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Runs a command that must succeed; gives its output.
    pub fn cli(&self, arguments: &[&str]) -> String {
        let output = self.cli_with(arguments, "");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn cli_with(&self, arguments: &[&str], input: &str) -> Output {
        let mut command = command(self.folder.path(), arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // a command that asks for nothing may have ended already
        let _ = writeln!(child.stdin.take().unwrap(), "{input}");
        child.wait_with_output().unwrap()
    }

    pub fn signal(&self, name: &str) {
        send(self.pid(), name);
    }

    /// Puts another configuration in force.
    pub fn reload(&mut self, rest: &str) {
        self.write(&text(rest));
        self.signal("HUP");
        self.wait_for(|_, line| {
            assert!(!line.contains("not reloaded"), "{line}");
            line.contains("configuration reloaded")
        });
    }

    /// Replaces the whole file.
    pub fn write(&self, text: &str) {
        std::fs::write(self.folder().join("gateway.toml"), text).unwrap();
    }

    /// The value of a metric without labels.
    pub fn metric(&self, name: &str) -> u64 {
        let text = Client::connect(self.admin).get("/metrics", &[]).text();
        let line = text.lines().find(|line| line.split(' ').next() == Some(name));
        let line = line.unwrap_or_else(|| panic!("no {name} in\n{text}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// `kill -9`, then a new process on the same folder.
    pub fn kill_and_restart(mut self) -> Self {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let folder = std::mem::replace(&mut self.folder, TempDir::new().unwrap());
        Self::serve(folder)
    }

    /// SIGTERM, then its exit.
    pub fn terminate(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            self.signal("TERM");
            assert!(self.child.wait().unwrap().success());
        }
    }

    /// Whether the process has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// The folder of a process that has ended.
    pub fn take_folder(mut self) -> TempDir {
        std::mem::replace(&mut self.folder, TempDir::new().unwrap())
    }

    /// Ends the process; its folder, and everything that it logged.
    pub fn into_folder_and_log(mut self) -> (TempDir, String) {
        let folder = std::mem::replace(&mut self.folder, TempDir::new().unwrap());
        (folder, self.into_log())
    }

    /// Keeps the folder, ends the process.
    pub fn into_folder(mut self) -> TempDir {
        self.terminate();
        std::mem::replace(&mut self.folder, TempDir::new().unwrap())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `run` on a folder that it must refuse; gives exit code and standard error.
pub fn refused_start(folder: &Path) -> (i32, String) {
    let mut child = command(folder, &["run"]).stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    (child.wait().unwrap().code().unwrap(), text)
}

/// Whether a program is there; else nothing is proved by what needs it.
pub fn is_here(program: &str) -> bool {
    let dirs = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&dirs).any(|dir| dir.join(program).is_file());
    if !found {
        not_here(&format!("{program} is not installed"));
    }
    found
}

/// Sends a signal, by its name without SIG, to a process that the test has started.
pub fn send(pid: u32, name: &str) {
    use rustix::process::{Pid, Signal, kill_process};
    let signal = match name {
        "ALRM" => Signal::ALARM,
        "CONT" => Signal::CONT,
        "HUP" => Signal::HUP,
        "INT" => Signal::INT,
        "KILL" => Signal::KILL,
        "QUIT" => Signal::QUIT,
        "STOP" => Signal::STOP,
        "TERM" => Signal::TERM,
        "USR1" => Signal::USR1,
        "USR2" => Signal::USR2,
        _ => panic!("{name}"),
    };
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).unwrap();
}

/// Waits until something holds; the event it waits for has no other sign.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "never: {what}");
        std::thread::yield_now();
    }
}
