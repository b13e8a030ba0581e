//! Forwarding loops. Each gateway appends its name to the requests it forwards, so a loop through several gateways is
//! detected, too.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName};

use crate::web::incoming::Incoming;
use crate::web::names::Names;

static VIA: HeaderName = HeaderName::from_static("x-authgate-via");

/// Limit on gateways that one request may pass through.
const GATEWAYS_MAX: usize = 8;

/// Whether this gateway, `own`, has already forwarded the request, or too many gateways have.
pub(crate) fn is_loop(incoming: &Incoming<'_>, own: &str) -> bool {
    may_be_there(incoming.names)
        && names(incoming.headers).enumerate().any(|(at, name)| at == GATEWAYS_MAX || name == own.as_bytes())
}

/// Whether the head may contain the names of gateways.
fn may_be_there(fields: Names) -> bool {
    fields.may_have(VIA.as_str().as_bytes())
}

/// The value to forward: the names so far, then `own`.
pub(crate) fn append_self<'a>(headers: &HeaderMap, may_have: Names, own: &'a str) -> Cow<'a, [u8]> {
    if !may_be_there(may_have) || !headers.contains_key(&VIA) {
        return own.as_bytes().into();
    }
    let mut append_self: Vec<u8> = names(headers).take(GATEWAYS_MAX).flat_map(|name| [name, b", "].concat()).collect();
    append_self.extend_from_slice(own.as_bytes());
    append_self.into()
}

/// Names in the form that gateways write; anything else a client adds is dropped.
fn names(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let items =
        headers.get_all(&VIA).iter().flat_map(|line| line.as_bytes().split(|&b| b == b',')).map(<[u8]>::trim_ascii);
    items.filter(|name| name.len() == 16 && name.iter().all(u8::is_ascii_hexdigit))
}
