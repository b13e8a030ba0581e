//! Which header fields a head may have. Two dozen fields are looked for in each request and few are there: this says so
//! without a look into the head.

use http::HeaderMap;

/// A set of field names in one word. It takes some names for members that are none, and never one for none that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Names(u64);

impl Names {
    /// No name.
    pub const NONE: Self = Self(0);
    /// Every name.
    pub const ANY: Self = Self(u64::MAX);

    /// Those of a head.
    pub fn of(headers: &HeaderMap) -> Self {
        headers.keys().fold(Self::NONE, |names, name| names.with(name.as_str().as_bytes()))
    }

    /// These and one more.
    #[must_use]
    pub const fn with(self, name: &[u8]) -> Self {
        Self(self.0 | bit(name))
    }

    /// Whether this name, in whatever letters, may be one of them.
    pub const fn may_have(self, name: &[u8]) -> bool {
        self.0 & bit(name) != 0
    }
}

/// By length and first letter. With this factor hardly a field of browsers' falls on one that is looked for.
const fn bit(name: &[u8]) -> u64 {
    // the letters' cases differ in one bit
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
