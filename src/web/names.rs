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

/// Whether a field has the name `own`, which consists of lower-case letters, digits and hyphens; case-insensitive. Most names
/// that are looked up have 8 to 16 bytes: they are compared in two pieces of 8, which may overlap.
pub(crate) fn is_named(name: &[u8], own: &[u8]) -> bool {
    const CASE: u64 = u64::from_ne_bytes([0x20; 8]);
    debug_assert!(own.iter().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-')), "not such a name");
    if name.len() != own.len() {
        return false;
    }
    if let (..=16, Some(first), Some(last)) = (name.len(), name.first_chunk(), name.last_chunk())
        && let (Some(own_first), Some(own_last)) = (own.first_chunk(), own.last_chunk())
    {
        // of these bytes only letters have 0x40, and only letters may differ in 0x20
        let same = |one: &[u8; 8], own: &[u8; 8]| {
            let own = u64::from_ne_bytes(*own);
            u64::from_ne_bytes(*one) | (own >> 1 & CASE) == own
        };
        return same(first, own_first) && same(last, own_last);
    }
    name.eq_ignore_ascii_case(own)
}

#[cfg(test)]
mod tests {
    use http::header::{self, HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn names_are_compared_as_the_library_compares_them(
            own in "[a-z0-9-]{1,20}",
            flips in proptest::collection::vec(proptest::sample::select(vec![0, 0, 0, 0x20, 0x40, 1]), 20),
            less in 0..3_usize,
        ) {
            let mut name: Vec<u8> = own.bytes().zip(flips).map(|(byte, flip)| byte ^ flip).collect();
            prop_assert_eq!(is_named(&name, own.as_bytes()), name.eq_ignore_ascii_case(own.as_bytes()));
            name = own.to_ascii_uppercase().into_bytes();
            prop_assert!(is_named(&name, own.as_bytes()));
            name.truncate(name.len().saturating_sub(less));
            prop_assert_eq!(is_named(&name, own.as_bytes()), name.len() == own.len());
        }

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
