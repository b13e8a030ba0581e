//! Listening sockets: bound by the gateway (bind errors are known at once, and tests can use port 0), or inherited from
//! the service manager.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{SockFilter, SockRef, TcpKeepalive};
use tokio::sync::watch;
use tokio::time::timeout;

use super::error::ServeError;
use crate::config::{Listen, UnixSocket};
use crate::wire::stream::Transport;

/// Instructions of a packet filter (linux/bpf_common.h) that sees a segment from its TCP header on: load a byte, test
/// its bits, return how many bytes are kept.
const BPF_LOAD_BYTE: u16 = 0x30;
const BPF_IF_ANY_BIT: u16 = 0x45;
const BPF_RETURN: u16 = 0x06;

/// How long a reload waits for the workers to close a socket.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A bound socket.
pub(super) struct Socket {
    kind: Kind,
    /// Bound by the service manager, which keeps its queue and its file.
    pub(super) inherited: bool,
}

enum Kind {
    Tcp(TcpListener, SocketAddr),
    Tls(TcpListener, SocketAddr),
    Unix(UnixListener, PathBuf),
}

/// A socket's address, for messages.
pub(super) struct Address<'s>(&'s Socket);

impl fmt::Display for Address<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.kind {
            Kind::Tcp(_, address) => write!(f, "http://{address}"),
            Kind::Tls(_, address) => write!(f, "https://{address}"),
            Kind::Unix(_, path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Socket {
    pub(super) fn address(&self) -> Address<'_> {
        Address(self)
    }

    /// Makes the kernel drop new SYNs until the socket is closed; handshakes under way still complete and join the
    /// queue. An inherited socket goes on accepting them, for the next process.
    fn drop_new_syns(&self) {
        const FLAGS: u32 = 13;
        const SYN: u32 = 2;
        const DROP_SYN: &[SockFilter] = &[
            SockFilter::new(BPF_LOAD_BYTE, 0, 0, FLAGS),
            SockFilter::new(BPF_IF_ANY_BIT, 0, 1, SYN),
            SockFilter::new(BPF_RETURN, 0, 0, 0),
            SockFilter::new(BPF_RETURN, 0, 0, u32::MAX),
        ];
        if let (Kind::Tcp(listener, _) | Kind::Tls(listener, _), false) = (&self.kind, self.inherited)
            && let Err(error) = SockRef::from(listener).attach_filter(DROP_SYN)
        {
            tracing::debug!(%error, "could not attach the SYN filter, new connections are accepted until the listener closes");
        }
    }

    /// Whether connections start with a TLS handshake.
    pub(super) fn is_secure(&self) -> bool {
        matches!(self.kind, Kind::Tls(..))
    }

    /// Duplicates the descriptor, for another thread.
    pub(super) fn share(&self) -> std::io::Result<Self> {
        let kind = match &self.kind {
            Kind::Tcp(listener, address) => Kind::Tcp(listener.try_clone()?, *address),
            Kind::Tls(listener, address) => Kind::Tls(listener.try_clone()?, *address),
            Kind::Unix(listener, path) => Kind::Unix(listener.try_clone()?, path.clone()),
        };
        Ok(Self { kind, inherited: self.inherited })
    }

    /// Whether it is bound to the address of a configuration entry.
    fn is_at(&self, entry: &Listen) -> bool {
        match (&self.kind, entry) {
            (Kind::Tcp(_, own) | Kind::Tls(_, own), Listen::Tcp(wanted) | Listen::Tls(wanted)) => own == wanted,
            (Kind::Unix(_, own), Listen::Unix(wanted)) => *own == wanted.path,
            _ => false,
        }
    }

    /// Duplicates the descriptor for an entry with the same address, which may switch TLS on or off.
    fn share_for(&self, entry: &Listen) -> std::io::Result<Self> {
        let Self { kind, inherited } = self.share()?;
        if let (Listen::Unix(socket), false) = (entry, inherited) {
            set_permissions(socket)?;
        }
        let kind = match (kind, entry) {
            (Kind::Tcp(listener, address), Listen::Tls(_)) => Kind::Tls(listener, address),
            (Kind::Tls(listener, address), Listen::Tcp(_)) => Kind::Tcp(listener, address),
            (kind, _) => kind,
        };
        Ok(Self { kind, inherited })
    }
}

/// Sockets inherited from the service manager.
#[derive(Default)]
pub(super) struct Inherited(Vec<Socket>);

impl Inherited {
    /// Reads them from the environment (`LISTEN_FDS`, systemd's sd_listen_fds(3)).
    pub(super) fn take() -> Result<Self, ServeError> {
        let failed = |error| ServeError::new(format!("cannot use an inherited socket: {error}"));
        let mut handed = listenfd::ListenFd::from_env();
        let mut sockets = Vec::new();
        for at in 0..handed.len() {
            let kind = if let Ok(Some(listener)) = handed.take_tcp_listener(at) {
                listener.set_nonblocking(true).map_err(failed)?;
                SockRef::from(&listener).set_tcp_keepalive(&keepalive()).map_err(failed)?;
                let address = listener.local_addr().map_err(failed)?;
                Kind::Tcp(listener, address)
            } else {
                let listener = handed.take_unix_listener(at).map_err(failed)?;
                let Some(listener) = listener else { continue };
                listener.set_nonblocking(true).map_err(failed)?;
                let path = listener.local_addr().map_err(failed)?.as_pathname().map(Path::to_path_buf);
                Kind::Unix(listener, path.unwrap_or_default())
            };
            sockets.push(Socket { kind, inherited: true });
        }
        Ok(Self(sockets))
    }

