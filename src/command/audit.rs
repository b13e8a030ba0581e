//! `authgate audit ...`: sign-ins, refusals and changes.

use super::people::{instant, looked, say, say_json, table};
use super::{CommandError, Globals};
use crate::logging::printable;
use crate::store::AuditEvent;

/// Prints events of the last `since_secs` seconds, newest first; of one e-mail, or all.
pub fn run(globals: &Globals, email: Option<&str>, since_secs: u64, as_json: bool) -> Result<(), CommandError> {
    let events = looked(globals)?.events(email, since_secs)?;
    if as_json {
        let told = |event: &AuditEvent| {
            serde_json::json!({
                "time": instant(event.at),
                "event": event.event,
                "email": event.email,
                "user_id": event.user_id,
                "address": event.address,
                "request_id": event.request_id,
                "detail": event.detail,
            })
        };
        return say_json(&events.iter().map(told).collect());
    }
    // events include what was typed at the login page
    let cells = |event: &AuditEvent| {
        vec![
            instant(event.at),
            event.event.clone(),
            printable(&event.email),
            event.address.clone(),
            event.request_id.clone(),
            printable(&event.detail),
        ]
    };
    let headings = ["TIME", "EVENT", "EMAIL", "ADDRESS", "REQUEST", "DETAIL"];
    say(&table(&headings, &events.iter().map(cells).collect::<Vec<_>>()))
}
