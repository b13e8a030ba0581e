//! `authgate healthcheck`: asks the running gateway's admin listener whether it is ready.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::people::readable;
use super::{CommandError, Globals};
use crate::clock::Stopwatch;
use crate::config::Listen;

const TIME: Duration = Duration::from_secs(5);
/// Largest response read, in bytes. The gateway sends one line; another server on that address may send more.
const ANSWER_BYTES_MAX: u64 = 4096;

/// Time between attempts.
const AGAIN: Duration = Duration::from_millis(100);

/// Succeeds when `/readyz` returns 200: immediately, or within `wait`.
pub fn run(globals: &Globals, wait: Duration) -> Result<(), CommandError> {
    let (config, _) = readable(globals)?;
    let Some(address) = &config.server.admin_listen else {
        let why = "server.admin_listen is off: set it to an address to use healthcheck";
        return Err(CommandError::Refused(why.to_owned()));
    };
    let began = Stopwatch::new();
    loop {
        match ready(address) {
            Err(_) if began.elapsed() < wait => std::thread::sleep(AGAIN),
            outcome => return outcome.map_err(CommandError::Refused),
        }
    }
}

fn ready(address: &Listen) -> Result<(), String> {
    let answer =
        ask(address).map_err(|error| format!("no response from server.admin_listen, {}: {error}", shown(address)))?;
    if answer.split(' ').nth(1) == Some("200") {
        return Ok(());
    }
    let why = answer.rsplit("\r\n\r\n").next().unwrap_or_default().trim();
    Err(format!("the gateway is not ready: {why}"))
}

fn shown(address: &Listen) -> String {
    match address {
        Listen::Tcp(address) | Listen::Tls(address) => address.to_string(),
        Listen::Unix(socket) => format!("unix:{}", socket.path.display()),
    }
}

fn ask(address: &Listen) -> std::io::Result<String> {
    match address {
        Listen::Tcp(address) | Listen::Tls(address) => {
            let stream = TcpStream::connect_timeout(&reachable(*address), TIME)?;
            stream.set_read_timeout(Some(TIME))?;
            exchange(stream)
        }
        Listen::Unix(socket) => {
            let stream = UnixStream::connect(&socket.path)?;
            stream.set_read_timeout(Some(TIME))?;
            exchange(stream)
        }
    }
}

/// A listener on all addresses is reached over loopback.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        let loopback: std::net::IpAddr =
            if address.is_ipv4() { std::net::Ipv4Addr::LOCALHOST.into() } else { std::net::Ipv6Addr::LOCALHOST.into() };
        address.set_ip(loopback);
    }
    address
}

fn exchange(mut stream: impl Read + Write) -> std::io::Result<String> {
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
