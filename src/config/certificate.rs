//! Certificates and their private keys: read, matched and validated at startup and whenever their files change.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::SecretPlace;
use crate::secret::Secret;

/// `[server.tls]`
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// In file order. The first is the default when no certificate matches the SNI name.
    pub certificates: Vec<(CertificateFiles, Arc<Certificate>)>,
}

impl Tls {
    /// The certificate for an SNI name and a client that supports every key type: the first that covers the name, else
    /// the first of all.
    pub fn shown_to(&self, name: &str) -> Option<&Arc<Certificate>> {
        let all = || self.certificates.iter().map(|(_, certificate)| certificate);
        all().find(|certificate| certificate.covers(name)).or_else(|| all().next())
    }
}

/// Where a certificate and its key are stored.
#[derive(Debug, Clone)]
pub struct CertificateFiles {
    /// PEM: the leaf certificate, followed by its intermediates.
    pub certificate: PathBuf,
    /// PEM: the private key.
    pub key: SecretPlace,
}

/// A certificate chain and the matching private key.
pub struct Certificate {
    /// The form that rustls uses.
    pub key: Arc<CertifiedKey>,
    /// DNS names in lower case; `*.` matches one label.
    names: Vec<String>,
    /// Start of the validity period, seconds since 1970.
    pub not_before: i64,
    /// End of the validity period, seconds since 1970.
    pub not_after: i64,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("names", &self.names).finish_non_exhaustive()
    }
}

/// Why a certificate and its key cannot be used: which file is at fault, what is wrong, and the suggested fix.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Unfit {
    Certificate(String, &'static str),
    Key(String, &'static str),
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Certificate(what, _) | Self::Key(what, _)) = self;
        f.write_str(what)
    }
}

impl CertificateFiles {
    /// Reads both files and checks that the key matches the certificate.
    pub fn read(&self) -> Result<Certificate, Unfit> {
        let chain = chain(&self.certificate)?;
        let key = self.key.read().map_err(|what| Unfit::Key(what, "make the key readable for this process"))?;
        Certificate::new(&self.certificate, chain, &key)
    }
}

impl Certificate {
    fn new(path: &Path, chain: Vec<CertificateDer<'static>>, key: &Secret) -> Result<Self, Unfit> {
        let bad = || {
            let what = format!("cannot parse the first certificate in {}", path.display());
            Unfit::Certificate(what, "use the chain from the certificate authority, leaf certificate first")
        };
        let leaf = chain.first().ok_or_else(bad)?;
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| bad())?;
        let names = names(&parsed);
        let (not_before, not_after) =
            (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp());
        let key = CertifiedKey::new(chain, private_key(key)?);
        key.keys_match().map_err(|_| {
            let what = format!("the key does not match the first certificate in {}", path.display());
            Unfit::Key(
                what,
                "use the key that belongs to the certificate, and the chain with the leaf certificate first",
            )
        })?;
        Ok(Self { key: Arc::new(key), names, not_before, not_after })
    }

    /// Whether the certificate is valid for this host: a name in lower case, without a port.
    pub fn covers(&self, host: &str) -> bool {
        self.names.iter().any(|name| match name.strip_prefix("*.") {
            None => name == host,
            Some(domain) => host.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == domain),
        })
    }

    /// DNS names, for logs.
    pub fn names(&self) -> &[String] {
        &self.names
    }
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, Unfit> {
    let shown = path.display();
    let pem = std::fs::read(path).map_err(|error| {
        Unfit::Certificate(format!("cannot read {shown}: {error}"), "use a file that this process can read")
    })?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        _ => Err(Unfit::Certificate(
            format!("{shown} contains no PEM certificate"),
            "use the chain from the certificate authority, in PEM (-----BEGIN CERTIFICATE-----)",
        )),
    }
}

fn private_key(pem: &Secret) -> Result<Arc<dyn rustls::sign::SigningKey>, Unfit> {
    let text = pem.expose();
    if text.contains("ENCRYPTED") {
        let remedy = "remove the passphrase with `openssl pkey -in key.pem -out plain.pem`, and make the file readable only by its owner";
        return Err(Unfit::Key("the key is encrypted with a passphrase".to_owned(), remedy));
    }
    let key = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| {
        Unfit::Key(
            "the source of the key contains no PEM private key".to_owned(),
            "use a private key in PEM (-----BEGIN PRIVATE KEY-----)",
        )
    })?;
    any_supported_type(&key).map_err(|_| {
        let what = "unsupported key type".to_owned();
        Unfit::Key(what, "use ECDSA (P-256 or P-384), Ed25519, or RSA with at least 2048 bits")
    })
}

/// DNS names of the certificate (RFC 6125: subject alternative names only).
fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    let dns = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    };
    extension.value.general_names.iter().filter_map(dns).collect()
}
