//! Connections to the server: which host, its TLS, deadlines. Their input and output run on one thread of their own;
//! who asks blocks.

use std::future::Future;
use std::sync::LazyLock;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio_postgres::config::{SslMode, TargetSessionAttrs};
use tokio_postgres::{Client, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::faults::{ANSWER_MAX, refused};
use super::tls;
use crate::config::{StoreHost, StoreUrl};
use crate::metrics;
use crate::store::error::StoreError;

/// Runs the connections.
static CONNECTIONS: LazyLock<Result<Runtime, String>> = LazyLock::new(|| {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let built = builder.worker_threads(1).thread_name("postgres").enable_io().enable_time().build();
    built.map_err(|error| format!("could not start a thread: {error}"))
});

/// Waits for the server, at most [`ANSWER_MAX`]; `None`: that was not enough.
pub(super) fn wait<T>(answer: impl Future<Output = T>) -> Option<T> {
    let runtime = CONNECTIONS.as_ref().ok()?;
    let _guard = runtime.enter();
    futures_executor::block_on(tokio::time::timeout(ANSWER_MAX, answer)).ok()
}

/// A `PostgreSQL` and how to reach it.
#[derive(Clone)]
pub(in crate::store) struct Server {
    url: StoreUrl,
    tls: Option<MakeRustlsConnect>,
    /// What the connections are called in `pg_stat_activity`.
    name: String,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Server").field(&self.shown()).finish()
    }
}

impl Server {
    /// `node`: the name of this process in the server's lists.
    ///
    /// # Errors
    /// [`StoreError::Unusable`]: this machine has no certificate authorities.
    pub(in crate::store) fn new(url: &StoreUrl, node: &str) -> Result<Self, StoreError> {
        let tls = tls::connector(&url.tls)?;
        Ok(Self { url: url.clone(), tls, name: format!("authgate/{node}") })
    }

    /// For messages; without the password.
    pub(in crate::store) fn shown(&self) -> String {
        self.url.shown()
    }

    /// Connects to the first host that accepts writes.
    ///
    /// # Errors
    /// [`StoreError::Unusable`]: the server is there, and refuses this user, database or certificate.
    /// [`StoreError::Down`]: it is away.
    pub(super) fn connect(&self) -> Result<Client, StoreError> {
        let mut why = StoreError::Down(format!("{}: no hosts", self.shown()));
        for (at, host) in self.url.hosts.iter().enumerate() {
            match self.connect_to(host) {
                Ok(client) => return Ok(client),
                // one that is away may be the one that would have let us in
                Err(error) if at == 0 || matches!(error, StoreError::Down(_)) => why = error,
                Err(_) => {}
            }
        }
        metrics::ACCOUNTS.store_failed("connect");
        Err(why)
    }

    fn connect_to(&self, host: &StoreHost) -> Result<Client, StoreError> {
        let mut config = tokio_postgres::Config::new();
        config
            .user(&self.url.user)
            .dbname(&self.url.database)
            .application_name(&self.name)
            .connect_timeout(ANSWER_MAX)
            .keepalives_idle(Duration::from_secs(5))
            .keepalives_interval(Duration::from_secs(2))
            .keepalives_retries(3)
            .tcp_user_timeout(ANSWER_MAX)
            .target_session_attrs(TargetSessionAttrs::ReadWrite);
        if let Some(password) = &self.url.password {
            config.password(password.expose());
        }
        let shown = match host {
            StoreHost::Tcp(name, port) => {
                config.host(name).port(*port);
                format!("{name}:{port}")
            }
            StoreHost::Unix(path, port) => {
                config.host_path(path).port(*port);
                format!("{}:{port}", path.display())
            }
        };
        let runtime = CONNECTIONS.as_ref().map_err(|why| StoreError::Down(why.clone()))?;
        let tls = self.tls.as_ref().filter(|_| matches!(host, StoreHost::Tcp(..)));
        let connected = match tls {
            None => {
                config.ssl_mode(SslMode::Disable);
                wait(config.connect(NoTls)).map(|connected| {
                    connected.map(|(client, connection)| {
                        runtime.spawn(connection);
                        client
                    })
                })
            }
            Some(tls) => {
                config.ssl_mode(SslMode::Require);
                wait(config.connect(tls.clone())).map(|connected| {
                    connected.map(|(client, connection)| {
                        runtime.spawn(connection);
                        client
                    })
                })
            }
        };
        match connected {
            Some(Ok(client)) => Ok(client),
            Some(Err(error)) => Err(refused(&shown, &error)),
            None => Err(StoreError::Down(format!("PostgreSQL at {shown} did not answer within 5 s"))),
        }
    }
}
