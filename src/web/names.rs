//! A filter for header names. Each request is checked for two dozen fields, of which few are present: this answers
//! without scanning the head.

use http::HeaderMap;

/// A set of field names in one machine word. It may return false positives, never false negatives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Names(u64);

impl Names {
    /// The empty set.
    pub const NONE: Self = Self(0);
    /// The set of all names.
    pub const ANY: Self = Self(u64::MAX);

    /// The names in a head.
    pub fn of(headers: &HeaderMap) -> Self {
        headers.keys().fold(Self::NONE, |names, name| names.with(name.as_str().as_bytes()))
    }

    /// The set with one more name.
    #[must_use]
    pub const fn with(self, name: &[u8]) -> Self {
        Self(self.0 | bit(name))
    }

    /// Whether the set may contain this name; case-insensitive.
    pub const fn may_have(self, name: &[u8]) -> bool {
        self.0 & bit(name) != 0
    }
}

/// One bit per name, by length and first letter. With this factor, few fields that browsers send collide with one that
/// is looked up.
const fn bit(name: &[u8]) -> u64 {
    // upper and lower case differ in one bit
    let first = if let [first, ..] = name { *first | 0x20 } else { 0 };
    1 << ((name.len() * 11 + first as usize) % 64)
}

#[cfg(test)]
mod tests {
    use http::header::{self, HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_name_that_is_there_is_never_missed(names in proptest::collection::vec("[A-Za-z0-9_!#-]{1,40}", 0..20)) {
            let mut headers = HeaderMap::new();
            for name in &names {
                headers.append(HeaderName::try_from(name.as_str()).unwrap(), HeaderValue::from_static("x"));
            }
            let set = Names::of(&headers);
            for name in &names {
                prop_assert!(set.may_have(name.as_bytes()), "{name}");
                prop_assert!(set.may_have(name.to_ascii_uppercase().as_bytes()), "{name}");
            }
        }
    }

    #[test]
    fn what_no_browser_sends_is_not_taken_for_what_it_sends() {
        let sent = ["host", "user-agent", "accept", "accept-encoding", "accept-language", "cookie", "referer"];
        let set = sent.iter().fold(Names::NONE, |set, name| set.with(name.as_bytes()));
        for name in [header::TRANSFER_ENCODING, header::CONTENT_LENGTH, header::UPGRADE, header::AUTHORIZATION] {
            assert!(!set.may_have(name.as_str().as_bytes()), "{name}");
        }
    }
}
