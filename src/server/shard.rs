//! One thread and one runtime a core. All of them accept from the same sockets; a connection never
//! changes its thread (measured: a quarter less CPU time per request than on a shared pool of
//! threads). One shared socket balances a few connections better than one socket a thread.

use std::io;
use std::net::IpAddr;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::time::{interval, sleep};

use super::ServeError;
use super::listen::Socket;
use super::tls::Acceptor;
use crate::gateway::Gateway;
use crate::gateway::front::wire::Wire;
use crate::gateway::front::{Front, pool};

/// How often idle upstream connections are looked through.
const SWEEP: Duration = Duration::from_secs(1);
/// Rest after a connection could not be accepted (no descriptors left, for one).
const REST: Duration = Duration::from_millis(50);

/// The running threads; they end when the process does.
pub(super) struct Shards {
    _threads: Vec<JoinHandle<()>>,
}

/// Starts one thread a core.
pub(super) fn start(
    gateway: &Gateway,
    sockets: &[Socket],
    tls: &Acceptor,
    stopped: &watch::Receiver<bool>,
) -> Result<Shards, ServeError> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut threads = Vec::with_capacity(cores);
    for number in 0..cores {
        let sockets = sockets.iter().map(Socket::share).collect::<io::Result<Vec<_>>>().map_err(ServeError::new)?;
        let (gateway, tls, stopped) = (gateway.clone(), tls.clone(), stopped.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ServeError::new)?;
        let thread = std::thread::Builder::new()
            .name(format!("proxy-{number}"))
            .spawn(move || runtime.block_on(run(gateway, sockets, tls, stopped)))
            .map_err(ServeError::new)?;
        threads.push(thread);
    }
    Ok(Shards { _threads: threads })
}

/// Accepts until stopped; the runtime then goes on for the requests that still run.
async fn run(gateway: Gateway, sockets: Vec<Socket>, tls: Acceptor, stopped: watch::Receiver<bool>) {
    let front = Front::new(gateway, stopped.clone());
    for socket in sockets {
        tokio::spawn(accept(front.clone(), socket, tls.clone(), stopped.clone()));
    }
    let mut sweep = interval(SWEEP);
    loop {
        sweep.tick().await;
        pool::sweep();
    }
}

async fn accept(front: Front, socket: Socket, tls: Acceptor, mut stopped: watch::Receiver<bool>) {
    let tls = matches!(socket, Socket::Tls(..)).then_some(tls);
    let listener = match Listener::new(socket) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "cannot accept connections"),
    };
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.wait_for(|stopped| *stopped) => return,
        };
        match accepted {
            Ok((wire, address)) => match (wire, &tls) {
                (Wire::Tcp(stream), Some(tls)) => {
                    drop(tokio::spawn(front.clone().serve_tls(tls.clone().accept(stream), address)));
                }
                (wire, _) => drop(tokio::spawn(front.clone().serve(wire, address))),
            },
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(REST).await;
            }
        }
    }
}

/// The client was gone before it was accepted: nothing is wrong with us.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    fn new(socket: Socket) -> io::Result<Self> {
        Ok(match socket {
            Socket::Tcp(listener, _) | Socket::Tls(listener, _) => Self::Tcp(TcpListener::from_std(listener)?),
            Socket::Unix(listener, _) => Self::Unix(UnixListener::from_std(listener)?),
        })
    }

    async fn accept(&self) -> io::Result<(Wire, Option<IpAddr>)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                Ok((Wire::tcp(stream), Some(address.ip())))
            }
            Self::Unix(listener) => Ok((Wire::Unix(listener.accept().await?.0), None)),
        }
    }
}
