//! `[server.tls]`: certificates that can be served, or faults.

use std::sync::Arc;

use crate::clock::Clock;
use crate::config::file::Table;
use crate::config::secret::{CLOSE, secret_place};
use crate::config::{Authority, CertificateFiles, Secrets, Tls, Unfit, UpstreamTls};

/// The certificates, and whether any are configured, valid or not.
pub(super) fn tls(table: &Table<'_>) -> (Tls, bool) {
    let typed = table.tables("certificates", "[[server.tls.certificates]]");
    let certificates = typed.iter().filter_map(pair).collect();
    (Tls { certificates }, !typed.is_empty())
}

/// `[[upstream]]` ca, server_name and client_certificate.
pub(super) fn upstream(table: &Table<'_>) -> UpstreamTls {
    let mut tls = UpstreamTls::default();
    if let Some(file) = table.table("ca", "ca").text("file", "authority.pem")
        && table.reading.secrets == Secrets::Read
    {
        match Authority::read(&table.reading.base.join(&file.value)) {
            Ok(authorities) => tls.authorities = authorities,
            Err((what, remedy)) => file.fault(what, remedy),
        }
    }
    if let Some(name) = table.text("server_name", "app.internal").filter(|name| !name.value.is_empty()) {
        tls.server_name = UpstreamTls::name(&name.value);
        if tls.server_name.is_none() {
            name.fault(
                format!("`{}` cannot be the name in a certificate", name.value),
                "use a host name or an IP address, without a port",
            );
        }
    }
    let own = table.table("client_certificate", "client_certificate");
    if table.holds_table("client_certificate") && (own.has("certificate") || own.has("key")) {
        tls.client = pair(&own).map(|(_, certificate)| certificate.key.clone());
    }
    tls
}

fn pair(table: &Table<'_>) -> Option<(CertificateFiles, Arc<crate::config::Certificate>)> {
    let certificate = table.text("certificate", "chain.pem");
    let key = secret_place(table, "key");
    for (name, example) in [("certificate", "certificate = \"chain.pem\""), ("key", "key = { file = \"key.pem\" }")] {
        if !table.has(name) {
            table.reading.fault(
                table.span.clone(),
                format!("the certificate has no `{name}`"),
                format!("add `{example}`"),
            );
        }
    }
    let (certificate, key) = (certificate?, key?);
    if table.reading.secrets == Secrets::Left {
        return None;
    }
    // only a warning: other servers accept such keys, and a platform may provide no others
    if let Some(what) = key.value.open_to_others() {
        table.reading.warn(key.span.clone(), what, CLOSE);
    }
    let files = CertificateFiles { certificate: table.reading.base.join(&certificate.value), key: key.value.clone() };
    match files.read() {
        Ok(read) => {
            if i64::try_from(Clock::system().now()).is_ok_and(|now| now > read.not_after) {
                let what = "this certificate has expired: browsers will refuse it";
                table.reading.warn(
                    certificate.span.clone(),
                    what.to_owned(),
                    "replace the file with a renewed certificate: the running gateway reloads it",
                );
            }
            Some((files, Arc::new(read)))
        }
        Err(Unfit::Certificate(what, remedy)) => {
            certificate.fault(what, remedy);
            None
        }
        Err(Unfit::Key(what, remedy)) => {
            key.fault(what, remedy);
            None
        }
    }
}
