//! Small endpoints for programs: the current user, public keys, WebSocket tickets.

use http::{HeaderValue, StatusCode, header};
use serde_json::json;

use super::call::{Call, Pages, user_json};
use super::errors;
use crate::account::{Identity, TICKET_SECS, credentials};
use crate::logging::Timestamp;
use crate::web::reply::Reply;

/// The public keys of backend tokens. A new key is published before it signs; a backend that sees an unknown `kid` should
/// fetch them again.
pub(super) fn jwks(pages: &Pages) -> Reply {
    let mut reply = Reply::json(StatusCode::OK, &pages.accounts.public_keys());
    reply.headers.retain(|(name, _)| name != header::CACHE_CONTROL);
    reply.with(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=60"))
}

pub(super) fn ws_ticket(pages: &Pages, call: &Call<'_>, who: &Identity) -> Reply {
    match credentials::issue_ticket(&pages.accounts, who, call.incoming.host) {
        Some(ticket) => Reply::json(StatusCode::OK, &json!({ "ticket": ticket.expose(), "expires_in": TICKET_SECS })),
        None => errors::refused(pages, StatusCode::SERVICE_UNAVAILABLE, call),
    }
}

pub(super) fn me(who: &Identity) -> Reply {
    let mut me = user_json(&who.user);
    me["expires"] = Timestamp::new(who.session.expires().saturating_mul(1000)).as_str().into();
    Reply::json(StatusCode::OK, &me)
}
