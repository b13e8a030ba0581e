//! Requests that go round in circles. Each gateway names itself in what it forwards, behind those that a request came
//! through before: so a circle of several is noticed, too.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName};

use crate::web::incoming::Incoming;
use crate::web::names::Names;

static VIA: HeaderName = HeaderName::from_static("x-authgate-via");

/// Gateways that one request may come through.
const GATEWAYS_MAX: usize = 8;

/// Whether this gateway, `own`, has had the request already.
pub(crate) fn is_loop(incoming: &Incoming<'_>, own: &str) -> bool {
    may_be_there(incoming.names)
        && names(incoming.headers).enumerate().any(|(at, name)| at == GATEWAYS_MAX || name == own.as_bytes())
}

/// Whether a gateway may have named itself in the head.
fn may_be_there(fields: Names) -> bool {
    fields.may_have(VIA.as_str().as_bytes())
}

/// What is forwarded: the names so far, and our own.
pub(crate) fn append_self<'a>(headers: &HeaderMap, may_have: Names, own: &'a str) -> Cow<'a, [u8]> {
    if !may_be_there(may_have) || !headers.contains_key(&VIA) {
        return own.as_bytes().into();
    }
    let mut append_self: Vec<u8> = names(headers).take(GATEWAYS_MAX).flat_map(|name| [name, b", "].concat()).collect();
    append_self.extend_from_slice(own.as_bytes());
    append_self.into()
}

/// As gateways write them: what a client invents besides does not pass.
fn names(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let items =
        headers.get_all(&VIA).iter().flat_map(|line| line.as_bytes().split(|&b| b == b',')).map(<[u8]>::trim_ascii);
    items.filter(|name| name.len() == 16 && name.iter().all(u8::is_ascii_hexdigit))
}