    /// Rejects an inherited socket that no entry uses: its connections would never be accepted.
    pub(super) fn check_all_used(&self, listen: &[Listen], admin: Option<&Listen>) -> Result<(), ServeError> {
        let is_used = |socket: &&Socket| listen.iter().chain(admin).any(|entry| socket.is_at(entry));
        match self.0.iter().find(|socket| !is_used(socket)) {
            None => Ok(()),
            Some(socket) => Err(ServeError::new(format!(
                "the service manager passed the socket {}, which is not in `listen`",
                socket.address()
            ))),
        }
    }
}

/// The open sockets, one per configuration entry.
#[derive(Default)]
pub(super) struct Listening {
    inherited: Inherited,
    open: Vec<Open>,
}

struct Open {
    entry: Listen,
    socket: Socket,
    closed: watch::Sender<bool>,
}

/// The sockets that a new configuration adds: bound, not accepting yet.
pub(super) struct Prepared {
    wanted: Vec<Listen>,
    bound: Vec<Open>,
}

impl Listening {
    pub(super) fn new(inherited: Inherited) -> Self {
        Self { inherited, open: Vec::new() }
    }

    /// Binds what is not open yet: everything, or nothing and an error.
    pub(super) fn prepare(&self, wanted: &[Listen]) -> Result<Prepared, ServeError> {
        let mut open: Vec<&Listen> = self.open.iter().map(|open| &open.entry).collect();
        let mut bound: Vec<Open> = Vec::new();
        for entry in wanted {
            if let Some(at) = open.iter().position(|open| *open == entry) {
                open.swap_remove(at);
                continue;
            }
            let own = self.open.iter().map(|open| &open.socket);
            let existing = self.inherited.0.iter().chain(own).find(|socket| socket.is_at(entry));
            let socket = match existing {
                Some(socket) => socket.share_for(entry).map_err(ServeError::new)?,
                None => bind(entry)?,
            };
            bound.push(Open { entry: entry.clone(), socket, closed: watch::Sender::new(false) });
        }
        Ok(Prepared { wanted: wanted.to_vec(), bound })
    }

    /// Closes sockets that are no longer configured, then starts the prepared ones; open connections continue. All
    /// workers stop accepting on the old sockets first, since a new one may have the same address with TLS switched on
    /// or off. Clients that connect meanwhile wait in the queue.
    pub(super) async fn change(
        &mut self,
        prepared: Prepared,
        mut start: impl FnMut(&Socket, watch::Receiver<bool>) -> Result<(), ServeError>,
    ) {
        let (mut wanted, mut gone) = (prepared.wanted, Vec::new());
        for open in std::mem::take(&mut self.open) {
            match wanted.iter().position(|entry| *entry == open.entry) {
                Some(at) => {
                    wanted.swap_remove(at);
                    self.open.push(open);
                }
                None => gone.push(open),
            }
        }
        for open in &gone {
            // the file is in use again, with other permissions
            let is_kept = prepared.bound.iter().any(|new| open.socket.is_at(&new.entry));
            open.close(is_kept);
        }
        for open in &gone {
            // every accept loop holds a receiver
            let _ = timeout(CLOSE_TIMEOUT, open.closed.closed()).await;
        }
        for new in prepared.bound {
            match start(&new.socket, new.closed.subscribe()) {
                Ok(()) => self.open.push(new),
                Err(error) => tracing::error!(address = %new.socket.address(), %error, "cannot accept connections"),
            }
        }
    }

    /// The TCP addresses that clients can connect to.
    #[cfg(test)]
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        let tcp = |open: &Open| match &open.socket.kind {
            Kind::Tcp(_, address) | Kind::Tls(_, address) => Some(*address),
            Kind::Unix(..) => None,
        };
        self.open.iter().filter_map(tcp).collect()
    }

    /// Closes all sockets. Clients in the queue of the gateway's own sockets are still served. The queue accepts no
    /// more, because connections that are in it when the socket closes are reset.
    pub(super) fn close(&mut self) {
        for open in self.open.drain(..) {
            open.socket.drop_new_syns();
            open.close(false);
        }
    }
}

impl Open {
    fn close(&self, keeps_file: bool) {
        tracing::info!(address = %self.socket.address(), "listener closed");
        if let (Kind::Unix(_, path), false) = (&self.socket.kind, self.socket.inherited || keeps_file) {
            let _ = std::fs::remove_file(path);
        }
        self.closed.send_replace(true);
    }
}

