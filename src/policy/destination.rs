//! The second path that a request names: WebDAV's `Destination` (RFC 4918, 10.3), an absolute URL or a path. The host
//! in it is not trusted.

use crate::web::readings::{RequestPath, Unreadable};

/// The paths that a backend may read in the field.
pub(crate) struct Readings {
    pub(crate) paths: Vec<Vec<u8>>,
    /// The path is not in normal form.
    pub(crate) several: bool,
}

/// The path in the field, with `?` and `#` escaped, because not every app cuts there. `None`: neither a path nor a URL.
pub(crate) fn path_of(address: &[u8]) -> Option<Vec<u8>> {
    let path = if address.starts_with(b"/") { address } else { behind_host(address)? };
    let mut escaped = Vec::with_capacity(path.len());
    for byte in if path.is_empty() { b"/" } else { path } {
        match byte {
            b'?' => escaped.extend_from_slice(b"%3F"),
            b'#' => escaped.extend_from_slice(b"%23"),
            byte => escaped.push(*byte),
        }
    }
    Some(escaped)
}

/// What follows scheme and host, if these can be read in only one way.
fn behind_host(address: &[u8]) -> Option<&[u8]> {
    let colon = memchr::memmem::find(address, b"://")?;
    let (scheme, rest) = (&address[..colon], &address[colon + 3..]);
    let host = rest.iter().position(|&b| b == b'/').unwrap_or(rest.len());
    let of_scheme = |b: &u8| b.is_ascii_alphanumeric() || b"+-.".contains(b);
    let of_host = |b: &u8| b.is_ascii_alphanumeric() || b"-._~%!$&'()*+,=:@[]".contains(b);
    let good = scheme.first().is_some_and(u8::is_ascii_alphabetic)
        && scheme.iter().all(of_scheme)
        && host > 0
        && rest[..host].iter().all(of_host);
    good.then(|| &rest[host..])
}

/// The readings of a path, and of the same path below `prefix`, as an app behind that prefix may understand it.
pub(crate) fn readings(path: &[u8], prefix: &str) -> Result<Readings, Unreadable> {
    let inside = [prefix.as_bytes(), path].concat();
    let mut found = Readings { paths: Vec::new(), several: false };
    for path in [path, &inside] {
        let path = RequestPath::parse(path)?;
        found.several |= !path.is_plain();
        let others = path.others().iter().cloned().chain(path.below(prefix)?);
        found.paths.extend(std::iter::once(path.first().into_owned()).chain(others));
        if prefix.is_empty() {
            break;
        }
    }
    found.paths.sort_unstable();
    found.paths.dedup();
    Ok(found)
}
