//! Start, main loop and shutdown of the process. The workers run on threads of their own; the main thread's runtime
//! handles signals and reloads, and runs the background tasks.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::error::ServeError;
use super::listen::{Inherited, Listening, Socket};
use super::reload::{Server, Source};
use super::signals::Signals;
use super::{admin, descriptors, dns, file_watch, supervisor, tls, whoami, workers};
use crate::account::identity::recheck::Rechecks;
use crate::account::{Accounts, one_time_link};
use crate::clock::Clock;
use crate::config::Config;
use crate::critical;
use crate::logging::Log;
use crate::proxy::{Current, Gateway, build_gateway};
use crate::upstream::health::HealthChecks;
use crate::web::host::Host;

/// How long open connections may go on after the stop signal.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// How often the sessions of live connections are checked.
const SWEEP_INTERVAL: Duration = Duration::from_millis(200);
/// How often a start tries again to reach a shared database.
const STORE_RETRY: Duration = Duration::from_secs(1);
/// How often sessions are looked through for those whose provider is to be asked again.
const RECHECK_INTERVAL: Duration = Duration::from_secs(1);
/// How often the gateway looks for servers whose health check is due.
const HEALTH_CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// Serves until a stop signal arrives, then drains open connections. A reload reads `source` again.
pub fn serve(config: Config, source: Option<Source>) -> Result<(), ServeError> {
    let clock = Clock::system();
    let log = Log::start(clock.clone()).map_err(ServeError::new)?;
    descriptors::raise(config.limits.connections);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ServeError::new)?;
    let served = runtime.block_on(run(Arc::new(config), source, clock, log.clone()));
    // file reads and DNS lookups that are still running are abandoned
    runtime.shutdown_background();
    log.flush();
    served
}

async fn run(config: Arc<Config>, source: Option<Source>, clock: Clock, log: Log) -> Result<(), ServeError> {
    let mut signals = Signals::listen().map_err(ServeError::new)?;
    let (stop, stopped) = watch::channel(false);
    let mut server = tokio::select! {
        () = signals.stop.wait() => return Ok(()),
        server = start(&config, source, clock, &log, &stopped) => server?,
    };
    let accounts = server.admin_context.accounts.clone();
    print_first_link(&config, &accounts, &log).await?;
    tracing::info!(public_url = %config.server.public_url, "ready");
    supervisor::ready();
    let background = [
        critical::spawn("sweep", sweep(server.current.clone())),
        critical::spawn("recheck", recheck(server.current.clone())),
        critical::spawn("look-up", dns::look_up(server.current.clone())),
        critical::spawn("health", check_servers(server.current.clone())),
        critical::spawn("certificates", tls::watch(server.certificates.clone(), server.current.clone())),
        critical::spawn("watchdog", supervisor::watchdog(accounts.clone(), server.workers.clone())),
    ];
    loop {
        tokio::select! {
            () = signals.stop.wait() => break,
            () = signals.reload.wait() => {
                // without a file there is nothing to reload: SIGHUP means that the terminal was closed
                if server.source.is_none() && !signals.reload.was_ignored {
                    break;
                }
                server.mark_file_seen();
            }
            () = server.file_changed() => {}
        }
        supervisor::reloading();
        tokio::select! {
            () = signals.stop.wait() => break,
            status = server.reload() => supervisor::reloaded(&status),
        }
    }
    tracing::info!("draining");
    supervisor::stopping();
    background.iter().for_each(tokio::task::JoinHandle::abort);
    // first, so that new connections are refused at once
    server.listening.close();
    let _ = stop.send(true);
    let gateway = server.current.gateway();
    gateway.drain();
    tokio::select! {
        () = drained(&gateway) => {}
        () = signals.stop.wait() => tracing::warn!("second stop signal, closing all connections"),
    }
    accounts.close().await;
    server.admin.close();
    tracing::info!("stopped");
    Ok(())
}

