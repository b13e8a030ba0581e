//! Path patterns of `route.path`: parsing and matching. `*` matches within one segment; a trailing `/**` matches the
//! path before it, with and without a slash, and everything below.

use crate::web::path::NormalPath;

/// `route.path` as used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPattern {
    /// The pattern as written.
    pub text: String,
    /// Its segments.
    pub segments: Vec<Segment>,
    /// Whether it ends in `/**`: it matches the path before it, with and without `/`, and everything below.
    pub open_end: bool,
}

/// One segment of a path pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// Exactly this text.
    Fixed(String),
    /// Text with `*` in it, split at the stars: `a*b` is `["a", "b"]`, `*` is `["", ""]`.
    Glob(Vec<String>),
}

impl PathPattern {
    /// Parses a pattern; the error says what is wrong.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text.to_ascii_lowercase().contains("%2a") {
            return Err("a wildcard cannot be percent-encoded");
        }
        let starless = text.replace('*', "x");
        NormalPath::parse(starless.as_bytes()).map_err(|_| "it is not a normalized path")?;
        let decoded: Vec<u8> = percent_encoding::percent_decode_str(text).collect();
        let decoded = String::from_utf8(decoded).map_err(|_| "its percent-escapes are not UTF-8")?;
        let (front, open_end) = match decoded.strip_suffix("/**") {
            Some(front) => (front, true),
            None => (decoded.as_str(), false),
        };
        if front.contains("**") {
            return Err("`**` is only allowed at the end, after a slash");
        }
        let segments =
            if front.is_empty() && open_end { Vec::new() } else { front[1..].split('/').map(segment).collect() };
        Ok(Self { text: text.to_owned(), segments, open_end })
    }

    /// Whether the pattern matches a path with its escapes decoded ([`NormalPath::decoded`], or one of its
    /// [`readings`](crate::web::readings)).
    pub fn matches(&self, path: &[u8]) -> bool {
        let Some(mut rest) = path.strip_prefix(b"/") else { return false };
        let mut ended = false;
        for segment in &self.segments {
            if ended {
                return false;
            }
            let end = rest.iter().position(|&b| b == b'/');
            let (own, next) = match end {
                Some(at) => (&rest[..at], &rest[at + 1..]),
                None => (rest, &rest[rest.len()..]),
            };
            ended = end.is_none();
            if !segment.matches(own) {
                return false;
            }
            rest = next;
        }
        // with no segments consumed, only `/**` matches
        self.open_end || (ended && rest.is_empty())
    }

    /// Whether this pattern matches every path that `other` matches. May return false negatives, never false positives.
    #[cfg(test)]
    pub(super) fn covers(&self, other: &Self) -> bool {
        let enough = if self.open_end {
            other.segments.len() >= self.segments.len()
        } else {
            !other.open_end && other.segments.len() == self.segments.len()
        };
        enough && self.segments.iter().zip(&other.segments).all(|(own, others)| own.covers(others))
    }
}

impl Segment {
    pub(super) fn matches(&self, text: &[u8]) -> bool {
        match self {
            Self::Fixed(own) => own.as_bytes() == text,
            Self::Glob(parts) => glob(parts, text),
        }
    }

    /// Whether this segment matches every text that `other` matches. May return false negatives, never false positives.
    pub(super) fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Fixed(own), Self::Fixed(others)) => own == others,
            (Self::Glob(parts), Self::Fixed(others)) => glob(parts, others.as_bytes()),
            (Self::Glob(parts), Self::Glob(others)) => parts == others || parts.iter().all(String::is_empty),
            (Self::Fixed(_), Self::Glob(_)) => false,
        }
    }
}

fn segment(text: &str) -> Segment {
    if text.contains('*') {
        Segment::Glob(text.split('*').map(str::to_owned).collect())
    } else {
        Segment::Fixed(text.to_owned())
    }
}

/// Whether the text contains the parts in this order, starting with the first and ending with the last. A lone star
/// does not match an empty segment: `/x/*` does not match `/x/`.
fn glob(parts: &[String], text: &[u8]) -> bool {
    let [first, middle @ .., last] = parts else { return false };
    let Some(rest) = text.strip_prefix(first.as_bytes()) else { return false };
    let Some(mut rest) = rest.strip_suffix(last.as_bytes()) else { return false };
    if text.is_empty() {
        return false;
    }
    for part in middle.iter().filter(|part| !part.is_empty()) {
        let Some(at) = rest.windows(part.len()).position(|window| window == part.as_bytes()) else { return false };
        rest = &rest[at + part.len()..];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes(pattern: &str, path: &str) -> bool {
        let path = NormalPath::parse(path.as_bytes()).unwrap();
        PathPattern::parse(pattern).unwrap().matches(&path.decoded())
    }

    #[test]
    fn two_stars_take_the_path_itself_and_all_below_but_no_longer_name() {
        for path in ["/x", "/x/", "/x/y", "/x/y/z/"] {
            assert!(takes("/x/**", path), "{path}");
        }
        for path in ["/", "/xy", "/xy/z", "/x.json", "/a/x"] {
            assert!(!takes("/x/**", path), "{path}");
        }
        assert!(["/", "/a", "/a/b/"].into_iter().all(|path| takes("/**", path)));
    }

    #[test]
    fn one_star_stays_within_its_segment() {
        for (pattern, path, taken) in [
            ("/a/*/c", "/a/b/c", true),
            ("/a/*/c", "/a/b/b/c", false),
            ("/a/*", "/a/b", true),
            ("/a/*", "/a/", false),
            ("/a/*", "/a/b/", false),
            ("/*.css", "/x.css", true),
            ("/*.css", "/a/x.css", false),
            ("/v*-*/x", "/v1-2/x", true),
            ("/v*-*/x", "/v12/x", false),
            ("/aa*aa", "/aaa", false),
            ("/x/*/**", "/x/y", true),
            ("/x/*/**", "/x", false),
        ] {
            assert_eq!(takes(pattern, path), taken, "{pattern} {path}");
        }
    }

    #[test]
    fn a_path_without_stars_is_exact_and_escapes_are_read_alike_on_both_sides() {
        for (pattern, path, taken) in [
            ("/", "/", true),
            ("/", "/a", false),
            ("/a", "/a", true),
            ("/a", "/a/", false),
            ("/a/", "/a/", true),
            ("/a/", "/a", false),
            ("/@x/**", "/%40x/y", true),
            ("/caf%C3%A9", "/caf%C3%A9", true),
            ("/a", "/A", false),
        ] {
            assert_eq!(takes(pattern, path), taken, "{pattern} {path}");
        }
    }

    #[test]
    fn patterns_that_read_two_ways_are_refused() {
        for pattern in ["", "a", "//", "/a/../b", "/a;b", "/a/**/b", "/a**", "/%2e", "/a\\b"] {
            assert!(PathPattern::parse(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn one_pattern_covers_another_only_if_it_takes_all_of_it() {
        let covers =
            |own: &str, other: &str| PathPattern::parse(own).unwrap().covers(&PathPattern::parse(other).unwrap());
        for (own, other, yes) in [
            ("/**", "/a", true),
            ("/a/**", "/a/b/**", true),
            ("/a/**", "/a", true),
            ("/a/**", "/b", false),
            ("/a", "/a/**", false),
            ("/a/*", "/a/b", true),
            ("/a/*", "/a/b*", true),
            ("/a/b", "/a/*", false),
        ] {
            assert_eq!(covers(own, other), yes, "{own} {other}");
        }
    }
}
