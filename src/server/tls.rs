//! TLS termination: chooses the certificate for a client, and reloads changed certificate files. If a changed pair is
//! invalid, the previous one stays in use.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;

use super::error::ServeError;
use crate::config::{Certificate, CertificateFiles, SecretPlace, Tls};
use crate::proxy::tls_handshake::Accepted;
use crate::proxy::{Current, metrics_report};

/// How often files are checked. Polling their metadata detects every kind of replacement, including renamed directories
/// and changed links.
const POLL_INTERVAL: Duration = Duration::from_secs(2);
/// A warning is logged when a certificate expires within this time, or within a fifth of its lifetime if that is
/// shorter.
const EXPIRY_WARNING_SECS: i64 = 14 * 24 * 3600;
/// How often the warning is repeated.
const WARNING_INTERVAL: Duration = Duration::from_secs(24 * 3600);

/// All certificates. The first is the default, for clients without SNI or with a name that none of them covers.
#[derive(Debug)]
pub(super) struct Certificates(ArcSwap<Vec<Loaded>>);

#[derive(Debug, Clone)]
struct Loaded {
    files: CertificateFiles,
    /// The files' metadata when they were read.
    stamps: [Option<Stamp>; 2],
    certificate: Arc<Certificate>,
}

/// A file's ctime (seconds, nanoseconds), size and inode.
type Stamp = (i64, i64, u64, u64);

impl Certificates {
    pub(super) fn new(tls: &Tls) -> Self {
        let certificates = Self(ArcSwap::default());
        certificates.replace(tls);
        certificates
    }

    /// Replaces them with those of a new configuration; open connections keep theirs.
    pub(super) fn replace(&self, tls: &Tls) {
        let loaded = |(files, certificate): &(CertificateFiles, Arc<Certificate>)| Loaded {
            stamps: stamps(files),
            files: files.clone(),
            certificate: certificate.clone(),
        };
        self.0.store(Arc::new(tls.certificates.iter().map(loaded).collect()));
    }

    /// Reloads changed files. Blocks on file access.
    pub(super) fn refresh(&self) -> Refreshed {
        let before = self.0.load();
        let mut refreshed = Refreshed::default();
        let mut after = Vec::with_capacity(before.len());
        for loaded in before.iter() {
            let mut loaded = loaded.clone();
            let stamps = stamps(&loaded.files);
            if stamps != loaded.stamps {
                loaded.stamps = stamps;
                let file = loaded.files.certificate.display().to_string();
                match loaded.files.read() {
                    Ok(certificate) => {
                        tracing::info!(file, names = %certificate.names().join(" "), "certificate reloaded");
                        if let Some(what) = loaded.files.key.open_to_others() {
                            tracing::warn!("{what}");
                        }
                        loaded.certificate = Arc::new(certificate);
                        refreshed.changed = true;
                    }
                    Err(error) => {
                        tracing::error!(file, %error, "certificate not reloaded, previous one stays in use");
                        refreshed.failed += 1;
                    }
                }
                refreshed.any_stamp_changed = true;
            }
            after.push(loaded);
        }
        if refreshed.any_stamp_changed {
            // unless a reload has replaced the configuration meanwhile
            self.0.compare_and_swap(&before, Arc::new(after));
        }
        refreshed
    }

    /// The earliest expiry, in Unix seconds. Logs certificates that have expired or will soon.
    fn expiry(&self, now_secs: i64) -> Option<i64> {
        let list = self.0.load();
        for loaded in list.iter() {
            let (from, to) = (loaded.certificate.not_before, loaded.certificate.not_after);
            let file = loaded.files.certificate.display().to_string();
            if now_secs > to {
                tracing::warn!(file, "certificate expired: browsers reject it");
            } else if now_secs < from {
                tracing::warn!(file, "certificate not yet valid: browsers reject it");
            } else if to - now_secs < EXPIRY_WARNING_SECS.min((to - from) / 5) {
                tracing::warn!(file, days = (to - now_secs) / (24 * 3600), "certificate expires soon");
            }
        }
        list.iter().map(|loaded| loaded.certificate.not_after).min()
    }

