//! Servers that other people's libraries make, as apps use them: Node's and Go's. Where one of them is not installed, what
//! it would have shown is not proved.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use crate::gateway::not_here;

/// A running server; ends when dropped.
pub struct Peer {
    child: Child,
    pub address: SocketAddr,
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `peers/server.mjs` with these arguments.
pub fn node(arguments: &[&str]) -> Option<Peer> {
    let script = source("server.mjs");
    start(Command::new("node").arg(script).args(arguments)).or_else(|| {
        not_here("there is no Node");
        None
    })
}

/// `peers/server.go`, built once.
pub fn go() -> Option<Peer> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let program = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("server-go-{}", std::process::id()));
        let mut build = Command::new("go");
        build.arg("build").arg("-o").arg(&program).arg(source("server.go"));
        build.env("GO111MODULE", "off").env("GOCACHE", Path::new(env!("CARGO_TARGET_TMPDIR")).join("go"));
        build.status().is_ok_and(|status| status.success()).then_some(program)
    });
    built.as_ref().and_then(|program| start(&mut Command::new(program))).or_else(|| {
        not_here("there is no Go");
        None
    })
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/peers").join(name)
}

/// Each says on which port of loopback it listens.
fn start(command: &mut Command) -> Option<Peer> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().ok()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let port: u16 = line.trim().parse().unwrap();
    Some(Peer { child, address: SocketAddr::from(([127, 0, 0, 1], port)) })
}
