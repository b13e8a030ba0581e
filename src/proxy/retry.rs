//! Whether a connection may be used again after a request.

use http::{HeaderMap, header};

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