    /// The first certificate that covers the name and that the client supports, else the first that covers it, else the
    /// default.
    fn choose(&self, name: Option<&str>, is_supported: impl Fn(&CertifiedKey) -> bool) -> Option<Arc<Certificate>> {
        let list = self.0.load();
        let name = name.map(str::to_ascii_lowercase);
        let named = || list.iter().filter(|loaded| name.as_deref().is_some_and(|name| loaded.certificate.covers(name)));
        let supported = named().find(|loaded| is_supported(&loaded.certificate.key));
        supported.or_else(|| named().next()).or(list.first()).map(|loaded| loaded.certificate.clone())
    }
}

/// The result of [`Certificates::refresh`].
#[derive(Debug, Default)]
pub(super) struct Refreshed {
    any_stamp_changed: bool,
    /// A new certificate is in use.
    changed: bool,
    /// How many changed pairs are invalid.
    failed: u64,
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let is_supported = |key: &CertifiedKey| key.key.choose_scheme(hello.signature_schemes()).is_some();
        self.choose(hello.server_name(), is_supported).map(|certificate| certificate.key.clone())
    }
}

fn stamps(files: &CertificateFiles) -> [Option<Stamp>; 2] {
    let stamp = |path: &std::path::Path| {
        let meta = std::fs::metadata(path).ok()?;
        Some((meta.ctime(), meta.ctime_nsec(), meta.len(), meta.ino()))
    };
    let key = match &files.key {
        SecretPlace::File(path) => stamp(path),
        SecretPlace::Here(_) => None,
    };
    [stamp(&files.certificate), key]
}

/// Accepts TLS connections.
#[derive(Clone)]
pub(super) struct Acceptor {
    tls: TlsAcceptor,
    certificates: Arc<Certificates>,
}

impl Acceptor {
    /// TLS 1.2 and 1.3; prefers HTTP/2 to HTTP/1.1.
    pub(super) fn new(certificates: Arc<Certificates>) -> Result<Self, ServeError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(ServeError::new)?
            .with_no_client_auth()
            .with_cert_resolver(certificates.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.ticketer = rustls::crypto::ring::Ticketer::new().map_err(ServeError::new)?;
        Ok(Self { tls: TlsAcceptor::from(Arc::new(config)), certificates })
    }

    /// Performs the handshake.
    pub(super) async fn accept(self, stream: TcpStream) -> io::Result<Accepted> {
        let stream = self.tls.accept(stream).await?;
        let (_, session) = stream.get_ref();
        let name = session.server_name().map(str::to_ascii_lowercase);
        let is_h2 = session.alpn_protocol() == Some(b"h2");
        let certificate = self.certificates.choose(name.as_deref(), |_| true);
        let certificate = certificate.ok_or(io::ErrorKind::NotFound)?;
        Ok(Accepted { stream: Box::new(stream), is_h2, name, certificate })
    }
}

/// Reloads changed certificates periodically and updates the metrics, until shutdown.
pub(super) async fn watch(certificates: Arc<Certificates>, current: Current) {
    let mut last_warned = None::<tokio::time::Instant>;
    loop {
        if last_warned.is_none_or(|warned| warned.elapsed() > WARNING_INTERVAL) {
            let now_secs = i64::try_from(current.gateway().now_millis() / 1000).unwrap_or(i64::MAX);
            metrics_report::note_certificates(&current.gateway(), certificates.expiry(now_secs), 0);
            last_warned = Some(tokio::time::Instant::now());
        }
        sleep(POLL_INTERVAL).await;
        let refreshing = certificates.clone();
        let Ok(refreshed) = tokio::task::spawn_blocking(move || refreshing.refresh()).await else { continue };
        if refreshed.failed > 0 {
            metrics_report::note_certificates(&current.gateway(), None, refreshed.failed);
        }
        if refreshed.changed {
            last_warned = None;
        }
    }
}
