//! `authgate healthcheck`: asks the running gateway's admin listener whether it is ready.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::people::configured;
use super::{CommandError, Globals};
use crate::config::Listen;

const TIME: Duration = Duration::from_secs(5);
/// An answer of the gateway's has a line; whoever listens there in its place may have more to say.
const ANSWER_BYTES_MAX: u64 = 4096;

/// Succeeds when `/readyz` answers 200.
pub fn run(globals: &Globals) -> Result<(), CommandError> {
    let config = configured(globals)?;
    let refused = |why: String| CommandError::Refused(why);
    let Some(address) = &config.server.admin_listen else {
        return Err(refused("server.admin_listen is off, so there is nothing to ask".to_owned()));
    };
    let answer = ask(address)
        .map_err(|error| refused(format!("nothing answers at server.admin_listen, {}: {error}", shown(address))))?;
    let status = answer.split(' ').nth(1).unwrap_or_default();
    if status == "200" {
        return Ok(());
    }
    let why = answer.rsplit("\r\n\r\n").next().unwrap_or_default().trim();
    Err(refused(format!("the gateway is not ready: {why}")))
}

fn shown(address: &Listen) -> String {
    match address {
        Listen::Tcp(address) | Listen::Tls(address) => address.to_string(),
        Listen::Unix(path) => format!("unix:{}", path.display()),
    }
}

fn ask(address: &Listen) -> std::io::Result<String> {
    match address {
        Listen::Tcp(address) | Listen::Tls(address) => {
            let stream = TcpStream::connect_timeout(&reachable(*address), TIME)?;
            stream.set_read_timeout(Some(TIME))?;
            exchange(stream)
        }
        Listen::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(TIME))?;
            exchange(stream)
        }
    }
}

/// A listener on all addresses is asked over loopback.
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
