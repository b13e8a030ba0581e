//! Whether a request may be sent a second time, and over whose connection.

use http::{HeaderMap, Method, header};

use crate::web::names::Names;

/// Whether a request signs in the connection that it goes over, and not itself alone (RFC 4559, 6): nobody else's may
/// go over it afterwards.
pub(super) fn uses_connection_auth(headers: &HeaderMap, names: Names) -> bool {
    names.may_have(b"authorization")
        && headers.get_all(header::AUTHORIZATION).iter().any(|value| {
            let scheme = value.as_bytes().split(|b| !b.is_ascii_alphanumeric()).next().unwrap_or_default();
            scheme.eq_ignore_ascii_case(b"ntlm") || scheme.eq_ignore_ascii_case(b"negotiate")
        })
}

/// Methods that ask for nothing to be changed (RFC 9110, 9.2.1: safe).
pub(super) fn is_repeatable(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// Methods whose second time changes nothing (RFC 9110, 9.2.2).
pub(super) fn is_idempotent(method: &Method) -> bool {
    is_repeatable(method) || matches!(*method, Method::PUT | Method::DELETE)
}
