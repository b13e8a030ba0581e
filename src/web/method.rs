//! What a request's method says about repeating it (RFC 9110, 9.2).

use http::Method;

/// Methods that change nothing (9.2.1). TRACE is refused everywhere.
pub fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// Methods for which a second request changes nothing more (9.2.2).
pub fn is_idempotent(method: &Method) -> bool {
    is_safe(method) || matches!(*method, Method::PUT | Method::DELETE)
}
