//! `[server.tls]`: certificates that can be served, or faults.

use std::sync::Arc;

use crate::clock::Clock;
use crate::config::file::Table;
use crate::config::secret::CLOSE;
use crate::config::{CertificateFiles, Secrets, Tls, Unfit};

/// The certificates, and whether any stand in the file, good or not.
pub(super) fn tls(table: &Table<'_>) -> (Tls, bool) {
    let typed = table.tables("certificates", "[[server.tls.certificates]]");
    let certificates = typed.iter().filter_map(pair).collect();
    (Tls { certificates }, !typed.is_empty())
}

fn pair(table: &Table<'_>) -> Option<(CertificateFiles, Arc<crate::config::Certificate>)> {
    let certificate = table.text("certificate", "chain.pem");
    let key = table.secret_place("key");
    for (name, example) in [("certificate", "certificate = \"chain.pem\""), ("key", "key = { file = \"key.pem\" }")] {
        if !table.has(name) {
            table.reading.fault(
                table.span.clone(),
                format!("a certificate without `{name}`"),
                format!("add `{example}`"),
            );
        }
    }
    let (certificate, key) = (certificate?, key?);
    if table.reading.secrets == Secrets::Left {
        return None;
    }
    // no fault: other servers take such keys, and a platform may hand out no others
    if let Some(what) = key.value.open_to_others() {
        table.reading.warn(key.span.clone(), what, CLOSE);
    }
    let files = CertificateFiles { certificate: table.reading.base.join(&certificate.value), key: key.value.clone() };
    match files.read() {
        Ok(read) => {
            if i64::try_from(Clock::system().now()).is_ok_and(|now| now > read.not_after) {
                let what = "this certificate has expired: browsers refuse it";
                table.reading.warn(
                    certificate.span.clone(),
                    what.to_owned(),
                    "put a renewed one there: it is taken over while the gateway runs",
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
