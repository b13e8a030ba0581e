//! Connections to the server: which host, its TLS, deadlines. Their input and output run on one thread of their own;
//! who asks blocks.

use std::future::Future;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::runtime::Runtime;
use tokio_postgres::config::{SslMode, TargetSessionAttrs};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::{StoreHost, StoreTls, StoreUrl};
use crate::metrics;
use crate::store::error::StoreError;
use crate::wire::server_verifier::MACHINE;

/// Longest wait for a connection, for the answer to a statement, and between two rows of a result.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(5);

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
    tls: Option<Arc<ClientConfig>>,
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
        let tls = match &url.tls {
            StoreTls::Off => None,
            StoreTls::Require => Some(unverified()),
            StoreTls::VerifyFull { roots } => {
                let mut trusted = RootCertStore::empty();
                match MACHINE.as_ref() {
                    Ok(machine) => trusted.roots.extend(machine.roots.iter().cloned()),
                    Err(why) if roots.is_empty() => {
                        let what = format!("the store's server cannot be verified: this machine's CAs: {why}");
                        return Err(StoreError::Unusable(what));
                    }
                    Err(_) => {}
                }
                trusted.add_parsable_certificates(roots.iter().map(|root| root.certificate.clone()));
                Some(client_config(|config| config.with_root_certificates(trusted).with_no_client_auth()))
            }
        };
        let tls = tls.transpose().map_err(|error| StoreError::Unusable(format!("TLS to the store: {error}")))?;
        Ok(Self { url: url.clone(), tls: tls.map(Arc::new), name: format!("authgate/{node}") })
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
                let tls = MakeRustlsConnect::new((**tls).clone());
                wait(config.connect(tls)).map(|connected| {
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

/// Why there is no connection: what an operator has to change, or only time.
fn refused(host: &str, error: &tokio_postgres::Error) -> StoreError {
    let line = format!("PostgreSQL at {host}: {}", described(error));
    let is_final = match error.code() {
        Some(code) => [
            SqlState::INVALID_PASSWORD,
            SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
            SqlState::INVALID_CATALOG_NAME,
            SqlState::INSUFFICIENT_PRIVILEGE,
        ]
        .contains(code),
        None => is_tls_fault(error),
    };
    if is_final { StoreError::Unusable(line) } else { StoreError::Down(line) }
}

fn is_tls_fault(error: &tokio_postgres::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref)
            .is_some_and(<dyn std::error::Error + Send + Sync>::is::<rustls::Error>)
            || error.is::<rustls::Error>()
        {
            return true;
        }
        cause = error.source();
    }
    // the server offers no TLS
    error.to_string().contains("server does not support TLS")
}

/// An error with its causes, in one line.
pub(super) fn described(error: &tokio_postgres::Error) -> String {
    if let Some(error) = error.as_db_error() {
        return format!("{} ({})", error.message().replace('\n', " "), error.code().code());
    }
    let mut line = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let more = error.to_string();
        if !line.contains(&more) {
            line = format!("{line}: {more}");
        }
        cause = error.source();
    }
    line.replace('\n', " ")
}

type Finish = rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>;

fn client_config(finish: impl FnOnce(Finish) -> ClientConfig) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(finish(ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?))
}

/// TLS with any certificate: protects from listeners, not from impostors.
fn unverified() -> Result<ClientConfig, rustls::Error> {
    let verifier = AnyServer(Arc::new(rustls::crypto::ring::default_provider()));
    client_config(|config| {
        config.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth()
    })
}

#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
