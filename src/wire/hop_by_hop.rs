//! Fields about one connection alone (RFC 9110, 7.6.1). A proxy forwards none of them: the next connection has its own.

use http::HeaderName;

use crate::web::names::{Names, is_named};

/// In lower case, `Connection` first.
pub(crate) const FIELDS: [&str; 7] =
    ["connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"];

/// The same as a set, to skip the comparison for most names.
pub(crate) const NAMES: Names = {
    let (mut names, mut at) = (Names::NONE, 0);
    while at < FIELDS.len() {
        names = names.with(FIELDS[at].as_bytes());
        at += 1;
    }
    names
};

/// Whether a name, in upper or lower case, is one of them.
pub(crate) fn is_hop_by_hop(name: &[u8]) -> bool {
    NAMES.may_have(name) && FIELDS.iter().any(|field| is_named(name, field.as_bytes()))
}

/// The same for a name that is in lower case already.
pub(crate) fn is_hop_by_hop_name(name: &HeaderName) -> bool {
    NAMES.may_have(name.as_str().as_bytes()) && FIELDS.contains(&name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_about_the_connection_is_found_in_any_case_and_no_other_is() {
        for name in ["Connection", "KEEP-ALIVE", "proxy-connection", "TE", "Trailer", "Transfer-Encoding", "upgrade"] {
            assert!(is_hop_by_hop(name.as_bytes()), "{name}");
            assert!(is_hop_by_hop_name(&HeaderName::try_from(name).unwrap()), "{name}");
        }
        for name in ["Host", "Content-Length", "Cookie", "Expect", "Trailers", "Via"] {
            assert!(!is_hop_by_hop(name.as_bytes()), "{name}");
            assert!(!is_hop_by_hop_name(&HeaderName::try_from(name).unwrap()), "{name}");
        }
    }
}
