//! Clients and servers that others have written: Go's client, Go's and Node's servers.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::number;
use crate::gateway::{Gateway, configured, not_here};
use crate::tls::{Authority, Secure};

/// Requests of each client to each server.
const COUNT: u64 = 250;

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/differential").join(name)
}

/// A process that serves until it is dropped, and the two ports that it has told.
struct Serves {
    child: Child,
    ports: [u16; 2],
}

impl Serves {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let mut ports = line.split_whitespace().map(|port| port.parse().unwrap());
        let ports = [ports.next().unwrap(), ports.next().unwrap()];
        Self { child, ports }
    }
}

impl Drop for Serves {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_there(program: &str, says: &str) -> bool {
    Command::new(program).arg(says).stdout(Stdio::null()).status().is_ok_and(|status| status.success())
}

#[test]
fn gos_client_has_every_answer_of_gos_and_nodes_servers_whole() {
    if !is_there("go", "version") || !is_there("node", "--version") {
        return not_here("Go and Node (Debian: golang-go, nodejs)");
    }
    let (seed, count) = (number("DIFFERENTIAL_SEED", 1), number("DIFFERENTIAL_COUNT", COUNT));
    let authority = Authority::new();
    authority.pair("localhost", &["localhost"]);
    let folder = authority.folder.path();
    let go = folder.join("peer");
    let mut build = Command::new("go");
    build.arg("build").arg("-o").arg(&go).arg(source("peer.go")).env("GO111MODULE", "off");
    assert!(build.status().unwrap().success());
    let mut command = Command::new(&go);
    command.arg("serve").args([folder.join("localhost.pem"), folder.join("localhost.key")]);
    let (gos, mut command) = (Serves::start(command), Command::new("node"));
    command.arg(source("peer.mjs"));
    let nodes = Serves::start(command);
    let servers = [
        format!("http://127.0.0.1:{}", gos.ports[0]),
        format!("https://localhost:{}", gos.ports[1]),
        format!("http://127.0.0.1:{}", nodes.ports[0]),
        format!("h2c://127.0.0.1:{}", nodes.ports[1]),
    ];
    let roots = authority.roots();
    let trusts = [("SSL_CERT_FILE", roots.to_str().unwrap())];
    let plain = Gateway::serve_with(configured(&super::routes(&servers)), &trusts);
    let secure = Secure::start_with(&super::routes(&servers), &trusts);
    for (at, server) in servers.iter().enumerate() {
        for origin in [format!("http://{}", plain.address), format!("https://{}", secure.gateway.tls)] {
            let mut ask = Command::new(&go);
            ask.args(["ask", &format!("{origin}/{at}/x"), &count.to_string(), &seed.to_string()]);
            let asked = ask.arg(secure.authority.roots()).output().unwrap();
            let told = String::from_utf8_lossy(&asked.stdout);
            assert!(asked.status.success(), "DIFFERENTIAL_SEED={seed}, {origin} to {server}:\n{told}");
        }
    }
}

/// Messages of each stream; 20,000 by hand.
const MESSAGES: u64 = 5_000;

#[test]
fn grpc_gos_client_has_every_small_message_both_ways() {
    let path = Path::new("/usr/share/gocode");
    if !is_there("go", "version") || !path.join("src/google.golang.org/grpc").exists() {
        return not_here("grpc-go (Debian: golang-go, golang-google-grpc-dev)");
    }
    let folder = tempfile::TempDir::new().unwrap();
    let peer = folder.path().join("peer");
    let mut build = Command::new("go");
    build.arg("build").arg("-o").arg(&peer).arg(source("grpc/main.go")).env("GO111MODULE", "off").env("GOPATH", path);
    assert!(build.status().unwrap().success());
    let mut command = Command::new(&peer);
    command.arg("serve");
    let server = Serves::start(command);
    let route = format!("[[route]]\naccess = \"public\"\nupstream = \"h2c://127.0.0.1:{}\"\n", server.ports[0]);
    let secure = Secure::start(&route);
    let mut ask = Command::new(&peer);
    ask.args(["ask", &secure.gateway.tls.to_string(), &number("DIFFERENTIAL_COUNT", MESSAGES).to_string()]);
    let asked = ask.arg(secure.authority.roots()).output().unwrap();
    assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stdout));
}
