//! The audit trail: sign-ins, rejections and changes. Each event is a row in the store, written in the same
//! transaction as the change it records, and then a log line. It never contains a password, token or link.

use super::caller::Caller;
use super::session::session::Identity;
use crate::clock::UnixSecs;
use crate::metrics;
use crate::store::AuditRow;

/// An event without an account.
pub(super) fn event(name: &'static str, caller: &Caller, now: UnixSecs) -> AuditRow {
    AuditRow {
        at: now,
        event: name,
        address: address(caller),
        request_id: caller.request_id.clone(),
        ..AuditRow::default()
    }
}

/// An event about an account.
pub(super) fn about(name: &'static str, caller: &Caller, now: UnixSecs, id: &str, email: &str) -> AuditRow {
    AuditRow { user_id: id.to_owned(), email: email.to_owned(), ..event(name, caller, now) }
}

/// An event about the account that caused it.
pub(super) fn by(name: &'static str, caller: &Caller, now: UnixSecs, who: &Identity) -> AuditRow {
    about(name, caller, now, &who.user.id, &who.user.email)
}

/// The client's address as text; empty on a Unix socket.
pub(super) fn address(caller: &Caller) -> String {
    caller.address.map(|address| address.to_canonical().to_string()).unwrap_or_default()
}

/// Writes the log line of an event and counts it.
pub(super) fn log(row: &AuditRow) {
    metrics::ACCOUNTS.event(row.event);
    tracing::info!(
        target: "audit",
        event = row.event,
        user = %row.email,
        user_id = %row.user_id,
        address = %row.address,
        request_id = %row.request_id,
        detail = %row.detail,
        "{}", row.event
    );
}

/// The same, with a line for each ban that it caused.
pub(super) fn log_with_bans(row: &AuditRow, banned: Vec<String>) {
    log(row);
    for detail in banned {
        log(&AuditRow { event: "banned", detail, ..row.clone() });
    }
}
