//! The TLS end: which certificate a client is shown, and the files behind them, read again when they
//! change. A pair that does not fit any more keeps the one before it.

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
use crate::proxy::{Current, report};

/// How often files are looked at. Asking for their times finds every way of putting new ones in place,
/// renamed folders and links included.
const LOOK: Duration = Duration::from_secs(2);
/// Certificates that hold for a shorter time than this, or than a fifth of their whole time, are told of.
const SOON_SECS: i64 = 14 * 24 * 3600;
/// How often a certificate that ends soon is told of.
const REMIND: Duration = Duration::from_secs(24 * 3600);

/// All certificates; the first is shown to clients that ask for no name, or one that none has.
#[derive(Debug)]
pub(super) struct Certificates(ArcSwap<Vec<Loaded>>);

#[derive(Debug, Clone)]
struct Loaded {
    files: CertificateFiles,
    /// What the files looked like when they were read.
    stamps: [Option<Stamp>; 2],
    certificate: Arc<Certificate>,
}

/// When a file was changed, or who may read it (seconds, nanoseconds); how long it is, and its number.
type Stamp = (i64, i64, u64, u64);

impl Certificates {
    pub(super) fn new(tls: &Tls) -> Self {
        let certificates = Self(ArcSwap::default());
        certificates.replace(tls);
        certificates
    }

    /// Those of a new configuration; connections that are open keep theirs.
    pub(super) fn replace(&self, tls: &Tls) {
        let loaded = |(files, certificate): &(CertificateFiles, Arc<Certificate>)| Loaded {
            stamps: stamps(files),
            files: files.clone(),
            certificate: certificate.clone(),
        };
        self.0.store(Arc::new(tls.certificates.iter().map(loaded).collect()));
    }

    /// Reads again what has changed; how many could not be used. Blocks on files.
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
                    Err(unfit) => {
                        tracing::error!(file, error = %unfit, "certificate not reloaded, previous one stays in use");
                        refreshed.unfit += 1;
                    }
                }
                refreshed.looked = true;
            }
            after.push(loaded);
        }
        if refreshed.looked {
            // unless a new configuration has come meanwhile
            self.0.compare_and_swap(&before, Arc::new(after));
        }
        refreshed
    }

    /// When the first of them ends, in seconds since 1970; tells of those that end soon, or have.
    fn expiry(&self, now_secs: i64) -> Option<i64> {
        let list = self.0.load();
        for loaded in list.iter() {
            let (from, to) = (loaded.certificate.not_before, loaded.certificate.not_after);
            let file = loaded.files.certificate.display().to_string();
            if now_secs > to {
                tracing::warn!(file, "certificate expired: browsers reject it");
            } else if now_secs < from {
                tracing::warn!(file, "certificate not yet valid: browsers reject it");
            } else if to - now_secs < SOON_SECS.min((to - from) / 5) {
                tracing::warn!(file, days = (to - now_secs) / (24 * 3600), "certificate expires soon");
            }
        }
        list.iter().map(|loaded| loaded.certificate.not_after).min()
    }

    /// The first one with this name that the client can check, else the first at all.
    fn choose(&self, name: Option<&str>, fits: impl Fn(&CertifiedKey) -> bool) -> Option<Arc<Certificate>> {
        let list = self.0.load();
        let name = name.map(str::to_ascii_lowercase);
        let named = || list.iter().filter(|loaded| name.as_deref().is_some_and(|name| loaded.certificate.covers(name)));
        let fitting = named().find(|loaded| fits(&loaded.certificate.key));
        fitting.or_else(|| named().next()).or(list.first()).map(|loaded| loaded.certificate.clone())
    }
}

/// What came of looking at the files.
#[derive(Debug, Default)]
pub(super) struct Refreshed {
    looked: bool,
    changed: bool,
    unfit: u64,
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let fits = |key: &CertifiedKey| key.key.choose_scheme(hello.signature_schemes()).is_some();
        self.choose(hello.server_name(), fits).map(|certificate| certificate.key.clone())
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

/// Makes TLS connections of TCP ones.
#[derive(Clone)]
pub(super) struct Acceptor {
    tls: TlsAcceptor,
    certificates: Arc<Certificates>,
}

impl Acceptor {
    /// TLS 1.2 and 1.3, HTTP/2 before HTTP/1.1.
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

    /// The handshake.
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

/// Looks at the files for as long as we run, and tells the metrics.
pub(super) async fn watch(certificates: Arc<Certificates>, current: Current) {
    let mut told = None::<tokio::time::Instant>;
    loop {
        if told.is_none_or(|told| told.elapsed() > REMIND) {
            let now_secs = i64::try_from(current.gateway().now_millis() / 1000).unwrap_or(i64::MAX);
            report::note_certificates(&current.gateway(), certificates.expiry(now_secs), 0);
            told = Some(tokio::time::Instant::now());
        }
        sleep(LOOK).await;
        let looked = certificates.clone();
        let Ok(refreshed) = tokio::task::spawn_blocking(move || looked.refresh()).await else { continue };
        if refreshed.unfit > 0 {
            report::note_certificates(&current.gateway(), None, refreshed.unfit);
        }
        if refreshed.changed {
            told = None;
        }
    }
}