/// Opens the store, the sockets and the workers, or fails with a one-line error.
async fn start(
    config: &Arc<Config>,
    source: Option<Source>,
    clock: Clock,
    log: &Log,
    stopped: &watch::Receiver<bool>,
) -> Result<Server, ServeError> {
    await_store(config).await?;
    let accounts = Accounts::open(config, clock.clone()).map_err(ServeError::new)?;
    let inherited = Inherited::take()?;
    inherited.check_all_used(&config.server.listen, config.server.admin_listen.as_ref())?;
    let mut listening = Listening::new(inherited);
    let mut admin = Listening::default();
    let sockets = listening.prepare(&config.server.listen)?;
    let admin_socket = match admin.prepare(config.server.admin_listen.as_slice()) {
        // without a file this is the default address, which the user did not choose and cannot change
        Err(error) if source.is_none() => {
            tracing::warn!(%error, "admin listener not started: no /healthz, /readyz or /metrics");
            admin.prepare(&[])?
        }
        prepared => prepared?,
    };
    let whoami = if whoami::is_used(config) { Some(whoami::start().await?) } else { None };
    let gateway = build_gateway::gateway(config.clone(), accounts.clone(), clock, log.clone(), whoami);
    dns::resolve(&gateway).await;
    gateway.reloaded(true);
    let current = Current::new(&gateway);
    let certificates = Arc::new(tls::Certificates::new(&config.server.tls));
    let workers = workers::start(&current, &tls::Acceptor::new(certificates.clone())?, stopped)?;
    let admin_context = admin::AdminContext { current: current.clone(), accounts, stopped: stopped.clone() };
    admin.change(admin_socket, |socket, closed| admin::start(socket, admin_context.clone(), closed)).await;
    let start_listener = |socket: &Socket, closed| {
        tracing::info!(address = %socket.address(), "listening");
        workers.accept(socket, &closed)
    };
    listening.change(sockets, start_listener).await;
    let watch = source.as_ref().and_then(|source| file_watch::FileWatch::start(&source.path));
    Ok(Server {
        source,
        watch,
        current,
        listening,
        admin,
        admin_context,
        workers,
        certificates,
        whoami,
        log: log.clone(),
    })
}

/// Waits until a shared database can be reached: a start that failed over and over would be given up by the service
/// manager. The signals still end the process.
async fn await_store(config: &Arc<Config>) -> Result<(), ServeError> {
    let mut is_said = false;
    loop {
        let asked = Arc::clone(config);
        let away = tokio::task::spawn_blocking(move || Accounts::store_away(&asked)).await.map_err(ServeError::new)?;
        let Some(why) = away else { return Ok(()) };
        if !is_said {
            tracing::warn!(error = why, "waiting for the account store");
            is_said = true;
        }
        supervisor::starting();
        tokio::time::sleep(STORE_RETRY).await;
    }
}

/// Closes live connections whose session has ended, until shutdown.
async fn sweep(current: Current) {
    let mut sweep = interval(SWEEP_INTERVAL);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        sweep.tick().await;
        current.gateway().sweep();
    }
}

/// Asks providers about sessions that are due, until shutdown.
async fn recheck(current: Current) {
    let (mut rechecks, mut round) = (Rechecks::default(), interval(RECHECK_INTERVAL));
    round.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        round.tick().await;
        rechecks.start_due(current.gateway().accounts());
    }
}

/// Starts the health checks that are due, until shutdown.
async fn check_servers(current: Current) {
    let (checks, mut round) = (HealthChecks::new(), interval(HEALTH_CHECK_INTERVAL));
    round.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        round.tick().await;
        current.gateway().begin_health_checks(&checks);
    }
}

async fn drained(gateway: &Gateway) {
    let began = Instant::now();
    while gateway.open_connections() > 0 && began.elapsed() < DRAIN_TIMEOUT {
        sleep(Duration::from_millis(20)).await;
    }
}

