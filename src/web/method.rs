//! Safe and idempotent methods (RFC 9110, 9.2).

use http::Method;

/// Methods without side effects (9.2.1). TRACE is always rejected.
pub fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// Methods that can be repeated without further effect (9.2.2).
pub fn is_idempotent(method: &Method) -> bool {
    is_safe(method) || matches!(*method, Method::PUT | Method::DELETE)
}
