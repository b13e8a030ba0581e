//! The process: sockets that we bind ourselves, one thread and one runtime a core for the proxy, a
//! runtime apart for everything else, signals, draining. No request is judged here.

use std::fmt;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::account::Accounts;
use crate::clock::Clock;
use crate::config::{Config, UpstreamServer};
use crate::gateway::Gateway;
use crate::logging::Log;
use crate::pages::whoami;

mod admin;
mod listen;
mod shard;
mod tls;

/// How long running requests may go on after the stop signal.
const DRAIN: Duration = Duration::from_secs(30);
/// How often live connections are asked whether their session still stands.
const SWEEP: Duration = Duration::from_millis(200);
/// How often names of upstreams are looked up again, and how long one look-up may take.
const RESOLVE: Duration = Duration::from_secs(15);
const RESOLVE_TIME: Duration = Duration::from_secs(5);

/// Why the gateway could not be started: one plain line.
#[derive(Debug)]
pub struct ServeError(String);

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ServeError {}

impl ServeError {
    fn new(what: impl fmt::Display) -> Self {
        Self(what.to_string())
    }
}

/// Serves until a stop signal and then until running requests are done.
pub fn serve(config: Config) -> Result<(), ServeError> {
    let clock = Clock::system();
    let log = Log::start(clock.clone()).map_err(ServeError::new)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ServeError::new)?;
    let served = runtime.block_on(run(Arc::new(config), clock, log.clone()));
    log.flush();
    served
}

async fn run(config: Arc<Config>, clock: Clock, log: Log) -> Result<(), ServeError> {
    // before anything tells that we are here: a stop signal must never find the default action
    let signals = Signals::listen().map_err(ServeError::new)?;
    let accounts = Accounts::open(&config, clock.clone()).map_err(ServeError::new)?;
    let sockets = listen::bind(&config.server.listen)?;
    let admin = admin::bind(config.server.admin_listen.as_ref())?;
    let whoami = if uses_whoami(&config) { Some(start_whoami().await?) } else { None };
    let gateway = Gateway::new(config.clone(), accounts.clone(), clock, log.clone(), whoami);
    resolve(&gateway).await;
    let (stop, stopped) = watch::channel(false);
    let certificates = Arc::new(tls::Certificates::new(&config.server.tls));
    let acceptor = tls::Acceptor::new(certificates.clone())?;
    let shards = shard::start(&gateway, &sockets, &acceptor, &stopped)?;
    tokio::spawn(tls::watch(certificates, gateway.clone()));
    admin::start(admin, gateway.clone(), accounts.clone(), stopped);
    for socket in &sockets {
        tracing::info!(address = %socket.address(), "listening");
    }
    print_first_link(&config, &accounts, &log).await?;
    tracing::info!(public_url = %config.server.public_url, "ready");
    work_until_stopped(&gateway, signals).await;
    tracing::info!("draining");
    let _ = stop.send(true);
    gateway.drain();
    drained(&gateway).await;
    drop(shards);
    accounts.close().await;
    listen::remove(&config.server.listen);
    tracing::info!("stopped");
    Ok(())
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// The background work beside the requests, until a stop signal.
async fn work_until_stopped(gateway: &Gateway, mut signals: Signals) {
    let mut sweep = interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let resolver = gateway.clone();
    let resolving = tokio::spawn(async move {
        loop {
            sleep(RESOLVE).await;
            resolve(&resolver).await;
        }
    });
    loop {
        tokio::select! {
            () = signals.stop() => break,
            _ = sweep.tick() => gateway.sweep(),
        }
    }
    resolving.abort();
}

async fn drained(gateway: &Gateway) {
    let began = Instant::now();
    while gateway.open_connections() > 0 && began.elapsed() < DRAIN {
        sleep(Duration::from_millis(20)).await;
    }
}

/// Looks up the upstreams' names; what cannot be found now keeps what was found before.
async fn resolve(gateway: &Gateway) {
    let mut names = gateway.names();
    names.sort();
    names.dedup();
    if names.is_empty() {
        return;
    }
    let mut found = Vec::new();
    for (host, port) in names {
        let addresses =
            async { Ok::<Vec<_>, std::io::Error>(tokio::net::lookup_host((host.as_str(), port)).await?.collect()) };
        match timeout(RESOLVE_TIME, addresses).await {
            Ok(Ok(addresses)) => found.push(((host.clone(), port), addresses)),
            Ok(Err(error)) => tracing::warn!(host, %error, "upstream name not found"),
            Err(_) => tracing::warn!(host, "upstream name not found in time"),
        }
    }
    gateway.resolved(&found);
}

fn uses_whoami(config: &Config) -> bool {
    config.upstreams.iter().any(|upstream| upstream.servers.contains(&UpstreamServer::Whoami))
}

/// The backend inside the binary, on a loopback port of its own: what it shows is what any other
/// backend would receive.
async fn start_whoami() -> Result<std::net::SocketAddr, ServeError> {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.map_err(ServeError::new)?;
    let address = listener.local_addr().map_err(ServeError::new)?;
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => drop(tokio::spawn(whoami::serve(stream))),
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    });
    Ok(address)
}

/// The one-time link for the first account goes to standard error beside the log, never into it.
async fn print_first_link(config: &Config, accounts: &Accounts, log: &Log) -> Result<(), ServeError> {
    let Some(token) = accounts.first_link().await.map_err(ServeError::new)? else { return Ok(()) };
    log.flush();
    let server = &config.server;
    let _ = writeln!(
        std::io::stderr(),
        "\nThere is no account yet. Create the first one (group admin) within 24 hours at\n\n  {}{}/invite/{}\n",
        server.public_url,
        server.prefix,
        token.expose()
    );
    Ok(())
}