/// Prints the one-time link for the first account to standard error. The link is never logged.
async fn print_first_link(config: &Config, accounts: &Accounts, log: &Log) -> Result<(), ServeError> {
    let Some(token) = one_time_link::create_first(accounts).await.map_err(ServeError::new)? else { return Ok(()) };
    log.flush();
    let server = &config.server;
    let (origin, hint) = match host_name().and_then(|name| Host::parse(&name)).filter(|_| server.is_public_url_guessed)
    {
        None => (server.public_url.clone(), ""),
        Some(name) => (
            server.public_url.with_host(&name),
            "This is the machine's host name. If browsers use another name or address, set server.public_url to it.\n",
        ),
    };
    let _ = writeln!(
        std::io::stderr(),
        "\nThere are no accounts yet. Create the first one (group admin) within 24 hours at\n\n  {origin}{}/invite/{}\n\n{hint}",
        server.prefix,
        token.expose()
    );
    Ok(())
}

/// The machine's host name, if the system has one.
fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty() && name != "localhost")
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::config::Route;
    use crate::critical::testing::{play, role};
    use crate::metrics::Format;
    use crate::proxy::metrics_report;

    /// Whether a request for one of the gateway's own pages is answered.
    fn asks(stream: &mut TcpStream) -> bool {
        stream.write_all(b"GET /.auth/me HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"}") {
            let mut piece = [0; 4096];
            match stream.read(&mut piece) {
                Ok(read @ 1..) => answer.extend_from_slice(&piece[..read]),
                _ => return false,
            }
        }
        answer.starts_with(b"HTTP/1.1 401 ")
    }

    fn config(text: &str, dir: &std::path::Path) -> Config {
        let text = text.replace("STATE", dir.join("state").to_str().unwrap());
        crate::config::parse(&text, "gateway.toml", dir.into(), &|_| None).map_err(|_| ()).unwrap()
    }

    async fn serve(config: Config) -> (Server, watch::Sender<bool>) {
        let log = Log::start(Clock::system()).unwrap();
        let (stop, stopped) = watch::channel(false);
        (start(&Arc::new(config), None, Clock::system(), &log, &stopped).await.unwrap(), stop)
    }

    async fn eventually(what: &str, holds: impl Fn() -> bool) {
        let began = Instant::now();
        while !holds() {
            assert!(began.elapsed() < Duration::from_secs(20), "never: {what}");
            tokio::task::yield_now().await;
        }
    }

    /// Serves on real threads. For a while every request panics: a keep-alive timeout that no configuration can contain
    /// overflows the clock.
    async fn serve_while_requests_panic() {
        const BROKEN: u64 = 40;
        const TEXT: &str = "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin_listen = \"\"\nstate_dir = \"STATE\"\n[[route]]\nupstream = \"http://127.0.0.1:9\"\n";
        let dir = tempfile::tempdir().unwrap();
        let mut broken = config(TEXT, dir.path());
        broken.limits.keep_alive = Duration::MAX;
        let (server, _stop) = serve(config(TEXT, dir.path())).await;
        let connect = || TcpStream::connect(server.listening.addresses()[0]).unwrap();
        let mut early = connect();
        assert!(asks(&mut early));

        let good = server.current.gateway();
        server.current.replace(&build_gateway::reconfigured(&good, Arc::new(broken), good.accounts().clone(), None));
        for _ in 0..BROKEN {
            assert_eq!(connect().read(&mut [0]).unwrap_or(0), 0, "it is closed");
        }
        server.current.replace(&good);

        assert!(asks(&mut early), "another one goes on");
        eventually("their places are free", || good.open_connections() <= 1).await;
        assert!(server.workers.ping().await);
        for _ in 0..8 {
            assert!(asks(&mut connect()));
        }
        assert!(
            metrics_report::metrics_text(&good, Format::Classic).contains(&format!("authgate_panics_total {BROKEN}\n"))
        );
    }

    /// One HTTP/2 connection. Some streams panic after their request was forwarded; other streams continue.
    async fn serve_while_streams_panic() {
        const BROKEN: u64 = 40;
        const TEXT: &str = "[server]\nlisten = [\"https://127.0.0.1:0\"]\nadmin_listen = \"\"\nstate_dir = \"STATE\"\npublic_url = \"https://a.example.com\"\n\
             [server.tls]\ncertificates = [{ certificate = \"own.pem\", key = { file = \"own.key\" } }]\n\
             [[route]]\naccess = \"public\"\nupstream = \"http://SERVER\"\n";
        let dir = tempfile::tempdir().unwrap();
        let pair = rcgen::generate_simple_self_signed(vec!["a.example.com".to_owned()]).unwrap();
        std::fs::write(dir.path().join("own.pem"), pair.cert.pem()).unwrap();
        std::fs::write(dir.path().join("own.key"), pair.signing_key.serialize_pem()).unwrap();
        std::fs::set_permissions(dir.path().join("own.key"), std::fs::Permissions::from_mode(0o600)).unwrap();
        // it accepts connections and never responds
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let text = TEXT.replace("SERVER", &silent.local_addr().unwrap().to_string());
        let mut broken = config(&text, dir.path());
        broken.routes = broken.routes.iter().map(|route| Route { timeout: Duration::MAX, ..route.clone() }).collect();
        let (server, _stop) = serve(config(&text, dir.path())).await;
        let good = server.current.gateway();

        let mut roots = rustls::RootCertStore::empty();
        roots.add(pair.cert.der().clone()).unwrap();
        let mut client = rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.alpn_protocols = vec![b"h2".to_vec()];
        let stream = tokio::net::TcpStream::connect(server.listening.addresses()[0]).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
        let stream = connector.connect("a.example.com".try_into().unwrap(), stream).await.unwrap();
        let (send, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let ask = async |path: &str| {
            let request = http::Request::get(format!("https://a.example.com{path}")).body(()).unwrap();
            let (answer, _) = send.clone().ready().await.unwrap().send_request(request, true).unwrap();
            answer.await.map(|answer| answer.status().as_u16())
        };
        assert_eq!(ask("/.auth/me").await.unwrap(), 401);
        server.current.replace(&build_gateway::reconfigured(&good, Arc::new(broken), good.accounts().clone(), None));
        for _ in 0..BROKEN {
            assert!(ask("/x").await.unwrap_err().is_reset(), "the stream ends");
            assert_eq!(ask("/.auth/me").await.unwrap(), 401, "its neighbour is served");
        }
        eventually("their places are free", || good.open_connections() == 1).await;
        assert!(
            metrics_report::metrics_text(&good, Format::Classic).contains(&format!("authgate_panics_total {BROKEN}\n"))
        );
    }

    /// Reliability goal G-17. Runs in a process of its own, which a failure would end.
    #[tokio::test]
    async fn a_panic_in_a_request_ends_its_connection_and_nothing_else() {
        if role().is_some() {
            serve_while_requests_panic().await;
            return;
        }
        plays("a_panic_in_a_request_ends_its_connection_and_nothing_else");
    }

    /// The same over HTTP/2, where streams share a connection.
    #[tokio::test]
    async fn a_panic_in_a_stream_ends_that_stream_and_nothing_else() {
        if role().is_some() {
            serve_while_streams_panic().await;
            return;
        }
        plays("a_panic_in_a_stream_ends_that_stream_and_nothing_else");
    }

    fn plays(test: &str) {
        let (ended, said) = play(&format!("server::lifecycle::tests::{test}"), "serve");
        assert_eq!(ended, Some(0), "{said}");
        assert!(said.contains("\"message\":\"panic\"") && said.contains("\"thread\":\"proxy-"), "{said}");
    }
}
