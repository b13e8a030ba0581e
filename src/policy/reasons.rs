//! What the access log and the counters say of a refusal.

use super::authorize::Refusal;
use super::cors;
use crate::account::Rejected;
use crate::metrics::Authz;
use crate::web::incoming::Incoming;

/// What the access line says of a credential that was not accepted.
pub(crate) fn why_rejected(why: Rejected) -> &'static str {
    match why {
        Rejected::Invalid => "invalid credential",
        Rejected::Expired => "session expired",
        Rejected::Ended => "session ended",
    }
}

/// What the access line says of a refusal.
pub(crate) fn why_refused(refusal: Refusal, incoming: &Incoming<'_>) -> &'static str {
    match refusal {
        Refusal::SignedOut if cors::preflight(incoming).is_some() => "preflight not allowed",
        Refusal::SignedOut => "signed out",
        Refusal::Forbidden => "forbidden",
        Refusal::OutOfScope => "scope",
        Refusal::CrossOrigin => "cross-origin",
    }
}

/// What the counters say of a refusal.
pub(crate) fn authz(refusal: Refusal) -> Authz {
    match refusal {
        Refusal::SignedOut => Authz::SignedOut,
        Refusal::Forbidden | Refusal::OutOfScope => Authz::Forbidden,
        Refusal::CrossOrigin => Authz::CrossOrigin,
    }
}
