//! Second methods: an app may follow one in place of the request's own. They come in header fields, or as `_method` in
//! the query, also after a `?` that is escaped in the path. A form's `_method` is in the body and is not checked.

use http::{HeaderMap, Method};

use crate::web::incoming::Incoming;
use crate::web::readings::RequestPath;

/// Fields that frameworks read (Rack, Symfony, Laravel, Express, OData), or gateways and the authentication services
/// behind them.
const FIELDS: [&str; 5] =
    ["x-http-method-override", "x-http-method", "x-method-override", "x-method", "x-original-method"];

/// The parameter that Symfony, Laravel, Spring, Slim and Express read.
const PARAMETER: &[u8] = b"_method";

/// Whether a header field of this name, in lower case, names a second method.
pub(crate) fn is_field(name: &str) -> bool {
    // a name with `_` or `.` in place of `-` passes if `allow_headers` lists it
    let alike = |own: &str| own.bytes().eq(name.bytes().map(|b| if b == b'_' || b == b'.' { b'-' } else { b }));
    name.starts_with('x') && FIELDS.iter().any(|own| own.len() == name.len() && alike(own))
}

/// Whether a request names a second method, valid or not.
pub(crate) fn is_named(headers: &HeaderMap, target: &[u8]) -> bool {
    let end = memchr::memchr(b'?', target).unwrap_or(target.len());
    let names = |query: &[u8]| in_query(query).next().is_some();
    headers.keys().any(|name| is_field(name.as_str()))
        || names(target.get(end + 1..).unwrap_or_default())
        || RequestPath::parse(&target[..end]).is_ok_and(|path| path.queries().any(|query| names(&query)))
}

/// Whether anything in a request could name one. Most requests have nothing of the kind and cost only this check.
pub(crate) fn may_be_named(incoming: &Incoming<'_>) -> bool {
    incoming.query.is_some() || !incoming.path.is_plain() || incoming.headers.keys().any(|name| is_field(name.as_str()))
}

/// The methods that a request names besides its own; `None` for an invalid one.
pub(crate) fn named(incoming: &Incoming<'_>) -> impl Iterator<Item = Option<Method>> {
    let fields = incoming.headers.iter().filter(|(name, _)| is_field(name.as_str()));
    let in_fields = fields.flat_map(|(_, value)| value.as_bytes().split(|&b| b == b',')).map(read);
    let query = incoming.query.unwrap_or_default();
    let queries = incoming.path.queries().flat_map(|query| in_query(&query).collect::<Vec<_>>());
    in_fields.chain(in_query(query).chain(queries).map(|value| read(&value)))
}

/// The values of `_method` in a query, in every spelling that PHP and form decoders fold onto that name.
pub(crate) fn in_query(query: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    query.split(|b| b"&;".contains(b)).filter_map(|item| {
        let end = memchr::memchr(b'=', item).unwrap_or(item.len());
        is_parameter(&item[..end]).then(|| decoded(item.get(end + 1..).unwrap_or_default()).collect())
    })
}

/// PHP drops leading blanks, reads `.` and blanks as `_`, ends a name at NUL, and reads an index after `[`.
fn is_parameter(name: &[u8]) -> bool {
    // no spelling is shorter
    if name.len() < PARAMETER.len() {
        return false;
    }
    let name = decoded(name).skip_while(|b| *b == b' ').take_while(|b| !b"[\0".contains(b));
    name.map(|b| if b == b'.' || b == b' ' { b'_' } else { b.to_ascii_lowercase() }).eq(PARAMETER.iter().copied())
}

fn decoded(text: &[u8]) -> impl Iterator<Item = u8> {
    // a plus, escaped or not, may be read as a blank; names and methods contain none
    percent_encoding::percent_decode(text).map(|b| if b == b'+' { b' ' } else { b })
}

fn read(name: &[u8]) -> Option<Method> {
    Method::from_bytes(&name.trim_ascii().to_ascii_uppercase()).ok()
}