/// Keepalive settings, inherited by accepted connections: a half-open connection (RFC 9293, 3.5.1) is detected within
/// two minutes.
fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(10)).with_retries(4)
}

/// Length of the accept queue, as far as the system allows (net.core.somaxconn). The standard library's 128 fill up in
/// an instant, and a client that finds the queue full tries again only after a second.
const BACKLOG: i32 = 4096;

fn bind(entry: &Listen) -> Result<Socket, ServeError> {
    let kind = match entry {
        Listen::Tcp(address) | Listen::Tls(address) => {
            let failed = |error: io::Error| {
                let next = match error.kind() {
                    io::ErrorKind::AddrInUse => {
                        ": stop the program that uses it, or change server.listen or admin_listen"
                    }
                    io::ErrorKind::AddrNotAvailable => ": this machine has no such address",
                    io::ErrorKind::PermissionDenied => {
                        ": ports below 1024 require root, CAP_NET_BIND_SERVICE or a systemd socket unit"
                    }
                    _ => "",
                };
                ServeError::new(format!("cannot listen on {address}: {error}{next}"))
            };
            let listener = TcpListener::bind(address).map_err(failed)?;
            listener.set_nonblocking(true).map_err(failed)?;
            SockRef::from(&listener).set_tcp_keepalive(&keepalive()).map_err(failed)?;
            SockRef::from(&listener).listen(BACKLOG).map_err(failed)?;
            let bound = listener.local_addr().map_err(failed)?;
            if matches!(entry, Listen::Tls(_)) { Kind::Tls(listener, bound) } else { Kind::Tcp(listener, bound) }
        }
        Listen::Unix(socket) => {
            let path = &socket.path;
            let failed = |error: io::Error| {
                let next = match error.kind() {
                    io::ErrorKind::NotFound => ": create its directory first",
                    io::ErrorKind::PermissionDenied if socket.group.is_some() => {
                        ": the gateway's user needs write access there and must be a member of the group"
                    }
                    _ => "",
                };
                ServeError::new(format!("cannot listen on unix:{}: {error}{next}", path.display()))
            };
            remove_stale(path).map_err(failed)?;
            let listener = UnixListener::bind(path).map_err(failed)?;
            set_permissions(socket).map_err(failed)?;
            SockRef::from(&listener).listen(BACKLOG).map_err(failed)?;
            listener.set_nonblocking(true).map_err(failed)?;
            Kind::Unix(listener, path.clone())
        }
    };
    Ok(Socket { kind, inherited: false })
}

/// Sets the group and mode of a socket's file.
fn set_permissions(socket: &UnixSocket) -> io::Result<()> {
    if socket.group.is_some() {
        std::os::unix::fs::lchown(&socket.path, None, socket.group)?;
    }
    std::fs::set_permissions(&socket.path, std::fs::Permissions::from_mode(socket.mode))
}

/// Removes a stale socket file. One that a process still listens on, or another kind of file, stays.
fn remove_stale(path: &Path) -> std::io::Result<()> {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    if is_socket && UnixStream::connect(path).is_err() {
        return std::fs::remove_file(path);
    }
    Ok(())
}

/// A socket registered with a runtime.
pub(super) enum Listener {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

impl Listener {
    /// Takes the remaining connections out of the queue, whether the runtime has seen them or not, and closes the
    /// socket.
    pub(super) fn drain_queue(self) -> Vec<(Transport, Option<IpAddr>)> {
        let mut rest = Vec::new();
        match self {
            Self::Tcp(listener) => {
                let Ok(listener) = listener.into_std() else { return rest };
                while let Ok((stream, address)) = listener.accept() {
                    let stream = stream.set_nonblocking(true).and_then(|()| tokio::net::TcpStream::from_std(stream));
                    rest.extend(stream.map(|stream| (Transport::tcp(stream), Some(address.ip()))));
                }
            }
            Self::Unix(listener) => {
                let Ok(listener) = listener.into_std() else { return rest };
                while let Ok((stream, _)) = listener.accept() {
                    let stream = stream.set_nonblocking(true).and_then(|()| tokio::net::UnixStream::from_std(stream));
                    rest.extend(stream.map(|stream| (Transport::Unix(stream), None)));
                }
            }
        }
        rest
    }

    pub(super) fn new(socket: Socket) -> std::io::Result<Self> {
        Ok(match socket.kind {
            Kind::Tcp(listener, _) | Kind::Tls(listener, _) => Self::Tcp(tokio::net::TcpListener::from_std(listener)?),
            Kind::Unix(listener, _) => Self::Unix(tokio::net::UnixListener::from_std(listener)?),
        })
    }

    pub(super) async fn accept(&self) -> std::io::Result<(Transport, Option<IpAddr>)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                Ok((Transport::tcp(stream), Some(address.ip())))
            }
            Self::Unix(listener) => Ok((Transport::Unix(listener.accept().await?.0), None)),
        }
    }
}
