//! TLS settings toward https upstreams: the CAs that replace the system roots, and the client certificate.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, X509Certificate};

/// One certificate of `ca`: a CA's, or a server's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// The certificate, DER.
    pub certificate: CertificateDer<'static>,
    /// Validity period: not before, not after; seconds since 1970.
    pub holds: (i64, i64),
}

impl Authority {
    /// Reads all certificates of a PEM file. The error is what is wrong and the suggested fix.
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
    /// Trusted CAs; empty: the system roots.
    pub authorities: Vec<Authority>,
    /// The name expected in the server certificate, where it differs from the host name.
    pub server_name: Option<ServerName<'static>>,
    /// Client certificate that the gateway presents.
    pub client: Option<Arc<CertifiedKey>>,
}

impl UpstreamTls {
    /// Parses a server name as certificates can contain it.
    pub(super) fn name(text: &str) -> Option<ServerName<'static>> {
        ServerName::try_from(text.to_owned()).ok()
    }

    /// Whether no setting is present.
    pub fn is_default(&self) -> bool {
        self.authorities.is_empty() && self.server_name.is_none() && self.client.is_none()
    }
}

impl PartialEq for UpstreamTls {
    fn eq(&self, other: &Self) -> bool {
        // comparing the chains is enough: a key belongs to its certificate
        let chain = |tls: &Self| tls.client.as_ref().map(|own| own.cert.clone());
        (&self.authorities, &self.server_name, chain(self)) == (&other.authorities, &other.server_name, chain(other))
    }
}
