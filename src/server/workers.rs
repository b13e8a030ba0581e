//! Worker threads: one per core, each with a runtime of its own. All workers accept from the same sockets. An accepted
//! connection is assigned to the worker that has the fewest and stays on it (measured: a quarter less CPU time per
//! request than on a shared thread pool).

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use pingora_core::apps::ServerApp as _;
use pingora_core::server::ShutdownWatch;
use tokio::net::TcpStream;
use tokio::sync::mpsc::error::SendError;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, interval, sleep};

use super::error::ServeError;
use super::listen::{Listener, Socket};
use super::tls::Acceptor;
use crate::proxy::Current;
use crate::proxy::accepted_connection::AcceptedConnection;
use crate::proxy::connection_limits::{ConnectionPermit, WorkerLoad};
use crate::proxy::server_app::ProxyApp;
use crate::proxy::tls_handshake;
use crate::wire::stream::{Stream, Transport};
use crate::{critical, upstream};

/// How often expired upstream connections are removed from the pool.
const POOL_SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Delay before the next `accept` after an error, for example when no descriptors are left.
const RETRY_DELAY: Duration = Duration::from_millis(50);
/// Minimum time between two log lines about such errors.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Handle to all workers; they run until the process exits.
#[derive(Clone)]
pub(super) struct Workers(Arc<[WorkerHandle]>);

/// What other threads need to reach a worker.
struct WorkerHandle {
    inbox: UnboundedSender<WorkerMessage>,
    load: WorkerLoad,
}

/// A message to a worker.
pub(super) enum WorkerMessage {
    /// Accept from this socket until the receiver becomes `true`.
    Accept(Socket, watch::Receiver<bool>),
    /// Serve a connection that another worker accepted.
    Serve(ConnectionHandoff),
    /// Reply, to show that the worker still runs.
    Ping(oneshot::Sender<()>),
}

/// A connection on its way to another worker.
pub(super) struct ConnectionHandoff {
    stream: std::net::TcpStream,
    address: Option<IpAddr>,
    is_secure: bool,
    permit: ConnectionPermit,
}

/// Starts one worker per core.
pub(super) fn start(current: &Current, tls: &Acceptor, stopped: &watch::Receiver<bool>) -> Result<Workers, ServeError> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let (inboxes, messages): (Vec<_>, Vec<_>) = (0..cores).map(|_| unbounded_channel()).unzip();
    let workers =
        Workers(inboxes.into_iter().map(|inbox| WorkerHandle { inbox, load: WorkerLoad::default() }).collect());
    for (number, messages) in messages.into_iter().enumerate() {
        let (current, tls, stopped, workers) = (current.clone(), tls.clone(), stopped.clone(), workers.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ServeError::new)?;
        let serve = move || {
            // created on the worker's thread: what pingora creates here is bound to its runtime
            let run = async {
                let (app, shutdown) = (Arc::new(ProxyApp::new(current)), thread_local_shutdown(stopped.clone()));
                run(Dispatcher { app, shutdown, tls, number, workers }, messages, stopped).await;
            };
            runtime.block_on(run);
        };
        critical::spawn_thread(&format!("proxy-{number}"), serve).map_err(ServeError::new)?;
    }
    Ok(workers)
}

impl Workers {
    /// Makes all workers accept from a socket until `closed` becomes `true`.
    pub(super) fn accept(&self, socket: &Socket, closed: &watch::Receiver<bool>) -> Result<(), ServeError> {
        for WorkerHandle { inbox, .. } in &*self.0 {
            let _ = inbox.send(WorkerMessage::Accept(socket.share().map_err(ServeError::new)?, closed.clone()));
        }
        Ok(())
    }

    /// Waits for a reply from every worker; `false` if one has ended.
    pub(super) async fn ping(&self) -> bool {
        for WorkerHandle { inbox, .. } in &*self.0 {
            let (reply, answer) = oneshot::channel();
            if inbox.send(WorkerMessage::Ping(reply)).is_err() || answer.await.is_err() {
                return false;
            }
        }
        true
    }
}

/// A copy of the shutdown signal for this thread alone. Every request reads it, and a channel shared by all threads
/// would slow all of them down.
fn thread_local_shutdown(mut stopped: watch::Receiver<bool>) -> watch::Receiver<bool> {
    let (sender, receiver) = watch::channel(false);
    drop(tokio::spawn(async move {
        let _ = stopped.wait_for(|stopped| *stopped).await;
        sender.send(true)
    }));
    receiver
}

/// Handles messages until the process exits.
async fn run(dispatcher: Dispatcher, mut messages: UnboundedReceiver<WorkerMessage>, stopped: watch::Receiver<bool>) {
    let mut sweep = interval(POOL_SWEEP_INTERVAL);
    loop {
        tokio::select! {
            message = messages.recv() => match message {
                Some(WorkerMessage::Accept(socket, closed)) => {
                    drop(critical::spawn("accept", accept(dispatcher.clone(), socket, closed, stopped.clone())));
                }
                Some(WorkerMessage::Serve(handoff)) => dispatcher.adopt(handoff),
                Some(WorkerMessage::Ping(reply)) => drop(reply.send(())),
                None => std::future::pending().await,
            },
            _ = sweep.tick() => upstream::sweep(),
        }
    }
}

