//! One thread and one runtime a core. All of them accept from the same sockets; a connection never
//! changes its thread (measured: a quarter less CPU time per request than on a shared pool of
//! threads). One shared socket balances a few connections better than one socket a thread.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{oneshot, watch};
use tokio::time::{interval, sleep};

use super::ServeError;
use super::listen::{Listener, Socket};
use super::tls::Acceptor;
use crate::gateway::Current;
use crate::gateway::front::wire::Wire;
use crate::gateway::front::{Front, pool};

/// How often idle upstream connections are looked through.
const SWEEP: Duration = Duration::from_secs(1);
/// Rest after a connection could not be accepted (no descriptors left, for one).
const REST: Duration = Duration::from_millis(50);

/// Connections that wait in the queue of a socket that is closed, at most.
const QUEUE: usize = 4096;

/// The way to the running threads; they end when the process does.
#[derive(Clone)]
pub(super) struct Shards(Vec<UnboundedSender<Order>>);

/// What a thread is told.
pub(super) enum Order {
    /// Accept from this socket, until told otherwise.
    Accept(Socket, watch::Receiver<bool>),
    /// Say that you are alive.
    Answer(oneshot::Sender<()>),
}

/// Starts one thread a core.
pub(super) fn start(current: &Current, tls: &Acceptor, stopped: &watch::Receiver<bool>) -> Result<Shards, ServeError> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut inboxes = Vec::with_capacity(cores);
    for number in 0..cores {
        let (inbox, orders) = unbounded_channel();
        let (current, tls, stopped) = (current.clone(), tls.clone(), stopped.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ServeError::new)?;
        std::thread::Builder::new()
            .name(format!("proxy-{number}"))
            .spawn(move || runtime.block_on(run(&current, orders, tls, stopped)))
            .map_err(ServeError::new)?;
        inboxes.push(inbox);
    }
    Ok(Shards(inboxes))
}

impl Shards {
    /// Has all threads accept from a socket until `closed` says so.
    pub(super) fn accept(&self, socket: &Socket, closed: &watch::Receiver<bool>) -> Result<(), ServeError> {
        for inbox in &self.0 {
            let _ = inbox.send(Order::Accept(socket.share().map_err(ServeError::new)?, closed.clone()));
        }
        Ok(())
    }

    /// Waits until every thread has said that it is alive; `false`: one has ended.
    pub(super) async fn answer(&self) -> bool {
        for inbox in &self.0 {
            let (asked, answer) = oneshot::channel();
            if inbox.send(Order::Answer(asked)).is_err() || answer.await.is_err() {
                return false;
            }
        }
        true
    }
}

/// Accepts until stopped; the runtime then goes on for the requests that still run.
async fn run(current: &Current, mut orders: UnboundedReceiver<Order>, tls: Acceptor, stopped: watch::Receiver<bool>) {
    let front = Front::new(current.clone(), stopped.clone());
    let mut sweep = interval(SWEEP);
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                Some(Order::Accept(socket, closed)) => {
                    let tls = socket.is_secure().then(|| tls.clone());
                    drop(tokio::spawn(accept(Door { front: front.clone(), tls }, socket, closed, stopped.clone())));
                }
                Some(Order::Answer(asked)) => drop(asked.send(())),
                None => std::future::pending().await,
            },
            _ = sweep.tick() => pool::sweep(),
        }
    }
}

/// What becomes of connections of one socket.
struct Door {
    front: Front,
    tls: Option<Acceptor>,
}

impl Door {
    fn let_in(&mut self, (wire, address): (Wire, Option<IpAddr>)) {
        let front = self.front.for_request();
        match (wire, &self.tls) {
            (Wire::Tcp(stream), Some(tls)) => {
                drop(tokio::spawn(front.serve_tls(tls.clone().accept(stream), address)));
            }
            (wire, _) => drop(tokio::spawn(front.serve(wire, address))),
        }
    }
}

/// Accepts until the socket is closed or the process stops. Whoever is in the queue of a socket of our own is
/// let in first; a socket that was handed to us keeps its queue for the next process.
async fn accept(mut door: Door, socket: Socket, mut closed: watch::Receiver<bool>, mut stopped: watch::Receiver<bool>) {
    let inherited = socket.inherited;
    let listener = match Listener::new(socket) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "cannot accept connections"),
    };
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.wait_for(|stopped| *stopped) => break,
            _ = closed.wait_for(|closed| *closed) => break,
        };
        match accepted {
            Ok(accepted) => door.let_in(accepted),
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(REST).await;
            }
        }
    }
    let waiting = if inherited { 0 } else { QUEUE };
    for _ in 0..waiting {
        let Some(Ok(accepted)) = listener.accept().now_or_never() else { return };
        door.let_in(accepted);
    }
}

/// The client was gone before it was accepted: nothing is wrong with us.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}
