//! What an upstream's https servers are verified by in place of this machine's authorities, and what they are shown.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, X509Certificate};

/// One certificate of `ca`: an authority's, or a server's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// It as it is.
    pub certificate: CertificateDer<'static>,
    /// Seconds since 1970 from which on it holds, and after which it does not.
    pub holds: (i64, i64),
}

impl Authority {
    /// All certificates of a file in PEM; or what is wrong, and what helps.
    pub fn read(path: &Path) -> Result<Vec<Self>, (String, &'static str)> {
        let shown = path.display();
        let pem = std::fs::read(path)
            .map_err(|error| (format!("cannot read {shown}: {error}"), "use a file that this process can read"))?;
        let read = |certificate: CertificateDer<'static>| {
            let (_, parsed) = X509Certificate::from_der(&certificate).ok()?;
            let holds = (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp());
            Some(Self { certificate, holds })
        };
        let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        let all = all.ok().and_then(|all| all.into_iter().map(read).collect::<Option<Vec<_>>>());
        all.filter(|all| !all.is_empty()).ok_or_else(|| {
            let remedy = "use the certificate of the CA, or the server's own, in PEM (-----BEGIN CERTIFICATE-----)";
            (format!("{shown} contains no PEM certificate"), remedy)
        })
    }
}

/// `[[upstream]]` ca, server_name and client_certificate.
#[derive(Debug, Clone, Default)]
pub struct UpstreamTls {
    /// Whom the servers are believed by; empty: this machine's authorities.
    pub authorities: Vec<Authority>,
    /// The name in their certificates, where it is not the one that they are reached by.
    pub server_name: Option<ServerName<'static>>,
    /// What they are shown.
    pub client: Option<Arc<CertifiedKey>>,
}

impl UpstreamTls {
    /// A name that certificates can have.
    pub(super) fn name(text: &str) -> Option<ServerName<'static>> {
        ServerName::try_from(text.to_owned()).ok()
    }

    /// Whether nothing of it is set.
    pub fn is_default(&self) -> bool {
        self.authorities.is_empty() && self.server_name.is_none() && self.client.is_none()
    }
}

impl PartialEq for UpstreamTls {
    fn eq(&self, other: &Self) -> bool {
        // a key is the one of its certificate
        let chain = |tls: &Self| tls.client.as_ref().map(|own| own.cert.clone());
        (&self.authorities, &self.server_name, chain(self)) == (&other.authorities, &other.server_name, chain(other))
    }
}