/// Distributes the connections that this worker accepts.
#[derive(Clone)]
struct Dispatcher {
    app: Arc<ProxyApp>,
    shutdown: ShutdownWatch,
    tls: Acceptor,
    number: usize,
    workers: Workers,
}

impl Dispatcher {
    /// Serves a connection, or hands it to the worker that has the fewest.
    fn dispatch(&self, (transport, address): (Transport, Option<IpAddr>), is_secure: bool) {
        let Some(permit) = self.app.acquire(address) else { return };
        let handles = &self.workers.0;
        let own = &handles[self.number];
        let least_loaded = handles.iter().min_by_key(|handle| handle.load.count()).unwrap_or(own);
        match transport {
            Transport::Tcp(stream) if least_loaded.load.count() < own.load.count() => {
                let Ok(stream) = stream.into_std() else { return };
                let permit = permit.assign_to_worker(&least_loaded.load);
                let handoff = WorkerMessage::Serve(ConnectionHandoff { stream, address, is_secure, permit });
                if let Err(SendError(WorkerMessage::Serve(handoff))) = least_loaded.inbox.send(handoff) {
                    self.adopt(handoff);
                }
            }
            transport => {
                let permit = permit.assign_to_worker(&own.load);
                self.serve(transport, address, is_secure, permit);
            }
        }
    }

    /// Serves a connection that another worker accepted.
    fn adopt(&self, handoff: ConnectionHandoff) {
        let ConnectionHandoff { stream, address, is_secure, permit } = handoff;
        match TcpStream::from_std(stream) {
            Ok(stream) => self.serve(Transport::Tcp(stream), address, is_secure, permit),
            Err(error) => tracing::warn!(%error, "connection handoff failed"),
        }
    }

    fn serve(&self, transport: Transport, address: Option<IpAddr>, is_secure: bool, permit: ConnectionPermit) {
        let (app, shutdown, activity) = (self.app.clone(), self.shutdown.clone(), permit.activity().clone());
        match transport {
            Transport::Tcp(stream) if is_secure => {
                let tls = self.tls.clone();
                let served = async move {
                    let handshake = |stream| tls.accept(stream);
                    let accept = tls_handshake::accept(&app, &shutdown, stream, handshake, address, permit);
                    // apart: what a handshake needs is freed when it is over
                    if let Some(accepted) = Box::pin(accept).await {
                        app.process_new(Box::new(accepted), &shutdown).await;
                    }
                };
                drop(tokio::spawn(activity.serve(Box::pin(served))));
            }
            transport => {
                let accepted = Box::new(AcceptedConnection::plain(Stream::new(transport), address, permit));
                let served = async move { drop(app.process_new(accepted, &shutdown).await) };
                drop(tokio::spawn(activity.serve(Box::pin(served))));
            }
        }
    }
}

/// Accepts connections until the socket is closed or the process shuts down. Connections that already wait in the queue
/// of the gateway's own socket are still served; an inherited socket keeps its queue for the next process.
async fn accept(
    dispatcher: Dispatcher,
    socket: Socket,
    mut closed: watch::Receiver<bool>,
    mut stopped: watch::Receiver<bool>,
) {
    let (inherited, is_secure) = (socket.inherited, socket.is_secure());
    let listener = match Listener::new(socket) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "cannot accept connections"),
    };
    let mut error_log = AcceptErrorLog::default();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.wait_for(|stopped| *stopped) => break,
            _ = closed.wait_for(|closed| *closed) => break,
        };
        match accepted {
            Ok(accepted) => dispatcher.dispatch(accepted, is_secure),
            Err(error) if is_transient_accept_error(&error) => {}
            Err(error) => {
                error_log.log(&error);
                sleep(RETRY_DELAY).await;
            }
        }
    }
    if !inherited {
        for accepted in listener.drain_queue() {
            dispatcher.dispatch(accepted, is_secure);
        }
    }
}

/// Rate-limited logging of `accept` errors.
#[derive(Default)]
struct AcceptErrorLog {
    suppressed: u64,
    last_logged: Option<Instant>,
}

impl AcceptErrorLog {
    /// A lasting error would otherwise fill the log.
    fn log(&mut self, error: &io::Error) {
        self.suppressed += 1;
        if self.last_logged.is_none_or(|logged| logged.elapsed() >= LOG_INTERVAL) {
            tracing::warn!(%error, times = self.suppressed, "accept failed");
            (self.suppressed, self.last_logged) = (0, Some(Instant::now()));
        }
    }
}

/// Whether the error concerns only one connection, whose client was gone before it was accepted.
fn is_transient_accept_error(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}
