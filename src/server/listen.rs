//! Sockets that we bind ourselves: errors are known at once, and tests may ask for port 0.

use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

use super::ServeError;
use crate::config::Listen;

/// A bound socket.
pub(super) enum Socket {
    Tcp(TcpListener, SocketAddr),
    Tls(TcpListener, SocketAddr),
    Unix(UnixListener, PathBuf),
}

/// Where a socket can be reached.
pub(super) struct Address<'s>(&'s Socket);

impl fmt::Display for Address<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Socket::Tcp(_, address) => write!(f, "http://{address}"),
            Socket::Tls(_, address) => write!(f, "https://{address}"),
            Socket::Unix(_, path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Socket {
    pub(super) fn address(&self) -> Address<'_> {
        Address(self)
    }

    /// Another descriptor of the same socket, for one more thread.
    pub(super) fn share(&self) -> std::io::Result<Self> {
        Ok(match self {
            Self::Tcp(listener, address) => Self::Tcp(listener.try_clone()?, *address),
            Self::Tls(listener, address) => Self::Tls(listener.try_clone()?, *address),
            Self::Unix(listener, path) => Self::Unix(listener.try_clone()?, path.clone()),
        })
    }
}

/// Binds all addresses, or none.
pub(super) fn bind(addresses: &[Listen]) -> Result<Vec<Socket>, ServeError> {
    addresses.iter().map(bind_one).collect()
}

/// What accepted connections take over: a client that vanished without a word (half-open, RFC 9293, 3.5.1) is
/// noticed after two minutes of silence.
fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15)).with_retries(4)
}

fn bind_one(one: &Listen) -> Result<Socket, ServeError> {
    match one {
        Listen::Tcp(address) | Listen::Tls(address) => {
            let failed = |error| ServeError::new(format!("cannot listen on {address}: {error}"));
            let listener = TcpListener::bind(address).map_err(failed)?;
            listener.set_nonblocking(true).map_err(failed)?;
            SockRef::from(&listener).set_tcp_keepalive(&keepalive()).map_err(failed)?;
            let bound = listener.local_addr().map_err(failed)?;
            let secure = matches!(one, Listen::Tls(_));
            Ok(if secure { Socket::Tls(listener, bound) } else { Socket::Tcp(listener, bound) })
        }
        Listen::Unix(path) => {
            let failed = |error| ServeError::new(format!("cannot listen on unix:{}: {error}", path.display()));
            remove_stale(path).map_err(failed)?;
            let listener = UnixListener::bind(path).map_err(failed)?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(failed)?;
            listener.set_nonblocking(true).map_err(failed)?;
            Ok(Socket::Unix(listener, path.clone()))
        }
    }
}

/// Removes a socket file that a dead process left; a living one's, or another kind of file, stays.
fn remove_stale(path: &Path) -> std::io::Result<()> {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    if is_socket && UnixStream::connect(path).is_err() {
        return std::fs::remove_file(path);
    }
    Ok(())
}

/// Takes our socket files away at the end.
pub(super) fn remove(addresses: &[Listen]) {
    for address in addresses {
        if let Listen::Unix(path) = address {
            let _ = std::fs::remove_file(path);
        }
    }
}
